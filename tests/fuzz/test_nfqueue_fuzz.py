"""Whatever comes out of the kernel's socket is messages or the one error; whatever is a packet gets a checksum or the one error."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from mamori.inspect.nfqueue.checksum import ChecksumError, finish_checksum
from mamori.inspect.nfqueue.messages import Packet, decode
from mamori.inspect.nfqueue.netlink import Answered, MessageError


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    """An attribute that is right, or wrong in its length, its type or its value."""
    value = draw(st.one_of(st.binary(max_size=20), st.sampled_from([bytes(4), bytes(7), bytes(12)])))
    length = draw(st.one_of(st.just(4 + len(value)), st.integers(0, 0xFFFF)))
    kind = draw(st.one_of(st.integers(0, 24), st.integers(0, 0xFFFF)))
    return struct.pack("=HH", length, kind) + value + bytes(-len(value) % 4)


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        body = draw(st.binary(min_size=4, max_size=4)) + b"".join(draw(st.lists(attributes(), max_size=6)))
        length = draw(st.one_of(st.just(16 + len(body)), st.integers(0, 2**32 - 1)))
        parts.append(struct.pack("=IHHII", length, draw(st.sampled_from([0x0300, 2, 0x0301])), 0, 0, 0) + body)
    return b"".join(parts) + draw(st.binary(max_size=8))


@given(st.one_of(st.binary(max_size=300), datagrams()))
@example(b"")
def test_any_datagram_is_messages_or_the_one_error(datagram: bytes) -> None:
    with contextlib.suppress(MessageError):
        messages = decode(datagram)
        assert all(isinstance(message, Packet | Answered) for message in messages)
        held = sum(len(message.payload) for message in messages if isinstance(message, Packet))
        assert held <= len(datagram), "no payload is counted twice"


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """An IP header that is nearly right, and anything behind it."""
    content = draw(st.binary(max_size=80))
    length = draw(st.one_of(st.just(len(content)), st.integers(0, 200)))
    protocol = draw(st.sampled_from([0, 6, 17, 43, 44, 60, 1]))
    if draw(st.booleans()):
        return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + bytes(32) + content
    first = draw(st.sampled_from([0x45, 0x45, 0x4F, 0x41]))
    return struct.pack(">BBHHHBBH", first, 0, 20 + length, 7, 0, 64, protocol, 0) + bytes(8) + content


@given(st.one_of(st.binary(max_size=120), packets()), st.integers(0, 7))
def test_any_packet_keeps_its_length_and_all_but_two_bytes_or_is_the_one_error(packet: bytes, info: int) -> None:
    changed = bytearray(packet)
    try:
        finish_checksum(changed, info)
    except ChecksumError:
        assert changed == packet
    assert len(changed) == len(packet)
    assert sum(old != new for old, new in zip(packet, changed, strict=True)) <= 2
