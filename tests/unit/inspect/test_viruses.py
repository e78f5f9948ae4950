"""A scanner that cannot keep up: the sender is stopped, and let go again, for no longer than the policy says."""

from __future__ import annotations

from mamori.inspect.commands import BeginScan, CancelScan
from tests.support.conversation import MARKER, SERVER, Connection, Network
from tests.support.plays import get, ok

BODY = b"x" * 5000 + MARKER


def begin_download(policy: str = "") -> tuple[Network, Connection]:
    network = Network(policy, scan=None)
    connection = network.connect()
    connection.client(get())
    connection.server(ok(BODY)[:1000])
    return network, connection


def test_a_sender_waits_while_the_scanner_is_behind() -> None:
    network, connection = begin_download()
    before = len(connection.to_client)
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.hosts[SERVER].next = 5001 + 1000
    connection.server(ok(BODY)[1000:2000], 500)
    network.wait(1)
    assert len(connection.to_client) == before
    network.engine.lagging(1, is_behind=False, now=network.clock)
    network.carry_out()
    assert connection.to_client == ok(BODY)[:2000]
    assert network.told == []


def test_once_the_scanner_has_caught_up_nothing_waits_any_more() -> None:
    """Not even for the short time that the end of a download may wait: each packet would find another one before it, for ever."""
    network, connection = begin_download()
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.server(ok(BODY)[1000:1500])
    assert len(connection.to_client) == 1000
    network.engine.lagging(1, is_behind=False, now=network.clock)
    network.carry_out()
    assert connection.to_client == ok(BODY)[:1500]
    connection.server(ok(BODY)[1500:2000])
    assert connection.to_client == ok(BODY)[:2000]


def test_a_scanner_that_never_catches_up_costs_the_hold_and_the_verdict() -> None:
    network, connection = begin_download()
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.server(ok(BODY)[1000:2000])
    network.wait(4.9)
    assert len(connection.to_client) == 1000
    network.wait(0.2)
    connection.server(ok(BODY)[2000:])
    assert connection.to_client == ok(BODY)
    assert [told[:2] for told in network.told] == [("virus", "unseen")]
    assert network.engine.open_scans == 0


def test_nobody_waits_for_a_file_that_is_only_to_be_told() -> None:
    network, connection = begin_download('[virus]\nmode = "log"\n')
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.server(ok(BODY)[1000:])
    assert connection.to_client == ok(BODY)


def test_a_file_that_is_given_up_is_cancelled_and_what_ends_while_behind_waits_for_its_verdict() -> None:
    network, connection = begin_download('[virus]\nunseen = "block"\n')
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.server(ok(BODY)[1000:])
    network.engine.lagging(1, is_behind=False, now=network.clock)
    network.carry_out()
    assert len(connection.to_client) == 1000, "it has ended, and has no verdict"
    network.engine.scanned(1, "Test.Marker", None, network.clock)
    network.carry_out()
    assert len(connection.to_client) == 1000
    assert [told[:2] for told in network.told] == [("virus", "blocked")]


def test_the_scanner_is_told_what_the_sender_says_of_the_length() -> None:
    network = Network(scan=None)
    connection = network.connect()
    connection.client(get())
    connection.hosts[0].is_away = True
    network.carry_out = lambda: None  # type: ignore[method-assign]
    connection.server(ok(BODY)[:100])
    commands = network.engine.take_commands()
    assert [command for command in commands if isinstance(command, BeginScan)] == [BeginScan(1, len(BODY))]
    network.engine.lagging(1, is_behind=True, now=network.clock)
    connection.server(ok(BODY)[100:200])
    network.engine.on_timer(network.clock + 6)
    assert CancelScan(1) in network.engine.take_commands()
