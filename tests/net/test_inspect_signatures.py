"""Signatures through the whole box, with the real Suricata: blocked, logged, excepted, told; new rules, hangs and kills."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from firmware.inspect_lab import ADDRESSES
from firmware.lock import read_lock
from firmware.netns import call_in_namespace
from firmware.peers import prepare_peers
from firmware.workspace import Workspace
from tests.support.guarded import start_guarded
from tests.support.signatures import Signatures, start_signatures
from tests.support.wait import check_until, patience_s
from tests.support.web import Way, Web, start_web

URI, BODY = 2_900_001, 2_900_002
RULES = f"""\
alert http $HOME_NET any -> any any (msg:"a request from inside"; flow:established,to_server; http.uri; content:"/forbidden"; \
classtype:trojan-activity; sid:{URI}; rev:4;)
alert tcp any any -> any any (msg:"a word in a protocol that nobody reads"; content:"HARMFUL"; \
classtype:attempted-admin; sid:{BODY};)
"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("ips")
    with start_guarded(folder, name="ips") as box, start_web(box, folder) as web:
        yield web


@pytest.fixture(scope="module")
def engine(web: Web, checkout: Workspace) -> Iterator[Signatures]:
    with start_signatures(web.box, prepare_peers(checkout, read_lock(checkout.root)), RULES) as engine:
        yield engine


def asks(web: Web, path: str, way: Way = Way.OUT4) -> str | None:
    """What the server says; None when nothing comes."""
    done = web.curl(f"http://www.example.com/{path}", way=way, within_s=2)
    return done.stdout if done.code == 0 else None


def says(web: Web, word: bytes) -> bool:
    """Whether a word in a protocol of nobody's arrives."""
    with contextlib.ExitStack() as stack:
        namespace, address = web.box.lab.server, ADDRESSES["server"][0]
        listener = stack.enter_context(call_in_namespace(namespace, lambda: socket.create_server(("", 4444))))
        client = stack.enter_context(
            call_in_namespace(web.box.lab.client, lambda: socket.create_connection((address, 4444), timeout=patience_s(10)))
        )
        server = stack.enter_context(listener.accept()[0])
        server.sendall(b"\0\1\2\3 hello")
        client.settimeout(patience_s(10))
        assert client.recv(100) == b"\0\1\2\3 hello"
        client.sendall(b"\7\7 hello")
        server.settimeout(patience_s(10))
        assert server.recv(100) == b"\7\7 hello"
        server.settimeout(2)
        client.sendall(word)
        try:
            return server.recv(100) == word
        except TimeoutError:
            return False


@pytest.mark.parametrize("way", [Way.OUT4, Way.OUT6], ids=["IPv4", "IPv6"])
def test_a_request_is_logged_is_blocked_is_excepted_and_works_again(web: Web, engine: Signatures, way: Way) -> None:
    assert asks(web, "allowed", way) == "hello"
    assert asks(web, "forbidden", way) is None

    def told() -> list[dict[str, Any]]:
        return [event for event in engine.alerts(URI, "blocked") if event["terminal_address"] == way.terminal]

    check_until("it is told", told, within_s=20)
    event = told()[0]
    assert (event["function"], event["peer"]) == ("ips", way.peer)
    assert (event["list_name"], event["subject"]) == (f"signature {URI}:4", "http://www.example.com/forbidden")
    with engine.policy('[ips]\nmode = "log"\n'):
        assert asks(web, "forbidden", way) == "hello"
        check_until(
            "it is told",
            lambda: any(event["terminal_address"] == way.terminal for event in engine.alerts(URI, "logged")),
            within_s=20,
        )
    with engine.policy(f'[[ips.exceptions]]\nsignature = {URI}\nterminal = "{way.terminal}"\n'):
        assert asks(web, "forbidden", way) == "hello"
    with engine.policy('[ips]\nmode = "off"\n', condition="off"):
        assert asks(web, "forbidden", way) == "hello"
    assert asks(web, "forbidden", way) is None


def test_a_protocol_that_nobody_reads_is_seen(web: Web, engine: Signatures) -> None:
    assert says(web, b"harmless") is True
    assert says(web, b"this is HARMFUL") is False
    check_until("it is told", lambda: engine.alerts(BODY, "blocked"), within_s=20)


def test_a_new_feed_is_in_force_and_a_broken_one_changes_nothing(web: Web, engine: Signatures) -> None:
    assert asks(web, "newly") == "hello"
    more = 'alert http any any -> any any (msg:"new"; http.uri; content:"/newly"; classtype:trojan-activity; sid:77;)\n'
    with engine.feed("more.rules", more):
        assert asks(web, "newly") is None
        with engine.feed("broken.rules", _many_unknown()):
            assert "did not pass its test" in engine.report()["problem"]
            assert "refused" in web.box.mamori("status")
            assert asks(web, "newly") is None
    assert asks(web, "newly") == "hello"


def _many_unknown() -> str:
    """More than a set may have that Suricata does not know."""
    return "".join(f"alert tcp any any -> any any (nosuch:1; sid:{number};)\n" for number in range(100, 140))


def test_when_the_engine_is_killed_traffic_goes_on_and_another_one_takes_over(web: Web, engine: Signatures) -> None:
    os.kill(engine.pid(), signal.SIGKILL)
    assert asks(web, "allowed") == "hello"
    check_until("its end is told", lambda: "signatures-away" in engine.system_events(), within_s=20)
    engine.await_engine()
    assert asks(web, "forbidden") is None


def test_an_engine_that_hangs_is_ended_and_told_and_another_one_takes_over(web: Web, engine: Signatures) -> None:
    starts = engine.starts
    os.kill(engine.pid(), signal.SIGSTOP)
    check_until("another one was started", lambda: engine.starts > starts, within_s=60)
    check_until("that is told", lambda: "signatures-hang" in engine.system_events(), within_s=20)
    engine.await_engine(kills=1)
    assert asks(web, "allowed") == "hello"
    assert asks(web, "forbidden") is None


def test_a_keeper_that_starts_again_tests_nothing_again(web: Web, engine: Signatures) -> None:
    stamp = engine.paths.rules.stat().st_mtime_ns
    report = engine.report()
    engine.restart_keeper()
    engine.await_engine(rules=report["rules"])
    assert engine.paths.rules.stat().st_mtime_ns == stamp
    assert asks(web, "forbidden") is None
