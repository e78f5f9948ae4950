"""A message that a lone dot ends, on its way from the stream into MailReaders: one for the message as the RFC reads it and, after
a loose end, one for what peers see that end it there (mail_dots)."""

from __future__ import annotations

import re
from collections.abc import Callable

from mamori.inspect.findings import AnomalySeen, Finding
from mamori.inspect.mail_dots import BareDot, DotReader, SecondReading, Text
from mamori.inspect.mail_lines import Message


class DottedMessage:
    """`message` None: an answer in lines that is no message (POP3's LIST). `begins` and `open_message` are SecondReading's. Not
    `is_complete`: even its end is not the end of the message (TOP). `second_from`: it is doubtful whether this is a message at
    all, so there is a second reading from that offset on."""

    __slots__ = ("_bare_dot_told", "_begins", "_dots", "_followed", "_is_complete", "_loose_start", "_message", "_open", "second")

    def __init__(
        self,
        message: Message | None,
        begins: re.Pattern[bytes],
        open_message: Callable[[], Message],
        *,
        is_complete: bool = True,
        dots: DotReader | None = None,
        second_from: int | None = None,
    ) -> None:
        self._message = message
        self._begins = begins
        self._open = open_message
        self._dots = dots or DotReader()
        self._is_complete = is_complete
        self.second = None if second_from is None else SecondReading(second_from, begins, open_message)
        self._loose_start = 0
        self._followed = second_from is not None
        self._bare_dot_told = False

    @property
    def ended(self) -> bool:
        return self._dots.ended

    @property
    def held_bytes(self) -> int:
        parts = (self._dots, self._message, self.second)
        return sum(part.held_bytes for part in parts if part)

    def take(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        """Reads `data`, whose first byte is at offset `base`, from `at` on; gives where the message ended, or its length."""
        end, events = self._dots.take(data, at, base)
        for event in events:
            if self.second and event.start >= self.second.start:
                self._tell_followed(self.second, found)
            if isinstance(event, Text):
                if self._message:
                    found += self._message.receive(event.start, event.data)
            elif isinstance(event, BareDot):
                if not self._bare_dot_told:
                    self._bare_dot_told = True
                    found.append(AnomalySeen(event.start, event.start + 1, "a dot begins a line after a bare LF", True))
            elif self.second is None:
                self.second = SecondReading(event.end, self._begins, self._open)
                self._loose_start = event.start
        if self.second and base + end > self.second.start:
            self._read_twice(self.second, data[:end], max(at, self.second.start - base), base, found)
        if self.ended:
            if self._message:
                found += self._message.end(self._is_complete)
            if self.second:
                found += self.second.end()
        return end

    def _read_twice(self, second: SecondReading, data: bytes, at: int, base: int, found: list[Finding]) -> None:
        self._tell_followed(second, found)
        found += second.receive(data, at, base)

    def _tell_followed(self, second: SecondReading, found: list[Finding]) -> None:
        if not self._followed:
            self._followed = True
            text = "a line with a dot that ends the message for some receivers, and more after it"
            found.append(AnomalySeen(self._loose_start, second.start, text, True))

    def take_loose_end(self, found: list[Finding]) -> SecondReading | None:
        """The receiver has shown that it took the loose end for the end: gives how its reading went on; None without one.

        If nothing followed the loose end, then both sides agree, and the sender only has the wrong line ends.
        """
        second, self.second = self.second, None
        if second is None:
            return None
        if not self._followed:
            found.append(AnomalySeen(self._loose_start, second.start, "a message that does not end in CRLF . CRLF", False))
        if self._message:
            found += self._message.end(self._is_complete)
        return second

    def break_off(self) -> list[Finding]:
        """The connection ended, or the transaction was given up."""
        found = self._message.end(is_complete=False) if self._message else []
        return found + (self.second.end() if self.second else [])
