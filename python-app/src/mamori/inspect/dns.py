"""DNS messages (RFC 1035): who asks for what and what the answer is, from UDP and from TCP (RFC 7766). mDNS and NetBIOS names
have the same messages.

Names come as text by `names.domain_name`: lower-case, so that a resolver's random case (draft-vixie-dnsext-dns0x20) is gone.

What a stub resolver reads counts. It takes the answers that it finds before the first damage, and looks at no byte after
the last record; so a message whose questions can be read is a message, and `is_whole` tells about the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import unpack_from
from typing import NoReturn

from mamori.inspect.errors import ParseError
from mamori.inspect.names import domain_name

MAX_NAME_BYTES = 255
"""A name with its length bytes (RFC 1035, section 2.3.4)."""

MAX_HOPS = 127
"""Compression pointers in one name. More than a name can have labels lead in a circle."""

MAX_NAMES_BYTES = 256 * 1024
"""All names of one message, written out: four times its size. Without it 64 KiB could unfold to a megabyte of names."""

A, CNAME, PTR, AAAA, OPT, SVCB, HTTPS = 1, 5, 12, 28, 41, 64, 65
"""Record types whose content is read (RFC 1035, 3596, 6891, 9460)."""

_HEADER_BYTES = 12
_RESPONSE, _AUTHORITATIVE, _TRUNCATED = 0x8000, 0x0400, 0x0200
_DNSSEC_OK = 0x8000
_ECH_VERSION = 0xFE0D
_ALPN, _PORT, _IPV4_HINT, _ECH, _IPV6_HINT = 1, 3, 4, 5, 6


class DnsError(ParseError):
    """These bytes are no DNS message, or one whose questions cannot be read."""


@dataclass(frozen=True, slots=True)
class Question:
    """`kind` and `family` are the type and the class as numbers. In mDNS the top bit of the class asks for unicast."""

    name: str
    kind: int
    family: int


@dataclass(frozen=True, slots=True)
class Alias:
    """The name that a CNAME or PTR points at."""

    name: str


@dataclass(frozen=True, slots=True)
class EchConfig:
    """A key that a site gives out for encrypted_client_hello (RFC 9849, section 4), with the front name its hellos will bear."""

    config_id: int
    public_name: str


@dataclass(frozen=True, slots=True)
class Service:
    """SVCB or HTTPS (RFC 9460). `priority` 0 is an alias, `target` `.` is the owner's own name.

    `ech` is the raw parameter, None without one; `ech_at` is where it lies in the message, for who wants to blank it.
    """

    priority: int
    target: str
    alpn: tuple[bytes, ...] = ()
    port: int | None = None
    hints: tuple[IPv4Address | IPv6Address, ...] = ()
    ech: bytes | None = None
    ech_at: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """`data` is bytes for a type that is not read, or whose content does not fit its type. The content lies at `start` to
    `end` of the message. In mDNS the top bit of the class, `family`, tells to forget older records."""

    name: str
    kind: int
    family: int
    ttl_s: int
    data: IPv4Address | IPv6Address | Alias | Service | bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edns:
    """EDNS(0), RFC 6891. `options` are pairs of code and content."""

    udp_size_bytes: int
    version: int
    dnssec_ok: bool
    options: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """`rcode` has its upper bits from EDNS. `is_truncated` is the TC flag: the answer is asked for again over TCP.
    `is_whole` is False if the records stop making sense somewhere; those before that are here."""

    id: int
    is_response: bool
    opcode: int
    rcode: int
    is_authoritative: bool
    is_truncated: bool
    questions: tuple[Question, ...]
    answers: tuple[Record, ...]
    authorities: tuple[Record, ...]
    additionals: tuple[Record, ...]
    edns: Edns | None
    is_whole: bool


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of a TCP stream; `start` and `end` are its stream offsets, without the two length bytes before it."""

    message: Message
    start: int
    end: int


class DnsReader:
    """Reads the messages of one direction of a TCP stream. What it holds is less than one message, of at most 64 KiB."""

    __slots__ = ("_at", "_buffer", "_failure")

    def __init__(self, start: int = 0) -> None:
        """`start` is the stream offset of the first byte."""
        self._at = start
        self._buffer = bytearray()
        self._failure: str | None = None

    def receive(self, data: bytes | memoryview) -> list[MessageReceived]:
        """The next bytes, however they are cut. DnsError after the last message, once the next is none, and from then on."""
        if self._failure is not None:
            raise DnsError(self._failure)
        self._buffer += data
        messages: list[MessageReceived] = []
        try:
            self._read(messages)
        except DnsError as error:
            self._failure = str(error)
            self._buffer = bytearray()
            if not messages:
                raise
        return messages

    def _read(self, messages: list[MessageReceived]) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) >= at + 2:
            start = at + 2
            end = start + (buffer[at] << 8 | buffer[at + 1])
            if end - start < _HEADER_BYTES:
                _fail(f"a message of {end - start} bytes")
            if len(buffer) < end:
                break
            messages.append(MessageReceived(parse_message(bytes(buffer[start:end])), self._at + start, self._at + end))
            at = end
        del buffer[:at]
        self._at += at


def parse_message(data: bytes) -> Message:
    """The message that a datagram holds, or a TCP stream between its lengths. DnsError if it is none."""
    if len(data) < _HEADER_BYTES:
        _fail(f"a message of {len(data)} bytes")
    number, flags, asked, *counts = unpack_from(">6H", data)
    names = NameReader(data)
    questions, at = _questions(names, asked)
    sections: list[list[Record]] = [[], [], []]
    edns = None
    is_whole = True
    try:
        for section, count in zip(sections, counts, strict=True):
            for _ in range(count):
                record = _record(names, at)
                at = record.end
                if record.kind == OPT:
                    edns = edns or record
                else:
                    section.append(record)
    except DnsError:
        is_whole = False
    upper = edns.ttl_s >> 24 << 4 if edns else 0
    return Message(
        id=number,
        is_response=bool(flags & _RESPONSE),
        opcode=flags >> 11 & 15,
        rcode=upper | flags & 15,
        is_authoritative=bool(flags & _AUTHORITATIVE),
        is_truncated=bool(flags & _TRUNCATED),
        questions=questions,
        answers=tuple(sections[0]),
        authorities=tuple(sections[1]),
        additionals=tuple(sections[2]),
        edns=_edns(edns) if edns else None,
        is_whole=is_whole,
    )


class NameReader:
    """Reads the names of one message, each place at most once, however many pointers lead there: most records of a real
    message point at the question's name, and a hostile one can have thousands that all lead down the same long chain."""

    __slots__ = ("_known", "_read_bytes", "_texts", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._known: dict[int, tuple[bytes, ...]] = {}
        self._texts: dict[int, str] = {}
        self._read_bytes = 0

    def read(self, at: int) -> tuple[str, int]:
        """The name at `at`, as text, and where its bytes end. DnsError if there is none."""
        if self.data[at : at + 1] >= b"\xc0":
            text = self._texts.get(int.from_bytes(self.data[at : at + 2], "big") & 0x3FFF)
            if text is not None:
                return text, at + 2
        labels, end = self.read_labels(at)
        text = self._texts[at] = domain_name(labels)
        return text, end

    def read_labels(self, at: int) -> tuple[tuple[bytes, ...], int]:
        """The same with the labels as they stand, for who must see their case or more than text (NetBIOS, mDNS)."""
        data, labels, end = self.data, [], None
        targets: list[tuple[int, int]] = []  # where pointers lead, and how many labels stand before that
        size = 1
        while True:
            if at >= len(data):
                _fail("a name that runs past its message")
            length = data[at]
            if length == 0:
                at += 1
                break
            if length < 64:
                label = data[at + 1 : at + 1 + length]
                at += 1 + length
                size += 1 + length
                labels.append(label)
                if at > len(data) or size > MAX_NAME_BYTES:
                    _fail("a name that is too long")
                continue
            if length < 192 or at + 1 >= len(data):
                _fail("a label of an unknown kind")
            end = end or at + 2
            at = (length & 63) << 8 | data[at + 1]
            if (known := self._known.get(at)) is not None:
                labels += known
                size += sum(map(len, known)) + len(known)
                break
            # Forward pointers are let pass, as glibc does.
            targets.append((at, len(labels)))
            if len(targets) > MAX_HOPS:
                _fail("a name that points in a circle")
        self._read_bytes += size
        if size > MAX_NAME_BYTES or self._read_bytes > MAX_NAMES_BYTES:
            _fail("a name that is too long, or too many names")
        for target, before in targets:
            self._known[target] = tuple(labels[before:])
        return tuple(labels), end or at


def parse_ech_configs(content: bytes) -> tuple[EchConfig, ...]:
    """The configs of an ech parameter that a client would use (RFC 9849, section 4); none if they cannot be read."""
    configs, at = [], 2
    while at + 4 <= len(content):
        version, length = unpack_from(">HH", content, at)
        body = content[at + 4 : at + 4 + length]
        at += 4 + length
        # id 1, kem 2, key <2>, suites <2>, longest name 1, public name <1>
        if version == _ECH_VERSION and len(body) > 5:
            suites_at = 5 + int.from_bytes(body[3:5], "big")
            name_at = suites_at + 2 + int.from_bytes(body[suites_at : suites_at + 2], "big") + 1
            if name_at < len(body) and name_at + 1 + body[name_at] <= len(body):
                name = body[name_at + 1 : name_at + 1 + body[name_at]]
                configs.append(EchConfig(body[0], domain_name(name.split(b"."))))
    return tuple(configs)


def _questions(names: NameReader, count: int) -> tuple[tuple[Question, ...], int]:
    questions, at = [], _HEADER_BYTES
    for _ in range(count):
        name, at = names.read(at)
        if at + 4 > len(names.data):
            _fail("a question that runs past its message")
        questions.append(Question(name, *unpack_from(">HH", names.data, at)))
        at += 4
    return tuple(questions), at


def _record(names: NameReader, at: int) -> Record:
    name, at = names.read(at)
    start = at + 10
    if start > len(names.data):
        _fail("a record that runs past its message")
    kind, family, ttl_s, length = unpack_from(">HHIH", names.data, at)
    end = start + length
    if end > len(names.data):
        _fail("a record that runs past its message")
    return Record(name, kind, family, ttl_s, _content(names, kind, start, end), start, end)


def _content(names: NameReader, kind: int, start: int, end: int) -> IPv4Address | IPv6Address | Alias | Service | bytes:
    content = names.data[start:end]
    if kind == A and len(content) == 4:
        return IPv4Address(content)
    if kind == AAAA and len(content) == 16:
        return IPv6Address(content)
    try:
        if kind in (CNAME, PTR):
            name, name_end = names.read(start)
            return Alias(name) if name_end == end else content
        if kind in (SVCB, HTTPS):
            return _service(names, start, end)
    except DnsError:
        pass
    return content


def _service(names: NameReader, start: int, end: int) -> Service:
    data = names.data
    target, at = names.read(start + 2)
    parameters: dict[int, tuple[int, bytes]] = {}
    while at + 4 <= end:
        key, length = unpack_from(">HH", data, at)
        at += 4 + length
        parameters[key] = (at - length, data[at - length : at])
    if at != end:
        _fail("parameters that do not fill their record")
    ech_at, ech = parameters.get(_ECH, (None, None))
    port = parameters.get(_PORT, (0, b""))[1]
    v4, v6 = parameters.get(_IPV4_HINT, (0, b""))[1], parameters.get(_IPV6_HINT, (0, b""))[1]
    return Service(
        priority=int.from_bytes(data[start : start + 2], "big"),
        target=target,
        alpn=_strings(parameters.get(_ALPN, (0, b""))[1]),
        port=int.from_bytes(port, "big") if len(port) == 2 else None,
        hints=(
            *(IPv4Address(v4[i : i + 4]) for i in range(0, len(v4) & -4, 4)),
            *(IPv6Address(v6[i : i + 16]) for i in range(0, len(v6) & -16, 16)),
        ),
        ech=ech,
        ech_at=ech_at,
    )


def _strings(content: bytes) -> tuple[bytes, ...]:
    strings, at = [], 0
    while at < len(content):
        end = at + 1 + content[at]
        strings.append(content[at + 1 : end])
        at = end
    return tuple(strings)


def _edns(record: Record) -> Edns:
    # RFC 6891, section 6.1.3: the class is the size, the TTL is upper rcode bits, version and flags.
    content = record.data if isinstance(record.data, bytes) else b""
    options, at = [], 0
    while at + 4 <= len(content):
        code, length = unpack_from(">HH", content, at)
        options.append((code, content[at + 4 : at + 4 + length]))
        at += 4 + length
    return Edns(record.family, record.ttl_s >> 16 & 0xFF, bool(record.ttl_s & _DNSSEC_OK), tuple(options))


def _fail(what: str) -> NoReturn:
    raise DnsError(what)
