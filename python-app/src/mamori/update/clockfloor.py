"""The clock never runs behind the build time of the image, or behind the latest time that was seen (docs/update.md §3.1).

A box with a dead battery wakes up in 1970 and believes anything, for nothing has expired yet. So the system's clock is set forward
before anything asks it. It is never set back: a clock that is ahead is put right by time servers, or by a person.
"""

from __future__ import annotations

import time
from pathlib import Path

from mamori.durable import write_durably

SAVE_EVERY_S = 3600
"""How far the clock may fall back by a power cut."""

_LATEST = 253_402_300_799
"""A floor beyond the year 9999 is garbage."""


def read_floor(build_time: int, saved: Path) -> int:
    """The earliest time that can be, in Unix seconds. A file that cannot be read, or is garbage, counts for nothing."""
    try:
        with saved.open("rb") as file:
            text = file.read(32).decode("ascii", "replace").strip()
    except OSError:
        return build_time
    seen = int(text) if text.isdigit() else 0
    return max(build_time, seen) if seen <= _LATEST else build_time


def raise_clock(floor: int) -> bool:
    """Set the system's clock to the floor if it is behind; whether it was. OSError without the right to."""
    if time.time() >= floor:
        return False
    time.clock_settime(time.CLOCK_REALTIME, floor)
    return True


def save_time(saved: Path, now: int) -> None:
    """Remember that it is at least so late. OSError leaves the old time."""
    saved.parent.mkdir(parents=True, exist_ok=True)
    write_durably(saved, f"{now}\n".encode())


def is_save_due(saved: Path, now: int) -> bool:
    """Whether what is remembered is too old; a time that lies ahead is left."""
    try:
        seen = saved.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return True
    return not seen.isdigit() or now - int(seen) >= SAVE_EVERY_S
