"""Netlink messages of netfilter, as far as all its subsystems have them in common. Knows no socket.

Every message is a netlink header (linux/netlink.h, struct nlmsghdr), a netfilter header (linux/netfilter/nfnetlink.h,
struct nfgenmsg: family, version, number of the queue or group) and attributes (struct nlattr: length with these 4 bytes, type;
padded to 4). Netlink's own fields are in the machine's byte order, the values of attributes in the network's.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from mamori.inspect.errors import ParseError

HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
FAMILY = Struct(">BBH")  # nfgenmsg: family, version, res_id
BE32 = Struct(">I")
ATTRIBUTE = Struct("=HH")  # nlattr: length, type
_ERROR = Struct("=iIHHII")  # nlmsgerr: errno, negative, and the header of the message that it answers
_HW_ADDRESS = Struct(">HH8s")  # nfqnl_msg_packet_hw, nfulnl_msg_packet_hw: length, padding, address

HW_ADDRESS_BYTES = 8
MAX_NUMBER = 0xFFFF
"""Of a queue or a group: 16 bits."""

NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4

# linux/netlink.h, asm-generic/socket.h
NETLINK_NETFILTER, SOL_NETLINK = 12, 270
NETLINK_NO_ENOBUFS, NETLINK_CAP_ACK = 5, 10

_OVERHEAD_BYTES = HEADER.size + FAMILY.size
TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class MessageError(ParseError):
    """What came from the kernel's socket is not a netlink message of the shape that the headers describe."""


@dataclass(frozen=True)
class Answered:
    """The kernel's answer to the message with this sequence number: `errno` 0 is yes. Verdicts are answered only with a no."""

    sequence: int
    errno: int


def encode_attribute(kind: int, value: bytes) -> bytes:
    """With its header, and filled up to a multiple of four bytes (netlink(7))."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def encode_message(kind: int, flags: int, sequence: int, number: int, body: bytes) -> bytes:
    """`number` is the queue's or the group's."""
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{number} is not the number of a queue or a group")
    head = HEADER.pack(_OVERHEAD_BYTES + len(body), kind, flags, sequence, 0)
    return head + FAMILY.pack(0, 0, number) + body


def read_header(datagram: bytes, at: int) -> tuple[int, int]:
    """The length and the kind of the message there; MessageError if it does not fit."""
    left = len(datagram) - at
    if left < HEADER.size:
        raise MessageError(f"{left} bytes are too few for a header")
    length, kind, _, _, _ = HEADER.unpack_from(datagram, at)
    if not HEADER.size <= length <= left:
        raise MessageError(f"a message of {length} bytes in {left}")
    return length, kind


def decode_answer(datagram: bytes, at: int, end: int) -> Answered:
    """What is in a message of the kind NLMSG_ERROR."""
    if end - at < _ERROR.size:
        raise MessageError("an answer without its question")
    error, _, _, _, sequence, _ = _ERROR.unpack_from(datagram, at)
    return Answered(sequence, -error)


def decode_attributes(view: memoryview, at: int, end: int) -> dict[int, memoryview]:
    """Type and value of the attributes between two offsets. Of two of one type the last counts, as in the kernel's nla_parse."""
    found = {}
    while end - at >= 4:
        length, kind = ATTRIBUTE.unpack_from(view, at)
        if not 4 <= length <= end - at:
            raise MessageError(f"an attribute of {length} bytes in {end - at}")
        found[kind & TYPE_MASK] = view[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def read_number(found: dict[int, memoryview], kind: int) -> int:
    """A __be32; 0 if it is not there."""
    if kind not in found:
        return 0
    value = found[kind]
    if len(value) != 4:
        raise MessageError(f"attribute {kind}: {len(value)} bytes instead of 4")
    return int.from_bytes(value, "big")


def read_hw_address(found: dict[int, memoryview], kind: int) -> bytes:
    """Empty if it is not there."""
    value = found.get(kind)
    if value is None:
        return b""
    if len(value) != _HW_ADDRESS.size:
        raise MessageError(f"a hardware address in {len(value)} bytes")
    length, _, address = _HW_ADDRESS.unpack(value)
    if length > HW_ADDRESS_BYTES:
        raise MessageError(f"a hardware address of {length} bytes")
    return bytes(address[:length])
