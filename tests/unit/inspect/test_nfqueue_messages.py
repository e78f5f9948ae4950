"""The codec of NFQUEUE against bytes laid out by hand from the kernel's headers (little-endian machines, as all of ours are)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from mamori.inspect.nfqueue.messages import (
    MAX_PAYLOAD_BYTES,
    Flags,
    Info,
    Packet,
    Verdict,
    Vlan,
    decode,
    encode_batch_verdict,
    encode_bind,
    encode_verdict,
    requeue,
)
from mamori.inspect.nfqueue.netlink import Answered, MessageError

BIND = """
    40000000 0203 0500 07000000 00000000  # 64 bytes, NFQNL_MSG_CONFIG, REQUEST|ACK, sequence 7
    00 00 0102  # family, version, queue 258
    0800 0100  01 00 0000  # NFQA_CFG_CMD: BIND
    0900 0200  0000fffb 02 000000  # NFQA_CFG_PARAMS: 65531 bytes, COPY_PACKET; padded
    0800 0300  00000800  # NFQA_CFG_QUEUE_MAXLEN
    0800 0400  00000005  # NFQA_CFG_MASK
    0800 0500  00000005  # NFQA_CFG_FLAGS: FAIL_OPEN|GSO
"""

VERDICT = """
    20000000 0103 0100 04030201 00000000  # 32 bytes, NFQNL_MSG_VERDICT, REQUEST, sequence: the packet
    00 00 0003
    0c00 0200  00000001 01020304  # NFQA_VERDICT_HDR: NF_ACCEPT, packet
"""

MARKED = """
    28000000 0103 0100 04030201 00000000
    00 00 0003
    0c00 0200  00000001 01020304
    0800 0300  4d000001  # NFQA_MARK
"""

REPLACED = """
    34000000 0103 0100 04030201 00000000
    00 00 0003
    0c00 0200  00000001 01020304
    0800 0300  00000000  # NFQA_MARK: 0 is a mark, too
    0900 0a00  6162636465 000000  # NFQA_PAYLOAD, padded
"""

BATCH = """
    28000000 0303 0100 04030201 00000000  # NFQNL_MSG_VERDICT_BATCH
    00 00 0003
    0c00 0200  00000000 01020304  # NF_DROP up to this packet
    0800 0300  00000001
"""

PACKET = """
    84000000 0003 0000 00000000 00000000  # 132 bytes, NFQNL_MSG_PACKET
    0a 00 0102  # AF_INET6, queue 258
    0b00 0100  0000002a 86dd 02 00  # NFQA_PACKET_HDR: packet 42, IPv6, FORWARD; padded
    0800 0500  00000002  # NFQA_IFINDEX_INDEV
    0800 0700  00000004  # NFQA_IFINDEX_PHYSINDEV
    0800 0600  00000003  # NFQA_IFINDEX_OUTDEV
    0800 0800  00000005  # NFQA_IFINDEX_PHYSOUTDEV
    0800 0300  4d000000  # NFQA_MARK
    1000 0900  0006 0000 0242ac110002 0000  # NFQA_HWADDR: 6 bytes
    1400 1380  0600 0100 8100 0000 0600 0200 200a 0000  # NFQA_VLAN, nested: 802.1Q, priority 1, number 10
    0800 0d00  0000ffff  # NFQA_CAP_LEN: there was more
    0800 0e00  00000003  # NFQA_SKB_INFO: CSUMNOTREADY|GSO
    0700 0a00  600000 00  # NFQA_PAYLOAD
"""

REFUSED = """
    24000000 0200 0001 2a000000 01000000  # NLMSG_ERROR, NLM_F_CAPPED
    feffffff  # -ENOENT
    20000000 0103 0100 2a000000 00000000  # the verdict on packet 42
"""


def unhex(text: str) -> bytes:
    """The bytes of a dump; `#` starts a remark."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def packet_message(*attributes: bytes) -> bytes:
    body = b"\x02\0\0\0" + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 0x0300, 0, 0, 0) + body


NUMBERED = attribute(1, bytes.fromhex("00000001080002"))


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (lambda: encode_bind(258, max_length=2048, flags=Flags.GSO | Flags.FAIL_OPEN, sequence=7), BIND),
        (lambda: encode_verdict(3, 0x01020304, Verdict.ACCEPT), VERDICT),
        (lambda: encode_verdict(3, 0x01020304, Verdict.ACCEPT, mark=0x4D000001), MARKED),
        (lambda: encode_verdict(3, 0x01020304, Verdict.ACCEPT, mark=0, payload=b"abcde"), REPLACED),
        (lambda: encode_batch_verdict(3, 0x01020304, Verdict.DROP, mark=1), BATCH),
    ],
    ids=["bind", "accept", "accept and mark", "replace", "drop many"],
)
def test_a_message_to_the_kernel_is_laid_out_as_its_headers_say(encode: Callable[[], bytes], expected: str) -> None:
    message = encode()
    assert message == unhex(expected)
    assert len(message) == int.from_bytes(message[:4], "little")


def test_a_packet_is_read_with_everything_that_the_kernel_tells_about_it() -> None:
    assert decode(unhex(PACKET)) == [
        Packet(
            queue=258,
            id=42,
            payload=memoryview(b"\x60\0\0"),
            info=Info.CHECKSUM_NOT_READY | Info.SUPER_PACKET,
            mark=0x4D000000,
            protocol=0x86DD,
            hook=2,
            indev=2,
            outdev=3,
            physindev=4,
            physoutdev=5,
            hw_address=bytes.fromhex("0242ac110002"),
            vlan=Vlan(0x8100, 0x200A),
            length_bytes=0xFFFF,
        )
    ]


BRIDGED = (
    NUMBERED,
    *(attribute(kind, struct.pack(">I", value)) for kind, value in ((5, 2), (7, 4), (6, 3), (8, 5))),
    attribute(9, bytes.fromhex("000600000242ac1100020000")),
)
"""What comes first in every packet of a bridge, in the kernel's order."""
PAYLOAD = attribute(10, b"\x45\0\0")
INFO, MARK, CUT = (attribute(kind, struct.pack(">I", value)) for kind, value in ((14, 3), (3, 9), (13, 70000)))


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        pytest.param((*BRIDGED, INFO, PAYLOAD), (3, 0, 3), id="of a bridge"),
        pytest.param((*BRIDGED, PAYLOAD), (0, 0, 3), id="with a checksum that is right"),
        pytest.param((*BRIDGED[:5], MARK, BRIDGED[5], INFO, PAYLOAD), (3, 9, 3), id="with a mark"),
        pytest.param((*BRIDGED, CUT, INFO, PAYLOAD), (3, 0, 70000), id="cut"),
        pytest.param((*BRIDGED, INFO, PAYLOAD, MARK), (3, 9, 3), id="with something behind the payload"),
        pytest.param(
            (*BRIDGED, INFO, PAYLOAD, attribute(10, b"\x45")), (3, 0, 1), id="with two payloads, of which the last counts"
        ),
        pytest.param((PAYLOAD, INFO, *reversed(BRIDGED)), (3, 0, 3), id="in another order"),
    ],
)
def test_a_packet_says_the_same_in_whatever_order_it_says_it(attributes: tuple[bytes, ...], told: tuple[int, int, int]) -> None:
    packet = decode(packet_message(*attributes))[0]
    assert isinstance(packet, Packet)
    assert (packet.info, packet.mark, packet.length_bytes) == told
    ports = packet.indev, packet.physindev, packet.outdev, packet.physoutdev
    assert (packet.id, packet.protocol, packet.hook, *ports) == (1, 0x0800, 2, 2, 4, 3, 5)
    assert packet.hw_address.hex(":") == "02:42:ac:11:00:02"
    assert bytes(packet.payload) == b"\x45\0\0"[: len(packet.payload)]


def test_a_packet_of_a_bridge_without_a_payload_is_one_without_bytes() -> None:
    assert decode(packet_message(*BRIDGED)) == decode(packet_message(*reversed(BRIDGED)))


def test_what_the_kernel_does_not_tell_is_zero_or_empty() -> None:
    assert decode(packet_message(NUMBERED)) == [Packet(0, 1, memoryview(b""), 0, 0, 0x0800, 2, 0, 0, 0, 0, b"", None, 0)]


def test_a_payload_is_a_view_that_outlives_the_next_packet() -> None:
    first, second = (decode(packet_message(NUMBERED, attribute(10, text)))[0] for text in (b"first", b"second"))
    assert isinstance(first, Packet)
    assert isinstance(second, Packet)
    assert (bytes(first.payload), bytes(second.payload)) == (b"first", b"second")
    assert first.payload.readonly


@pytest.mark.parametrize(
    ("attributes", "truncated", "super_packet"),
    [
        ([attribute(10, b"abc")], False, False),
        ([attribute(10, b"abc"), attribute(13, bytes.fromhex("00000004"))], True, False),
        ([attribute(10, b"abc"), attribute(14, bytes.fromhex("00000001"))], False, False),
        ([attribute(10, b"abc"), attribute(14, bytes.fromhex("00000002"))], False, True),
    ],
    ids=["whole", "cut", "checksum not ready", "super-packet"],
)
def test_a_packet_knows_whether_it_is_cut_and_whether_it_is_a_super_packet(
    attributes: list[bytes], truncated: bool, super_packet: bool
) -> None:
    (packet,) = decode(packet_message(NUMBERED, *attributes))
    assert isinstance(packet, Packet)
    assert (packet.is_truncated, packet.is_super_packet) == (truncated, super_packet)
    assert packet.length_bytes == 3 + truncated


def test_a_datagram_may_hold_several_messages_of_several_kinds() -> None:
    unknown = struct.pack("=IHHII", 18, 0x0A01, 0, 0, 0) + b"xx\0\0"  # padded
    first, second, third = decode(unhex(REFUSED) + unknown + packet_message(NUMBERED) + unhex(PACKET))
    assert first == Answered(sequence=42, errno=2)
    assert isinstance(second, Packet)
    assert isinstance(third, Packet)
    assert (second.id, third.id) == (1, 42)


def test_an_acknowledgement_is_an_answer_without_an_error() -> None:
    assert decode(unhex(REFUSED.replace("feffffff", "00000000"))) == [Answered(sequence=42, errno=0)]


def test_an_empty_datagram_holds_no_message() -> None:
    assert decode(b"") == []


@pytest.mark.parametrize("length", range(1, 132))
def test_a_packet_message_cut_anywhere_is_an_error(length: int) -> None:
    with pytest.raises(MessageError):
        decode(unhex(PACKET)[:length])


@pytest.mark.parametrize(
    "message",
    [
        packet_message(),
        packet_message(attribute(1, bytes(6))),
        packet_message(NUMBERED, attribute(3, b"abc")),
        packet_message(NUMBERED, attribute(14, bytes(8))),
        packet_message(NUMBERED, attribute(9, bytes(11))),
        packet_message(NUMBERED, attribute(9, b"\0\x09" + bytes(10))),
        packet_message(NUMBERED, attribute(19, attribute(1, b"\x81\0"))),
        packet_message(NUMBERED, attribute(19, attribute(1, b"\x81\0") + attribute(2, b"abc"))),
        packet_message(NUMBERED, attribute(19, b"\x03\0\x01\0")),
        packet_message(NUMBERED, b"\x03\0\x0a\0"),
        packet_message(NUMBERED, b"\x09\0\x0a\0abcd"),
        struct.pack("=IHHII", 18, 0x0300, 0, 0, 0) + b"\x02\0",
        struct.pack("=IHHII", 15, 0x0300, 0, 0, 0),
        struct.pack("=IHHII", 35, 2, 0, 0, 0) + bytes(19),
    ],
    ids=[
        *("no number", "short number", "short mark", "long info", "short address", "address longer than its field"),
        *("half a tag", "long tag", "attribute in a tag shorter than its header", "attribute shorter than its header"),
        *("attribute longer than the message", "no netfilter header", "message shorter than its header", "short answer"),
    ],
)
def test_a_message_of_another_shape_is_an_error(message: bytes) -> None:
    with pytest.raises(MessageError):
        decode(message)


@pytest.mark.parametrize(
    ("queue", "bypass", "verdict"),
    [(0, False, 0x00000003), (3, False, 0x00030003), (3, True, 0x00038003), (0xFFFF, True, 0xFFFF8003)],
)
def test_a_requeue_is_a_verdict_with_the_number_above_and_the_bypass_below(queue: int, bypass: bool, verdict: int) -> None:
    assert requeue(queue, bypass=bypass) == verdict


def test_what_the_kernel_could_not_take_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="65536"):
        requeue(65536, bypass=False)
    with pytest.raises(ValueError, match="-1"):
        encode_verdict(-1, 1, Verdict.ACCEPT)
    with pytest.raises(ValueError, match="65532"):
        encode_verdict(0, 1, Verdict.ACCEPT, payload=bytes(MAX_PAYLOAD_BYTES + 1))
    longest = encode_verdict(0, 1, Verdict.ACCEPT, payload=bytes(MAX_PAYLOAD_BYTES))
    assert longest[32:34] == b"\xff\xff"


def test_the_conntrack_flag_is_never_asked_for() -> None:
    assert {flag.value for flag in Flags} == {1, 4}
