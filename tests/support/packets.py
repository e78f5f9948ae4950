"""IP packets written down field by field (RFC 791, 8200, 9293, 768), so that what parsers say can be held against them."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address

CLIENT, SERVER = IPv4Address("192.0.2.1").packed, IPv4Address("198.51.100.2").packed
CLIENT6, SERVER6 = IPv6Address("2001:db8::1").packed, IPv6Address("2001:db8::2").packed

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


def seeded(seed: int) -> random.Random:
    """Chance that is the same in every run."""
    return random.Random(seed)  # noqa: S311 - nothing is to be kept secret


def ipv4(
    payload: bytes,
    protocol: int = TCP,
    *,
    ends: tuple[bytes, bytes] = (CLIENT, SERVER),
    options: bytes = b"",
    length: int | None = None,
    identification: int = 0x1234,
    offset: int = 0,
    more: bool = False,
) -> bytes:
    """`offset` is in bytes; `length` is the total length that the header states if it is not the true one."""
    header_bytes = 20 + len(options)
    total = header_bytes + len(payload) if length is None else length
    place = offset // 8 | (0x2000 if more else 0)
    first = 0x40 | header_bytes // 4
    return struct.pack("!BBHHHBBH4s4s", first, 0, total, identification, place, 64, protocol, 0, *ends) + options + payload


def ipv6(
    payload: bytes, protocol: int = TCP, *, ends: tuple[bytes, bytes] = (CLIENT6, SERVER6), length: int | None = None
) -> bytes:
    """`payload` with its extension headers; `protocol` is that of the first of them."""
    stated = len(payload) if length is None else length
    return struct.pack("!IHBB16s16s", 6 << 28, stated, protocol, 64, *ends) + payload


def extension(following: int, body: bytes = bytes(6)) -> bytes:
    """A hop-by-hop, routing or destination options header; `body` fills it up to a multiple of 8 bytes."""
    assert (len(body) + 2) % 8 == 0
    return bytes([following, (len(body) + 2) // 8 - 1]) + body


def fragment_header(following: int, offset: int = 0, *, more: bool = False, identification: int = 0x12345678) -> bytes:
    return struct.pack("!BBHI", following, 0, offset | more, identification)


def tcp(
    payload: bytes = b"",
    *,
    ports: tuple[int, int] = (40000, 80),
    sequence: int = 0,
    acknowledgement: int = 0,
    flags: int = 0x10,
    window: int = 1000,
    urgent: int = 0,
    options: bytes = b"",
) -> bytes:
    offset_flags = (20 + len(options)) // 4 << 12 | flags
    return struct.pack("!HHIIHHHH", *ports, sequence, acknowledgement, offset_flags, window, 0, urgent) + options + payload


def udp(payload: bytes = b"", *, ports: tuple[int, int] = (5353, 53), length: int | None = None) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(payload) if length is None else length, 0) + payload


def icmp(kind: int, code: int, rest: bytes = bytes(4), payload: bytes = b"") -> bytes:
    return struct.pack("!BBH", kind, code, 0) + rest + payload
