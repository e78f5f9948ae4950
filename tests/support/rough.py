"""A rough network for a play: segments cut anywhere, late, twice, overlapping, with other bytes, lost, in fragments.

    rough = Rough(network, connection, chance, Weather(…))
    rough.perform(play)         # until each side has all that the other one said, or nothing moves any more

All chance comes from one seed, so a failure is that seed. Nothing here looks into the engine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count, pairwise

from tests.support import packets
from tests.support.conversation import CLIENT, SERVER, Carrier, Connection, Network, over_ipv4
from tests.support.plays import Play

FIN, RST, ACK, URG, PSH = 1, 4, 16, 32, 8
_ROUNDS = 60
"""Retransmissions until a host gives up; a blocked one needs some for the page."""
_STILL_ROUNDS = 25
"""Without anything that was read. By then the scanner has answered, or the longest wait is over."""
_PAUSES_S = (0.0, 0.0, 0.001, 0.03, 0.06, 0.3)


@dataclass(frozen=True)
class Weather:
    """`is_hostile`: segments with other bytes come, too. `is_prompt`: the scanner answers at once. `is_quick`: a line is said in
    one go, as what fits into the window of hold.py must be."""

    is_hostile: bool = False
    is_quick: bool = False
    is_prompt: bool = True
    has_fragments: bool = False
    is_ipv6: bool = False
    is_super: bool = False


def over_ipv6(segment: bytes, side: int) -> list[tuple[bytes, int]]:
    ends = (packets.CLIENT6, packets.SERVER6)
    return [(packets.ipv6(segment, ends=ends if side == CLIENT else ends[::-1]), 0)]


def as_super_packets(segment: bytes, side: int) -> list[tuple[bytes, int]]:
    """What segmentation offload makes of a burst: its checksum is not final, and its length may not change (craft.py)."""
    (packet, _), *_ = over_ipv4(segment, side)
    return [(packet, 3)]


def fragmented(chance: random.Random, is_ipv6: bool) -> Carrier:
    """Some segments in fragments, in any order, some of those twice."""
    numbers = count(1)

    def carry(segment: bytes, side: int) -> list[tuple[bytes, int]]:
        if len(segment) < 40 or chance.random() < 0.5:
            return (over_ipv6 if is_ipv6 else over_ipv4)(segment, side)
        ends = (packets.CLIENT6, packets.SERVER6) if is_ipv6 else (packets.CLIENT, packets.SERVER)
        ends = ends if side == CLIENT else ends[::-1]
        number, cut = next(numbers), 8 * chance.randrange(1, len(segment) // 8)
        parts = [(0, segment[:cut], True), (cut, segment[cut:], False)]
        chance.shuffle(parts)
        parts += parts[: chance.random() < 0.2]
        return [(_fragment(part, number, ends, is_ipv6), 0) for part in parts]

    return carry


def _fragment(part: tuple[int, bytes, bool], number: int, ends: tuple[bytes, bytes], is_ipv6: bool) -> bytes:
    offset, data, more = part
    if not is_ipv6:
        return packets.ipv4(data, ends=ends, identification=number, offset=offset, more=more)
    return packets.ipv6(packets.fragment_header(6, offset, more=more, identification=number) + data, 44, ends=ends)


def carrier_of(weather: Weather, chance: random.Random) -> Carrier:
    if weather.has_fragments:
        return fragmented(chance, weather.is_ipv6)
    if weather.is_super:
        return as_super_packets
    return over_ipv6 if weather.is_ipv6 else over_ipv4


class Rough:
    """See the module. `said` is what each side has said so far."""

    def __init__(self, network: Network, connection: Connection, chance: random.Random, weather: Weather) -> None:
        self._network = network
        self._connection = connection
        self._chance = chance
        self._weather = weather
        self.said = (bytearray(), bytearray())
        self.has_ended = [False, False]

    def perform(self, play: Play) -> None:
        last = {side: number for number, (side, _) in enumerate(play.lines)}
        for number, (side, text) in enumerate(play.lines):
            self.say(side, text, play.ends and last[side] == number)

    def say(self, side: int, text: bytes, is_last: bool = False) -> None:
        """One line, until it has arrived or nothing moves any more."""
        chance, start = self._chance, len(self.said[side])
        self.said[side].extend(text)
        self.has_ended[side] = is_last
        for at, end in self._pieces(start, len(self.said[side])):
            self._disturb(side)
            self._send(side, at, end)
        moved_at, before = 0, -1
        for attempt in range(_ROUNDS):
            self._pass_time(attempt)
            host, own = self._connection.hosts[1 - side], self._connection.hosts[side]
            if len(host.read) + len(own.read) != before:
                moved_at, before = attempt, len(host.read) + len(own.read)
            is_answered = own.is_finished and not self.has_ended[1 - side]  # by a page in the other one's name
            if host.is_reset or own.is_reset or is_answered or self._has_all(side) or attempt - moved_at > _STILL_ROUNDS:
                return
            # The sender knows what was acknowledged, and sends the rest anew in other pieces, as after a timeout.
            have = len(host.read) if chance.random() < 0.8 else max(0, len(host.read) - 3)
            for at, end in self._pieces(have, len(self.said[side])) or [(have, have)]:
                self._send(side, at, end)

    def mumble(self, side: int, text: bytes, is_last: bool) -> None:
        """One line, once, whether it arrives or not; at its end perhaps a reset."""
        chance, start = self._chance, len(self.said[side])
        self.said[side].extend(text)
        self.has_ended[side] = self.has_ended[side] or is_last
        for at, end in self._pieces(start, len(self.said[side])):
            self._disturb(side)
            self._send(side, at, end)
        if chance.random() < 0.1:
            self._connection.segment(side, len(self.said[side]), b"", flags=RST | chance.choice((0, ACK)))

    def _has_all(self, side: int) -> bool:
        host = self._connection.hosts[1 - side]
        return len(host.read) >= len(self.said[side]) and (host.is_finished or not self.has_ended[side])

    def _pieces(self, start: int, end: int) -> list[tuple[int, int]]:
        """Segments of [start, end), in any order, some of them overlapping or twice."""
        chance = self._chance
        step = chance.choice((1, 3, 20, 100, 2000)) if end - start < 400 else chance.choice((20, 100, 2000))
        cuts = [start]
        while cuts[-1] < end:
            cuts.append(min(end, cuts[-1] + chance.randint(1, step)))
        pieces = list(pairwise(cuts))
        pieces = [(max(0, at - chance.randrange(5)), stop) if chance.random() < 0.1 else (at, stop) for at, stop in pieces]
        pieces += [piece for piece in pieces if chance.random() < 0.05]
        if chance.random() < 0.4:
            pieces = [piece for _, piece in sorted((number + chance.uniform(0, 4), piece) for number, piece in enumerate(pieces))]
        return pieces

    def _send(self, side: int, at: int, end: int) -> None:
        """One piece, which may be lost behind the box; and an acknowledgement may be kept back."""
        chance, said = self._chance, self.said[side]
        receiver = self._connection.hosts[1 - side]
        receiver.is_away, receiver.is_silent = chance.random() < 0.08, chance.random() < 0.2
        flags = ACK | PSH | (FIN if self.has_ended[side] and end == len(said) else 0)
        sender = self._connection.hosts[side]
        first = self._connection.number(side)
        sender.next = max(sender.next, first + end + bool(flags & FIN))
        urgent = chance.randrange(0, 3) if chance.random() < 0.02 else -1
        self._connection.segment(side, at, bytes(said[at:end]), flags=flags | (URG if urgent >= 0 else 0), urgent=max(urgent, 0))
        receiver.is_away = False

    def _disturb(self, side: int) -> None:
        """What others send, or the same host without need."""
        chance, connection = self._chance, self._connection
        what = chance.random()
        if what < 0.05 and not self._weather.is_quick:
            self._pass_time(0)
        elif what < 0.08:
            before = connection.hosts[side].acknowledged - connection.number(side) - 1
            connection.segment(side, before, b"\0" if before >= 0 else b"", flags=ACK)  # a keep-alive
        elif what < 0.14 and self._weather.is_hostile:
            # Other bytes than were, or will be, said; where the first copy has come, the second one must not pass.
            read = len(connection.hosts[1 - side].read)
            at, size = chance.randrange(max(1, read)), chance.randrange(1, 30)
            connection.segment(side, at, bytes(chance.randrange(256) for _ in range(min(size, read - at))), flags=ACK)
        elif what < 0.18 and self._weather.is_hostile:
            self._forge(side)

    def _forge(self, side: int) -> None:
        """What a host ignores, and a careless observer believes: an RST and a SYN out of place, an acknowledgement of nothing."""
        chance, connection = self._chance, self._connection
        far = chance.randrange(1, 1 << 31)
        match chance.randrange(4):
            case 0:
                connection.segment(side, len(self.said[side]) + far, b"", flags=RST)
            case 1:
                connection.segment(side, far, b"", flags=2 | ACK)
            case 2:
                host = connection.hosts[side]
                host.expects, honest = host.expects + far, host.expects
                connection.segment(side, len(connection.hosts[1 - side].read), b"", flags=ACK)
                host.expects = honest
            case _:
                connection.segment(side, len(self.said[side]) + far, b"far ahead", flags=ACK)

    def _pass_time(self, attempt: int) -> None:
        network = self._network
        for side in (CLIENT, SERVER):
            self._connection.hosts[side].is_silent = False
        if self._chance.random() < 0.1:
            network.engine.on_timer(network.clock)  # too early is no harm
            network.carry_out()
        network.wait(self._chance.choice(_PAUSES_S) if attempt < _ROUNDS // 2 else 0.3)
        if self._weather.is_prompt or self._chance.random() < 0.3 or attempt > 3:
            network.answer_scans()
