"""Transcripts: what each end sends, and what becomes of it. The kernels' part is in tests/net/test_interpose.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.interpose import (
    MAX_ANSWER_BYTES,
    MAX_CARRIERS,
    MAX_UNANSWERED,
    TABLE,
    Answer,
    Cut,
    Deliver,
    Drop,
    Interposer,
    Pass,
    Phase,
    Side,
    Signal,
)
from mamori.inspect.packet import ACK, FIN, PSH, RST, SYN, Packet, parse_packet
from tests.support.crafted import SUPER, check_crafted
from tests.support.packets import CLIENT, CLIENT6, SERVER, SERVER6, UDP, ipv4, ipv6, seeded, tcp, udp

C, S = 0xFFFFFFF0, 0xFFFFFFFE  # what each side is to get next; both wrap
REQUEST = b"GET /blocked HTTP/1.1\r\n\r\n"
PAGE = seeded(3).randbytes(1200)
PART = 496  # 536 without 40 bytes for options
SIDES = Side(C, C), Side(S, S)


@dataclass
class Talk:
    """An Interposer between two ends; numbers are relative to C and S."""

    interposer: Interposer
    version: int = 4
    got: bytearray = field(default_factory=bytearray)

    def send(
        self, direction: int, at: int, ack: int, payload: bytes = b"", flags: int = ACK, info: int = 0
    ) -> tuple[str, int, int, int, bytes] | Pass | Drop:
        """What becomes of a packet: flags, the two numbers and the payload, of what is delivered."""
        numbers = (C, S)[direction], (S, C)[direction]
        ports = (80, 40000) if direction else (40000, 80)
        segment = tcp(
            payload,
            ports=ports,
            sequence=numbers[0] + at & 0xFFFFFFFF,
            acknowledgement=numbers[1] + ack & 0xFFFFFFFF,
            flags=flags,
        )
        ends = (CLIENT, SERVER) if self.version == 4 else (CLIENT6, SERVER6)
        make = ipv4 if self.version == 4 else ipv6
        data = make(segment, ends=ends[::-1] if direction else ends)
        outcome = self.interposer.receive(direction, data, parse_packet(data), info)
        if not isinstance(outcome, Deliver):
            return outcome
        made = check_crafted(outcome.data, info)
        return names(made.flags), near(made.sequence, numbers[0]), near(made.acknowledgement, numbers[1]), *self._payload(made)

    def _payload(self, made: Packet) -> tuple[int, bytes]:
        return len(made.payload), bytes(made.payload)

    def client(self, at: int, ack: int, payload: bytes = b"", flags: int = ACK, info: int = 0) -> object:
        return short(self.send(ORIGINATOR, at, ack, payload, flags, info))

    def server(self, at: int, ack: int, payload: bytes = b"", flags: int = ACK, info: int = 0) -> object:
        return short(self.send(RESPONDER, at, ack, payload, flags, info))


def phase_of(talk: Talk) -> Phase:
    return talk.interposer.phase


def names(flags: int) -> str:
    return "".join(letter for letter, flag in zip("FSRPA", (FIN, SYN, RST, PSH, ACK), strict=True) if flags & flag)


def near(number: int, base: int) -> int:
    """The number relative to its base; absolute 0 of an RST without ACK is what it is."""
    offset = number - base & 0xFFFFFFFF
    return offset - (1 << 32) if offset >> 31 else offset


def short(outcome: tuple[str, int, int, int, bytes] | Pass | Drop) -> object:
    return outcome if isinstance(outcome, Pass | Drop) else (*outcome[:3], outcome[4])


def answering(version: int = 4, page: bytes = PAGE) -> Talk:
    return Talk(Interposer(Answer(page, 536), SIDES), version)


@pytest.mark.parametrize("version", [4, 6])
def test_an_answer_goes_out_backwards_and_ends_both_sides(version: int) -> None:
    talk, n, end = answering(version), len(REQUEST), len(PAGE) + 1
    probe = ("A", -1, 0, b"\0")
    assert talk.client(0, 0, REQUEST, PSH | ACK) == probe
    assert talk.server(0, 0) == ("FPA", 2 * PART, 1, PAGE[2 * PART :])
    assert talk.client(n, 0) == probe
    assert talk.server(0, 0) == ("PA", PART, 2, PAGE[PART : 2 * PART])
    assert talk.client(n, 0) == probe
    assert talk.server(0, 0) == ("PA", 0, 3, PAGE[:PART])
    assert phase_of(talk) is Phase.ANSWERING
    assert talk.client(n, end) == probe, "the server does not hear of bytes that it did not send"
    assert phase_of(talk) is Phase.DELIVERED
    assert talk.server(0, 0) == ("A", end, n, b"")
    assert talk.client(n, end, flags=FIN | ACK) == ("RA", 0, 0, b"")
    assert not talk.interposer.is_done
    assert talk.client(n, end, flags=FIN | ACK) == probe
    assert talk.server(end, 0, flags=RST) == ("R", end, near(0, C), b"")
    assert talk.interposer.is_done


def test_a_part_that_was_lost_is_sent_again_when_the_client_does_so() -> None:
    talk = answering()
    talk.client(0, 0, REQUEST)
    for _ in range(3):
        talk.server(0, 0)
    assert talk.client(3, 0, REQUEST[3:]) == ("A", -1, 0, b"\0")
    assert talk.server(0, 0) == ("PA", 0, 4, PAGE[:PART]), "the one that the client lacks"
    talk.client(4, PART, REQUEST[4:])
    assert talk.server(0, 0) == ("PA", PART, 5, PAGE[PART : 2 * PART])
    talk.client(5, 2 * PART, REQUEST[5:])
    assert talk.server(0, 0) == ("FPA", 2 * PART, 6, PAGE[2 * PART :])
    talk.client(6, len(PAGE), REQUEST[6:])
    assert talk.server(0, 0) == ("FPA", len(PAGE), 7, b""), "only FIN is missing"


def test_the_clients_last_byte_is_not_acknowledged_before_it_has_everything() -> None:
    talk = answering()
    talk.client(0, 0, b"123")
    heard = [talk.server(0, 0) for _ in range(10)]
    assert [part[2] for part in heard if isinstance(part, tuple)] == [1, *[2] * 9]


def test_a_client_that_sends_on_after_the_answer_is_acknowledged_until_it_ends() -> None:
    talk, end = answering(), len(PAGE) + 1
    talk.client(0, 0, REQUEST)
    talk.server(0, 0)
    assert talk.client(25, end, b"body") == ("A", -1, 0, b"\0")
    assert talk.server(0, 0) == ("A", end, 29, b"")
    assert talk.client(29, end, b"more") == ("A", -1, 0, b"\0")
    assert talk.server(0, 0) == ("A", end, 33, b"")
    assert talk.client(33, end) == ("RA", 0, 0, b""), "it has nothing more to say"


def test_a_client_that_closed_its_side_before_gets_its_reset_in_the_end() -> None:
    talk, end = answering(), len(PAGE) + 1
    assert talk.client(0, 0, REQUEST, FIN | ACK) == ("A", -1, 0, b"\0")
    talk.server(0, 0)
    assert talk.client(26, end) == ("RA", 0, 0, b"")
    assert talk.client(0, end, REQUEST, FIN | ACK) == ("A", -1, 0, b"\0")
    assert talk.server(0, 0, flags=RST) == ("R", end, near(0, C), b"")


def test_a_server_without_the_connection_carries_the_answer_in_its_resets() -> None:
    talk = answering(page=b"short")
    talk.client(0, 0, REQUEST)
    assert talk.server(0, 0, flags=RST) == ("FPA", 0, 1, b"short")
    talk.client(25, 6)
    assert talk.server(0, 0, flags=RST) == ("A", 6, 25, b"")


def test_the_servers_own_words_and_its_end_become_the_answer() -> None:
    talk = answering(page=b"short")
    talk.client(0, 0, REQUEST)
    assert talk.server(0, 0, b"HTTP/1.1 408 Timeout", PSH | ACK | FIN) == ("FPA", 0, 1, b"short")
    assert talk.server(0, 0, bytes(4000), info=SUPER) == Drop(), "a super-packet cannot be made shorter"


def test_bytes_from_before_the_decision_go_first_in_both_directions() -> None:
    talk = Talk(Interposer(Answer(PAGE, 536), (Side(C, C - 10 & 0xFFFFFFFF), Side(S, S - 20 & 0xFFFFFFFF))))
    assert talk.client(-10, -20, b"0123456789" + REQUEST, PSH | ACK) == ("PA", -10, -20, b"0123456789")
    assert talk.client(0, -20, REQUEST, PSH | ACK) == ("A", -11, -20, b"\0"), "a byte that it has, not one that it may lack"
    assert talk.server(-20, -10, b"x" * 20 + b"never", ACK | FIN) == ("A", -20, -10, b"x" * 20)
    assert talk.server(-20, 0, b"x" * 10) == ("A", -20, 0, b"x" * 10)
    assert talk.server(0, 0) == ("FPA", 2 * PART, 1, PAGE[2 * PART :])


def test_earlier_bytes_that_come_again_do_not_tell_the_server_of_the_answer() -> None:
    talk = Talk(Interposer(Answer(PAGE, 536), (Side(C, C - 10 & 0xFFFFFFFF), Side(S, S))))
    assert talk.client(-10, PART, b"0123456789") == ("A", -10, 0, b"0123456789")


def test_a_super_packet_becomes_a_probe_of_zeros_that_ends_at_what_is_acknowledged() -> None:
    talk = answering()
    assert talk.client(0, 0, b"r" * 4000, info=SUPER) == ("A", -4000, 0, bytes(4000))


def test_a_client_that_gives_up_takes_the_server_with_it() -> None:
    talk = answering()
    talk.client(0, 0, REQUEST)
    assert talk.client(25, 0, flags=RST) == ("R", 0, near(0, S), b"")
    assert talk.interposer.is_done


def test_a_server_that_does_not_answer_is_cut_off() -> None:
    talk = answering()
    for _ in range(MAX_UNANSWERED):
        assert talk.client(0, 0, REQUEST) == ("A", -1, 0, b"\0")
    assert talk.client(0, 0, REQUEST) == ("RA", 0, 0, b"")
    assert talk.client(0, 0, REQUEST) == ("A", -1, 0, b"\0")
    assert talk.server(0, 0, flags=RST) == ("R", 0, near(0, C), b"")
    assert talk.interposer.is_done


def test_a_burst_of_a_client_is_no_reason_to_give_up() -> None:
    talk = answering()
    for number in range(100):
        talk.client(1000 * number, 0, b"p" * 1000)
    assert phase_of(talk) is Phase.ANSWERING


def test_a_client_that_never_takes_the_answer_is_given_up() -> None:
    talk = answering()
    for _ in range(MAX_CARRIERS + 1):
        talk.client(0, 0, REQUEST)
        talk.server(0, 0)
    talk.client(0, 0, REQUEST)
    assert phase_of(talk) is Phase.SHOT


def test_a_cut_resets_its_receiver_and_lets_that_reset_the_sender() -> None:
    talk = Talk(Interposer(Cut(RESPONDER), SIDES))
    assert talk.server(0, 0, b"virus", PSH | ACK) == ("RA", 0, 0, b"")
    assert talk.client(0, 0) == ("A", 0, 0, b""), "it was on its way"
    assert talk.server(5, 0, b"more") == ("A", -1, 0, b"\0")
    assert talk.client(0, 0, flags=RST) == ("R", 0, near(0, S), b"")
    assert talk.interposer.is_done
    assert talk.server(9, 0, b"late") == ("A", -1, 0, b"\0")


def test_a_target_that_speaks_first_ends_the_side_that_only_waits_and_then_its_own() -> None:
    talk = Talk(Interposer(Cut(ORIGINATOR), SIDES))
    assert talk.server(0, 0, b"words", PSH | ACK) == ("R", 0, near(0, C), b"")
    assert talk.server(0, 0, b"words", PSH | ACK) == ("A", 0, 0, b""), "the client has no connection any more"
    assert talk.client(0, 0, flags=RST) == ("R", 0, near(0, S), b"")
    assert talk.interposer.is_done


def test_a_reset_that_was_not_believed_is_sent_again_with_the_number_that_the_answer_says() -> None:
    talk = Talk(Interposer(Cut(RESPONDER), (Side(C, C), Side(S, S - 3000 & 0xFFFFFFFF))))
    assert talk.server(0, 0, b"virus") == ("RA", 0, 0, b"")
    assert talk.server(5, 0, b"more") == ("A", -3001, 0, b"\0")
    assert talk.client(0, -1500) == ("A", 0, -1500, b"")
    assert talk.server(9, 0, b"more") == ("RA", -1500, 0, b"")
    assert talk.client(0, -1500, flags=RST) == ("R", 0, near(0, S), b"")


def test_in_a_cut_nobody_gets_a_byte_and_nobody_a_fin() -> None:
    talk = Talk(Interposer(Cut(ORIGINATOR), SIDES))
    assert talk.client(0, 0, b"v" * 4000, info=SUPER) == ("RA", 0, 0, bytes(4000))
    assert talk.server(0, 0, b"words", FIN | ACK) == ("A", 0, 0, b"")
    assert talk.server(0, 0, bytes(4000), info=SUPER) == Drop()
    assert talk.client(4000, 0, b"v" * 4000, info=SUPER) == ("A", -4000, 0, bytes(4000))


def test_with_a_fixed_length_every_packet_keeps_its_own() -> None:
    talk = Talk(Interposer(Answer(PAGE), SIDES, is_length_fixed=True))
    n = len(REQUEST)
    assert talk.client(0, 0, REQUEST) == ("RA", 0, 0, bytes(n))
    assert talk.client(0, 0, REQUEST) == ("A", -n, 0, bytes(n))
    assert talk.server(0, 0, b"words") == Drop()
    assert talk.server(0, 0) == ("A", 0, 0, b"")
    assert talk.client(n, 0) == ("RA", 0, 0, b"")
    assert talk.client(n, 0) == ("A", -1, 0, b"")
    assert talk.server(0, 0, b"text", RST) == ("R", 0, near(0, C), bytes(4))


def test_what_belongs_to_another_connection_or_is_no_segment_is_not_touched() -> None:
    talk = answering()
    assert talk.client(-500, 0, flags=SYN) == Pass()
    assert talk.server(-500, 0, flags=SYN | ACK) == Pass()
    assert talk.client(-500, 0, b"data", SYN) == Drop()
    for data in (ipv4(udp(b"x"), UDP), ipv4(b"middle..", offset=64, more=True)):
        assert talk.interposer.receive(ORIGINATOR, data, parse_packet(data), 0) == Drop()


def test_an_answer_longer_than_a_page_is_a_mistake_of_the_caller() -> None:
    Interposer(Answer(bytes(MAX_ANSWER_BYTES)), SIDES)
    with pytest.raises(ValueError, match="32769"):
        Interposer(Answer(bytes(MAX_ANSWER_BYTES + 1)), SIDES)


def test_the_table_knows_every_signal_in_every_phase() -> None:
    assert {phase: set(row) for phase, row in TABLE.items()} == {phase: set(Signal) for phase in Phase}
