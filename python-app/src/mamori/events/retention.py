"""How long and how much is kept. Decisions only; `Store` does what they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DAY_S = 86_400

EVENTS_DAYS = 90
"""An owner who asks about last quarter's incident gets an answer; the monthly report needs 31."""

MINUTES_DAYS = 2
"""For the portal's live view, and `what happened just now`, over a night."""

HOURS_DAYS = 60
"""This month and the last, by the hour."""

DAYS_DAYS = 731
"""This month against the same month of last year, whichever way a leap year falls."""

MAX_DATABASE_BYTES = 256 * 1024 * 1024
"""Some 500,000 events with an office's roll-ups; ten times what a busy office makes in 90 days."""

MAX_DISK_SHARE = 0.1
"""Of the data partition, where updates and feeds need room too."""

MIN_DATABASE_BYTES = 4 * 1024 * 1024
"""However small the partition is: below this nothing could be kept at all."""

SETTLE_S = 3600.0
"""The wall clock must go steadily for so long before anything is dropped for its age: a wrong time from a server for a minute
must not empty the database. What has come meanwhile is bounded by size."""

STEADY_S = 60.0
"""Wall and monotonic clock may drift apart by so much from one look to the next; more is a clock that was set."""

MAX_CLOCK_AGE_S = 20 * 365 * DAY_S
"""A clock more than this after the build time is wrong."""


@dataclass(frozen=True)
class Cutoffs:
    """What is older goes, in Unix seconds."""

    events_s: float
    minutes_s: float
    hours_s: float
    days_s: float


def plan_cutoffs(now_s: float) -> Cutoffs:
    """What is too old at this time (Unix seconds)."""
    return Cutoffs(*(now_s - days * DAY_S for days in (EVENTS_DAYS, MINUTES_DAYS, HOURS_DAYS, DAYS_DAYS)))


def plan_size(partition_bytes: int) -> int:
    """How many bytes the database may have on a partition of this size."""
    return max(MIN_DATABASE_BYTES, min(MAX_DATABASE_BYTES, int(partition_bytes * MAX_DISK_SHARE)))


@dataclass(frozen=True)
class ClockWatch:
    """Whether the wall clock can be trusted with what is old. `steady_since` is monotonic."""

    offset_s: float
    steady_since: float

    def look(self, wall_s: float, now: float) -> ClockWatch:
        """The watch after a look at both clocks, at least every few minutes."""
        offset_s = wall_s - now
        is_steady = abs(offset_s - self.offset_s) <= STEADY_S
        return ClockWatch(offset_s, self.steady_since if is_steady else now)

    def is_settled(self, wall_s: float, now: float, build_s: float) -> bool:
        return build_s <= wall_s <= build_s + MAX_CLOCK_AGE_S and now - self.steady_since >= SETTLE_S


def expired_up_to(rows: Iterable[tuple[int, float, bool]], cutoff_s: float) -> int | None:
    """The id up to which rows (id, time, whether its clock was good; by id) are too old, or None. Those whose time is not
    known are as old as the next one whose time is."""
    last = None
    for number, at_s, is_clock_good in rows:
        if is_clock_good:
            if at_s >= cutoff_s:
                break
            last = number
    return last
