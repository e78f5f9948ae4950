"""What is told of one flow: nothing twice, in bounded memory; what was blocked for the reason, what passed for all that had it."""

from __future__ import annotations

import pytest

from mamori.events.record import Function, Heading
from mamori.inspect.applications import own_applications
from mamori.inspect.blockpage import Label
from mamori.inspect.commands import Tally, Tell
from mamori.inspect.desk import Desk, Parties
from mamori.inspect.flow import FlowTable
from mamori.inspect.judge import Judge, Judgement, Match
from mamori.inspect.packet import UDP, parse_packet
from mamori.inspect.policy import Mode, parse_policy
from mamori.inspect.sources import NoLists
from mamori.inspect.telling import MAX_TOLD, Teller
from tests.support import packets

LABEL = Label("", "")
LOGGED = Match(Function.CATEGORY, Mode.LOG, "games-list", "games", LABEL, LABEL)
BLOCKED = Match(Function.DANGEROUS_SITE, Mode.BLOCK, "phishing", "", LABEL, LABEL)


def teller(policy: str = "") -> tuple[Teller, Desk]:
    desk = Desk(Judge(parse_policy(policy, "policy"), NoLists(), own_applications()))
    flow, _ = FlowTable().receive(parse_packet(memoryview(packets.ipv4(packets.udp(b"x"), UDP))), 0.0)
    return Teller(desk, flow, Parties(Heading.OUTBOUND, "", "192.0.2.1", "198.51.100.2", 53), "dns"), desk


def told(desk: Desk) -> list[tuple[str, str, str, str]]:
    return [
        (command.record.function.value, command.record.action.value, command.record.subject, command.record.list_name)  # type: ignore[union-attr]
        for command in desk.out
        if isinstance(command, Tell)
    ]


def test_nothing_is_news_twice_until_too_much_is_remembered() -> None:
    one, _ = teller()
    assert [one.is_news(str(number)) for number in range(MAX_TOLD)] == [True] * MAX_TOLD
    assert not one.is_news("0")
    assert one.is_news("one more")
    assert one.is_news("0"), "memory is bounded: what was told first was forgotten"
    assert not one.is_news("0")


def test_what_passes_is_told_for_all_that_had_it_and_counted_once() -> None:
    one, desk = teller()
    for _ in range(3):
        one.tell_passed(Judgement((BLOCKED, LOGGED)), "a.example")
    assert told(desk) == [("dangerous-site", "logged", "a.example", "phishing"), ("category", "logged", "a.example", "games-list")]
    counts = [
        (tally.function, tally.unit, tally.category, tally.scanned, tally.blocked) for tally in desk.out if isinstance(tally, Tally)
    ]
    assert counts == [(Function.DANGEROUS_SITE, "flow", "", 1, 0), (Function.CATEGORY, "flow", "games", 1, 0)]


def test_what_is_in_no_list_is_not_told_and_not_remembered() -> None:
    one, desk = teller()
    one.tell_passed(Judgement(), "a.example")
    assert desk.out == []
    assert one.is_news("a.example")


def test_the_key_decides_what_is_the_same_news() -> None:
    one, desk = teller()
    for subject, key in (("a.example/1", "a.example"), ("a.example/2", "a.example"), ("b.example/1", "b.example")):
        one.tell_passed(Judgement((LOGGED,)), subject, key)
    assert [subject for _, _, subject, _ in told(desk)] == ["a.example/1", "b.example/1"]


@pytest.mark.parametrize(
    ("policy", "is_allowed", "action"),
    [
        ("", False, "logged"),
        ("", True, "allowed"),
        ('[allow]\naddresses = ["192.0.2.1"]\n', False, "allowed"),
        ('[allow]\naddresses = ["198.51.100.0/24"]\n', False, "allowed"),
        ('[allow]\naddresses = ["203.0.113.1"]\n', False, "logged"),
    ],
    ids=["nothing is allowed", "the name is", "the computer is", "the peer is", "somebody else is"],
)
def test_what_passed_because_the_owner_allows_it_is_told_as_allowed(policy: str, is_allowed: bool, action: str) -> None:
    one, desk = teller(policy)
    one.tell_passed(Judgement((BLOCKED,), is_allowed), "a.example")
    assert told(desk) == [("dangerous-site", action, "a.example", "phishing")]


def test_what_is_blocked_is_told_for_the_one_reason_each_time() -> None:
    one, desk = teller()
    for _ in range(2):
        one.tell_blocked(Judgement((LOGGED, BLOCKED)), "a.example")
    assert told(desk) == [("dangerous-site", "blocked", "a.example", "phishing")] * 2
    assert [tally.blocked for tally in desk.out if isinstance(tally, Tally)] == [1, 1]


def test_without_a_better_name_a_flow_is_called_after_its_peer() -> None:
    one, _ = teller()
    assert one.address == "198.51.100.2:53"
