"""A message in lines, ended by a dot on a line of its own (RFC 5321, section 4.5.2; RFC 1939, section 3); the dots of stuffing are
removed.

Only CRLF . CRLF ends a message, and peers do not agree about what else does: LF . LF, LF . CRLF, CRLF . LF, CR . CR, a NUL before
the dot. That is SMTP smuggling (CVE-2023-51764 Postfix, -51765 sendmail, -51766 Exim): what one peer reads as text, the next
one reads as commands and another message. Such a place is a *loose end*. The message is read on, and what follows is read a
second time as by a peer that takes the loose end for the end (`SecondReading`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from mamori.inspect.findings import Finding
from mamori.inspect.mail_lines import LineReader, Message

MAX_COMMAND_BYTES = 1 << 10
"""What is kept of a command or a reply: 512 bytes by RFC 5321 (4.5.3.1.4), with room for extensions. All that is looked at is
shorter; the long ones are keys and tickets of AUTH (12,288 bytes by RFC 4954), whose content is of no interest."""

_MARKED = (b"\n.", b"\r.", b"\0.")
_DOT = re.compile(rb"[\r\n\0]\.")


class Edge(Enum):
    """What is before or after a byte."""

    CRLF = "CRLF"
    LF = "LF without CR"
    CR = "CR without LF"
    NUL = "the start of a line, but for NUL bytes"
    NONE = "other bytes of the line"


@dataclass(frozen=True, slots=True)
class Text:
    """The message's next bytes, as they lie in the stream from `start` on."""

    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LooseEnd:
    """Some peers end the message before `end`, which is the offset after the dot's line."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class BareDot:
    """A line after a bare LF begins with a dot, which some peers remove; so do we."""

    start: int


class DotReader:
    """One message; `ended` is set when its end has come. With `is_loose` every loose end is an end."""

    __slots__ = ("_before", "_held", "_is_loose", "ended")

    def __init__(self, is_loose: bool = False) -> None:
        self._is_loose = is_loose
        self._before = Edge.CRLF  # of the next byte; of the dot when one is held
        self._held = b""  # a dot that begins a line, and a CR after it, until it is clear what follows
        self.ended = False

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def take(self, data: bytes, at: int, base: int) -> tuple[int, list[Text | LooseEnd | BareDot]]:
        """Reads `data`, whose first byte is at `base` in the stream, from `at` on; gives where the
        message has ended, or its length."""
        buffer = self._held + data[at:] if self._held else data[at:]
        origin = base + at - len(self._held)
        events: list[Text | LooseEnd | BareDot] = []
        done = 0  # bytes of the buffer that are dealt with
        for dot in self._dots(buffer):
            before = self._edge_before(buffer, dot)
            if before is Edge.NONE:
                continue
            after, end = _edge_after(buffer, dot + 1)
            if after is None:
                _add_text(events, origin, buffer, done, dot)
                self._before, self._held = before, buffer[dot:]
                return len(data), events
            if after is Edge.NONE and before in (Edge.CR, Edge.NUL):
                continue
            _add_text(events, origin, buffer, done, dot)
            done = dot + 1
            if after is Edge.NONE:
                if before is Edge.LF:
                    events.append(BareDot(origin + dot))
            elif self._is_loose or before is after is Edge.CRLF:
                self._held, self.ended = b"", True
                return origin - base + end, events
            else:
                events.append(LooseEnd(origin + dot, origin + end))
        _add_text(events, origin, buffer, done, len(buffer))
        self._before, self._held = self._edge_before(buffer, len(buffer)), b""
        return len(data), events

    def _dots(self, buffer: bytes) -> Iterator[int]:
        """Dots that may begin a line. Three searches are several times as fast as the expression, and mostly find nothing."""
        if buffer.startswith(b"."):
            yield 0
        if any(marked in buffer for marked in _MARKED):
            for found in _DOT.finditer(buffer):
                yield found.start() + 1

    def _edge_before(self, buffer: bytes, at: int) -> Edge:
        if at == 0:
            return self._before
        last = buffer[at - 1]
        if last == 0x0A:
            is_pair = buffer[at - 2] == 0x0D if at > 1 else self._before is Edge.CR
            return Edge.CRLF if is_pair else Edge.LF
        if last == 0x0D:
            return Edge.CR
        if last != 0:
            return Edge.NONE
        while at and buffer[at - 1] == 0:
            at -= 1
        starts_line = buffer[at - 1] in b"\r\n" if at else self._before is not Edge.NONE
        return Edge.NUL if starts_line else Edge.NONE


def _edge_after(buffer: bytes, at: int) -> tuple[Edge | None, int]:
    """What comes at `at` and where it ends; None when the buffer ends too early to tell."""
    following = buffer[at : at + 2]
    if following == b"\r\n":
        return Edge.CRLF, at + 2
    if following[:1] == b"\n":
        return Edge.LF, at + 1
    if following in (b"", b"\r"):
        return None, at
    return (Edge.CR, at + 1) if following[:1] == b"\r" else (Edge.NONE, at)


def _add_text(events: list[Text | LooseEnd | BareDot], origin: int, buffer: bytes, start: int, end: int) -> None:
    if start < end:
        events.append(Text(origin + start, buffer[start:end]))


class SecondReading:
    """What follows a loose end, for a peer that ended the message there: lines, and a message after each line that `begins` one."""

    __slots__ = ("_begins", "_open", "dots", "lines", "message", "start")

    def __init__(self, start: int, begins: re.Pattern[bytes], open_message: Callable[[], Message]) -> None:
        self.start = start
        self.lines = LineReader(MAX_COMMAND_BYTES)
        self.dots = DotReader(is_loose=True)
        self.message: Message | None = None
        self._begins = begins
        self._open = open_message

    @property
    def held_bytes(self) -> int:
        return self.lines.held_bytes + self.dots.held_bytes + (self.message.held_bytes if self.message else 0)

    def receive(self, data: bytes, at: int, base: int) -> list[Finding]:
        """The bytes of `data` from `at` on; `data` begins at offset `base`."""
        found: list[Finding] = []
        while at < len(data):
            if self.message is None:
                at, line = self.lines.take(data, at)
                if line is not None and self._begins.match(line):
                    self.message, self.dots = self._open(), DotReader(is_loose=True)
                continue
            at, events = self.dots.take(data, at, base)
            for event in events:
                if isinstance(event, Text):
                    found += self.message.receive(event.start, event.data)
            if self.dots.ended:
                found += self.message.end()
                self.message = None
        return found

    def end(self) -> list[Finding]:
        """The two readings agree again, or nothing more comes."""
        message, self.message = self.message, None
        return message.end(is_complete=False) if message else []
