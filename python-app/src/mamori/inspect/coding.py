"""Content codings of HTTP (RFC 9110, section 8.4), undone as the bytes come: gzip, deflate, and zstd where Python has it.

Clients are the measure. They keep what was decoded before a stream broke, so trouble is no exception here: the decoder
gives what it has, says in `unseen` why there is no more, and swallows the rest. br is recognised and unseen, since the
standard library does not have it. A coding that nobody knows changes nothing: Chrome and Firefox then show the bytes as they are.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

if sys.version_info >= (3, 14):
    try:
        from compression import zstd
    except ImportError:  # Python built without libzstd
        zstd = None
else:
    zstd = None

MAX_CODINGS = 5
"""Layers of coding over one body, as in curl (MAX_ENCODE_STACK). Servers use one; two are an accident or an evasion."""

MAX_DECODED_BYTES = 256 << 20
"""What one body may decode to. Beyond what scanners take (clamd's StreamMaxLength is 100 MB), all else only costs time."""

MAX_RATIO = 200
"""Decoded bytes for each byte that came, once FREE_BYTES are used up. Text gives 3 to 20, logs to 100; deflate ends at 1032."""

FREE_BYTES = 4 << 20
"""What may come out before the ratio counts: a blank bitmap or a page of zeros is small and harmless. Also bounds one call:
it gives at most FREE_BYTES and MAX_RATIO times what it was fed."""

MAX_MEMBERS = 10_000
"""Members or frames in one body: each costs a new decompressor, however little is in it. bgzip makes one for 64 KiB."""

_MAX_DOUBT_BYTES = 64 << 10
"""How long a deflate stream that gives nothing is kept, for a second reading. A header and a Huffman table need some 350 bytes."""

_WINDOW_RAW, _WINDOW_ZLIB, _WINDOW_GZIP = -15, 15, 31
_GZIP_MAGIC = b"\x1f\x8b"


class Unseen(Enum):
    """Why the decoded form of a body, or the rest of it, is not known."""

    UNSUPPORTED = "a coding that this system cannot undo"
    CORRUPT = "not what its coding says"
    RATIO = "it inflates beyond reason"
    SIZE = "it is too large"
    DEPTH = "too many codings over one another, or too many pieces"
    PARTIAL = "a part from the middle of a coded body"


_SAME = frozenset({"", "identity", "none"})
_UNSUPPORTED = frozenset({"br", "dcb", "dcz", "compress", "x-compress"} | ({"zstd"} if zstd is None else set()))
_GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = frozenset({"deflate", "x-deflate"})


class _Stage(Protocol):
    """One coding. Gives at most `room` + 1 bytes for `data`, so that the caller sees that it was too much."""

    def decode(self, data: bytes, room: int) -> tuple[bytes, Unseen | None]: ...


class BodyDecoder:
    """Undoes the codings of one body, given in the order in which they were applied (that of the Content-Encoding field)."""

    __slots__ = ("_fed", "_given", "_stages", "unseen")

    def __init__(self, codings: Iterable[str]) -> None:
        known = [name for name in (coding.strip().lower() for coding in codings) if name not in _SAME]
        self.unseen: Unseen | None = None
        if any(name in _UNSUPPORTED for name in known):
            self.unseen = Unseen.UNSUPPORTED
        elif len(known) > MAX_CODINGS:
            self.unseen = Unseen.DEPTH
        stages = (_stage(name) for name in reversed(known))
        self._stages: list[_Stage] = [] if self.unseen else [stage for stage in stages if stage]
        self._fed = self._given = 0

    @property
    def changes(self) -> bool:
        """False when what comes out is what goes in: then there is no need to ask."""
        return bool(self._stages) or self.unseen is not None

    def receive(self, data: bytes | memoryview) -> bytes:
        """What these bytes decode to; nothing once `unseen` is set."""
        if self.unseen:
            return b""
        self._fed += len(data)
        budget = min(max(FREE_BYTES, MAX_RATIO * self._fed), MAX_DECODED_BYTES)
        room = budget - self._given
        plain = bytes(data)
        for stage in self._stages:
            plain, trouble = stage.decode(plain, room)
            if len(plain) > room:
                plain, trouble = plain[:room], Unseen.SIZE if budget == MAX_DECODED_BYTES else Unseen.RATIO
            self.unseen = self.unseen or trouble
        if self.unseen:
            self._stages = []
        self._given += len(plain)
        return plain


def _stage(coding: str) -> _Stage | None:
    if coding in _GZIP:
        return _Gzip()
    if coding in _DEFLATE:
        return _Deflate()
    if zstd is not None and coding == "zstd":
        return _Zstd()
    return None


class _Gzip:
    """RFC 1952. Further members are read on, as RFC 1952 (2.2) says and Firefox and Python do; Chrome and curl stop after
    the first. Bytes after the end that are no member are ignored, as all of them do. What does not begin as gzip is given as
    it is: wget, and curl unless it is told to decode, keep it so."""

    __slots__ = ("_between", "_inflate", "_is_plain", "_members", "_start")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_WINDOW_GZIP)
        self._start = b""
        self._is_plain: bool | None = None
        self._between: bytes | None = None  # what came after a member, until it is clear whether another one follows
        self._members = 1

    def decode(self, data: bytes, room: int) -> tuple[bytes, Unseen | None]:
        if self._is_plain is None:
            data = self._start = self._start + data
            self._is_plain = False if data.startswith(_GZIP_MAGIC) else None if _GZIP_MAGIC.startswith(data) else True
            if self._is_plain is None:
                return b"", None
            self._start = b""
        if self._is_plain:
            return data[: room + 1], None
        return self._inflated(data, room)

    def _inflated(self, data: bytes, room: int) -> tuple[bytes, Unseen | None]:
        parts: list[bytes] = []
        while data and room >= 0:
            if self._between is not None:
                data = self._next_member(self._between + data)
                if self._between is not None:
                    break
            if self._members > MAX_MEMBERS:
                return b"".join(parts), Unseen.DEPTH
            part, trouble = _inflated(self._inflate, data, room)
            parts.append(part)
            room -= len(part)
            if trouble:
                return b"".join(parts), trouble
            data = self._inflate.unused_data
            self._between = b"" if self._inflate.eof else None
        return b"".join(parts), None

    def _next_member(self, data: bytes) -> bytes:
        if not data.startswith(_GZIP_MAGIC[: len(data)]):
            self._between = b"\0"  # can never become a magic: all that comes is ignored
        elif len(data) < len(_GZIP_MAGIC):
            self._between = data
        else:
            self._between, self._inflate = None, zlib.decompressobj(_WINDOW_GZIP)
            self._members += 1
        return data


class _Deflate:
    """`deflate` is zlib (RFC 1950) by the book and often raw (RFC 1951) in life. Like Chrome and curl: zlib is tried, and
    if it fails before it gave anything, the same bytes are read as raw deflate."""

    __slots__ = ("_doubt", "_inflate")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_WINDOW_ZLIB)
        self._doubt: bytearray | None = bytearray()  # all that was fed, while nothing has come out

    def decode(self, data: bytes, room: int) -> tuple[bytes, Unseen | None]:
        if self._doubt is not None:
            self._doubt += data
        plain, trouble = _inflated(self._inflate, data, room)
        if self._doubt is not None and trouble and not plain:
            self._inflate = zlib.decompressobj(_WINDOW_RAW)
            plain, trouble = _inflated(self._inflate, bytes(self._doubt), room)
            self._doubt = None
        elif self._doubt is not None and (plain or len(self._doubt) > _MAX_DOUBT_BYTES):
            self._doubt = None
        return plain, trouble


def _inflated(inflate: zlib._Decompress, data: bytes, room: int) -> tuple[bytes, Unseen | None]:
    """What zlib makes of `data`, at most `room` + 1 bytes.

    On an error zlib's Python binding throws away what it had decoded before, and a client would not: a wrong checksum at
    the very end would hide a whole body that came in one segment. So the good part is found by halving.
    """
    before = inflate.copy()
    try:
        return inflate.decompress(data, room + 1), None
    except zlib.error:
        pass
    good: list[bytes] = []
    while len(data) > 1 and room >= 0:
        half = len(data) // 2
        trial = before.copy()
        try:
            part = trial.decompress(data[:half], room + 1)
        except zlib.error:
            data = data[:half]
            continue
        good.append(part)
        room -= len(part)
        before, data = trial, data[half:]
    return b"".join(good), Unseen.CORRUPT


if zstd is not None:
    _ZSTD_OPTIONS = {zstd.DecompressionParameter.window_log_max: 23}

    class _Zstd:
        """RFC 8878. Frames may follow one another. Windows above 8 MiB are refused, as RFC 9659 has it for HTTP."""

        __slots__ = ("_frame", "_frames")

        def __init__(self) -> None:
            self._frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
            self._frames = 1

        def decode(self, data: bytes, room: int) -> tuple[bytes, Unseen | None]:
            parts: list[bytes] = []
            while data and room >= 0:
                if self._frames > MAX_MEMBERS:
                    return b"".join(parts), Unseen.DEPTH
                if self._frame.eof:
                    self._frame, self._frames = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS), self._frames + 1
                try:
                    part = self._frame.decompress(data, room + 1)
                except zstd.ZstdError:
                    return b"".join(parts), Unseen.CORRUPT
                parts.append(part)
                room -= len(part)
                data = self._frame.unused_data
            return b"".join(parts), None
