"""Questions to a real dnsmasq through the whole application: told, and refused where the owner wants it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.dns_peers import AAAA, ANSWERS, A, ask, start_dnsmasq
from tests.support.guarded import start_guarded
from tests.support.lists import compiled
from tests.support.wait import check_until
from tests.support.web import Phase, Way, Web, start_web

REFUSE = """
[dangerous_sites]
dns = "block"
[categories]
modes = { gambling = "block" }
[allow]
names = ["fine.bad.example.com"]
"""
BAD, GAMES, GOOD, ALLOWED = "www.bad.example.com", "www.games.example.com", "www.good.example.com", "fine.bad.example.com"
HTTPS = 65
NXDOMAIN = 3


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("dns")
    lists = compiled(folder, {"phishing": ["bad.example.com"], "category-gambling": ["games.example.com"]})
    with start_guarded(folder, name="dns") as box, start_web(box, folder) as web:
        box.device.lists.parent.mkdir(parents=True, exist_ok=True)
        lists.replace(box.device.lists)
        with start_dnsmasq(web):
            check_until("the lists are in force", lambda: all(each["policy"]["lists"] for each in box.workers()), within_s=20)
            yield web


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(REFUSE if phase is Phase.BLOCKED else "")
    return phase


QUESTIONS = {
    "UDP": {},
    "UDP with EDNS": {"edns": True},
    "UDP, IPv6 address wanted": {"kind": AAAA},
    "UDP over IPv6": {"way": Way.OUT6},
    "UDP over IPv6 with EDNS": {"way": Way.OUT6, "edns": True, "kind": AAAA},
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_a_name_is_found_until_the_owner_wants_it_refused(web: Web, phase: Phase, case: str) -> None:
    arguments = QUESTIONS[case]
    found = (ANSWERS[arguments.get("kind", A)],)
    for name in (BAD, BAD.upper()):
        answer = ask(web, name, **arguments)
        if phase is Phase.BLOCKED:
            assert (answer.code, answer.addresses) == (NXDOMAIN, ())
            assert name.encode().split(b".")[0] in answer.question, "the spelling stays (0x20)"
        else:
            assert (answer.code, answer.addresses) == (0, found)
    for name in (GOOD, ALLOWED, GAMES):
        assert ask(web, name, **arguments).addresses == found, "a category is stopped where the site is asked for, with a page"


@pytest.mark.parametrize("way", [Way.OUT4, Way.OUT6], ids=lambda way: way.name)
def test_over_tcp_the_connection_is_cut(web: Web, phase: Phase, way: Way) -> None:
    assert ask(web, GOOD, tcp=True, way=way).addresses == (ANSWERS[A],)
    if phase is Phase.BLOCKED:
        with pytest.raises((ConnectionError, struct.error)):
            ask(web, BAD, tcp=True, way=way)
    else:
        assert ask(web, BAD, tcp=True, way=way).addresses == (ANSWERS[A],)


def test_another_kind_of_question_is_refused_too(web: Web, phase: Phase) -> None:
    assert (ask(web, BAD, HTTPS).code == NXDOMAIN) == (phase is Phase.BLOCKED)


def test_questions_are_told_with_all_that_is_known(web: Web) -> None:
    who = {"protocol": "dns", "heading": "outbound", "terminal_mac": web.mac(), "peer_port": 53}
    web.box.set_policy("")
    for tcp, label in ((False, "udp"), (True, "tcp")):
        for name, told in (
            (f"{label}.bad.example.com", ("dangerous-site", "logged", "phishing", "")),
            (f"{label}.games.example.com", ("category", "logged", "category-gambling", "gambling")),
        ):
            assert ask(web, name, tcp=tcp).code == 0
            (event,) = web.await_events(subject=name)
            assert event.items() >= who.items()
            assert (event["function"], event["action"], event["list_name"], event["category"]) == told
    web.box.set_policy(REFUSE)
    assert ask(web, "refused.bad.example.com").code == NXDOMAIN
    (event,) = web.await_events(subject="refused.bad.example.com")
    assert (event["action"], event["list_name"]) == ("blocked", "phishing")
    assert ask(web, ALLOWED).code == 0
    (event,) = web.await_events(subject=ALLOWED, action="allowed")
    assert event["list_name"] == "phishing"
    web.box.set_policy("")
    assert not [event for event in web.box.events("--limit", "1000") if GOOD in event["subject"]]
