"""What readers keep of what is not whole, all together: it is bounded, and who keeps most is given up."""

from __future__ import annotations

import time

import pytest

from mamori.events.record import Event
from mamori.inspect.applications import own_applications
from mamori.inspect.commands import Accept, Command, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.judge import Judge
from mamori.inspect.packet import UDP
from mamori.inspect.policy import Policy
from mamori.inspect.sources import NoLists
from mamori.inspect.unread import MAX_UNREAD_BYTES, Unread
from tests.support import packets
from tests.support.conversation import CLIENT, CLIENT_MAC, SERVER, Network
from tests.support.hellos import crypto, initial

HEAD = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nX-Padding: "
HELLO_START = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"


class Keeper:
    """Keeps bytes, and tells when it was given up."""

    def __init__(self, unread: Unread, given_up: list[Keeper]) -> None:
        self._unread, self._given_up, self.size = unread, given_up, 0

    def keep(self, size: int) -> None:
        self._unread.change(self, self.size, size)
        self.size = size
        while (victim := self._unread.next_victim()) is not None:
            victim.give_up()

    def give_up(self) -> None:
        self._given_up.append(self)
        self._unread.change(self, self.size, 0)
        self.size = 0


@pytest.fixture
def given_up() -> list[Keeper]:
    return []


@pytest.fixture
def keepers(given_up: list[Keeper]) -> list[Keeper]:
    unread = Unread(10_000)
    return [Keeper(unread, given_up) for _ in range(5)]


def test_who_keeps_most_is_given_up_and_nobody_before_it_is_too_much(keepers: list[Keeper], given_up: list[Keeper]) -> None:
    keepers[0].keep(1000)
    keepers[1].keep(6000)
    keepers[2].keep(3000)
    assert given_up == []
    keepers[3].keep(1)
    assert given_up == [keepers[1]]


def test_of_those_that_keep_as_much_it_is_who_has_kept_it_longest(keepers: list[Keeper], given_up: list[Keeper]) -> None:
    for keeper in keepers:
        keeper.keep(2100)
    assert given_up == [keepers[0]]
    keepers[1].keep(1)
    keepers[1].keep(2200)
    keepers[0].keep(2300)
    assert given_up == [keepers[0], keepers[2]]


def test_who_keeps_little_is_counted_and_never_given_up() -> None:
    given_up: list[Keeper] = []
    unread = Unread(10_000)
    for _ in range(200):
        Keeper(unread, given_up).keep(100)
    assert unread.held_bytes == 20_000
    assert given_up == []


def test_it_costs_as_much_for_many_as_for_few() -> None:
    """An attacker has each packet change what is kept."""

    def cost_s(number: int) -> float:
        unread, given_up = Unread(number * 3000), list[Keeper]()
        keepers = [Keeper(unread, given_up) for _ in range(number)]
        for keeper in keepers:
            keeper.keep(2500)
        began = time.process_time()
        for _ in range(3):
            for keeper in keepers[:500]:
                keeper.keep(600_000)
        return time.process_time() - began

    assert min(cost_s(20_000) for _ in range(3)) < 5 * min(cost_s(1000) for _ in range(3)) + 0.01


class Line:
    """One connection's packets into an engine, as they come; nobody answers what is not said here."""

    def __init__(self, engine: Engine, ports: tuple[int, int]) -> None:
        self._engine, self._ports, self._next = engine, ports, [1000, 2000]
        self.commands: list[Command] = []
        self._send(CLIENT, b"", flags=2)
        self._next[CLIENT] += 1
        self._send(SERVER, b"", flags=18)
        self._next[SERVER] += 1

    def say(self, side: int, data: bytes) -> None:
        for at in range(0, len(data), 60_000):
            piece = data[at : at + 60_000]
            self._send(side, piece)
            self._next[side] += len(piece)
            self._send(1 - side, b"")

    def _send(self, side: int, data: bytes, *, flags: int = 16) -> None:
        ports = self._ports if side == CLIENT else self._ports[::-1]
        ends = (packets.CLIENT, packets.SERVER) if side == CLIENT else (packets.SERVER, packets.CLIENT)
        numbers = {"sequence": self._next[side], "acknowledgement": self._next[1 - side]}
        data = packets.ipv4(packets.tcp(data, ports=ports, flags=flags, **numbers), ends=ends)
        self._engine.receive(1, memoryview(data), 0, is_inside=side == CLIENT, mac=CLIENT_MAC, now=100.0)
        self.commands += self._engine.take_commands()

    def told(self) -> list[tuple[str, str]]:
        """Action and detail of the events since this was asked last."""
        records = [command.record for command in self.commands if isinstance(command, Tell)]
        return [(record.action.value, record.detail) for record in records if isinstance(record, Event)]


@pytest.fixture
def engine() -> Engine:
    return Engine(Judge(Policy(), NoLists(), own_applications()))


def test_a_flood_of_heads_without_an_end_keeps_no_more_than_stated_and_honest_ones_go_on(engine: Engine) -> None:
    honest = Line(engine, (1, 80))
    honest.say(CLIENT, HEAD)
    attackers = [Line(engine, (1000 + number, 80)) for number in range(MAX_UNREAD_BYTES // 300_000 + 20)]
    for attacker in attackers:
        attacker.say(CLIENT, HEAD + b"x" * 300_000)
        assert engine.unread_bytes <= MAX_UNREAD_BYTES
    told = [each for attacker in attackers for each in attacker.told()]
    assert set(told) == {("blocked", "too many connections are not whole")}
    assert 15 <= len(told) <= 40
    attackers[0].commands.clear()
    attackers[0].say(CLIENT, b"\r\n\r\n")
    assert not any(isinstance(command, Accept) for command in attackers[0].commands[:1]), "it is cut"
    honest.commands.clear()
    honest.say(CLIENT, b"\r\n\r\n")
    assert isinstance(honest.commands[-1], Accept)
    assert honest.told() == []


def test_a_flood_of_mails_without_an_end_of_their_heads_passes_unseen_and_is_told(engine: Engine) -> None:
    senders = [Line(engine, (1000 + number, 25)) for number in range(MAX_UNREAD_BYTES // 120_000 + 20)]
    for sender in senders:
        sender.say(SERVER, b"220 mail.example ESMTP\r\n")
        sender.say(CLIENT, b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        sender.say(SERVER, b"250 a\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        sender.say(CLIENT, b"Subject: " + b"x" * 120_000)
        assert engine.unread_bytes <= MAX_UNREAD_BYTES
    told = [each for sender in senders for each in sender.told()]
    assert set(told) == {("unseen", "too many connections are not whole")}
    assert len(told) >= 20
    senders[0].commands.clear()
    senders[0].say(CLIENT, b"more")
    assert isinstance(senders[0].commands[0], Accept)


def test_nothing_is_kept_of_connections_that_are_over() -> None:
    network = Network()
    for number in range(50):
        connection = network.connect(25 if number % 2 else 80)
        if number % 2:
            connection.server(b"220 mail.example ESMTP\r\n")
        connection.client((HEAD, b"EHLO " + b"x" * 300)[number % 2])
        assert network.engine.unread_bytes > 0
        connection.client(b"", fin=True)
        connection.server(b"", fin=True)
    network.wait(20)
    assert network.engine.flows == 0
    assert network.engine.unread_bytes == 0


def test_nothing_is_kept_of_connections_that_are_decided() -> None:
    network = Network()
    connection = network.connect(443)
    connection.client(HELLO_START + b"x" * 500)
    assert network.engine.unread_bytes > 500
    connection.client(b"\x01" * 20_000)
    connection.server(b"\x15\x03\x03\x00\x02\x02\x28")
    connection.segment(CLIENT, 0, b"", flags=4)
    connection.segment(SERVER, 0, b"", flags=4)
    network.wait(20)
    assert network.engine.unread_bytes == 0


def test_a_flood_of_hellos_of_quic_without_an_end_keeps_no_more_than_stated_and_is_told(engine: Engine) -> None:
    datagrams = [initial(crypto(1 + number * 1100, b"x" * 1100), number) for number in range(30)]
    told: list[Event] = []
    for port in range(1000, 1000 + MAX_UNREAD_BYTES // 38_000 + 20):
        for datagram in datagrams:
            told += events_of(engine, packets.udp(datagram, ports=(port, 443)))
            assert engine.unread_bytes <= MAX_UNREAD_BYTES
    assert {(event.action.value, event.protocol, event.detail) for event in told} == {
        ("blocked", "quic", "too many connections are not whole")
    }
    engine.on_timer(1000.0)
    assert (engine.flows, engine.unread_bytes) == (0, 0)


def test_a_table_of_flows_that_is_full_is_told_once_in_a_while() -> None:
    engine = Engine(Judge(Policy(), NoLists(), own_applications()), max_flows=20)
    told = [event for port in range(1000, 1100) for event in events_of(engine, packets.udp(b"x", ports=(port, 9999)))]
    assert [(event.function.value, event.category) for event in told] == [("system", "table-full")]
    assert engine.flows == 20


def events_of(engine: Engine, datagram: bytes) -> list[Event]:
    """What is told when this comes from the office."""
    data = memoryview(packets.ipv4(datagram, UDP))
    engine.receive(1, data, 0, is_inside=True, mac=CLIENT_MAC, now=100.0)
    records = [command.record for command in engine.take_commands() if isinstance(command, Tell)]
    return [record for record in records if isinstance(record, Event)]
