"""TCP reassembly held against the naive way: one cell for each byte of the stream, the first copy stays.

The streams begin anywhere in the numbers, so many of them wrap around.
"""

import contextlib
import itertools
import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.flow import FlowTable
from mamori.inspect.packet import FIN, SYN, PacketError, parse_packet
from mamori.inspect.reassembly import (
    AHEAD_BYTES,
    HISTORY_BYTES,
    SEGMENT_COST_BYTES,
    Budget,
    Closed,
    ConflictSeen,
    Data,
    GapSeen,
    Refused,
    Restarted,
    Stream,
    StreamEvent,
)
from tests.support.packets import ipv4, seeded, tcp

SIZE = 64
ISNS = st.integers(0, 0xFFFFFFFF) | st.integers(0xFFFFFFFF - SIZE, 0xFFFFFFFF)
SEGMENTS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(1, SIZE)), max_size=30)


class Naive:
    """The same by the plainest means; None is a byte that has not come."""

    def __init__(self) -> None:
        self.cells: list[int | None] = [None] * (2 * SIZE)

    def receive(self, start: int, data: bytes) -> list[int]:
        """The offsets at which this segment contradicts what came before."""
        conflicts = []
        for offset, byte in enumerate(data, start):
            known = self.cells[offset]
            if known is None:
                self.cells[offset] = byte
            elif known != byte:
                conflicts.append(offset)
        return conflicts

    def read(self) -> bytes:
        end = self.cells.index(None)
        return bytes(byte for byte in self.cells[:end] if byte is not None)


class Reader:
    """Puts the events of a stream together, and checks that they fit."""

    def __init__(self) -> None:
        self.read = bytearray()
        self.missing = 0
        self.closed: list[int] = []

    def take(self, events: Sequence[StreamEvent]) -> None:
        for event in events:
            match event:
                case Data(start, data):
                    assert start == len(self.read)
                    assert data
                    self.read += data
                case GapSeen(start, end):
                    assert start == len(self.read) < end
                    self.missing += end - start
                    self.read += bytes(end - start)
                case Closed(at, False):
                    assert at == len(self.read)
                    self.closed.append(at)


@given(ISNS, st.binary(min_size=1, max_size=SIZE), SEGMENTS, st.randoms(use_true_random=False), st.booleans())
def test_any_order_repetition_and_overlap_of_segments_gives_the_stream_once(
    isn: int, content: bytes, extra: list[tuple[int, int]], chance: random.Random, acknowledged: bool
) -> None:
    cuts = sorted({0, len(content), *(chance.randrange(len(content)) for _ in range(8))})
    segments = [*itertools.pairwise(cuts), *((start, start + size) for start, size in extra)]
    chance.shuffle(segments)
    budget = Budget()
    stream, reader = Stream(budget), Reader()
    stream.receive(isn, b"", SYN)
    stream.acknowledge((isn + 1) & 0xFFFFFFFF)
    for start, end in segments:
        data = content[start:end]
        flags = FIN if end >= len(content) else 0
        number = (isn + 1 + min(start, len(content))) & 0xFFFFFFFF
        events = stream.receive(number, data, flags)
        assert not any(isinstance(event, ConflictSeen | Refused | Restarted) for event in events)
        reader.take(events)
        if acknowledged and chance.random() < 0.3:
            reader.take(stream.acknowledge((isn + 1 + chance.randrange(stream.next + 1)) & 0xFFFFFFFF))
    assert (bytes(reader.read), reader.missing, reader.closed) == (content, 0, [len(content)])
    stream.acknowledge((isn + 2 + len(content)) & 0xFFFFFFFF)
    assert (budget.used_bytes, stream.acknowledged) == (0, len(content))


COPIES = st.lists(st.tuples(st.integers(0, SIZE), st.lists(st.integers(0, 1), min_size=1, max_size=SIZE).map(bytes)), max_size=30)


@given(ISNS, COPIES)
def test_of_different_copies_the_first_stays_and_every_difference_is_reported(isn: int, segments: list[tuple[int, bytes]]) -> None:
    stream, reader, naive = Stream(Budget()), Reader(), Naive()
    stream.receive(isn, b"", SYN)
    for start, data in segments:
        expected = naive.receive(start, data)
        events = stream.receive((isn + 1 + start) & 0xFFFFFFFF, data)
        reader.take(events)
        conflicts = [event for event in events if isinstance(event, ConflictSeen)]
        found = [
            offset for event in conflicts for offset, first in enumerate(event.first, event.start) if first != data[offset - start]
        ]
        assert sorted(found) == expected
        for event in conflicts:
            assert event.end - event.start == len(event.first)
            assert {event.start, event.end - 1} <= set(expected)
            assert list(event.first) == naive.cells[event.start : event.end]
        assert bytes(reader.read) == naive.read()


ACTIONS = st.one_of(
    st.tuples(st.just("segment"), st.integers(-SIZE, 3 * SIZE), st.binary(max_size=SIZE)),
    st.tuples(st.just("far"), st.integers(0, 0xFFFFFFFF), st.binary(max_size=3)),
    st.tuples(st.just("acknowledge"), st.integers(-SIZE, 4 * SIZE), st.just(b"")),
    st.tuples(st.just("acknowledge"), st.integers(0, 0xFFFFFFFF), st.just(b"")),
)


@given(ISNS, st.lists(st.tuples(ACTIONS, st.integers(0, 0x1FF), st.integers(0, 99)), max_size=40), st.integers(0, 4000))
def test_any_numbers_and_flags_leave_a_stream_without_holes(
    isn: int, actions: list[tuple[tuple[str, int, bytes], int, int]], limit: int
) -> None:
    budget = Budget(limit)
    stream, at = Stream(budget), 0
    for (action, offset, data), flags, urgent in actions:
        number = (isn + offset) & 0xFFFFFFFF
        events = stream.acknowledge(number) if action == "acknowledge" else stream.receive(number, data, flags, urgent)
        for event in events:
            if isinstance(event, Restarted):
                at = 0
            elif isinstance(event, Data):
                assert event.start == at
                at += len(event.data)
            elif isinstance(event, GapSeen):
                assert event.start == at < event.end
                at = event.end
        if not at or stream.next == 0:
            at = 0  # a SYN before the first byte begins anew without saying so
        assert stream.next == at
        assert 0 <= budget.used_bytes <= limit + SEGMENT_COST_BYTES + SIZE
    stream.release()
    assert budget.used_bytes == 0


def test_a_long_stream_through_a_bad_network_arrives_whole_and_stays_small() -> None:
    chance = seeded(7)
    content = chance.randbytes(8 << 20)
    budget = Budget()
    stream, reader = Stream(budget), Reader()
    isn, at, window, in_flight = 0xFFC00000, 0, 2 << 20, []
    stream.receive(isn, b"", SYN)
    while stream.next < len(content):
        while at < len(content) and at < stream.next + window:
            size = chance.choice([1, 536, 1448, 1448 * 20])
            in_flight.append((at, min(at + size, len(content))))
            at += size
        start, end = in_flight.pop(chance.randrange(min(len(in_flight), 50)))
        if chance.random() < 0.05:  # lost here, sent again later
            in_flight.append((start, end))
            continue
        if chance.random() < 0.05:
            in_flight.append((max(0, start - 700), end))
        events = stream.receive((isn + 1 + start) & 0xFFFFFFFF, memoryview(content)[start:end])
        assert not any(isinstance(event, ConflictSeen | Refused) for event in events)
        reader.take(events)
        reader.take(stream.acknowledge((isn + 1 + stream.next) & 0xFFFFFFFF))
        assert budget.used_bytes <= AHEAD_BYTES + HISTORY_BYTES
    assert bytes(reader.read) == content


@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 0xFFFFFFFF), st.integers(0, 0x1FF)), max_size=30))
def test_any_packets_of_a_flow_are_followed_without_an_error(packets: list[tuple[bytes, int, int]]) -> None:
    table: FlowTable[None, None] = FlowTable(max_flows=10, budget_bytes=1000)
    for number, (payload, sequence, flags) in enumerate(packets):
        with contextlib.suppress(PacketError):
            table.receive(parse_packet(payload), number)
        packet = parse_packet(
            ipv4(tcp(payload, sequence=sequence, acknowledgement=sequence >> 3, flags=flags, ports=(number % 15, 80)))
        )
        flow, direction = table.receive(packet, number)
        flow.stream(direction).receive(packet.sequence, packet.payload, packet.flags, packet.urgent)
        flow.stream(1 - direction).acknowledge(packet.acknowledgement)
        assert len(table) <= 10
    table.expire(1e9)
    assert (len(table), table.budget.used_bytes) == (0, 0)
