"""Capture files written down block by block, so that what the reader says can be held against them."""

from __future__ import annotations

import struct

ETHERNET, RAW, NULL, COOKED, COOKED2 = 1, 101, 0, 113, 276


def pcap(
    *packets: tuple[int, int, bytes], link_type: int = ETHERNET, order: str = "<", magic: int = 0xA1B2C3D4, wire_bytes: int = 0
) -> bytes:
    """A pcap file; a packet is seconds, fraction and data."""
    header = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    records = (struct.pack(order + "IIII", s, f, len(data), wire_bytes or len(data)) + data for s, f, data in packets)
    return header + b"".join(records)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<", options: bytes = b"") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(link_type: int = ETHERNET, *options: bytes, order: str = "<", snap_bytes: int = 0) -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snap_bytes) + b"".join(options), order)


def enhanced(number: int, time: int, data: bytes, order: str = "<", size: int | None = None) -> bytes:
    stated = len(data) if size is None else size
    body = struct.pack(order + "IIIII", number, time >> 32, time & 0xFFFFFFFF, stated, stated) + data
    return block(6, body, order)


def simple(data: bytes, order: str = "<", size: int | None = None) -> bytes:
    return block(3, struct.pack(order + "I", len(data) if size is None else size) + data, order)


def ethernet(kind: int, payload: bytes, *tags: tuple[int, int], source: bytes = b"\2\0\0\0\0\1") -> bytes:
    """A frame; a tag is its EtherType and its control field."""
    tagged = b"".join(struct.pack(">HH", *tag) for tag in tags)
    return b"\2\0\0\0\0\2" + source + tagged + struct.pack(">H", kind) + payload


def pppoe(protocol: int, payload: bytes, code: int = 0, session: int = 7) -> bytes:
    return struct.pack(">BBHHH", 0x11, code, session, len(payload) + 2, protocol) + payload
