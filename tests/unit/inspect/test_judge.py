"""What the policy makes of names, URLs and applications: each list by its own mode, what counts first, what allow beats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mamori.events.record import Function
from mamori.inspect.applications import own_applications
from mamori.inspect.http_url import Url
from mamori.inspect.judge import NOTHING, OWN_LIST, Judge
from mamori.inspect.lists.listfile import ListFile
from mamori.inspect.policy import Mode, parse_policy
from tests.support.lists import compiled

APPLICATIONS = own_applications()
MODES = ("block", "log", "off")


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListFile]:
    folder = tmp_path_factory.mktemp("judge")
    content = {"phishing": ["bad.com", "both.com", "pages.com/bad/"], "category-games": ["games.com", "both.com", "dropbox.com"]}
    with ListFile.open(compiled(Path(folder), content)) as lists:
        yield lists


def judge(lists: ListFile, policy: str) -> Judge:
    return Judge(parse_policy(policy, "policy"), lists, APPLICATIONS)


def modes(judged: object) -> list[tuple[str, str]]:
    return [(match.function.value, match.mode.value) for match in judged.matches]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
def test_dangerous_sites_obey_their_mode_and_categories_theirs(lists: ListFile, mode: str) -> None:
    other = {"block": "log", "log": "off", "off": "block"}[mode]
    one = judge(lists, f'[dangerous_sites]\nmode = "{mode}"\n[categories]\nmode = "{other}"\n')
    expected = {"bad.com": [("dangerous-site", mode)], "games.com": [("category", other)]}
    for name, matches in expected.items():
        assert modes(one.judge_name(name)) == [match for match in matches if match[1] != "off"], name
    assert modes(one.judge_name("both.com")) == [
        match for match in (("dangerous-site", mode), ("category", other)) if match[1] != "off"
    ]


def test_a_category_and_an_application_that_are_named_obey_their_own_mode(lists: ListFile) -> None:
    one = judge(lists, '[categories]\nmodes = { games = "block" }\n[applications]\nmodes = { dropbox = "off" }\n')
    assert modes(one.judge_name("dropbox.com")) == [("category", "block")]
    one = judge(lists, '[categories]\nmodes = { other = "block" }\n[applications]\nmode = "block"\nmodes = { line = "log" }\n')
    assert modes(one.judge_name("dropbox.com")) == [("category", "log"), ("application", "block")]


def test_of_several_matches_the_first_that_blocks_is_the_reason(lists: ListFile) -> None:
    policy = '[categories]\nmode = "block"\n[dangerous_sites]\nmode = "{}"\n[block]\nnames = ["{}"]\n'
    reasons = {
        ("log", "nobody.com"): (Function.CATEGORY, "category-games"),
        ("block", "nobody.com"): (Function.DANGEROUS_SITE, "phishing"),
        ("log", "both.com"): (Function.DANGEROUS_SITE, "own"),
    }
    for (mode, own), reason in reasons.items():
        blocking = judge(lists, policy.format(mode, own)).judge_name("www.both.com").blocking
        assert blocking is not None
        assert (blocking.function, blocking.list_name) == reason
    assert judge(lists, "").judge_name("games.com").blocking is None, "what is only logged is no reason"


def test_the_owners_own_list_blocks_whatever_the_modes_are(lists: ListFile) -> None:
    one = judge(lists, '[dangerous_sites]\nmode = "off"\n[block]\nnames = ["mine.net"]\nurls = ["page.net/a/"]\n')
    for judged in (one.judge_name("www.mine.net"), one.judge_url(Url("page.net", 80, "/a/b", ""))):
        assert judged.blocking is not None
        assert (judged.blocking.mode, judged.blocking.list_label) == (Mode.BLOCK, OWN_LIST)
    assert one.judge_url(Url("page.net", 80, "/b", "")) == NOTHING


def test_what_the_owner_allows_is_told_and_never_blocked(lists: ListFile) -> None:
    allowed = '[allow]\nnames = ["bad.com"]\nurls = ["pages.com/bad/fine/"]\n[block]\nnames = ["www.bad.com"]\n'
    one = judge(lists, allowed)
    judged = one.judge_name("www.bad.com")
    assert judged.is_allowed
    assert judged.blocking is None
    assert modes(judged) == [("dangerous-site", "block")] * 2
    assert one.judge_url(Url("pages.com", 80, "/bad/fine/x", "")).blocking is None
    assert one.judge_url(Url("pages.com", 80, "/bad/x", "")).blocking is not None


def test_a_hello_is_judged_by_its_name_or_its_servers_address_or_what_it_speaks(lists: ListFile) -> None:
    tor = next(iter(APPLICATIONS.all.values()))
    one = judge(lists, '[block]\nnames = ["192.0.2.7"]\n')
    assert modes(one.judge_hello("bad.com", "192.0.2.7", tor)) == [("dangerous-site", "block")]
    assert modes(one.judge_hello("fine.com", "192.0.2.7", tor)) == []
    assert modes(one.judge_hello(None, "192.0.2.7", tor)) == [("dangerous-site", "block")]
    assert modes(one.judge_hello(None, "192.0.2.8", tor)) == [("application", "log")]
    assert one.judge_hello(None, "192.0.2.8", None) == NOTHING


def test_one_allowed_host_exempts_a_conversation_and_none_does_not(lists: ListFile) -> None:
    one = judge(lists, '[allow]\naddresses = ["192.0.2.0/25", "2001:db8::1"]\n[block]\naddresses = ["198.51.100.0/24"]\n')
    inside, outside = bytes((192, 0, 2, 5)), bytes((192, 0, 2, 200))
    ipv6 = bytes.fromhex("20010db8000000000000000000000001")
    assert one.exempts(inside, outside)
    assert one.exempts(outside, inside)
    assert one.exempts(ipv6, outside)
    assert not one.exempts(outside, outside)
    assert one.has_exemptions
    assert one.allows_address(inside)
    assert not one.allows_address(outside)
    assert not judge(lists, "").has_exemptions
    assert one.blocks_address(bytes((198, 51, 100, 1)))
    assert not one.blocks_address(inside)
