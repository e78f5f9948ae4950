"""One direction of TCP, segment by segment, as transcripts of events. Random orders are in tests/fuzz."""

from collections.abc import Iterator

import pytest

from mamori.inspect.packet import ACK, FIN, PSH, RST, SYN, URG
from mamori.inspect.reassembly import (
    AHEAD_BYTES,
    HISTORY_BYTES,
    SEGMENT_COST_BYTES,
    Budget,
    Buffered,
    Closed,
    ConflictSeen,
    Data,
    GapSeen,
    Refusal,
    Refused,
    Restarted,
    Retransmitted,
    Stream,
    StreamEvent,
    SynSeen,
    UrgentSeen,
)

ISN = 0xFFFFFFF0
"""Near the end of the numbers, so that every transcript wraps around."""


class Peer:
    """Sends to a stream by offset instead of by number."""

    def __init__(self, budget: Budget | None = None, *, syn: bool = True) -> None:
        self.stream = Stream(budget or Budget())
        if syn:
            assert self.stream.receive(ISN, b"", SYN) == []

    def send(self, offset: int, data: bytes = b"", flags: int = ACK, urgent: int = 0) -> list[StreamEvent]:
        return self.stream.receive((ISN + 1 + offset) & 0xFFFFFFFF, data, flags, urgent)

    def hear(self, offset: int) -> list[StreamEvent]:
        return self.stream.acknowledge((ISN + 1 + offset) & 0xFFFFFFFF)


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_bytes_in_order_come_out_as_they_came(peer: Peer) -> None:
    assert peer.send(0, b"GET ") == [Data(0, b"GET ")]
    assert peer.send(4) == []
    assert peer.send(4, b"/index.html HTTP/1.1\r\n", ACK | PSH) == [Data(4, b"/index.html HTTP/1.1\r\n")]
    assert peer.send(26, b"\r\n") == [Data(26, b"\r\n")]


def test_what_is_kept_is_a_copy() -> None:
    buffer = bytearray(b"first")
    peer = Peer()
    [data] = peer.send(0, memoryview(buffer))  # type: ignore[arg-type]
    buffer[:] = b"XXXXX"
    assert data == Data(0, b"first")
    assert peer.send(0, b"first") == [Retransmitted(0, 5, 0)]


def test_a_segment_behind_a_hole_waits_until_the_hole_is_filled(peer: Peer) -> None:
    assert peer.send(3, b"def") == [Buffered(3, 6)]
    assert peer.send(9, b"jkl") == [Buffered(9, 12)]
    assert peer.send(0, b"abc") == [Data(0, b"abc"), Data(3, b"def")]
    assert peer.send(6, b"ghi") == [Data(6, b"ghi"), Data(9, b"jkl")]
    assert peer.send(12, b"m") == [Data(12, b"m")]


def test_a_retransmission_is_known_whole_in_part_and_with_more(peer: Peer) -> None:
    peer.send(0, b"abcdef")
    assert peer.send(0, b"abcdef") == [Retransmitted(0, 6, 0)]
    assert peer.send(2, b"cd") == [Retransmitted(2, 4, 0)]
    assert peer.send(4, b"efgh") == [Retransmitted(4, 6, 0), Data(6, b"gh")]
    assert peer.send(0, b"abcdefghij") == [Retransmitted(0, 8, 0), Data(8, b"ij")]


def test_a_repetition_of_what_waits_is_known(peer: Peer) -> None:
    peer.send(3, b"defg")
    assert peer.send(3, b"defg") == [Retransmitted(3, 7, 0)]
    assert peer.send(4, b"ef") == [Retransmitted(4, 6, 0)]
    assert peer.send(5, b"fghi") == [Buffered(7, 9)]
    assert peer.send(1, b"bcde") == [Buffered(1, 3)]
    assert peer.send(0, b"abc") == [Data(0, b"abc"), Data(3, b"defg"), Data(7, b"hi")]


def test_a_segment_that_covers_crumbs_makes_one_part_of_them(peer: Peer) -> None:
    for offset in (2, 4, 6):
        peer.send(offset, b"abcdefgh"[offset : offset + 1])
    assert peer.send(1, b"bcdefgh") == [Buffered(1, 8)]
    assert peer.send(0, b"a") == [Data(0, b"a"), Data(1, b"bcdefgh")]


def test_another_copy_of_what_is_out_is_a_conflict_and_the_first_stays(peer: Peer) -> None:
    peer.send(0, b"GET /good HTTP/1.1")
    assert peer.send(0, b"GET /evil HTTP/1.1") == [Retransmitted(0, 18, 0), ConflictSeen(5, 9, b"good")]
    assert peer.send(0, b"GET /good HTTP/1.1") == [Retransmitted(0, 18, 0)]


def test_a_conflict_is_the_range_from_the_first_difference_to_the_last(peer: Peer) -> None:
    peer.send(0, b"\0" * 10)
    assert peer.send(0, b"\0\0\1\0\0\x80\0\0\0\0")[1:] == [ConflictSeen(2, 6, bytes(4))]
    assert peer.send(0, b"\1" + bytes(8) + b"\1")[1:] == [ConflictSeen(0, 10, bytes(10))]
    assert peer.send(0, b"\0\0\xff" + bytes(7))[1:] == [ConflictSeen(2, 3, bytes(1))]


def test_another_copy_of_what_waits_is_a_conflict_and_the_first_stays(peer: Peer) -> None:
    peer.send(4, b"good")
    assert peer.send(4, b"evil") == [ConflictSeen(4, 8, b"good"), Retransmitted(4, 8, 0)]
    assert peer.send(2, b"__ev__") == [ConflictSeen(4, 8, b"good"), Buffered(2, 8)]
    assert peer.send(1, b"?__ev__??") == [ConflictSeen(4, 8, b"good"), Buffered(1, 10)]
    assert peer.send(0, b"!") == [Data(0, b"!"), Data(1, b"?__good??")]


def test_the_parts_at_the_ends_of_a_segment_are_compared_too(peer: Peer) -> None:
    peer.send(2, b"cd")
    peer.send(6, b"gh")
    assert peer.send(3, b"XefY") == [ConflictSeen(3, 4, b"d"), ConflictSeen(6, 7, b"g"), Buffered(4, 6)]
    assert b"".join(event.data for event in peer.send(0, b"ab") if isinstance(event, Data)) == b"abcdefgh"


def test_acknowledged_bytes_are_forgotten_and_their_copies_are_harmless(peer: Peer) -> None:
    peer.send(0, b"good")
    assert peer.hear(4) == []
    assert peer.send(0, b"evil") == [Retransmitted(0, 4, 0)]
    assert peer.send(0, b"evil more") == [Retransmitted(0, 4, 0), Data(4, b" more")]


def test_an_old_acknowledgement_changes_nothing(peer: Peer) -> None:
    peer.send(0, b"abcd")
    assert [peer.hear(offset) for offset in (4, 2, 4, -1000)] == [[], [], [], []]
    assert peer.stream.acknowledged == 4


def test_unacknowledged_bytes_beyond_the_history_are_unknown(peer: Peer) -> None:
    size = 10_000
    pieces = HISTORY_BYTES // (size + SEGMENT_COST_BYTES) + 3
    for number in range(pieces):
        peer.send(number * size, bytes(size))
    assert peer.send(0, b"x" * 5) == [Retransmitted(0, 5, 5)]
    assert peer.send(3 * size - 2, b"xxxx") == [
        Retransmitted(3 * size - 2, 3 * size + 2, 2),
        ConflictSeen(3 * size, 3 * size + 2, bytes(2)),
    ]
    peer.hear(3 * size - 1)
    assert peer.send(3 * size - 2, b"xx") == [Retransmitted(3 * size - 2, 3 * size, 1)]


def test_the_byte_that_the_receiver_lacks_is_remembered_while_the_window_fills_up_behind_it(peer: Peer) -> None:
    peer.hear(0)
    peer.send(0, b"good")
    for offset in range(4, 3 << 20, 65_536):
        peer.send(offset, bytes(65_536))
    assert peer.send(0, b"evil") == [Retransmitted(0, 4, 0), ConflictSeen(0, 4, b"good")]


def test_what_is_too_far_ahead_is_refused_and_may_come_again(peer: Peer) -> None:
    assert peer.send(AHEAD_BYTES, b"x") == [Refused(AHEAD_BYTES, AHEAD_BYTES + 1, Refusal.TOO_FAR_AHEAD)]
    assert peer.send(AHEAD_BYTES - 1, b"x") == [Buffered(AHEAD_BYTES - 1, AHEAD_BYTES)]
    assert peer.send(0, b"a") == [Data(0, b"a")]
    assert peer.send(AHEAD_BYTES, b"x") == [Buffered(AHEAD_BYTES, AHEAD_BYTES + 1)]


def test_crumbs_ahead_are_bounded_by_what_they_cost() -> None:
    budget = Budget()
    peer = Peer(budget)
    offsets: Iterator[int] = iter(range(1, AHEAD_BYTES, 2))
    while (events := peer.send(next(offsets), b"x")) and isinstance(events[0], Buffered):
        pass
    assert isinstance(events[0], Refused)
    assert events[0].reason is Refusal.NO_ROOM
    assert AHEAD_BYTES - 200 < budget.used_bytes <= AHEAD_BYTES


def test_the_budget_refuses_what_waits_and_never_what_is_next() -> None:
    budget = Budget(10_000)
    first, second = Peer(budget), Peer(budget)
    assert first.send(5, bytes(9_000)) == [Buffered(5, 9_005)]
    assert second.send(5, bytes(2_000)) == [Refused(5, 2_005, Refusal.NO_ROOM)]
    assert second.send(0, bytes(20_000)) == [Data(0, bytes(20_000))]
    assert budget.used_bytes == 9_000 + SEGMENT_COST_BYTES
    first.stream.release()
    assert budget.used_bytes == 0
    assert second.send(20_005, bytes(2_000)) == [Buffered(20_005, 22_005)]


def test_history_uses_half_of_the_budget_at_most() -> None:
    budget = Budget(10_000)
    peer = Peer(budget)
    for number in range(20):
        peer.send(number * 1000, bytes(1000))
        assert budget.used_bytes <= 5_000
    assert peer.send(19_000, b"x" * 1000)[1:] == [ConflictSeen(19_000, 20_000, bytes(1000))]
    assert peer.send(0, b"x") == [Retransmitted(0, 1, 1)]


def test_a_fin_closes_the_stream_when_all_before_it_is_out(peer: Peer) -> None:
    assert peer.send(3, b"def", ACK | FIN) == [Buffered(3, 6)]
    assert peer.send(0, b"abc") == [Data(0, b"abc"), Data(3, b"def"), Closed(6, False)]
    assert peer.hear(7) == []
    assert peer.stream.acknowledged == 6
    assert peer.send(6, b"", ACK | FIN) == []
    assert peer.send(7) == []


def test_a_fin_without_bytes_closes_the_stream(peer: Peer) -> None:
    peer.send(0, b"abc")
    assert peer.send(3, b"", ACK | FIN) == [Closed(3, False)]


def test_a_fin_that_is_early_closes_the_stream_later(peer: Peer) -> None:
    assert peer.send(3, b"", ACK | FIN) == []
    assert peer.send(0, b"abc") == [Data(0, b"abc"), Closed(3, False)]


def test_nothing_comes_after_the_end(peer: Peer) -> None:
    peer.send(0, b"abc", ACK | FIN)
    assert peer.send(3, b"d") == [Refused(3, 4, Refusal.BEYOND_THE_END)]
    assert peer.send(0, b"abcd") == [Refused(0, 4, Refusal.BEYOND_THE_END)]
    assert peer.send(9, b"", FIN) == [Refused(9, 9, Refusal.BEYOND_THE_END)]
    assert peer.send(2, b"", FIN) == [Refused(2, 2, Refusal.OTHER_END)]
    assert peer.send(0, b"abc", ACK | FIN) == [Retransmitted(0, 3, 0)]


def test_an_end_before_what_came_already_is_refused(peer: Peer) -> None:
    peer.send(5, b"fgh")
    assert peer.send(6, b"", FIN) == [Refused(6, 6, Refusal.OTHER_END)]
    assert peer.send(0, b"ab", FIN) == [Refused(0, 2, Refusal.OTHER_END)]
    assert peer.stream.end is None


@pytest.mark.parametrize("offset", [2, 3, 4])
def test_an_rst_from_what_is_acknowledged_to_what_came_is_believed(peer: Peer, offset: int) -> None:
    peer.send(0, b"abcd")
    peer.hear(2)
    assert peer.send(offset, b"goodbye", RST) == [Closed(4, True)]


@pytest.mark.parametrize("offset", [-1, 1, 5, 100_000])
def test_an_rst_elsewhere_is_not_believed(peer: Peer, offset: int) -> None:
    peer.send(0, b"abcd")
    peer.hear(2)
    assert peer.send(offset, b"", RST) == [Refused(offset, offset, Refusal.RESET_OUT_OF_WINDOW)]


def test_bytes_after_an_rst_are_read_on(peer: Peer) -> None:
    assert peer.send(0, b"", RST) == [Closed(0, True)]
    assert peer.send(0, b"ha", FIN) == [Data(0, b"ha"), Closed(2, False)]


def test_an_rst_that_answers_a_syn_closes_a_stream_that_never_began() -> None:
    assert Stream(Budget()).receive(0, b"", RST | ACK) == [Closed(0, True)]


@pytest.mark.parametrize("byte", [b"", b"\0", b"x"], ids=["empty", "zero", "garbage"])
def test_keep_alive_probes_are_nothing_new(peer: Peer, byte: bytes) -> None:
    peer.send(0, b"abcd")
    peer.hear(4)
    for _ in range(3):
        assert peer.send(3, byte) == ([Retransmitted(3, 4, 0)] if byte else [])
    assert peer.send(4, b"e") == [Data(4, b"e")]


def test_keep_alive_probes_before_the_first_byte_are_nothing_new(peer: Peer) -> None:
    peer.hear(0)
    assert peer.send(-1, b"\0") == [Retransmitted(-1, 0, 0)]
    assert peer.send(0, b"a") == [Data(0, b"a")]


def test_zero_window_probes_are_read_once(peer: Peer) -> None:
    peer.send(0, b"abcd")
    peer.hear(4)
    assert peer.send(4, b"e") == [Data(4, b"e")]
    assert [peer.send(4, b"e") for _ in range(3)] == [[Retransmitted(4, 5, 0)]] * 3
    assert peer.send(4, b"efgh") == [Retransmitted(4, 5, 0), Data(5, b"fgh")]


def test_bytes_in_a_syn_are_the_first_of_the_stream() -> None:
    stream = Stream(Budget())
    assert stream.receive(ISN, b"GET", SYN) == [Data(0, b"GET")]
    assert stream.receive(ISN + 1, b"GET /", ACK) == [Retransmitted(0, 3, 0), Data(3, b" /")]


def test_bytes_in_a_syn_cannot_be_taken_back() -> None:
    stream = Stream(Budget())
    stream.receive(ISN, b"good", SYN)
    stream.acknowledge(ISN + 1)
    assert stream.receive(ISN + 1, b"evil", ACK) == [Retransmitted(0, 4, 0), ConflictSeen(0, 4, b"good")]


def test_a_syn_may_be_sent_again(peer: Peer) -> None:
    assert peer.send(-1, b"", SYN) == []
    peer.send(0, b"abc")
    assert peer.send(-1, b"", SYN) == []
    assert peer.send(3, b"d") == [Data(3, b"d")]


def test_another_syn_counts_until_one_is_acknowledged(peer: Peer) -> None:
    peer.send(0, b"first")
    assert peer.stream.receive(1000, b"", SYN) == [Restarted()]
    assert peer.stream.receive(1001, b"second") == [Data(0, b"second")]
    peer.stream.acknowledge(1001)
    assert peer.stream.receive(ISN, b"third", SYN) == [SynSeen(ISN)]
    assert peer.stream.receive(1007, b"!") == [Data(6, b"!")]


def test_the_acknowledgement_says_which_syn_counts(peer: Peer) -> None:
    assert peer.stream.receive(ISN + 500, b"fake", SYN) == [Data(0, b"fake")]
    assert peer.hear(0) == [Restarted()]
    assert peer.send(0, b"true") == [Data(0, b"true")]


def test_a_peer_that_remembers_the_connection_before_does_not_stop_the_new_one(peer: Peer) -> None:
    # RFC 9293 3.5.1: it answers the SYN with an old acknowledgement, gets an RST for it, and the SYN comes again.
    assert peer.stream.acknowledge(0x12345678) == []
    assert peer.stream.receive(0x12345678, b"", RST) == [Closed(0, True)]
    assert peer.send(-1, b"", SYN) == []
    peer.hear(0)
    assert peer.send(0, b"hello") == [Data(0, b"hello")]
    assert not peer.stream.picked_up


def test_a_stream_without_its_syn_begins_with_the_first_byte_seen() -> None:
    peer = Peer(syn=False)
    assert peer.send(7000, b"middle") == [Data(0, b"middle")]
    assert peer.stream.picked_up
    assert peer.send(6998, b"--middle") == [Retransmitted(-2, 6, 2)]
    assert peer.send(7006, b"!") == [Data(6, b"!")]


def test_a_stream_without_its_syn_begins_where_the_receiver_waits() -> None:
    peer = Peer(syn=False)
    assert peer.hear(7000) == []
    assert peer.send(7003, b"def") == [Buffered(3, 6)]
    assert peer.send(7000, b"abc") == [Data(0, b"abc"), Data(3, b"def")]


def test_a_syn_corrects_a_stream_that_was_picked_up() -> None:
    peer = Peer(syn=False)
    peer.send(7000, b"forged")
    assert peer.send(-1, b"", SYN) == [Restarted()]
    assert peer.send(0, b"true") == [Data(0, b"true")]
    assert not peer.stream.picked_up


def test_a_stream_that_was_picked_up_and_confirmed_is_not_begun_anew() -> None:
    peer = Peer(syn=False)
    peer.send(7000, b"middle")
    peer.hear(7006)
    assert peer.send(-1, b"", SYN) == [SynSeen(ISN)]
    assert peer.send(7006, b"!") == [Data(6, b"!")]


def test_what_the_receiver_has_and_the_box_never_saw_is_a_gap(peer: Peer) -> None:
    peer.send(0, b"abc")
    peer.hear(0)
    peer.send(5, b"fg")
    peer.send(9, b"jk")
    assert peer.hear(11) == [GapSeen(3, 5), Data(5, b"fg"), GapSeen(7, 9), Data(9, b"jk")]
    assert peer.send(11, b"l") == [Data(11, b"l")]
    assert peer.send(3, b"de") == [Retransmitted(3, 5, 0)]


def test_a_gap_ends_where_the_receiver_is(peer: Peer) -> None:
    peer.hear(0)
    peer.send(9, b"jk")
    assert peer.hear(5) == [GapSeen(0, 5)]
    assert peer.send(5, b"fghi") == [Data(5, b"fghi"), Data(9, b"jk")]


def test_a_gap_before_the_end_closes_the_stream(peer: Peer) -> None:
    peer.hear(0)
    peer.send(5, b"", FIN)
    assert peer.hear(6) == [GapSeen(0, 5), Closed(5, False)]


def test_a_flow_that_was_passed_by_for_long_is_found_again(peer: Peer) -> None:
    peer.hear(0)
    far = 1 << 30
    assert peer.send(far, b"x") == [Refused(far, far + 1, Refusal.TOO_FAR_AHEAD)]
    assert peer.hear(far) == [GapSeen(0, far)]
    assert peer.send(far, b"x") == [Data(far, b"x")]


@pytest.mark.parametrize(("urgent", "at"), [(0, 4), (1, 4), (3, 6), (9, 12)])
def test_the_urgent_byte_is_in_the_stream_and_pointed_at(peer: Peer, urgent: int, at: int) -> None:
    peer.send(0, b"abcd")
    assert peer.send(4, b"efgh", ACK | URG, urgent) == [UrgentSeen(at), Data(4, b"efgh")]


def test_an_urgent_pointer_without_bytes_is_pointed_out_too(peer: Peer) -> None:
    assert peer.send(0, b"", ACK | URG, 2) == [UrgentSeen(1)]


def test_offsets_go_on_where_numbers_wrap_around(peer: Peer) -> None:
    stride = 1 << 30
    peer.hear(0)
    for start in range(0, 9 * stride, stride):
        assert peer.send(start + 3, b"def") == [Buffered(start + 3, start + 6)]
        assert peer.send(start, b"abc") == [Data(start, b"abc"), Data(start + 3, b"def")]
        assert peer.send(start + 2, b"cd") == [Retransmitted(start + 2, start + 4, 0)]
        peer.hear(start + 6)
        assert peer.hear(start + stride) == [GapSeen(start + 6, start + stride)]


def test_a_byte_that_was_acknowledged_amid_a_segment_is_compared_no_more() -> None:
    # The garbage byte of a keep-alive (RFC 9293 3.8.4) repeats the last one that was acknowledged.
    stream = Stream(Budget())
    stream.receive(100, b"", SYN)
    stream.receive(101, b"abcdef")
    stream.acknowledge(104)
    assert stream.receive(103, b"\0", ACK) == [Retransmitted(2, 3, 0)]
    assert stream.receive(103, b"\0\0", ACK) == [Retransmitted(2, 4, 0), ConflictSeen(3, 4, b"d")]
