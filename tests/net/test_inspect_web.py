"""The whole application between real web servers and curl, wget and bare sockets: every request works, is blocked, works again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from firmware.process import Result
from tests.support.guarded import start_guarded
from tests.support.need import need
from tests.support.scanned import serve
from tests.support.wait import check_until
from tests.support.web import Phase, Sink, Way, Web, hear, say, start_web

POLICY = """
[block]
names = ["bad.example"]
urls = ["half.example/bad/", "half.example/find?q=bad", "half.example/日本"]
[block_page]
contact = "ask Tanaka"
"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    with start_guarded(folder, name="web") as box, start_web(box, folder) as web:
        yield web


@pytest.fixture(scope="module")
def sinks(web: Web) -> Iterator[dict[str, Sink]]:
    """Servers that keep what they hear, by the side that they are on."""
    sinks = {side: Sink() for side in ("server", "client")}
    with contextlib.ExitStack() as stack:
        for side, sink in sinks.items():
            stack.enter_context(serve(web.listen(side, SINK_PORT), sink.talk))
        yield sinks


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(POLICY if phase is Phase.BLOCKED else "")
    return phase


SINK_PORT = 8082
HOSTS = ((b"www.good.example", b"keep-alive"), (b"www.bad.example", b"close"))
_numbers = itertools.count(1_000_000)

REQUESTS = {
    "a name below": ("http://www.bad.example/x", []),
    "the name itself": ("http://bad.example/", []),
    "capitals": ("http://WWW.BAD.Example/x", []),
    "a dot at its end": ("http://www.bad.example./x", []),
    "another port": ("http://www.bad.example:8081/x", []),
    "HTTP/1.0": ("http://www.bad.example/x", ["--http1.0"]),
    "a user and a password": ("http://me:secret@www.bad.example/x", []),
    "through a proxy": ("http://www.bad.example/x", ["--proxy", "{server}:80"]),
    "the name only in Host": ("http://{server}/x", ["--header", "Host: www.bad.example"]),
    "a path": ("http://www.half.example/bad/page", []),
    "a path in percent": ("http://www.half.example/%62%61d/page", []),
    "a path in mixed percent": ("http://www.half.example/%62%61%64%2fpage", []),
    "a path with dots": ("http://www.half.example/x/.././bad/page", ["--path-as-is"]),
    "a path with dots in percent": ("http://www.half.example/x/%2e%2E/bad/page", ["--path-as-is"]),
    "a path with more slashes": ("http://www.half.example//bad///page", ["--path-as-is"]),
    "a path in Japanese": ("http://www.half.example/%E6%97%A5%E6%9C%AC", []),
    "a query": ("http://www.half.example/find?q=bad", []),
    "a query in percent": ("http://www.half.example/find?q=%62ad", []),
    "a cookie of 30 KB": ("http://www.bad.example/x", ["--header", "Cookie: c=" + 30_000 * "c"]),
    "a range": ("http://www.bad.example/x", ["--range", "0-4"]),
    "gzip wanted": ("http://www.bad.example/x", ["--compressed"]),
    "upgrade to HTTP/2": ("http://www.bad.example/x", ["--http2"]),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_gets_the_page_in_place_of_the_site(web: Web, phase: Phase, case: str) -> None:
    if phase is Phase.BLOCKED:
        expect_page(web, Way.OUT4, case)
    else:
        assert fetch(web, Way.OUT4, case, "--fail").stdout == "hello"


@pytest.mark.parametrize("case", ["a name below", "a path", "a cookie of 30 KB"])
@pytest.mark.parametrize("way", [Way.OUT6, Way.IN4, Way.IN6], ids=lambda way: way.name)
def test_over_ipv6_and_into_the_office_too(web: Web, phase: Phase, way: Way, case: str) -> None:
    if phase is Phase.BLOCKED:
        expect_page(web, way, case)
    else:
        assert fetch(web, way, case, "--fail").stdout == "hello"


def fetch(web: Web, way: Way, case: str, *more: str) -> Result:
    url, arguments = REQUESTS[case]
    server = way.host
    return web.curl(url.format(server=server), *(each.format(server=server) for each in arguments), *more, way=way)


def expect_page(web: Web, way: Way, case: str) -> None:
    mark = f"{way.name}-{list(REQUESTS).index(case)}"
    page = fetch(web, way, case, "--include", "--header", f"X-Case: {mark}")
    assert (page.code, page.stdout.splitlines()[0][:12]) == (0, "HTTP/1.1 403"), page.stdout[:200]
    for text in ("このページは遮断されました", "your own block list", "ask Tanaka"):
        assert text in page.stdout
    server = "client" if way.asks == "server" else "server"
    assert not [line for line in web.requests(server) if mark in line]


def test_wget_gets_the_page_too(web: Web, phase: Phase) -> None:
    need("wget", "is another client")
    argv = ["wget", "-q", "-O", "-", "--content-on-error", "--tries=1", "--header", "Host: www.bad.example"]
    for way in (Way.OUT4, Way.OUT6):
        done = web.at(way.asks, *argv, f"http://{way.host}/x", explain="fetch")
        if phase is Phase.BLOCKED:
            assert done.code == 8, "the server issued an error response"
            assert "このページは遮断されました" in done.stdout
        else:
            assert (done.code, done.stdout) == (0, "hello")


def test_a_head_request_gets_a_head(web: Web, phase: Phase) -> None:
    done = web.curl("http://www.bad.example/x", "--head")
    assert done.code == 0
    assert done.stdout.split()[1] == ("403" if phase is Phase.BLOCKED else "200")
    assert "<html" not in done.stdout


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("way", [Way.OUT4, Way.IN6], ids=lambda way: way.name)
def test_what_is_sent_to_a_blocked_site_stays_in_the_office(
    web: Web, phase: Phase, sinks: dict[str, Sink], way: Way, method: str
) -> None:
    sink = sinks["client" if way.asks == "server" else "server"]
    secret = b"password=%d" % next(_numbers)
    head = f"{method} /login HTTP/1.1\r\nHost: www.bad.example\r\nContent-Length: {len(secret)}\r\n\r\n".encode()
    with web.connect(SINK_PORT, way) as client:
        say(client, [head[:20], head[20:], secret[:3], secret[3:]], pause_s=0.002)
        if phase is Phase.BLOCKED:
            assert hear(client).startswith(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n")
            assert len(sink.of(client)) < len(head)
        else:
            check_until("it arrives", lambda: sink.of(client) == head + secret, within_s=5)


def test_the_second_request_of_a_connection_is_judged_as_the_first(web: Web, phase: Phase) -> None:
    with web.connect(80) as client, client.makefile("rb") as stream:
        for host, status in ((b"good", b"200"), (b"bad", b"403" if phase is Phase.BLOCKED else b"200")):
            client.sendall(b"GET /x HTTP/1.1\r\nHost: www.%b.example\r\n\r\n" % host)
            assert stream.readline().split()[1] == status
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(5) == (b"hello" if status == b"200" else b"<!DOC")


def test_of_pipelined_requests_the_blocked_one_gets_no_answer_that_is_another_ones(web: Web, phase: Phase) -> None:
    asked = [b"GET /x HTTP/1.1\r\nHost: %b\r\nConnection: %b\r\n\r\n" % each for each in HOSTS]
    with web.connect(80) as client:
        client.sendall(b"".join(asked))
        answer = hear(client)
    if phase is Phase.BLOCKED:
        assert answer.count(b"200 OK") <= 1
        assert b"403" not in answer.partition(b"200 OK")[0]
    else:
        assert answer.count(b"200 OK") == 2


def test_what_is_blocked_is_told_with_all_that_is_known(web: Web) -> None:
    web.box.set_policy(POLICY)
    what = {
        "function": "dangerous-site",
        "action": "blocked",
        "protocol": "http",
        "list_name": "own",
        "category": "own",
        "times": 1,
    }
    for way in Way:
        host = f"{way.name.lower()}.told.bad.example"
        assert "403 Forbidden" in web.curl(f"http://{host}:8081/a/b?c=d", "--include", way=way).stdout
        who = {"terminal_address": way.terminal, "terminal_mac": web.mac(), "heading": way.heading, "peer": way.peer}
        (event,) = web.await_events(**what, **who, subject=f"{host}:8081/a/b?c=d")
        assert (event["peer_port"] == 8081) == (way.heading == "outbound")
    web.box.set_policy("")
    assert not [event for event in web.box.events("--search", "good.example") if event["action"] == "blocked"]
