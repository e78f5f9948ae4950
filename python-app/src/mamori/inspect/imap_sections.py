"""Sections of messages that IMAP gives: BODY[], BODY[TEXT], BODY[1.2], whole or in pieces, each on its way into a MailReader.

A part without its header is read as a mail whose header is the one that the client knows it by: from BODY[1.2.MIME],
BODY[HEADER] or the BODYSTRUCTURE on the same connection, or else a guess from the content.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mamori.inspect.findings import Finding
from mamori.inspect.mail_lines import Message

MAX_KNOWN_BYTES = 256 << 10
"""Header blocks that are remembered for a connection; the oldest ones go. A part's is some 200 bytes."""

MAX_HEADER_BYTES = 4 << 10
"""Of one header block: only what says how the content is to be read, and who writes to whom."""

MAX_PIECEMEAL = 8
"""Sections of which a piece has come and the next one may. Clients fetch one mail after another."""

GUESS_BYTES = 1 << 10
"""How much of a section is looked at when nothing is known about it."""

_OVERHEAD_BYTES = 200  # of an entry, beside its bytes
_FIELD = re.compile(
    rb"^(?:content-[a-z-]+|from|to|subject|mime-version)[ \t]*:[^\n]*+(?:\n[ \t][^\n]*+)*+\n", re.IGNORECASE | re.MULTILINE
)
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]*:[^\n]*+(?:\n[ \t][^\n]*+)*+\n", re.IGNORECASE | re.MULTILINE)
_IN_QUANTA = re.compile(rb"^content-transfer-encoding[ \t]*:\s*(?:base64|quoted-printable)", re.IGNORECASE | re.MULTILINE)
_MULTIPART = re.compile(rb"^content-type[ \t]*:\s*multipart/", re.IGNORECASE | re.MULTILINE)

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")
_DELIMITER = re.compile(rb"^--([^\r\n]{1,72}?)[ \t]*\r?\ncontent-", re.IGNORECASE | re.MULTILINE)
_MAIL = re.compile(
    rb"[!-9;-~]{1,60}:[^\n]*\n(?:(?:[!-9;-~]{1,60}:|[ \t])[^\n]*\n)*?(?:subject|from|mime-version|content-type)[ \t]*:",
    re.IGNORECASE,
)
_SOFT_BREAK = re.compile(rb"=\r?\n")

_AS_BASE64 = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
_AS_MULTIPART = b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n'
_AS_MAIL = b"Content-Type: message/rfc822\r\n\r\n"
_AS_QUOTED = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
_AS_TEXT = b"Content-Type: text/plain\r\n\r\n"
_AS_BINARY = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"


@dataclass(frozen=True, slots=True)
class SectionName:
    """`BODY[1.2.TEXT]<100>` is path `1.2.TEXT` from origin 100; `BINARY[1]` is path 1, decoded by the server. `mail` is the number
    of the mail in its mailbox."""

    mail: bytes
    path: bytes
    is_decoded: bool = False
    origin: int | None = None

    @property
    def is_header(self) -> bool:
        return self.path.endswith((b"MIME", b"HEADER")) or b"HEADER.FIELDS" in self.path

    @property
    def header_path(self) -> bytes:
        """The section that holds the header of this one; empty when it has its own."""
        if not self.path:
            return b""
        return self.path[:-4] + b"HEADER" if self.path.endswith(b"TEXT") else self.path + b".MIME"

    @property
    def key(self) -> tuple[bytes, bytes, bool]:
        return self.mail, self.path, self.is_decoded


class KnownHeaders:
    """What has been said on the connection about how sections are to be read."""

    __slots__ = ("_blocks", "held_bytes")

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self.held_bytes = 0

    def put(self, mail: bytes, path: bytes, block: bytes) -> None:
        """The header block that the section `path` of a mail is; what matters of it is kept."""
        path, _, _ = path.partition(b".FIELDS")
        kept = b"".join(_FIELD.findall(block))[:MAX_HEADER_BYTES]
        if b"content-" not in kept.lower():
            return
        self._drop(mail, path)
        self._blocks[mail, path] = kept + b"\r\n"
        self.held_bytes += len(kept) + _OVERHEAD_BYTES
        while self.held_bytes > MAX_KNOWN_BYTES:
            self._drop(*next(iter(self._blocks)))

    def _drop(self, mail: bytes, path: bytes) -> None:
        block = self._blocks.pop((mail, path), None)
        if block is not None:
            self.held_bytes -= len(block) - 2 + _OVERHEAD_BYTES

    def clear(self) -> None:
        """Mails have other numbers now."""
        self._blocks.clear()
        self.held_bytes = 0

    def header_of(self, name: SectionName) -> bytes | None:
        """The header block that the section lacks, None if it is not known."""
        known = self._blocks.get((name.mail, name.header_path))
        if known is None and name.path == b"1":
            root = self._blocks.get((name.mail, b"HEADER"))
            known = root if root and not _MULTIPART.search(root) else None
        return _decoded(known) if name.is_decoded else known


def _decoded(known: bytes | None) -> bytes:
    """BINARY (RFC 9051, section 6.4.5): the server has undone the encoding."""
    fields = _ENCODING.sub(b"", known[:-2]) if known else b"Content-Type: application/octet-stream\r\n"
    return fields + b"Content-Transfer-Encoding: binary\r\n\r\n"


def guess_header(sample: bytes, is_whole_mail: bool) -> bytes:
    """A header block for a section of which only its first bytes are known; empty if it has its own."""
    plain = sample.replace(b"\r", b"").replace(b"\n", b"")
    if _MAIL.match(sample):
        return b"" if is_whole_mail else _AS_MAIL
    if _BASE64.fullmatch(plain):
        return _AS_BASE64
    delimiter = _DELIMITER.search(sample)
    if delimiter:
        return _AS_MULTIPART % delimiter[1].replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if b"\0" in sample:
        return _AS_BINARY
    return _AS_QUOTED if _SOFT_BREAK.search(sample) else _AS_TEXT


class Section:
    """One section. `next` is the offset in it of the byte that comes next."""

    __slots__ = ("_held", "_held_size", "_known", "_message", "_name", "_skips_line", "next")

    def __init__(self, name: SectionName, known: bytes | None, message: Message) -> None:
        self._name = name
        self._message = message
        self._held: list[tuple[int, bytes]] | None = []  # until it is clear how to read them
        self._held_size = 0
        self._known = known
        self._skips_line = False
        self.next = name.origin or 0
        if known is None and not name.path and not self.next:
            self._known = b""

    @property
    def held_bytes(self) -> int:
        return self._held_size + self._message.held_bytes

    def receive(self, start: int, data: bytes) -> list[Finding]:
        self.next += len(data)
        if self._held is None:
            return self._pass_on(start, data)
        self._held.append((start, data))
        self._held_size += len(data)
        is_clear = self._known is not None and not self._name.origin
        return self._decide() if is_clear or self._held_size >= GUESS_BYTES else []

    def end(self, is_complete: bool) -> list[Finding]:
        """Ended, broken off, or not gone on with."""
        found = self._decide() if self._held else []
        return found + self._message.end(is_complete and not self._name.origin)

    def _decide(self) -> list[Finding]:
        held, self._held, self._held_size = self._held or [], None, 0
        sample = b"".join(data for _, data in held)[:GUESS_BYTES]
        header = self._known
        if self._name.origin:
            # From the middle: base64 and quoted-printable can be read from the beginning of a line on.
            _, _, rest = sample.partition(b"\n")
            if header is None or _MULTIPART.search(header):
                header = guess_header(rest or sample, is_whole_mail=False)
            self._skips_line = bool(rest) and _IN_QUANTA.search(header) is not None
        elif header is None:
            header = guess_header(sample, is_whole_mail=False)
        # The header is made up, so it lies nowhere: before the section, for the sake of what begins at its end.
        found = self._message.receive(held[0][0] - len(header), header) if header else []
        for start, data in held:
            found += self._pass_on(start, data)
        return found

    def _pass_on(self, start: int, data: bytes) -> list[Finding]:
        if self._skips_line:
            skipped = data.find(b"\n") + 1
            if not skipped:
                return []
            self._skips_line = False
            start, data = start + skipped, data[skipped:]
        return self._message.receive(start, data) if data else []


class Sections:
    """The sections of a connection, among them those that come in pieces (`BODY[]<0>`, then `BODY[]<65536>` …)."""

    __slots__ = ("_open_message", "_piecemeal", "known")

    def __init__(self, open_message: Callable[[], Message]) -> None:
        self.known = KnownHeaders()
        self._open_message = open_message
        self._piecemeal: OrderedDict[tuple[bytes, bytes, bool], Section] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        return self.known.held_bytes + sum(section.held_bytes for section in self._piecemeal.values())

    def begin(self, name: SectionName, found: list[Finding]) -> Section:
        """A section or a piece of one comes now."""
        section = self._piecemeal.pop(name.key, None) if name.origin is not None else None
        if section and section.next == name.origin:
            return section
        if section:
            found += section.end(is_complete=False)
        return Section(name, self.known.header_of(name), self._open_message())

    def end(self, name: SectionName, section: Section, is_last: bool, found: list[Finding]) -> None:
        """It has come. Not `is_last`: another piece may follow."""
        if name.origin is None or is_last:
            found += section.end(is_complete=True)
            return
        self._piecemeal[name.key] = section
        if len(self._piecemeal) > MAX_PIECEMEAL:
            _, oldest = self._piecemeal.popitem(last=False)
            found += oldest.end(is_complete=False)

    def clear(self) -> list[Finding]:
        """Mails have other numbers now, or nothing more comes."""
        found: list[Finding] = []
        for section in self._piecemeal.values():
            found += section.end(is_complete=False)
        self._piecemeal.clear()
        self.known.clear()
        return found
