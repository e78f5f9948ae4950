"""Flows by their packets, their ends, and what bounds the table."""

import itertools
import struct
import tracemalloc

import pytest

from mamori.inspect.flow import (
    MAX_FLOWS,
    ORIGINATOR,
    RESPONDER,
    SHARE,
    TIMEOUTS_S,
    TRANSITIONS,
    Ending,
    Flow,
    FlowTable,
    Signal,
    State,
)
from mamori.inspect.packet import ACK, FIN, RST, SYN, Packet, parse_packet
from mamori.inspect.reassembly import Data
from tests.support.packets import CLIENT, CLIENT6, ICMP, SERVER, SERVER6, TCP, UDP, icmp, ipv4, ipv6, tcp, udp

Table = FlowTable[str, str]


def to_server(flags: int = ACK, payload: bytes = b"") -> Packet:
    return parse_packet(ipv4(tcp(payload, flags=flags)))


def to_client(flags: int = ACK, payload: bytes = b"") -> Packet:
    return parse_packet(ipv4(tcp(payload, flags=flags, ports=(80, 40000)), ends=(SERVER, CLIENT)))


def numbered(number: int, flags: int = SYN) -> Packet:
    """A packet of one flow of many."""
    return Packet(4, struct.pack("!I", number), SERVER, TCP, 20, 40, memoryview(b""), 0, None, 1024, 80, flags=flags)


def answer(number: int, flags: int = SYN | ACK) -> Packet:
    return Packet(4, SERVER, struct.pack("!I", number), TCP, 20, 40, memoryview(b""), 0, None, 80, 1024, flags=flags)


def establish(table: Table, number: int, now: float) -> Flow[str, str]:
    for packet in (numbered(number), answer(number), numbered(number, ACK)):
        flow, _ = table.receive(packet, now)
    assert flow.state is State.OPEN
    return flow


CONVERSATIONS = {
    "IPv4 TCP": (ipv4(tcp()), ipv4(tcp(ports=(80, 40000)), ends=(SERVER, CLIENT)), (CLIENT, 40000), (SERVER, 80)),
    "IPv4 from the higher port": (
        ipv4(udp(ports=(9, 7)), UDP, ends=(CLIENT, CLIENT)),
        ipv4(udp(ports=(7, 9)), UDP, ends=(CLIENT, CLIENT)),
        *((CLIENT, 9), (CLIENT, 7)),
    ),
    "IPv6 from the higher address": (
        ipv6(udp(ports=(9, 7)), UDP, ends=(SERVER6, CLIENT6)),
        ipv6(udp(ports=(7, 9)), UDP),
        *((SERVER6, 9), (CLIENT6, 7)),
    ),
    "an echo": (
        ipv4(icmp(8, 0, b"\0\x05\0\x01"), ICMP),
        ipv4(icmp(0, 0, b"\0\x05\0\x01"), ICMP, ends=(SERVER, CLIENT)),
        *((CLIENT, 5), (SERVER, 5)),
    ),
}


@pytest.mark.parametrize(("there", "back", "originator", "responder"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_both_directions_are_one_flow(
    there: bytes, back: bytes, originator: tuple[bytes, int], responder: tuple[bytes, int]
) -> None:
    table = Table()
    first, second = (table.receive(parse_packet(data), 1.0, link=7) for data in (there, back))
    assert first[0] is second[0]
    assert (first[1], second[1]) == (ORIGINATOR, RESPONDER)
    assert (first[0].originator, first[0].responder) == (originator, responder)
    assert (first[0].protocol, first[0].link) == (parse_packet(there).protocol, 7)


OTHER_FLOWS = {
    "source": ipv4(tcp(), ends=(b"\1\2\3\4", SERVER)),
    "destination": ipv4(tcp(), ends=(CLIENT, b"\1\2\3\4")),
    "source port": ipv4(tcp(ports=(40001, 80))),
    "destination port": ipv4(tcp(ports=(40000, 81))),
    "protocol": ipv4(udp(ports=(40000, 80)), UDP),
    "version": ipv6(tcp()),
    "ports the other way round": ipv4(tcp(ports=(80, 40000))),
}


@pytest.mark.parametrize("other", OTHER_FLOWS.values(), ids=OTHER_FLOWS)
def test_another_endpoint_is_another_flow(other: bytes) -> None:
    table = Table()
    assert table.receive(to_server(), 1.0)[0] is not table.receive(parse_packet(other), 1.0)[0]


def test_another_link_is_another_flow() -> None:
    table = Table()
    assert table.receive(to_server(), 1.0, link=1)[0] is not table.receive(to_server(), 1.0, link=2)[0]


def test_packets_and_bytes_are_counted_by_direction() -> None:
    table = Table()
    for packet in (to_server(SYN), to_client(SYN | ACK), to_server(payload=b"x" * 10), to_client(payload=b"y" * 1000)):
        flow, _ = table.receive(packet, 1.0)
    padded = parse_packet(ipv4(tcp(b"z" * 4)) + bytes(99))
    table.receive(padded, 3.0)
    assert (flow.originator_packets, flow.originator_bytes) == (3, 40 + 50 + 44)
    assert (flow.responder_packets, flow.responder_bytes) == (2, 40 + 1040)
    assert (flow.first_seen, flow.last_seen) == (1.0, 3.0)


LIVES = {
    "a connection from SYN to FIN": (
        [to_server(SYN), to_client(SYN | ACK), to_server(), to_server(FIN | ACK), to_client(), to_client(FIN | ACK), to_server()],
        [State.OPENING, State.ANSWERED, State.OPEN, *[State.ORIGINATOR_DONE] * 2, State.CLOSED, State.CLOSED],
    ),
    "the responder ends it": (
        [to_server(SYN), to_client(SYN | ACK), to_server(), to_client(FIN | ACK), to_server(), to_server(FIN | ACK)],
        [State.OPENING, State.ANSWERED, State.OPEN, *[State.RESPONDER_DONE] * 2, State.CLOSED],
    ),
    "a port that is closed": ([to_server(SYN), to_client(RST | ACK)], [State.OPENING, State.CLOSED]),
    "a reset in the middle": (
        [to_server(SYN), to_client(SYN | ACK), to_server(), to_server(RST)],
        [State.OPENING, State.ANSWERED, State.OPEN, State.CLOSED],
    ),
    "a reset that is not believed": (
        [to_server(), to_client(), to_server(), to_server(RST), to_client(), to_client(payload=b"x"), to_server()],
        [State.OPENING, State.ANSWERED, State.OPEN, State.CLOSED, State.CLOSED, State.ANSWERED, State.OPEN],
    ),
    "a SYN flood and its victim": (
        [to_server(SYN), to_client(SYN | ACK), to_client(SYN | ACK)],
        [State.OPENING, State.ANSWERED, State.ANSWERED],
    ),
    "datagrams": (
        [parse_packet(ipv4(udp(), UDP)), parse_packet(ipv4(udp(ports=(53, 5353)), UDP, ends=(SERVER, CLIENT)))],
        [State.ONE_WAY, State.TWO_WAY],
    ),
    "another protocol": ([parse_packet(ipv4(b"", 47))], [State.OTHER]),
    "an echo": ([parse_packet(ipv4(icmp(8, 0), ICMP))], [State.ICMP]),
}


@pytest.mark.parametrize(("packets", "states"), LIVES.values(), ids=LIVES)
def test_a_flow_goes_through_its_states(packets: list[Packet], states: list[State]) -> None:
    table = Table()
    assert [table.receive(packet, 1.0)[0].state for packet in packets] == states


def test_the_tables_know_every_state_and_lead_to_states_only() -> None:
    assert set(TIMEOUTS_S) == set(TRANSITIONS) == set(State)
    assert len(State) == 10 < SHARE  # what `_make_room` relies on
    assert len(Signal) == len({signal for row in TRANSITIONS.values() for signal in row})


def test_the_receiver_of_an_answer_is_the_originator() -> None:
    table = Table()
    flow, direction = table.receive(to_client(SYN | ACK), 1.0)
    assert (flow.originator, flow.responder, direction) == ((CLIENT, 40000), (SERVER, 80), RESPONDER)


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_a_flow_is_over_when_its_states_time_is(state: State) -> None:
    packets = next(packets[: states.index(state) + 1] for packets, states in LIVES.values() if state in states)
    table = Table()
    for packet in packets:
        flow, _ = table.receive(packet, 100.0)
    over = 100.0 + TIMEOUTS_S[state]
    assert table.next_deadline() == over
    assert table.expire(over - 0.1) == []
    [ended] = table.expire(over)
    assert (ended.flow, ended.ending) == (flow, Ending.CLOSED if state is State.CLOSED else Ending.IDLE)
    assert (len(table), table.next_deadline()) == (0, None)


def test_a_packet_of_either_side_keeps_a_flow_alive() -> None:
    table = Table()
    establish(table, 1, 0.0)
    timeout = TIMEOUTS_S[State.OPEN]
    table.receive(answer(1, ACK), timeout - 1)
    assert table.expire(timeout) == []
    assert len(table.expire(2 * timeout - 1)) == 1


def syn(number: int, sequence: int, flags: int = SYN) -> Packet:
    packet = numbered(number, flags)
    packet.sequence = sequence
    return packet


def syn_answer(number: int, acknowledgement: int) -> Packet:
    packet = answer(number)
    packet.acknowledgement = acknowledgement
    return packet


@pytest.mark.parametrize("before", [[], [FIN | ACK], [RST]], ids=["nothing", "FIN", "RST"])
@pytest.mark.parametrize("streams", [False, True], ids=["decided", "read"])
def test_an_answered_syn_begins_a_new_flow_whatever_was_before_it(before: list[int], streams: bool) -> None:
    table = Table()
    old = establish(table, 1, 0.0)
    if streams:
        old.stream(ORIGINATOR).receive(0, b"", SYN)
    for flags in before:
        table.receive(numbered(1, flags), 1.0)
    assert table.receive(syn(1, 0xFFFFFFFF), 2.0)[0] is old
    assert table.receive(syn_answer(1, 1), 2.0)[0] is old
    new, direction = table.receive(syn_answer(1, 0), 2.0)
    assert new is not old
    assert [(ended.flow, ended.ending) for ended in table.take_ended()] == [(old, Ending.REOPENED)]
    assert (len(table), new.originator, new.responder_packets, direction) == (1, old.originator, 1, RESPONDER)
    assert new.stream(ORIGINATOR).receive(0, b"GET") == [Data(0, b"GET")]
    assert not new.stream(ORIGINATOR).picked_up
    assert table.receive(syn_answer(1, 0), 2.0)[0] is new


def test_the_new_flow_may_come_from_the_other_side() -> None:
    table = Table()
    old = establish(table, 1, 0.0)
    back = answer(1, SYN)
    back.sequence = 99
    agreed = numbered(1, SYN | ACK)
    agreed.acknowledgement = 100
    assert [table.receive(packet, 1.0)[0] is old for packet in (back, agreed)] == [True, False]
    new, direction = table.receive(answer(1, ACK), 1.0)
    assert (new.originator, new.responder, direction) == (old.responder, old.originator, ORIGINATOR)


@pytest.mark.parametrize("forged", [[], [FIN | ACK], [RST]], ids=["nothing", "FIN", "RST"])
def test_a_syn_without_an_answer_changes_nothing(forged: list[int]) -> None:
    table = Table()
    flow = establish(table, 1, 0.0)
    for flags in forged:
        table.receive(numbered(1, flags), 1.0)
    assert table.receive(syn(1, 77), 1.0)[0] is flow
    assert table.receive(syn(1, 77, SYN | ACK), 1.0)[0] is flow
    plain = answer(1, ACK)
    plain.sequence, plain.acknowledgement = 5, 78
    assert table.receive(plain, 1.0)[0] is flow
    assert table.take_ended() == []


@pytest.mark.parametrize("streams", [False, True], ids=["decided", "read"])
def test_where_the_syn_was_not_seen_a_new_flow_begins_with_the_acknowledgement_of_its_answer(streams: bool) -> None:
    table = Table()
    old = establish(table, 1, 0.0)
    if streams:
        old.stream(RESPONDER).receive(900, b"", SYN)
    opened = syn_answer(1, 501)
    opened.sequence = 7000
    assert table.receive(opened, 1.0)[0] is old, "a server alone could forge it"
    confirmed = numbered(1, ACK)
    confirmed.sequence, confirmed.acknowledgement = 501, 7001
    new, direction = table.receive(confirmed, 1.0)
    assert new is not old
    assert (new.originator, direction) == (old.originator, ORIGINATOR)
    assert [(ended.flow, ended.ending) for ended in table.take_ended()] == [(old, Ending.REOPENED)]
    assert new.stream(ORIGINATOR).receive(501, b"GET") == [Data(0, b"GET")]
    assert new.stream(RESPONDER).receive(7001, b"HTTP") == [Data(0, b"HTTP")]
    assert table.receive(confirmed, 1.0)[0] is new


@pytest.mark.parametrize(
    ("sequence", "acknowledgement", "flags"),
    [(500, 7001, ACK), (501, 7000, ACK), (501, 7001, ACK | RST), (501, 7001, 0)],
    ids=["other bytes", "another answer", "a reset", "no acknowledgement"],
)
def test_a_forged_answer_that_nobody_confirms_changes_nothing(sequence: int, acknowledgement: int, flags: int) -> None:
    table = Table()
    flow = establish(table, 1, 0.0)
    opened = syn_answer(1, 501)
    opened.sequence = 7000
    table.receive(opened, 1.0)
    packet = numbered(1, flags)
    packet.sequence, packet.acknowledgement = sequence, acknowledgement
    assert table.receive(packet, 1.0)[0] is flow
    assert table.take_ended() == []


@pytest.mark.parametrize("streams", [False, True], ids=["not read", "read"])
def test_a_handshake_may_be_repeated(streams: bool) -> None:
    table = Table()
    flow, _ = table.receive(syn(1, 5), 0.0)
    if streams:
        flow.stream(ORIGINATOR).receive(5, b"", SYN)
    assert {table.receive(packet, 1.0)[0] for packet in (syn(1, 5), syn_answer(1, 6), syn_answer(1, 6))} == {flow}


def full_table(kinds: dict[str, int]) -> Table:
    """A table of 160 flows, of which so many are closed, idle, opening; the rest is open. Flows are numbered in this order."""
    table = Table(max_flows=160)
    numbers = itertools.count()
    for _ in range(kinds.get("opening", 0)):
        table.receive(numbered(next(numbers)), 10_000.0)
    for _ in range(kinds.get("idle", 0)):
        establish(table, next(numbers), 0.0)
    for _ in range(kinds.get("closed", 0)):
        table.receive(numbered(next(numbers), RST), 10_000.0)
    while len(table) < 160:
        establish(table, next(numbers), 10_000.0 + len(table))
    return table


EVICTIONS = {
    "a closed one before all others": ({"opening": 50, "idle": 50, "closed": 2}, 100, Ending.CLOSED),
    "one whose time is over before those alive": ({"opening": 50, "idle": 2}, 50, Ending.IDLE),
    "one unanswered before those open": ({"opening": 11}, 0, Ending.EVICTED),
    "the silent longest of all, if few are unanswered": ({"opening": 10}, 10, Ending.EVICTED),
    "the silent longest of all": ({}, 0, Ending.EVICTED),
}


@pytest.mark.parametrize(("kinds", "victim", "ending"), EVICTIONS.values(), ids=EVICTIONS)
def test_a_full_table_ends(kinds: dict[str, int], victim: int, ending: Ending) -> None:
    table = full_table(kinds)
    table.receive(numbered(1000), 10_050.0)
    [ended] = table.take_ended()
    assert (ended.flow.originator[0], ended.ending) == (struct.pack("!I", victim), ending)
    assert (len(table), table.take_ended()) == (160, [])


def test_the_flow_that_is_evicted_is_the_one_silent_longest() -> None:
    table = full_table({})
    table.receive(numbered(0, ACK), 10_040.0)
    table.receive(numbered(1000), 10_050.0)
    assert [ended.flow.originator[0] for ended in table.take_ended()] == [struct.pack("!I", 1)]


def test_new_flows_get_through_a_table_full_of_open_ones() -> None:
    table = full_table({})
    for number in range(1000, 1005):
        table.receive(numbered(number), 10_050.0)
    for number in range(1000, 1005):
        table.receive(answer(number), 10_050.0)
        assert table.receive(numbered(number, ACK), 10_050.0)[0].state is State.OPEN


def test_a_flood_of_new_flows_leaves_the_offices_flows_alone() -> None:
    table = Table()
    office = [establish(table, number, 0.0) for number in range(1000)]
    for number in range(100_000):
        table.receive(numbered(0x0A000000 + number), 1.0)
        table.receive(answer(0x0A000000 + number), 1.0)
    assert len(table) == MAX_FLOWS
    ended = table.take_ended()
    assert len(ended) == 101_000 - MAX_FLOWS
    assert {ending.ending for ending in ended} == {Ending.EVICTED}
    assert not {id(ending.flow) for ending in ended} & set(map(id, office))


def test_a_flood_of_new_flows_holds_no_more_bytes_than_stated() -> None:
    def flood(streams: bool) -> float:
        table: FlowTable[None, None] = FlowTable(max_flows=10_000)
        tracemalloc.start()
        for number in range(20_000):
            flow, _ = table.receive(numbered(number), number * 1e-3)
            flow.originator_packets = flow.originator_bytes = flow.responder_packets = flow.responder_bytes = 1 << 20
            if streams:
                for each in (ORIGINATOR, RESPONDER):
                    stream = flow.stream(each)
                    stream.receive(number << 10, b"", SYN)
                    stream.receive((number << 10) + 1, bytes(500))
                    stream.acknowledge((number << 10) + 501)
            table.take_ended()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert table.budget.used_bytes == 0
        return used / len(table)

    assert flood(streams=False) < 600
    assert flood(streams=True) < 1300


def test_what_streams_remember_is_bounded_for_all_flows_together() -> None:
    table = Table(max_flows=1000, budget_bytes=1 << 20)
    for number in range(5000):
        flow, direction = table.receive(numbered(number), 1.0)
        flow.stream(direction).receive(1, b"", SYN)
        flow.stream(direction).receive(2 if number % 2 else 1000, bytes(1400))
        assert table.budget.used_bytes <= 1 << 20
    for ended in table.expire(1000.0):
        assert ended.flow.state is State.OPENING
    assert (len(table), table.budget.used_bytes) == (0, 0)


def test_a_flows_stream_is_the_same_each_time_and_one_for_each_direction() -> None:
    table = Table()
    for packet in (to_server(SYN), to_client(SYN | ACK), to_server(payload=b"hi")):
        packet.sequence = 0 if packet.flags & SYN else 1
        flow, direction = table.receive(packet, 1.0)
        events = flow.stream(direction).receive(packet.sequence, packet.payload, packet.flags)
    assert events == [Data(0, b"hi")]
    assert flow.stream(ORIGINATOR) is not flow.stream(RESPONDER)
    assert (flow.stream(ORIGINATOR).next, flow.stream(RESPONDER).next) == (2, 0)


def test_a_decided_flow_keeps_its_verdict_and_nothing_else() -> None:
    table = Table()
    flow, direction = table.receive(to_server(SYN), 1.0)
    flow.inspector = "an inspector"
    flow.stream(direction).receive(0, b"kept", SYN)
    assert table.budget.used_bytes > 0
    flow.decide("allowed")
    assert (flow.verdict, table.budget.used_bytes) == ("allowed", 0)
    assert flow.inspector is None
    assert table.receive(to_client(SYN | ACK), 1.0)[0].verdict == "allowed"


def test_the_inspector_of_a_flow_that_ends_is_left_to_be_finished() -> None:
    table = Table()
    flow, _ = table.receive(to_server(SYN), 1.0)
    flow.inspector = "an inspector"
    assert [ended.flow.inspector for ended in table.expire(1000.0)] == ["an inspector"]


def test_a_table_has_room_for_every_state() -> None:
    with pytest.raises(ValueError, match="at least 10, got 9"):
        Table(max_flows=9)
