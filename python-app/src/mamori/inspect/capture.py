"""Capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), as packets from their IP headers on.

    with path.open("rb") as file:
        for captured in read_capture(file): ...

Either byte order, micro- and nanoseconds, several interfaces and sections. Ethernet with VLAN tags (802.1Q, 802.1ad and the old
0x9100) and PPPoE, raw IP, Linux cooked captures of both versions, loopback. What is not IP is passed over, and in pcapng so is an
interface with another link type.

A file that is cut off gives all packets before the cut, and then CaptureError. Memory: one packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct, unpack_from
from typing import BinaryIO, NoReturn

from mamori.inspect.errors import ParseError

MAX_PACKET_BYTES = 256 << 10
"""tcpdump's largest snapshot length (MAXIMUM_SNAPLEN), and Wireshark's for all but USB."""

MAX_INTERFACES = 4096
"""Interfaces of one pcapng section. dumpcap makes one for each that is captured; a block for each of a million is an attack."""

MAX_TAGS = 4
"""VLAN tags of one frame. 802.1ad has two."""

_SKIP_BYTES = 64 << 10

# https://www.tcpdump.org/linktypes.html
_NULL, _ETHERNET, _LOOP, _COOKED, _COOKED2 = 0, 1, 108, 113, 276
_RAW = frozenset((12, 14, 101, 228, 229))  # 12 and 14 are how BSDs wrote 101
_IPV4, _IPV6, _PPPOE = 0x0800, 0x86DD, 0x8864
_TAGS = frozenset((0x8100, 0x88A8, 0x9100))
_PPP_IP = {0x0021: _IPV4, 0x0057: _IPV6}
_ANY_IP = -1
_VERSIONS = {_IPV4: (4,), _IPV6: (6,), _ANY_IP: (4, 6)}

_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 1, 2, 3, 6
_RESOLUTION, _OFFSET = 9, 14
_SECTION_MAGIC = 0x1A2B3C4D


class CaptureError(ParseError):
    """This is no capture file, or it is damaged from here on."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A packet. `at_s` is Unix time, for a Simple Packet Block (which has none) that of the packet before; `data` begins with the
    IP header and may end before the packet does; `source_mac` is b"" where the link has none; `link` is the VLAN id, 0 without
    a tag, and with several tags their ids from the outermost on, 12 bits each; `interface` counts from 0 through the file."""

    at_s: float
    data: bytes
    source_mac: bytes
    link: int
    interface: int


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_bytes: int
    units: int  # in a second
    offset_s: int


def read_capture(file: BinaryIO) -> Iterator[Captured]:
    """The IP packets of a capture file, as they are read; CaptureError at the first thing that makes no sense."""
    read = _reader(file)
    magic = read(4)
    if magic == _SECTION:
        return _read_ng(read)
    if magic not in _MAGICS:
        _fail("no capture file, neither pcap nor pcapng")
    return _read_pcap(read, *_MAGICS[magic])


def _reader(file: BinaryIO) -> Callable[[int], bytes]:
    """Reads exactly so many bytes, fewer only at the end of the file; a pipe gives what it has."""

    def read(size: int) -> bytes:
        data = file.read(size)
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
        return data

    return read


def _read_pcap(read: Callable[[int], bytes], order: str, units: int) -> Iterator[Captured]:
    header = read(20)
    if len(header) < 20:
        _fail("a header that is cut off")
    link_type = unpack_from(order + "I", header, 16)[0] & 0xFFFF  # above that: the length of a checksum behind frames
    if not _is_known(link_type):
        _fail(f"link type {link_type}, which is not read here")
    record = Struct(order + "IIII")
    while head := read(16):
        if len(head) < 16:
            _fail("a packet's header that is cut off")
        seconds, fraction, size, _ = record.unpack(head)
        if size > MAX_PACKET_BYTES:
            _fail(f"a packet of {size} bytes")
        data = read(size)
        if len(data) < size:
            _fail("a packet that is cut off")
        found = _strip(link_type, data)
        if found:
            yield Captured(seconds + fraction / units, *found, 0)


def _read_ng(read: Callable[[int], bytes]) -> Iterator[Captured]:
    """Blocks: type, length, body, length again. The section's first block says the byte order."""
    order, interfaces, before, last_s = "<", list[_Interface](), 0, 0.0
    head = _SECTION + read(4)
    while head:
        if len(head) < 8:
            _fail("a block's header that is cut off")
        if head[:4] == _SECTION:
            before, interfaces = before + len(interfaces), []
            order = _read_section(read, head)
        else:
            kind, length = unpack_from(order + "II", head)
            if length < 12 or length % 4:
                _fail(f"a block of {length} bytes")
            if kind in (_INTERFACE, _PACKET, _SIMPLE, _ENHANCED):
                body = _read_body(read, order, length)
                if kind == _INTERFACE:
                    if len(interfaces) == MAX_INTERFACES:
                        _fail("too many interfaces")
                    interfaces.append(_parse_interface(body, order))
                else:
                    number, time, data = _parse_packet(kind, body, order, interfaces)
                    one = interfaces[number]
                    last_s = last_s if time is None else time / one.units + one.offset_s
                    if found := _strip(one.link_type, data):
                        yield Captured(last_s, *found, before + number)
            else:
                _skip(read, length - 8)
        head = read(8)


def _read_section(read: Callable[[int], bytes], head: bytes) -> str:
    """The byte order of the section that begins."""
    magic = read(4)
    order = next((order for order in "<>" if magic == Struct(order + "I").pack(_SECTION_MAGIC)), None)
    if order is None:
        _fail("a section of an unknown byte order")
    length = unpack_from(order + "I", head, 4)[0]
    if length < 28 or length % 4:
        _fail(f"a section header of {length} bytes")
    _skip(read, length - 12)
    return order


def _read_body(read: Callable[[int], bytes], order: str, length: int) -> bytes:
    if length > MAX_PACKET_BYTES + _SKIP_BYTES:  # options, such as comments, stand behind a packet
        _fail(f"a block of {length} bytes")
    body = read(length - 8)
    if len(body) < length - 8:
        _fail("a block that is cut off")
    if unpack_from(order + "I", body, length - 12)[0] != length:
        _fail("a block with two lengths")
    return body[:-4]


def _skip(read: Callable[[int], bytes], size: int) -> None:
    while size:
        got = len(read(min(size, _SKIP_BYTES)))
        if not got:
            _fail("a block that is cut off")
        size -= got


def _parse_interface(body: bytes, order: str) -> _Interface:
    if len(body) < 8:
        _fail("an interface that is cut off")
    link_type, snap_bytes = unpack_from(order + "HxxI", body)
    units, offset_s, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, length = unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
        if code == 0:
            break
        if code == _RESOLUTION and len(value) == 1:
            units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET and len(value) == 8:
            offset_s = unpack_from(order + "q", value)[0]
    return _Interface(link_type, snap_bytes, units, offset_s)


def _parse_packet(kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> tuple[int, int | None, bytes]:
    """Interface, time in its units (None if the block has none) and data of a packet block."""
    start = {_ENHANCED: 20, _PACKET: 20, _SIMPLE: 4}[kind]
    if len(body) < start:
        _fail("a packet block that is cut off")
    number, time = 0, None
    if kind == _SIMPLE:
        size = unpack_from(order + "I", body)[0]
        if interfaces and interfaces[0].snap_bytes:
            size = min(size, interfaces[0].snap_bytes)
        size = min(size, len(body) - start)  # what it had on the wire, and no word about what was captured
    else:
        number, high, low, size = unpack_from(order + ("IIII" if kind == _ENHANCED else "HxxIII"), body)
        time = high << 32 | low
    if number >= len(interfaces):
        _fail(f"a packet of interface {number}, which was not announced")
    if size > len(body) - start:
        _fail("a packet that is longer than its block")
    return number, time, body[start : start + size]


def _is_known(link_type: int) -> bool:
    return link_type in _RAW or link_type in (_NULL, _ETHERNET, _LOOP, _COOKED, _COOKED2)


def _strip(link_type: int, frame: bytes) -> tuple[bytes, bytes, int] | None:
    """The packet from its IP header on, its sender's MAC and its VLAN; None if it is no IP."""
    mac, kind, at = b"", _ANY_IP, 0
    if link_type == _ETHERNET and len(frame) >= 14:
        mac, kind, at = frame[6:12], frame[12] << 8 | frame[13], 14
    elif link_type == _COOKED and len(frame) >= 16:
        mac, kind, at = _cooked_mac(frame[4] << 8 | frame[5], frame[6:14]), frame[14] << 8 | frame[15], 16
    elif link_type == _COOKED2 and len(frame) >= 20:
        mac, kind, at = _cooked_mac(frame[11], frame[12:20]), frame[0] << 8 | frame[1], 20
    elif link_type in (_NULL, _LOOP):
        at = 4  # the family, whose number for IPv6 differs from system to system: the IP header says it as well
    elif link_type not in _RAW:
        return None
    link, tags, end = 0, 0, len(frame)
    while kind in _TAGS and at + 4 <= end and tags < MAX_TAGS:
        link = link << 12 | (frame[at] << 8 | frame[at + 1]) & 0x0FFF
        kind, at, tags = frame[at + 2] << 8 | frame[at + 3], at + 4, tags + 1
    if kind == _PPPOE and at + 8 <= end:
        # RFC 2516: version and type, code 0 for a session, its number, length; then PPP's protocol (RFC 1661)
        length, protocol = unpack_from(">HH", frame, at + 4)
        kind = _PPP_IP.get(protocol, 0) if frame[at + 1] == 0 else 0
        at, end = at + 8, min(end, at + 6 + length)
    packet = frame[at:end]
    return (packet, mac, link) if packet and packet[0] >> 4 in _VERSIONS.get(kind, ()) else None


def _cooked_mac(length: int, address: bytes) -> bytes:
    return address[:6] if length == 6 else b""


def _fail(what: str) -> NoReturn:
    raise CaptureError(what)
