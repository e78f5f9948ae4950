"""HTTP/1.x: any bytes give events or the one error, the same in any segmentation, in bounded memory; h11 agrees on good ones."""

from __future__ import annotations

import random
import re

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from mamori.inspect.http1 import HttpConnection, RequestReader, ResponseReader
from mamori.inspect.http1_body import MAX_CHUNK_LINE_BYTES
from mamori.inspect.http1_head import MAX_HEAD_BYTES, HttpError
from tests.support.http_transcript import byte_by_byte, cuts, read_requests, read_responses

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"

LINES = rb"""GET |POST /x |HEAD |CONNECT a:1 |PRI * |/| HTTP/1.1| HTTP/1.0|HTTP/1.1 200 OK|HTTP/2.0|HTTP/1.1 304 Same
HTTP/1.1 101 Go
HTTP/1.1 100 Wait|HTTP/1.0 206 P|ICY 200|Host: a.example|Host:|Content-Length: |Content-Length: 3
Content-Range: bytes 0-2/3|Upgrade: x
Transfer-Encoding: chunked|Transfer-Encoding: gzip, chunked|Content-Encoding: gzip|Content-Encoding: deflate|0|3|5;x|abc|0x| |:|,"""
MARKS = [b"\r\n", b"\r\n", b"\r\n\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b"\x1f\x8b\x08", b"\x78\x9c"]
WORDS = st.lists(st.sampled_from(re.split(rb"[|\n]", LINES)) | st.sampled_from(MARKS), max_size=30).map(b"".join)
STREAMS = st.binary(max_size=200) | WORDS
CUTS = st.lists(st.integers(0, 300), max_size=10)


@given(STREAMS, CUTS)
@example(b"GET /\n", [])
@example(CONNECT := b"CONNECT a:1 HTTP/1.1\r\n\r\n\x16\x03", [24, 25])
def test_any_client_says_the_same_in_any_segments(stream: bytes, at: list[int]) -> None:
    whole = read_requests([stream], end=True)
    assert read_requests(byte_by_byte(stream), end=True) == whole
    assert read_requests(cuts(stream, at), end=True) == whole


@given(STREAMS, WORDS, CUTS)
def test_any_server_says_the_same_in_any_segments(stream: bytes, asked: bytes, at: list[int]) -> None:
    requests = GET * 2 + (asked if read_requests([asked]).error is None else b"")
    whole = read_responses([stream], requests, end=True)
    assert read_responses(byte_by_byte(stream), requests, end=True) == whole
    assert read_responses(cuts(stream, at), requests, end=True) == whole


@given(STREAMS, st.randoms(use_true_random=False))
def test_a_damaged_exchange_is_events_or_the_one_error(damage: bytes, dice: random.Random) -> None:
    connection = HttpConnection()
    for receive, good in (
        (
            connection.receive_client,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET,
        ),
        (
            connection.receive_server,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 304 Same\r\n\r\n",
        ),
    ):
        at = dice.randrange(len(good))
        try:
            for segment in cuts(good[:at] + damage + good[at + dice.randrange(3) :], [dice.randrange(200) for _ in range(4)]):
                receive(segment)
        except HttpError:
            pass
        assert (connection.requests.end(), connection.responses.end()) is not None


@given(
    st.sampled_from([b"A", b"\n", b"a:\n", b" ", b"0", b"\r", b"5;", b"HTTP"]),
    st.sampled_from([b"", GET[:16], b"HTTP/1.1 200 OK\r\nA: b"]),
)
def test_what_is_held_is_bounded(filler: bytes, start: bytes) -> None:
    for reader in (RequestReader(), ResponseReader()):
        try:
            for segment in cuts(start + filler * 200_000, range(0, 800_000, 60_000)):
                reader.receive(segment)
                assert reader.held_bytes <= MAX_HEAD_BYTES
        except HttpError:
            pass


def test_a_chunks_line_that_never_ends_is_bounded() -> None:
    reader = ResponseReader()
    reader.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
    held = 0
    try:
        while True:
            reader.receive(b"x" * 1000)
            held = max(held, reader.held_bytes)
    except HttpError:
        assert MAX_CHUNK_LINE_BYTES - 1000 < held <= MAX_CHUNK_LINE_BYTES


TOKEN = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30).map(
    lambda text: text.strip(" \x80")
)
FIELDS = st.lists(st.tuples(TOKEN.map("x-{}".format), VALUE), max_size=6)
TARGET = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map("/{}".format)
PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def framed(pieces: list[bytes], is_chunked: bool) -> tuple[bytes, bytes]:
    """The framing's field and the body on the wire."""
    if not is_chunked:
        return b"Content-Length: %d\r\n" % sum(map(len, pieces)), b"".join(pieces)
    return b"Transfer-Encoding: chunked\r\n", b"".join(
        b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces
    ) + b"0\r\nT: u\r\n\r\n"


def lines(fields: list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: \t{value} \r\n" for name, value in fields).encode("latin-1")


def h11_body(connection: h11.Connection) -> bytes:
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return body


def pairs_of(head: h11.Request | h11.Response) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in head.headers]


@given(TOKEN, TARGET, FIELDS, PIECES, st.booleans())
def test_h11_reads_the_same_good_request(
    method: str, target: str, fields: list[tuple[str, str]], pieces: list[bytes], is_chunked: bool
) -> None:
    framing, wire = framed(pieces, is_chunked)
    stream = f"{method} {target} HTTP/1.1\r\nHost: a.example\r\n".encode() + lines(fields) + framing + b"\r\n" + wire
    other = h11.Connection(h11.SERVER)
    other.receive_data(stream)
    head = other.next_event()
    assert isinstance(head, h11.Request)
    (ours,) = read_requests([stream]).messages
    assert (ours.request.method, ours.request.target) == (head.method.decode(), head.target.decode())
    assert list(ours.request.fields.pairs) == pairs_of(head)
    assert (ours.data, ours.complete, ours.odd) == (h11_body(other), True, set())


@given(st.integers(200, 599).filter(lambda status: status not in (204, 304)), FIELDS, PIECES, st.sampled_from([True, False, None]))
def test_h11_reads_the_same_good_response(
    status: int, fields: list[tuple[str, str]], pieces: list[bytes], is_chunked: bool | None
) -> None:
    framing, wire = (b"", b"".join(pieces)) if is_chunked is None else framed(pieces, is_chunked)
    stream = b"HTTP/1.1 %d Some Reason\r\n" % status + lines(fields) + framing + b"\r\n" + wire
    other = h11.Connection(h11.CLIENT)
    other.send(h11.Request(method="GET", target="/", headers=[("Host", "a.example")]))
    other.receive_data(stream)
    other.receive_data(b"")
    head = other.next_event()
    assert isinstance(head, h11.Response)
    (ours,) = read_responses([stream], GET, end=True).messages
    assert (ours.response.status, ours.response.reason) == (head.status_code, head.reason.decode())
    assert list(ours.response.fields.pairs) == pairs_of(head)
    assert (ours.data, ours.complete, ours.odd) == (h11_body(other), True, set())
