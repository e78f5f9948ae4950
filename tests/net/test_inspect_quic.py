"""QUIC through the whole application: aioquic at both ends. A blocked name gets no answer, and the browser's next try is TCP."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator

import pytest

from firmware.netns import call_in_namespace
from tests.support.guarded import start_guarded
from tests.support.hellos import quic_client, sent_by
from tests.support.packets import seeded
from tests.support.quic_peers import V1, V2, ask, start_echo
from tests.support.web import Phase, Way, Web, start_web

POLICY = """
[block]
names = ["bad.example"]
"""
BAD, GOOD = "www.bad.example", "www.good.example"
PORT, RETRY_PORT, SINK_PORT = 443, 4434, 4435


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("quic")
    with start_guarded(folder, name="quic") as box, start_web(box, folder) as web, contextlib.ExitStack() as stack:
        stack.enter_context(start_echo(web, "server", PORT))
        stack.enter_context(start_echo(web, "server", RETRY_PORT, retry=True))
        stack.enter_context(start_echo(web, "client", PORT))
        yield web


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(POLICY if phase is Phase.BLOCKED else "")
    return phase


CONVERSATIONS = {
    "version 1": {},
    "version 2": {"versions": (V2,)},
    "version 1 that becomes 2": {"versions": (V1, V2)},
    "after a Retry": {"port": RETRY_PORT},
    "IPv6": {"way": Way.OUT6},
    "into the office": {"way": Way.IN4},
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_blocked_name_gets_no_answer_and_all_others_do(web: Web, phase: Phase, case: str) -> None:
    if phase is Phase.BLOCKED:
        with pytest.raises(ConnectionError):
            ask(web, BAD, b"hello", **CONVERSATIONS[case])
    else:
        assert ask(web, BAD, b"hello", **CONVERSATIONS[case]) == b"hello"
    assert ask(web, GOOD, b"hello", **CONVERSATIONS[case]) == b"hello"


def test_who_then_tries_tcp_gets_an_alert(web: Web, phase: Phase) -> None:
    done = web.curl(f"https://{BAD}/", "--show-error")
    if phase is Phase.BLOCKED:
        assert (done.code, "access denied" in done.stderr) == (35, True)
    else:
        assert done.stdout == "hello"


def large(name: str) -> list[bytes]:
    """A hello of several datagrams."""
    return sent_by(quic_client(name, protocols=[f"protocol-{number}" for number in range(200)]))


DATAGRAMS: dict[str, Callable[[str], list[bytes]]] = {
    "one": lambda name: sent_by(quic_client(name)),
    "one of version 2": lambda name: sent_by(quic_client(name, V2)),
    "several": large,
    "several, the last one first": lambda name: large(name)[::-1],
    "one behind a stray one": lambda name: [b"stray", *sent_by(quic_client(name))],
}


@pytest.fixture(scope="module")
def sink(web: Web) -> Iterator[socket.socket]:
    with web.listen("server", SINK_PORT, socket.SOCK_DGRAM) as sink:
        sink.settimeout(0.2)
        yield sink


@pytest.mark.parametrize("case", DATAGRAMS)
def test_the_server_never_has_a_whole_hello_of_a_blocked_name(web: Web, phase: Phase, sink: socket.socket, case: str) -> None:
    datagrams = DATAGRAMS[case](BAD)
    family = socket.AF_INET6
    with call_in_namespace(web.box.lab.client, lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
        for datagram in datagrams:
            client.sendto(datagram, (Way.OUT6.address, SINK_PORT))
        heard = []
        with contextlib.suppress(TimeoutError):
            while len(heard) < len(datagrams):
                heard.append(sink.recv(65_536))
    if phase is Phase.BLOCKED:
        assert heard == datagrams[: len(heard)]
        assert len(heard) < len(datagrams)
    else:
        assert heard == datagrams


def test_a_connection_that_may_pass_is_passed_by_the_kernel(web: Web) -> None:
    words = seeded(1).randbytes(2_000_000)
    before = web.queued()
    assert hashlib.sha256(ask(web, GOOD, words)).digest() == hashlib.sha256(words).digest()
    assert web.queued() - before < 100, "datagrams that a worker had to look at, of some thousands"


def test_what_is_blocked_is_told_with_all_that_is_known(web: Web) -> None:
    web.box.set_policy(POLICY)
    with pytest.raises(ConnectionError):
        ask(web, "told.bad.example", b"hello", Way.OUT6)
    web.box.set_policy("")
    (event,) = web.await_events(subject="told.bad.example")
    assert (
        event.items()
        >= {
            "function": "dangerous-site",
            "action": "blocked",
            "protocol": "quic",
            "heading": "outbound",
            "terminal_mac": web.mac(),
            "terminal_address": Way.OUT6.terminal,
            "peer": Way.OUT6.address,
            "peer_port": PORT,
            "list_name": "own",
        }.items()
    )
    assert web.box.events("--search", GOOD) == []
