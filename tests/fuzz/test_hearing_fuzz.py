"""Any datagram of the log group is copies or one error; any packet says a name or none."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.hearing import read_name
from mamori.inspect.nflog import Copy, decode_log
from mamori.inspect.nfqueue.netlink import Answered, MessageError, encode_attribute, encode_message
from mamori.inspect.terminals import MAX_NAME_CHARACTERS
from tests.support import packets
from tests.support.checkout import ROOT

VECTORS = [bytes.fromhex(path.read_text()) for path in sorted((ROOT / "tests/vectors/terminals").glob("*.hex"))]
ATTRIBUTES = st.lists(st.tuples(st.integers(0, 21), st.binary(max_size=40)), max_size=5).map(
    lambda parts: b"".join(encode_attribute(kind, value) for kind, value in parts)
)
MESSAGES = st.builds(encode_message, st.sampled_from([0x400, 0x401, 2, 3]), st.just(0), st.integers(0, 9), st.just(7), ATTRIBUTES)
DATAGRAMS = st.binary(max_size=200) | st.tuples(MESSAGES, MESSAGES, st.binary(max_size=20)).map(b"".join)
SENDERS = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
PORTS = st.sampled_from([67, 137, 547, 5353, 68])


@given(DATAGRAMS)
def test_any_datagram_is_copies_or_one_error(datagram: bytes) -> None:
    with contextlib.suppress(MessageError):
        assert all(isinstance(message, Copy | Answered) for message in decode_log(datagram))


@given(st.binary(max_size=100), st.binary(max_size=8))
def test_any_bytes_are_a_packet_with_a_name_or_none(data: bytes, mac: bytes) -> None:
    name = read_name(memoryview(data), mac)
    assert name is None or name.name


@given(SENDERS, PORTS, st.sampled_from(VECTORS) | st.binary(max_size=300), st.binary(max_size=8))
def test_any_datagram_says_a_name_that_can_be_stored_or_none(sender: bytes, port: int, payload: bytes, mac: bytes) -> None:
    datagram, ends = packets.udp(payload, ports=(port, port)), (sender, sender)
    make = packets.ipv4 if len(sender) == 4 else packets.ipv6
    name = read_name(memoryview(make(datagram, packets.UDP, ends=ends)), mac)
    if name is not None:
        assert 0 < len(name.name) <= MAX_NAME_CHARACTERS
        assert len(name.mac) in (0, 17)
        assert not name.address or not ip_address(name.address).is_link_local
