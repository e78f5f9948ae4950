"""Whatever packets come, what goes on is a valid packet, and nobody reads a byte that is not meant for them; and whichever packets
are lost, two ends that follow RFC 9293 get to the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from mamori.inspect.craft import CraftError, overwrite, parse_syn_options, refuse_dns, trim
from mamori.inspect.findings import Coding
from mamori.inspect.interpose import Answer, Cut, Deliver, Drop, Interposer, Pass, Phase, Side
from mamori.inspect.packet import ACK, FIN, RST, SYN, PacketError, parse_packet
from tests.support.crafted import SUPER, check_crafted
from tests.support.packets import CLIENT, CLIENT6, SERVER, SERVER6, UDP, extension, ipv4, ipv6, tcp, udp

MASK = 0xFFFFFFFF
STARTS = 0xFFFFFF00, 0x10
THEIRS, OURS = b"\xee", b"\xaa"

near = st.integers(-3000, 5000) | st.integers(0, MASK)
payloads = st.integers(0, 60).map(lambda size: THEIRS * size) | st.sampled_from([THEIRS * 1460, THEIRS * 9000])
options = st.binary(max_size=40).map(lambda raw: raw + b"\1" * (-len(raw) % 4))
packets = st.tuples(
    *(st.integers(0, 1), near, near, payloads, st.integers(0, 0x1FF) | st.sampled_from([ACK, ACK | FIN, RST, ACK | RST])),
    *(st.sampled_from([0, 1, SUPER]), st.booleans(), options, st.sampled_from([0, 0, 0, 1, 30])),
)
kinds = st.sampled_from([Cut(0), Cut(1)]) | st.integers(0, 3000).map(lambda size: Answer(OURS * size, 536))


def is_after(number: int, other: int) -> bool:
    return 0 < (number - other & MASK) < 1 << 31


@dataclass
class Believed:
    """What may be known of one direction from its receiver's own words."""

    limit: int
    acknowledged: int

    def hear(self, number: int, highest: int | None) -> None:
        if not is_after(number, self.acknowledged) or (highest is not None and is_after(number, highest)):
            return
        self.acknowledged = number
        if highest is None and is_after(number, self.limit):
            self.limit = number


Drawn = tuple[int, int, int, bytes, int, int, bool, bytes, int]


def build(drawn: Drawn) -> bytes:
    direction, at, ack, payload, flags, _, is_ipv6, option_bytes, cut = drawn
    sequence, acknowledgement = STARTS[direction] + at & MASK, STARTS[1 - direction] + ack & MASK
    segment = tcp(payload, sequence=sequence, acknowledgement=acknowledgement, flags=flags, options=option_bytes, urgent=9)
    ends = (CLIENT6, SERVER6) if is_ipv6 else (CLIENT, SERVER)
    whole = ipv6(extension(6) + segment, 60, ends=ends) if is_ipv6 else ipv4(segment, ends=ends)
    return whole[: len(whole) - cut] if cut else whole


@given(kinds, st.booleans(), st.lists(packets, max_size=30))
def test_nobody_reads_a_byte_that_is_not_meant_for_them(kind: Cut | Answer, is_fixed: bool, arrivals: list[Drawn]) -> None:
    interposer = Interposer(kind, (Side(STARTS[0], STARTS[0]), Side(STARTS[1], STARTS[1])), is_length_fixed=is_fixed)
    sides = [Believed(start, start) for start in STARTS]
    answer = kind.data if isinstance(kind, Answer) else b""
    end = STARTS[1] + len(answer) + 1 & MASK if isinstance(kind, Answer) else None
    for drawn in arrivals:
        direction, info, data = drawn[0], drawn[5], build(drawn)
        try:
            packet = parse_packet(data)
        except PacketError:
            continue
        if not packet.flags & SYN and packet.flags & ACK and not packet.flags & RST:
            sides[1 - direction].hear(packet.acknowledgement, end if direction == 0 else None)
        outcome = interposer.receive(direction, data, packet, info)
        if isinstance(outcome, Pass):
            assert packet.flags & SYN
            assert not packet.payload
        if not isinstance(outcome, Deliver):
            continue
        made = check_crafted(outcome.data, info)
        assert (made.source, made.destination, made.source_port) == (packet.source, packet.destination, packet.source_port)
        if is_fixed or info & SUPER:
            assert len(made.payload) == len(packet.payload)
        if made.flags & RST:
            assert not bytes(made.payload).strip(b"\0")
            continue
        for index, byte in enumerate(bytes(made.payload)):
            place = made.sequence + index - sides[direction].limit & MASK
            if place >= 1 << 31:
                assert byte in (0, THEIRS[0]), "before the limit: an old byte, or one that may pass"
            else:
                assert direction == 1
                assert not is_fixed
                assert byte == answer[place]


@given(st.lists(packets, max_size=10), st.integers(-20, 20), st.integers(0, 70), st.integers(0, 70))
def test_whatever_is_crafted_is_valid_or_the_one_error(arrivals: list[Drawn], offset: int, low: int, high: int) -> None:
    for drawn in arrivals:
        data, info = build(drawn), drawn[5]
        try:
            packet = parse_packet(data)
        except PacketError:
            continue
        parse_syn_options(data, packet)
        try:
            made = overwrite(data, packet, info, offset, [(low, high, Coding.BINARY)])
            assert len(check_crafted(made, info).payload) == len(packet.payload)
            shorter = check_crafted(trim(data, packet, info, low, high), info)
            assert len(shorter.payload) == len(packet.payload) - low - high
        except CraftError:
            continue


@given(st.binary(max_size=80), st.booleans(), st.booleans())
@example(bytes.fromhex("1234 8580 0001 0001 0000 0000 0161 00 0001 0001"), False, True)
def test_any_dns_message_becomes_a_refusal_no_longer_than_it_or_the_one_error(body: bytes, is_six: bool, is_fixed: bool) -> None:
    message = body[:2] + b"\x80\0\0\1" + body[6:]
    for said in (body, message):
        data = ipv6(udp(said), UDP) if is_six else ipv4(udp(said), UDP)
        try:
            made = refuse_dns(data, parse_packet(data), 0, is_length_fixed=is_fixed)
        except CraftError:
            continue
        assert len(made) == len(data) if is_fixed else len(made) <= len(data)
        assert parse_packet(made).payload[3] & 15 == 3


@dataclass
class End:
    """As much of RFC 9293 as matters: it acknowledges at once, keeps what comes early, answers what it does not know with RST."""

    number: int  # of its next byte that is not acknowledged
    expects: int
    unsent: bytes = b""
    is_open: bool = True
    is_reset: bool = False
    fin_at: int | None = None
    got: bytearray = field(default_factory=bytearray)
    early: dict[int, tuple[bytes, int]] = field(default_factory=dict)

    def due(self) -> list[tuple[int, int, bytes, int]]:
        """What it sends when its timer ends: all that is not acknowledged."""
        if not self.is_open or (not self.unsent and self.fin_at is None):
            return []
        return [(self.number, self.expects, self.unsent, ACK | (FIN if self.fin_at is not None else 0))]

    def hear(self, sequence: int, ack: int, payload: bytes, flags: int) -> list[tuple[int, int, bytes, int]]:
        if not self.is_open:
            return [] if flags & RST else [(ack, 0, b"", RST)]
        if flags & RST:
            self.is_reset = sequence == self.expects
            self.is_open = not self.is_reset
            return [] if self.is_reset else [(self.number, self.expects, b"", ACK)]
        taken = ack - self.number & MASK
        if flags & ACK and taken <= len(self.unsent):
            self.number, self.unsent = ack, self.unsent[taken:]
        if not payload and not flags & FIN:
            return []
        self.early[sequence] = payload, flags
        while self.expects in self.early:
            part, part_flags = self.early.pop(self.expects)
            self.got += part
            self.expects = self.expects + len(part) + bool(part_flags & FIN) & MASK
            if part_flags & FIN:
                self.fin_at = self.number
        replies = [(self.number, self.expects, b"", ACK)]
        return replies + self.due() if self.fin_at is not None else replies


@given(st.integers(1, 2000), st.integers(1, 700), st.lists(st.booleans(), max_size=60))
@example(1500, 100, [])
def test_whichever_packets_are_lost_the_client_gets_all_or_a_reset_and_the_server_nothing(
    size: int, request: int, fates: list[bool]
) -> None:
    client, server = End(STARTS[0], STARTS[1], THEIRS * request), End(STARTS[1], STARTS[0])
    answer = bytes(range(1, 252)) * 8
    interposer = Interposer(Answer(answer[:size], 536), (Side(STARTS[0], STARTS[0]), Side(STARTS[1], STARTS[1])))
    losses = iter(fates)
    for _ in range(120):
        flight = [(0, segment) for segment in client.due()]
        while flight:
            direction, (sequence, ack, payload, flags) = flight.pop(0)
            data = ipv4(tcp(payload, sequence=sequence, acknowledgement=ack, flags=flags))
            if next(losses, False):
                continue
            outcome = interposer.receive(direction, data, parse_packet(data), 0)
            assert not isinstance(outcome, Pass)
            if isinstance(outcome, Drop) or next(losses, False):
                continue
            made = check_crafted(outcome.data)
            to = (server, client)[direction]
            replies = to.hear(made.sequence, made.acknowledgement, bytes(made.payload), made.flags)
            flight += [(1 - direction, reply) for reply in replies]
        if not client.is_open and not server.is_open:
            break
    assert not server.got
    assert not client.is_open
    assert not server.is_open
    assert interposer.phase is Phase.OVER
    assert answer[:size].startswith(bytes(client.got))
    if not any(fates):
        assert bytes(client.got) == answer[:size]
