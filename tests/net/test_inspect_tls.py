"""TLS through the whole application: curl, openssl and hellos of many makes; nginx, s_server and a server that says nothing."""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from collections.abc import Iterator

import pytest

from firmware.process import start
from mamori.inspect.blocking import TLS_ACCESS_DENIED
from tests.support.guarded import start_guarded
from tests.support.hellos import extension, join_extensions, post_quantum_hello, python_hello, record, split_extensions
from tests.support.scanned import serve
from tests.support.wait import check_until, patience_s
from tests.support.web import TLS_PORT, Phase, Sink, Way, Web, hear, say, start_web

POLICY = """
[block]
names = ["bad.example"]
"""
BAD, GOOD = "www.bad.example", "www.good.example"
OLD_PORT, SINK_PORT = 4433, 8443
WAYS = pytest.mark.parametrize("way", Way, ids=lambda way: way.name)
SOON_S = 3
"""A browser shows its error after that at the latest; a connection without an answer would take it minutes."""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("tls")
    with start_guarded(folder, name="tls") as box, start_web(box, folder) as web:
        yield web


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(POLICY if phase is Phase.BLOCKED else "")
    return phase


@WAYS
def test_curl_fails_at_once_with_a_blocked_name_and_fetches_from_all_others(web: Web, phase: Phase, way: Way) -> None:
    started = time.monotonic()
    done = web.curl(f"https://{BAD}/", "--show-error", way=way)
    if phase is Phase.BLOCKED:
        assert done.code == 35
        assert "access denied" in done.stderr
        assert time.monotonic() - started < patience_s(SOON_S)
    else:
        assert (done.code, done.stdout) == (0, "hello")
    assert web.curl(f"https://{GOOD}/", way=way).stdout == "hello"


@pytest.fixture(scope="module")
def old_server(web: Web) -> Iterator[None]:
    """openssl's own, which speaks TLS 1.2 only."""
    home = web.folder / "server"
    argv = [
        "openssl",
        "s_server",
        "-accept",
        str(OLD_PORT),
        "-www",
        "-tls1_2",
        "-cert",
        home / "cert.pem",
        "-key",
        home / "key.pem",
    ]
    with start(["ip", "netns", "exec", web.box.lab.server, *argv], explain="serve TLS 1.2", log=home / "s_server.log"):
        check_until("it listens", lambda: f":{OLD_PORT}" in web.at("server", "ss", "-Hltn", explain="look").stdout, within_s=10)
        yield


@pytest.mark.usefixtures("old_server")
@pytest.mark.parametrize("arguments", [["-tls1_2"], []], ids=["TLS 1.2", "as it likes"])
def test_openssl_to_another_port(web: Web, phase: Phase, arguments: list[str]) -> None:
    for name in (BAD, GOOD):
        argv = ["openssl", "s_client", "-connect", f"{Way.OUT4.address}:{OLD_PORT}", "-servername", name, "-brief", *arguments]
        started = time.monotonic()
        done = web.at("client", *argv, explain="shake hands", input=b"")
        if phase is Phase.BLOCKED and name == BAD:
            assert done.code != 0
            assert "access denied" in done.stderr
            assert time.monotonic() - started < patience_s(SOON_S)
        else:
            assert done.code == 0, done.stderr
            assert "CONNECTION ESTABLISHED" in done.stderr


def greased(hello: bytes) -> bytes:
    """With the extension of Encrypted ClientHello that Chrome sends where it has no keys: HPKE parameters, and noise."""
    before, extensions = split_extensions(hello)
    noise = b"\0\0\1\0\1\x5f\0\x20" + bytes(range(32)) + b"\0\xb0" + bytes(0xB0)
    return join_extensions(before, [*extensions[:-1], extension(0xFE0D, noise), extensions[-1]])


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    body = hello[5:]
    return b"".join(record(body[at : at + size]) for at in range(0, len(body), size))


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def halves(name: str) -> list[bytes]:
    """Cut in the middle of the name."""
    hello = python_hello(name)
    middle = hello.index(name.encode()) + len(name) // 2
    return [hello[:middle], hello[middle:]]


HELLOS = {
    "whole": lambda name: [python_hello(name)],
    "cut in the name": halves,
    "byte by byte": lambda name: pieces_of(python_hello(name), 1),
    "in records of 100 bytes": lambda name: [in_records(python_hello(name), 100)],
    "in records of 3 bytes, a segment each": lambda name: pieces_of(in_records(python_hello(name), 3), 8),
    "TLS 1.2": lambda name: [python_hello(name, newest=ssl.TLSVersion.TLSv1_2)],
    "for HTTP/2": lambda name: [python_hello(name, ["h2", "http/1.1"])],
    "in capitals": lambda name: [python_hello(name.upper())],
    "with ECH GREASE": lambda name: [greased(python_hello(name))],
    "post-quantum": lambda name: [post_quantum_hello(name)],
    "post-quantum in two segments": lambda name: pieces_of(post_quantum_hello(name), 1000),
}


@pytest.mark.parametrize("case", HELLOS)
def test_a_hello_of_any_make_is_answered_by_the_server_or_with_an_alert(web: Web, phase: Phase, case: str) -> None:
    for name in (BAD, GOOD):
        with web.connect(TLS_PORT, within_s=SOON_S) as client:
            say(client, HELLOS[case](name))
            if phase is Phase.BLOCKED and name == BAD:
                assert hear(client) == TLS_ACCESS_DENIED
            else:
                assert hear(client, 1) == b"\x16"  # a handshake record: the server's hello


@pytest.fixture(scope="module")
def sink(web: Web) -> Iterator[Sink]:
    sink = Sink()
    with serve(web.listen("server", SINK_PORT), sink.talk):
        yield sink


@pytest.mark.parametrize("case", HELLOS)
def test_the_server_never_has_a_whole_hello_of_a_blocked_name(web: Web, phase: Phase, sink: Sink, case: str) -> None:
    pieces = HELLOS[case](BAD)
    with web.connect(SINK_PORT, Way.OUT6, within_s=SOON_S) as client:
        say(client, pieces)
        if phase is Phase.BLOCKED:
            assert hear(client) == TLS_ACCESS_DENIED
            assert len(sink.of(client)) < len(b"".join(pieces))
        else:
            check_until("the server has it", lambda: sink.of(client) == b"".join(pieces), within_s=SOON_S)


def test_a_hello_without_a_name_passes(web: Web, phase: Phase) -> None:
    done = web.curl(f"https://{Way.OUT4.address}/", "--fail")
    assert (done.code, done.stdout) == (0, "hello"), phase


def test_a_connection_that_may_pass_is_passed_by_the_kernel_from_its_hello_on(web: Web) -> None:
    content = os.urandom(50 << 20)
    (web.files / "large").write_bytes(content)
    before = web.queued()
    got = web.curl(f"https://{GOOD}/files/large").stdout_bytes
    assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
    assert web.queued() - before < 30, "packets that a worker had to look at"


def test_what_is_blocked_is_told_with_all_that_is_known(web: Web) -> None:
    web.box.set_policy(POLICY)
    what = {"function": "dangerous-site", "action": "blocked", "protocol": "tls", "list_name": "own", "category": "own"}
    for way in Way:
        subject = f"{way.name.lower()}.told.bad.example"
        assert web.curl(f"https://{subject}/", way=way).code == 35
        who = {"terminal_address": way.terminal, "terminal_mac": web.mac(), "heading": way.heading, "peer": way.peer}
        event = web.await_events(**what, **who, subject=subject)[0]
        assert (event["peer_port"] == TLS_PORT) == (way.heading == "outbound")
    assert web.box.events("--search", GOOD) == []
    web.box.set_policy("")
