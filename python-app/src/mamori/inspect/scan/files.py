"""One file that is being scanned: what is known of it, and the bytes that clamd has not taken yet. Knows no socket."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mamori.inspect.scan.verdicts import Unscanned, Verdict

if TYPE_CHECKING:
    from mamori.inspect.scan.sessions import StreamSession

CHECKPOINTS = (256 * 1024, 1024 * 1024, 4 * 1024 * 1024)
"""Where a large file's beginning is scanned by itself, so that a virus in it is found while the rest is still to come. Each is four
times the one before, so all of them up to one are 4/3 of it."""
CHECKPOINT_PART = 3
"""A beginning is scanned only when the file has this many times its bytes: what is scanned twice then stays below 4/9 of the file.
If the length is known in advance that is as soon as the beginning is here, else when so much has come."""


class Backlog:
    """The stretch of a stream that somebody still needs: bytes [start, end), in one buffer that all sessions read."""

    __slots__ = ("_data", "start")

    def __init__(self) -> None:
        self._data = bytearray()
        self.start = 0

    def __len__(self) -> int:
        return len(self._data)

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    def append(self, data: bytes | memoryview) -> None:
        self._data += data

    def view(self, start: int, end: int) -> memoryview:
        """The bytes [start, end). Release it before anything else is done here: a buffer that is looked at cannot grow.

        ValueError if they were let go, which would be a bug: an error costs one file, an empty view would be sent for ever."""
        if start != end and not self.start <= start < end <= self.end:
            raise ValueError(f"bytes {start} to {end} of a backlog from {self.start} to {self.end}")
        with memoryview(self._data) as whole:
            return whole[start - self.start : end - self.start]

    def release(self, offset: int) -> int:
        """Nobody needs what is before `offset`; how many bytes were let go."""
        count = min(max(0, offset - self.start), len(self._data))
        del self._data[:count]
        self.start += count
        return count


class FileScan:
    """`stopped` is why clamd is not asked (any more): the file is only hashed then. `answer` is what clamd said of all that it got.
    `generation` is that of the database when the first session began, None before. `is_over`: it has its verdict."""

    __slots__ = (
        "_hash",
        "answer",
        "backlog",
        "digest",
        "expected_bytes",
        "finished_at",
        "generation",
        "is_over",
        "length",
        "number",
        "sessions",
        "stopped",
    )

    def __init__(self, number: int, expected_bytes: int | None) -> None:
        self.number = number
        self.expected_bytes = expected_bytes
        self.length = 0
        self.backlog = Backlog()
        self.digest = b""
        self.finished_at: float | None = None
        self.generation: int | None = None
        self.is_over = False
        self.sessions: list[StreamSession] = []
        self.stopped: Unscanned | None = None
        self.answer: Verdict | None = None
        self._hash = hashlib.sha256()

    @property
    def goes_to_clamd(self) -> bool:
        """clamd gets what comes, or will get it."""
        return self.stopped is None and self.answer is None and not self.is_over

    @property
    def is_streamed(self) -> bool:
        """clamd gets it while it comes."""
        return any(session.end is None for session in self.sessions)

    def receive(self, data: bytes | memoryview, max_scan_bytes: int) -> int:
        """Count and hash the file's next bytes, and keep those for clamd; how many those are."""
        self._hash.update(data)
        self.length += len(data)
        if not self.goes_to_clamd:
            return 0
        room = max_scan_bytes - self.backlog.end
        kept = data if len(data) <= room else data[:room]
        self.backlog.append(kept)
        return len(kept)

    def finish(self, now: float) -> None:
        self.finished_at = now
        self.digest = self._hash.digest()

    def is_last(self, end: int | None, max_scan_bytes: int) -> bool:
        """Whether a session that ends at `end` (None: with the file) has all that it will get, and may say so."""
        if end is None:
            return self.finished_at is not None or self.backlog.end >= max_scan_bytes
        return self.backlog.end >= end and self.has(CHECKPOINT_PART * end)

    def has(self, length: int) -> bool:
        """It has so many bytes, or its sender says that it will."""
        return self.length >= length or (self.expected_bytes or 0) >= length


def checkpoints(expected_bytes: int | None, max_scan_bytes: int) -> tuple[int, ...]:
    """Where a file's beginning is to be scanned by itself, when all that is known is what its sender says of its length."""
    longest = max_scan_bytes if expected_bytes is None else min(expected_bytes, max_scan_bytes)
    return tuple(end for end in CHECKPOINTS if end * CHECKPOINT_PART <= longest)
