"""The server's side of IMAP: responses, with the sections of mails in their literals and quoted strings."""

from __future__ import annotations

import re
from collections import OrderedDict

from mamori.inspect.findings import AnomalySeen, Finding
from mamori.inspect.imap_client import LITERAL
from mamori.inspect.imap_sections import Section, SectionName, Sections
from mamori.inspect.imap_structure import STRUCTURE, find_structure
from mamori.inspect.mail_lines import LineReader, Messages

MAX_RESPONSE_BYTES = 64 << 10
"""What is kept of one response without its sections. The BODYSTRUCTURE of a mail with a hundred parts has some 20 KB."""

MAX_STRING_BYTES = 4 << 10
"""A literal that is no section, up to this size, is a string: a name, a subject. A longer one is
looked at as if it were a section."""

MAX_LOOKS = 3
"""How often one response is searched for its structure, which takes as long as the response."""

MAX_SIZES = 1000
"""Mails whose size has been told, and pieces that were asked for."""

_FETCH = re.compile(rb"\*[ \t]+(\d{1,10})[ \t]+(?:UID)?FETCH[ \t]+\(", re.IGNORECASE)
_STATUS = re.compile(rb"(?:\+|[!-~]++[ \t]++(?:OK|NO|BAD|BYE|PREAUTH)\b)", re.IGNORECASE)
_GREETING = re.compile(rb"\*[ \t]+(?:OK|PREAUTH|BYE)\b", re.IGNORECASE)
_RENUMBERS = re.compile(rb"\*[ \t]+(?:\d+[ \t]+EXPUNGE|VANISHED)\b", re.IGNORECASE)
_SECTION = rb"(?:(BODY|BINARY)\[(%s)\]|(RFC822(?:\.TEXT|\.HEADER)?))(?:<(\d{1,18})>)?"
_SECTION_AT_END = re.compile(rb"[ (]" + _SECTION % rb"[^\]\[{}]*" + rb"[ \t]+\Z", re.IGNORECASE)
_QUOTED_SECTION = re.compile(rb"[ (]" + _SECTION % rb"[0-9A-Z.]{0,100}" + rb'[ \t]+"((?:[^"\\\r\n]|\\.)*+)"', re.IGNORECASE)
_SIZE = re.compile(rb"[ (]RFC822\.SIZE[ \t]+(\d{1,18})", re.IGNORECASE)
_RFC822 = {b"RFC822": b"", b"RFC822.TEXT": b"TEXT", b"RFC822.HEADER": b"HEADER"}
_MAX_NAME_BYTES = 16 << 10  # a list of header fields, at most


class ResponseReader:
    """`take` reads up to the end of a response."""

    def __init__(self, messages: Messages) -> None:
        self.sections = Sections(messages.open)
        self.asked_sizes: OrderedDict[int, int] = OrderedDict()  # of pieces, by where they begin
        self.is_strange = False  # the first line was no greeting
        self._greeted = False
        self._lines = LineReader(MAX_RESPONSE_BYTES)
        self._text = bytearray()  # of the response, up to its last literal; of a long one both ends
        self._mail = b""  # its number, if the response is FETCH
        self._is_status = self._has_structure = False
        self._looks_left = MAX_LOOKS
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._literal_left = 0
        self._literal_size = 0
        self._string: bytearray | None = None
        self._header: bytearray | None = None
        self._section: Section | None = None
        self._name = SectionName(b"", b"")

    @property
    def held_bytes(self) -> int:
        section = self._section.held_bytes if self._section else 0
        kept = len(self._text) + len(self._string or b"") + len(self._header or b"")
        return self._lines.held_bytes + self.sections.held_bytes + section + kept

    def end(self) -> list[Finding]:
        """Nothing more comes."""
        section, self._section = self._section, None
        found = section.end(is_complete=False) if section else []
        return found + self.sections.clear()

    def take(self, data: bytes, at: int, base: int, found: list[Finding]) -> tuple[int, bytes | None]:
        """Reads `data`, which begins at offset `base`, from `at` on: how far, and a response if one is whole."""
        if self._literal_left:
            return self._take_literal(data, at, base, found), None
        at, line = self._lines.take(data, at)
        if line is None:
            return at, None
        if not self._greeted:
            self._greeted = True
            self.is_strange = not _GREETING.match(line)
        if not self._text:
            fetch = _FETCH.match(line)
            self._mail = fetch[1] if fetch else b""
            self._is_status = _STATUS.match(line) is not None
        literal = LITERAL.search(line)
        before = line[: literal.start()] if literal else line
        self._add_text(before)
        if self._mail and self._lines.last_size == len(line):
            self._take_quoted(line, base + at - len(line), found)
        if literal and not self._is_status:
            self._begin_literal(before, int(literal[1]), found)
            return at, None
        if literal:
            start = base + at - self._lines.last_size
            found.append(AnomalySeen(start, base + at, "a status that ends like the announcement of a literal", True))
        return at, self._end_response(found)

    def _add_text(self, text: bytes) -> None:
        self._has_structure = self._has_structure or STRUCTURE.search(text) is not None
        size = _SIZE.search(text) if self._mail else None
        if size:
            self._sizes[self._mail] = int(size[1])
            if len(self._sizes) > MAX_SIZES:
                self._sizes.popitem(last=False)
        self._text += text
        if len(self._text) > 2 * MAX_RESPONSE_BYTES:
            del self._text[MAX_RESPONSE_BYTES // 2 : -MAX_RESPONSE_BYTES // 2]

    def _end_response(self, found: list[Finding]) -> bytes:
        if self._mail:
            self._learn()
        elif _RENUMBERS.match(self._text):
            found += self.sections.clear()
            self._sizes.clear()
        text = bytes(self._text)
        self._text.clear()
        self._has_structure, self._looks_left = False, MAX_LOOKS
        return text

    def _learn(self) -> None:
        if self._has_structure and self._looks_left:
            self._looks_left -= 1
            for path, block in find_structure(bytes(self._text)).items():
                self._has_structure = False
                self.sections.known.put(self._mail, path, block)

    # ---- content

    def _begin_literal(self, before: bytes, size: int, found: list[Finding]) -> None:
        self._literal_left = self._literal_size = size
        named = _SECTION_AT_END.search(before, max(0, len(before) - _MAX_NAME_BYTES)) if self._mail else None
        if named:
            self._learn()
            self._name = _name_of(self._mail, *named.groups())
            if self._name.is_header:
                self._header = bytearray()
            else:
                self._section = self.sections.begin(self._name, found)
        elif size <= MAX_STRING_BYTES:
            self._string = bytearray()
        else:
            self._name = SectionName(self._mail, b"?")
            self._section = self.sections.begin(self._name, found)
        if not size:
            self._end_literal(found)

    def _take_literal(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        stop = min(len(data), at + self._literal_left)
        self._literal_left -= stop - at
        if self._section:
            found += self._section.receive(base + at, data[at:stop])
        elif self._string is not None:
            self._string += data[at:stop]
        elif self._header is not None and len(self._header) < MAX_RESPONSE_BYTES:
            self._header += data[at:stop][: MAX_RESPONSE_BYTES - len(self._header)]
        if not self._literal_left:
            self._end_literal(found)
        return stop

    def _end_literal(self, found: list[Finding]) -> None:
        if self._section:
            self.sections.end(self._name, self._section, self._is_last(self._section), found)
        elif self._header is not None and not self._name.origin:
            self.sections.known.put(self._name.mail, self._name.path, bytes(self._header))
        inside = b"" if self._string is None else bytes(self._string).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        self._add_text(b'"' + inside + b'"')
        self._section = self._string = self._header = None

    def _is_last(self, section: Section) -> bool:
        """Whether no piece can follow: it is shorter than what was asked for, or the mail's end is reached."""
        asked = self.asked_sizes.pop(self._name.origin or 0, None)
        while len(self.asked_sizes) > MAX_SIZES:
            self.asked_sizes.popitem(last=False)
        is_short = not self._literal_size or (asked is not None and self._literal_size < asked)
        return is_short or (not self._name.path and section.next == self._sizes.get(self._name.mail))

    def _take_quoted(self, line: bytes, start: int, found: list[Finding]) -> None:
        """Sections that are short enough for a quoted string. Each stretch between backslashes is where it is in the stream."""
        for quoted in _QUOTED_SECTION.finditer(line):
            name = _name_of(self._mail, *quoted.groups()[:4])
            if name.is_header or not quoted[5]:
                continue
            self._learn()
            section = self.sections.begin(name, found)
            at = quoted.start(5)
            for stretch in re.finditer(rb"[^\\]+|\\(.)", quoted[5]):
                skipped = 1 if stretch[1] else 0
                found += section.receive(start + at + stretch.start() + skipped, stretch[0][skipped:])
            self.sections.end(name, section, name.origin is None, found)


def _name_of(mail: bytes, kind: bytes | None, path: bytes | None, rfc822: bytes | None, origin: bytes | None) -> SectionName:
    own_path = _RFC822[rfc822.upper()] if rfc822 else (path or b"").upper().partition(b" ")[0]
    is_decoded = (kind or b"").upper() == b"BINARY"
    return SectionName(mail, own_path, is_decoded and bool(own_path), None if origin is None else int(origin))
