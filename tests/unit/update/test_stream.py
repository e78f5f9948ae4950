"""The bundle on its way to RAUC: ranges from servers that break, limp and lie; the end that stays what it was."""

from __future__ import annotations

import http.client
import http.server
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.update.stream import MAX_SIGNATURE_BYTES, BundleServer, Pinned, _parse_range, pin_tail
from mamori.update.upstream import FileUpstream, HttpUpstream, Limiter, Patience, UpstreamError, open_upstream
from tests.support.wait import check_until

SIGNATURE = b"a signature with the manifest in it"
BUNDLE = os.urandom(300_000) + SIGNATURE + struct.pack(">Q", len(SIGNATURE))
HASTY = Patience(stall_s=0.5, give_up_s=20.0)

Way = Callable[["_Server"], None]


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves the bundle as the test's `way` wants it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        try:
            self.server.way(self)  # type: ignore[attr-defined]
        except OSError:
            self.close_connection = True

    @property
    def span(self) -> tuple[int, int]:
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1

    @property
    def turn(self) -> int:
        """How many requests there were before."""
        self.server.turns += 1  # type: ignore[attr-defined]
        return self.server.turns - 1  # type: ignore[attr-defined]

    def head(self, start: int, end: int, *, status: int = 206, shown: str = "", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Range", shown or f"bytes {start}-{end - 1}/{len(BUNDLE)}")
        self.send_header("Content-Length", str(end - start if length is None else length))
        self.end_headers()

    def honest(self, content: bytes = BUNDLE) -> None:
        start, end = self.span
        self.head(start, end)
        self.wfile.write(content[start:end])


@contextmanager
def upstream(way: Way, patience: Patience = HASTY, limiter: Limiter | None = None) -> Iterator[HttpUpstream]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.daemon_threads, server.way, server.turns = True, way, 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    source = HttpUpstream(f"http://127.0.0.1:{server.server_port}/x", len(BUNDLE), limiter or Limiter(None), patience)
    try:
        yield source
    finally:
        source.stop()
        server.shutdown()
        thread.join()
        server.server_close()


def whole(source: HttpUpstream | FileUpstream, start: int = 0, end: int = len(BUNDLE)) -> bytes:
    return b"".join(source.read(start, end))


def breaks_off(server: _Server) -> None:
    """Half of what was asked for, each time."""
    start, end = server.span
    server.head(start, end)
    server.wfile.write(BUNDLE[start : start + max((end - start) // 2, 1)])
    server.close_connection = True


def stalls_once(server: _Server) -> None:
    if server.turn == 0:
        start, end = server.span
        server.head(start, end)
        server.wfile.write(BUNDLE[start : start + 1000])
        server.wfile.flush()
        time.sleep(1)
        server.close_connection = True
    else:
        server.honest()


def is_busy_at_first(server: _Server) -> None:
    server.send_error(503) if server.turn < 2 else server.honest()


def has_too_much_to_do(server: _Server) -> None:
    server.send_error(429) if server.turn < 1 else server.honest()


def hangs_up_at_first(server: _Server) -> None:
    if server.turn < 1:
        server.close_connection = True
    else:
        server.honest()


@pytest.mark.parametrize("way", [_Server.honest, stalls_once, is_busy_at_first, has_too_much_to_do, hangs_up_at_first])
def test_what_breaks_is_gone_on_with(way: Way) -> None:
    with upstream(way) as source:
        assert whole(source) == BUNDLE


def test_a_range_that_always_breaks_off_comes_in_pieces_each_from_where_the_last_one_ended() -> None:
    with upstream(breaks_off, Patience(0.5, 30)) as source:
        assert whole(source, 1000, 1016) == BUNDLE[1000:1016]
        assert source.fetched_bytes == 16, "nothing is fetched twice"


def redirects(server: _Server) -> None:
    server.send_response(302)
    server.send_header("Location", "http://127.0.0.1:1/")
    server.send_header("Content-Length", "0")
    server.end_headers()


def has_no_ranges(server: _Server) -> None:
    server.head(0, len(BUNDLE), status=200)
    server.wfile.write(BUNDLE)


def gives_another_range(server: _Server) -> None:
    start, end = server.span
    server.head(start, end, shown=f"bytes {start + 1}-{end}/{len(BUNDLE)}")
    server.wfile.write(BUNDLE[start:end])


def has_another_file(server: _Server) -> None:
    start, end = server.span
    server.head(start, end, shown=f"bytes {start}-{end - 1}/{len(BUNDLE) + 1}")
    server.wfile.write(BUNDLE[start:end])


def says_no_range(server: _Server) -> None:
    start, end = server.span
    server.head(start, end, shown="bytes */*")


def packs(server: _Server) -> None:
    start, end = server.span
    server.send_response(206)
    server.send_header("Content-Encoding", "gzip")
    server.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(BUNDLE)}")
    server.send_header("Content-Length", "0")
    server.end_headers()


def has_nothing(server: _Server) -> None:
    server.send_error(404)


FINAL = {
    "redirects": (redirects, "sends us elsewhere"),
    "no ranges": (has_no_ranges, "no ranges"),
    "another range": (gives_another_range, "another range"),
    "another file": (has_another_file, "another range"),
    "no range said": (says_no_range, "another range"),
    "packed": (packs, "packed"),
    "not there": (has_nothing, "answers 404"),
}


@pytest.mark.parametrize(("way", "says"), FINAL.values(), ids=FINAL)
def test_what_cannot_end_otherwise_ends_at_once(way: Way, says: str) -> None:
    with upstream(way) as source:
        started = time.monotonic()
        with pytest.raises(UpstreamError, match=says) as caught:
            whole(source)
        assert caught.value.is_final
        assert time.monotonic() - started < 2


def nonsense(server: _Server) -> None:
    server.wfile.write(b"\xff\xfe\r\n\r\n")
    server.close_connection = True


def silence(server: _Server) -> None:
    time.sleep(1)
    server.close_connection = True


@pytest.mark.parametrize("way", [nonsense, silence])
def test_what_never_comes_is_given_up_and_may_be_tried_another_day(way: Way) -> None:
    with upstream(way, Patience(0.2, 2.0)) as source:
        with pytest.raises(UpstreamError) as caught:
            whole(source)
        assert not caught.value.is_final


def drips(server: _Server) -> None:
    """A byte now and then, for ever: each one within the time that a stall may take."""
    start, end = server.span
    server.head(start, end)
    for byte in BUNDLE[start:end]:
        server.wfile.write(bytes([byte]))
        server.wfile.flush()
        time.sleep(0.05)


def test_a_server_that_gives_a_byte_now_and_then_is_given_up() -> None:
    with upstream(drips, Patience(1.0, 1.5)) as source:
        started = time.monotonic()
        with pytest.raises(UpstreamError, match="of use") as caught:
            whole(source)
        assert not caught.value.is_final
        assert time.monotonic() - started < 6


def test_our_own_limit_is_no_slowness_of_the_server() -> None:
    with upstream(_Server.honest, Patience(1.0, 0.3), Limiter(40_000)) as source:
        assert whole(source, 0, 80_000) == BUNDLE[:80_000]


def test_a_server_that_is_not_there_is_no_final_word() -> None:
    source = HttpUpstream("http://127.0.0.1:1/x", 100, Limiter(None), Patience(0.2, 0.5))
    with pytest.raises(UpstreamError) as caught:
        whole(source, 0, 100)
    assert not caught.value.is_final


def test_who_waits_is_told_to_stop() -> None:
    with upstream(is_busy_at_first, Patience(0.5, 60)) as source, ThreadPoolExecutor() as pool:
        waiting = pool.submit(whole, source)
        time.sleep(0.2)
        source.stop()
        with pytest.raises(UpstreamError, match="stopped"):
            waiting.result(5)


@pytest.mark.parametrize("url", ["ftp://example.com/x", "http:///x", "x", ""])
def test_a_url_that_is_none_of_ours_is_refused(url: str) -> None:
    with pytest.raises(UpstreamError):
        open_upstream(url, 1, Limiter(None))


def test_a_limit_is_kept_over_all_who_take() -> None:
    """By its own clock: 100 bytes a second, one second saved up."""
    now = 50.0
    limiter = Limiter(100, clock=lambda: now)
    assert limiter.take(100) == 1.0
    assert limiter.take(50) == 1.5
    now = 60.0
    assert limiter.take(100) == 0.0, "a second's worth was saved up"
    assert limiter.take(100) == 1.0
    assert Limiter(None).take(10**9) == 0.0


def test_a_bundle_on_a_stick(tmp_path: Path) -> None:
    path = tmp_path / "a bundle"
    path.write_bytes(BUNDLE)
    source = open_upstream(path.as_uri(), len(BUNDLE), Limiter(None))
    assert whole(source, 5, 100_000) == BUNDLE[5:100_000]
    with pytest.raises(UpstreamError, match="not"):
        whole(open_upstream(path.as_uri(), len(BUNDLE) - 1, Limiter(None)), 0, 10)
    path.unlink()
    with pytest.raises(UpstreamError, match="No such file"):
        whole(source)


# --- the end, and the server ---------------------------------------------------------------------------------------------------


def fetch(url: str, asked: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)) as connection:
        connection.request(method, parts.path, headers={"Range": asked} if asked else {})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()


@pytest.fixture
def server() -> Iterator[BundleServer]:
    with upstream(_Server.honest) as source:
        served = BundleServer(source, pin_tail(source, len(BUNDLE)))
        try:
            yield served
        finally:
            served.close()


def test_ranges_come_as_asked_for_over_the_border_of_the_end_too(server: BundleServer) -> None:
    border = len(BUNDLE) - len(SIGNATURE) - 8
    for start, end in [(0, 4), (0, len(BUNDLE)), (border - 10, border + 10), (border, border + 1), (len(BUNDLE) - 8, len(BUNDLE))]:
        status, headers, content = fetch(server.url, f"bytes={start}-{end - 1}")
        assert (status, content == BUNDLE[start:end]) == (206, True)
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(BUNDLE)}"
    assert fetch(server.url)[2] == BUNDLE
    assert fetch(server.url, "bytes=300000-")[2] == BUNDLE[300000:]
    status, headers, content = fetch(server.url, method="HEAD")
    assert (status, headers["content-length"], content) == (200, str(len(BUNDLE)), b"")


@pytest.mark.parametrize(
    "asked", ["bytes=-5", "bytes=5-4", f"bytes={len(BUNDLE)}-", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=0"]
)
def test_ranges_that_are_none_are_refused(server: BundleServer, asked: str) -> None:
    assert fetch(server.url, asked)[0] == 416


def test_who_does_not_know_the_path_gets_nothing(server: BundleServer) -> None:
    base = server.url.rpartition("/")[0]
    for path in (base.rpartition("/")[0] + "/", base + "/other", base.rpartition("/")[0] + "/x/bundle.raucb"):
        assert fetch(path)[0] == 404


def test_many_ask_at_once(server: BundleServer) -> None:
    spans = [(at * 6000, at * 6000 + 6000) for at in range(50)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda span: fetch(server.url, f"bytes={span[0]}-{span[1] - 1}")[2], spans))
    assert answers == [BUNDLE[start:end] for start, end in spans]


def test_the_end_stays_what_was_looked_at_whatever_the_server_has_now() -> None:
    """A thief swaps the bundle after the manifest was compared: RAUC gets the payload of one and the manifest of the other, and
    the manifest's hashes refuse the payload."""
    other = os.urandom(300_000) + b"SOMEBODY ELSE'S" + SIGNATURE[15:] + BUNDLE[-8:]
    content = BUNDLE

    def way(server: _Server) -> None:
        server.honest(content)

    with upstream(way) as source:
        served = BundleServer(source, pin_tail(source, len(BUNDLE)))
        try:
            content = other
            assert fetch(served.url)[2] == other[:300_000] + BUNDLE[300_000:]
        finally:
            served.close()


def test_a_range_that_cannot_be_had_is_short_and_noted() -> None:
    ways: list[Way] = [_Server.honest]
    with upstream(lambda server: ways[0](server)) as source:
        served = BundleServer(source, pin_tail(source, len(BUNDLE)))
        try:
            ways[0] = has_nothing
            with pytest.raises(http.client.IncompleteRead):
                fetch(served.url, "bytes=0-9999")
            assert served.problem is not None
            assert served.problem.is_final
            ways[0] = _Server.honest
            assert fetch(served.url, "bytes=0-9")[2] == BUNDLE[:10]
            check_until("that is forgotten", lambda: served.problem is None, within_s=5)
        finally:
            served.close()


@pytest.mark.parametrize("size", [0, MAX_SIGNATURE_BYTES + 1, 1 << 63, len(BUNDLE)])
def test_what_is_no_bundle_is_seen_at_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(BUNDLE[:-8] + struct.pack(">Q", size))
    with pytest.raises(UpstreamError, match="no bundle"):
        pin_tail(FileUpstream(path.as_uri(), len(BUNDLE)), len(BUNDLE))
    with pytest.raises(UpstreamError, match="a bundle of 8 bytes"):
        pin_tail(FileUpstream(path.as_uri(), 8), 8)


@given(st.text(max_size=40), st.integers(1, 1000))
def test_any_text_is_a_range_within_the_bundle_or_none(text: str, length: int) -> None:
    for asked in (text, f"bytes={text}"):
        span = _parse_range(asked, length)
        assert span is None or 0 <= span[0] < span[1] <= length


def test_a_pinned_end_knows_the_whole_length() -> None:
    assert Pinned(100, b"12345").length == 105
