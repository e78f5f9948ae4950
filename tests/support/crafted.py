"""What every receiver checks of a packet, added up the slow way (RFC 1071)."""

from __future__ import annotations

import struct

from mamori.inspect.nfqueue.messages import Info
from mamori.inspect.packet import Packet, parse_packet

SUPER = int(Info.SUPER_PACKET)


def added_up(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check_crafted(data: bytes, info: int = 0) -> Packet:
    """The packet; lengths say what is there, checksums are right (of a super-packet: the kernel's task)."""
    packet = parse_packet(data)
    assert packet.missing_bytes == 0
    assert packet.payload_start + len(packet.payload) == len(data), "nothing behind the packet"
    if packet.version == 4:
        assert struct.unpack(">H", data[2:4])[0] == len(data)
        assert added_up(data[: (data[0] & 15) * 4]) == 0xFFFF
    else:
        assert struct.unpack(">H", data[4:6])[0] == len(data) - 40
    if not info & SUPER:
        content = data[packet.transport_start :]
        pseudo = packet.source + packet.destination + struct.pack(">II", len(content), packet.protocol)
        assert added_up(pseudo + content) == 0xFFFF
    return packet
