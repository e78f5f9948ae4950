"""The health gate: whether a trial may be confirmed, by what `mamori status` says and one write (docs/update.md §6.1).

It asks for what an office would miss, and for nothing that lies outside of the box: a provider's outage on the day of an update
must not roll back every appliance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamori.durable import write_durably

GATE_WITHIN_S = 240.0
"""From the updater's start. Everything is up in half a minute; under emulation, and on a disk that is checked first, in two."""

LOOK_EVERY_S = 3.0

STEADY_LOOKS = 3
"""So many looks in a row must be without a fault: a service that crashes every five seconds is up most of the time."""


def gate_within_s(environment: Mapping[str, str]) -> float:
    """Less, for a test: MAMORI_GATE_WITHIN_S in seconds. More is not to be had."""
    asked = environment.get("MAMORI_GATE_WITHIN_S", "")
    return min(float(asked), GATE_WITHIN_S) if asked.isascii() and asked.isdigit() else GATE_WITHIN_S


def find_faults(status: Mapping[str, Any], *, inspects: bool) -> list[str]:
    """What is wrong, for people; nothing if the box is healthy. `status` is that of mamori.status.read_status, `inspects` whether
    this image is to look at packets."""
    faults = [f"{part}: {why}" for part, why in status["unreadable"].items() if part in _NEEDED]
    bridge, inspect, data, clock, root = (status[part] for part in ("bridge", "inspect", "data", "clock", "root"))
    if bridge is not None and bridge["condition"] not in ("forwarding", "waiting"):
        faults.append(f"the bridge does not forward: {bridge['text']}")
    if root is not None and not root["verified"]:
        faults.append("the root file system is not verified")
    if inspect is not None:
        faults += _inspection_faults(inspect, inspects)
    if data is not None and data["read_only"]:
        faults.append("the data partition cannot be written")
    if clock is not None and not clock["sane"]:
        faults.append("the clock is behind the build time")
    return faults


def _inspection_faults(inspect: Mapping[str, Any], inspects: bool) -> list[str]:
    if not inspect["running"]:
        return ["the inspection does not answer"]
    packets = inspect["packets"]
    if not inspects:
        return []
    if packets is None:
        return ["the inspection leaves packets alone"]
    if packets["workers"] != packets["workers_wanted"]:
        return [f"{packets['workers']} of {packets['workers_wanted']} workers inspect"]
    return [f"the inspection has had {packets['bugs']} bugs"] if packets["bugs"] else []


def find_write_fault(folder: Path) -> str:
    """Whether the data partition takes a file and gives it back; "" if it does."""
    path = folder / "gate"
    try:
        write_durably(path, b"written by the health gate\n")
        content = path.read_bytes()
        path.unlink()
    except OSError as error:
        return f"the data partition cannot be written: {error.strerror}"
    return "" if content == b"written by the health gate\n" else "the data partition gives back something else than was written"


_NEEDED = ("bridge", "inspect", "events", "data", "clock", "root", "release")
