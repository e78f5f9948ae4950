"""What all connections of an engine share: short memories, and how short."""

from __future__ import annotations

import pytest

from mamori.inspect.applications import own_applications
from mamori.inspect.desk import (
    EXPECTED_FOR_S,
    INFECTED_FOR_S,
    MAX_EXPECTED,
    MAX_INFECTED,
    MAX_REASONS,
    MAX_TEXTS,
    UNSEEN_EVERY_S,
    Desk,
)
from mamori.inspect.findings import Coding
from mamori.inspect.judge import Judge
from mamori.inspect.policy import Policy
from mamori.inspect.sources import NoLists

HOST = b"\x0a\0\0\1"


@pytest.fixture
def desk() -> Desk:
    return Desk(Judge(Policy(), NoLists(), own_applications()))


def test_an_infected_address_is_remembered_for_an_hour_from_its_last_find(desk: Desk) -> None:
    desk.remember_infected("a.example/x", "Old")
    desk.now = 60.0
    desk.remember_infected("a.example/x", "New")
    desk.now = INFECTED_FOR_S + 59.0
    assert desk.recall_infected("a.example/x") == "New"
    assert desk.recall_infected("a.example/y") is None
    desk.now += 1.0
    assert desk.recall_infected("a.example/x") is None


def test_of_too_many_infected_addresses_the_oldest_are_forgotten(desk: Desk) -> None:
    for number in range(MAX_INFECTED):
        desk.remember_infected(str(number), "X")
    desk.remember_infected("0", "X")
    desk.remember_infected("new", "X")
    assert desk.recall_infected("0") == "X"
    assert desk.recall_infected("1") is None
    assert desk.recall_infected("2") == "X"


def test_a_data_connection_is_expected_for_a_while_and_learns_what_it_carries(desk: Desk) -> None:
    desk.expect(HOST, 5000, "name", Coding.BINARY, "subject", False)
    desk.expect(HOST, 5000, "", Coding.TEXT, "another", False)
    desk.now = EXPECTED_FOR_S - 1
    found = desk.take_expected(HOST, 5000)
    assert found is not None
    assert (found.name, found.coding, found.subject) == ("name", Coding.TEXT, "another")
    assert desk.take_expected(HOST, 5001) is None
    desk.now += 1
    assert desk.take_expected(HOST, 5000) is None


def test_of_too_many_expected_connections_the_oldest_are_forgotten(desk: Desk) -> None:
    for port in range(1, MAX_EXPECTED + 2):
        desk.expect(HOST, port, "", Coding.BINARY, "", False)
    assert desk.take_expected(HOST, 1) is None
    assert desk.take_expected(HOST, 2) is not None


def test_a_reason_is_news_once_in_a_while_however_many_there_are(desk: Desk) -> None:
    assert desk.is_news("away")
    assert not desk.is_news("away")
    desk.now = UNSEEN_EVERY_S
    assert desk.is_news("away")
    for number in range(10 * MAX_REASONS):
        assert desk.is_news(str(number))


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (b"\x0a\0\0\1", "10.0.0.1"),
        (bytes(15) + b"\1", "::1"),
        (b"\x02\0\0\0\0\x0a", "02:00:00:00:00:0a"),
        (b"", ""),
        (b"\1\2\3\4\5\6\7\x08", "01:02:03:04:05:06:07:08"),
    ],
    ids=["IPv4", "IPv6", "MAC", "none", "a longer MAC"],
)
def test_the_text_of_an_address_is_one_string_for_all(desk: Desk, address: bytes, text: str) -> None:
    assert desk.text_of(address) == text
    assert desk.text_of(bytes(bytearray(address))) is desk.text_of(address)


def test_a_flood_of_addresses_is_not_remembered(desk: Desk) -> None:
    first = desk.text_of(HOST)
    for number in range(MAX_TEXTS):
        desk.text_of(b"\x0b" + number.to_bytes(3, "big"))
    assert desk.text_of(HOST) == first
    assert desk.text_of(HOST) is not first


class Waiting:
    """Wants to be called."""

    def __init__(self, name: str, called: list[tuple[str, float]]) -> None:
        self._name, self._called = name, called

    def on_timer(self, now: float) -> None:
        self._called.append((self._name, now))


def test_timers_go_off_in_their_order_and_those_of_one_moment_in_that_of_their_setting(desk: Desk) -> None:
    called: list[tuple[str, float]] = []
    for at, name in ((3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b")):
        desk.set_timer(at, Waiting(name, called))
    assert desk.next_timer() == 1.0
    desk.fire_timers(2.5)
    assert called == [("a", 2.5), ("b", 2.5)]
    desk.fire_timers(3.0)
    assert [name for name, _ in called] == ["a", "b", "c", "d"]
    assert desk.next_timer() is None
