"""SMTP and LMTP (RFC 5321, 2033) with PIPELINING, CHUNKING, STARTTLS and AUTH: the messages that a client sends, by DATA or BDAT.

    reader = SmtpReader()
    findings = reader.receive(ORIGINATOR, data)      # and RESPONDER

What a client's bytes are depends on answers: after DATA a message if the server says 354, commands if not. An honest client
waits for it (RFC 2920, section 3.1). One that does not is read at once as if the answer were yes, since bytes may not pass
unread, and its bytes are kept to be read again as commands if it is no (mail_lines.EarlyBytes).

Each command has one answer (LMTP: the end of a message one for each recipient), so answers are matched by counting. Where the
count goes wrong, 354 says by itself that a message comes.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import AnomalySeen, Finding, TlsBegins
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.mail_dots import MAX_COMMAND_BYTES, DotReader
from mamori.inspect.mail_dotted import DottedMessage
from mamori.inspect.mail_lines import EarlyBytes, LineReader, Message, Messages, OpenMail, Streams
from mamori.inspect.mime import MailReader

MAX_WAITING = 10_000
"""Commands without an answer yet. Postfix takes 1000 recipients in a message, and a client may send them all at once."""

MAX_EXTENSIONS = 100
"""Lines of an answer whose first word is kept. Servers offer some twenty extensions."""

MAX_LINE_BYTES = 12_288 + 2
"""The longest command: an answer of AUTH (RFC 4954, section 4.3). Beyond it some servers read the rest as another command."""

_DATA = re.compile(rb"[ \t]*DATA(?![!-~])", re.IGNORECASE)
_VERB = re.compile(rb"[ \t]*([!-~]+)[ \t]*([^\r\n]*)")
_CHUNK = re.compile(rb"(\d{1,18})(?:[ \t]+(LAST))?[ \t]*", re.IGNORECASE)
_REPLY = re.compile(rb"(\d\d\d)([- ]?)[ \t]*([!-~]*)")


class SmtpError(ParseError):
    """This is no SMTP, or can no longer be followed."""


class _State(Enum):
    """What the client's next bytes are."""

    COMMAND = "a command"
    ANSWER = "an answer within AUTH"
    MESSAGE = "a message in lines"
    CHUNK = "bytes of BDAT"
    TLS_ASKED = "not clear before the answer to STARTTLS"
    TLS = "TLS"


class _Wait(Enum):
    """What an answer is to."""

    OTHER = "other commands"
    HELLO = "EHLO, LHLO, HELO"
    RECIPIENT = "RCPT"
    AUTH = "AUTH"
    DATA = "DATA"
    UNSURE_CHUNK = "BDAT to a server that did not offer it"
    STARTTLS = "STARTTLS"
    END = "a message"


_VERBS = {
    b"EHLO": _Wait.HELLO,
    b"HELO": _Wait.HELLO,
    b"LHLO": _Wait.HELLO,
    b"RCPT": _Wait.RECIPIENT,
    b"AUTH": _Wait.AUTH,
    b"DATA": _Wait.DATA,
    b"STARTTLS": _Wait.STARTTLS,
}
_GIVES_UP = frozenset({b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RSET", b"QUIT"})
_ASSUMED = frozenset({_Wait.DATA, _Wait.UNSURE_CHUNK, _Wait.STARTTLS})


class SmtpReader:
    """A findings.Reader. Raises SmtpError."""

    def __init__(self, starts: tuple[int, int] = (0, 0), mail: OpenMail = MailReader) -> None:
        self._streams = Streams(starts, SmtpError)
        self._messages = Messages(mail)
        self._lines = LineReader(MAX_COMMAND_BYTES)
        self._replies = LineReader(MAX_COMMAND_BYTES)
        self._state = _State.COMMAND
        self._early = EarlyBytes()
        self._waiting: deque[_Wait] = deque()
        self._dotted: DottedMessage | None = None
        self._chunked: Message | None = None
        self._chunk_left = 0
        self._chunk_is_last = False
        self._greeted = self._is_lmtp = self._offers_chunks = False
        self._tls_begun = False  # either side has sent a byte after the answer to STARTTLS
        self._extensions: set[bytes] = set()
        self._recipients = 0

    @property
    def held_bytes(self) -> int:
        parts = (self._lines, self._replies, self._early, self._dotted, self._chunked)
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
        if direction != ORIGINATOR:
            return []
        return self._give_up()

    def _give_up(self) -> list[Finding]:
        """The message that is under way will not become whole."""
        found: list[Finding] = []
        if self._dotted:
            found += self._dotted.break_off()
        if self._chunked:
            found += self._chunked.end(is_complete=False)
        self._dotted = self._chunked = None
        return found

    # ---- the client

    def _read_client(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data):
            match self._state:
                case _State.COMMAND | _State.ANSWER:
                    at = self._take_line(data, at, base, found)
                case _State.MESSAGE:
                    at = self._take_text(data, at, base, found)
                case _State.CHUNK:
                    at = self._take_chunk(data, at, base, found)
                case _State.TLS_ASKED:
                    if self._early.is_first_at(base + at):
                        text = "bytes after STARTTLS before it was answered"
                        found.append(AnomalySeen(base + at, base + at + 1, text, True))
                    return
                case _State.TLS:
                    self._tls_begun = True
                    return

    def _take_line(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        at, line = self._lines.take(data, at)
        if line is None:
            return at
        if self._lines.last_size > MAX_LINE_BYTES:
            start = base + at - self._lines.last_size
            found.append(AnomalySeen(start, base + at, f"a command of more than {MAX_LINE_BYTES} bytes", True))
        if self._state is _State.ANSWER:
            self._state = _State.COMMAND
        else:
            self._on_command(line, data, at, base, found)
        return at

    def _on_command(self, line: bytes, data: bytes, at: int, base: int, found: list[Finding]) -> None:
        parts = _VERB.match(line)
        verb, argument = (parts[1].upper(), parts[2]) if parts else (b"", b"")
        if verb in _GIVES_UP:
            found += self._give_up()
            self._recipients = 0
        self._is_lmtp = self._is_lmtp or verb == b"LHLO"
        wait = self._begin_chunk(argument, base + at, found) if verb == b"BDAT" else _VERBS.get(verb, _Wait.OTHER)
        if wait in _ASSUMED:
            self._early.place(base + at, data[at:])
        self._wait_for(wait)
        if wait is _Wait.DATA:
            self._begin_text()
        elif wait is _Wait.STARTTLS:
            self._state = _State.TLS_ASKED

    def _wait_for(self, wait: _Wait, times: int = 1) -> None:
        if len(self._waiting) + times > MAX_WAITING:
            raise SmtpError(f"more than {MAX_WAITING} commands without an answer")
        self._waiting.extend([wait] * times)

    def _open_message(self) -> Message:
        return self._messages.open()

    def _begin_text(self, message: Message | None = None, dots: DotReader | None = None) -> None:
        self._dotted = DottedMessage(message or self._open_message(), _DATA, self._open_message, dots=dots)
        self._state = _State.MESSAGE

    def _take_text(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        if self._dotted is None:  # given up
            self._state = _State.COMMAND
            return at
        if self._early.is_first_at(base + at):
            found.append(AnomalySeen(base + at, base + at + 1, "a message before the server asked for it", True))
        at = self._dotted.take(data, at, base, found)
        if self._dotted.ended:
            self._dotted = None
            self._end_message()
        return at

    def _end_message(self) -> None:
        self._state = _State.COMMAND
        self._wait_for(_Wait.END, max(1, self._recipients) if self._is_lmtp else 1)
        self._recipients = 0

    def _begin_chunk(self, argument: bytes, offset: int, found: list[Finding]) -> _Wait:
        """RFC 3030, section 2. Its bytes follow without waiting. A server that knows BDAT reads them even if it refuses them;
        one that does not reads commands."""
        size = _CHUNK.fullmatch(argument)
        if not size:
            found.append(AnomalySeen(offset, offset, "BDAT without a size that all servers read alike", True))
            return _Wait.OTHER
        self._chunk_left, self._chunk_is_last = int(size[1]), bool(size[2])
        if self._chunked is None:
            self._chunked = self._open_message()
        if self._chunk_left:
            self._state = _State.CHUNK
        elif self._chunk_is_last:
            found += self._end_chunked()
            return _Wait.OTHER
        if self._offers_chunks:
            return _Wait.OTHER
        found.append(AnomalySeen(offset, offset, "BDAT to a server that did not offer CHUNKING", True))
        return _Wait.UNSURE_CHUNK

    def _take_chunk(self, data: bytes, at: int, base: int, found: list[Finding]) -> int:
        stop = min(len(data), at + self._chunk_left)
        self._chunk_left -= stop - at
        if self._chunked:
            found += self._chunked.receive(base + at, data[at:stop])
        if not self._chunk_left:
            self._state = _State.COMMAND
            if self._chunk_is_last:
                found += self._end_chunked()
        return stop

    def _end_chunked(self) -> list[Finding]:
        message, self._chunked = self._chunked, None
        if self._is_lmtp and self._recipients > 1:
            self._wait_for(_Wait.END, self._recipients - 1)
        self._recipients = 0
        return message.end() if message else []

    # ---- the server

    def _read_server(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data):
            if self._state is _State.TLS:
                if not self._tls_begun:
                    self._tls_begun = True
                    text = "the server sends more after its answer to STARTTLS, before the client began with TLS"
                    found.append(AnomalySeen(base + at, base + at + 1, text, True))
                return
            at, line = self._replies.take(data, at)
            if line is not None:
                self._on_reply_line(line, base + at, found)

    def _on_reply_line(self, line: bytes, end: int, found: list[Finding]) -> None:
        reply = _REPLY.match(line)
        if not reply:
            if not self._greeted:
                raise SmtpError("the server does not greet with a code")
            return
        if len(self._extensions) < MAX_EXTENSIONS:
            self._extensions.add(reply[3].upper())
        if reply[2] == b"-":
            return
        extensions, self._extensions = self._extensions, set()
        if not self._greeted:
            self._greeted = True
        else:
            self._on_reply(int(reply[1]), extensions, end, found)

    def _on_reply(self, code: int, extensions: set[bytes], end: int, found: list[Finding]) -> None:
        if code == 354:
            self._on_go_ahead(found)
        elif code == 334:
            self._on_step_of_auth()
        elif code == 421:
            pass  # the server goes (RFC 5321, section 3.8); it answers nothing
        elif self._waiting:
            self._on_answer(self._waiting.popleft(), code, extensions, end, found)
        elif self._dotted:
            self._on_early_answer(self._dotted, code, found)

    def _on_step_of_auth(self) -> None:
        """334: the client answers with a line that is no command."""
        if not self._waiting or self._waiting[0] is not _Wait.AUTH:
            return
        if len(self._waiting) == 1 and self._state is _State.COMMAND:
            self._state = _State.ANSWER
        elif len(self._waiting) > 1 and self._waiting[1] not in _ASSUMED:
            del self._waiting[1]  # the client did not wait to be asked, so its line looked like a command

    def _on_go_ahead(self, found: list[Finding]) -> None:
        """354. If no DATA waits, the server has read one where we did not."""
        if _Wait.DATA in self._waiting:
            while (wait := self._waiting.popleft()) is not _Wait.DATA:
                if wait in _ASSUMED:
                    self._early.won()
            self._early.won()
        elif self._state is _State.COMMAND:
            offset = self._streams.at[ORIGINATOR]
            found.append(AnomalySeen(offset, offset, "the server asks for a message that the client did not announce", True))
            self._begin_text()

    def _on_answer(self, wait: _Wait, code: int, extensions: set[bytes], end: int, found: list[Finding]) -> None:
        is_yes = 200 <= code < 300
        if wait is _Wait.HELLO and is_yes:
            self._offers_chunks = b"CHUNKING" in extensions
        elif wait is _Wait.RECIPIENT and is_yes:
            self._recipients += 1
        elif wait is _Wait.DATA and is_yes:
            self._waiting.appendleft(wait)  # DATA is never answered so: an answer too many
        elif wait is _Wait.UNSURE_CHUNK and code not in (500, 502):
            self._early.won()
        elif wait is _Wait.STARTTLS and is_yes:
            found += self._give_up()
            self._state = _State.TLS
            found.append(TlsBegins((self._early.won(), end)))
        elif wait in _ASSUMED:
            self._read_again(found)

    def _read_again(self, found: list[Finding]) -> None:
        """The server did not agree: what the client sent since then are commands."""
        found += self._give_up()
        self._waiting.clear()  # what waits behind was read in the wrong way
        start, data = self._early.lost()
        if data is None:
            raise SmtpError("the client did not wait for an answer, and it was no")
        self._lines = LineReader(MAX_COMMAND_BYTES)
        self._state = _State.COMMAND
        self._read_client(data, start, found)

    def _on_early_answer(self, dotted: DottedMessage, code: int, found: list[Finding]) -> None:
        """An answer to a message that, as we read it, has not ended. A server may refuse it before its end; otherwise the server
        has seen an end."""
        second = dotted.take_loose_end(found)
        if second is None:
            if 200 <= code < 300:
                offset = self._streams.at[ORIGINATOR]
                found.append(AnomalySeen(offset, offset, "the server saw the end of a message where there is none", True))
                found += self._give_up()
                self._state = _State.COMMAND
            return
        self._dotted = None
        self._state = _State.COMMAND
        self._lines = second.lines
        if second.message:
            self._begin_text(second.message, second.dots)
