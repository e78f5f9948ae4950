"""The client's side of IMAP: commands, with the messages of APPEND and REPLACE (RFC 8508) in their literals.

After `{5}` a client waits for the server's `+`, after `{5+}` (RFC 7888) it does not. What it sends without waiting is read as the
literal at once, and read again as commands if the server refuses.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from enum import Enum

from mamori.inspect.findings import AnomalySeen, Finding
from mamori.inspect.mail_lines import EarlyBytes, LineReader, Message, Messages

MAX_COMMAND_BYTES = 8 << 10
"""What is kept of a command's line: 8,000 bytes are what servers take (RFC 7162, section 4)."""

MAX_PREFIX_BYTES = 1 << 10
"""What is kept of a command before a literal: tag, verb and mailbox are in it."""

MAX_QUESTIONS = 100
"""Literals and STARTTLS that wait for an answer; a client waits for each."""

MAX_ASKED_SIZES = 200
"""Pieces of mails that were asked for and have not come."""

LITERAL = re.compile(rb"~?\{(\d{1,18})([+-]?)\}\r?\n\Z")
_COMMAND = re.compile(rb"[ \t]*([!-~]++)[ \t]++(?:UID[ \t]++)?([A-Za-z]++)[ \t]*+(\S*+)", re.IGNORECASE)
_UPLOAD = re.compile(rb"[ \t]*[!-~]++[ \t]++(?:UID[ \t]++)?(?:APPEND|REPLACE[ \t]++\S++)[ \t]++(?=(.?))", re.IGNORECASE | re.DOTALL)
_PIECE = re.compile(rb"<(\d{1,18})\.(\d{1,18})>")
_CHANGES_MAILBOX = frozenset({b"SELECT", b"EXAMINE", b"CLOSE", b"UNSELECT"})
_ANSWER = re.compile(rb"(\+)|([!-~]++)[ \t]++(OK|NO|BAD)\b", re.IGNORECASE)


class Question(Enum):
    """What the meaning of the client's next bytes depends on."""

    LITERAL = "a literal"
    STARTTLS = "STARTTLS"
    COMPRESS = "COMPRESS DEFLATE"


@dataclass(frozen=True, slots=True)
class _Asked:
    tag: bytes
    question: Question


class CommandReader:
    """`receive` finds the messages. `answered_by` takes every response of the server, and says what it answers."""

    def __init__(self, messages: Messages) -> None:
        self.early = EarlyBytes()
        self.changes_mailbox = False
        self._messages = messages
        self._asked: deque[_Asked] = deque()
        self._asked_sizes: dict[int, int] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """The next byte is the first of a command."""
        self._lines = LineReader(MAX_COMMAND_BYTES)
        self._prefix = b""  # of the command, up to the last literal
        self._literal_left = 0
        self._message: Message | None = None
        self._asked.clear()

    @property
    def held_bytes(self) -> int:
        message = self._message.held_bytes if self._message else 0
        return self._lines.held_bytes + self.early.held_bytes + len(self._prefix) + message

    def take_asked_sizes(self) -> dict[int, int]:
        """Of pieces of mails, by the offset where they begin; since the last call."""
        taken, self._asked_sizes = self._asked_sizes, {}
        return taken

    def receive(self, data: bytes, base: int, found: list[Finding]) -> None:
        """The next bytes, the first at offset `base`."""
        if data and self.early:
            self.early.keep(data)
        self._read(data, base, found)

    def end(self) -> list[Finding]:
        """Nothing more comes."""
        message, self._message = self._message, None
        return message.end(is_complete=False) if message else []

    def _read(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data):
            if self.early.is_first_at(base + at):
                what = self._asked[-1].question.value
                found.append(AnomalySeen(base + at, base + at + 1, f"bytes after {what} before the server answered", True))
            if self._asked and self._asked[-1].question is not Question.LITERAL:
                return
            if self._literal_left:
                at = self._take_literal(data, at, base, found)
                continue
            at, line = self._lines.take(data, at)
            if line is not None:
                self._on_line(line, data, at, base, found)

    def _on_line(self, line: bytes, data: bytes, at: int, base: int, found: list[Finding]) -> None:
        is_new = not self._prefix
        text = self._prefix + line
        command = _COMMAND.match(text)
        tag, verb, argument = command.groups() if command else (b"", b"", b"")
        for origin, size in _PIECE.findall(line):
            if len(self._asked_sizes) < MAX_ASKED_SIZES:
                self._asked_sizes[int(origin)] = int(size)
        literal = LITERAL.search(line)
        if literal:
            self._begin_literal(text[: len(text) - len(literal[0])], int(literal[1]), found)
            if not literal[2]:
                self._ask(tag, Question.LITERAL, base + at, data[at:])
            return
        self._prefix = b""
        verb = verb.upper()
        if verb in _CHANGES_MAILBOX:
            self.changes_mailbox = True
        elif verb == b"STARTTLS" and is_new:
            self._ask(tag, Question.STARTTLS, base + at, data[at:])
        elif verb == b"COMPRESS" and is_new and argument.upper() == b"DEFLATE":
            self._ask(tag, Question.COMPRESS, base + at, data[at:])

    def _ask(self, tag: bytes, question: Question, offset: int, rest: bytes) -> None:
        if len(self._asked) < MAX_QUESTIONS:
            self._asked.append(_Asked(tag, question))
            self.early.place(offset, rest)

    def _begin_literal(self, before: bytes, size: int, found: list[Finding]) -> None:
        self._prefix = before[:MAX_PREFIX_BYTES] or b" "
        self._literal_left = size
        upload = _UPLOAD.match(before)
        # Directly after the verb comes the mailbox, which may be a literal too.
        if upload and upload[1]:
            self._message = self._messages.open()
            if not size:
                found += self._end_message()
        elif upload or not size:
            self._prefix += b'""'

    def _take_literal(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        stop = min(len(data), at + self._literal_left)
        self._literal_left -= stop - at
        if self._message:
            found += self._message.receive(base + at, data[at:stop])
            if not self._literal_left:
                found += self._end_message()
        return stop

    def _end_message(self) -> list[Finding]:
        message, self._message = self._message, None
        return message.end() if message else []

    # ---- answers

    def answered_by(self, line: bytes) -> tuple[Question | None, bool]:
        """What this response answers, and whether with yes; None: nothing that matters here."""
        answer = _ANSWER.match(line)
        if not answer or not self._asked:
            return None, False
        if answer[1]:
            is_literal = self._asked[0].question is Question.LITERAL
            return (self._asked.popleft().question, True) if is_literal else (None, False)
        if all(asked.tag != answer[2] for asked in self._asked):
            return None, False
        while self._asked[0].tag != answer[2]:
            self._asked.popleft()  # a later command is answered, so this one will not be
            self.early.won()
        question = self._asked.popleft().question
        return question, answer[3].upper() == b"OK" and question is not Question.LITERAL

    def read_again(self, found: list[Finding]) -> bytes | None:
        """The answer was no: what came since then are commands. None if it was too much to keep."""
        found += self.end()
        start, data = self.early.lost()
        self.begin_anew()
        if data:
            self._read(data, start, found)
        return data
