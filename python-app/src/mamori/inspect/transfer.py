"""Content-Transfer-Encodings (RFC 2045, section 6) undone as the bytes come, as mail readers do it, not as the RFC would have it.

    decoder.receive(data)     the decoded bytes of what is complete; a few bytes may wait for the next call
    decoder.end()             what was waiting

No input is an error. `is_odd` is set once readers would decode what came in different ways.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from enum import Enum
from typing import Protocol

from mamori.inspect.findings import Coding

MAX_HELD_BLANKS = 200
"""Spaces between `=` and a line end that are held while the line end has not come. A line has at most 76 characters by RFC 2045."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NO_BASE64 = bytes(byte for byte in range(256) if byte not in _ALPHABET + b"=")


class Transfer(Enum):
    """How a part's content is encoded, with the names that readers take for it. UUENCODE has a name and lines of its own."""

    IDENTITY = ("7bit", "8bit", "binary")
    BASE64 = ("base64", "x-base64")
    QUOTED_PRINTABLE = ("quoted-printable",)
    UUENCODE = ("x-uuencode", "uuencode", "x-uue", "uue")


TRANSFERS = {name: transfer for transfer in Transfer for name in transfer.value}


class Decoder(Protocol):
    """See the module. `coding` says how its input may be written over, `held_bytes` how much waits."""

    @property
    def coding(self) -> Coding: ...
    @property
    def is_odd(self) -> bool: ...
    @property
    def held_bytes(self) -> int: ...
    def receive(self, data: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class Identity:
    """7bit, 8bit, binary, and what nobody knows (RFC 2045, section 6.4). Its lines must stay lines, whatever the type says: mail
    servers have limits for them."""

    __slots__ = ()
    coding, is_odd, held_bytes = Coding.TEXT, False, 0

    def receive(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class Base64:
    """All but the alphabet is skipped (RFC 2045, section 6.8). Missing padding is no matter; a lone character at the end is lost.

    Padding in the middle: some stop there (Python), some go on with a new group of four (libmime). We go on, since that
    shows the bytes of both, and say that it is odd.
    """

    __slots__ = ("_carry", "_is_padded", "is_odd")
    coding = Coding.BASE64

    def __init__(self) -> None:
        self._carry = b""
        self._is_padded = self.is_odd = False

    @property
    def held_bytes(self) -> int:
        return len(self._carry)

    def receive(self, data: bytes) -> bytes:
        text = self._carry + data.translate(None, _NO_BASE64)
        if b"=" in text:
            return self._padded(text)
        if self._is_padded and text != self._carry:
            self.is_odd = True
        whole = len(text) & -4
        self._carry = text[whole:]
        return a2b_base64(text[:whole])

    def _padded(self, text: bytes) -> bytes:
        *groups, last = text.split(b"=")
        decoded: list[bytes] = []
        pending = b""
        for group in groups:
            if group and self._is_padded:
                self.is_odd = True
            pending += group
            # Fewer than two characters are no group yet: there, readers skip the sign like any garbage.
            if len(pending) % 4 >= 2:
                self._is_padded = True
                decoded.append(_last_group(pending))
                pending = b""
            elif len(pending) >= 4:
                whole = len(pending) & -4
                decoded.append(a2b_base64(pending[:whole]))
                pending = pending[whole:]
        if last and self._is_padded:
            self.is_odd = True
        pending += last
        whole = len(pending) & -4
        decoded.append(a2b_base64(pending[:whole]))
        self._carry = pending[whole:]
        return b"".join(decoded)

    def end(self) -> bytes:
        text, self._carry = self._carry, b""
        return _last_group(text)


def _last_group(text: bytes) -> bytes:
    """A group with its padding put back; a single character holds no byte."""
    over = len(text) % 4
    return a2b_base64(text[: len(text) - 1] if over == 1 else text + b"=" * (-over % 4))


_QP_INCOMPLETE = re.compile(rb"=(?:[0-9A-Fa-f]|[ \t]*+\r?)\Z")
# A soft line break with blanks before its line end (RFC 2045, 6.7, rule 3), or a bare CR: binascii would skip the text after it.
_QP_ODD_BREAK = re.compile(rb"=(?:[ \t]++\r?\n|[ \t]*+\r(?!\n))")
_QP_DOUBLE = re.compile(rb"=(?==)")


class QuotedPrintable:
    """Lenient: lower-case digits, blanks in a soft line break, `=` before what is no number stands for itself."""

    __slots__ = ("_carry",)
    coding, is_odd = Coding.QUOTED_PRINTABLE, False

    def __init__(self) -> None:
        self._carry = b""

    @property
    def held_bytes(self) -> int:
        return len(self._carry)

    def receive(self, data: bytes) -> bytes:
        if self._carry:
            data = self._carry + data
        last = data.rfind(b"=", max(0, len(data) - MAX_HELD_BLANKS))
        held = last if last >= 0 and _QP_INCOMPLETE.match(data, last) else len(data)
        self._carry = data[held:]
        return _unquoted(data[:held], self._carry[:1])

    def end(self) -> bytes:
        data, self._carry = self._carry, b""
        return _unquoted(data)


def _unquoted(data: bytes, after: bytes = b"") -> bytes:
    """`after` is the sign that was held back behind `data`, if one was."""
    data = _QP_ODD_BREAK.sub(b"=\n", data)
    if b"==" in data or (after and data.endswith(b"=")):
        # binascii takes `==` for one sign, a leniency for an old bug of its own; nobody else does.
        data = _QP_DOUBLE.sub(b"=3D", data + after)
        data = data[: len(data) - len(after)]
    return a2b_qp(data)


def decoder_of(transfer: Transfer) -> Decoder:
    """UUENCODE's content has its own lines around it, found by uuencode.UuFinder; the part itself is as it is."""
    if transfer is Transfer.BASE64:
        return Base64()
    if transfer is Transfer.QUOTED_PRINTABLE:
        return QuotedPrintable()
    return Identity()
