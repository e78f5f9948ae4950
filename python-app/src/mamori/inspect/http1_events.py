"""What happens on an HTTP/1.x connection. Offsets are those of the direction's TCP stream, half open.

On the data path, so NamedTuples (see nfqueue/messages.py).
"""

from __future__ import annotations

from typing import NamedTuple

from mamori.inspect.coding import Unseen
from mamori.inspect.http1_head import Anomaly, ContentRange, Fields
from mamori.inspect.http_url import Url


class AnomalyFound(NamedTuple):
    """Bytes [start, end) of the stream that receivers read in different ways, or that no sender in good faith sends."""

    start: int
    end: int
    kind: Anomaly


class RequestReceived(NamedTuple):
    """The head of a request. `urls` are all that a server may read, the likeliest first; block if any of them is blocked."""

    start: int
    end: int
    method: str
    target: str
    version: tuple[int, int]
    fields: Fields
    urls: tuple[Url, ...]


class ResponseReceived(NamedTuple):
    """The head of a response, interim ones (1xx) included. `request` is what it answers, None where that was not seen."""

    start: int
    end: int
    version: tuple[int, int]
    status: int
    reason: str
    fields: Fields
    request: RequestReceived | None
    content_range: ContentRange | None


class BodyReceived(NamedTuple):
    """`raw` lies at [start, end) of the stream (chunk framing is outside); `data` is what it decodes to, at `position` of the
    decoded body: `raw` itself without a coding, empty where BodyUnseen was told."""

    start: int
    end: int
    raw: bytes | memoryview
    data: bytes | memoryview
    position: int


class BodyUnseen(NamedTuple):
    """From `start` on the body's decoded form is not known."""

    start: int
    reason: Unseen


class MessageEnded(NamedTuple):
    """`complete` is False when the connection ended before the message."""

    end: int
    complete: bool


class Switched(NamedTuple):
    """From `start` on the stream is another protocol's: the Upgrade field's, `h2` after a preface, "" in a CONNECT tunnel."""

    start: int
    protocol: str


class OpaqueReceived(NamedTuple):
    """Bytes behind `Switched`, which are not HTTP any more."""

    start: int
    end: int
    data: bytes | memoryview


Event = AnomalyFound | RequestReceived | ResponseReceived | BodyReceived | BodyUnseen | MessageEnded | Switched | OpaqueReceived
