"""The server's direction, read as clients read it. Every case whole, byte by byte, as a memoryview and in segments."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.coding import Unseen
from mamori.inspect.http1 import MAX_PIPELINED, MAX_UNEXPECTED_BYTES, HttpConnection
from mamori.inspect.http1_body import MAX_CHUNK_LINE_BYTES
from mamori.inspect.http1_events import RequestReceived, Switched
from mamori.inspect.http1_head import Anomaly, ContentRange, HttpError
from tests.support.http_transcript import Message, Transcript, byte_by_byte, cuts, read_responses

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n"
CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
NEXT = OK + b"Content-Length: 4\r\n\r\nnext"
EVIL = b"X5O!P%@AP[4 and so on"


def read(stream: bytes, requests: bytes, end: bool = False) -> Transcript:
    whole = read_responses([stream], requests, end)
    assert read_responses(byte_by_byte(stream), requests, end) == whole
    assert read_responses([memoryview(stream)], requests, end) == whole
    for step in (2, 3, 7):
        assert read_responses(cuts(stream, range(0, len(stream), step)), requests, end) == whole
    return whole


def messages(stream: bytes, requests: bytes = GET, end: bool = False) -> list[Message]:
    transcript = read(stream, requests, end)
    assert transcript.error is None
    return transcript.messages


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "version", "status", "odd"),
    [
        pytest.param(b"HTTP/1.1 200 OK", (1, 1), 200, set(), id="plain"),
        pytest.param(b"HTTP/1.0 404 Not Found", (1, 0), 404, set(), id="1.0"),
        pytest.param(b"HTTP/1.1 200", (1, 1), 200, set(), id="no reason"),
        pytest.param(b"HTTP/2.0 200 OK", (2, 0), 200, set(), id="a version of the future"),
        pytest.param(b"http/1.1 200 OK", (1, 1), 200, {Anomaly.ODD_STATUS}, id="lower case"),
        pytest.param(b"HTTP/1.1", (1, 1), 200, {Anomaly.ODD_STATUS}, id="no number: 200 to browsers"),
        pytest.param(b"HTTP 200 OK", (1, 0), 200, {Anomaly.ODD_STATUS}, id="no version"),
        pytest.param(b"HTTP/1.1 2000 OK", (1, 1), 200, {Anomaly.ODD_STATUS}, id="four digits"),
        pytest.param(b"HTTP/1.1 099 Odd", (1, 1), 99, set(), id="below 100 is final"),
        pytest.param(b"ICY 200 OK", (1, 0), 200, {Anomaly.ODD_STATUS}, id="Shoutcast"),
        pytest.param(b"xyzHTTP/1.1 200 OK", (1, 1), 200, {Anomaly.JUNK_BEFORE_STATUS}, id="junk that Chrome skips"),
        pytest.param(b"x\r\n\nHTTP/1.1 200 OK", (1, 1), 200, {Anomaly.JUNK_BEFORE_STATUS}, id="a junk line"),
        pytest.param(b"\r\n\r\n\r\nHTTP/1.1 200 OK", (1, 1), 200, set(), id="blank lines first"),
    ],
)
def test_a_status_line_is_read_as_browsers_read_it(line: bytes, version: tuple[int, int], status: int, odd: set[Anomaly]) -> None:
    first, second = messages(line + b"\r\nContent-Length: 4\r\n\r\nbody" + NEXT, GET * 2)
    assert (first.response.version, first.response.status, first.odd, first.data) == (version, status, odd, b"body")
    assert second.data == b"next"


@pytest.mark.parametrize(
    ("head", "body", "data", "odd"),
    [
        pytest.param(b"Content-Length: 5\r\n", b"hello", b"hello", set(), id="by length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", chunked(b"he", b"llo"), b"hello", set(), id="chunked"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="LF after data"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b"5;a=b;c\r\nhello\r\n0;d\r\nT: u\r\nV:\r\n\r\n", b"hello", set(), id="trailers"
        ),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"5\nhello\n0\n\n", b"hello", {Anomaly.ODD_CHUNK}, id="LF alone"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="space after"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="space before"
        ),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="0x"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b"5 x\r\nhello\r\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="words after"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n",
            b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
            b"hello",
            {Anomaly.ODD_CHUNK},
            id="zeros",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", {Anomaly.ODD_CHUNK}, id="blank first"
        ),
        pytest.param(
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            chunked(b"hello"),
            b"hello",
            {Anomaly.LENGTH_AND_CHUNKED},
            id="both",
        ),
        pytest.param(b"Transfer-Encoding:\tCHUNKED \r\n", chunked(b"hello"), b"hello", set(), id="case and white space"),
        pytest.param(
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            chunked(gzip.compress(b"hello")),
            b"hello",
            {Anomaly.ODD_TRANSFER_CODING},
            id="gzip as a transfer coding",
        ),
    ],
)
def test_a_response_that_says_its_end_ends_there(head: bytes, body: bytes, data: bytes, odd: set[Anomaly]) -> None:
    first, second = messages(OK + head + b"\r\n" + body + NEXT, GET * 2)
    assert (first.data, first.odd, first.complete) == (data, odd, True)
    assert first.end == len(OK + head + body) + 2
    assert (second.data, second.odd) == (b"next", set())


@pytest.mark.parametrize(
    ("head", "odd"),
    [
        pytest.param(OK + b"\r\n", set(), id="no length"),
        pytest.param(b"HTTP/1.0 200 OK\nX: y\n\n", {Anomaly.BARE_LF}, id="an old script"),
        pytest.param(OK + b"Content-Length: 4\r\nContent-Length: 9\r\n\r\n", {Anomaly.CONFLICTING_LENGTH}, id="two lengths"),
        pytest.param(OK + b"Content-Length: -4\r\n\r\n", {Anomaly.BAD_LENGTH}, id="a negative length"),
        pytest.param(OK + b"Content-Length: 4e0\r\n\r\n", {Anomaly.BAD_LENGTH}, id="a length with letters"),
        pytest.param(OK + b"Content-Length: 99999999999999999999\r\n\r\n", {Anomaly.BAD_LENGTH}, id="a length beyond 64 bits"),
        pytest.param(OK + b"Transfer-Encoding: xchunked\r\n\r\n", {Anomaly.ODD_TRANSFER_CODING}, id="xchunked"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {Anomaly.CHUNKED_IN_1_0}, id="chunked in 1.0 that is none"
        ),
    ],
)
def test_a_response_of_doubtful_end_is_all_body_to_the_end_of_the_connection(head: bytes, odd: set[Anomaly]) -> None:
    (message,) = messages(head + EVIL + NEXT, GET, end=True)
    assert (message.data, message.odd, message.complete) == (EVIL + NEXT, odd, True)
    assert message.spans == [(len(head), len(head + EVIL + NEXT))]


def test_chunks_of_http_1_0_are_chunks_when_they_can_be_as_for_firefox_and_curl() -> None:
    (message,) = messages(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(EVIL, EVIL))
    assert (message.data, message.odd) == (EVIL + EVIL, {Anomaly.CHUNKED_IN_1_0})


def test_only_the_first_chunk_of_http_1_0_is_in_doubt() -> None:
    transcript = read(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk\r\n", GET)
    assert (transcript.messages[0].data, transcript.error) == (b"abc", "a chunk without a size")


def test_offsets_of_chunked_bytes_leave_the_framing_out() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    (message,) = messages(head + b"2;x\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
    at = len(head)
    assert message.spans == [(at + 5, at + 7), (at + 12, at + 15)]


@pytest.mark.parametrize(
    ("request_", "status"),
    [(HEAD, b"200 OK"), (GET, b"204 No Content"), (GET, b"304 Not Modified"), (HEAD, b"404 Not Found")],
    ids=["HEAD", "204", "304", "HEAD and 404"],
)
def test_responses_that_have_no_body_have_none_whatever_they_say(request_: bytes, status: bytes) -> None:
    first, second = messages(
        b"HTTP/1.1 " + status + b"\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n" + NEXT, request_ + GET
    )
    assert (first.raw, first.complete, first.odd) == (b"", True, set())
    assert second.data == b"next"


def test_interim_responses_belong_to_the_request_that_the_final_one_answers() -> None:
    told = messages(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + NEXT + NEXT,
        HEAD.replace(b"HEAD", b"GET") + GET,
    )
    assert [message.response.status for message in told] == [100, 103, 200, 200]
    starts = [message.response.request.start for message in told if message.response.request]
    assert starts == [0, 0, 0, len(GET)]


def test_bytes_after_a_bodiless_response_are_passed_over_up_to_the_next_as_in_firefox() -> None:
    first, second = messages(b"HTTP/1.1 304 Not Modified\r\n\r\n<html>surprise HTTP/x</html>" + NEXT, GET * 2)
    assert first.odd == set()
    assert (second.data, second.odd) == (b"next", {Anomaly.UNEXPECTED_BODY})


def test_each_bout_of_unexpected_bytes_is_named_and_counted_anew() -> None:
    strange = b"x" * (MAX_UNEXPECTED_BYTES - 100)
    same = b"HTTP/1.1 304 Same\r\n\r\n"
    transcript = read_responses([same + strange + same + strange + NEXT], GET * 3)
    assert transcript.error is None
    assert [message.odd for message in transcript.messages] == [set(), {Anomaly.UNEXPECTED_BODY}, {Anomaly.UNEXPECTED_BODY}]


def test_a_few_bytes_after_a_response_are_no_reply_of_their_own() -> None:
    for strange in (b"abc", b"\0" * 9, b"surprise"):
        first, nothing = messages(NEXT + strange, GET * 2, end=True)
        assert (first.data, nothing.head, nothing.odd) == (b"next", None, {Anomaly.UNEXPECTED_BODY})


def test_bytes_that_nobody_asked_for_are_searched_up_to_a_limit() -> None:
    stream = b"HTTP/1.1 304 Not Modified\r\n\r\n" + b"x" * MAX_UNEXPECTED_BYTES
    assert read_responses([stream + NEXT], GET * 2).error is None
    for step in (1000, 10**6):
        beyond = stream + b"x" + NEXT
        assert read_responses(cuts(beyond, range(0, len(beyond), step)), GET * 2).error == "no status line"


@pytest.mark.parametrize(
    "reply", [b"<html>old</html>", b"old", b"HTT", b"\x7fELF\0\0\0\0\0"], ids=["page", "three bytes", "a beginning", "binary"]
)
def test_a_reply_without_a_head_is_all_body(reply: bytes) -> None:
    (message,) = messages(reply, b"GET /old\r\n", end=True)
    assert (message.response.version, message.data, message.odd, message.complete) == ((0, 9), reply, {Anomaly.HTTP_09}, True)


def test_a_response_that_stops_early_is_incomplete_and_a_cut_head_is_told() -> None:
    for head, body in ((b"Content-Length: 9\r\n", b"abc"), (b"Transfer-Encoding: chunked\r\n", b"9\r\nabc")):
        (message,) = messages(OK + head + b"\r\n" + body, GET, end=True)
        assert (message.data, message.complete) == (b"abc", False)
    (message,) = messages(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Le", GET, end=True)
    assert (message.response.status, message.response.fields.get("location")) == (302, "/x")


@pytest.mark.parametrize(
    "body",
    [b"g\r\n", b"hello", b"-5\r\nhello", b"5\r\nhelloworld", b"5\r\nhello0\r\n\r\n", b"10000000000000000\r\nx", b" \r\n"],
    ids=["no digit", "no size", "negative", "too long", "no line end", "beyond 64 bits", "blank size"],
)
def test_chunks_that_no_client_takes_are_the_one_error(body: bytes) -> None:
    transcript = read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"\n" * 4, GET)
    assert transcript.error


def test_a_chunks_line_has_a_limit() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n5;"
    for step in (700, 10**6):
        fits = head + b"x" * (MAX_CHUNK_LINE_BYTES - 3) + b"\r\nhello\r\n0\r\n\r\n"
        over = head + b"x" * MAX_CHUNK_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n"
        assert read_responses(cuts(fits, range(0, len(fits), step)), GET).error is None
        assert read_responses(cuts(over, range(0, len(over), step)), GET).error == "a chunk's line is too long"


def test_a_connection_switches_when_both_sides_agree() -> None:
    for request, answer, protocol in (
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n", "websocket"),
        (CONNECT, b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n", ""),
    ):
        first, tunnel = messages(answer + b"HTTP/1.1 opaque", request)
        assert first.odd == set()
        assert (tunnel.switched, tunnel.raw, tunnel.odd) == (protocol, b"HTTP/1.1 opaque", set())
        connection = HttpConnection()
        connection.receive_client(request)
        assert any(isinstance(event, Switched) for event in connection.receive_server(answer))
        (event,) = connection.receive_client(b"GET /x HTTP/1.1\r\n\r\n")
        assert bytes(event.data) == b"GET /x HTTP/1.1\r\n\r\n"  # type: ignore[union-attr]


def test_a_connection_that_the_server_does_not_switch_goes_on_in_http() -> None:
    for request, answer in ((UPGRADE, NEXT), (CONNECT, b"HTTP/1.1 407 Who\r\nContent-Length: 4\r\n\r\nnext")):
        first, second = messages(answer + NEXT, request + GET)
        assert (first.data, second.data) == (b"next", b"next")
        connection = HttpConnection()
        connection.receive_client(request)
        connection.receive_server(answer)
        assert any(isinstance(event, RequestReceived) for event in connection.receive_client(GET))


def test_a_switch_that_nobody_asked_for_is_named() -> None:
    first, tunnel = messages(b"HTTP/1.1 101 Surprise\r\n\r\nabc", GET)
    assert (first.response.status, first.complete) == (101, True)
    assert (first.odd, tunnel.raw) == ({Anomaly.UNSOLICITED_SWITCH}, b"abc")


def test_a_response_without_a_request_is_named() -> None:
    (first, second) = messages(NEXT + NEXT, GET)
    assert (first.odd, second.odd, second.response.request) == (set(), {Anomaly.UNSOLICITED}, None)


def test_requests_without_an_answer_have_a_limit() -> None:
    connection = HttpConnection()
    connection.receive_client(GET * MAX_PIPELINED)
    assert connection.receive_server(b"") == []
    connection.receive_client(GET)
    with pytest.raises(HttpError):
        connection.receive_server(NEXT)


GZIP = gzip.compress(b"hello " * 100, mtime=0)
RAW_DEFLATE = zlib.compress(b"hello " * 100)[2:-4]


@pytest.mark.parametrize(
    ("coding", "body", "data", "unseen"),
    [
        pytest.param(b"gzip", GZIP, b"hello " * 100, None, id="gzip"),
        pytest.param(b"X-GZIP", GZIP, b"hello " * 100, None, id="x-gzip"),
        pytest.param(b"deflate", zlib.compress(b"hello " * 100), b"hello " * 100, None, id="deflate"),
        pytest.param(b"deflate", RAW_DEFLATE, b"hello " * 100, None, id="raw deflate"),
        pytest.param(
            b"deflate, gzip", gzip.compress(zlib.compress(b"hello " * 100)), b"hello " * 100, None, id="one over the other"
        ),
        pytest.param(b"gzip\r\nContent-Encoding: gzip", gzip.compress(GZIP), b"hello " * 100, None, id="twice, in two fields"),
        pytest.param(b"\r\n gzip", GZIP, b"hello " * 100, None, id="folded"),
        pytest.param(b"identity", b"hello", b"hello", None, id="identity"),
        pytest.param(b"utf-8", b"hello", b"hello", None, id="unknown to browsers: as it is"),
        pytest.param(b"br", b"hello", b"", Unseen.UNSUPPORTED, id="br"),
        pytest.param(b"gzip", b"hello", b"hello", None, id="not gzip: as wget keeps it"),
    ],
)
def test_bodies_are_told_as_they_came_and_as_they_decode(coding: bytes, body: bytes, data: bytes, unseen: Unseen | None) -> None:
    for framing, wire in (
        (b"Content-Length: %d\r\n" % len(body), body),
        (b"Transfer-Encoding: chunked\r\n", chunked(body[:3], body[3:])),
    ):
        first, second = messages(OK + b"Content-Encoding: " + coding + b"\r\n" + framing + b"\r\n" + wire + NEXT, GET * 2)
        assert (first.raw, first.data, first.unseen) == (body, data, unseen)
        assert (second.data, second.unseen) == (b"next", None)


def test_a_range_says_its_place_and_a_part_of_a_coded_body_is_unseen() -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/600\r\nContent-Length: %d\r\n%s\r\n"
    (part,) = messages(head % (2, 5, 4, b"") + b"abcd")
    assert (part.response.content_range, part.data) == (ContentRange(2, 5, 600), b"abcd")
    (part,) = messages(head % (10, 13, 4, b"Content-Encoding: gzip\r\n") + GZIP[10:14])
    assert (part.raw, part.data, part.unseen) == (GZIP[10:14], b"", Unseen.PARTIAL)
    (part,) = messages(head % (0, len(GZIP) - 1, len(GZIP), b"Content-Encoding: gzip\r\n") + GZIP)
    assert (part.data, part.unseen) == (b"hello " * 100, None)


@given(st.lists(st.integers(0, 700), max_size=20))
def test_segments_do_not_matter(at: list[int]) -> None:
    stream = (
        b"HTTP/1.1 100 Go on\r\n\r\n"
        + OK
        + b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
        + chunked(GZIP[:9], GZIP[9:])
        + b"HTTP/1.1 304 Same\r\n\r\nsurprise!"
        + NEXT
        + b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nMZ not a chunk\r\n"
    )
    assert read_responses(cuts(stream, at), GET * 4, end=True) == read_responses([stream], GET * 4, end=True)
