"""What all readers of an engine keep together of heads, lines and parts that are not whole yet, and who is given up when it is
too much.

Each reader has a limit of its own, which is large, because real heads are; all connections of a full table at that limit would
be 25 GB. Given up is who keeps most: an attacker's halves of heads are larger than those of honest programs, of which a hundred
thousand fit. Of those that keep about as much (a power of two) it is who has kept it longest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

MAX_UNREAD_BYTES = 24 << 20
"""Of an engine: 60 heads of the largest size that servers take, or 6,000 of the usual 4 KB, at one moment. With the streams'
budget it leaves half of what the app may use to the flows themselves."""

TOO_MUCH_UNREAD = "too many connections are not whole"
"""What is told of who is given up."""

_SMALLEST = 8
"""Who keeps less than 2**8 bytes is counted, and never given up: a flow costs more than that anyway."""


class Keeper(Protocol):
    """Who keeps bytes, and may be told to stop."""

    def give_up(self) -> None: ...


class Unread:
    """See the module. Not more than a few dictionary operations for each change, whatever is kept."""

    __slots__ = ("_classes", "_limit_bytes", "held_bytes")

    def __init__(self, limit_bytes: int = MAX_UNREAD_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._classes: list[OrderedDict[Keeper, None]] = []
        self.held_bytes = 0

    def change(self, keeper: Keeper, before: int, after: int) -> None:
        """`keeper` keeps so many bytes after so many before; it says so each time, and 0 at its end."""
        self.held_bytes += after - before
        was, is_now = _class_of(before), _class_of(after)
        if was != is_now:
            if was:
                del self._classes[was][keeper]
            if is_now:
                while len(self._classes) <= is_now:
                    self._classes.append(OrderedDict())
                self._classes[is_now][keeper] = None

    def next_victim(self) -> Keeper | None:
        """Who is to be given up; None while what is kept is not too much. Asked again after that one keeps nothing any more."""
        if self.held_bytes > self._limit_bytes:
            for keepers in reversed(self._classes):
                if keepers:
                    return next(iter(keepers))
        return None


def _class_of(size_bytes: int) -> int:
    return max(0, size_bytes.bit_length() - _SMALLEST)
