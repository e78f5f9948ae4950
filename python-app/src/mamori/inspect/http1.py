"""Both directions of an HTTP/1.x connection (RFC 9112), on any port, as its peers read them.

    connection = HttpConnection()
    events = connection.receive_client(data)      # RequestReceived, BodyReceived …, MessageEnded
    events = connection.receive_server(data)      # ResponseReceived (with its request), BodyReceived …, MessageEnded

A body is told in stretches: each says where in the stream its bytes lay as they came (`start`, `end`), which is what rewriting
needs, and what they decode to, which is what scanning needs. Body bytes are passed on as slices of what was received: with
a memoryview, use them before its buffer is reused. After Switched (WebSocket, h2c, CONNECT) bytes are opaque.

What is wrong but readable is an AnomalyFound before the message it belongs to; what cannot be read is HttpError. A client
uses what came before the break, so `receive` first gives the events up to it and raises at the next call (an empty one will do).
"""

from __future__ import annotations

import re
from contextlib import suppress

from mamori.inspect.http1_body import NO_BODY, ToEnd, choose_framing
from mamori.inspect.http1_events import (
    AnomalyFound,
    Event,
    OpaqueReceived,
    RequestReceived,
    ResponseReceived,
    Switched,
)
from mamori.inspect.http1_head import (
    NO_METHOD,
    STATUS_START_BYTES,
    Anomaly,
    Fields,
    HttpError,
    RequestLine,
    StatusLine,
    find_status_line,
    parse_content_range,
    parse_fields,
    parse_request_line,
    parse_simple_request,
    parse_status_line,
)
from mamori.inspect.http1_stream import BodyStream, HeadBuffer, MessageStream
from mamori.inspect.http_url import UNKNOWN_SERVER, parse_target

MAX_PIPELINED = 1000
"""Requests without a response yet. No browser pipelines; package managers (apt) keep 10 under way, load generators some more."""

MAX_UNEXPECTED_BYTES = 128 << 10
"""Bytes after a response without a body that are passed over in search of the next: Firefox's MAX_INVALID_RESPONSE_BODY_SIZE."""

_BLANK = re.compile(rb"[\r\n]*")
_NEXT_RESPONSE = re.compile(rb"HTTP/1\.")
_NEXT_RESPONSE_BYTES = 7
_LINE_STARTS = frozenset(b"!#$%&'*+.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ- \t")


class RequestReader:
    """The client's direction: `receive` gives AnomalyFound, RequestReceived, BodyReceived, BodyUnseen, MessageEnded, and after a
    switch OpaqueReceived.

    After CONNECT and Upgrade the stream is read on as HTTP until `switch` says that the server agreed: a server that did not
    agree answers what follows. What is no HTTP then (a client in a hurry) makes the stream opaque, and is no error.
    """

    __slots__ = ("_hurried", "_line_seen", "_messages", "_server")

    def __init__(self, server: tuple[str, int] = UNKNOWN_SERVER) -> None:
        self._messages = MessageStream()
        self._server = server
        self._line_seen = False
        self._hurried = False

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """The next bytes of the stream. Raises HttpError."""
        return self._messages.receive(data, self._on_head)

    def check(self) -> None:
        """HttpError if nothing can be read behind what `receive` gave last."""
        self._messages.check()

    @property
    def held_bytes(self) -> int:
        """What the reader keeps of the stream, for the flow table's account: at most MAX_HEAD_BYTES."""
        return self._messages.held_bytes

    def end(self) -> list[Event]:
        """The client sends no more."""
        return self._messages.end()

    def switch(self) -> None:
        """The server has agreed to the switch: all that follows is opaque."""
        self._messages.switch()

    def _on_head(self, data: bytes, at: int, base: int, events: list[Event]) -> int:
        head = self._messages.head
        if not head.held:
            at = _end_of_blanks(data, at)
            head.start = base + at
            self._line_seen = False
        early = bytes(head.held) if self._hurried else b""
        try:
            return self._read_head(head, data, at, base, events)
        except HttpError:
            if not self._hurried:
                raise
        self.switch()
        events.append(Switched(base + at - len(early), ""))
        if early:
            events.append(OpaqueReceived(base + at - len(early), base + at, early))
        return at

    def _read_head(self, head: HeadBuffer, data: bytes, at: int, base: int, events: list[Event]) -> int:
        if not head.held and at < len(data) and data[at] not in _LINE_STARTS:
            raise HttpError(NO_METHOD)
        if not self._line_seen:
            line_end = data.find(b"\n", at)
            self._line_seen = line_end >= 0
            simple = parse_simple_request(bytes(head.held) + data[at:line_end]) if self._line_seen else None
            if simple:
                head.held.clear()
                events.append(AnomalyFound(head.start, base + line_end + 1, Anomaly.HTTP_09))
                self._begin(simple, Fields(()), base + line_end + 1, events)
                return line_end + 1
        at, block = head.take(data, at)
        if block is not None:
            line, fields, odd = parse_fields(block)
            request = parse_request_line(line)
            events += [AnomalyFound(head.start, base + at, kind) for kind in odd]
            self._begin(request, fields, base + at, events)
        return at

    def _begin(self, line: RequestLine, fields: Fields, end: int, events: list[Event]) -> None:
        start = self._messages.head.start
        if line.method == "PRI" and line.version >= (2, 0):
            events.append(Switched(start, "h2"))
            self._messages.opaque = True
            return
        hosts = fields.all("host")
        urls = parse_target(line.method, line.target, hosts, self._server)
        choice = choose_framing(fields, line.version, is_response=False)
        odd = list(choice.odd)
        if not hosts and line.version >= (1, 1):
            odd.append(Anomaly.HOST_MISSING)
        if len({url.host for url in urls}) > 1:
            odd.append(Anomaly.HOST_CONFLICT)
        if " " in line.target:
            odd.append(Anomaly.SPACE_IN_TARGET)
        events += [AnomalyFound(start, end, kind) for kind in odd]
        events.append(RequestReceived(start, end, line.method, line.target, line.version, fields, urls))
        self._hurried = line.method == "CONNECT" or fields.get("upgrade") is not None
        self._messages.begin_body(choice, fields, False, end, events)


class ResponseReader:
    """The server's direction: `receive` gives AnomalyFound, ResponseReceived, BodyReceived, BodyUnseen, MessageEnded, Switched,
    OpaqueReceived. `expect` tells it each request in order, since what a response is depends on what it answers."""

    __slots__ = ("_had_slop", "_messages", "_passed_over", "_seen_any", "_waiting")

    def __init__(self) -> None:
        self._messages = MessageStream()
        self._waiting: list[RequestReceived] = []  # not a deque: see HoldQueue
        self._seen_any = self._had_slop = False
        self._passed_over = 0  # unexpected bytes since the last response

    def expect(self, request: RequestReceived) -> None:
        """The client asked this. Above MAX_PIPELINED the reader fails, since it could not tell what is answered."""
        if len(self._waiting) < MAX_PIPELINED:
            self._waiting.append(request)
        else:
            self._messages.error = "too many requests without a response"

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """The next bytes of the stream. Raises HttpError."""
        return self._messages.receive(data, self._on_head)

    def check(self) -> None:
        """HttpError if nothing can be read behind what `receive` gave last."""
        self._messages.check()

    @property
    def held_bytes(self) -> int:
        """What the reader keeps of the stream, at most MAX_HEAD_BYTES, and the size of the heads of requests that wait."""
        return self._messages.held_bytes + sum(request.end - request.start for request in self._waiting)

    def end(self) -> list[Event]:
        """The server sends no more. Too few bytes for a status line are an HTTP/0.9 reply; a head without its end is told as far
        as it came, as Chrome uses it."""
        messages, events = self._messages, list[Event]()
        held = bytes(messages.head.held)
        if held and not messages.error:
            messages.head.held.clear()
            if self._is_head(held):
                with suppress(HttpError):
                    self._begin(held, messages.offset, events)
            elif not self._seen_any:
                self._begin_simple(held, events)
            elif not self._passed_over:
                events.append(AnomalyFound(messages.head.start, messages.offset, Anomaly.UNEXPECTED_BODY))
        return events + messages.end()

    @property
    def pending(self) -> int:
        """Responses that are not complete: that are expected, and one that is under way."""
        return len(self._waiting) + (self._messages.body is not None)

    def switch(self) -> None:
        """The client began another protocol: all that follows is opaque."""
        self._messages.switch()

    def _on_head(self, data: bytes, at: int, base: int, events: list[Event]) -> int:
        head = self._messages.head
        if not head.held:
            at = _end_of_blanks(data, at)
            head.start = base + at
        before = len(head.held)
        if before < STATUS_START_BYTES:
            start = bytes(head.held) + data[at : at + STATUS_START_BYTES - before]
            if len(start) < STATUS_START_BYTES:
                head.held += data[at:]
                return len(data)
            if not self._is_head(start):
                return self._on_strange(data, at, base, events)
            slop = find_status_line(start)
            if slop:
                return self._skip_slop(slop, at)
        at, block = head.take(data, at)
        if block is not None:
            self._begin(block, base + at, events)
        return at

    def _is_head(self, start: bytes) -> bool:
        """Whether a status line begins here. After strange bytes only `HTTP/1.` counts, as in Firefox."""
        return find_status_line(start) is not None and (not self._passed_over or _NEXT_RESPONSE.match(start) is not None)

    def _skip_slop(self, slop: int, at: int) -> int:
        """The status line begins after so many bytes, some of which have come before this segment."""
        head = self._messages.head
        before = len(head.held)
        del head.held[:slop]
        head.start += slop
        self._had_slop = True
        return at + max(0, slop - before)

    def _on_strange(self, data: bytes, at: int, base: int, events: list[Event]) -> int:
        """No status line: a whole HTTP/0.9 reply if it is the first, else bytes that nobody asked for."""
        head = self._messages.head
        early = bytes(head.held)
        head.held.clear()
        if not self._seen_any:
            self._begin_simple(early, events)
            return at
        if not self._passed_over:
            events.append(AnomalyFound(head.start, base + len(data), Anomaly.UNEXPECTED_BODY))
        found = _NEXT_RESPONSE.search(early + data[at:])
        # Before the next start, or before what may be the beginning of one.
        used = max(1, found.start() if found else len(early) + len(data) - at - _NEXT_RESPONSE_BYTES + 1)
        self._passed_over += used
        if self._passed_over > MAX_UNEXPECTED_BYTES:
            raise HttpError("no status line")
        head.held += early[used:]
        head.start += used
        return at + max(0, used - len(early))

    def _begin_simple(self, early: bytes, events: list[Event]) -> None:
        """An HTTP/0.9 reply, of which `early` has come before this segment: all of it is body."""
        start = self._messages.head.start
        events.append(AnomalyFound(start, start, Anomaly.HTTP_09))
        self._announce(StatusLine((0, 9), 200, ""), Fields(()), start, events)
        self._messages.body = body = BodyStream(ToEnd(), (), False, False)
        if early:
            body.receive(early, 0, start, events)

    def _begin(self, block: bytes, end: int, events: list[Event]) -> None:
        start = self._messages.head.start
        line, fields, odd = parse_fields(block)
        status, odd_status = parse_status_line(line)
        if self._had_slop:
            self._had_slop = False
            odd.append(Anomaly.JUNK_BEFORE_STATUS)
        events += [AnomalyFound(start, end, kind) for kind in odd + odd_status]
        code = status.status
        request = self._waiting[0] if self._waiting else None
        tunnel = request is not None and request.method == "CONNECT" and 200 <= code < 300
        bodiless = 100 <= code < 200 or code in (204, 304) or (request is not None and request.method == "HEAD")
        choice = NO_BODY if bodiless or tunnel else choose_framing(fields, status.version, is_response=True)
        events += [AnomalyFound(start, end, kind) for kind in choice.odd]
        response = self._announce(status, fields, end, events)
        if code == 101 or tunnel:
            self._switch(fields, request, end, events)
            return
        span = response.content_range
        is_part = code == 206 and (span is None or span.first > 0)
        self._messages.begin_body(choice, fields, is_part, end, events)

    def _announce(self, line: StatusLine, fields: Fields, end: int, events: list[Event]) -> ResponseReceived:
        start = self._messages.head.start
        interim = 100 <= line.status < 200
        if not self._waiting:
            events.append(AnomalyFound(start, end, Anomaly.UNSOLICITED))
            request = None
        else:
            request = self._waiting[0] if interim else self._waiting.pop(0)
        self._seen_any, self._passed_over = True, 0
        span = parse_content_range(fields.get("content-range"))
        response = ResponseReceived(start, end, line.version, line.status, line.reason, fields, request, span)
        events.append(response)
        return response

    def _switch(self, fields: Fields, request: RequestReceived | None, end: int, events: list[Event]) -> None:
        wanted = request is not None and (request.method == "CONNECT" or request.fields.get("upgrade") is not None)
        if not wanted:
            events.append(AnomalyFound(self._messages.head.start, end, Anomaly.UNSOLICITED_SWITCH))
        self._messages.end_message(end, events)
        events.append(Switched(end, (fields.get("upgrade") or "").lower()))
        self._messages.opaque = True


class HttpConnection:
    """Both directions, joined where one depends on the other. `server` is the address and port of the connection."""

    __slots__ = ("requests", "responses")

    def __init__(self, server: tuple[str, int] = UNKNOWN_SERVER) -> None:
        self.requests = RequestReader(server)
        self.responses = ResponseReader()

    def receive_client(self, data: bytes | memoryview) -> list[Event]:
        """Bytes from the client. Raises HttpError."""
        events = self.requests.receive(data)
        for event in events:
            if isinstance(event, RequestReceived):
                self.responses.expect(event)
            elif isinstance(event, Switched) and event.protocol:
                self.responses.switch()
        return events

    def receive_server(self, data: bytes | memoryview) -> list[Event]:
        """Bytes from the server. Raises HttpError."""
        events = self.responses.receive(data)
        if any(isinstance(event, Switched) for event in events):
            self.requests.switch()
        return events


def _end_of_blanks(data: bytes, at: int) -> int:
    """Where the empty lines before a head end: nginx and Apache skip them, and so do clients."""
    found = _BLANK.match(data, at)
    return found.end() if found else at
