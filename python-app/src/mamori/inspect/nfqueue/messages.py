"""The messages of NFQUEUE: configuration and verdicts to the kernel, packets and answers from it. Knows no socket.

Every message is a netlink header (linux/netlink.h, struct nlmsghdr), a netfilter header (linux/netfilter/nfnetlink.h,
struct nfgenmsg: family, version, queue number) and attributes (struct nlattr: length with these 4 bytes, type; padded to 4).
Attributes and their values are those of linux/netfilter/nfnetlink_queue.h. Netlink's own fields are in the machine's byte
order, the values of attributes in the network's.

This is the data path, so a packet is a NamedTuple (0.2 µs to make; a frozen dataclass takes five times that) and its
payload a view into the datagram that was received: nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from mamori.inspect.errors import ParseError

MAX_QUEUE = 0xFFFF
MAX_PAYLOAD_BYTES = 0xFFFF - 4
"""NFQNL_MAX_COPY_RANGE: an attribute's length is 16 bits and counts its header. A super-packet may be 4 bytes longer."""

HW_ADDRESS_BYTES = 8

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY = Struct(">BBH")  # nfgenmsg: family, version, res_id (the queue)
_ATTRIBUTE = Struct("=HH")  # nlattr: length, type
_ERROR = Struct("=iIHHII")  # nlmsgerr: errno, negative, and the header of the message that it answers
_PACKET_HEADER = Struct(">IHB")  # nfqnl_msg_packet_hdr: packet, ethertype, hook
_HW_ADDRESS = Struct(">HH8s")  # nfqnl_msg_packet_hw: length, padding, address
_VERDICT_HEADER = Struct(">II")  # nfqnl_msg_verdict_hdr: verdict, packet
_COMMAND = Struct(">BBH")  # nfqnl_msg_config_cmd: command, padding, family
_PARAMETERS = Struct(">IB")  # nfqnl_msg_config_params: copy range, copy mode
_BE16, _BE32 = Struct(">H"), Struct(">I")

_OVERHEAD_BYTES = _HEADER.size + _FAMILY.size
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NFNL_SUBSYS_QUEUE = 3
_PACKET, _VERDICT, _CONFIG, _VERDICT_BATCH = (_NFNL_SUBSYS_QUEUE << 8 | number for number in range(4))  # enum nfqnl_msg_types

_NFQNL_CFG_CMD_BIND, _NFQNL_COPY_PACKET = 1, 2


class _Config(IntEnum):
    """enum nfqnl_attr_config."""

    CMD = 1
    PARAMS = 2
    QUEUE_MAXLEN = 3
    MASK = 4
    FLAGS = 5


# enum nfqnl_attr_type, as plain numbers: looking up a member of an Enum is slower than the rest of the work on an attribute.
_A_PACKET_HDR, _A_VERDICT_HDR, _A_MARK, _A_INDEV, _A_OUTDEV, _A_PHYSINDEV, _A_PHYSOUTDEV = 1, 2, 3, 5, 6, 7, 8
_A_HWADDR, _A_PAYLOAD, _A_CAP_LEN, _A_SKB_INFO, _A_VLAN = 9, 10, 13, 14, 19
_A_VLAN_PROTO, _A_VLAN_TCI = 1, 2  # enum nfqnl_vlan_attr


class Flags(IntFlag):
    """NFQA_CFG_F_*. CONNTRACK is missing on purpose: it needs glue that some kernels lack, and those refuse the whole message."""

    NONE = 0
    FAIL_OPEN = 1
    GSO = 4


_ALL_FLAGS = Flags.FAIL_OPEN | Flags.GSO


class Info(IntFlag):
    """NFQA_SKB_INFO: what the kernel knows about a packet's checksum, and whether it is a super-packet."""

    NONE = 0
    CHECKSUM_NOT_READY = 1
    SUPER_PACKET = 2
    CHECKSUM_NOT_VERIFIED = 4


class Verdict(IntEnum):
    """What happens to a packet: NF_DROP and NF_ACCEPT of linux/netfilter.h. For the third way see `requeue`."""

    DROP = 0
    ACCEPT = 1


_NF_QUEUE, _NF_VERDICT_FLAG_QUEUE_BYPASS = 3, 0x8000


class MessageError(ParseError):
    """What came from the kernel's socket is not a netlink message of the shape that the headers describe."""


class Vlan(NamedTuple):
    """The tag beside a frame: its ethertype (0x8100, 0x88a8), and priority and number as they are in the tag (TCI)."""

    protocol: int
    tci: int


class Packet(NamedTuple):
    """A packet that waits for its verdict.

    `payload` starts with the IP header. `indev` and `outdev` are interface numbers (the bridge), `physindev` and
    `physoutdev` those of its ports; 0 where the kernel says nothing. `hw_address` is the source MAC. `protocol` is the
    ethertype. `length_bytes` is more than the payload's length when the kernel copied only a part. `vlan` is given by
    queues of the bridge family only: br_netfilter takes the tag off before the packet comes here, and puts it back after.
    """

    queue: int
    id: int
    payload: memoryview
    info: int
    mark: int
    protocol: int
    hook: int
    indev: int
    outdev: int
    physindev: int
    physoutdev: int
    hw_address: bytes
    vlan: Vlan | None
    length_bytes: int

    @property
    def is_truncated(self) -> bool:
        """The kernel copied only a part; replacing the payload would cut the packet."""
        return self.length_bytes > len(self.payload)

    @property
    def is_super_packet(self) -> bool:
        """More than one segment of a stream under one header (GSO)."""
        return bool(self.info & 2)


@dataclass(frozen=True)
class Answered:
    """The kernel's answer to the message with this sequence number: `errno` 0 is yes. Verdicts are answered only with a no."""

    sequence: int
    errno: int


Message = Packet | Answered


def requeue(queue: int, *, bypass: bool) -> int:
    """The verdict that hands the packet to another queue; with `bypass` it is accepted if nobody listens there, else dropped.

    linux/netfilter.h: the queue's number is the upper half, NF_VERDICT_FLAG_QUEUE_BYPASS a bit of the lower.
    """
    return _queue_number(queue) << 16 | (_NF_VERDICT_FLAG_QUEUE_BYPASS if bypass else 0) | _NF_QUEUE


def encode_bind(queue: int, *, max_length: int, flags: Flags, copy_bytes: int = MAX_PAYLOAD_BYTES, sequence: int = 0) -> bytes:
    """Take the queue, with everything that is to be set, in one message that the kernel answers.

    One message, because a queue that is bound and not yet set up copies nothing, and drops what it gets (nfnetlink_queue.c,
    nfqnl_enqueue_packet: NFQNL_COPY_NONE is EINVAL, which no bypass catches). `max_length` counts packets.
    """
    attributes = (
        _attribute(_Config.CMD, _COMMAND.pack(_NFQNL_CFG_CMD_BIND, 0, 0)),
        _attribute(_Config.PARAMS, _PARAMETERS.pack(copy_bytes, _NFQNL_COPY_PACKET)),
        _attribute(_Config.QUEUE_MAXLEN, _BE32.pack(max_length)),
        _attribute(_Config.MASK, _BE32.pack(_ALL_FLAGS)),
        _attribute(_Config.FLAGS, _BE32.pack(flags)),
    )
    return _message(_CONFIG, _NLM_F_REQUEST | _NLM_F_ACK, sequence, queue, b"".join(attributes))


def encode_verdict(queue: int, packet: int, verdict: int, *, mark: int | None = None, payload: bytes | None = None) -> bytes:
    """The verdict on one packet, with its new mark and its new payload, where given.

    The message's sequence number is the packet's, so a refusal names the packet. A payload that is not as long as the
    old one changes the packet's length; IP's own length field is the sender's business. For checksums see `checksum.py`.
    """
    body = _VERDICT_ATTRIBUTE + _VERDICT_HEADER.pack(verdict, packet)
    if mark is not None:
        body += _MARK_ATTRIBUTE + _BE32.pack(mark)
    if payload is not None:
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(payload)} bytes does not fit in a verdict")
        body += _attribute(_A_PAYLOAD, payload)
    return _message(_VERDICT, _NLM_F_REQUEST, packet, queue, body)


def encode_batch_verdict(queue: int, last: int, verdict: int, *, mark: int | None = None) -> bytes:
    """One verdict on every packet of the queue that still waits, up to the packet `last` and with it."""
    body = _VERDICT_ATTRIBUTE + _VERDICT_HEADER.pack(verdict, last)
    if mark is not None:
        body += _MARK_ATTRIBUTE + _BE32.pack(mark)
    return _message(_VERDICT_BATCH, _NLM_F_REQUEST, last, queue, body)


def decode(datagram: bytes) -> list[Message]:
    """The messages of one datagram in their order; MessageError for what is not one. Kinds that nobody asked for are skipped."""
    messages: list[Message] = []
    view = memoryview(datagram)
    at, end = 0, len(datagram)
    while at < end:
        if end - at < _HEADER.size:
            raise MessageError(f"{end - at} bytes are too few for a header")
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= end - at:
            raise MessageError(f"a message of {length} bytes in {end - at}")
        if kind == _PACKET:
            messages.append(_decode_packet(view, at + _HEADER.size, at + length))
        elif kind == _NLMSG_ERROR:
            messages.append(_decode_answer(datagram, at + _HEADER.size, at + length))
        at += length + 3 & ~3
    return messages


def _decode_packet(view: memoryview, at: int, end: int) -> Packet:
    if end - at < _FAMILY.size:
        raise MessageError("a packet without the header of netfilter")
    queue = _FAMILY.unpack_from(view, at)[2]
    found = _attributes(view, at + _FAMILY.size, end)
    if _A_PACKET_HDR not in found or len(found[_A_PACKET_HDR]) < _PACKET_HEADER.size:
        raise MessageError("a packet without its number")
    number, protocol, hook = _PACKET_HEADER.unpack_from(found[_A_PACKET_HDR])
    payload = found.get(_A_PAYLOAD, view[:0])
    return Packet(
        queue,
        number,
        payload,
        _number(found, _A_SKB_INFO),
        _number(found, _A_MARK),
        protocol,
        hook,
        _number(found, _A_INDEV),
        _number(found, _A_OUTDEV),
        _number(found, _A_PHYSINDEV),
        _number(found, _A_PHYSOUTDEV),
        _hw_address(found[_A_HWADDR]) if _A_HWADDR in found else b"",
        _vlan(found[_A_VLAN]) if _A_VLAN in found else None,
        _number(found, _A_CAP_LEN) or len(payload),
    )


def _attributes(view: memoryview, at: int, end: int) -> dict[int, memoryview]:
    """Type and value of the attributes between two offsets. Of two of one type the last counts, as in the kernel's nla_parse."""
    found = {}
    while end - at >= 4:
        length, kind = _ATTRIBUTE.unpack_from(view, at)
        if not 4 <= length <= end - at:
            raise MessageError(f"an attribute of {length} bytes in {end - at}")
        found[kind & _TYPE_MASK] = view[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def _number(found: dict[int, memoryview], kind: int) -> int:
    """A __be32; 0 if it is not there."""
    if kind not in found:
        return 0
    value = found[kind]
    if len(value) != 4:
        raise MessageError(f"attribute {kind}: {len(value)} bytes instead of 4")
    return int.from_bytes(value, "big")


def _hw_address(value: memoryview) -> bytes:
    if len(value) != _HW_ADDRESS.size:
        raise MessageError(f"a hardware address in {len(value)} bytes")
    length, _, address = _HW_ADDRESS.unpack(value)
    if length > HW_ADDRESS_BYTES:
        raise MessageError(f"a hardware address of {length} bytes")
    return bytes(address[:length])


def _vlan(value: memoryview) -> Vlan:
    found = _attributes(value, 0, len(value))
    if any(kind not in found or len(found[kind]) != 2 for kind in (_A_VLAN_PROTO, _A_VLAN_TCI)):
        raise MessageError("half a VLAN tag")
    return Vlan(*(_BE16.unpack(found[kind])[0] for kind in (_A_VLAN_PROTO, _A_VLAN_TCI)))


def _decode_answer(datagram: bytes, at: int, end: int) -> Answered:
    if end - at < _ERROR.size:
        raise MessageError("an answer without its question")
    error, _, _, _, sequence, _ = _ERROR.unpack_from(datagram, at)
    return Answered(sequence, -error)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _message(kind: int, flags: int, sequence: int, queue: int, body: bytes) -> bytes:
    head = _HEADER.pack(_OVERHEAD_BYTES + len(body), kind, flags, sequence, 0)
    return head + _FAMILY.pack(0, 0, _queue_number(queue)) + body


def _queue_number(queue: int) -> int:
    if not 0 <= queue <= MAX_QUEUE:
        raise ValueError(f"{queue} is not the number of a queue")
    return queue


_VERDICT_ATTRIBUTE = _ATTRIBUTE.pack(4 + _VERDICT_HEADER.size, _A_VERDICT_HDR)
_MARK_ATTRIBUTE = _ATTRIBUTE.pack(4 + _BE32.size, _A_MARK)
