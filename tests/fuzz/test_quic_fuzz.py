"""Any datagrams give events or the one error, and so do any frames that are sealed as a client seals them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.quic import (
    MAX_ATTEMPTS,
    AttemptSeen,
    NotQuicSeen,
    QuicReader,
    RetrySeen,
    UnknownVersionSeen,
    VersionNegotiationSeen,
    parse_server_datagram,
)
from mamori.inspect.tls import ClientHelloReceived
from tests.support.hellos import crypto, initial, outcome, python_hello, quic_client, sent_by

HELLO = python_hello("real.example")[5:]
REAL = sent_by(quic_client("real.example", protocols=["x" * 200] * 8))
EVENTS = AttemptSeen | NotQuicSeen | UnknownVersionSeen | ClientHelloReceived

LONG_HEADERS = st.builds(
    lambda first, version, rest: bytes((first,)) + version + rest,
    st.integers(0x80, 0xFF),
    st.sampled_from([b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\0\0\0\0", b"\x1a\x2a\x3a\x4a"]),
    st.binary(max_size=100) | st.binary(max_size=30).map(lambda rest: b"\x08" + rest.ljust(1300, b"\x55")),
)
FRAMES = st.binary(max_size=60) | st.lists(
    st.builds(
        lambda start, size: crypto(start, HELLO[start : start + size]), st.integers(0, len(HELLO)), st.integers(0, len(HELLO))
    )
    | st.builds(crypto, st.integers(0, 70_000), st.binary(max_size=40))
    | st.sampled_from([b"\0", b"\1", b"\2\0\0\0\0", b"\3\0\0\0\0\1\1\1", b"\x1c\0\0\0"]),
    max_size=12,
).map(b"".join)


def check_events(datagrams: list[bytes]) -> None:
    events, _ = outcome(QuicReader().receive, datagrams)
    assert all(isinstance(event, EVENTS) for event in events)
    assert sum(isinstance(event, AttemptSeen) for event in events) <= MAX_ATTEMPTS
    assert sum(isinstance(event, ClientHelloReceived) for event in events) <= MAX_ATTEMPTS


@given(st.lists(st.binary(max_size=100) | LONG_HEADERS, max_size=50))
def test_any_datagrams_give_events_or_the_one_error(datagrams: list[bytes]) -> None:
    check_events(datagrams)


@given(st.lists(st.tuples(FRAMES, st.integers(0, 5), st.integers(0, 1 << 33)), max_size=8))
def test_any_frames_give_events_or_the_one_error(packets: list[tuple[bytes, int, int]]) -> None:
    check_events([initial(frames, number, keys_of=bytes((client,)) * 8) for frames, client, number in packets])


@given(st.permutations(REAL), st.lists(st.tuples(st.integers(0, 9), st.integers(0), st.integers(0, 255)), max_size=4))
def test_damaged_datagrams_give_events_or_the_one_error(order: list[bytes], damage: list[tuple[int, int, int]]) -> None:
    datagrams = [bytearray(datagram) for datagram in order]
    for number, at, byte in damage:
        datagram = datagrams[number % len(datagrams)]
        datagram[at % len(datagram)] = byte
    check_events([bytes(datagram) for datagram in datagrams])


@given(st.binary(max_size=100) | LONG_HEADERS)
def test_anything_from_a_server_is_one_of_two_things_or_nothing(datagram: bytes) -> None:
    assert isinstance(parse_server_datagram(datagram), RetrySeen | VersionNegotiationSeen | None)
