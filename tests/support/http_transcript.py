"""What an HTTP/1.x stream says, in a form that does not depend on how it was cut into segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mamori.inspect.coding import Unseen
from mamori.inspect.http1 import HttpConnection, RequestReader, ResponseReader
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
from mamori.inspect.http1_head import Anomaly, HttpError


@dataclass
class Message:
    """One message, or what came after a switch (`head` None, `switched` its protocol, `raw` its bytes)."""

    head: RequestReceived | ResponseReceived | None = None
    odd: set[Anomaly] = field(default_factory=set)
    raw: bytes = b""
    data: bytes = b""
    spans: list[tuple[int, int]] = field(default_factory=list)
    unseen: Unseen | None = None
    complete: bool | None = None
    end: int | None = None
    switched: str | None = None

    @property
    def request(self) -> RequestReceived:
        assert isinstance(self.head, RequestReceived)
        return self.head

    @property
    def response(self) -> ResponseReceived:
        assert isinstance(self.head, ResponseReceived)
        return self.head


@dataclass
class Transcript:
    messages: list[Message]
    error: str | None = None


def cuts(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """The stream cut at these offsets."""
    edges = [0, *sorted({min(cut, len(stream)) for cut in at} - {0}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


def byte_by_byte(stream: bytes) -> list[bytes]:
    return cuts(stream, range(len(stream)))


def transcribe(events: Sequence[Event], stream: bytes) -> list[Message]:
    """The events as messages. Every offset that they carry is checked against the stream."""
    messages: list[Message] = []
    odd: set[Anomaly] = set()
    for event in events:
        message = messages[-1] if messages else Message()
        match event:
            case AnomalyFound():
                (message.odd if messages and message.end is None and message.switched is None else odd).add(event.kind)
            case RequestReceived() | ResponseReceived():
                messages.append(Message(event, odd))
                odd = set()
            case BodyReceived():
                assert bytes(event.raw) == stream[event.start : event.end], "a body lies where its event says"
                assert event.position == len(message.data), "decoded bytes follow one another"
                message.raw += bytes(event.raw)
                message.data += bytes(event.data)
                message.spans = _joined(message.spans, (event.start, event.end))
            case BodyUnseen():
                assert message.unseen is None, "told once"
                message.unseen = event.reason
            case MessageEnded():
                message.end, message.complete = event.end, event.complete
            case Switched():
                messages.append(Message(odd=odd, switched=event.protocol, spans=[(event.start, event.start)]))
                odd = set()
            case OpaqueReceived():
                assert bytes(event.data) == stream[event.start : event.end], "opaque bytes lie where their event says"
                message.raw += bytes(event.data)
                message.spans = _joined(message.spans, (event.start, event.end))
    if odd:
        messages.append(Message(odd=odd))
    return messages


def _joined(spans: list[tuple[int, int]], span: tuple[int, int]) -> list[tuple[int, int]]:
    if spans and spans[-1][1] == span[0]:
        return [*spans[:-1], (spans[-1][0], span[1])]
    return [*spans, span]


def read_requests(segments: Sequence[bytes | memoryview], end: bool = False) -> Transcript:
    """The client's direction alone."""
    return _read(RequestReader(), segments, end)


def read_responses(segments: Sequence[bytes | memoryview], requests: bytes = b"", end: bool = False) -> Transcript:
    """The server's direction, as the answer to these requests."""
    connection = HttpConnection()
    if requests:
        connection.receive_client(requests)
    return _read(connection.responses, segments, end)


def _read(reader: RequestReader | ResponseReader, segments: Sequence[bytes | memoryview], end: bool) -> Transcript:
    events: list[Event] = []
    error = None
    try:
        for segment in segments:
            events += reader.receive(segment)
        reader.receive(b"")
    except HttpError as problem:
        error = str(problem)
    if end:
        events += reader.end()
    return Transcript(transcribe(events, b"".join(map(bytes, segments))), error)
