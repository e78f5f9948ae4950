"""IP packets as NFQUEUE hands them over: layer 3 up to the transport header, read in place.

    packet = parse_packet(data)         # PacketError if no receiver would take it for a packet

IPv4 (RFC 791) with options, IPv6 (RFC 8200) with its chain of extension headers, TCP (RFC 9293), UDP (RFC 768), ICMP
(RFC 792, RFC 4443). Link layer, VLAN and EtherType are not in the bytes; NFQUEUE gives them beside.

What the kernel does before it queues a packet is not done again: checksums, and on most paths defragmentation (conntrack
needs whole packets). What it leaves to us: super-packets of segmentation offload, whose lengths may be zero or more than
64 KiB (BIG TCP), and whose checksums are not filled in yet.

Lenient as receivers are: bytes after the length that a header states are padding (Ethernet pads to 60 bytes); extension
headers may come in any order and repeat (Linux and Windows take them so, RFC 8200 4.1 asks for it), except that a chain
longer than MAX_EXTENSION_HEADERS is refused; unknown options are skipped; reserved bits are ignored.

On the data path: one `unpack_from` per header and no copy of the payload. `Packet` is not frozen because setting fields
through `object.__setattr__` would double the cost of a parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from mamori.inspect.errors import ParseError

# https://www.iana.org/assignments/protocol-numbers. Plain integers: an Enum lookup costs as much as a header.
HOP_BY_HOP: Final = 0
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ROUTING: Final = 43
FRAGMENT: Final = 44
ESP: Final = 50
AUTHENTICATION: Final = 51
ICMPV6: Final = 58
NO_NEXT_HEADER: Final = 59
DESTINATION_OPTIONS: Final = 60
MOBILITY: Final = 135
HIP: Final = 139
SHIM6: Final = 140

# RFC 9293 3.1, RFC 3168; bits of Packet.flags.
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20

MAX_EXTENSION_HEADERS = 16
"""RFC 8200 names seven kinds and allows one of them twice. Longer chains are made to outlast a filter; RFC 8504 5.3 lets
a node refuse them."""

_EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION, MOBILITY, HIP, SHIM6))
_MAX_LENGTH = 0xFFFF
_IPV4_BYTES, _IPV6_BYTES, _FRAGMENT_BYTES, _TCP_BYTES, _UDP_BYTES, _ICMP_BYTES = 20, 40, 8, 20, 8, 8
_MORE_FRAGMENTS, _OFFSET_MASK = 0x2000, 0x1FFF
_ECHOES = {ICMP: (0, 8), ICMPV6: (128, 129)}

_IPV4 = Struct("!BxHHHxB2x4s4s")  # version and length, total length, identification, flags and offset, protocol, addresses
_IPV6 = Struct("!4xHBx16s16s")  # payload length, next header, addresses
_EXTENSION = Struct("!BB")  # next header, length
_FRAGMENT = Struct("!BxHI")  # next header, offset and more, identification
_TCP = Struct("!HHIIHH2xH")  # ports, sequence, acknowledgement, offset and flags, window, urgent pointer
_UDP = Struct("!HHH2x")  # ports, length
_ICMP = Struct("!BB2xH2x")  # type, code, identifier of an echo


class PacketError(ParseError):
    """No packet: wrong version, a header that is cut short or contradicts itself."""


@dataclass(slots=True)
class Fragment:
    """A part of a datagram. `offset` and `header_end` are in bytes: where this part belongs in the datagram's payload, and
    where the headers that every part repeats end in this packet; `protocol_at` is the index of the byte that names what
    comes after them (for IPv6 it says "fragment")."""

    identification: int
    offset: int
    more: bool
    header_end: int
    protocol_at: int


@dataclass(slots=True)
class Packet:
    """A packet, in place: `payload` is a view of the caller's buffer and lives as long as that.

    source, destination   4 or 16 bytes
    protocol              that of the transport header (IANA number), also in a fragment: for IPv6 what follows its
                          fragment header
    transport_start       index of the transport header; in a fragment, of the fragment's part of the datagram
    payload_start         index of the payload; it ends after len(payload) bytes, which may be before the data does
    missing_bytes         bytes which the headers promise and the data lacks, because it was captured in part: NFQUEUE copies at
                          most 65,531 bytes of a packet. 0 for every packet that is here whole
    fragment              None for a whole datagram. A fragment has no ports: its transport header may be elsewhere
    source_port, destination_port
                          TCP, UDP; of an ICMP echo its identifier (both, so that the answer belongs to the same flow); else 0
    sequence, acknowledgement, flags, window, urgent
                          TCP; `window` as on the wire, without the scale that was agreed on
    icmp_type, icmp_code  ICMP, ICMPv6; else -1
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    transport_start: int
    payload_start: int
    payload: memoryview
    missing_bytes: int
    fragment: Fragment | None = None
    source_port: int = 0
    destination_port: int = 0
    sequence: int = 0
    acknowledgement: int = 0
    flags: int = 0
    window: int = 0
    urgent: int = 0
    icmp_type: int = -1
    icmp_code: int = -1


def parse_packet(data: bytes | memoryview) -> Packet:
    """The packet that `data` begins with (a memoryview of unsigned bytes); PacketError if there is none."""
    view = memoryview(data)
    version = view[0] >> 4 if view else 0
    if version == 4:
        return _parse_ipv4(view)
    if version == 6:
        return _parse_ipv6(view)
    raise PacketError(f"IP version {version}" if view else "an empty packet")


def _parse_ipv4(view: memoryview) -> Packet:
    length = len(view)
    if length < _IPV4_BYTES:
        raise PacketError("the IPv4 header is cut short")
    first, total, identification, place, protocol, source, destination = _IPV4.unpack_from(view)
    header_end = (first & 0xF) * 4
    # Zero is a super-packet's length that does not fit; others of this kind never get past the kernel.
    end = total or length
    if not _IPV4_BYTES <= header_end <= min(end, length):
        raise PacketError("the IPv4 header's lengths contradict each other")
    missing = 0 if end <= length else end - length
    end -= missing
    if place & (_MORE_FRAGMENTS | _OFFSET_MASK):
        part = Fragment(identification, (place & _OFFSET_MASK) * 8, bool(place & _MORE_FRAGMENTS), header_end, 9)
        return Packet(4, source, destination, protocol, header_end, header_end, view[header_end:end], missing, part)
    return _parse_transport(view, 4, source, destination, protocol, header_end, end, missing)


def _parse_ipv6(view: memoryview) -> Packet:
    length = len(view)
    if length < _IPV6_BYTES:
        raise PacketError("the IPv6 header is cut short")
    stated, protocol, source, destination = _IPV6.unpack_from(view)
    # Zero is a jumbogram (RFC 2675), which is what super-packets above 64 KiB look like; on newer kernels without the option.
    jumbo = not stated and (protocol == HOP_BY_HOP or length > _IPV6_BYTES + _MAX_LENGTH)
    end = length if jumbo else _IPV6_BYTES + stated
    missing = 0 if end <= length else end - length
    end -= missing
    start, part = _IPV6_BYTES, None
    if protocol in _EXTENSIONS or protocol == FRAGMENT:
        protocol, start, part = _walk_extensions(view, protocol, end)
    if part:
        return Packet(6, source, destination, protocol, start, start, view[start:end], missing, part)
    return _parse_transport(view, 6, source, destination, protocol, start, end, missing)


def _walk_extensions(view: memoryview, protocol: int, end: int) -> tuple[int, int, Fragment | None]:
    """Protocol and index of what follows the extension headers; a fragment header ends the walk, because what it is
    followed by may be the middle of anything."""
    start, named_at = _IPV6_BYTES, 6
    for _ in range(MAX_EXTENSION_HEADERS + 1):  # the last round is for what comes after them
        if protocol == FRAGMENT:
            if start + _FRAGMENT_BYTES > end:
                raise PacketError("an IPv6 fragment header is cut short")
            protocol, place, identification = _FRAGMENT.unpack_from(view, start)
            if place & 0xFFF9:
                return protocol, start + _FRAGMENT_BYTES, Fragment(identification, place & 0xFFF8, bool(place & 1), start, named_at)
            # RFC 6946: a fragment that is the whole is no fragment.
            named_at, start = start, start + _FRAGMENT_BYTES
        elif protocol in _EXTENSIONS:
            if start + 2 > end:
                raise PacketError("an IPv6 extension header is cut short")
            following, units = _EXTENSION.unpack_from(view, start)
            # RFC 4302 2.2: the authentication header alone counts in units of four bytes.
            named_at, start = start, start + ((units + 2) * 4 if protocol == AUTHENTICATION else (units + 1) * 8)
            protocol = following
            if start > end:
                raise PacketError("an IPv6 extension header is longer than its packet")
        else:
            return protocol, start, None
    raise PacketError(f"more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")


def _parse_transport(
    view: memoryview, version: int, source: bytes, destination: bytes, protocol: int, start: int, end: int, missing: int
) -> Packet:
    if protocol == TCP:
        if end - start < _TCP_BYTES:
            raise PacketError("the TCP header is cut short")
        from_port, to_port, sequence, acknowledgement, flags, window, urgent = _TCP.unpack_from(view, start)
        body = start + (flags >> 12) * 4
        if not start + _TCP_BYTES <= body <= end:
            raise PacketError("the TCP header's length is not one")
        # fmt: off
        return Packet(
            version, source, destination, TCP, start, body, view[body:end], missing, None,
            from_port, to_port, sequence, acknowledgement, flags & 0x1FF, window, urgent,
        )
        # fmt: on
    if protocol == UDP:
        if end - start < _UDP_BYTES:
            raise PacketError("the UDP header is cut short")
        from_port, to_port, length = _UDP.unpack_from(view, start)
        # Zero is a jumbogram (RFC 2675 4) or a super-packet that does not fit.
        if length and not _UDP_BYTES <= length <= end - start + missing:
            raise PacketError("the UDP length is not one")
        if length:
            missing, end = max(0, start + length - end), min(end, start + length)
        body = start + _UDP_BYTES
        return Packet(version, source, destination, UDP, start, body, view[body:end], missing, None, from_port, to_port)
    if protocol in _ECHOES:
        return _parse_icmp(view, version, source, destination, protocol, start, end, missing)
    return Packet(version, source, destination, protocol, start, start, view[start:end], missing)


def _parse_icmp(
    view: memoryview, version: int, source: bytes, destination: bytes, protocol: int, start: int, end: int, missing: int
) -> Packet:
    if end - start < _ICMP_BYTES:
        raise PacketError("the ICMP header is cut short")
    kind, code, echo = _ICMP.unpack_from(view, start)
    port = echo if kind in _ECHOES[protocol] else 0
    body = start + _ICMP_BYTES
    packet = Packet(version, source, destination, protocol, start, body, view[body:end], missing, None, port, port)
    packet.icmp_type, packet.icmp_code = kind, code
    return packet
