"""What the readers of SMTP, POP3 and IMAP share: offsets and an error, bounded lines, bytes before their answer, numbered files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import FileData, FileEnded, FileStarted, FileUnseen, Finding

MAX_EARLY_BYTES = 64 << 10
"""What a client sends before the answer that says how to read it, kept to be read in the other way. An honest client waits; who
sends more, and is then refused, ends the reading."""


class MailReader(Protocol):
    """Reads one message: mime.MailReader."""

    def receive(self, start: int, data: bytes) -> list[Finding]: ...
    def end(self, is_complete: bool = True) -> list[Finding]: ...
    @property
    def held_bytes(self) -> int: ...


OpenMail = Callable[[int, str], MailReader]
"""Makes a MailReader, from the number of its first file and the prefix of its subjects."""


class Streams:
    """How far both streams of a connection were read, and the error that ended it, which is raised again at every later call."""

    __slots__ = ("_error", "_said", "at")

    def __init__(self, starts: tuple[int, int], error: type[ParseError]) -> None:
        self.at = list(starts)
        """The offset behind the last byte of each direction."""
        self._error = error
        self._said = ""

    def receive(self, direction: int, data: bytes, read: Callable[[int, bytes, int, list[Finding]], None]) -> list[Finding]:
        """What `read` finds in `data`; it is given the offset as well. With something found before an error, that is
        given, and the error waits for the next call."""
        if self._said:
            raise self._error(self._said)
        base = self.at[direction]
        self.at[direction] += len(data)
        found: list[Finding] = []
        try:
            read(direction, data, base, found)
        except self._error as error:
            self._said = str(error)
            if not found:
                raise
        return found


class LineReader:
    """Lines end in LF, with or without a CR, as all servers take them. Of a line above `limit_bytes` its two ends are kept: the
    verb is at one, IMAP's literal at the other."""

    __slots__ = ("_half", "_held", "_size", "last_size")

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._held = bytearray()
        self._size = 0  # of the line so far, with what was dropped
        self.last_size = 0  # of the line that was given last, likewise

    def take(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """Reads `data` from `at` on: where the next line begins, and the line with its end; None when it is not whole yet."""
        end = data.find(b"\n", at) + 1
        stop = end or len(data)
        self._size += stop - at
        half = self._half
        if stop - at > 2 * half:  # no need to copy a segment for its two ends
            self._held += data[at : at + half]
            self._held += data[stop - half : stop]
        else:
            self._held += data[at:stop]
        if len(self._held) > 4 * half or (end and len(self._held) > 2 * half):
            del self._held[half:-half]
        if not end:
            return stop, None
        line = bytes(self._held)
        self._held.clear()
        self.last_size, self._size = self._size, 0
        return stop, line

    @property
    def held_bytes(self) -> int:
        return len(self._held)


class EarlyBytes:
    """Client bytes that were read in one way although only an answer, still to come, says that it is the right one.

    `place` after each command that has such an answer, `keep` for all that comes, `won` or `lost` when it is answered, in order.
    """

    __slots__ = ("_held", "_places", "_start", "_too_many")

    def __init__(self) -> None:
        self._places: deque[int] = deque()
        self._held = bytearray()
        self._start = 0  # offset of the first byte held
        self._too_many = False

    def __bool__(self) -> bool:
        return bool(self._places)

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def place(self, offset: int, rest: bytes) -> None:
        """What follows `offset` depends on an answer; `rest` is as much as has come of it."""
        if not self._places:
            self._start = offset
            self._too_many = False
            self.keep(rest, force=True)
        self._places.append(offset)

    def keep(self, data: bytes, force: bool = False) -> None:
        """The next bytes of the client."""
        if not self._places and not force:
            return
        if self._too_many or len(self._held) + len(data) > MAX_EARLY_BYTES:
            self._too_many = True
            self._held.clear()
        else:
            self._held += data

    def is_first_at(self, offset: int) -> bool:
        """Whether this is the first byte of what was read on the latest assumption."""
        return bool(self._places) and self._places[-1] == offset

    def won(self) -> int:
        """The assumption was right; gives the offset where it began."""
        offset = self._places.popleft()
        if not self._places:
            self._held.clear()
        elif not self._too_many:
            del self._held[: self._places[0] - self._start]
            self._start = self._places[0]
        return offset

    def lost(self) -> tuple[int, bytes | None]:
        """It was wrong: where to read again, and what; None when it was too much to keep. All later ones are void."""
        offset, data = self._start, None if self._too_many else bytes(self._held)
        self._places.clear()
        self._held.clear()
        return offset, data


class Messages:
    """Opens one message after another, and gives their files numbers that are unique on the connection and ascend. Several messages
    may be open at once, so what a MailReader counts is not taken as it is."""

    __slots__ = ("_next", "_open")

    def __init__(self, mail: OpenMail) -> None:
        self._open = mail
        self._next = 1

    def open(self, prefix: str = "mail") -> Message:
        return Message(self._open(self._next, prefix), self)

    def take_number(self) -> int:
        self._next += 1
        return self._next - 1


class Message:
    """A message on its way into its MailReader."""

    __slots__ = ("_mail", "_messages", "_numbers")

    def __init__(self, mail: MailReader, messages: Messages) -> None:
        self._mail = mail
        self._messages = messages
        self._numbers: dict[int, int] = {}  # of files that are open: the MailReader's, and ours

    def receive(self, start: int, data: bytes) -> list[Finding]:
        return [self._numbered(finding) for finding in self._mail.receive(start, data)]

    def end(self, is_complete: bool = True) -> list[Finding]:
        """No more of it; not complete: its carrier broke off."""
        return [self._numbered(finding) for finding in self._mail.end(is_complete)]

    @property
    def held_bytes(self) -> int:
        return self._mail.held_bytes

    def _numbered(self, finding: Finding) -> Finding:
        if not isinstance(finding, FileStarted | FileData | FileEnded | FileUnseen):
            return finding
        number = self._numbers.get(finding.file)
        if number is None:
            number = self._numbers[finding.file] = self._messages.take_number()
        if isinstance(finding, FileEnded):
            del self._numbers[finding.file]
        return finding if number == finding.file else finding._replace(file=number)
