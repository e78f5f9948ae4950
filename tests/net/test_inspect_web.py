"""The whole application between real web servers and curl, wget and bare sockets: every request works, is blocked, works again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firmware.process import Result
from tests.support.guarded import start_guarded
from tests.support.web import Phase, Way, Web, start_web

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


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(POLICY if phase is Phase.BLOCKED else "")
    return phase


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
