"""The ClientHello at the start of a TLS connection (RFC 8446, RFC 5246), read from the client's side of a TCP stream.

The judge of what a client may send is the server behind us, so what counts as a hello here is what servers let pass:
records of any size and of a version that they do not check, empty records, warnings, unknown extensions twice. Whatever
no server takes is the one error: no connection can come of it, so it hides nothing. (OpenSSL 3.0 and 3.5 were asked, see
the tests; of Go it is said what its source says.)

The reader stops at the first hello. A second one, after a HelloRetryRequest, may by RFC 8446 (4.1.2) not change
its names; a server that lets it is a partner in the deceit and would need no second hello for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from struct import unpack_from
from typing import NoReturn

from mamori.inspect.errors import ParseError
from mamori.inspect.names import host_name

MAX_HELLO_BYTES = 64 * 1024
"""A handshake message of the hello with its header. OpenSSL takes 16 KiB plus room for tickets, Go 64 KiB; real ones are
0.2 to 2 KiB, or some more with a client's collection of session tickets."""

MAX_IDLE_RECORDS = 32
"""Records in a row that carry nothing of the hello. OpenSSL 3 gives up after 32 empty ones, Go after 16 empty ones or warnings."""

_MAX_RECORD_BYTES = 1 << 14
_RECORD_HEADER = 5
_MAX_VERSION_MAJOR = 0x10
"""OpenSSL wants 3 in the first byte of a record's version; Go (crypto/tls, conn.go) takes all below 0x10."""

_ALERT, _HANDSHAKE = 21, 22
_WARNING = 1
_CLIENT_HELLO = 1
_TLS_1_3 = 0x0304

_SERVER_NAME, _SIGNATURE_ALGORITHMS, _ALPN, _SESSION_TICKET = 0, 13, 16, 35
_PRE_SHARED_KEY, _EARLY_DATA, _SUPPORTED_VERSIONS = 41, 42, 43
_ECH = 0xFE0D
_READ = frozenset((_SERVER_NAME, _SIGNATURE_ALGORITHMS, _ALPN, _SESSION_TICKET, _PRE_SHARED_KEY, _SUPPORTED_VERSIONS, _ECH))

_GREASE = frozenset(0x0A0A + 0x1010 * n for n in range(16))
"""Values that mean nothing and keep servers tolerant (RFC 8701)."""


class TlsError(ParseError):
    """A stream that began as TLS and carries no ClientHello that a server would take."""


class Framing(Enum):
    """What the first bytes of a stream are."""

    RECORDS = "TLS records"
    SSL2 = "an SSLv2-compatible hello"
    OTHER = "not TLS"


class Transport(Enum):
    """What carried the hello, as its letter in a JA4 fingerprint."""

    TCP = "t"
    QUIC = "q"


@dataclass(frozen=True, slots=True)
class EchOffer:
    """The encrypted_client_hello extension (RFC 9849, section 5): the server name beside it may be a front for another.

    Browsers send one in GREASE too, and an onlooker cannot tell the two apart by design (section 6.2). `config_id` is what
    can be compared with the ECHConfig that DNS gave out for the name: without such a config it is GREASE. None: unreadable.
    """

    config_id: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client says of itself, in its own order, GREASE included.

    `server_name` is as `names.host_name` writes it. `versions` are those of supported_versions, or the one legacy version.
    `resumption`: the client presents a session of before (a ticket, a pre-shared key, or before TLS 1.3 a session id).
    """

    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    extensions: tuple[int, ...] = ()
    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    ech: EchOffer | None = None
    resumption: bool = False
    early_data: bool = False
    framing: Framing = Framing.RECORDS


@dataclass(frozen=True, slots=True)
class ClientHelloReceived:
    """A whole hello; `start` and `end` are stream offsets: of TCP's for records that hold it, of the CRYPTO stream for QUIC."""

    hello: ClientHello
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class NotTlsSeen:
    """The first bytes are of some other protocol."""


Event = ClientHelloReceived | NotTlsSeen


def recognise(head: bytes | bytearray) -> Framing | None:
    """What a stream with these first bytes is; None while they can still be either. Eleven bytes always decide."""
    size = len(head)
    if size and head[0] & 0x80:
        return _recognise_ssl2(head)
    if size > 4 and (head[3] << 8 | head[4]) > _MAX_RECORD_BYTES:
        return Framing.OTHER
    if (size > 0 and head[0] not in (_ALERT, _HANDSHAKE)) or (size > 1 and head[1] >= _MAX_VERSION_MAJOR):
        return Framing.OTHER
    if size < _RECORD_HEADER + 1:
        return None
    first = _WARNING if head[0] == _ALERT else _CLIENT_HELLO
    return Framing.RECORDS if head[5] == first or head[3:5] == b"\0\0" else Framing.OTHER


def _recognise_ssl2(head: bytes | bytearray) -> Framing | None:
    # RFC 5246, appendix E.2. Other protocols start with such a byte too, so the lengths must add up.
    if (len(head) > 2 and head[2] != _CLIENT_HELLO) or (len(head) > 3 and head[3] not in (0, 3)):
        return Framing.OTHER
    if len(head) < 11:
        return None
    length, ciphers, session, challenge = unpack_from(">H3xHHH", head)
    adds_up = length & 0x7FFF == 9 + ciphers + session + challenge and ciphers % 3 == 0 and ciphers
    return Framing.SSL2 if adds_up and (head[3] == 3 or head[4] == 2) else Framing.OTHER


class TlsReader:
    """Reads a client's bytes in stream order up to the end of its hello: `receive` gives at most one event in its life.

    It holds at most one hello and one record, beside the segment that it was just given.
    """

    __slots__ = ("_at", "_buffer", "_failure", "_finished", "_framing", "_idle", "_message", "_start")

    def __init__(self, start: int = 0) -> None:
        """`start` is the stream offset of the first byte: not 0 after STARTTLS or CONNECT."""
        self._at = start
        self._start: int | None = None
        self._buffer = bytearray()
        self._message = bytearray()
        self._framing: Framing | None = None
        self._idle = 0
        self._finished = False
        self._failure: str | None = None

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """The next bytes, however they are cut. TlsError once the hello cannot be one; and again for every call after it."""
        if self._failure is not None:
            raise TlsError(self._failure)
        if self._finished:
            return []
        self._buffer += data
        try:
            event = self._read()
        except TlsError as error:
            self._failure = str(error)
            self._forget()
            raise
        if event is None:
            return []
        self._finished = True
        self._forget()
        return [event]

    def _forget(self) -> None:
        self._buffer = self._message = bytearray()

    def _read(self) -> Event | None:
        if self._framing is None:
            self._framing = recognise(self._buffer)
        match self._framing:
            case Framing.RECORDS:
                return self._read_records()
            case Framing.SSL2:
                return self._read_ssl2()
            case Framing.OTHER:
                return NotTlsSeen()
            case None:
                return None

    def _read_records(self) -> Event | None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _RECORD_HEADER:
            kind, major, length = unpack_from(">BBxH", buffer, at)
            if length > _MAX_RECORD_BYTES or major >= _MAX_VERSION_MAJOR:
                _fail(f"a record of version {major}.x with {length} bytes")
            end = at + _RECORD_HEADER + length
            if len(buffer) < end:
                break
            self._take_record(kind, buffer[at + _RECORD_HEADER : end], self._at + at)
            at = end
            if (hello := self._whole_hello()) is not None:
                return ClientHelloReceived(hello, self._start or 0, self._at + end)
        del buffer[:at]
        self._at += at
        return None

    def _take_record(self, kind: int, payload: bytearray, start: int) -> None:
        if kind == _HANDSHAKE and payload:
            if self._start is None:
                self._start = start
            self._message += payload
            self._idle = 0
            return
        # Go passes over warnings before and amid the hello (OpenSSL 3 does not), OpenSSL over empty records (Go does not).
        if payload and not (kind == _ALERT and payload[0] == _WARNING and len(payload) == 2):
            _fail(f"a record of type {kind} before the end of the hello")
        self._idle += 1
        if self._idle > MAX_IDLE_RECORDS:
            _fail(f"more than {MAX_IDLE_RECORDS} records that carry nothing")

    def _whole_hello(self) -> ClientHello | None:
        size = hello_size(self._message)
        return None if size is None or len(self._message) < size else parse_client_hello(bytes(self._message[4:size]))

    def _read_ssl2(self) -> Event | None:
        end = 2 + ((self._buffer[0] & 0x7F) << 8 | self._buffer[1])
        if len(self._buffer) < end:
            return None
        version, ciphers, session = unpack_from(">HHH", self._buffer, 3)
        codes = self._buffer[11 : 11 + ciphers]
        hello = ClientHello(
            versions=(version,),
            cipher_suites=tuple(int.from_bytes(codes[at : at + 3], "big") for at in range(0, ciphers, 3)),
            resumption=session > 0,
            framing=Framing.SSL2,
        )
        return ClientHelloReceived(hello, self._at, self._at + end)


def hello_size(message: bytes | bytearray) -> int | None:
    """The size of the hello at the start of a handshake stream, with its header; None while that is not there yet."""
    if message and message[0] != _CLIENT_HELLO:
        _fail(f"a handshake message of type {message[0]} in place of a ClientHello")
    if len(message) < 4:
        return None
    size = 4 + int.from_bytes(message[1:4], "big")
    if size > MAX_HELLO_BYTES:
        _fail(f"a ClientHello of {size} bytes; {MAX_HELLO_BYTES} is the limit")
    return size


def parse_client_hello(body: bytes) -> ClientHello:
    """A ClientHello without its handshake header (RFC 8446, section 4.1.2); TlsError if it is none."""
    session, at = _vector(body, 34, 1)
    ciphers, at = _vector(body, at, 2)
    compressions, at = _vector(body, at, 1)
    if not ciphers or not compressions:
        _fail("a hello without cipher suites or compression methods")
    order: tuple[int, ...] = ()
    extensions: dict[int, bytes] = {}
    if at < len(body):
        block, at = _vector(body, at, 2)
        order, extensions = _extensions(block)
    if at != len(body):
        _fail("bytes after the extensions")
    versions = _words(_whole(extensions[_SUPPORTED_VERSIONS], 1)) if _SUPPORTED_VERSIONS in extensions else ()
    return ClientHello(
        versions=versions or unpack_from(">H", body),
        cipher_suites=_words(ciphers),
        extensions=order,
        server_name=_server_name(extensions[_SERVER_NAME]) if extensions.get(_SERVER_NAME) else None,
        alpn=_strings(extensions[_ALPN]) if _ALPN in extensions else (),
        signature_algorithms=_words(_whole(extensions[_SIGNATURE_ALGORITHMS], 2)) if _SIGNATURE_ALGORITHMS in extensions else (),
        ech=_ech_offer(extensions[_ECH]) if _ECH in extensions else None,
        resumption=_PRE_SHARED_KEY in extensions
        or bool(extensions.get(_SESSION_TICKET))
        or (bool(session) and _TLS_1_3 not in versions),
        early_data=_EARLY_DATA in extensions,
    )


def ja4(hello: ClientHello, transport: Transport) -> str:
    """The JA4 fingerprint of the client, as specified by FoxIO (github.com/FoxIO-LLC/ja4, technical_details/JA4.md; JA4
    itself is under a BSD licence, the rest of JA4+ is not and is not used here)."""
    ciphers = sorted(f"{code:04x}" for code in hello.cipher_suites if code not in _GREASE)
    extensions = [code for code in hello.extensions if code not in _GREASE]
    algorithms = ",".join(f"{code:04x}" for code in hello.signature_algorithms if code not in _GREASE)
    described = ",".join(sorted(f"{code:04x}" for code in extensions if code not in (_SERVER_NAME, _ALPN)))
    return (
        f"{transport.value}{_ja4_version(hello)}{'d' if _SERVER_NAME in extensions else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{_ja4_alpn(hello.alpn)}"
        f"_{_ja4_hash(','.join(ciphers))}_{_ja4_hash(f'{described}_{algorithms}' if algorithms else described)}"
    )


def _ja4_version(hello: ClientHello) -> str:
    newest = max((version for version in hello.versions if version not in _GREASE), default=0)
    return {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}.get(newest, "00")


def _ja4_alpn(protocols: tuple[bytes, ...]) -> str:
    first = protocols[0] if protocols else b""
    if not first:
        return "00"
    ends = bytes((first[0], first[-1]))
    return ends.decode() if ends.isalnum() else f"{first[0]:02x}"[0] + f"{first[-1]:02x}"[1]


def _ja4_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


def _extensions(block: bytes) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """The types in the client's order, and the contents."""
    order: list[int] = []
    found: dict[int, bytes] = {}
    at, size = 0, len(block)
    while at + 4 <= size:
        kind, length = unpack_from(">HH", block, at)
        if kind in found and kind in _READ:
            # OpenSSL refuses this for extensions that it knows. Which of the two another server would heed is anyone's guess.
            _fail(f"extension {kind} twice")
        at += 4 + length
        order.append(kind)
        found[kind] = block[at - length : at]
    if at != size:
        _fail("extensions that do not fill their block")
    return tuple(order), found


def _server_name(content: bytes) -> str | None:
    # RFC 6066, section 3. OpenSSL takes one host name and nothing else, Go passes over names of other types, both refuse two
    # host names. An empty extension (which they refuse) or an empty name (which OpenSSL lets pass) names nobody.
    names, at, entries = [], 0, _whole(content, 2)
    while at < len(entries):
        kind = entries[at]
        name, at = _vector(entries, at + 1, 2)
        if kind == 0:
            names.append(name)
    if len(names) > 1:
        _fail("two host names")
    return host_name(names[0]) if names and names[0] else None


def _strings(content: bytes) -> tuple[bytes, ...]:
    strings, at, entries = [], 0, _whole(content, 2)
    while at < len(entries):
        string, at = _vector(entries, at, 1)
        strings.append(string)
    return tuple(strings)


def _ech_offer(content: bytes) -> EchOffer:
    # type 0 "outer", kdf, aead, config_id, ...; the type 1 "inner" is never seen outside of the encrypted hello.
    return EchOffer(content[5] if len(content) > 5 and content[0] == 0 else None, len(content))


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """The vector at `at` with a length of `width` bytes before it, and where it ends."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if end > len(data) or start > len(data):
        _fail("a field that runs past its end")
    return data[start:end], end


def _whole(data: bytes, width: int) -> bytes:
    """The vector that `data` is."""
    content, end = _vector(data, 0, width)
    if end != len(data):
        _fail("an extension with bytes after its list")
    return content


def _words(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        _fail("half a number in a list")
    return unpack_from(f">{len(data) // 2}H", data)


def _fail(what: str) -> NoReturn:
    raise TlsError(what)
