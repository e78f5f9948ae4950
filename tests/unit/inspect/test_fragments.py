"""Fragments in any order become the packet they were; where receivers differ they become nothing."""

import itertools

import pytest

from mamori.inspect.fragments import (
    FRAGMENT_COST_BYTES,
    MAX_BYTES,
    MAX_DATAGRAMS,
    MAX_DATAGRAMS_PER_SOURCE,
    MAX_FRAGMENTS,
    TIMEOUT_S,
    Discarded,
    FragmentEvent,
    FragmentTable,
    Reason,
    Reassembled,
)
from mamori.inspect.packet import parse_packet
from tests.support.packets import CLIENT, SERVER, UDP, extension, fragment_header, ipv4, ipv6, udp

FRAGMENT, DESTINATION = 44, 60
BODY = udp(bytes(range(40)))


def cut4(body: bytes, *cuts: int, identification: int = 1, ends: tuple[bytes, bytes] = (CLIENT, SERVER)) -> list[bytes]:
    """IPv4 fragments of a UDP datagram, cut at these offsets."""
    return [
        ipv4(body[low:high], UDP, offset=low, more=high < len(body), identification=identification, options=bytes(4), ends=ends)
        for low, high in itertools.pairwise((0, *cuts, len(body)))
    ]


def cut6(body: bytes, *cuts: int, identification: int = 1) -> list[bytes]:
    """The same for IPv6, behind a destination options header, which every fragment repeats."""
    return [
        ipv6(
            extension(FRAGMENT) + fragment_header(UDP, low, more=high < len(body), identification=identification) + body[low:high],
            DESTINATION,
        )
        for low, high in itertools.pairwise((0, *cuts, len(body)))
    ]


def receive(table: FragmentTable, data: bytes, token: int = 0, now: float = 0.0, link: int = 0) -> list[FragmentEvent]:
    return table.receive(data, parse_packet(data), now, token, link)


def receive_all(table: FragmentTable, fragments: list[bytes]) -> list[FragmentEvent]:
    """All of them, under the tokens 0, 1, …"""
    return [event for token, data in enumerate(fragments) for event in receive(table, data, token)]


WHOLE = {
    "IPv4": (cut4(BODY, 16, 32), ipv4(BODY, UDP, identification=1, options=bytes(4))),
    "IPv6": (cut6(BODY, 16, 32), ipv6(extension(UDP) + BODY, DESTINATION)),
}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("version", WHOLE)
def test_fragments_in_any_order_are_the_packet_they_were(version: str, order: tuple[int, ...]) -> None:
    fragments, whole = WHOLE[version]
    table = FragmentTable()
    [event] = receive_all(table, [fragments[index] for index in order])
    assert isinstance(event, Reassembled)
    without_checksum = event.data[:10] + b"\0\0" + event.data[12:] if version == "IPv4" else event.data
    assert (without_checksum, event.tokens) == (whole, (0, 1, 2))
    assert (len(table), table.used_bytes, table.next_deadline()) == (0, 0, None)


def test_the_ipv4_header_of_the_whole_has_a_valid_checksum() -> None:
    [event] = receive_all(FragmentTable(), cut4(BODY, 16))
    assert isinstance(event, Reassembled)
    words = [int.from_bytes(event.data[at : at + 2], "big") for at in range(0, 24, 2)]
    assert sum(words) % 0xFFFF == 0
    assert any(words)


def test_the_whole_is_parsed_like_any_packet() -> None:
    [event] = receive_all(FragmentTable(), cut6(BODY, 8))
    assert isinstance(event, Reassembled)
    packet = parse_packet(event.data)
    assert (packet.fragment, packet.source_port, bytes(packet.payload)) == (None, 5353, bytes(range(40)))


def test_what_every_part_repeats_is_taken_from_the_first_part() -> None:
    first, last = cut4(BODY, 16)
    last = last[:20] + b"\x01" * 4 + last[24:]
    [event] = receive_all(FragmentTable(), [last, first])
    assert isinstance(event, Reassembled)
    assert event.data[20:24] == bytes(4)


OTHER_DATAGRAMS = {
    "identification": cut4(BODY, 16, identification=2)[1],
    "addresses": cut4(BODY, 16, ends=(b"\xc0\0\2\7", b"\xc6\x33\x64\2"))[1],
    "protocol": ipv4(BODY[16:], 6, offset=16, identification=1),
    "version": cut6(BODY, 16)[1],
}


@pytest.mark.parametrize("other", OTHER_DATAGRAMS.values(), ids=OTHER_DATAGRAMS)
def test_parts_of_different_datagrams_are_not_mixed(other: bytes) -> None:
    table = FragmentTable()
    assert receive_all(table, [cut4(BODY, 16)[0], other]) == []
    assert len(table) == 2


def test_parts_on_different_links_are_not_mixed() -> None:
    table, (first, last) = FragmentTable(), cut4(BODY, 16)
    assert receive(table, first, link=1) + receive(table, last, link=2) == []
    assert [type(event) for event in receive(table, last, link=1)] == [Reassembled]


def test_ipv6_parts_belong_together_whatever_they_say_comes_next() -> None:
    # RFC 8200 4.5: the first fragment's value is the one that counts.
    first = cut6(BODY, 16)[0]
    last = ipv6(extension(FRAGMENT) + fragment_header(6, 16, identification=1) + BODY[16:], DESTINATION)
    [event] = receive_all(FragmentTable(), [last, first])
    assert isinstance(event, Reassembled)
    assert parse_packet(event.data).protocol == UDP


def part(low: int, high: int, *, more: bool = True, fill: bytes | None = None) -> bytes:
    """Bytes `low` to `high` of a datagram of 48 bytes; `fill` in place of what is there."""
    return ipv4((fill or BODY[low : low + 1]) * (high - low) if fill else BODY[low:high], UDP, offset=low, more=more)


REPETITIONS = {
    "of one part": [part(0, 16), part(0, 16)],
    "of a piece of one part": [part(0, 32), part(8, 24)],
    "across two parts": [part(0, 16), part(16, 32), part(8, 24)],
    "of two parts at once": [part(16, 24), part(24, 32), part(16, 32)],
    "of the last part": [part(32, 48, more=False), part(32, 48, more=False)],
}


@pytest.mark.parametrize("fragments", REPETITIONS.values(), ids=REPETITIONS)
def test_a_repetition_is_dropped_alone(fragments: list[bytes]) -> None:
    table = FragmentTable()
    repeated = len(fragments) - 1
    assert receive_all(table, fragments) == [Discarded((repeated,), Reason.REPEATED)]
    rest = [part(low, low + 8, more=low < 40) for low in range(0, 48, 8)]
    events = [event for data in rest for event in receive(table, data, 99)]
    assert [bytes(event.data[20:]) for event in events if isinstance(event, Reassembled)] == [BODY]


OVERLAPS = {
    "the same place, other bytes": [part(0, 16), part(0, 16, fill=b"x")],
    "only the first byte is another": [part(0, 16), b"".join((part(0, 16)[:20], b"x", part(0, 16)[21:]))],
    "a piece, other bytes": [part(0, 32), part(8, 24, fill=b"x")],
    "the tail of a part": [part(0, 16), part(8, 24)],
    "the head of a part": [part(16, 32), part(8, 24)],
    "more than a part": [part(16, 24), part(8, 32)],
    "known bytes around a hole": [part(0, 16), part(24, 32), part(8, 32)],
    "equal start, longer": [part(0, 16), part(0, 24)],
}


@pytest.mark.parametrize("fragments", OVERLAPS.values(), ids=OVERLAPS)
def test_an_overlap_discards_the_datagram_with_all_that_is_still_to_come(fragments: list[bytes]) -> None:
    table = FragmentTable()
    assert receive_all(table, fragments) == [Discarded(tuple(range(len(fragments))), Reason.OVERLAPPING)]
    assert table.used_bytes == 0
    assert receive(table, part(40, 48, more=False), 9) == [Discarded((9,), Reason.LATE)]
    assert receive(table, part(0, 16), 10, now=TIMEOUT_S) == []


CONTRADICTIONS = {
    "no bytes": [part(8, 8)],
    "a middle part of 12 bytes": [part(0, 12)],
    "an end inside what is known": [part(16, 32), part(8, 24, more=False)],
    "two ends": [part(32, 48, more=False), part(24, 40, more=False)],
    "bytes after the end": [part(24, 40, more=False), part(40, 48)],
    "an IPv4 datagram above 64 KiB": [ipv4(bytes(32), UDP, offset=0xFFF8, more=False)],
    "an IPv6 datagram above 64 KiB": [ipv6(fragment_header(UDP, 0xFFF8) + bytes(8), FRAGMENT)],
    "a part that was captured in part": [part(0, 32)[:-8]],
}


@pytest.mark.parametrize("fragments", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_lengths_that_contradict_each_other_discard_the_datagram(fragments: list[bytes]) -> None:
    assert receive_all(FragmentTable(), fragments) == [Discarded(tuple(range(len(fragments))), Reason.MALFORMED)]


def test_the_largest_datagram_there_is_comes_through() -> None:
    body = udp(bytes(65_535 - 24 - 8))
    [event] = receive_all(FragmentTable(), cut4(body, 32_000, 64_000))
    assert isinstance(event, Reassembled)
    assert (len(event.data), event.data[24:] == body) == (65_535, True)


def test_the_largest_ipv6_datagram_there_is_comes_through_and_no_larger_one() -> None:
    # The payload length counts the extension headers (RFC 8200 4.5), here one of 8 bytes.
    body = bytes(65_535 - 8)
    [event] = receive_all(FragmentTable(), cut6(body, 32_000, 64_000))
    assert isinstance(event, Reassembled)
    assert (len(event.data), event.data[48:] == body) == (40 + 65_535, True)
    assert receive_all(FragmentTable(), cut6(body + b"x", 64_000)) == [
        Discarded((0, 1), Reason.MALFORMED),
    ]


def test_a_datagram_expires_a_while_after_its_first_fragment() -> None:
    table, (first, middle, _) = FragmentTable(), cut4(BODY, 16, 32)
    receive(table, first, token=1, now=100.0)
    receive(table, middle, token=2, now=100.0 + TIMEOUT_S - 1)
    assert table.next_deadline() == 100.0 + TIMEOUT_S
    assert table.expire(100.0 + TIMEOUT_S - 0.1) == []
    assert table.expire(100.0 + TIMEOUT_S) == [Discarded((1, 2), Reason.EXPIRED)]
    assert (len(table), table.used_bytes) == (0, 0)


def test_fragments_are_expired_by_those_that_come_after_them() -> None:
    table, (first, last) = FragmentTable(), cut4(BODY, 16)
    receive(table, first, token=1)
    assert receive(table, last, token=2, now=TIMEOUT_S) == [Discarded((1,), Reason.EXPIRED)]


def source(number: int) -> tuple[bytes, bytes]:
    return number.to_bytes(4, "big"), b"\x0a\0\0\1"


def test_one_source_ends_its_own_oldest_datagram() -> None:
    table = FragmentTable()
    receive(table, cut4(BODY, 16, ends=source(7))[0], token=7)
    halves = [cut4(BODY, 16, identification=number)[0] for number in range(MAX_DATAGRAMS_PER_SOURCE + 2)]
    assert receive_all(table, halves) == [Discarded((0,), Reason.TOO_MANY), Discarded((1,), Reason.TOO_MANY)]
    assert len(table) == MAX_DATAGRAMS_PER_SOURCE + 1


def test_many_sources_end_the_oldest_datagram_of_all() -> None:
    table = FragmentTable()
    events = receive_all(table, [cut4(BODY, 16, ends=source(number))[0] for number in range(MAX_DATAGRAMS + 3)])
    assert events == [Discarded((number,), Reason.TOO_MANY) for number in range(3)]
    assert len(table) == MAX_DATAGRAMS


def test_the_bytes_that_are_kept_are_bounded() -> None:
    table, size = FragmentTable(), 60_000
    events: list[FragmentEvent] = []
    for number in range(100):
        events += receive(table, cut4(bytes(size + 8), size, ends=source(number))[0], token=number)
        assert table.used_bytes <= MAX_BYTES
    assert len(table) == MAX_BYTES // (size + 24 + FRAGMENT_COST_BYTES)
    assert events == [Discarded((number,), Reason.TOO_MANY) for number in range(100 - len(table))]


def test_the_fragments_of_one_datagram_are_bounded() -> None:
    crumbs = [ipv4(bytes(8), UDP, offset=8 * number, more=True) for number in range(MAX_FRAGMENTS + 1)]
    assert receive_all(FragmentTable(), crumbs) == [Discarded(tuple(range(MAX_FRAGMENTS + 1)), Reason.TOO_MANY)]


def test_a_legitimate_datagram_outlives_a_flood_of_halves() -> None:
    table, (first, last) = FragmentTable(), cut4(BODY, 16, ends=source(0xFFFF))
    for number in range(5000):
        receive(table, cut4(BODY, 16, ends=source(number))[0])
    receive(table, first, token=1)
    for number in range(5000, 5500):
        receive(table, cut4(BODY, 16, ends=source(number))[0])
    assert [event.tokens for event in receive(table, last, token=2) if isinstance(event, Reassembled)] == [(1, 2)]


def test_a_whole_packet_is_not_for_this_table() -> None:
    with pytest.raises(ValueError, match="not a fragment"):
        receive(FragmentTable(), ipv4(BODY, UDP))
