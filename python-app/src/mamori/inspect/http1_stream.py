"""Heads and bodies by turns: what both directions of an HTTP/1.x connection have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mamori.inspect.coding import BodyDecoder, Unseen
from mamori.inspect.http1_body import Framing, FramingChoice, InChunks, ToEnd
from mamori.inspect.http1_events import AnomalyFound, BodyReceived, BodyUnseen, Event, MessageEnded, OpaqueReceived
from mamori.inspect.http1_head import MAX_HEAD_BYTES, Anomaly, Fields, HttpError

_HEAD_END = re.compile(rb"\n\r?\n")


class BodyStream:
    """The body that is being received. One object and, for a long body, one call and one event per segment."""

    __slots__ = ("_decoder", "_doubtful", "_odd_told", "_position", "_unseen_told", "framing")

    def __init__(self, framing: Framing, codings: Sequence[str], is_part: bool, doubtful: bool) -> None:
        self.framing = framing
        decoder = BodyDecoder(codings) if codings else None
        self._decoder = decoder if decoder and decoder.changes else None
        if self._decoder and is_part:
            self._decoder.unseen = Unseen.PARTIAL
        self._doubtful = doubtful
        self._position = 0
        self._odd_told = self._unseen_told = False

    def receive(self, data: bytes | memoryview, at: int, base: int, events: list[Event]) -> int:
        """Read on at `at`; `base` is the stream's offset of data[0]. Returns how far it came."""
        if self._doubtful and isinstance(self.framing, InChunks):
            return self._receive_doubtful(self.framing, data, at, base, events)
        first, last = self.framing.run(data, at)
        if self.framing.odd and not self._odd_told:
            self._odd_told = True
            events.append(AnomalyFound(base + at, base + last, Anomaly.ODD_CHUNK))
        if first < last:
            raw = data if last - first == len(data) else memoryview(data)[first:last]
            self._deliver(raw, base + first, events)
        return last

    def _receive_doubtful(self, chunks: InChunks, data: bytes | memoryview, at: int, base: int, events: list[Event]) -> int:
        """The first chunk decides: if it is none, the body is not chunked, as for Chrome, and goes on to the end."""
        held = chunks.held
        try:
            first, last = chunks.run(data, at)
        except HttpError:
            self.framing = ToEnd()
            self._deliver(held + bytes(data[at:]), base + at - len(held), events)
            return len(data)
        if first < last or chunks.done:
            self._doubtful = False
            if first < last:
                self._deliver(memoryview(data)[first:last], base + first, events)
        return last

    def _deliver(self, raw: bytes | memoryview, start: int, events: list[Event]) -> None:
        decoder = self._decoder
        end = start + len(raw)
        plain = raw if decoder is None else decoder.receive(raw)
        events.append(BodyReceived(start, end, raw, plain, self._position))
        self._position += len(plain)
        if decoder is not None and decoder.unseen and not self._unseen_told:
            self._unseen_told = True
            events.append(BodyUnseen(end if plain else start, decoder.unseen))


class HeadBuffer:
    """The bytes of a head until it is whole."""

    __slots__ = ("held", "start")

    def __init__(self) -> None:
        self.held = bytearray()
        self.start = 0

    def take(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """How far `data` was used, and the head with its empty line once it is whole."""
        if not self.held:
            found = _HEAD_END.search(data, at, at + MAX_HEAD_BYTES)
            if found:
                return found.end(), data[at : found.end()]
        before = len(self.held)
        self.held += data[at : at + MAX_HEAD_BYTES - before]
        found = _HEAD_END.search(self.held, max(0, before - 2))
        if found:
            end = found.end()
            head = bytes(self.held[:end])
            self.held.clear()
            return at + end - before, head
        if len(self.held) == MAX_HEAD_BYTES:
            raise HttpError("the head is too large")
        return len(data), None


class MessageStream:
    """What both directions share: heads and bodies by turns, until the protocol switches."""

    __slots__ = ("body", "error", "head", "offset", "opaque")

    def __init__(self) -> None:
        self.head = HeadBuffer()
        self.body: BodyStream | None = None
        self.offset = 0  # of the stream, at the end of what was received
        self.opaque = False
        self.error = ""

    @property
    def held_bytes(self) -> int:
        """What is kept of the stream until more comes: part of a head, or of a chunk's line."""
        chunks = self.body.framing if self.body is not None else None
        return len(self.head.held) + (chunks.held_bytes if isinstance(chunks, InChunks) else 0)

    def check(self) -> None:
        if self.error:
            raise HttpError(self.error)

    def receive(self, data: bytes | memoryview, on_head: _OnHead) -> list[Event]:
        self.check()
        events: list[Event] = []
        base, at, size = self.offset, 0, len(data)
        self.offset += size
        try:
            while at < size:
                body = self.body
                if body is not None:
                    if body.framing.needs_bytes:
                        data = _as_bytes(data)
                    at = body.receive(data, at, base, events)
                    if body.framing.done:
                        self.end_message(base + at, events)
                elif self.opaque:
                    events.append(OpaqueReceived(base + at, base + size, memoryview(data)[at:]))
                    at = size
                else:
                    data = _as_bytes(data)
                    at = on_head(data, at, base, events)
        except HttpError as error:
            self.error = str(error)
            if not events:
                raise
        return events

    def begin_body(self, choice: FramingChoice, fields: Fields, is_part: bool, end: int, events: list[Event]) -> None:
        """What follows a head that ended at `end`."""
        framing = choice.framing
        if framing is None or framing.done:
            self.end_message(end, events)
            return
        codings = fields.tokens("content-encoding")
        codings += [coding for coding in fields.tokens("transfer-encoding") if coding != "chunked"]
        self.body = BodyStream(framing, codings, is_part, choice.doubtful)

    def switch(self) -> None:
        """All that follows is another protocol's."""
        self.opaque = True
        self.body = None
        self.head.held.clear()

    def end_message(self, end: int, events: list[Event], complete: bool = True) -> None:
        self.body = None
        events.append(MessageEnded(end, complete))

    def end(self) -> list[Event]:
        """The connection, or this half of it, has ended."""
        events: list[Event] = []
        if self.body is not None:
            self.end_message(self.offset, events, isinstance(self.body.framing, ToEnd))
        return events


def _as_bytes(data: bytes | memoryview) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)


_OnHead = Callable[[bytes, int, int, list[Event]], int]
