"""The health gate: whether a trial may be confirmed, by what `mamori status` says and one write (docs/update.md §6.1).

It asks for what an office would miss, and for nothing that lies outside of the box: a provider's outage on the day of an update
must not roll back every appliance.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
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


def watch(look: Callable[[], list[str]], stop: threading.Event, within_s: float, every_s: float = LOOK_EVERY_S) -> list[str] | None:
    """Look until nothing has been wrong STEADY_LOOKS times in a row: []. What was wrong at last when the time is over; None when
    `stop` was set before."""
    deadline, steady, faults = time.monotonic() + within_s, 0, ["it was not looked at"]
    while time.monotonic() < deadline and not stop.wait(every_s):
        try:
            faults = look()
        except Exception as error:  # a mistake of ours here is a fault of this release
            faults = [f"the gate itself failed: {error!r}"]
        steady = 0 if faults else steady + 1
        if steady >= STEADY_LOOKS:
            return []
    return None if stop.is_set() else faults or ["it was not well for long enough"]


def count_bugs(status: Mapping[str, Any]) -> int:
    """The inspection's, since its workers have started."""
    packets = (status["inspect"] or {}).get("packets")
    return int(packets["bugs"]) if packets else 0


def find_faults(status: Mapping[str, Any], *, inspects: bool, bugs_before: int = 0) -> list[str]:
    """What is wrong, for people; nothing if the box is healthy. `status` is that of mamori.status.read_status, `inspects` whether
    this image is to look at packets, `bugs_before` what count_bugs said at the last look: one odd packet is no reason to go back,
    bugs that come and come are."""
    faults = [f"{part}: {why}" for part, why in status["unreadable"].items() if part in _NEEDED]
    bridge, inspect, data, clock, root = (status[part] for part in ("bridge", "inspect", "data", "clock", "root"))
    if bridge is not None and bridge["condition"] not in ("forwarding", "waiting"):
        faults.append(f"the bridge does not forward: {bridge['text']}")
    if root is not None and not root["verified"]:
        faults.append("the root file system is not verified")
    if inspect is not None:
        faults += _inspection_faults(inspect, inspects, bugs_before)
    if data is not None and data["read_only"]:
        faults.append("the data partition cannot be written")
    if clock is not None and not clock["sane"]:
        faults.append("the clock is behind the build time")
    return faults


def _inspection_faults(inspect: Mapping[str, Any], inspects: bool, bugs_before: int) -> list[str]:
    if not inspect["running"]:
        return ["the inspection does not answer"]
    packets = inspect["packets"]
    if not inspects:
        return []
    if packets is None:
        return ["the inspection leaves packets alone"]
    if packets["workers"] != packets["workers_wanted"]:
        return [f"{packets['workers']} of {packets['workers_wanted']} workers inspect"]
    fresh = packets["bugs"] - bugs_before
    return [f"the inspection has had {fresh} bugs since the last look"] if fresh > 0 else []


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
