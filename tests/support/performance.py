"""A play on a rough network, all of it from one seed, and what was wrong with it: a list of sentences, empty if all was well."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support import packets
from tests.support.conversation import CLIENT, SERVER, Connection, Network, find_marker
from tests.support.plays import BLOCKED, FORBIDDEN, HARMLESS, INFECTED, Fate, Play
from tests.support.rough import Rough, Weather, carrier_of

LONGEST_WAIT_S = 5.0 + 0.05 + 0.001
"""hold_ms of the default policy, and the window."""

_FLOWS_END_S = 8000.0


def harmless(seed: int) -> list[str]:
    return perform(HARMLESS, seed, is_hostile=False)


def forbidden(seed: int) -> list[str]:
    return perform(FORBIDDEN, seed, is_hostile=False)


def infected(seed: int) -> list[str]:
    return perform(INFECTED, seed, is_hostile=False)


def hostile(seed: int) -> list[str]:
    """With segments of other bytes, and forged ones: what arrives may be less, but never more."""
    return perform((*HARMLESS, *FORBIDDEN, *INFECTED), seed, is_hostile=True)


def perform(plays: Sequence[Play], seed: int, *, is_hostile: bool) -> list[str]:
    chance = packets.seeded(seed)
    play = chance.choice(plays)
    weather = Weather(
        is_hostile=is_hostile,
        is_quick=play.fate is Fate.OVERWRITTEN,
        is_prompt=chance.random() < 0.5,
        has_fragments=chance.random() < 0.15,
        is_ipv6=chance.random() < 0.2,
        is_super=chance.random() < 0.1,
    )
    network = Network(play.policy, scan=find_marker)
    network.is_prompt = weather.is_prompt
    # Near the end of the numbers, so that they begin anew in the middle of what is said.
    numbers = tuple(chance.choice((1001, 2**32 - 1 - chance.randrange(600), chance.randrange(2**32))) for _ in (CLIENT, SERVER))
    is_established = play.fate is not Fate.PASSES or chance.random() < 0.9  # else the box was not there when it began
    connection = network.connect(
        play.port, numbers=(numbers[0], numbers[1]), carrier=carrier_of(weather, chance), is_established=is_established
    )
    rough = Rough(network, connection, chance, weather)
    rough.perform(play)
    if play.data:
        connection = network.connect(50123, carrier=carrier_of(weather, chance))
        rough = Rough(network, connection, chance, weather)
        rough.say(SERVER, play.data, is_last=True)
    wrong = [f"{play.name}: {sentence}" for sentence in _judge(play, connection, rough, weather)]
    if network.longest_wait_s > LONGEST_WAIT_S and not weather.has_fragments:  # those wait for the rest of their packet
        wrong.append(f"{play.name}: a packet waited for {network.longest_wait_s} s")
    return wrong + [f"{play.name}: {sentence}" for sentence in leftovers(network)]


def _judge(play: Play, connection: Connection, rough: Rough, weather: Weather) -> list[str]:
    heard = {CLIENT: connection.to_client, SERVER: connection.to_server}
    said = {side: bytes(rough.said[1 - side]) for side in (CLIENT, SERVER)}
    wrong = [f"side {side} was given two different copies" for side in heard if connection.hosts[side].is_mixed]
    match play.fate:
        case Fate.PASSES:
            for side in heard:
                if not said[side].startswith(heard[side]):
                    wrong.append(f"side {side} reads what was not said")
                elif heard[side] != said[side] and not weather.is_hostile:
                    wrong.append(f"side {side} reads {len(heard[side])} of {len(said[side])} bytes")
        case Fate.BLOCKED:
            if len(heard[SERVER]) >= len(b"".join(play.lines[0][1].partition(b"\r\n\r\n")[:2])):
                wrong.append("the server has the whole request")
            if rough.said[SERVER] and bytes(rough.said[SERVER][:20]) in heard[CLIENT]:
                wrong.append("the client has the server's answer")
        case Fate.CUT:
            side = CLIENT if play.lines[-1][0] == SERVER and b"GET" in play.lines[0][1][:3] else SERVER
            if play.marker in heard[side] and said[side] == heard[side]:
                wrong.append("the receiver has the whole file")
            if heard[side] == said[side]:
                wrong.append("the receiver has all")
        case Fate.OVERWRITTEN:
            wrong += _judge_overwritten(play, heard, said, weather)
    return wrong


def _judge_overwritten(play: Play, heard: dict[int, bytes], said: dict[int, bytes], weather: Weather) -> list[str]:
    wrong = []
    for side in heard:
        if play.marker in heard[side]:
            wrong.append("the marker was read")
        if len(heard[side]) != len(said[side]) and not (weather.is_hostile or weather.has_fragments):
            wrong.append(f"side {side} reads {len(heard[side])} of {len(said[side])} bytes")
        if len(heard[side]) > len(said[side]):
            wrong.append("more was read than was said")
    return wrong


def leftovers(network: Network) -> list[str]:
    """After all flows have ended nothing is kept."""
    network.is_prompt = True
    network.wait(_FLOWS_END_S)
    engine, wrong = network.engine, []
    counts = {"flows": engine.flows, "packets held": network.held, "bytes held": engine.held_bytes, "scans": engine.open_scans}
    wrong += [f"{count} {name} are left" for name, count in counts.items() if count]
    if engine.next_deadline() is not None:
        wrong.append("a timer is left")
    engine.close()
    network.carry_out()
    return wrong


_POLICIES = (
    "",
    BLOCKED,
    '[virus]\nmode = "log"\n[evasion]\nmode = "log"\n[dangerous_sites]\ndns = "block"\n',
    '[virus]\nunseen = "block"\nhold_ms = 100\n',
    '[virus]\nmode = "off"\n[evasion]\nmode = "off"\n',
    '[allow]\naddresses = ["192.0.2.1"]\n',
)


def chaos(seed: int) -> list[str]:
    """Several plays at once between hosts that give up anywhere, with a scanner that says anything at any time, while the owner
    changes the policy: each packet has one verdict all the same, and nothing is left."""
    chance = packets.seeded(seed)
    network = Network(chance.choice(_POLICIES), scan=lambda _: chance.choice((None, "Test.Any")))
    network.is_prompt = False
    plays, weather = (*HARMLESS, *FORBIDDEN, *INFECTED), Weather(is_hostile=True, is_prompt=False)
    roughs = []
    for _ in range(chance.randrange(1, 4)):
        play = chance.choice(plays)
        port, is_established = chance.choice((play.port, play.port, 50123)), chance.random() < 0.8
        connection = network.connect(port, carrier=carrier_of(weather, chance), is_established=is_established)
        roughs.append((Rough(network, connection, chance, weather), list(play.lines)))
    while any(lines for _, lines in roughs):
        rough, lines = chance.choice([each for each in roughs if each[1]])
        side, text = lines.pop(0)
        rough.mumble(side, text, is_last=chance.random() < 0.2)
        match chance.randrange(6):
            case 0:
                network.set_policy(chance.choice(_POLICIES))
            case 1:
                network.answer_one(chance.choice((None, "Test.Any")), chance.choice((None, "too large")))
            case 2:
                network.wait(chance.choice((0.02, 0.3, 4.0, 70.0)))
    return leftovers(network)
