"""Which of two versions is the newer: calendar versions in the order of semantic versioning (semver.org, 2.0.0, clause 11)."""

from __future__ import annotations

import re
from functools import total_ordering

from mamori.formats.problems import MamoriError

_VERSION = re.compile(r"(\d{4})\.(\d{1,2})\.(\d{1,6})(?:-([0-9A-Za-z.-]{1,64}))?(?:\+[0-9A-Za-z.-]{1,64})?", re.ASCII)


class VersionError(MamoriError):
    """Not a version like 2026.11.0, 2026.12.0-rc.1 or 2026.11.0+g0123456789."""


@total_ordering
class VersionOrder:
    """A version's place among others. What stands behind `+` says where a build came from, and counts for nothing."""

    __slots__ = ("_numbers", "_stages")

    def __init__(self, version: str) -> None:
        match = _VERSION.fullmatch(version)
        if match is None:
            raise VersionError(f"{version[:80]!r} is no version like 2026.11.0")
        self._numbers = tuple(int(part) for part in match.group(1, 2, 3))
        # Clause 11.4: numbers below words, fewer parts below more, and anything below the release itself.
        parts = match[4].split(".") if match[4] is not None else None
        self._stages = (1,) if parts is None else (0, *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VersionOrder):
            return NotImplemented
        return self._key() == other._key()

    def __lt__(self, other: VersionOrder) -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self._numbers, self._stages


def is_newer(version: str, than: str) -> bool:
    """VersionError for what is none."""
    return VersionOrder(version) > VersionOrder(than)
