"""The messages of NFQUEUE: configuration and verdicts to the kernel, packets and answers from it. Knows no socket.

What all of netfilter's messages have in common is in netlink.py; attributes and their values are those of
linux/netfilter/nfnetlink_queue.h.

This is the data path, so a packet is a NamedTuple (0.2 µs to make; a frozen dataclass takes five times that) and its
payload a view into the datagram that was received: nothing is copied.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from mamori.inspect.nfqueue.netlink import (
    ATTRIBUTE,
    BE32,
    FAMILY,
    HEADER,
    HW_ADDRESS_BYTES,
    MAX_NUMBER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Answered,
    MessageError,
    decode_answer,
    decode_attributes,
    encode_attribute,
    encode_message,
    read_header,
    read_hw_address,
    read_number,
)

MAX_QUEUE = MAX_NUMBER
MAX_PAYLOAD_BYTES = 0xFFFF - 4
"""NFQNL_MAX_COPY_RANGE: an attribute's length is 16 bits and counts its header. A super-packet may be 4 bytes longer."""

_PACKET_HEADER = Struct(">IHB")  # nfqnl_msg_packet_hdr: packet, ethertype, hook
_VERDICT_HEADER = Struct(">II")  # nfqnl_msg_verdict_hdr: verdict, packet
_COMMAND = Struct(">BBH")  # nfqnl_msg_config_cmd: command, padding, family
_PARAMETERS = Struct(">IB")  # nfqnl_msg_config_params: copy range, copy mode
_BE16 = Struct(">H")

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


# What comes first in every packet of a bridge, in the order in which nfqnl_build_packet_message writes it: read in one go.
_FIRST = Struct(">IIHBxIIIIIIIIIHH8s")
_FIRST_KINDS = tuple(
    int.from_bytes(ATTRIBUTE.pack(length, kind), "big")
    for kind, length in (
        (_A_PACKET_HDR, ATTRIBUTE.size + _PACKET_HEADER.size),
        *((kind, ATTRIBUTE.size + BE32.size) for kind in (_A_INDEV, _A_PHYSINDEV, _A_OUTDEV, _A_PHYSOUTDEV)),
        (_A_HWADDR, 16),
    )
)

_INFO = Struct(">II")
_INFO_KIND = int.from_bytes(ATTRIBUTE.pack(_INFO.size, _A_SKB_INFO), "big")


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


Message = Packet | Answered


def requeue(queue: int, *, bypass: bool) -> int:
    """The verdict that hands the packet to another queue; with `bypass` it is accepted if nobody listens there, else dropped.

    linux/netfilter.h: the queue's number is the upper half, NF_VERDICT_FLAG_QUEUE_BYPASS a bit of the lower.
    """
    if not 0 <= queue <= MAX_QUEUE:
        raise ValueError(f"{queue} is not the number of a queue")
    return queue << 16 | (_NF_VERDICT_FLAG_QUEUE_BYPASS if bypass else 0) | _NF_QUEUE


def encode_bind(queue: int, *, max_length: int, flags: Flags, copy_bytes: int = MAX_PAYLOAD_BYTES, sequence: int = 0) -> bytes:
    """Take the queue, with everything that is to be set, in one message that the kernel answers.

    One message, because a queue that is bound and not yet set up copies nothing, and drops what it gets (nfnetlink_queue.c,
    nfqnl_enqueue_packet: NFQNL_COPY_NONE is EINVAL, which no bypass catches). `max_length` counts packets.
    """
    attributes = (
        encode_attribute(_Config.CMD, _COMMAND.pack(_NFQNL_CFG_CMD_BIND, 0, 0)),
        encode_attribute(_Config.PARAMS, _PARAMETERS.pack(copy_bytes, _NFQNL_COPY_PACKET)),
        encode_attribute(_Config.QUEUE_MAXLEN, BE32.pack(max_length)),
        encode_attribute(_Config.MASK, BE32.pack(_ALL_FLAGS)),
        encode_attribute(_Config.FLAGS, BE32.pack(flags)),
    )
    return encode_message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, sequence, queue, b"".join(attributes))


def encode_verdict(queue: int, packet: int, verdict: int, *, mark: int | None = None, payload: bytes | None = None) -> bytes:
    """The verdict on one packet, with its new mark and its new payload, where given.

    The message's sequence number is the packet's, so a refusal names the packet. A payload that is not as long as the
    old one changes the packet's length; IP's own length field is the sender's business. For checksums see `checksum.py`.
    """
    body = _VERDICT_ATTRIBUTE + _VERDICT_HEADER.pack(verdict, packet)
    if mark is not None:
        body += _MARK_ATTRIBUTE + BE32.pack(mark)
    if payload is not None:
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(payload)} bytes does not fit in a verdict")
        body += encode_attribute(_A_PAYLOAD, payload)
    return encode_message(_VERDICT, NLM_F_REQUEST, packet, queue, body)


def encode_batch_verdict(queue: int, last: int, verdict: int, *, mark: int | None = None) -> bytes:
    """One verdict on every packet of the queue that still waits, up to the packet `last` and with it."""
    body = _VERDICT_ATTRIBUTE + _VERDICT_HEADER.pack(verdict, last)
    if mark is not None:
        body += _MARK_ATTRIBUTE + BE32.pack(mark)
    return encode_message(_VERDICT_BATCH, NLM_F_REQUEST, last, queue, body)


def decode(datagram: bytes) -> list[Message]:
    """The messages of one datagram in their order; MessageError for what is not one. Kinds that nobody asked for are skipped."""
    messages: list[Message] = []
    view = memoryview(datagram)
    at, end = 0, len(datagram)
    while at < end:
        length, kind = read_header(datagram, at)
        if kind == _PACKET:
            messages.append(_decode_packet(datagram, view, at + HEADER.size, at + length))
        elif kind == NLMSG_ERROR:
            messages.append(decode_answer(datagram, at + HEADER.size, at + length))
        at += length + 3 & ~3
    return messages


def _decode_packet(datagram: bytes, view: memoryview, at: int, end: int) -> Packet:
    """For every packet, so with as few calls as there can be."""
    if end - at < FAMILY.size:
        raise MessageError("a packet without the header of netfilter")
    queue = FAMILY.unpack_from(datagram, at)[2]
    at += FAMILY.size
    if end - at < _FIRST.size:
        return _decode_any(queue, view, at, end)
    # fmt: off
    kind_1, number, protocol, hook, kind_2, indev, kind_3, physindev, kind_4, outdev, kind_5, physoutdev, kind_6, \
        hw_length, _, hw_address = _FIRST.unpack_from(datagram, at)
    # fmt: on
    if (kind_1, kind_2, kind_3, kind_4, kind_5, kind_6) != _FIRST_KINDS or hw_length > HW_ADDRESS_BYTES:
        return _decode_any(queue, view, at, end)
    rest = at + _FIRST.size
    info = 0
    if end - rest > _INFO.size:
        kind, value = _INFO.unpack_from(datagram, rest)
        if kind == _INFO_KIND:
            info, rest = value, rest + _INFO.size
    if end - rest < ATTRIBUTE.size:
        return _decode_any(queue, view, at, end)
    length, kind = ATTRIBUTE.unpack_from(datagram, rest)
    if kind != _A_PAYLOAD or not ATTRIBUTE.size <= length <= end - rest or end - rest - length > 3:
        return _decode_any(queue, view, at, end)
    payload = view[rest + ATTRIBUTE.size : rest + length]
    # fmt: off
    return Packet(
        queue, number, payload, info, 0, protocol, hook, indev, outdev, physindev, physoutdev, hw_address[:hw_length], None,
        len(payload),
    )
    # fmt: on


def _decode_any(queue: int, view: memoryview, at: int, end: int) -> Packet:
    """A packet with attributes of any kinds in any order."""
    found = decode_attributes(view, at, end)
    if _A_PACKET_HDR not in found or len(found[_A_PACKET_HDR]) < _PACKET_HEADER.size:
        raise MessageError("a packet without its number")
    number, protocol, hook = _PACKET_HEADER.unpack_from(found[_A_PACKET_HDR])
    payload = found.get(_A_PAYLOAD, view[:0])
    return Packet(
        queue,
        number,
        payload,
        read_number(found, _A_SKB_INFO),
        read_number(found, _A_MARK),
        protocol,
        hook,
        read_number(found, _A_INDEV),
        read_number(found, _A_OUTDEV),
        read_number(found, _A_PHYSINDEV),
        read_number(found, _A_PHYSOUTDEV),
        read_hw_address(found, _A_HWADDR),
        _vlan(found[_A_VLAN]) if _A_VLAN in found else None,
        read_number(found, _A_CAP_LEN) or len(payload),
    )


def _vlan(value: memoryview) -> Vlan:
    found = decode_attributes(value, 0, len(value))
    if any(kind not in found or len(found[kind]) != 2 for kind in (_A_VLAN_PROTO, _A_VLAN_TCI)):
        raise MessageError("half a VLAN tag")
    return Vlan(*(_BE16.unpack(found[kind])[0] for kind in (_A_VLAN_PROTO, _A_VLAN_TCI)))


_VERDICT_ATTRIBUTE = encode_attribute(_A_VERDICT_HDR, bytes(_VERDICT_HEADER.size))[:4]
_MARK_ATTRIBUTE = encode_attribute(_A_MARK, bytes(BE32.size))[:4]
