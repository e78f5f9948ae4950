"""Checksums against RFC 1071's own way of checking: header, pseudo header and data add up to 0xffff."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.nfqueue.checksum import MAX_EXTENSIONS, ChecksumError, finish_checksum
from mamori.inspect.nfqueue.messages import Info

TCP, UDP = 6, 17
IPV4_ADDRESSES = bytes([10, 9, 0, 1, 10, 9, 0, 2])
IPV6_ADDRESSES = bytes.fromhex("fd090000000000000000000000000001fd090000000000000000000000000002")

# RFC 1071 §3: the words of these bytes add up to ddf2.
RFC_1071 = bytes.fromhex("0001f203f4f5f6f7")


def added_up(data: bytes) -> int:
    """RFC 1071 §4.1, word by word."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def segment(protocol: int, data: bytes, checksum: int = 0xBEEF) -> bytes:
    if protocol == TCP:
        return struct.pack(">HHIIBBHHH", 80, 40000, 1, 2, 5 << 4, 0x18, 512, checksum, 0) + data
    return struct.pack(">HHHH", 53, 40000, 8 + len(data), checksum) + data


def ipv4(protocol: int, content: bytes, options: bytes = b"", fragment: int = 0x4000) -> bytearray:
    length = 20 + len(options) + len(content)
    header = struct.pack(">BBHHHBBH", 0x40 | 5 + len(options) // 4, 0, length, 7, fragment, 64, protocol, 0)
    return bytearray(header + IPV4_ADDRESSES + options + content)


def ipv6(protocol: int, content: bytes, extensions: bytes = b"") -> bytearray:
    return bytearray(struct.pack(">IHBB", 6 << 28, len(extensions + content), protocol, 64) + IPV6_ADDRESSES + extensions + content)


def check_sum_over(packet: bytearray, addresses: bytes, protocol: int, content_bytes: int) -> None:
    content = bytes(packet[-content_bytes:])
    assert added_up(addresses + struct.pack(">II", content_bytes, protocol) + content) == 0xFFFF


def test_the_check_itself_adds_up_the_example_of_rfc_1071() -> None:
    assert added_up(RFC_1071) == 0xDDF2


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["TCP", "UDP"])
@given(data=st.binary(max_size=200), info=st.sampled_from([Info.NONE, Info.CHECKSUM_NOT_READY, Info.CHECKSUM_NOT_VERIFIED]))
def test_an_ordinary_packet_gets_its_full_checksum_whatever_the_field_held(protocol: int, data: bytes, info: Info) -> None:
    content = segment(protocol, data)
    for packet, addresses in ((ipv4(protocol, content), IPV4_ADDRESSES), (ipv6(protocol, content), IPV6_ADDRESSES)):
        before = bytes(packet)
        finish_checksum(packet, info)
        check_sum_over(packet, addresses, protocol, len(content))
        at = len(packet) - len(content) + (16 if protocol == TCP else 6)
        assert (bytes(packet[:at]), bytes(packet[at + 2 :])) == (before[:at], before[at + 2 :]), "nothing else changed"


def test_options_and_extension_headers_are_stepped_over() -> None:
    content = segment(TCP, b"hello")
    packet = ipv4(TCP, content, options=b"\x94\x04\0\0")
    finish_checksum(packet, Info.NONE)
    check_sum_over(packet, IPV4_ADDRESSES, TCP, len(content))
    hop_by_hop, destination = b"\x3c\x00" + bytes(6), b"\x06\x01" + bytes(14)
    packet = ipv6(0, content, hop_by_hop + destination)
    finish_checksum(packet, Info.NONE)
    check_sum_over(packet, IPV6_ADDRESSES, TCP, len(content))


def test_padding_behind_the_packet_does_not_count() -> None:
    content = segment(TCP, b"hello")
    packet, padded = ipv4(TCP, content), ipv4(TCP, content) + b"\xff\xff\xff"
    finish_checksum(packet, Info.NONE)
    finish_checksum(padded, Info.NONE)
    assert padded == packet + b"\xff\xff\xff"


def test_a_udp_checksum_that_comes_out_as_zero_is_written_as_ones() -> None:
    packet = ipv4(UDP, segment(UDP, b"\0\0"))
    finish_checksum(packet, Info.NONE)
    packet[-2:] = packet[26:28]
    finish_checksum(packet, Info.NONE)
    assert packet[26:28] == b"\xff\xff"


def test_a_udp_packet_without_a_checksum_stays_without_in_ipv4_and_gets_one_in_ipv6() -> None:
    packet4, packet6 = ipv4(UDP, segment(UDP, b"hello", checksum=0)), ipv6(UDP, segment(UDP, b"hello", checksum=0))
    finish_checksum(packet4, Info.NONE)
    finish_checksum(packet6, Info.NONE)
    assert packet4[26:28] == b"\0\0"
    check_sum_over(packet6, IPV6_ADDRESSES, UDP, 13)


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["TCP", "UDP"])
def test_a_super_packet_keeps_the_pseudo_header_sum_that_the_kernel_segments_from(protocol: int) -> None:
    packet = ipv4(protocol, segment(protocol, bytes(3000)))
    before = bytes(packet)
    finish_checksum(packet, Info.SUPER_PACKET | Info.CHECKSUM_NOT_READY)
    assert packet == before


@pytest.mark.parametrize(
    ("packet", "info", "words"),
    [
        (bytearray(), Info.NONE, "IP header"),
        (ipv4(TCP, b"")[:19], Info.NONE, "IP header"),
        (ipv6(TCP, b"")[:39], Info.NONE, "IP header"),
        (bytearray(b"\x50") + bytes(60), Info.NONE, "IP header"),
        (bytearray(b"\x44") + ipv4(TCP, bytes(40))[1:], Info.NONE, "too short"),
        (ipv4(1, bytes(40)), Info.NONE, "protocol 1"),
        (ipv4(TCP, bytes(40), fragment=0x2000), Info.NONE, "fragment"),
        (ipv4(TCP, bytes(40), fragment=0x0001), Info.NONE, "fragment"),
        (ipv4(TCP, bytes(19)), Info.NONE, "cut short"),
        (ipv4(UDP, bytes(7)), Info.NONE, "cut short"),
        (ipv4(TCP, bytes(40))[:-1], Info.NONE, "cut short"),
        (ipv6(44, bytes(40)), Info.NONE, "protocol 44"),
        (ipv6(0, b"\x06\x02" + bytes(6)), Info.NONE, "cut short"),
        (ipv6(0, b"\x3c\0" + bytes(6)), Info.NONE, "cut short"),
        (ipv6(43, b"\x06\0\0\x01" + bytes(44)), Info.NONE, "last one"),
        (ipv6(60, (b"\x3c\0" + bytes(6)) * MAX_EXTENSIONS + bytes(60)), Info.NONE, "too many"),
        (ipv4(UDP, segment(UDP, bytes(3000))), Info.SUPER_PACKET, "super-packet"),
    ],
    ids=[
        *(
            "nothing",
            "cut IPv4 header",
            "cut IPv6 header",
            "no IP",
            "IPv4 header length",
            "ICMP",
            "first fragment",
            "later fragment",
        ),
        *("cut TCP header", "cut UDP header", "cut segment", "IPv6 fragment", "extension beyond the end", "extension at the end"),
        *("source routing", "endless extensions", "UDP segments with checksums of their own"),
    ],
)
def test_a_packet_whose_checksum_cannot_be_made_is_an_error(packet: bytearray, info: Info, words: str) -> None:
    before = bytes(packet)
    with pytest.raises(ChecksumError, match=words):
        finish_checksum(packet, info)
    assert packet == before
