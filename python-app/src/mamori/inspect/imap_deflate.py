"""One direction under COMPRESS=DEFLATE (RFC 4978): raw deflate without an end, flushed after every command or response."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from mamori.inspect.coding import FREE_BYTES, MAX_RATIO

STEP_BYTES = 64 << 10
"""How much is inflated at a time."""


class Inflater:
    """`trouble` is set when the rest of the stream cannot be read."""

    __slots__ = ("_fed", "_given", "_inflate", "trouble")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._fed = self._given = 0
        self.trouble = ""

    def receive(self, data: bytes) -> Iterator[bytes]:
        """What these bytes inflate to, in pieces of at most STEP_BYTES."""
        self._fed += len(data)
        full = True
        while (data or full) and not self.trouble:
            before = self._inflate.copy()
            try:
                plain = self._inflate.decompress(data, STEP_BYTES)
            except zlib.error:
                self.trouble = "not deflated as agreed"
                plain = _before_the_error(before, data)
            data = self._inflate.unconsumed_tail
            full = len(plain) == STEP_BYTES
            self._given += len(plain)
            if self._given > max(FREE_BYTES, MAX_RATIO * self._fed):
                self.trouble = "it inflates beyond reason"
            elif self._inflate.unused_data and not self.trouble:
                self.trouble = "more comes after the end"  # the end itself is how Dovecot says goodbye
            if plain:
                yield plain


def _before_the_error(inflate: zlib._Decompress, data: bytes) -> bytes:
    """The peer uses what comes before the error, but Python's zlib throws it away: byte by byte, once in a connection."""
    plain = bytearray()
    try:
        for byte in data:
            plain += inflate.decompress(bytes([byte]), STEP_BYTES)
            if len(plain) > STEP_BYTES:
                break
    except zlib.error:
        pass
    return bytes(plain)
