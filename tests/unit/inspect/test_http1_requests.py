"""The client's direction. Every case is read whole, byte by byte, as a memoryview and in random segments, and says the same."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.http1 import RequestReader
from mamori.inspect.http1_head import MAX_FIELDS, MAX_HEAD_BYTES, Anomaly, HttpError
from tests.support.http_transcript import Message, Transcript, byte_by_byte, cuts, read_requests

HOST = b"Host: example.com\r\n"


def read(stream: bytes) -> Transcript:
    whole = read_requests([stream])
    assert read_requests(byte_by_byte(stream)) == whole
    assert read_requests([memoryview(stream)]) == whole
    for step in (2, 3, 7):
        assert read_requests(cuts(stream, range(0, len(stream), step))) == whole
    return whole


def messages(stream: bytes) -> list[Message]:
    transcript = read(stream)
    assert transcript.error is None
    return transcript.messages


def only(stream: bytes) -> Message:
    (message,) = messages(stream)
    return message


@pytest.mark.parametrize(
    ("line", "method", "target", "version"),
    [
        pytest.param(b"GET / HTTP/1.1", "GET", "/", (1, 1), id="plain"),
        pytest.param(b"GET /a%20b?c=d#e HTTP/1.0", "GET", "/a%20b?c=d#e", (1, 0), id="query and fragment"),
        pytest.param(b"OPTIONS * HTTP/1.1", "OPTIONS", "*", (1, 1), id="asterisk"),
        pytest.param(b"M-SEARCH /x HTTP/1.1", "M-SEARCH", "/x", (1, 1), id="a method with a hyphen"),
        pytest.param(b"foo! /x HTTP/1.1", "foo!", "/x", (1, 1), id="a method that nobody knows"),
        pytest.param(b"GET   /x   HTTP/1.1  ", "GET", "/x", (1, 1), id="more than one space, as nginx takes"),
        pytest.param(b"GET\t/x\tHTTP/1.1", "GET", "/x", (1, 1), id="tabs, as http.server takes"),
        pytest.param(b"GET /x http/1.1", "GET", "/x", (1, 1), id="lower-case version"),
        pytest.param(b"GET /\xe3\x81\x82 HTTP/1.1", "GET", "/ã\x81\x82", (1, 1), id="raw UTF-8"),
    ],
)
def test_a_request_line_is_read_as_servers_read_it(line: bytes, method: str, target: str, version: tuple[int, int]) -> None:
    message = only(line + b"\r\n" + HOST + b"\r\n")
    assert (message.request.method, message.request.target, message.request.version) == (method, target, version)
    assert (message.request.start, message.request.end) == (0, len(line) + 4 + len(HOST))
    assert message.odd == set()
    assert message.complete


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"GET\r\n\r\n", id="no target"),
        pytest.param(b"POST /x\r\n\r\n", id="no version, and not GET"),
        pytest.param(b"GET / HTTQ/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"(GET) / HTTP/1.1\r\n\r\n", id="no token"),
        pytest.param(b"\0GET / HTTP/1.1\r\n\r\n", id="NUL first"),
    ],
)
def test_what_no_server_takes_is_the_one_error_and_the_reader_stays_dead(stream: bytes) -> None:
    transcript = read(stream)
    assert transcript.error
    reader = RequestReader()
    for _ in range(2):
        with pytest.raises(HttpError):
            reader.receive(stream)
            reader.receive(b"")


def test_what_came_before_the_break_is_told_before_the_error() -> None:
    transcript = read(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n\x00\x01\x02")
    assert [message.request.target for message in transcript.messages] == ["/a"]
    assert transcript.error == "no method"


@pytest.mark.parametrize(
    ("head", "host", "odd"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: EXAMPLE.com.\r\n\r\n", "example.com", set(), id="upper case and final dot"),
        pytest.param(b"GET / HTTP/1.1\r\nhOSt:example.com\r\n\r\n", "example.com", set(), id="no space after the colon"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost \t: example.com\r\n\r\n", "example.com", {Anomaly.SPACE_BEFORE_COLON}, id="space before"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost:\r\n example.com\r\n\r\n", "example.com", {Anomaly.FOLDED_FIELD}, id="folded"),
        pytest.param(b"GET / HTTP/1.1\nHost: example.com\n\n", "example.com", {Anomaly.BARE_LF}, id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: example.com\r\n\n", "example.com", {Anomaly.BARE_LF}, id="bare LF at the end"),
        pytest.param(b"GET / HTTP/1.1\r\nX: y\rHost: example.com\r\n\r\n", "example.com", {Anomaly.BARE_CR}, id="bare CR"),
        pytest.param(
            b"GET / HTTP/1.1\r\nX\r\nHost: example.com\r\n\r\n", "example.com", {Anomaly.FIELD_WITHOUT_COLON}, id="no colon"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: example.com\r\nX: \0\r\n\r\n", "example.com", {Anomaly.NUL}, id="NUL"),
        pytest.param(b"\r\n\n\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", set(), id="leading blank lines"),
        pytest.param(
            b"GET / HTTP/1.1\r\n x: y\r\nHost: example.com\r\n\r\n", "example.com", {Anomaly.FOLDED_FIELD}, id="fold of nothing"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "", {Anomaly.HOST_MISSING}, id="no host"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", "", set(), id="no host in 1.0"),
        pytest.param(
            b"GET /a b HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", {Anomaly.SPACE_IN_TARGET}, id="space in target"
        ),
    ],
)
def test_oddities_of_a_head_are_read_and_named(head: bytes, host: str, odd: set[Anomaly]) -> None:
    message = only(head)
    assert [url.host for url in message.request.urls] == [host]
    assert message.odd == odd


def test_every_host_that_a_server_may_see_is_told_the_targets_own_first() -> None:
    message = only(b"GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\nHost: c.example\r\n\r\n")
    assert [str(url) for url in message.request.urls] == ["a.example/x", "b.example/x", "c.example/x"]
    assert message.odd == {Anomaly.HOST_CONFLICT}


def test_pipelined_requests_are_told_one_by_one_with_their_offsets() -> None:
    stream = b"".join(b"GET /%d HTTP/1.1\r\n%s\r\n" % (number, HOST) for number in range(5))
    told = messages(stream)
    assert [message.request.target for message in told] == ["/0", "/1", "/2", "/3", "/4"]
    assert [message.request.start for message in told][1:] == [message.end for message in told][:-1]
    assert told[-1].end == len(stream)


@pytest.mark.parametrize(
    ("fields", "body", "data", "odd"),
    [
        pytest.param(b"Content-Length: 5\r\n", b"hello", b"hello", set(), id="by length"),
        pytest.param(b"Content-Length: 0\r\n", b"", b"", set(), id="empty"),
        pytest.param(b"Content-Length: 5, 5\r\n", b"hello", b"hello", set(), id="the same length twice in one field"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", b"hello", set(), id="the same length twice"),
        pytest.param(
            b"Content-Length: 5\r\nContent-Length: 9\r\n", b"hello", b"hello", {Anomaly.CONFLICTING_LENGTH}, id="two lengths"
        ),
        pytest.param(b"Content-Length: +5\r\n", b"hello", b"hello", {Anomaly.BAD_LENGTH}, id="a sign"),
        pytest.param(b"Content-Length: 5x\r\n", b"hello", b"hello", {Anomaly.BAD_LENGTH}, id="letters after digits"),
        pytest.param(b"Content-Length: five\r\n", b"", b"", {Anomaly.BAD_LENGTH}, id="no number"),
        pytest.param(b"Content-Length:\r\n", b"", b"", {Anomaly.BAD_LENGTH}, id="no value"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", set(), id="chunked"),
        pytest.param(b"Transfer-Encoding: , Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", set(), id="an empty list member"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"hello",
            {Anomaly.LENGTH_AND_CHUNKED},
            id="length and chunked",
        ),
        pytest.param(
            b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
            b"hello",
            b"hello",
            {Anomaly.ODD_TRANSFER_CODING},
            id="xchunked",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked, identity\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"hello",
            {Anomaly.ODD_TRANSFER_CODING},
            id="chunked, but not last",
        ),
        pytest.param(
            b"Content-Encoding: gzip\r\nContent-Length: 25\r\n",
            gzip.compress(b"hello", mtime=0),
            b"hello",
            set(),
            id="a coded upload",
        ),
    ],
)
def test_a_body_ends_where_servers_end_it(fields: bytes, body: bytes, data: bytes, odd: set[Anomaly]) -> None:
    stream = b"POST /form HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body
    first, second = messages(stream + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (first.data, first.odd, first.end, first.complete) == (data, odd, len(stream), True)
    assert second.request.target == "/next"


def test_a_simple_request_ends_with_its_line() -> None:
    first, second = messages(b"GET /old\r\n\r\nGET /older\r\n")
    assert (first.request.version, first.request.target, first.odd) == ((0, 9), "/old", {Anomaly.HTTP_09})
    assert second.request.target == "/older"


def test_the_preface_of_http2_switches() -> None:
    (told,) = messages(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0")
    assert (told.switched, told.raw) == ("h2", b"SM\r\n\r\n\0\0\0")


CONNECT = b"CONNECT mail.example:443 HTTP/1.1\r\nHost: mail.example:443\r\n\r\n"


def test_connect_names_its_authority_and_what_follows_in_http_is_read_on() -> None:
    first, second = messages(CONNECT + b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n")
    assert [str(url) for url in first.request.urls] == ["mail.example:443"]
    assert second.request.target == "/hidden"


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n\r\nabc"], ids=["TLS", "text"])
def test_a_client_in_a_hurry_to_tunnel_is_opaque_and_no_error(hello: bytes) -> None:
    first, tunnel = messages(CONNECT + hello)
    assert first.request.method == "CONNECT"
    assert (tunnel.switched, tunnel.raw) == ("", hello)


def test_after_the_servers_consent_all_is_opaque() -> None:
    reader = RequestReader()
    reader.receive(CONNECT)
    reader.switch()
    (event,) = reader.receive(b"GET /x HTTP/1.1\r\n\r\n")
    assert (event.start, event.end) == (len(CONNECT), len(CONNECT) + 19)  # type: ignore[union-attr]


def test_a_request_that_stops_in_its_body_is_incomplete() -> None:
    transcript = read_requests([b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc"], end=True)
    assert [(message.data, message.complete) for message in transcript.messages] == [(b"abc", False)]


def test_limits_are_errors_and_what_lies_below_is_not() -> None:
    line = b"GET / HTTP/1.1\r\nHost: x\r\n"
    filler = b"X: " + b"a" * (MAX_HEAD_BYTES - len(line) - 7) + b"\r\n\r\n"
    assert read_requests([line + filler]).error is None
    assert read_requests(cuts(line + filler, range(0, MAX_HEAD_BYTES, 50_000))).error is None
    for step in (1500, MAX_HEAD_BYTES, 10**6):
        assert read_requests(cuts(line + b"Y" + filler, range(0, MAX_HEAD_BYTES + 1, step))).error == "the head is too large"
    assert read_requests([line + b"a:\r\n" * (MAX_FIELDS + 1) + b"\r\n"]).error == "too many fields"


@given(st.lists(st.integers(0, 400), max_size=20))
def test_segments_do_not_matter(at: list[int]) -> None:
    stream = (
        b"\r\nPOST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
        b"a;x=y\r\n"
        + gzip.compress(b"hello", mtime=0)[:10]
        + b"\r\nf\n"
        + gzip.compress(b"hello", mtime=0)[10:]
        + b"\r\n0\r\nT: u\r\n\r\n"
        b"GET /old\r\nHEAD http://h.example/ HTTP/1.0\n\n" + CONNECT + b"\x16\x03"
    )
    assert read_requests(cuts(stream, at)) == read_requests([stream])
    assert read_requests([stream]).messages[0].data == b"hello"
