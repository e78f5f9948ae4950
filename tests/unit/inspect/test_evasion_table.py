"""Evasions by name: what a host may try so that we read something else than its peer, and what comes of it.

Each is played whole, in pieces and byte by byte. Those of single parsers are in the parsers' own tests; here the whole engine
must come to the verdict.
"""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.support.conversation import CLIENT, MARKER, SERVER, Connection, Network
from tests.support.hellos import python_hello, record
from tests.support.plays import BLOCKED, CLEAN, EVIL, chunked, dns_question, form, get, ok

FIN, RST, ACK, URG = 1, 4, 16, 32
BAD, GOOD = b"www.example.com", b"www.example.org"
SIZES = pytest.mark.parametrize("size", [None, 7, 1], ids=["whole", "in pieces", "byte by byte"])


def persist(connection: Connection, side: int = CLIENT, times: int = 6) -> None:
    """The host sends again what was not acknowledged."""
    for _ in range(times):
        connection.repeat(side)


def functions(network: Network, action: str = "blocked") -> set[str]:
    return {function for function, done, _ in network.told if done == action}


REQUESTS = {
    "the plain one": get(BAD),
    "the host in the target only": b"GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
    "the host in its field only": b"GET http://www.example.org/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    "the second of two hosts": b"GET / HTTP/1.1\r\nHost: www.example.org\r\nHost: www.example.com\r\n\r\n",
    "the first of two hosts": b"GET / HTTP/1.1\r\nHost: www.example.com\r\nHost: www.example.org\r\n\r\n",
    "a folded host": b"GET / HTTP/1.1\r\nHost:\r\n www.example.com\r\n\r\n",
    "a tab before the colon": b"GET / HTTP/1.1\r\nHost\t: www.example.com\r\n\r\n",
    "lines that end with LF": b"GET / HTTP/1.1\nHost: www.example.com\n\n",
    "lines that end with CR": b"GET / HTTP/1.1\r\nX: y\rHost: www.example.com\r\n\r\n",
    "a NUL in a field": b"GET / HTTP/1.1\r\nX: \0\r\nHost: www.example.com\r\n\r\n",
    "empty lines before it": b"\r\n\r\n\n" + get(BAD),
    "letters of another case": b"GET / http/1.1\r\nhOsT: WwW.eXaMpLe.CoM\r\n\r\n",
    "a dot at the end of the name": get(b"www.example.com."),
    "a port": get(b"www.example.com:80"),
    "somebody at the host": b"GET http://www.example.org@www.example.com/ HTTP/1.1\r\n\r\n",
    "many blanks": b"GET  \t http://www.example.com/ \t HTTP/1.1\r\nHost: \t www.example.com \t\r\n\r\n",
    "a method that nobody knows": b"WHATEVER / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    "HTTP/0.9": b"GET http://www.example.com/\r\n",
    "a version of tomorrow": b"GET / HTTP/1.7\r\nHost: www.example.com\r\n\r\n",
    "a field without a colon before it": b"GET / HTTP/1.1\r\nnothing\r\nHost: www.example.com\r\n\r\n",
    "a tunnel to it": b"CONNECT www.example.com:443 HTTP/1.1\r\n\r\n",
    "a head of four thousand fields": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 4000 + b"Host: www.example.com\r\n\r\n",
    "a head of more fields than are read": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 6000 + b"Host: www.example.com\r\n\r\n",
}


@SIZES
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_to_a_blocked_host_never_arrives(request_: bytes, size: int | None) -> None:
    if size == 1 and len(request_) > 1000:
        size = 500
    network = Network(BLOCKED)
    connection = network.connect()
    connection.client(request_, size)
    persist(connection)
    assert len(connection.to_server) < len(request_)
    assert functions(network) & {"dangerous-site", "evasion"}


BEFORE = {
    "an answered request": ((CLIENT, get()), (SERVER, ok(CLEAN))),
    "a form": ((CLIENT, form(CLEAN)), (SERVER, ok(b""))),
    "a form in chunks": ((CLIENT, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
                         (SERVER, ok(b""))),
    "a tunnel that was refused": ((CLIENT, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"),
                                  (SERVER, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")),
    "an upgrade that was refused": ((CLIENT, get(more=b"Connection: upgrade\r\nUpgrade: websocket\r\n")), (SERVER, ok(b""))),
    "an interim answer": ((CLIENT, b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
                          (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"), (CLIENT, b"hi"), (SERVER, ok(b""))),
    "a tunnel": ((CLIENT, b"CONNECT a.example:80 HTTP/1.1\r\n\r\n"), (SERVER, b"HTTP/1.1 200 Yes\r\n\r\n")),
    "a tunnel in a tunnel": ((CLIENT, b"CONNECT a.example:80 HTTP/1.1\r\n\r\n"), (SERVER, b"HTTP/1.1 200 Yes\r\n\r\n")) * 2,
    "an answer before the question": ((SERVER, ok(CLEAN)),),
    "an answer without an end": ((CLIENT, get()), (SERVER, b"HTTP/1.1 200 OK\r\n\r\n" + CLEAN)),
    "a warning that nobody asked for": ((CLIENT, get()), (SERVER, b"HTTP/1.1 199 x\r\n\r\n" * 3 + ok(CLEAN))),
}  # fmt: skip


@SIZES
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_a_later_request_to_a_blocked_host_never_arrives(before: tuple[tuple[int, bytes], ...], size: int | None) -> None:
    network = Network(BLOCKED)
    connection = network.connect()
    for side, text in before:
        (connection.client if side == CLIENT else connection.server)(text, size)
        network.wait(0.1)
    start = len(connection.to_server)
    assert start == sum(len(text) for side, text in before if side == CLIENT)
    connection.client(get(BAD), size)
    persist(connection)
    assert len(connection.to_server) - start < len(get(BAD))
    assert functions(network) == {"dangerous-site"}


HELLO = python_hello(BAD.decode())
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"
HELLOS = {
    "the plain one": HELLO,
    "records of one byte": b"".join(record(HELLO[5:][at : at + 1]) for at in range(len(HELLO) - 5)),
    "an empty record first": record(b"") + HELLO,
    "a warning first": record(b"\1\0", kind=21) + HELLO,
    "a version that nobody knows": b"\x16\x03\x09" + HELLO[3:],
    "a name of another case": python_hello("WWW.Example.COM"),
    "behind a request for a tunnel, at once": CONNECT + HELLO,
    "on the port of DNS": HELLO,
}


@SIZES
@pytest.mark.parametrize("name", HELLOS)
def test_a_hello_to_a_blocked_name_never_arrives(name: str, size: int | None) -> None:
    network, hello = Network(BLOCKED), HELLOS[name]
    connection = network.connect(53 if "DNS" in name else 443)
    connection.client(hello, size)
    persist(connection)
    assert len(connection.to_server) < len(hello)
    assert functions(network) == {"dangerous-site"}


def test_a_hello_in_two_segments_out_of_order_never_arrives() -> None:
    network = Network(BLOCKED)
    connection = network.connect(443)
    connection.segment(CLIENT, 100, HELLO[100:])
    connection.segment(CLIENT, 0, HELLO[:100])
    assert connection.to_server == b""
    assert functions(network) == {"dangerous-site"}


def test_a_hello_after_the_tunnel_was_granted_never_arrives() -> None:
    network = Network(BLOCKED)
    connection = network.connect(3128)
    connection.client(CONNECT)
    connection.server(b"HTTP/1.1 200 Connection established\r\n\r\n")
    connection.client(HELLO, 100)
    persist(connection)
    assert len(connection.to_server) < len(CONNECT + HELLO)
    assert functions(network) == {"dangerous-site"}


SMUGGLING = {
    "a length beside chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a chunk of 0x5 bytes": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a coding that is nearly chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nhi",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\nhi",
    "hosts that differ": b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
    "what no request is": get() + b"what ever\r\n\r\n",
}


@SIZES
@pytest.mark.parametrize("mode", ["block", "log", "off"])
@pytest.mark.parametrize("request_", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_two_servers_read_in_two_ways_is_cut_or_told_as_the_policy_says(request_: bytes, mode: str, size: int | None) -> None:
    network = Network(f'[evasion]\nmode = "{mode}"\n')
    connection = network.connect()
    connection.client(request_, size)
    persist(connection)
    if mode == "block":
        assert len(connection.to_server) < len(request_)
        assert functions(network) == {"evasion"}
    else:
        assert connection.to_server == request_
        assert functions(network, "logged") == ({"evasion"} if mode == "log" else set())


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


HALF = len(EVIL) // 2
GZIP = b"Content-Encoding: gzip\r\n"
DOWNLOADS = {
    "a plain one": ok(EVIL),
    "gzip": ok(gzip.compress(EVIL), GZIP),
    "x-gzip": ok(gzip.compress(EVIL), b"Content-Encoding: x-gzip\r\n"),
    "gzip without its end": ok(gzip.compress(EVIL)[:-8], GZIP),
    "gzip of two members": ok(gzip.compress(EVIL[:HALF]) + gzip.compress(EVIL[HALF:]), GZIP),
    "gzip in gzip": ok(gzip.compress(gzip.compress(EVIL)), b"Content-Encoding: gzip, gzip\r\n"),
    "zlib": ok(zlib.compress(EVIL), b"Content-Encoding: deflate\r\n"),
    "deflate without a frame": ok(raw_deflate(EVIL), b"Content-Encoding: deflate\r\n"),
    "no gzip, though it says so": ok(EVIL, GZIP),
    "a coding that nobody knows": ok(EVIL, b"Content-Encoding: none\r\n"),
    "chunks": chunked(EVIL),
    "chunks of one byte": chunked(EVIL, 1),
    "chunks with extensions": chunked(EVIL).replace(b"32\r\n", b"32;a=b\r\n"),
    "chunks with trailers": chunked(EVIL)[:-2] + b"X: y\r\n\r\n",
    "chunks of gzip": chunked(gzip.compress(EVIL), more=GZIP),
    "gzip as transfer coding": chunked(gzip.compress(EVIL)).replace(b": chunked", b": gzip, chunked"),
    "the first part of a file": ok(EVIL, b"Content-Range: bytes 0-450/9000\r\n").replace(b"200 OK", b"206 Partial"),
    "an interim answer first": b"HTTP/1.1 103 Hints\r\n\r\n" + ok(EVIL),
    "lines that end with LF": ok(EVIL)[: -len(EVIL)].replace(b"\r\n", b"\n") + EVIL,
    "an error page": ok(EVIL).replace(b"200 OK", b"404 Not Found"),
    "no version": ok(EVIL).replace(b"HTTP/1.1", b"HTTP"),
    "no reason": ok(EVIL).replace(b"200 OK", b"200"),
}


@SIZES
@pytest.mark.parametrize("answer", DOWNLOADS.values(), ids=DOWNLOADS.keys())
def test_an_infected_download_never_arrives_whole(answer: bytes, size: int | None) -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    connection.server(answer, size)
    persist(connection, SERVER)
    assert len(connection.to_client) < len(answer)
    assert functions(network) & {"virus", "evasion"}


LAST = {
    "the last chunk in a packet of its own": (chunked(EVIL)[:-5], b"0\r\n\r\n", 0),
    "the end of the last chunk in a packet of its own": (chunked(EVIL)[:-7], b"\r\n0\r\n\r\n", 0),
    "the connection's end in a packet of its own": (b"HTTP/1.0 200 OK\r\n\r\n" + EVIL, b"", FIN),
    "a reset for an end": (b"HTTP/1.0 200 OK\r\n\r\n" + EVIL, b"", RST),
    "HTTP/0.9": (EVIL, b"", FIN),
}


@pytest.mark.parametrize(("body", "end", "flags"), LAST.values(), ids=LAST.keys())
def test_a_download_whose_end_comes_alone_waits_for_it(body: bytes, end: bytes, flags: int) -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    connection.server(body)
    network.wait(0.005)
    connection.segment(SERVER, len(body), end, flags=ACK | flags)
    network.wait(6)
    assert MARKER not in connection.to_client
    assert functions(network) == {"virus"}


def test_a_page_that_goes_on_for_ever_is_slowed_down_by_no_more_than_the_tail() -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.server(said)
    for number in range(20):
        connection.server(b"5\r\nnews\n\r\n")
        said += b"5\r\nnews\n\r\n"
        network.wait(1 if number % 2 else 0)
    network.wait(1)
    assert connection.to_client == said
    assert network.longest_wait_s <= 0.021


def test_a_file_behind_which_nothing_can_be_read_is_judged_by_what_came() -> None:
    network = Network('[evasion]\nmode = "log"\n')
    connection = network.connect()
    connection.client(get())
    connection.server(chunked(EVIL)[:-5] + b"no chunk\r\n")
    assert functions(network) == {"virus"}
    assert MARKER not in connection.to_client


def test_a_file_that_breaks_off_is_judged_by_what_came() -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    connection.server(ok(EVIL).replace(b": 371", b": 999"), fin=True)
    assert functions(network) == {"virus"}
    again = network.connect()
    again.client(get())
    assert again.to_server == b"", "its address is remembered"


@pytest.mark.parametrize("part", [b"bytes 5-50/371", b"bytes */371", b"nonsense"], ids=["a middle", "nothing known", "nonsense"])
def test_parts_of_what_was_infected_are_stopped_by_its_address(part: bytes) -> None:
    network = Network()
    first = network.connect()
    first.client(get())
    first.server(ok(EVIL))
    again = network.connect()
    again.client(get(more=b"Range: bytes=5-50\r\n"))
    assert again.to_server == b""
    again.server(ok(EVIL[5:51], b"Content-Range: %s\r\n" % part))
    assert EVIL[5:51] not in again.to_client


UPLOADS = {
    "a form": form(EVIL),
    "a form in chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunked(EVIL).partition(b"\r\n\r\n")[2],
    "a boundary in quotes": form(EVIL).replace(b"boundary=b", b'boundary="b"'),
    "two boundaries": form(EVIL).replace(b"boundary=b", b"boundary=b; boundary=c"),
    "a form that is none": form(EVIL).replace(b"boundary=b", b"boundary=x"),
    "a form without its end": form(EVIL)[:-2],
    "a file as it is": b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(EVIL), EVIL),
    "a file in gzip": b"PUT /x HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s"
    % (GZIP, len(gzip.compress(EVIL)), gzip.compress(EVIL)),
    "no name": form(EVIL).replace(b'; filename="x.exe"', b""),
}


@SIZES
@pytest.mark.parametrize("request_", UPLOADS.values(), ids=UPLOADS.keys())
def test_an_infected_upload_never_arrives_whole(request_: bytes, size: int | None) -> None:
    network = Network()
    connection = network.connect()
    connection.client(request_, size, fin=True)
    network.wait(6)
    persist(connection)
    assert len(connection.to_server) < len(request_)
    assert functions(network) & {"virus", "evasion"}


@pytest.mark.parametrize("mode", ["log", "block"])
def test_dns_over_tcp_is_told_or_cut_as_the_policy_says(mode: str) -> None:
    network = Network(f'[dangerous_sites]\ndns = "{mode}"\n{BLOCKED}')
    connection = network.connect(53)
    question = dns_question("wWw.eXample.com")
    connection.client(question, 3)
    persist(connection)
    assert (connection.to_server == question) is (mode == "log")
    assert [action for _, action, _ in network.told] == ["blocked" if mode == "block" else "logged"]
