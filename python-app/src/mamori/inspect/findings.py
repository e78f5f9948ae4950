"""What the readers of protocols find on a connection. What it means is for the policy to say, not for them.

    class SomeReader:
        def __init__(self, starts: tuple[int, int] = (0, 0)) -> None: ...       # stream offsets of the first bytes
        def receive(self, direction: int, data: bytes) -> list[Finding]: ...    # the next bytes of one side, however cut
        def end(self, direction: int) -> list[Finding]: ...                     # that side sends no more
        @property
        def held_bytes(self) -> int: ...                                        # what it keeps of the streams

A direction is flow.ORIGINATOR (the client, 0) or flow.RESPONDER (the server, 1). Offsets are those of that direction's TCP stream,
half open. A finding is about bytes of the direction that was given. Like all parsers here a reader raises its one ParseError for
what cannot be read; it first gives what came before, and raises at the next call.

On the data path, so they are NamedTuples (see nfqueue/messages.py).

Files (a download, an attachment, what FTP carries) are told as FileStarted, FileData …, FileEnded. `file` is a number that the
reader gives, unique within it and ascending. Several may be open at once: a message inside a message, both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from mamori.inspect.http1_events import RequestReceived, ResponseReceived
from mamori.inspect.tls import ClientHello


class Coding(Enum):
    """How a file's bytes lie in the stream, as far as it matters to whoever writes harmless bytes of equal length over them."""

    BINARY = "as they are, every byte free"
    TEXT = "as they are, in lines: CR and LF stay"
    BASE64 = "base64: the alphabet is free; padding, CR and LF stay"
    QUOTED_PRINTABLE = "quoted-printable: all but `=`, CR and LF is free"
    UUENCODE = "uuencode: CR and LF stay; a line's first character is outside the range"
    COMPRESSED = "compressed or otherwise not to be written over"


_KEEP_LINES = b"\r\n"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _table(replacement: bytes, kept: bytes = b"", only: bytes = bytes(range(256))) -> bytes:
    return bytes(replacement[0] if byte in only and byte not in kept else byte for byte in range(256))


OVERWRITING = {
    Coding.BINARY: _table(b"X"),
    Coding.TEXT: _table(b"X", _KEEP_LINES),
    Coding.BASE64: _table(b"A", only=_BASE64),
    Coding.QUOTED_PRINTABLE: _table(b"0", b"=" + _KEEP_LINES),
    Coding.UUENCODE: _table(b"`", _KEEP_LINES),
}
"""What to write over a range: `raw.translate(OVERWRITING[coding])`. The same bytes give the same result wherever a segment is
cut, so a retransmission is rewritten alike without remembering what was written. COMPRESSED is missing: cut instead."""


class HelloSeen(NamedTuple):
    """A TLS or QUIC client's hello; `protocol` is `tls` or `quic`."""

    start: int
    end: int
    protocol: str
    hello: ClientHello


class RequestSeen(NamedTuple):
    """A web request's head."""

    request: RequestReceived


class ResponseSeen(NamedTuple):
    """A web response's head."""

    response: ResponseReceived


class QuestionSeen(NamedTuple):
    """A name that DNS was asked for."""

    name: str
    kind: int


class FileStarted(NamedTuple):
    """A file begins at `start`. `name` is what its sender calls it, "" if nothing; `subject` what people would call the carrier: a
    URL, `mail from a@b "Subject"`, an FTP path. `is_open_ended`: where it ends is only known when it has ended (chunks, the end
    of the stream). `expected_bytes`: its length as far as the sender has said it."""

    file: int
    start: int
    name: str
    subject: str
    is_open_ended: bool = False
    expected_bytes: int | None = None


class FileData(NamedTuple):
    """`data` is the file's next bytes, decoded; they came from [start, end) of the stream, where `coding` says what may be written.
    `data` may be empty, and a range without data may still be written over (a coding's crumbs)."""

    file: int
    start: int
    end: int
    coding: Coding
    data: bytes | memoryview


class FileEnded(NamedTuple):
    """The file's last byte lies before `end`. Not complete: its carrier broke off."""

    file: int
    end: int
    is_complete: bool


class FileUnseen(NamedTuple):
    """From here on the file cannot be read, and FileData stops: `reason` is one line."""

    file: int
    start: int
    reason: str


class AnomalySeen(NamedTuple):
    """Something that harmless peers do not send. `is_evasion`: peers read it in more than one way, so what we read may not be what
    they read; a policy that blocks cuts here."""

    start: int
    end: int
    text: str
    is_evasion: bool


class TlsBegins(NamedTuple):
    """After STARTTLS, STLS or AUTH TLS was agreed, each side's bytes from these offsets on are TLS."""

    starts: tuple[int, int]


class OpaqueBegins(NamedTuple):
    """From here on neither side's bytes can be read (WebSocket, a tunnel, SOCKS …); `protocol` as far as it is known."""

    start: int
    protocol: str


class OpaqueData(NamedTuple):
    """Bytes behind OpaqueBegins that came together with what was read."""

    data: bytes


class DataConnectionExpected(NamedTuple):
    """FTP agreed on a data connection: who listens (address as text, "" for the same host as the control connection's; and port),
    which side of the control connection that is, and the file it will carry. `sender` is who sends the file there, in directions
    of the control connection; None for a listing or what is not known yet. `is_part`: the file's beginning is left out."""

    listener: int
    address: str
    port: int
    sender: int | None
    name: str
    is_part: bool = False


Finding = (
    HelloSeen
    | RequestSeen
    | ResponseSeen
    | QuestionSeen
    | FileStarted
    | FileData
    | FileEnded
    | FileUnseen
    | AnomalySeen
    | TlsBegins
    | OpaqueBegins
    | OpaqueData
    | DataConnectionExpected
)


class Reader(Protocol):
    """See the module."""

    def receive(self, direction: int, data: bytes) -> Sequence[Finding]: ...
    def end(self, direction: int) -> Sequence[Finding]: ...
    @property
    def held_bytes(self) -> int: ...
