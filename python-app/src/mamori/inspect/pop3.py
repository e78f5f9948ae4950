"""POP3 (RFC 1939) with pipelining, STLS (RFC 2595) and AUTH (RFC 5034): the messages that a server gives, by RETR or TOP.

    reader = Pop3Reader()
    findings = reader.receive(RESPONDER, data)      # and ORIGINATOR

What an answer is depends on the command: one line, or one line and then text up to a lone dot. Answers are matched by counting.
Where text comes although one line was expected, it is read as a message, since that shows the most.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import AnomalySeen, Finding, TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.mail_dots import MAX_COMMAND_BYTES
from mamori.inspect.mail_dotted import DottedMessage
from mamori.inspect.mail_lines import EarlyBytes, LineReader, Message, Messages, OpenMail, Streams
from mamori.inspect.mime import MailReader

MAX_WAITING = 100_000
"""Commands without an answer yet: a client may ask for all that is in a mailbox at once."""

_OK = re.compile(rb"\+")
_TOKEN = re.compile(rb"[ \t]*([!-~]+)[ \t]*([^\r\n]*)")


class Pop3Error(ParseError):
    """This is no POP3, or can no longer be followed."""


class _Wait(Enum):
    """What the answer to a command is, if it is +OK."""

    LINE = "one line"
    LINES = "a line, and lines up to a dot"
    MESSAGE = "a line, and a message up to a dot"
    PART = "a line, and the beginning of a message up to a dot"
    AUTH = "one line, after steps that begin with + and are answered in a line"
    TLS = "one line, then TLS"


_ALWAYS = {
    b"RETR": _Wait.MESSAGE,
    b"TOP": _Wait.PART,
    b"CAPA": _Wait.LINES,
    b"STLS": _Wait.TLS,
}
_WITHOUT_ARGUMENT = {b"LIST": _Wait.LINES, b"UIDL": _Wait.LINES, b"AUTH": _Wait.LINES, b"LANG": _Wait.LINES}


def _wait_for(line: bytes) -> _Wait:
    token = _TOKEN.match(line)
    if not token:
        return _Wait.LINE
    verb, argument = token[1].upper(), token[2].strip()
    if verb in _ALWAYS:
        return _ALWAYS[verb]
    if not argument:
        return _WITHOUT_ARGUMENT.get(verb, _Wait.LINE)
    return _Wait.AUTH if verb == b"AUTH" else _Wait.LINE


class Pop3Reader:
    """A findings.Reader. Raises Pop3Error."""

    def __init__(self, starts: tuple[int, int] = (0, 0), mail: OpenMail = MailReader) -> None:
        self._streams = Streams(starts, Pop3Error)
        self._messages = Messages(mail)
        self._commands = LineReader(MAX_COMMAND_BYTES)
        self._replies = LineReader(MAX_COMMAND_BYTES)
        self._early = EarlyBytes()
        self._waiting: deque[_Wait] = deque()
        self._dotted: DottedMessage | None = None
        self._greeted = self._answers_auth = self._is_tls = False
        self._tls_begun = False  # either side has sent a byte after the answer to STLS
        self._unexpected_told = False

    @property
    def held_bytes(self) -> int:
        parts = (self._commands, self._replies, self._early, self._dotted)
        return sum(part.held_bytes for part in parts if part)

    def receive(self, direction: int, data: bytes) -> list[Finding]:
        return self._streams.receive(direction, data, self._read)

    def _read(self, direction: int, data: bytes, base: int, found: list[Finding]) -> None:
        if direction == ORIGINATOR:
            if data and self._early:
                self._early.keep(data)
            self._read_client(data, base, found)
        else:
            self._read_server(data, base, found)

    def end(self, direction: int) -> list[Finding]:
        if direction != RESPONDER or self._dotted is None:
            return []
        dotted, self._dotted = self._dotted, None
        return dotted.break_off()

    def _open_message(self) -> Message:
        return self._messages.open()

    # ---- the client

    def _read_client(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data):
            if self._is_tls:
                self._tls_begun = True
                return
            if self._early:
                if self._early.is_first_at(base + at):
                    found.append(AnomalySeen(base + at, base + at + 1, "bytes after STLS before it was answered", True))
                return
            at, line = self._commands.take(data, at)
            if line is not None:
                self._on_command(line, data, at, base, found)

    def _on_command(self, line: bytes, data: bytes, at: int, base: int, found: list[Finding]) -> None:
        if self._dotted and not self._waiting:
            self._end_at_loose_end(self._dotted, found)
        if self._answers_auth:
            self._answers_auth = False
            return
        if len(self._waiting) >= MAX_WAITING:
            raise Pop3Error(f"more than {MAX_WAITING} commands without an answer")
        wait = _wait_for(line)
        self._waiting.append(wait)
        if wait is _Wait.TLS:
            self._early.place(base + at, data[at:])

    def _end_at_loose_end(self, dotted: DottedMessage, found: list[Finding]) -> None:
        """The client goes on, although the answer has no end as we read it. Without a loose end it is only early."""
        second = dotted.take_loose_end(found)
        if second:
            self._replies = second.lines
            self._dotted = None
            if second.message:
                self._dotted = DottedMessage(second.message, _OK, self._open_message, dots=second.dots)

    # ---- the server

    def _read_server(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data):
            if self._is_tls:
                if not self._tls_begun:
                    self._tls_begun = True
                    text = "the server sends more after its answer to STLS, before the client began with TLS"
                    found.append(AnomalySeen(base + at, base + at + 1, text, True))
                return
            if self._dotted:
                at = self._dotted.take(data, at, base, found)
                if self._dotted.ended:
                    self._dotted = None
                continue
            at, line = self._replies.take(data, at)
            if line is not None:
                self._on_line(line, base + at, found)

    def _on_line(self, line: bytes, end: int, found: list[Finding]) -> None:
        is_yes, is_no = line.startswith(b"+"), line.startswith(b"-")
        if not self._greeted:
            if not is_yes and not is_no:
                raise Pop3Error("the server does not greet with +OK or -ERR")
            self._greeted = True
        elif is_yes or is_no:
            self._on_answer(is_yes, line, end, found)
        elif line.strip(b". \t\r\n"):
            self._on_unexpected(line, end - self._replies.last_size, end, found)

    def _on_answer(self, is_yes: bool, line: bytes, end: int, found: list[Finding]) -> None:
        if not self._waiting:
            return  # a server that goes says so without being asked
        if is_yes and self._waiting[0] is _Wait.AUTH and line[1:3].upper() != b"OK":
            if len(self._waiting) > 1:
                del self._waiting[1]  # the client did not wait to be asked, so its line looked like a command
            else:
                self._answers_auth = True
            return
        wait = self._waiting.popleft()
        if wait is _Wait.TLS and is_yes:
            self._is_tls = True
            found.append(TlsBegins((self._early.won(), end)))
        elif wait is _Wait.TLS:
            start, data = self._early.lost()
            if data is None:
                raise Pop3Error("the client did not wait for an answer, and it was no")
            self._read_client(data, start, found)
        elif is_yes and wait in (_Wait.MESSAGE, _Wait.PART):
            is_complete = wait is _Wait.MESSAGE
            self._dotted = DottedMessage(self._open_message(), _OK, self._open_message, is_complete=is_complete)
        elif is_yes and wait is _Wait.LINES:
            self._dotted = DottedMessage(None, _OK, self._open_message)

    def _on_unexpected(self, line: bytes, start: int, end: int, found: list[Finding]) -> None:
        """Text where a status should be. The line is whole only if it was short."""
        if not self._unexpected_told:
            self._unexpected_told = True
            found.append(AnomalySeen(start, end, "the server sends text where the answer to a command should be", True))
        message = self._open_message()
        if self._replies.last_size == len(line):
            found += message.receive(start, line)
        self._dotted = DottedMessage(message, _OK, self._open_message, second_from=end)
