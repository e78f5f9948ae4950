"""IMAP (RFC 3501, 9051): the messages and parts that a server gives in FETCH, and those that a client gives in APPEND.

    reader = ImapReader()
    findings = reader.receive(RESPONDER, data)      # and ORIGINATOR

Both sides send lines in which literals lie: `{5}`, CRLF, five bytes, and the line goes on. Only they and quoted strings carry
content. After COMPRESS=DEFLATE (RFC 4978) the same is read from what is inflated, but the ranges of findings are those of the
deflated segments, and their coding is COMPRESSED.
"""

from __future__ import annotations

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    FileData,
    FileEnded,
    FileStarted,
    FileUnseen,
    Finding,
    OpaqueBegins,
    TlsBegins,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.imap_client import CommandReader, Question
from mamori.inspect.imap_deflate import Inflater
from mamori.inspect.imap_server import ResponseReader
from mamori.inspect.mail_lines import Messages, OpenMail, Streams
from mamori.inspect.mime import MailReader


class ImapError(ParseError):
    """This is no IMAP, or can no longer be followed."""


class ImapReader:
    """A findings.Reader. Raises ImapError."""

    def __init__(self, starts: tuple[int, int] = (0, 0), mail: OpenMail = MailReader) -> None:
        messages = Messages(mail)
        self._streams = Streams(starts, ImapError)
        self._places = list(starts)  # in what is read, which after COMPRESS is longer
        self._client = CommandReader(messages)
        self._server = ResponseReader(messages)
        self._inflaters: tuple[Inflater, Inflater] | None = None
        self._is_tls = self._tls_begun = self._is_opaque = False

    @property
    def held_bytes(self) -> int:
        return self._client.held_bytes + self._server.held_bytes

    def receive(self, direction: int, data: bytes) -> list[Finding]:
        return self._streams.receive(direction, data, self._receive)

    def _receive(self, direction: int, data: bytes, start: int, found: list[Finding]) -> None:
        if self._is_tls:
            self._after_tls(direction, start, bool(data), found)
        elif self._inflaters:
            self._read_deflated(direction, data, start, found)
        else:
            self._read(direction, data, found)

    def end(self, direction: int) -> list[Finding]:
        return self._client.end() if direction == ORIGINATOR else self._server.end()

    def _read(self, direction: int, data: bytes, found: list[Finding]) -> None:
        base = self._places[direction]
        self._places[direction] += len(data)
        if direction == ORIGINATOR:
            self._client.receive(data, base, found)
            if self._client.changes_mailbox:
                self._client.changes_mailbox = False
                found += self._server.sections.clear()
            self._server.asked_sizes.update(self._client.take_asked_sizes())
        else:
            self._read_server(data, base, found)

    def _read_server(self, data: bytes, base: int, found: list[Finding]) -> None:
        at = 0
        while at < len(data) and not self._is_tls:
            at, line = self._server.take(data, at, base, found)
            if line is None:
                continue
            if self._server.is_strange:
                raise ImapError("the server does not greet with * OK")
            if self._on_line(line, base + at, found):
                self._places[RESPONDER] = base + at
                self._read_deflated(RESPONDER, data[at:], base + at, found)
                return
        if self._is_tls and at < len(data):
            self._after_tls(RESPONDER, base + at, True, found)

    def _on_line(self, line: bytes, end: int, found: list[Finding]) -> bool:
        """A whole response: does it answer what the client's next bytes depend on? True if deflated bytes follow."""
        question, is_yes = self._client.answered_by(line)
        if question is None:
            return False
        if not is_yes:
            early = self._client.read_again(found)
            if early is None:
                raise ImapError("the client did not wait for an answer, and it was no")
        elif question is Question.LITERAL or self._inflaters:
            self._client.early.won()
        elif question is Question.STARTTLS:
            found.append(TlsBegins((self._client.early.won(), end)))
            self._is_tls = True
        else:
            self._begin_deflate(found)
            return True
        return False

    def _begin_deflate(self, found: list[Finding]) -> None:
        self._inflaters = (Inflater(), Inflater())
        start, data = self._client.early.lost()
        self._client.begin_anew()
        if data is None:
            raise ImapError("the client did not wait for the answer to COMPRESS")
        self._places[ORIGINATOR] = start
        self._read_deflated(ORIGINATOR, data, start, found)

    def _read_deflated(self, direction: int, data: bytes, start: int, found: list[Finding]) -> None:
        if not self._inflaters or not data or self._is_opaque:
            return
        inflater = self._inflaters[direction]
        inside: list[Finding] = []
        for plain in inflater.receive(data):
            self._read(direction, plain, inside)
        end = start + len(data)
        if inflater.trouble:
            self._is_opaque = True
            inside += self._client.end() + self._server.end()
        found += [_relocated(finding, start, end) for finding in inside]
        if inflater.trouble:
            found.append(AnomalySeen(start, end, f"compressed IMAP: {inflater.trouble}", True))
            found.append(OpaqueBegins(start, "imap"))

    def _after_tls(self, direction: int, start: int, has_data: bool, found: list[Finding]) -> None:
        if has_data and not self._tls_begun:
            self._tls_begun = True
            if direction == RESPONDER:
                text = "the server sends more after its answer to STARTTLS, before the client began with TLS"
                found.append(AnomalySeen(start, start + 1, text, True))


def _relocated(finding: Finding, start: int, end: int) -> Finding:
    """A finding of what a deflated segment holds, as one of the segment."""
    match finding:
        case FileStarted():
            return FileStarted(finding.file, start, finding.name, finding.subject)
        case FileData():
            return FileData(finding.file, start, end, Coding.COMPRESSED, finding.data)
        case FileEnded():
            return FileEnded(finding.file, end, finding.is_complete)
        case FileUnseen():
            return FileUnseen(finding.file, start, finding.reason)
        case AnomalySeen():
            return AnomalySeen(start, end, finding.text, finding.is_evasion)
    return finding
