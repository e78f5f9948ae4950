"""Capture files: every link type and both formats, written down by hand; and what is none."""

from __future__ import annotations

import io
import struct

import pytest

from mamori.inspect.capture import MAX_INTERFACES, MAX_PACKET_BYTES, MAX_TAGS, Captured, CaptureError, read_capture
from tests.support import captures
from tests.support.captures import ETHERNET, RAW, block, enhanced, ethernet, interface, option, pcap, pppoe, section, simple
from tests.support.packets import UDP, ipv4, ipv6, udp

V4, V6 = ipv4(udp(b"four"), UDP), ipv6(udp(b"six"), UDP)
MAC = b"\2\0\0\0\0\1"
ARP = ethernet(0x0806, bytes(28))


class Pipe(io.BytesIO):
    """Gives less than it is asked for, as a pipe may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(3, size or 0))


def read(data: bytes) -> list[Captured]:
    return list(read_capture(io.BytesIO(data)))


def until_error(data: bytes) -> tuple[list[Captured], str]:
    """The packets that come before the error, and the error."""
    got: list[Captured] = []
    try:
        for captured in read_capture(io.BytesIO(data)):
            got.append(captured)
    except CaptureError as error:
        return got, str(error)
    raise AssertionError("no error")


FRAMES = {
    "Ethernet": (ETHERNET, ethernet(0x0800, V4), V4, MAC, 0),
    "Ethernet, IPv6": (ETHERNET, ethernet(0x86DD, V6), V6, MAC, 0),
    "Ethernet with padding": (ETHERNET, ethernet(0x0800, V4 + bytes(14)), V4 + bytes(14), MAC, 0),
    "a VLAN": (ETHERNET, ethernet(0x0800, V4, (0x8100, 0xE064)), V4, MAC, 100),
    "a priority without a VLAN": (ETHERNET, ethernet(0x0800, V4, (0x8100, 0xE000)), V4, MAC, 0),
    "a VLAN in a VLAN": (ETHERNET, ethernet(0x86DD, V6, (0x88A8, 5), (0x8100, 100)), V6, MAC, 5 << 12 | 100),
    "as many tags as there may be": (ETHERNET, ethernet(0x0800, V4, *[(0x8100, 1)] * MAX_TAGS), V4, MAC, 0x001001001001),
    "PPPoE": (ETHERNET, ethernet(0x8864, pppoe(0x0021, V4) + bytes(10)), V4, MAC, 0),
    "PPPoE, IPv6, in a VLAN": (ETHERNET, ethernet(0x8864, pppoe(0x0057, V6), (0x8100, 9)), V6, MAC, 9),
    "raw IP": (RAW, V4, V4, b"", 0),
    "raw IPv6": (RAW, V6, V6, b"", 0),
    "raw IP of a BSD": (12, V4, V4, b"", 0),
    "IPv4 alone": (228, V4, V4, b"", 0),
    "IPv6 alone": (229, V6, V6, b"", 0),
    "loopback": (0, struct.pack("<I", 2) + V4, V4, b"", 0),
    "loopback of another system": (0, struct.pack(">I", 30) + V6, V6, b"", 0),
    "OpenBSD's loopback": (108, struct.pack(">I", 24) + V6, V6, b"", 0),
    "cooked": (113, struct.pack(">HHH8sH", 4, 1, 6, MAC, 0x0800) + V4, V4, MAC, 0),
    "cooked, without an address": (113, struct.pack(">HHH8sH", 0, 512, 0, b"", 0x86DD) + V6, V6, b"", 0),
    "cooked, with a VLAN": (113, struct.pack(">HHH8sHHH", 4, 1, 6, MAC, 0x8100, 100, 0x0800) + V4, V4, MAC, 100),
    "cooked 2": (276, struct.pack(">HHIHBB8s", 0x86DD, 0, 3, 1, 0, 6, MAC) + V6, V6, MAC, 0),
    "cooked 2, loopback": (276, struct.pack(">HHIHBB8s", 0x0800, 0, 1, 772, 0, 6, bytes(6)) + V4, V4, bytes(6), 0),
}


@pytest.mark.parametrize(("link_type", "frame", "data", "mac", "link"), FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("ng", [False, True], ids=["pcap", "pcapng"])
def test_a_packet_is_taken_out_of_its_frame(ng: bool, link_type: int, frame: bytes, data: bytes, mac: bytes, link: int) -> None:
    file = section() + interface(link_type) + enhanced(0, 5_000_000, frame) if ng else pcap((5, 0, frame), link_type=link_type)
    assert read(file) == [Captured(5.0, data, mac, link, 0)]


@pytest.mark.parametrize(("link_type", "frame", "data", "mac", "link"), FRAMES.values(), ids=FRAMES)
def test_a_frame_that_was_cut_off_is_a_packet_that_was_or_none(
    link_type: int, frame: bytes, data: bytes, mac: bytes, link: int
) -> None:
    start = frame.index(data)
    for size in range(len(frame)):
        seen = [data[: size - start]] if size > start else []
        assert [captured.data for captured in read(pcap((5, 0, frame[:size]), link_type=link_type))] == seen


NOT_IP = {
    "ARP": ARP,
    "LLC": ethernet(38, b"\x42\x42\3" + bytes(35)),
    "type 0": ethernet(0, V4),
    "IPv4 that says it is 6": ethernet(0x0800, V6),
    "IPv6 that says it is 4": ethernet(0x86DD, V4),
    "more tags than there may be": ethernet(0x0800, V4, *[(0x8100, 1)] * (MAX_TAGS + 1)),
    "PPPoE discovery": ethernet(0x8863, pppoe(0x0021, V4)),
    "PPPoE that ends its session": ethernet(0x8864, pppoe(0x0021, V4, code=0xA7)),
    "PPP that negotiates": ethernet(0x8864, pppoe(0xC021, V4)),
    "nothing": b"",
}


@pytest.mark.parametrize("frame", NOT_IP.values(), ids=NOT_IP)
def test_what_is_not_ip_is_passed_over(frame: bytes) -> None:
    assert [captured.at_s for captured in read(pcap((1, 0, frame), (2, 0, ethernet(0x0800, V4))))] == [2.0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 250_000), (0xA1B23C4D, 250_000_000)])
def test_pcap_has_two_byte_orders_and_two_clocks(order: str, magic: int, fraction: int) -> None:
    data = pcap((4_000_000_000, fraction, V4), (4_000_000_001, 0, V6), link_type=RAW, order=order, magic=magic)
    assert [(one.at_s, one.data) for one in read(data)] == [(4_000_000_000.25, V4), (4_000_000_001.0, V6)]


def test_a_checksum_behind_frames_does_not_change_the_link_type() -> None:
    assert read(pcap((5, 0, V4), link_type=0x5400_0000 | RAW))


RESOLUTIONS = {
    "not said": ((), 1_500_000, 1.5),
    "milliseconds": ((option(9, b"\3"),), 1500, 1.5),
    "nanoseconds": ((option(9, b"\x09"),), 1_500_000_000, 1.5),
    "seconds": ((option(9, b"\0"),), 7, 7.0),
    "a power of two": ((option(9, b"\x8a"),), 1536, 1.5),
    "the finest power of two": ((option(9, b"\xff"),), 1 << 63, 2.0**-64),
    "with an offset": ((option(14, struct.pack("<q", 1000)), option(9, b"\6")), 1_500_000, 1001.5),
    "with a negative offset": ((option(14, struct.pack("<q", -1)),), 1_500_000, 0.5),
    "behind other options": ((option(2, b"eth0"), option(12, b"Linux"), option(9, b"\3")), 1500, 1.5),
    "behind the end of options": ((option(0, b""), option(9, b"\3")), 1_500_000, 1.5),
    "of a strange length": ((option(9, b"\3\3"),), 1_500_000, 1.5),
}


@pytest.mark.parametrize(("options", "time", "at_s"), RESOLUTIONS.values(), ids=RESOLUTIONS)
def test_pcapng_says_what_its_clock_counts(options: tuple[bytes, ...], time: int, at_s: float) -> None:
    assert [one.at_s for one in read(section() + interface(RAW, *options) + enhanced(0, time, V4))] == [at_s]


def test_pcapng_has_several_interfaces_sections_and_byte_orders() -> None:
    little = section() + interface(RAW) + interface(ETHERNET, option(9, b"\3")) + enhanced(1, 2000, ethernet(0x0800, V4))
    big = section(">") + interface(RAW, order=">") + enhanced(0, 3_000_000, V6, ">")
    assert read(little + big) == [Captured(2.0, V4, MAC, 0, 1), Captured(3.0, V6, b"", 0, 2)]


def test_other_blocks_and_options_are_passed_over() -> None:
    others = block(4, b"names") + block(5, b"statistics!!") + block(0x0BAD, bytes(100_000))
    commented = block(6, struct.pack("<IIIII", 0, 0, 0, len(V4), len(V4)) + V4 + bytes(-len(V4) % 4) + option(1, b"comment"))
    data = section(options=option(4, b"editcap")) + others + interface(RAW) + others + commented + others
    assert [one.data for one in read(data)] == [V4]


def test_old_and_simple_packet_blocks_are_read() -> None:
    old = block(2, struct.pack("<HHIIII", 0, 0, 0, 2_000_000, len(V4), len(V4)) + V4)
    assert read(section() + interface(RAW) + old + simple(V6)) == [Captured(2.0, V4, b"", 0, 0), Captured(2.0, V6, b"", 0, 0)]


def test_a_simple_packet_is_as_long_as_its_interface_keeps() -> None:
    data = section() + interface(RAW, snap_bytes=30) + simple(V4[:30], size=len(V4))
    assert [one.data for one in read(data)] == [V4[:30]]


def test_an_interface_of_an_unknown_link_is_passed_over() -> None:
    data = section() + interface(249) + interface(RAW) + enhanced(0, 0, V4) + enhanced(1, 0, V6)
    assert [(one.data, one.interface) for one in read(data)] == [(V6, 1)]


@pytest.mark.parametrize("data", [pcap((5, 0, V4), link_type=RAW), section() + interface(RAW) + enhanced(0, 5_000_000, V4)])
def test_a_pipe_may_give_little_at_a_time(data: bytes) -> None:
    assert list(read_capture(Pipe(data))) == [Captured(5.0, V4, b"", 0, 0)]


def test_a_file_without_packets_has_none() -> None:
    assert read(pcap()) == read(section()) == read(section() + interface(RAW)) == []


PCAP, NG = pcap((5, 0, V4), (6, 0, V4), link_type=RAW), section() + interface(RAW) + enhanced(0, 0, V4) + enhanced(0, 0, V4)
DAMAGED = {
    "nothing": (b"", 0),
    "text": (b"hello, world, this is text", 0),
    "another magic": (b"\xa1\xb2\xcd\x34" + PCAP[4:], 0),
    "a header cut off": (PCAP[:23], 0),
    "an unknown link type": (pcap((5, 0, V4), link_type=147), 0),
    "a packet's header cut off": (PCAP[: -len(V4) - 1], 1),
    "a packet cut off": (PCAP[:-1], 1),
    "a packet that is too large": (PCAP + struct.pack("<IIII", 1, 0, MAX_PACKET_BYTES + 1, 9), 2),
    "a section cut off": (NG[:20], 0),
    "a section of no byte order": (NG[:8] + b"\1\2\3\4" + NG[12:], 0),
    "a section that is too short": (NG[:4] + struct.pack("<I", 24) + NG[8:], 0),
    "a block's header cut off": (NG + NG[28:34], 2),
    "a block cut off": (NG[:-1], 1),
    "a block of an odd length": (NG + struct.pack("<II", 6, 33), 2),
    "a block that is too short": (NG + struct.pack("<II", 6, 8), 2),
    "a block that is too long": (NG + struct.pack("<II", 6, 1 << 30), 2),
    "an unknown block cut off": (NG + struct.pack("<II", 99, 1 << 31), 2),
    "a block with two lengths": (NG[:-4] + struct.pack("<I", 4), 1),
    "an interface cut off": (section() + block(1, b"\1\0\0\0"), 0),
    "a packet of no interface": (NG + enhanced(1, 0, V4), 2),
    "a simple packet of no interface": (section() + simple(V4), 0),
    "an interface of the section before": (NG + section() + enhanced(0, 0, V4), 2),
    "a packet longer than its block": (NG + enhanced(0, 0, V4, size=len(V4) + 5), 2),
    "a packet block without a packet": (NG + block(6, bytes(16)), 2),
    "too many interfaces": (section() + interface(RAW) * (MAX_INTERFACES + 1), 0),
}


@pytest.mark.parametrize(("data", "packets"), DAMAGED.values(), ids=DAMAGED)
def test_packets_before_the_damage_are_read_and_then_the_one_error(data: bytes, packets: int) -> None:
    got, message = until_error(data)
    assert ([one.data for one in got], bool(message)) == ([V4] * packets, True)


def test_the_largest_packet_is_read() -> None:
    data = V4.ljust(MAX_PACKET_BYTES, b"x")
    assert [one.data for one in read(pcap((0, 0, data), link_type=RAW))] == [data]
    assert [one.data for one in read(section() + interface(captures.RAW) + enhanced(0, 0, data))] == [data]
