"""The ClientHello inside a QUIC connection's first datagrams: Initial packets of version 1 (RFC 9000, 9001) and 2 (RFC 9369).

Their keys come from the first destination connection id, which anyone on the path sees, so the hello can be read. A client
may cut it over packets and datagrams in any order and mix in PADDING and PING, and Chrome does all of that on purpose.

The state is that of a server: each first connection id opens an attempt with keys and a CRYPTO stream of its own. After
a Retry, or when the versions are negotiated, the client starts another attempt in the same flow, and neither may
complete the hello of the other. Packets that do not decrypt are passed over, as a server does (RFC 9001, section 5.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hmac import digest
from struct import unpack_from
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from mamori.inspect.errors import ParseError
from mamori.inspect.tls import MAX_HELLO_BYTES, ClientHelloReceived, TlsError, hello_size, parse_client_hello

MAX_ATTEMPTS = 4
"""A Retry and a change of version make three; a client that goes on changing its connection id only makes us derive keys."""

MAX_UNREADABLE = 32
"""Initial packets that do not decrypt before the flow is given up. A lost first datagram costs a client a handful."""

MAX_PIECES = 1000
"""Pieces of a hello held while an earlier one is missing; quic-go takes as many. Chrome cuts a hello into some dozen."""

_MIN_FIRST_DATAGRAM = 1200
"""What a client fills its first datagram up to in every version; a server negotiates over nothing smaller (RFC 9000, 14.1)."""

_LONG_HEADER, _FIXED_BIT = 0x80, 0x40
ATTEMPT_BYTES, PIECE_BYTES = 4096, 150
"""What an attempt costs beside its bytes, with two ciphers of OpenSSL, and a piece: for who asks what is held."""

_MAX_CONNECTION_ID = 20
_SAMPLE_BYTES = 16
_MAX_NUMBER_BYTES = 4

_PADDING_OR_PING = re.compile(rb"[\0\1]+")
_ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0x02, 0x03, 0x06, 0x1C


class QuicError(ParseError):
    """Datagrams of a flow that began as QUIC and from which no server would take a ClientHello."""


@dataclass(frozen=True, slots=True)
class _Version:
    """`initial` and `retry` are packet types as they stand in the first byte's bits 4 and 5; `salt` and `label` make keys."""

    number: int
    initial: int
    retry: int
    salt: bytes
    label: str


_VERSIONS = {
    version.number: version
    for version in (
        _Version(1, 0, 3, bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic"),  # RFC 9001, section 5.2
        _Version(0x6B3343CF, 1, 0, bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2"),  # RFC 9369, section 3
    )
}


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """A client's Initial packet that decrypts. The ids are hints for a flow table: what the client sends goes to
    `destination_id` until the server chose another, what it receives goes to `source_id`."""

    version: int
    destination_id: bytes
    source_id: bytes
    has_token: bool


@dataclass(frozen=True, slots=True)
class UnknownVersionSeen:
    """A client's packet of a version whose hello cannot be read: an old draft, a new one, or GREASE to provoke negotiation."""

    version: int


@dataclass(frozen=True, slots=True)
class RetrySeen:
    """A server that wants to see the client's address proved: the client starts over with `source_id` as destination. Its
    integrity tag is not checked; nothing here depends on a Retry."""

    version: int
    source_id: bytes


@dataclass(frozen=True, slots=True)
class VersionNegotiationSeen:
    """A server that knows other versions only, some of them GREASE."""

    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NotQuicSeen:
    """The client's first datagram cannot be a QUIC client's. A QUIC server passes over it and takes the next one, so the reader
    goes on reading: whoever bypasses a flow for this event alone lets a client hide behind one stray datagram."""


Event = AttemptSeen | ClientHelloReceived | UnknownVersionSeen | NotQuicSeen
ServerEvent = RetrySeen | VersionNegotiationSeen


@dataclass(frozen=True, slots=True)
class _Packet:
    """A long header packet (RFC 9000, section 17.2). `number_at` and `end` are offsets; for an unknown version or a Retry
    the packet is the rest of its datagram."""

    version: int
    kind: int
    destination_id: bytes
    source_id: bytes
    has_token: bool
    start: int
    number_at: int
    end: int


class _UnreadableError(Exception):
    """What a server would pass over in silence."""


class QuicReader:
    """Reads a client's datagrams, in any order, for its hello. What it holds is at most MAX_ATTEMPTS hellos' worth of pieces."""

    __slots__ = ("_attempts", "_failure", "_is_first", "_unknown", "_unreadable")

    def __init__(self) -> None:
        self._attempts: list[_Attempt] = []
        self._unknown: set[int] = set()
        self._unreadable = 0
        self._is_first = True
        self._failure: str | None = None

    @property
    def held_bytes(self) -> int:
        """What is kept of hellos that are not whole, and of their keys."""
        return sum(ATTEMPT_BYTES + attempt.stream.held_bytes for attempt in self._attempts)

    def receive(self, datagram: bytes | memoryview) -> list[Event]:
        """One UDP payload. QuicError once no hello can come, after what came before it in the datagram, and from then on.

        One hello per attempt, once. Packets with a short header, and of handshakes that went on, give nothing.
        """
        if self._failure is not None:
            raise QuicError(self._failure)
        events: list[Event] = []
        try:
            for event in self._read(bytes(datagram)):
                events.append(event)
        except (QuicError, TlsError) as error:
            self._failure = str(error)
            self._attempts.clear()
            if not events:
                raise QuicError(self._failure) from error
        return events

    def _read(self, datagram: bytes) -> Iterator[Event]:
        if self._is_first and not looks_like_quic(datagram):
            yield NotQuicSeen()
        self._is_first = False
        for packet in _packets(datagram):
            version = _VERSIONS.get(packet.version)
            if version is None:
                yield from self._note_unknown(packet.version, datagram)
            elif packet.kind == version.initial:
                yield from self._read_initial(version, packet, datagram)

    def _note_unknown(self, version: int, datagram: bytes) -> Iterator[Event]:
        # A client has few versions; more are noise and not worth an event each.
        if looks_like_quic(datagram) and version not in self._unknown and len(self._unknown) < MAX_ATTEMPTS:
            self._unknown.add(version)
            yield UnknownVersionSeen(version)

    def _read_initial(self, version: _Version, packet: _Packet, datagram: bytes) -> Iterator[Event]:
        try:
            attempt, frames, is_new = self._open(version, packet, datagram)
        except _UnreadableError:
            self._unreadable += 1
            if self._unreadable > MAX_UNREADABLE:
                raise QuicError(f"more than {MAX_UNREADABLE} Initial packets that do not decrypt") from None
            return
        if is_new:
            yield AttemptSeen(version.number, packet.destination_id, packet.source_id, packet.has_token)
        if (hello := attempt.stream.receive(frames)) is not None:
            yield hello

    def _open(self, version: _Version, packet: _Packet, datagram: bytes) -> tuple[_Attempt, bytes, bool]:
        """The attempt that a packet belongs to, its frames, and whether it is the attempt's first packet."""
        for attempt in self._attempts:
            # A client takes the server's id from the first answer on, and keeps the keys: only trying tells whose packet it is.
            if attempt.version == version.number and (frames := attempt.keys.open(packet, datagram)) is not None:
                return attempt, frames, False
        if len(self._attempts) == MAX_ATTEMPTS:
            raise _UnreadableError
        keys = _Keys(version, packet.destination_id)
        frames = keys.open(packet, datagram)
        if frames is None:
            raise _UnreadableError
        attempt = _Attempt(version.number, keys, _CryptoStream())
        self._attempts.append(attempt)
        return attempt, frames, True


def looks_like_quic(datagram: bytes) -> bool:
    """Whether a flow's first datagram can be a QUIC client's, of whatever version. Nothing but the version number tells a
    version that we know from chance; others must at least keep apart from RTP (RFC 9443) and be as large as a first one is."""
    packet = _packet_at(datagram, 0)
    if packet is None or packet.version == 0:
        return False
    return packet.version in _VERSIONS or (datagram[0] & _FIXED_BIT > 0 and len(datagram) >= _MIN_FIRST_DATAGRAM)


def parse_server_datagram(datagram: bytes) -> ServerEvent | None:
    """What a server sends in place of a handshake, unprotected; None if the datagram is anything else."""
    packet = _packet_at(datagram, 0)
    if packet is None:
        return None
    if packet.version == 0:
        count = (len(datagram) - packet.number_at) // 4
        return VersionNegotiationSeen(unpack_from(f">{count}I", datagram, packet.number_at))
    version = _VERSIONS.get(packet.version)
    if version is not None and packet.kind == version.retry:
        return RetrySeen(packet.version, packet.source_id)
    return None


def _packets(datagram: bytes) -> Iterator[_Packet]:
    """The long header packets that a datagram starts with (RFC 9000, section 12.2); what follows them is passed over.

    The fixed bit is not looked at: clients that remember a server clear it at random (RFC 9287).
    """
    start = 0
    while (packet := _packet_at(datagram, start)) is not None:
        yield packet
        start = packet.end


def _packet_at(datagram: bytes, start: int) -> _Packet | None:
    size = len(datagram)
    if size < start + 7 or not datagram[start] & _LONG_HEADER:
        return None
    number, id_size = unpack_from(">IB", datagram, start + 1)
    at = start + 6 + id_size
    if at >= size or (source_end := at + 1 + datagram[at]) > size:
        return None
    version = _VERSIONS.get(number)
    ids = datagram[start + 6 : at], datagram[at + 1 : source_end]
    kind = datagram[start] >> 4 & 3
    if version is None or kind == version.retry:
        return _Packet(number, kind, *ids, False, start, source_end, size)
    if max(map(len, ids)) > _MAX_CONNECTION_ID:
        return None
    try:
        token_size, at = _varint(datagram, source_end) if kind == version.initial else (0, source_end)
        length, number_at = _varint(datagram, at + token_size)
    except _UnreadableError:
        return None
    end = number_at + length
    return _Packet(number, kind, *ids, token_size > 0, start, number_at, end) if end <= size else None


class _Keys:
    """A client's Initial keys for one connection id (RFC 9001, sections 5.2 to 5.4)."""

    __slots__ = ("_iv", "_largest", "_mask", "_seal")

    def __init__(self, version: _Version, destination_id: bytes) -> None:
        secret = _expand(digest(version.salt, destination_id, "sha256"), "client in", 32)
        self._seal = AESGCM(_expand(secret, f"{version.label} key", 16))
        self._iv = int.from_bytes(_expand(secret, f"{version.label} iv", 12), "big")
        # One encryptor for all samples: ECB has no state, and making one costs more than using it.
        self._mask = Cipher(AES(_expand(secret, f"{version.label} hp", 16)), ECB()).encryptor()  # noqa: S305
        self._largest = -1

    def open(self, packet: _Packet, datagram: bytes) -> bytes | None:
        """The packet's frames; None if it is not of these keys."""
        sample_at = packet.number_at + _MAX_NUMBER_BYTES
        if packet.end < sample_at + _SAMPLE_BYTES:
            return None
        mask = self._mask.update(datagram[sample_at : sample_at + _SAMPLE_BYTES])
        first = datagram[packet.start] ^ mask[0] & 0x0F
        size = (first & 3) + 1
        number_at, body_at = packet.number_at, packet.number_at + size
        low = int.from_bytes(datagram[number_at:body_at], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        header = bytes((first,)) + datagram[packet.start + 1 : number_at] + low.to_bytes(size, "big")
        number = _full_number(low, size, self._largest)
        try:
            frames = self._seal.decrypt((self._iv ^ number).to_bytes(12, "big"), datagram[body_at : packet.end], header)
        except InvalidTag:
            return None
        self._largest = max(self._largest, number)
        return frames


@dataclass(frozen=True, slots=True)
class _Attempt:
    version: int
    keys: _Keys
    stream: _CryptoStream


class _CryptoStream:
    """The start of a client's CRYPTO stream, put together from pieces up to the end of the hello."""

    __slots__ = ("_finished", "_held_bytes", "_message", "_pieces")

    def __init__(self) -> None:
        self._message = bytearray()
        self._pieces: dict[int, bytes] = {}
        self._held_bytes = 0
        self._finished = False

    @property
    def held_bytes(self) -> int:
        return len(self._message) + self._held_bytes + len(self._pieces) * PIECE_BYTES

    def receive(self, frames: bytes) -> ClientHelloReceived | None:
        """A packet's frames (RFC 9000, section 12.4, what an Initial may hold); the hello when it is whole."""
        if self._finished:
            return None
        for start, piece in _crypto_frames(frames):
            self._take(start, piece)
        for start in sorted(self._pieces):
            if start > len(self._message):
                break
            piece = self._pieces.pop(start)
            self._held_bytes -= len(piece)
            self._append(start, piece)
        size = hello_size(self._message)
        if size is None or len(self._message) < size:
            return None
        hello = parse_client_hello(bytes(self._message[4:size]))
        self._finished = True
        self._message = bytearray()
        self._pieces = {}
        self._held_bytes = 0
        return ClientHelloReceived(hello, 0, size)

    def _take(self, start: int, piece: bytes) -> None:
        if start + len(piece) > MAX_HELLO_BYTES:
            _fail(f"a CRYPTO stream of more than {MAX_HELLO_BYTES} bytes")
        if start <= len(self._message):
            self._append(start, piece)
            return
        held = self._pieces.get(start, b"")
        shorter, longer = sorted((held, piece), key=len)
        if not longer.startswith(shorter):
            _fail("a CRYPTO stream that says two things in one place")
        self._pieces[start] = longer
        self._held_bytes += len(longer) - len(held)
        if len(self._pieces) > MAX_PIECES or self._held_bytes > MAX_HELLO_BYTES:
            _fail("a CRYPTO stream in too many pieces")

    def _append(self, start: int, piece: bytes) -> None:
        known = len(self._message) - start
        # A server keeps the first or the last of two that differ (RFC 9000, section 2.2, lets it), and we cannot know which.
        if self._message[start : start + len(piece)] != piece[:known]:
            _fail("a CRYPTO stream that says two things in one place")
        self._message += piece[known:]


def _crypto_frames(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each CRYPTO frame; QuicError for a frame that no server takes in an Initial packet."""
    at, size = 0, len(frames)
    try:
        while at < size:
            kind = frames[at]
            if kind <= 1:
                run = _PADDING_OR_PING.match(frames, at)
                at = run.end() if run else size
            elif kind == _CRYPTO:
                start, at = _varint(frames, at + 1)
                length, at = _varint(frames, at)
                at += length
                if at > size:
                    raise _UnreadableError
                yield start, frames[at - length : at]
            elif kind in (_ACK, _ACK_ECN):
                at = _after_ack(frames, at)
            elif kind == _CLOSE:
                return
            else:
                _fail(f"a frame of type {kind:#x} in an Initial packet")
    except _UnreadableError:
        _fail("a frame that runs past its packet")


def _after_ack(frames: bytes, at: int) -> int:
    has_counts = frames[at] == _ACK_ECN
    _, at = _varint(frames, at + 1)
    _, at = _varint(frames, at)
    ranges, at = _varint(frames, at)
    _, at = _varint(frames, at)
    for _ in range(2 * ranges + (3 if has_counts else 0)):
        _, at = _varint(frames, at)
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000, section 16), and where it ends."""
    if at >= len(data):
        raise _UnreadableError
    size = 1 << (data[at] >> 6)
    end = at + size
    if end > len(data):
        raise _UnreadableError
    return int.from_bytes(data[at:end], "big") & (1 << 8 * size - 2) - 1, end


def _full_number(low: int, size: int, largest: int) -> int:
    """A packet number from its low bytes: the one closest to the expected (RFC 9000, appendix A.3)."""
    window = 1 << 8 * size
    expected = largest + 1
    number = expected & -window | low
    if number + window // 2 <= expected:
        return number + window
    return number - window if number > expected + window // 2 and number >= window else number


def _expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label without context (RFC 8446, section 7.1), for sizes up to one SHA-256 block of output."""
    name = f"tls13 {label}".encode()
    return digest(secret, size.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0\1", "sha256")[:size]


def _fail(what: str) -> NoReturn:
    raise QuicError(what)
