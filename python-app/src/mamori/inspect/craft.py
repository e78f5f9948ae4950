"""Packets made from packets: what a verdict puts in the place of the one that waits. Pure; knows no connection.

    craft(data, packet, info, Segment(…))               # another TCP segment in the same IP packet
    trim(data, packet, info, front, back)               # fewer bytes of the same segment
    overwrite(data, packet, info, offset, ranges)       # harmless bytes of equal length
    normalise(data, packet, info)                       # without URG
    refuse_dns(data, packet, info)                      # the answer to a DNS query becomes NXDOMAIN

`data` is the IP packet, `packet` what parse_packet said of it, `info` the flags that it was queued with (nfqueue.messages.Info).
Addresses, ports, TTL, ECN, IP options and extension headers stay. Lengths and checksums are made to fit, as nfqueue/checksum.py
says. CraftError: this packet cannot become that one; drop it, and its sender sends again.

A super-packet keeps its length. The kernel still cuts it at its gso_size, which the queue does not tell, and one that is not longer
than that it drops (tcp_offload.c, tcp_gso_segment). Flags are copied to every segment, except FIN and PSH, which only the last has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import OVERWRITING, Coding
from mamori.inspect.nfqueue.checksum import ChecksumError, finish_checksum
from mamori.inspect.nfqueue.messages import Info
from mamori.inspect.packet import FIN, SYN, TCP, UDP, URG, Packet

SEQUENCE_MASK = 0xFFFFFFFF

_MAX_LENGTH = 0xFFFF
_TCP_BYTES, _IPV6_BYTES, _UDP_BYTES = 20, 40, 8
_NUMBERS = Struct("!IIHH")  # RFC 9293 3.1: sequence, acknowledgement, offset and flags, window
_NUMBERS_AT, _URGENT_AT = 4, 18
_FLAGS = 0x3F  # FIN to URG; the bits above are ECN's, the accurate ECN's and reserved
_SUPER_PACKET = int(Info.SUPER_PACKET)

_END_OF_OPTIONS, _NO_OPERATION, _MSS, _WINDOW_SCALE, _TIMESTAMPS = 0, 1, 2, 3, 8  # RFC 9293 3.2, RFC 7323
_OPTION_BYTES = {_MSS: 4, _WINDOW_SCALE: 3, _TIMESTAMPS: 10}

# RFC 1035 4.1.1. Of the flags stay QR, opcode, RD, RA and CD; an answer of ours is neither authoritative (AA) nor cut (TC) nor
# authentic (AD, RFC 4035 3.2.3).
_DNS_HEADER_BYTES, _NXDOMAIN = 12, 3
_DNS_RESPONSE, _DNS_KEPT = 0x8000, 0xF990
_DNS_QUESTION_TAIL_BYTES, _MAX_LABEL_BYTES, _MAX_NAME_BYTES = 4, 63, 255


class CraftError(ParseError):
    """This packet cannot be made into that one."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What the TCP header is to say. `flags` are FIN to ACK; the window stays the sender's unless given."""

    sequence: int
    acknowledgement: int
    flags: int
    payload: bytes = b""
    window: int | None = None


def is_super_packet(info: int) -> bool:
    """Whether the kernel's info flags say that it stands for several packets of the wire."""
    return bool(info & _SUPER_PACKET)


def craft(data: bytes | memoryview, packet: Packet, info: int, segment: Segment) -> bytes:
    """The packet with another segment in it. Of the options only timestamps stay: selective acknowledgements speak of numbers
    that the other side does not have, and options that sign or number data (MPTCP) would be wrong."""
    _check(packet, info)
    if is_super_packet(info) and len(segment.payload) != len(packet.payload):
        raise CraftError("a super-packet of another length")
    start = packet.transport_start
    out = bytearray(data[: packet.payload_start])
    _, _, offset_and_flags, window = _NUMBERS.unpack_from(out, start + _NUMBERS_AT)
    _NUMBERS.pack_into(
        out,
        start + _NUMBERS_AT,
        segment.sequence & SEQUENCE_MASK,
        segment.acknowledgement & SEQUENCE_MASK,
        offset_and_flags & ~_FLAGS | segment.flags & _FLAGS & ~URG,
        window if segment.window is None else segment.window,
    )
    out[start + _URGENT_AT : start + _TCP_BYTES] = b"\0\0"
    _blank_options(out, start + _TCP_BYTES, packet.payload_start)
    out += segment.payload
    return _finish(out, packet, info)


def trim(data: bytes | memoryview, packet: Packet, info: int, front: int = 0, back: int = 0, *, flags: int | None = None) -> bytes:
    """The segment without its first `front` and its last `back` bytes, with the sequence number that belongs to it."""
    _check(packet, info)
    if front < 0 or back < 0 or front + back > len(packet.payload):
        raise CraftError(f"{front} and {back} bytes of {len(packet.payload)}")
    if is_super_packet(info) and front + back:
        raise CraftError("a super-packet of another length")
    start, body = packet.transport_start, packet.payload_start
    out = bytearray(data[:body])
    _, acknowledgement, offset_and_flags, window = _NUMBERS.unpack_from(out, start + _NUMBERS_AT)
    if flags is not None:
        offset_and_flags = offset_and_flags & ~_FLAGS | flags & _FLAGS
    sequence = packet.sequence + front & SEQUENCE_MASK
    _NUMBERS.pack_into(out, start + _NUMBERS_AT, sequence, acknowledgement, offset_and_flags, window)
    out += packet.payload[front : len(packet.payload) - back]
    return _finish(out, packet, info)


def normalise(data: bytes | memoryview, packet: Packet, info: int) -> bytes:
    """The packet without URG and its pointer, so that every receiver reads the urgent byte where it is (RFC 6093 3.4)."""
    _check(packet, info)
    start = packet.transport_start
    out = bytearray(data[: packet.payload_start + len(packet.payload)])
    out[start + 13] &= ~URG
    out[start + _URGENT_AT : start + _TCP_BYTES] = b"\0\0"
    return _finish(out, packet, info)


def overwrite(data: bytes | memoryview, packet: Packet, info: int, offset: int, ranges: Iterable[tuple[int, int, Coding]]) -> bytes:
    """The packet with harmless bytes where its payload lies in one of the ranges: start, end (stream offsets) and coding;
    `offset` is that of the payload's first byte. CraftError for a coding that cannot be written over: cut instead."""
    _check(packet, info)
    body, length = packet.payload_start, len(packet.payload)
    out = bytearray(data[: body + length])
    for start, end, coding in ranges:
        low, high = max(0, start - offset), min(length, end - offset)
        if low >= high:
            continue
        if coding not in OVERWRITING:
            raise CraftError(f"bytes that are {coding.value}")
        out[body + low : body + high] = out[body + low : body + high].translate(OVERWRITING[coding])
    return _finish(out, packet, info)


@dataclass(frozen=True, slots=True)
class SynOptions:
    """What a SYN says of its sender, None if it says nothing: the longest segment it takes (without options), its scale."""

    mss: int | None
    window_shift: int | None


def parse_syn_options(data: bytes | memoryview, packet: Packet) -> SynOptions:
    """The options of a packet with SYN; the first of a kind counts. What is no list of options ends it."""
    found: dict[int, int] = {}
    if packet.protocol == TCP and packet.fragment is None and packet.flags & SYN:
        options = bytes(data[packet.transport_start + _TCP_BYTES : packet.payload_start])
        for kind, at, length in _options(options, 0, len(options)):
            if length == _OPTION_BYTES.get(kind):
                found.setdefault(kind, int.from_bytes(options[at + 2 : at + length], "big"))
    return SynOptions(found.get(_MSS), found.get(_WINDOW_SCALE))


def refuse_dns(data: bytes | memoryview, packet: Packet, info: int, *, is_length_fixed: bool = False) -> bytes:
    """The UDP response to a DNS query as NXDOMAIN: its header and its question, and nothing else. Without an SOA record it is
    not remembered (RFC 2308 5), so a name that gets allowed is found at once. CraftError if it is not such a response. With
    `is_length_fixed` (see interpose.py, PPPoE) zeros follow, which resolvers do not read: no count says that there is anything."""
    if packet.protocol != UDP or packet.fragment or packet.missing_bytes or is_super_packet(info):
        raise CraftError("no whole UDP packet")
    refusal = _refusal(bytes(packet.payload))
    if is_length_fixed:
        refusal += bytes(len(packet.payload) - len(refusal))
    start = packet.transport_start
    out = bytearray(data[: packet.payload_start]) + refusal
    out[start + 4 : start + 6] = (_UDP_BYTES + len(refusal)).to_bytes(2, "big")
    return _finish(out, packet, info)


def _refusal(message: bytes) -> bytes:
    if len(message) < _DNS_HEADER_BYTES:
        raise CraftError("a DNS header that is cut short")
    flags, questions = int.from_bytes(message[2:4], "big"), int.from_bytes(message[4:6], "big")
    if not flags & _DNS_RESPONSE or questions != 1:
        raise CraftError("no DNS response to one question")
    at = _DNS_HEADER_BYTES
    while at < len(message) and message[at]:
        # Nothing comes before the question that a compressed name could point at.
        if message[at] > _MAX_LABEL_BYTES or at - _DNS_HEADER_BYTES > _MAX_NAME_BYTES:
            raise CraftError("no name in the DNS question")
        at += 1 + message[at]
    end = at + 1 + _DNS_QUESTION_TAIL_BYTES
    if end > len(message):
        raise CraftError("a DNS question that is cut short")
    kept = flags & _DNS_KEPT | _NXDOMAIN
    return message[:2] + kept.to_bytes(2, "big") + b"\0\1" + bytes(6) + message[_DNS_HEADER_BYTES:end]


def _check(packet: Packet, info: int) -> None:
    if packet.protocol != TCP or packet.fragment:
        raise CraftError("no TCP segment")
    # The kernel makes a super-packet as short as what it is given; what is missing then counts as lost, but a FIN would come early.
    if packet.missing_bytes and (not is_super_packet(info) or packet.flags & FIN):
        raise CraftError("a packet that is here in part")


def _options(options: bytes | bytearray, at: int, end: int) -> Iterable[tuple[int, int, int]]:
    """Kind, place and length of each option; kind END_OF_OPTIONS for the rest, from where the list ends or is none."""
    while at < end:
        kind = options[at]
        if kind == _NO_OPERATION:
            at += 1
            continue
        length = options[at + 1] if at + 1 < end else 0
        if kind == _END_OF_OPTIONS or length < 2 or at + length > end:
            yield _END_OF_OPTIONS, at, end - at
            return
        yield kind, at, length
        at += length


def _blank_options(out: bytearray, at: int, end: int) -> None:
    for kind, start, length in list(_options(out, at, end)):
        if kind != _TIMESTAMPS or length != _OPTION_BYTES[_TIMESTAMPS]:
            out[start : start + length] = bytes([_NO_OPERATION]) * length


def _finish(out: bytearray, packet: Packet, info: int) -> bytes:
    """Lengths and checksums."""
    if packet.version == 4:
        if len(out) > _MAX_LENGTH:
            raise CraftError("more than an IPv4 packet holds")
        out[2:4] = len(out).to_bytes(2, "big")
        header_end = (out[0] & 0xF) * 4
        out[10:12] = b"\0\0"
        out[10:12] = (-int.from_bytes(out[:header_end], "big") % 0xFFFF).to_bytes(2, "big")
    else:
        if not int.from_bytes(out[4:6], "big") or len(out) - _IPV6_BYTES > _MAX_LENGTH:
            raise CraftError("a jumbogram")
        out[4:6] = (len(out) - _IPV6_BYTES).to_bytes(2, "big")
    try:
        finish_checksum(out, info)
    except ChecksumError as error:
        raise CraftError(str(error)) from None
    return bytes(out)
