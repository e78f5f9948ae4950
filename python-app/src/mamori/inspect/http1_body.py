"""Where the body of an HTTP/1.x message lies in its stream (RFC 9112, sections 6 and 7): by length, in chunks, or to the end.

A framing answers one question, again and again: `run(data, at)` is the next stretch of body at or after `at`, as (first,
last) half open in `data`. Everything before `last` is then consumed; an empty stretch means that `data` is used up or the
message is `done`. So body bytes are never copied here, and a long body costs one call per segment.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple, Protocol

from mamori.inspect.http1_head import Anomaly, Fields, HttpError

MAX_CHUNK_LINE_BYTES = 16 << 10
"""The line with a chunk's size and extensions, or a trailer. Chrome's limit (HttpChunkedDecoder::kMaxLineBufLen); Firefox and
curl, which limit only the digits, are not used with such extensions by anyone."""

_MAX_SIZE_DIGITS = 15
"""Hexadecimal digits of a chunk's size without leading zeros: 2**60, far from every peer's overflow at 2**63."""

_STRICT_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*;[^\r]*)?\r")
_LENIENT_SIZE = re.compile(rb"[ \t]*+(?:0[xX])?([0-9A-Fa-f]++)|[ \t]*+(0)")
_DIGITS = re.compile(r"\+?([0-9]+)")
_MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: beyond 2**63 every peer overflows in its own way."""


class Framing(Protocol):
    """`odd`: peers would read this framing differently. `needs_bytes`: `run` wants bytes, not a memoryview."""

    @property
    def done(self) -> bool: ...
    @property
    def odd(self) -> bool: ...
    @property
    def needs_bytes(self) -> bool: ...
    def run(self, data: bytes | memoryview, at: int) -> tuple[int, int]: ...


class ByLength:
    """So many bytes."""

    __slots__ = ("_left",)
    needs_bytes = odd = False

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return not self._left

    def run(self, data: bytes | memoryview, at: int) -> tuple[int, int]:
        last = min(at + self._left, len(data))
        self._left -= last - at
        return at, last


class ToEnd:
    """All that comes until the connection ends."""

    __slots__ = ()
    needs_bytes = odd = done = False

    def run(self, data: bytes | memoryview, at: int) -> tuple[int, int]:
        return at, len(data)


class _In(Enum):
    SIZE = "the line with a chunk's size"
    DATA = "its bytes"
    AFTER = "the line end after them"
    TRAILER = "the fields after the last chunk, up to an empty line"
    NOTHING = "past the end"


class InChunks:
    """Chunked (RFC 9112, section 7.1), as lenient as its readers: LF alone ends a line (all); anything may follow the digits
    (curl); white space and `0x` may precede them (Firefox, http.client); empty lines before a size are skipped (Firefox).
    Extensions and trailers are read over."""

    __slots__ = ("_held", "_in", "_left", "odd")
    needs_bytes = True

    def __init__(self) -> None:
        self.odd = False
        self._in = _In.SIZE
        self._left = 0
        self._held = bytearray()

    @property
    def done(self) -> bool:
        return self._in is _In.NOTHING

    @property
    def held(self) -> bytes:
        """The part of a line that earlier segments brought."""
        return bytes(self._held)

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def run(self, data: bytes | memoryview, at: int) -> tuple[int, int]:
        while at < len(data) and self._in is not _In.NOTHING:
            if self._in is _In.DATA:
                last = min(at + self._left, len(data))
                self._left -= last - at
                if not self._left:
                    self._in = _In.AFTER
                return at, last
            at, line = self._line(data, at)
            if line is not None:
                self._on_line(line)
        return at, at

    def _line(self, data: bytes | memoryview, at: int) -> tuple[int, bytes | None]:
        """A line without its LF. Held bytes make it longer than what `data` brings."""
        assert isinstance(data, bytes)  # noqa: S101 - `needs_bytes`
        end = data.find(b"\n", at)
        if (end if end >= 0 else len(data)) - at + len(self._held) > MAX_CHUNK_LINE_BYTES:
            raise HttpError("a chunk's line is too long")
        if end < 0:
            self._held += data[at:]
            return len(data), None
        if not self._held:
            return end + 1, data[at:end]
        line = bytes(self._held) + data[at:end]
        self._held.clear()
        return end + 1, line

    def _on_line(self, line: bytes) -> None:
        if self._in is _In.SIZE:
            self._on_size(line)
        elif self._in is _In.TRAILER:
            if line in (b"", b"\r"):
                self._in = _In.NOTHING
        else:
            if line not in (b"", b"\r"):
                raise HttpError("a chunk is longer than its size")
            self.odd = self.odd or not line
            self._in = _In.SIZE

    def _on_size(self, line: bytes) -> None:
        found = _LENIENT_SIZE.match(line)
        if found:
            digits = (found[1] or found[2]).lstrip(b"0")
            if len(digits) > _MAX_SIZE_DIGITS:
                raise HttpError("a chunk is too large")
            self.odd = self.odd or not _STRICT_SIZE.fullmatch(line)
            self._left = int(digits or b"0", 16)
            self._in = _In.DATA if self._left else _In.TRAILER
        elif line in (b"", b"\r"):
            self.odd = True
        else:
            raise HttpError("a chunk without a size")


class FramingChoice(NamedTuple):
    """How a body is framed (None: there is none), and what is odd about that. `doubtful`: some clients do not take the chunks
    for chunks."""

    framing: Framing | None
    odd: tuple[Anomaly, ...] = ()
    doubtful: bool = False


NO_BODY = FramingChoice(None)


def choose_framing(fields: Fields, version: tuple[int, int], is_response: bool) -> FramingChoice:
    """How the body of this head is framed.

    Where a response is ambiguous everything up to the end is taken as its body, so that nothing hides behind it. A request
    cannot end with its connection; there the reading of servers that do not refuse it is taken.
    """
    found: list[Anomaly] = []
    codings = fields.tokens("transfer-encoding")
    length = _content_length(fields, is_response, found)
    if codings and codings != ["chunked"]:
        found.append(Anomaly.ODD_TRANSFER_CODING)
    if "chunked" in codings:
        doubtful = is_response and version < (1, 1)
        if version < (1, 1):
            found.append(Anomaly.CHUNKED_IN_1_0)
        if fields.get("content-length") is not None:
            found.append(Anomaly.LENGTH_AND_CHUNKED)
        return FramingChoice(InChunks(), tuple(found), doubtful)
    if length is None:
        return FramingChoice(ToEnd() if is_response else None, tuple(found))
    return FramingChoice(ByLength(length), tuple(found))


def _content_length(fields: Fields, is_response: bool, found: list[Anomaly]) -> int | None:
    """The length, or None: then a request has no body, and a response goes on to the end. `5, 5` is 5 to everyone."""
    stated = fields.all("content-length")
    if not stated:
        return None
    if len(stated) == 1 and stated[0].isascii() and stated[0].isdigit() and len(stated[0]) <= _MAX_LENGTH_DIGITS:
        return int(stated[0])
    values = fields.tokens("content-length") or stated
    numbers = [_DIGITS.match(value) for value in values]
    lengths = {int(number[1][:_MAX_LENGTH_DIGITS]) for number in numbers if number}
    if any(
        not number or number[1] != value or len(value) > _MAX_LENGTH_DIGITS for number, value in zip(numbers, values, strict=True)
    ):
        found.append(Anomaly.BAD_LENGTH)
        if is_response:
            return None
    if len(lengths) > 1:
        found.append(Anomaly.CONFLICTING_LENGTH)
        if is_response:
            return None
    return next((int(number[1][:_MAX_LENGTH_DIGITS]) for number in numbers if number), None)
