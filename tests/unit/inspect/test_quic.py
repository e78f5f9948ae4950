"""ClientHellos in the Initial packets of real QUIC clients, and of hostile ones."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.quic import (
    MAX_ATTEMPTS,
    MAX_PIECES,
    MAX_UNREADABLE,
    AttemptSeen,
    Event,
    NotQuicSeen,
    QuicError,
    QuicReader,
    RetrySeen,
    UnknownVersionSeen,
    VersionNegotiationSeen,
    parse_server_datagram,
)
from mamori.inspect.tls import MAX_HELLO_BYTES, ClientHelloReceived, TlsReader, Transport, ja4
from tests.support.checkout import ROOT
from tests.support.hellos import crypto, initial, message, outcome, python_hello, quic_client, record, sent_by

VERSION_1, VERSION_2 = 1, 0x6B3343CF
MANY_PROTOCOLS = tuple(f"{number:03}".ljust(200, "x") for number in range(20))

HELLO = python_hello("split.example")[5:]


def read(*datagrams: bytes) -> list[Event]:
    events, error = outcome(QuicReader().receive, datagrams)
    assert error is None
    return events


def names(events: list[Event]) -> list[str | None]:
    return [event.hello.server_name for event in events if isinstance(event, ClientHelloReceived)]


# --- vectors ---

VECTORS = {
    "RFC 9001, appendix A.2": ("rfc9001-a2-client-initial.hex", VERSION_1),
    "RFC 9369, appendix A.2": ("rfc9369-a2-client-initial.hex", VERSION_2),
}


def vector_datagram(name: str) -> bytes:
    return bytes.fromhex((ROOT / "tests/vectors/quic" / name).read_text())


@pytest.mark.parametrize(("name", "version"), VECTORS.values(), ids=VECTORS)
def test_the_packet_of_the_specification_is_read(name: str, version: int) -> None:
    attempt, received = read(vector_datagram(name))
    assert attempt == AttemptSeen(version, bytes.fromhex("8394c8f03e515708"), b"", has_token=False)
    assert isinstance(received, ClientHelloReceived)
    assert (received.hello.server_name, received.hello.alpn, received.start, received.end) == ("example.com", (b"alpn",), 0, 0xF1)
    # The algorithms and extensions are printed in the appendix; the hashes are those of coreutils' sha256sum over them.
    assert ja4(received.hello, Transport.QUIC) == "q13d0211an_62ed6f6ca7ad_4d634acda6c0"


@pytest.mark.parametrize(("name", "version"), VECTORS.values(), ids=VECTORS)
def test_a_packet_with_one_bit_changed_gives_nothing(name: str, version: int) -> None:
    datagram = vector_datagram(name)
    for at in (0, 8, 20, 600, 1199):
        damaged = bytearray(datagram)
        damaged[at] ^= 1
        assert read(damaged) == []


# --- real clients ---


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_a_client_of_one_datagram_is_read(version: int) -> None:
    datagrams = sent_by(quic_client("one.example", version))
    attempt, received = read(*datagrams)
    assert isinstance(attempt, AttemptSeen)
    assert (len(datagrams), attempt.version, names([received])) == (1, version, ["one.example"])


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_a_hello_over_four_datagrams_is_read_in_every_order(version: int) -> None:
    datagrams = sent_by(quic_client("big.example", version, MANY_PROTOCOLS))
    assert len(datagrams) == 4
    for order in itertools.permutations(datagrams):
        reader = QuicReader()
        early = [event for datagram in order[:-1] for event in reader.receive(datagram)]
        assert names(early) == []
        assert names(reader.receive(order[-1])) == ["big.example"]


def test_datagrams_that_come_twice_change_nothing() -> None:
    datagrams = sent_by(quic_client("big.example", protocols=MANY_PROTOCOLS))
    doubled = [datagram for datagram in datagrams for _ in range(2)]
    assert read(*doubled) == read(*datagrams, *datagrams) == read(*datagrams)
    assert len(read(*doubled)) == 2


def test_a_client_that_is_sent_a_retry_makes_a_second_attempt() -> None:
    client = quic_client("retry.example")
    (first,) = sent_by(client)
    (attempt, _) = read(first)
    assert isinstance(attempt, AttemptSeen)
    retry = encode_quic_retry(VERSION_1, b"server's", attempt.source_id, attempt.destination_id, b"token")
    assert parse_server_datagram(retry) == RetrySeen(VERSION_1, b"server's")
    client.receive_datagram(retry, ("192.0.2.1", 443), now=0.1)
    events = read(first, *sent_by(client))
    assert names(events) == ["retry.example"] * 2
    assert events[2] == AttemptSeen(VERSION_1, b"server's", attempt.source_id, has_token=True)


def test_a_client_that_is_told_another_version_makes_a_second_attempt() -> None:
    client = quic_client("other.example", VERSION_2)
    client.configuration.supported_versions = [VERSION_2, VERSION_1]
    (first,) = sent_by(client)
    (attempt, _) = read(first)
    assert isinstance(attempt, AttemptSeen)
    told = encode_quic_version_negotiation(attempt.destination_id, attempt.source_id, [0x1A2A3A4A, VERSION_1])
    assert parse_server_datagram(told) == VersionNegotiationSeen((0x1A2A3A4A, VERSION_1))
    client.receive_datagram(told, ("192.0.2.1", 443), now=0.1)
    events = read(first, *sent_by(client))
    assert [event.version for event in events if isinstance(event, AttemptSeen)] == [VERSION_2, VERSION_1]
    assert names(events) == ["other.example"] * 2


def test_a_server_that_shakes_hands_is_no_event() -> None:
    assert [parse_server_datagram(datagram) for datagram in (initial(b"\1"), b"\x40" + bytes(30), b"", b"\xc0")] == [None] * 4


# --- packets and frames ---


def test_packets_in_one_datagram_are_read_one_after_the_other() -> None:
    early_data = b"\xd0" + initial(b"\1" * 30)[1:15] + b"\x40\x10" + bytes(16)  # 0-RTT has no token length
    both = initial(crypto(0, HELLO[:99])) + early_data + initial(crypto(99, HELLO[99:]), 1) + b"\x40short header"
    assert names(read(both)) == ["split.example"]


def test_a_client_that_took_the_servers_id_keeps_its_keys() -> None:
    later = initial(crypto(99, HELLO[99:]), 1, sent_to=b"server's")
    assert names(read(initial(crypto(0, HELLO[:99])), later)) == ["split.example"]


ACK = b"\2\5\1\1\0\x3e\x3f"  # largest 5, delay 1, one more range, first range 0, gap 62, length 63
ACK_ECN = b"\3\5\1\0\0\1\2\3"
FRAMES = {
    "padding and pings": bytes(50) + b"\1\0\1" + crypto(0, HELLO) + b"\0\1" * 30,
    "an acknowledgement": ACK + crypto(0, HELLO),
    "an acknowledgement with counts": ACK_ECN + crypto(0, HELLO),
    "pieces backwards": crypto(200, HELLO[200:]) + crypto(100, HELLO[100:200]) + crypto(0, HELLO[:100]),
    "pieces that overlap": crypto(50, HELLO[50:]) + crypto(90, HELLO[90:120]) + crypto(0, HELLO[:100]),
    "a piece and a longer one at its place": crypto(50, HELLO[50:60]) + crypto(50, HELLO[50:]) + crypto(0, HELLO[:50]),
    "a piece and a shorter one at its place": crypto(50, HELLO[50:]) + crypto(50, HELLO[50:60]) + crypto(0, HELLO[:50]),
    "an empty piece": crypto(0, b"") + crypto(0, HELLO) + crypto(9, b""),
    "more than the hello": crypto(0, HELLO + b"rest"),
    "an end of the connection": crypto(0, HELLO) + b"\x1c\0\0\0",
}


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES)
def test_frames_that_a_server_takes_give_the_hello(frames: bytes) -> None:
    assert names(read(initial(frames))) == ["split.example"]


@given(st.integers(0), st.lists(st.integers(1, len(HELLO) - 1), max_size=40), st.integers(1, 6))
def test_a_hello_in_shuffled_pieces_over_shuffled_packets_is_read(seed: int, cuts: list[int], packets: int) -> None:
    shuffle = random.Random(seed)  # noqa: S311
    places = sorted({0, len(HELLO), *cuts})
    frames = [crypto(start, HELLO[start:end]) for start, end in itertools.pairwise(places)]
    shuffle.shuffle(frames)
    mixed = [frame + shuffle.choice([b"", b"\1", bytes(7), ACK]) for frame in frames]
    datagrams = [initial(b"".join(mixed[number::packets]), number) for number in range(packets)]
    shuffle.shuffle(datagrams)
    assert names(read(*datagrams)) == ["split.example"]


def test_packet_numbers_of_all_sizes_are_followed() -> None:
    jumps = [0, 1, 0x7FFFFFFF, 0xA82F30EA, 0xA82F9B32, 0x1_0000_0003, 0xFFFFFFF0]
    parts = [crypto(50 * at, HELLO[50 * at : 50 * at + 50]) for at in range(len(jumps))]
    last = 50 * len(jumps)
    datagrams = [initial(part, number) for part, number in zip(parts, jumps, strict=True)]
    assert names(read(*datagrams, initial(crypto(last, HELLO[last:]), 0x1_0000_0004))) == ["split.example"]


# --- not a hello that a server would take ---

OTHER = python_hello("other.example")[5:]
REFUSED = {
    "two things in one place": (crypto(0, HELLO[:90]) + crypto(50, OTHER[50:99]), "two things"),
    "two things in one place ahead": (crypto(50, HELLO[50:90]) + crypto(50, OTHER[50:99]), "two things"),
    "two things that meet later": (crypto(50, HELLO[50:90]) + crypto(60, OTHER[60:99]) + crypto(0, HELLO[:50]), "two things"),
    "a STREAM frame": (b"\x08\0", "frame of type 0x8"),
    "a frame that ends too early": (b"\6\0\x40\x63x", "runs past its packet"),
    "an acknowledgement without end": (b"\2\5\1\x7f\xff\0", "runs past its packet"),
    "a ServerHello": (crypto(0, b"\2\0\0\5"), "type 2 in place"),
    "a hello that announces too much": (crypto(0, b"\1\1\0\0"), "is the limit"),
    "a piece beyond every hello": (crypto(MAX_HELLO_BYTES, b"x"), "a CRYPTO stream of more than"),
    "a hello that is none": (crypto(0, message(bytes(40))), "without cipher suites"),
}


@pytest.mark.parametrize(("frames", "why"), REFUSED.values(), ids=REFUSED)
def test_what_no_server_takes_is_the_one_error_for_good(frames: bytes, why: str) -> None:
    reader = QuicReader()
    reader.receive(initial(b"\1"))
    with pytest.raises(QuicError, match=why):
        reader.receive(initial(frames, 1))
    with pytest.raises(QuicError, match=why):
        reader.receive(initial(crypto(0, HELLO), 2))


def test_what_came_before_an_error_in_its_datagram_is_told_first() -> None:
    reader = QuicReader()
    assert names(reader.receive(initial(crypto(0, HELLO)) + initial(b"\x08", keys_of=b"another!"))) == ["split.example"]
    with pytest.raises(QuicError, match="frame of type 0x8"):
        reader.receive(b"")


def test_more_pieces_than_a_client_makes_are_refused() -> None:
    ahead = [crypto(10 + 2 * at, b"x") for at in range(MAX_PIECES)]
    packets = [initial(b"".join(ahead[at : at + 100]), at) for at in range(0, MAX_PIECES, 100)]
    assert len(read(*packets)) == 1
    assert outcome(QuicReader().receive, [*packets, initial(crypto(5, b"x"), 2000)])[1] == "a CRYPTO stream in too many pieces"


def test_more_bytes_ahead_than_a_hello_has_are_refused() -> None:
    packets = [initial(crypto(5 + at, bytes(1000)), at) for at in range(MAX_HELLO_BYTES // 1000 + 1)]
    events, error = outcome(QuicReader().receive, packets)
    assert (len(events), error) == (1, "a CRYPTO stream in too many pieces")


def test_attempts_do_not_complete_each_others_hellos() -> None:
    half, rest = crypto(0, HELLO[:99]), crypto(99, HELLO[99:])
    assert names(read(initial(half), initial(rest, keys_of=b"another!"))) == []


def test_a_flow_has_a_few_attempts_and_a_few_packets_that_do_not_decrypt() -> None:
    attempts = [initial(b"\1", keys_of=bytes((at,)) * 8) for at in range(MAX_ATTEMPTS)]
    assert len(read(*attempts)) == MAX_ATTEMPTS
    more = [initial(b"\1", keys_of=b"one more")] * MAX_UNREADABLE
    assert len(read(*attempts, *more)) == MAX_ATTEMPTS
    events, error = outcome(QuicReader().receive, [*attempts, *more, more[0]])
    assert (len(events), error) == (MAX_ATTEMPTS, f"more than {MAX_UNREADABLE} Initial packets that do not decrypt")


# --- not QUIC ---

STRANGERS = {
    "DNS": b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\0\0\1\0\1",
    "STUN": b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12),
    "RTP, however large": b"\x80\x60" + bytes(1400),
    "DTLS": b"\x16\xfe\xfd" + bytes(60),
    "a short header": b"\x40" + bytes(1199),
    "an unknown version in a small datagram": b"\xc0\x1a\x2a\x3a\x4a\0\0" + bytes(100),
    "a version negotiation": encode_quic_version_negotiation(b"a", b"b", [1]).ljust(1200, b"\0"),
    "nothing": b"",
    "a header that is cut off": b"\xc0\0\0\0\1\x08",
    "a connection id that is too long": b"\xc0\0\0\0\1\x15" + bytes(1200),
}


@pytest.mark.parametrize("datagram", STRANGERS.values(), ids=STRANGERS)
def test_another_protocol_is_told_once_and_hides_no_hello(datagram: bytes) -> None:
    assert read(datagram, datagram) == [NotQuicSeen()]
    assert names(read(datagram, initial(crypto(0, HELLO)))) == ["split.example"]


def test_an_unknown_version_is_told_once_and_hides_no_hello() -> None:
    grease = b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(1200)
    attempt, hello = read(initial(crypto(0, HELLO)))
    assert read(grease, grease, initial(crypto(0, HELLO))) == [UnknownVersionSeen(0x1A2A3A4A), attempt, hello]


def test_a_memoryview_is_as_good_as_bytes() -> None:
    datagram = initial(crypto(0, HELLO))
    assert QuicReader().receive(memoryview(datagram)) == QuicReader().receive(datagram)


def test_a_hello_over_quic_is_the_same_value_as_over_tls() -> None:
    (over_tls,) = TlsReader().receive(record(HELLO))
    (_, over_quic) = read(initial(crypto(0, HELLO)))
    assert isinstance(over_tls, ClientHelloReceived)
    assert over_quic == dataclasses.replace(over_tls, end=len(HELLO))
