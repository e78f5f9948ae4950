"""Any file is packets and at most the one error behind them."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.capture import CaptureError, read_capture
from mamori.inspect.packet import PacketError, parse_packet
from tests.support.captures import block, enhanced, ethernet, interface, option, pcap, pppoe, section, simple
from tests.support.packets import UDP, ipv4, ipv6, udp

LINKS = st.sampled_from((0, 1, 12, 101, 108, 113, 228, 229, 276, 249))
ORDERS = st.sampled_from("<>")
PACKETS = st.sampled_from((ipv4(udp(b"x"), UDP), ipv6(udp(b"x"), UDP), b"\x45", b""))
FRAMES = (
    st.binary(max_size=60)
    | st.builds(lambda packet, tags: ethernet(0x0800, packet, *tags), PACKETS, st.lists(st.just((0x8100, 7)), max_size=6))
    | PACKETS.map(lambda packet: ethernet(0x8864, pppoe(0x0021, packet)))
    | PACKETS.map(lambda packet: bytes(14) + b"\x08\0" + packet)
)
OPTIONS = st.builds(option, st.integers(0, 20), st.binary(max_size=9))
BLOCKS = (
    ORDERS.map(section)
    | st.builds(lambda link, options: interface(link, *options), LINKS, st.lists(OPTIONS, max_size=3))
    | st.builds(enhanced, st.integers(0, 2), st.integers(0, 2**64 - 1), FRAMES, ORDERS)
    | st.builds(simple, FRAMES)
    | st.builds(block, st.integers(0, 8), st.binary(max_size=40))
    | st.binary(max_size=20)
)
FILES = (
    st.binary(max_size=80)
    | st.builds(
        lambda frames, link: pcap(*[(1, 2, frame) for frame in frames], link_type=link), st.lists(FRAMES, max_size=4), LINKS
    )
    | st.lists(BLOCKS, max_size=8).map(lambda blocks: section() + b"".join(blocks))
)
DAMAGE = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)


@given(FILES, DAMAGE, st.integers(0))
def test_any_file_is_packets_and_at_most_the_one_error(data: bytes, damage: list[tuple[int, int]], cut_at: int) -> None:
    damaged = bytearray(data)
    for at, byte in damage:
        if damaged:
            damaged[at % len(damaged)] = byte
    with contextlib.suppress(CaptureError):
        for captured in read_capture(io.BytesIO(damaged[: len(damaged) - cut_at % 7])):
            assert captured.data[0] >> 4 in (4, 6)
            assert len(captured.source_mac) in (0, 6)
            with contextlib.suppress(PacketError):
                parse_packet(captured.data)
