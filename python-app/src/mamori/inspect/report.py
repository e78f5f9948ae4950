"""The inspection service's report to the rest of the box: JSON, replaced as a whole every PUBLISH_EVERY_S."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mamori.inspect.core import PUBLISH_EVERY_S, Publish
from mamori.sysfs import UnreadableError, read_bytes

STALE_AFTER_S = 5 * PUBLISH_EVERY_S
"""A report older than this is of a service that hangs or was killed."""


def encode_report(command: Publish, now: float, packets: Mapping[str, Any] | None = None) -> bytes:
    """The report, with what the guard says of its workers. Times are in seconds since boot (CLOCK_MONOTONIC), because the wall
    clock may jump."""
    ports = {port.name: port for port in command.sample.ports}
    report = {
        "condition": command.judgement.condition.value,
        "text": command.judgement.text,
        "since_monotonic_s": round(command.since, 3),
        "at_monotonic_s": round(now, 3),
        "bridge": asdict(command.sample.bridge) if command.sample.bridge else None,
        "ports": [
            {"condition": condition.value, **(asdict(ports[name]) if name in ports else {"name": name})}
            for name, condition in command.judgement.ports.items()
        ],
        "packets": packets,
    }
    return f"{json.dumps(report)}\n".encode()


def write_report(path: Path, content: bytes) -> None:
    """Replace the report, so that a reader sees the old or the new one. On /run nothing outlives a power cut: no fsync."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def read_report(path: Path) -> dict[str, Any]:
    """The last report; UnreadableError if there is none."""
    try:
        report = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict) or not _is_time(report.get("at_monotonic_s")):
        raise UnreadableError(f"{path}: not a report")
    return report


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
