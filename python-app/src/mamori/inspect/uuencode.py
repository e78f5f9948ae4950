"""Uuencoded files in the text of a mail: `begin 644 name`, lines with a length character, `end`; and `begin-base64` (POSIX).

Older than MIME and still read: Outlook looks for them in every plain text, with or without a mode, Thunderbird in mails without a
Content-Type. So a `begin` is believed in any text, and without a mode once a line of uuencode follows: people begin sentences
with that word as well.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_uu
from collections.abc import Callable

from mamori.inspect.findings import Coding, FileData, FileEnded, FileStarted, Finding
from mamori.inspect.transfer import Base64

MAX_LINE_BYTES = 1000
"""Of a line that is kept until it is whole; the rest of it is read over. Uuencode's have 61 (RFC 5322, 2.1.1: at most 998)."""

_BEGIN = re.compile(rb"[\r\n]begin(-base64)?[ \t]++([0-7]{3,5}[ \t]++)?([^\r\n]{1,900})[\r\n]")
_MAY_BEGIN = re.compile(rb"[\r\n](?:b|be|beg|begi|begin(?:-[base64]*+)?(?:[ \t][^\r\n]*+)?)?\Z")
_MAY_BE_KEYWORD = re.compile(rb"(?:e|en|end[ \t]*+|=++[ \t]*+|b|be|beg|begi|begin[^\r\n]*+)\Z")
_LINE_END = re.compile(rb"[\r\n]")
_STRICT_LINE = re.compile(rb"[!-`][ -`]{2,88}")
# Any character stands for its low six bits, as for every decoder that does not check. binascii does check.
_SIX_BITS = bytes(32 + (byte - 32 & 63) for byte in range(256))


class UuFinder:
    """Watches one text. `new_file(start, name)` is called for each file that is found, None if there are too many.

    `coding`: how the text itself is encoded. With TEXT each line has a range of its own; else where a line lies inside an
    encoding is not known, and a file's ranges are all stretches of the text that have some of it.
    """

    __slots__ = (
        "_base64",
        "_coding",
        "_file",
        "_has_mode",
        "_is_after_begin",
        "_line",
        "_line_start",
        "_name",
        "_new_file",
        "_tail",
        "_untold",
    )

    def __init__(self, new_file: Callable[[int, bytes], FileStarted | None], coding: Coding) -> None:
        self._new_file, self._coding = new_file, coding
        self._file: int | None = None  # open
        self._is_after_begin = self._has_mode = False  # and waiting for the first line
        self._name = b""
        self._base64: Base64 | None = None
        self._tail = b"\n"  # outside of files: what may be part of a `begin` line, with the line end before it
        self._line = b""  # inside: a line that is not whole …
        self._line_start = 0  # … and where it begins
        self._untold: list[tuple[int, int]] = []  # its ranges that were not told, because it may be the `end`

    @property
    def held_bytes(self) -> int:
        return len(self._tail) + len(self._line)

    def receive(self, start: int, end: int, data: bytes) -> list[Finding]:
        """The text's next bytes, which lie at [start, end) of the stream."""
        found: list[Finding] = []
        at = 0
        while at < len(data):
            if self._file is None and not self._is_after_begin:
                at = self._seek(data, at)
            elif self._coding is Coding.TEXT:
                at = self._read_lines(data, at, start, found)
            else:
                at = self._read_coded(data, at, start, end, found)
        return found

    def end(self, at: int) -> list[Finding]:
        """The text ends at `at` of the stream, perhaps without a line end."""
        found: list[Finding] = []
        if self._coding is not Coding.TEXT:
            self._line_start = at
        if self._line and (self._file is not None or self._is_after_begin):
            self._on_line(self._line, at, at, at, found)
        if self._file is not None:
            found.append(FileEnded(self._file, at, is_complete=False))
        self._file, self._is_after_begin = None, False
        return found

    def _seek(self, data: bytes, at: int) -> int:
        """Looks for a `begin`; where to go on after it."""
        known = len(self._tail)
        text = self._tail + data[at:]
        if b"begin" in text and (found := _BEGIN.search(text)):
            self._on_begin(found)
            return at + found.end() - known
        last = max(text.rfind(b"\n", -MAX_LINE_BYTES), text.rfind(b"\r", -MAX_LINE_BYTES))
        self._tail = text[last:] if last >= 0 and _MAY_BEGIN.match(text, last) else b""
        return len(data)

    def _on_begin(self, found: re.Match[bytes]) -> None:
        self._base64 = Base64() if found[1] else None
        self._has_mode, self._name = found[2] is not None, found[3]
        self._is_after_begin, self._line, self._untold = True, b"", []

    def _read_lines(self, data: bytes, at: int, start: int, found: list[Finding]) -> int:
        """All lines up to the file's end; where to go on. `start` is the stream offset of data[0]."""
        for line_end in _LINE_END.finditer(data, at):
            first, last, at = at, line_end.start(), line_end.end()
            part = data[first:last]
            if (file := self._file) is not None and (plain := self._plain_line(part)) is not None:
                found.append(FileData(file, start + first + 1, start + last, Coding.UUENCODE, plain))
                continue
            text = self._line + part
            if not text:
                continue
            if not self._line:
                self._line_start = start + first
            self._on_line(text, start + first + self._skipped, start + last, start + at, found)
            self._line = b""
            if self._file is None and not self._is_after_begin:
                return at
        while at < len(data) and data[at] in b"\r\n":
            at += 1
        if at < len(data):
            self._keep_partial(data[at:], start + at, found)
        return len(data)

    def _plain_line(self, line: bytes) -> bytes | None:
        """What a line holds, if it is nothing but a line of an open file: the short way for nearly all of them."""
        if self._line or self._base64 or not line or line[0] > 96:
            return None
        try:
            return a2b_uu(line)
        except Error:
            return None

    def _keep_partial(self, part: bytes, start: int, found: list[Finding]) -> None:
        """The first bytes of a line. Their range is told at once, for they pass now, if they are no `end`."""
        first = start + self._skipped
        if not self._line:
            self._line_start = start
        self._line = (self._line + part)[:MAX_LINE_BYTES]
        if first < start + len(part):
            self._untold.append((first, start + len(part)))
        if self._file is not None and not _MAY_BE_KEYWORD.match(self._line):
            self._tell_untold(self._file, found)

    @property
    def _skipped(self) -> int:
        """The bytes at the front of what comes now that must stay: the length character of a line that begins."""
        return 0 if self._line or self._base64 else 1

    def _tell_untold(self, file: int, found: list[Finding]) -> None:
        coding = Coding.UUENCODE if self._base64 is None else Coding.BASE64
        found += [FileData(file, first, last, coding, b"") for first, last in self._untold]
        self._untold = []

    def _on_line(self, line: bytes, first: int, last: int, after: int, found: list[Finding]) -> None:
        """A whole line, whose free bytes that came now lie at [first, last), and its line end before `after`."""
        data = self._decode(line, after, found)
        if data is None or self._file is None:
            self._untold = []
            return
        self._tell_untold(self._file, found)
        found.append(FileData(self._file, first, last, Coding.BASE64 if self._base64 else Coding.UUENCODE, data))

    def _decode(self, line: bytes, after: int, found: list[Finding]) -> bytes | None:
        """What a line holds; None if it is not one of the file's. Opens and closes the file."""
        is_keyword = _MAY_BE_KEYWORD.match(line) is not None
        if is_keyword and (again := _BEGIN.match(b"\n" + line + b"\n")) and again[2]:
            self._close(after, found, is_complete=False)
            self._on_begin(again)
            return None
        if is_keyword and line.rstrip() == (b"end" if self._base64 is None else b"===="):
            self._close(after, found, is_complete=True)
            return None
        if self._file is None:
            if not self._has_mode and not _is_strict(line):
                self._close(after, found, is_complete=False)
                return None
            self._is_after_begin = False
            started = self._new_file(self._line_start, self._name)
            if started is None:
                self._tail = b"\n"
                return None
            found.append(started)
            self._file = started.file
        return _line_bytes(line) if self._base64 is None else self._base64.receive(line)

    def _close(self, at: int, found: list[Finding], is_complete: bool) -> None:
        if self._file is not None:
            found.append(FileEnded(self._file, at, is_complete))
        self._file, self._is_after_begin = None, False
        self._tail = b"\n"

    def _read_coded(self, data: bytes, at: int, start: int, end: int, found: list[Finding]) -> int:
        """The same where lines have no place in the stream of their own."""
        inner: list[Finding] = []
        file, parts = self._file, list[bytes | memoryview]()
        at = self._read_lines(data, at, 0, inner)
        self._untold = []  # places in the text, not in the stream
        for finding in inner:
            if isinstance(finding, FileStarted):
                found.append(FileStarted(finding.file, start, finding.name, finding.subject))
                file, parts = finding.file, []
            elif isinstance(finding, FileData):
                parts.append(finding.data)
            elif isinstance(finding, FileEnded):
                found.append(FileData(finding.file, start, end, self._coding, b"".join(parts)))
                found.append(FileEnded(finding.file, end, finding.is_complete))
                file = None
        if file is not None:
            found.append(FileData(file, start, end, self._coding, b"".join(parts)))
        return at


def _is_strict(line: bytes) -> bool:
    """A line as encoders write it: with a length that is its own."""
    needed = (line[0] - 32 & 63) * 4 // 3
    return _STRICT_LINE.fullmatch(line) is not None and needed <= len(line) - 1 <= needed + 5


def _line_bytes(line: bytes) -> bytes:
    """What a line decodes to. Too short, it ends in zeros; what is behind its length does not count."""
    try:
        return a2b_uu(line)
    except Error:
        needed = ((line[0] - 32 & 63) * 4 + 2) // 3  # binascii also refuses characters that are there and not needed
        return a2b_uu(line[: needed + 1].translate(_SIX_BITS))
