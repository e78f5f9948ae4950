"""Bytes of a stream with gaps, and where each of them lies in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Window:
    """What came and was not consumed yet, in `data`; an index into it has an offset of the stream."""

    __slots__ = ("_before", "_indices", "_offsets", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._before: int | None = None  # the offset behind the byte that was consumed last
        self._indices: list[int] = []  # where contiguous stretches begin in `data` …
        self._offsets: list[int] = []  # … and in the stream

    def append(self, start: int, data: bytes) -> None:
        """More bytes, from offset `start` on."""
        if self._before is None:
            self._before = start
        if not self._indices or self.offset(len(self.data)) != start:
            self._indices.append(len(self.data))
            self._offsets.append(start)
        self.data += data

    def offset(self, index: int) -> int:
        """Where the byte at `index` lies; for the end, where the next one would without a gap."""
        if not self._indices:
            return self._before or 0
        at = bisect_right(self._indices, index) - 1
        return self._offsets[at] + index - self._indices[at]

    def offset_after(self, index: int) -> int:
        """The offset behind the byte before `index`, whatever gap follows."""
        return self.offset(index - 1) + 1 if index else self._before or 0

    def pieces(self, last: int) -> Iterator[tuple[int, int, bytes]]:
        """data[:last] as (start, end, bytes), cut at the gaps."""
        at = 0
        for number, offset in enumerate(self._offsets):
            if at >= last:
                break
            following = self._indices[number + 1] if number + 1 < len(self._indices) else last
            piece = bytes(self.data[at : min(following, last)])
            yield offset, offset + len(piece), piece
            at += len(piece)

    def consume(self, count: int) -> None:
        """Forgets data[:count]."""
        if not count:
            return
        self._before = self.offset_after(count)
        if count >= len(self.data):
            self.data.clear()
            self._indices, self._offsets = [], []
            return
        at = bisect_right(self._indices, count) - 1
        self._offsets = [self.offset(count), *self._offsets[at + 1 :]]
        self._indices = [0, *(index - count for index in self._indices[at + 1 :])]
        del self.data[:count]
