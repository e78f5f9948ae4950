"""HTTP/1.x, TLS and DNS over TCP as readers of findings: `http1`, `tls` and `dns` seen from the policy's side.

A response's body is one file; so is a request's, and of a form each part of it (multipart/form-data, RFC 7578, which is read as
mail is). Parts from the middle of a file (ranges) are no files: nothing can be said of them; the retry of something infected
is stopped by its address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

from mamori.inspect.dns import DnsReader
from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    FileData,
    FileEnded,
    FileStarted,
    FileUnseen,
    Finding,
    HelloSeen,
    OpaqueBegins,
    OpaqueData,
    QuestionSeen,
    RequestSeen,
    ResponseSeen,
)
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.http1 import HttpConnection
from mamori.inspect.http1_events import (
    AnomalyFound,
    BodyReceived,
    BodyUnseen,
    Event,
    MessageEnded,
    OpaqueReceived,
    RequestReceived,
    ResponseReceived,
    Switched,
)
from mamori.inspect.http1_head import Anomaly, Fields
from mamori.inspect.http_url import UNKNOWN_SERVER
from mamori.inspect.mime import MailReader
from mamori.inspect.tls import ClientHelloReceived, TlsReader

_EVASIONS = frozenset(
    {
        Anomaly.NUL,
        Anomaly.SPACE_BEFORE_COLON,
        Anomaly.HOST_CONFLICT,
        Anomaly.CONFLICTING_LENGTH,
        Anomaly.LENGTH_AND_CHUNKED,
        Anomaly.CHUNKED_IN_1_0,
        Anomaly.ODD_TRANSFER_CODING,
        Anomaly.ODD_CHUNK,
        Anomaly.BARE_CR,
        Anomaly.JUNK_BEFORE_STATUS,
    }
)
"""Those over which a proxy, a server and a browser part ways; the others are seen from clumsy but honest peers."""


class HttpReader:
    """Both directions of HTTP/1.x. `server` is the address and port of the connection."""

    __slots__ = ("_connection", "_files", "_next_file", "_offsets")

    def __init__(self, starts: tuple[int, int] = (0, 0), server: tuple[str, int] = UNKNOWN_SERVER) -> None:
        self._connection = HttpConnection(server)
        self._offsets = starts
        self._files: list[_Body | None] = [None, None]
        self._next_file = 0

    def receive(self, direction: int, data: bytes) -> list[Finding]:
        """Raises HttpError, at the call after the one that gave what came before."""
        connection = self._connection
        events = connection.receive_client(data) if direction == ORIGINATOR else connection.receive_server(data)
        return self._findings(direction, events)

    def check(self, direction: int) -> None:
        """HttpError if the next call of `receive` would raise it."""
        (self._connection.requests if direction == ORIGINATOR else self._connection.responses).check()

    def end(self, direction: int) -> list[Finding]:
        reader = self._connection.requests if direction == ORIGINATOR else self._connection.responses
        return self._findings(direction, reader.end())

    @property
    def held_bytes(self) -> int:
        return self._connection.requests.held_bytes + self._connection.responses.held_bytes

    @property
    def is_answering(self) -> bool:
        """Whether an earlier request than the last one waits for the end of its response."""
        return self._connection.responses.pending > 1

    def _findings(self, direction: int, events: Iterable[Event]) -> list[Finding]:
        found: list[Finding] = []
        base = self._offsets[direction]
        for event in events:
            match event:
                case BodyReceived(start, end, raw, data):
                    body = self._files[direction]
                    if body is not None:
                        coding = Coding.BINARY if raw is data else Coding.COMPRESSED
                        found += body.receive(base + start, base + end, coding, data)
                case RequestReceived():
                    found.append(RequestSeen(event))
                    self._begin(direction, event.fields, event, None)
                case ResponseReceived():
                    found.append(ResponseSeen(event))
                    if event.status >= 200:
                        self._begin(direction, event.fields, event.request, event)
                case MessageEnded(end, complete):
                    body, self._files[direction] = self._files[direction], None
                    if body is not None:
                        found += body.end(base + end, complete)
                        self._next_file = max(self._next_file, body.next_file)
                case BodyUnseen(start, reason):
                    body = self._files[direction]
                    if body is not None:
                        found += body.lose(base + start, reason.value)
                case AnomalyFound(start, end, kind):
                    found.append(AnomalySeen(base + start, base + end, kind.value, kind in _EVASIONS))
                case Switched(start, protocol):
                    found.append(OpaqueBegins(base + start, protocol))
                case OpaqueReceived(_, _, data):
                    found.append(OpaqueData(bytes(data)))
        return found

    def _begin(self, direction: int, fields: Fields, request: RequestReceived | None, response: ResponseReceived | None) -> None:
        """A body may follow. Its file is begun with its first byte, for most requests have none."""
        span = response.content_range if response is not None else None
        if response is not None and response.status == 206 and (span is None or span.first > 0):
            self._files[direction] = None
            return
        content_type = "" if response is not None else fields.get("content-type") or ""
        number = max(self._next_file, *(body.next_file for body in self._files if body is not None), 0)
        self._next_file = number + 1
        if content_type.lower().lstrip().startswith("multipart/"):
            self._files[direction] = _Form(number, _subject_of(request), content_type)
            self._next_file = number + _FORM_NUMBERS
        else:
            self._files[direction] = _Whole(number, request, fields)


_FORM_NUMBERS = 1 << 20
"""Numbers set aside for a form's parts; mime.py ends long before."""


class _Body(Protocol):
    """What a message's body means."""

    next_file: int

    def receive(self, start: int, end: int, coding: Coding, data: bytes | memoryview) -> list[Finding]: ...
    def end(self, end: int, complete: bool) -> list[Finding]: ...
    def lose(self, start: int, reason: str) -> list[Finding]: ...


class _Whole:
    """The body is one file. What it is called is asked of the heads when it has a first byte."""

    __slots__ = ("_fields", "_number", "_request", "_started", "next_file")

    def __init__(self, number: int, request: RequestReceived | None, fields: Fields) -> None:
        self._number, self._request, self._fields = number, request, fields
        self._started = False
        self.next_file = number + 1

    def _start(self, start: int) -> list[Finding]:
        if self._started:
            return []
        self._started = True
        subject, length = _subject_of(self._request), _length_of(self._fields)
        return [FileStarted(self._number, start, _name_of(self._fields, subject), subject, length is None, length)]

    def receive(self, start: int, end: int, coding: Coding, data: bytes | memoryview) -> list[Finding]:
        found = self._start(start)
        found.append(FileData(self._number, start, end, coding, data))
        return found

    def end(self, end: int, complete: bool) -> list[Finding]:
        return [FileEnded(self._number, end, complete)] if self._started else []

    def lose(self, start: int, reason: str) -> list[Finding]:
        return [*self._start(start), FileUnseen(self._number, start, reason)]


class _Form:
    """The body is a form, whose parts are files."""

    __slots__ = ("_reader", "_unseen", "next_file")

    def __init__(self, number: int, subject: str, content_type: str) -> None:
        self._reader = MailReader(number, subject)
        head = b"MIME-Version: 1.0\r\nContent-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
        self._reader.receive(0, head)
        self.next_file = number + _FORM_NUMBERS
        self._unseen = False

    def receive(self, start: int, end: int, coding: Coding, data: bytes | memoryview) -> list[Finding]:  # noqa: ARG002
        return [] if self._unseen else list(self._reader.receive(start, bytes(data)))

    def end(self, end: int, complete: bool) -> list[Finding]:  # noqa: ARG002
        return list(self._reader.end())

    def lose(self, start: int, reason: str) -> list[Finding]:
        self._unseen = True
        number = self.next_file - 1
        return [FileStarted(number, start, "", ""), FileUnseen(number, start, reason)]


def _subject_of(request: RequestReceived | None) -> str:
    return str(request.urls[0]) if request is not None and request.urls else ""


def _length_of(fields: Fields) -> int | None:
    """The length that a head states and that counts: not beside chunks (RFC 9112, section 6.3)."""
    stated = fields.get("content-length") or ""
    if fields.get("transfer-encoding") is not None or not stated.isascii() or not stated.isdigit():
        return None
    return int(stated[:_LENGTH_DIGITS])


_LENGTH_DIGITS = 18
"""More are no length of anything; Python refuses to read thousands of them."""


def _name_of(fields: Fields, subject: str) -> str:
    """What a browser would save it as: enough for people to know it again, so RFC 6266's finer points are left out."""
    disposition = fields.get("content-disposition") or ""
    for key in ("filename*=", "filename="):
        _, found, value = disposition.partition(key)
        if found:
            value = value.partition(";")[0].strip().strip('"')
            return unquote(value.rpartition("'")[2] if key.endswith("*=") else value)[:255]
    return unquote(subject.partition("?")[0].rpartition("/")[2])[:255]


class TlsConnectionReader:
    """The client's hello; the server's side is not read."""

    __slots__ = ("_reader", "_size")

    def __init__(self, starts: tuple[int, int] = (0, 0)) -> None:
        self._reader = TlsReader(starts[ORIGINATOR])
        self._size = 0

    def receive(self, direction: int, data: bytes) -> list[Finding]:
        """Raises TlsError."""
        if direction != ORIGINATOR:
            return []
        self._size += len(data)
        found: list[Finding] = []
        for event in self._reader.receive(data):
            if isinstance(event, ClientHelloReceived):
                found.append(HelloSeen(event.start, event.end, "tls", event.hello))
            else:
                found.append(OpaqueBegins(0, "tcp"))
        return found

    def end(self, direction: int) -> list[Finding]:  # noqa: ARG002
        return []

    @property
    def held_bytes(self) -> int:
        return self._size


class DnsConnectionReader:
    """DNS over TCP: the questions that a client asks."""

    __slots__ = ("_reader",)

    def __init__(self, starts: tuple[int, int] = (0, 0)) -> None:
        self._reader = DnsReader(starts[ORIGINATOR])

    def receive(self, direction: int, data: bytes) -> list[Finding]:
        """Raises DnsError."""
        if direction != ORIGINATOR:
            return []
        received = self._reader.receive(data)
        return [QuestionSeen(question.name, question.kind) for each in received for question in each.message.questions]

    def end(self, direction: int) -> list[Finding]:  # noqa: ARG002
        return []

    @property
    def held_bytes(self) -> int:
        return 1 << 16
