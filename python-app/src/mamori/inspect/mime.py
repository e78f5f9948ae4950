"""Mails (MIME, RFC 2045 to 2049) read as they pass: every part is a file, and so is what text parts have uuencoded in them.

    reader = MailReader(first_file=7)
    findings = reader.receive(start, data)      # the mail's next bytes; `start`: where data[0] lies in the stream
    findings = reader.end()

The bytes come without dot-stuffing. Between two calls the stream may have bytes that are not the mail's (a dot that was taken out,
a BDAT command); inside a call it may not. Ranges of findings are the stream's.

Nothing is an error: what readers of mail show is the measure, and they show something for every mail. Where they differ, the
reading that shows the most is taken, and AnomalySeen says so:

- A line is a delimiter (RFC 2046, 5.1.1) if it is `--`, a boundary that is open at any level, and blanks. If something else follows
  the boundary, Dovecot and ClamAV take it for one and Python and Thunderbird do not; so do we, and call it an evasion.
- After the closing delimiter parts go on to be read, though most readers stop there.
- A multipart without a boundary takes the first line that looks like a delimiter for one (JavaMail).
- A header ends at an empty line, or where two lines in a row are no fields (Python ends it at the first one, others at none).
- Line ends are CRLF, LF, and CR alone (Python, Thunderbird).

Memory: one header block, or the beginning of one line, or a decoder's crumbs; see `held_bytes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from mamori.inspect.findings import AnomalySeen, FileData, FileEnded, FileStarted, FileUnseen, Finding
from mamori.inspect.mime_head import MAX_BOUNDARY_BYTES, Content, Head, bounded, carrier_of, is_field, line_end, parse_head
from mamori.inspect.mime_names import decode_words
from mamori.inspect.mime_window import Window
from mamori.inspect.transfer import Transfer, decoder_of
from mamori.inspect.uuencode import UuFinder

MAX_HEAD_BYTES = 128 << 10
"""A header block. Postfix cuts one field at 100 KB (header_size_limit); Exchange takes 256 KB in all; real mails have 20."""

MAX_NESTING = 30
"""Multiparts and mails inside one another. A mail forwarded ten times has twenty; clamd stops at 17, Sendmail at 20."""

MAX_FILES = 1000
"""Parts and uuencoded files of one mail. Exchange takes 250 parts."""

MAX_DELIMITER_BYTES = MAX_BOUNDARY_BYTES + 200
"""A line that may be a delimiter is held until it is whole, or longer than this. Blanks follow a boundary in bad gateways."""

_ANY_BOUNDARY = re.compile(rb"--[!-~]{1,70}[ \t]*")


class _In(Enum):
    HEAD = "a header block"
    BODY = "content"
    NOTHING = "past the end, or past all limits"


class _Odd(Enum):
    """What is told of a mail, once each: the text, and whether readers take it in different ways."""

    AMBIGUOUS = ("two types or encodings for one part", True)
    BARE_CR = ("a CR without LF where a line ends", True)
    GARBAGE = ("a line in a header that is no field", True)
    LONG_HEAD = ("a header block that is too long", True)
    TRAILED = ("text behind a boundary", True)
    TWO_BOUNDARIES = ("two boundaries for one multipart", True)
    NO_BOUNDARY = ("a multipart whose boundary is missing", True)
    SAME_BOUNDARY = ("a boundary used twice", True)
    PADDED = ("base64 that goes on after its padding", True)
    PARTIAL = ("a mail in pieces", True)
    AFTER_CLOSE = ("a part after the last one", False)


@dataclass(slots=True)
class _Level:
    """A multipart that is open. `used`: the boundary that its delimiters have, once there was one."""

    boundaries: tuple[bytes, ...]
    depth: int
    is_digest: bool
    used: bytes | None = None
    is_closed: bool = False
    has_text: bool = False


@dataclass(frozen=True, slots=True)
class _Delimiter:
    level: int
    boundary: bytes
    is_close: bool
    is_exact: bool


class _Part:
    """Where content goes: a file, or the text around parts (`file` None), and the files that are uuencoded in it."""

    __slots__ = ("_decoder", "_file", "_finder", "is_text")

    def __init__(self, file: int | None, transfer: Transfer, finder: UuFinder | None, is_text: bool) -> None:
        self._file, self._finder, self.is_text = file, finder, is_text
        self._decoder = decoder_of(transfer)

    @property
    def is_odd(self) -> bool:
        return self._decoder.is_odd and not self.is_text

    @property
    def held_bytes(self) -> int:
        return self._decoder.held_bytes + (self._finder.held_bytes if self._finder else 0)

    def receive(self, start: int, end: int, data: bytes, found: list[Finding]) -> None:
        self._tell(start, end, self._decoder.receive(data), found)

    def end(self, at: int, is_complete: bool, found: list[Finding]) -> None:
        if rest := self._decoder.end():
            self._tell(at, at, rest, found)
        if self._finder:
            found += self._finder.end(at)
        if self._file is not None:
            found.append(FileEnded(self._file, at, is_complete))

    def _tell(self, start: int, end: int, data: bytes, found: list[Finding]) -> None:
        if self._file is not None:
            found.append(FileData(self._file, start, end, self._decoder.coding, data))
        if self._finder:
            found += self._finder.receive(start, end, data)


class MailReader:
    """One mail. `subject_prefix` begins what its files are said to come from."""

    def __init__(self, first_file: int, subject_prefix: str = "mail") -> None:
        self._first_file = self._next_file = first_file
        self._subject = subject_prefix
        self._prefix: str | None = subject_prefix  # until the mail's own header is read
        self._window = Window()
        self._in = _In.HEAD
        self._default_kind = "text/plain"
        self._line_at = self._search_at = 0  # in a header: where its last line begins, and is known to have no end before
        self._garbage_at: int | None = None  # where the line before began, if it was no field
        self._is_line_start = False  # in content: its first line may be a delimiter
        self._part: _Part | None = None
        self._depth = 0
        self._levels: list[_Level] = []
        self._delimiters: dict[bytes, int] = {}  # boundaries and the levels that they belong to
        self._candidate = self._candidate_cr = re.compile(rb"\n--")
        self._has_cr = False  # a CR alone before `--` somewhere: the quick search does not look for it
        self._last = b""  # two bytes of the mail, for that
        self._told: set[_Odd] = set()
        self._is_full = False

    @property
    def held_bytes(self) -> int:
        """Bytes of the mail that are kept."""
        return len(self._window.data) + (self._part.held_bytes if self._part else 0)

    def receive(self, start: int, data: bytes) -> list[Finding]:
        """The mail's next bytes, which lie from `start` on in the stream."""
        found: list[Finding] = []
        if data and self._in is not _In.NOTHING:
            self._window.append(start, data)
            self._has_cr = self._has_cr or b"\r--" in self._last + data
            self._last = (self._last + data[-2:])[-2:]
            self._run(found, is_final=False)
        return found

    def end(self, is_complete: bool = True) -> list[Finding]:
        """The mail is over; not complete, if its connection broke."""
        found: list[Finding] = []
        if self._in is not _In.NOTHING:
            self._run(found, is_final=True)
        if self._in is not _In.NOTHING:
            self._close_part(self._window.offset_after(len(self._window.data)), is_complete, found)
            self._close_levels(0, found)
            self._stop()
        return found

    def _run(self, found: list[Finding], is_final: bool) -> None:
        going = True
        while going and self._in is not _In.NOTHING:
            going = self._read_head(found, is_final) if self._in is _In.HEAD else self._read_body(found, is_final)
            if self._is_full:
                self._give_up(found)

    # Header blocks

    def _read_head(self, found: list[Finding], is_final: bool) -> bool:
        """Reads lines up to the end of the block; True if it came."""
        data = self._window.data
        while True:
            eol = line_end(data, self._search_at, MAX_HEAD_BYTES, is_final)
            if eol:
                first, after = eol
                if data[after - 1] == 13:
                    self._say(_Odd.BARE_CR, first, found)
            elif len(data) >= MAX_HEAD_BYTES:
                self._say(_Odd.LONG_HEAD, self._line_at, found)
                end = self._line_at or MAX_HEAD_BYTES
                return self._end_head(end, end, found)
            elif is_final and self._line_at < len(data):
                first = after = len(data)
            else:
                self._search_at = max(self._line_at, len(data) - 9)  # CRs are looked at again when more comes
                break
            if self._line_at == first:
                at_start = self._garbage_at == 0
                return self._end_head(*((0, 0) if at_start else (first, after)), found)
            if (body_at := self._on_line(data, first, found)) is not None:
                return self._end_head(body_at, body_at, found)
            self._line_at = self._search_at = after
        return is_final and self._end_head(*((0, 0) if self._garbage_at == 0 else (len(data), len(data))), found)

    def _on_line(self, data: bytearray, end: int, found: list[Finding]) -> int | None:
        """A line of a header that is not empty: where the block ends, if it does."""
        line = bytes(data[self._line_at : end])
        start = self._line_at if self._garbage_at is None else self._garbage_at
        if self._delimiter(line):
            return start
        is_good = is_field(line) and (self._garbage_at is None or line[:1] not in b" \t")
        if is_good or (not self._line_at and line.startswith((b"From ", b">From "))):
            self._garbage_at = None
        elif self._garbage_at is not None:
            return start
        else:
            self._garbage_at = self._line_at
            if self._line_at:
                self._say(_Odd.GARBAGE, self._line_at, found)
        return None

    def _end_head(self, block_end: int, body_at: int, found: list[Finding]) -> bool:
        head = parse_head(bytes(self._window.data[:block_end]), self._default_kind)
        if head.is_ambiguous:
            self._say(_Odd.AMBIGUOUS, 0, found)
        start = self._window.offset_after(body_at)
        self._window.consume(body_at)
        self._line_at = self._search_at = 0
        self._garbage_at = None
        self._default_kind = "text/plain"
        if self._prefix is not None:
            self._subject, self._prefix = carrier_of(head, self._prefix), None
        self._open(head, start, found)
        return True

    def _open(self, head: Head, start: int, found: list[Finding]) -> None:
        """The content below a header begins."""
        self._in, self._is_line_start = _In.BODY, True
        if head.content is Content.LEAF:
            if head.kind == "message/partial":
                self._say(_Odd.PARTIAL, 0, found)
            self._open_file(head, start, found)
        elif self._depth >= MAX_NESTING:
            self._open_file(head, start, found, unseen="too deep inside other mails or parts")
        elif head.content is Content.MESSAGE:
            self._depth += 1
            self._in = _In.HEAD
        else:
            self._depth += 1
            self._levels.append(_Level(head.boundaries, self._depth, head.kind == "multipart/digest"))
            if any(boundary in self._delimiters for boundary in head.boundaries):
                self._say(_Odd.SAME_BOUNDARY, 0, found)
            self._note_boundaries()
            self._part = _Part(None, Transfer.IDENTITY, self._finder(Transfer.IDENTITY), is_text=True)

    def _open_file(self, head: Head, start: int, found: list[Finding], unseen: str = "") -> None:
        started = self._new_file(start, head.name)
        if started is None:
            return
        found.append(started)
        if unseen:
            found.append(FileUnseen(started.file, start, unseen))
            return
        is_text = head.kind.startswith(("text", "message"))
        finder = self._finder(head.transfer) if is_text or head.transfer is Transfer.UUENCODE else None
        self._part = _Part(started.file, head.transfer, finder, is_text)

    def _finder(self, transfer: Transfer) -> UuFinder:
        return UuFinder(lambda start, name: self._new_file(start, bounded(decode_words(name.strip()))), decoder_of(transfer).coding)

    def _new_file(self, start: int, name: str) -> FileStarted | None:
        if self._next_file - self._first_file >= MAX_FILES:
            self._is_full = True
            return None
        self._next_file += 1
        return FileStarted(self._next_file - 1, start, name, self._subject)

    # Content

    def _read_body(self, found: list[Finding], is_final: bool) -> bool:
        """Passes content on, up to a delimiter; True if one came."""
        window = self._window
        keep_from = len(window.data)
        if self._levels:
            at = 0
            while (candidate := self._next_candidate(at)) is not None:
                content_end, line_at = candidate
                end, after = self._line_end(line_at, is_final)
                if end is None:
                    keep_from = content_end
                    break
                line = bytes(window.data[line_at:end])
                if delimiter := self._delimiter(line):
                    if line_at and window.data[line_at - 1] == 13:
                        self._say(_Odd.BARE_CR, line_at, found)
                    self._end_content(delimiter, content_end, after, found)
                    return True
                self._is_line_start = False
                at = line_at
            else:
                keep_from = len(window.data) if is_final else self._tail()
        self._feed(keep_from, found)
        window.consume(keep_from)
        return False

    def _next_candidate(self, at: int) -> tuple[int, int] | None:
        """The next line that begins like a delimiter: where the content before it ends, and where it begins."""
        data = self._window.data
        if self._is_line_start:
            if data.startswith(b"--") and len(data) > 2:
                return 0, 0
            if not b"--".startswith(data):
                self._is_line_start = False
        found = (self._candidate_cr if self._has_cr else self._candidate).search(data, at)
        if not found:
            return None
        eol = found.start()
        has_cr = data[eol] == 10 and eol > 0 and data[eol - 1] == 13
        return eol - has_cr, eol + 1

    def _line_end(self, at: int, is_final: bool) -> tuple[int | None, int]:
        """Where the line ends, and what is after its line end. None: not known yet. A line that is too long ends nowhere."""
        data = self._window.data
        if eol := line_end(data, at, at + MAX_DELIMITER_BYTES, is_final):
            return eol
        if len(data) - at < MAX_DELIMITER_BYTES and not is_final:
            return None, at
        last = min(len(data), at + MAX_DELIMITER_BYTES)
        return last, last

    def _tail(self) -> int:
        """Where the last line end begins, if a delimiter may follow it."""
        data = self._window.data
        if self._is_line_start:
            return 0
        last = next((eol for eol in range(len(data) - 1, max(len(data) - 4, -1), -1) if data[eol] in b"\r\n"), None)
        if last is None or not b"--".startswith(data[last + 1 :]):
            return len(data)
        return last - (data[last] == 10 and last > 0 and data[last - 1] == 13)

    def _feed(self, last: int, found: list[Finding]) -> None:
        if not self._part:
            return
        level = self._levels[-1] if self._levels else None
        for start, end, data in self._window.pieces(last):
            if level and not level.used and not level.has_text and not data.isspace():
                level.has_text = True
            self._part.receive(start, end, data, found)
        if self._part.is_odd:
            self._say(_Odd.PADDED, 0, found)

    def _end_content(self, delimiter: _Delimiter, content_end: int, after: int, found: list[Finding]) -> None:
        """A delimiter ends a part and begins the next one, or the text behind the last."""
        self._feed(content_end, found)
        at = self._window.offset_after(content_end)
        if not delimiter.is_exact:
            self._say(_Odd.TRAILED, content_end, found)
        self._window.consume(after)
        self._close_part(at, True, found)
        self._close_levels(delimiter.level + 1, found)
        level = self._levels[delimiter.level]
        if not level.boundaries:
            level.boundaries = (delimiter.boundary,)
            self._note_boundaries()
            self._say(_Odd.NO_BOUNDARY, 0, found)
        if level.used not in (None, delimiter.boundary):
            self._say(_Odd.TWO_BOUNDARIES, 0, found)
        level.used, self._depth = delimiter.boundary, level.depth
        if delimiter.is_close:
            level.is_closed = self._is_line_start = True
            self._in = _In.BODY
            self._part = _Part(None, Transfer.IDENTITY, self._finder(Transfer.IDENTITY), is_text=True)
            return
        if level.is_closed:
            self._say(_Odd.AFTER_CLOSE, 0, found)
        self._in = _In.HEAD
        self._default_kind = "message/rfc822" if level.is_digest else "text/plain"

    def _close_part(self, at: int, is_complete: bool, found: list[Finding]) -> None:
        if self._part:
            self._part.end(at, is_complete, found)
        self._part = None

    def _close_levels(self, first: int, found: list[Finding]) -> None:
        """Multiparts end without a closing delimiter of their own: any outer one does (RFC 2046, 5.1.2)."""
        if any(level.has_text and level.used is None for level in self._levels[first:]):
            self._say(_Odd.NO_BOUNDARY, 0, found)
        if len(self._levels) > first:
            del self._levels[first:]
            self._note_boundaries()

    # Delimiters

    def _note_boundaries(self) -> None:
        """Of two levels with one boundary the outer has it, as in Python and libmime."""
        self._delimiters = {}
        for number, level in enumerate(self._levels):
            for boundary in level.boundaries:
                self._delimiters.setdefault(boundary, number)
        firsts = b"".join(re.escape(boundary[:1]) for boundary in self._delimiters)
        if any(not level.boundaries for level in self._levels[-1:]):
            firsts += b"!-~"
        # Only the first byte: a long alternative would cost a hostile mail nothing and us its compilation.
        self._candidate = re.compile(rb"\n--[" + firsts + rb"]") if firsts else re.compile(rb"\n--(?!)")
        self._candidate_cr = re.compile(rb"[\r\n]--[" + firsts + rb"]") if firsts else self._candidate

    def _delimiter(self, line: bytes) -> _Delimiter | None:
        """What a line delimits. An exact boundary counts before one that is only the line's beginning."""
        if not line.startswith(b"--") or not self._levels:
            return None
        text = line[2:].rstrip()
        for boundary, is_close in ((text, False), (text.removesuffix(b"--").rstrip(), text.endswith(b"--"))):
            if boundary in self._delimiters:
                return _Delimiter(self._delimiters[boundary], boundary, is_close, is_exact=True)
        if text.startswith(tuple(self._delimiters)):
            boundary = max((boundary for boundary in self._delimiters if text.startswith(boundary)), key=len)
            return _Delimiter(self._delimiters[boundary], boundary, text.startswith(b"--", len(boundary)), is_exact=False)
        if not self._levels[-1].boundaries and _ANY_BOUNDARY.fullmatch(line):
            return _Delimiter(len(self._levels) - 1, text, is_close=False, is_exact=True)
        return None

    # Ends

    def _say(self, odd: _Odd, index: int, found: list[Finding]) -> None:
        """`index` says where in the window."""
        if odd not in self._told:
            self._told.add(odd)
            at = self._window.offset(index)
            found.append(AnomalySeen(at, at, *odd.value))

    def _give_up(self, found: list[Finding]) -> None:
        at = self._window.offset_after(0)
        self._close_part(at, False, found)
        found += (
            FileStarted(self._next_file, at, "", self._subject),
            FileUnseen(self._next_file, at, "too many parts in one mail"),
        )
        self._next_file += 1
        self._stop()

    def _stop(self) -> None:
        self._in, self._part, self._levels = _In.NOTHING, None, []
        self._window = Window()
