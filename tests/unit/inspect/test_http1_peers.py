"""Real peers: curl, http.client and bare sockets against nginx and http.server, recorded by a relay and read back.

What the reader says of each exchange is compared with what the client got and with what the server says it was asked for.
"""

from __future__ import annotations

import gzip
import http.client
import http.server
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from mamori.inspect.http1 import HttpConnection
from mamori.inspect.http1_events import Event
from mamori.inspect.http1_head import Anomaly, ContentRange, HttpError
from mamori.inspect.sniff import Application, sniff
from tests.support.http_transcript import Message, cuts, read_requests, read_responses, transcribe
from tests.support.need import need
from tests.support.relay import Recording, Relay, Side, start_relay
from tests.support.wait import check_until, patience_s

TEXT = b"".join(b"line %d of a page\n" % number for number in range(5000))
NOISE = random.Random(7).randbytes(300_000)  # noqa: S311 - data without structure

NGINX = """
daemon off; master_process off; user root; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off; default_type text/plain; server_tokens off; gzip on; gzip_min_length 1; gzip_types text/plain;
  if_modified_since before;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/www; client_max_body_size 10m; large_client_header_buffers 4 64k;
    location /up/ {{ dav_methods PUT; create_full_put_path on; }}
    location /nothing {{ return 204; }}
    location /echo {{ gzip off; default_type text/plain; return 200 "$request_method $host $uri"; }}
  }}
  server {{ listen 127.0.0.1:{port2} http2; root {folder}/www; }}
}}
"""


@dataclass(frozen=True)
class Server:
    port: int
    http2_port: int
    folder: Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need("nginx", "a real server")
    need("curl", "a real client")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "www" / "up").mkdir(parents=True)
    (folder / "www" / "text.txt").write_bytes(TEXT)
    (folder / "www" / "noise.bin").write_bytes(NOISE)
    server = Server(free_port(), free_port(), folder)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=server.port, port2=server.http2_port))
    with subprocess.Popen(
        [shutil.which("nginx") or "", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            check_until("nginx listens", lambda: answers(server.port), 10)
            yield server
        finally:
            process.terminate()


@pytest.fixture
def relay(nginx: Server) -> Iterator[Relay]:
    with start_relay(nginx.port) as relay:
        yield relay


def curl(relay: Relay, *arguments: str) -> bytes:
    """What curl wrote, with `@` in an argument standing for the relay's address."""
    command = [
        "curl",
        "-sS",
        "--max-time",
        f"{patience_s(20):.0f}",
        *(a.replace("@", f"http://127.0.0.1:{relay.port}") for a in arguments),
    ]
    return subprocess.run(command, check=True, capture_output=True).stdout


def replay(recording: Recording) -> tuple[list[Message], list[Message]]:
    """Requests and responses of a recording in the order in which its segments passed, and byte by byte the same."""
    connection = HttpConnection()
    events: dict[Side, list[Event]] = {Side.CLIENT: [], Side.SERVER: []}
    for side, data in recording.segments:
        events[side] += (connection.receive_client if side is Side.CLIENT else connection.receive_server)(data)
    events[Side.CLIENT] += connection.requests.end()
    events[Side.SERVER] += connection.responses.end()
    client, server = recording.stream(Side.CLIENT), recording.stream(Side.SERVER)
    requests, responses = transcribe(events[Side.CLIENT], client), transcribe(events[Side.SERVER], server)
    assert read_requests(finely_cut(client), end=True).messages == requests
    assert read_responses(finely_cut(server), client, end=True).messages == responses
    assert sniff(client[:100], b"") is Application.HTTP
    return requests, responses


def finely_cut(stream: bytes) -> list[bytes]:
    """Byte by byte where a first head lies, then in pieces of an odd size."""
    return cuts(stream, [*range(2000), *range(2000, len(stream), 997)])


def only_exchange(relay: Relay) -> tuple[Message, Message]:
    (recording,) = relay.take()
    ((request,), (response,)) = replay(recording)
    assert (request.odd, response.odd, request.complete, response.complete) == (set(), set(), True, True)
    assert response.response.request == request.head
    return request, response


def test_a_page_is_read_as_curl_got_it(relay: Relay) -> None:
    got = curl(relay, "@/noise.bin?a=%41b")
    request, response = only_exchange(relay)
    assert got == response.data == NOISE
    assert (request.request.urls[0].path, request.request.urls[0].query) == ("/noise.bin", "a=Ab")
    assert (request.request.urls[0].host, request.request.urls[0].port) == ("127.0.0.1", relay.port)


def test_a_compressed_page_is_read_as_curl_decoded_it(relay: Relay) -> None:
    got = curl(relay, "--compressed", "@/text.txt")
    _, response = only_exchange(relay)
    assert response.response.fields.tokens("content-encoding") == ["gzip"]
    assert response.response.fields.tokens("transfer-encoding") == ["chunked"]
    assert got == response.data == gzip.decompress(response.raw) == TEXT


def test_ranges_are_read_with_their_place(relay: Relay) -> None:
    assert curl(relay, "-r", "100-199", "@/noise.bin") == NOISE[100:200]
    _, response = only_exchange(relay)
    assert (response.response.content_range, response.data) == (ContentRange(100, 199, len(NOISE)), NOISE[100:200])
    got = curl(relay, "-r", "0-1,10-19", "@/noise.bin")
    _, response = only_exchange(relay)
    assert (response.response.content_range, response.data) == (None, got)
    assert NOISE[10:20] in got


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-I", "@/noise.bin"], 200),
        (["@/missing"], 404),
        (["@/nothing"], 204),
        (["-H", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "@/text.txt"], 304),
        (["-0", "@/text.txt"], 200),
        (["-X", "OPTIONS", "--request-target", "*", "@"], 400),
        (["--path-as-is", "@/a/../text.txt"], 200),
    ],
    ids=["HEAD", "404", "204", "304", "HTTP/1.0", "asterisk", "dot segments"],
)
def test_every_kind_of_answer_ends_where_it_ends(relay: Relay, arguments: list[str], status: int) -> None:
    got = curl(relay, *arguments)
    _, response = only_exchange(relay)
    assert response.response.status == status
    assert response.data == (b"" if "-I" in arguments else got)


def test_a_kept_connection_is_read_exchange_by_exchange(relay: Relay) -> None:
    got = curl(relay, "--compressed", "@/text.txt", "@/noise.bin", "@/nothing", "@/missing", "@/text.txt")
    (recording,) = relay.take()
    requests, responses = replay(recording)
    assert [message.request.target for message in requests] == ["/text.txt", "/noise.bin", "/nothing", "/missing", "/text.txt"]
    assert [message.response.request for message in responses] == [message.head for message in requests]
    assert b"".join(message.data for message in responses) == got


@pytest.mark.parametrize(
    "fields", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]], ids=["length", "chunked", "expect"]
)
def test_an_upload_is_read_as_the_server_kept_it(relay: Relay, nginx: Server, fields: list[str]) -> None:
    curl(relay, "-T", str(nginx.folder / "www" / "noise.bin"), *fields, "@/up/copy.bin")
    (recording,) = relay.take()
    (request,), responses = replay(recording)
    assert request.data == (nginx.folder / "www" / "up" / "copy.bin").read_bytes() == NOISE
    assert [message.response.status for message in responses if message.response.status >= 200] in ([201], [204])
    assert all(message.response.request == request.head for message in responses)


def talk(port: int, data: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection, which is asked for by ending our side."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s(10)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_pipelined_requests_are_answered_in_their_order(relay: Relay) -> None:
    targets = ["/text.txt", "/nothing", "/noise.bin", "/echo/x"]
    talk(relay.port, b"".join(b"GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n" % target.encode() for target in targets))
    (recording,) = relay.take()
    requests, responses = replay(recording)
    assert [message.request.target for message in requests] == targets
    assert [message.response.request.target for message in responses if message.response.request] == targets
    assert [message.data for message in responses] == [TEXT, b"", NOISE, b"GET a.example /echo/x"]


def test_the_oldest_http_is_read_as_nginx_speaks_it(relay: Relay) -> None:
    got = talk(relay.port, b"GET /text.txt\r\n")
    (recording,) = relay.take()
    (request,), (response,) = replay(recording)
    assert (request.odd, response.odd) == ({Anomaly.HTTP_09}, {Anomaly.HTTP_09})
    assert got == response.data == TEXT


def test_http2_without_tls_is_known_by_its_preface(nginx: Server) -> None:
    with start_relay(nginx.http2_port) as relay:
        assert curl(relay, "--http2-prior-knowledge", "@/text.txt") == TEXT
        (recording,) = relay.take()
    client = recording.stream(Side.CLIENT)
    assert sniff(client[:100], b"") is Application.HTTP2
    (told,) = read_requests([client]).messages
    assert (told.switched, told.raw) == ("h2", client[18:])


ODD_REQUESTS = {
    "plain": b"GET /echo/a HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "blank lines first": b"\r\n\n\r\nGET /echo/a HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "bare LF": b"GET /echo/a HTTP/1.1\nHost: a.example\n\n",
    "CR CR LF": b"GET /echo/a HTTP/1.1\r\nHost: a.example\r\r\n\r\n",
    "spaces": b"GET   /echo/a   HTTP/1.1  \r\nHost:    a.example   \r\n\r\n",
    "upper-case host with port": b"GET /echo/a HTTP/1.1\r\nHost: A.Example:8080\r\n\r\n",
    "final dot": b"GET /echo/a HTTP/1.1\r\nHost: a.example.\r\n\r\n",
    "IPv6": b"GET /echo/a HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n\r\n",
    "absolute form": b"GET http://A.example:80/echo/a?x HTTP/1.1\r\nHost: b.example\r\n\r\n",
    "escapes": b"GET /ec%68o/%61%2Fb%2e HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "dot segments": b"GET /x/../echo/./a/b/..//c///d/%2e%2E/e/.. HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "double escapes": b"GET /echo/%252e%252e/a HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "escaped marks": b"GET /echo/a%3Fb%23c?d#e HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "fragment": b"GET /echo/a#b HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "raw bytes": b"GET /echo/\xe3\x81\x82 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "a tab in the path": b"GET /echo/a%09b HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "a space in the path": b"GET /echo/a b HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "climb": b"GET /../echo/a HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "two hosts": b"GET /echo/a HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
    "no host": b"GET /echo/a HTTP/1.1\r\n\r\n",
    "folded": b"GET /echo/a HTTP/1.1\r\nX: y\r\n z\r\nHost: a.example\r\n\r\n",
    "space before the colon": b"GET /echo/a HTTP/1.1\r\nHost : a.example\r\n\r\n",
    "bare CR": b"GET /echo/a HTTP/1.1\r\nX: y\rHost: a.example\r\n\r\n",
    "length and chunked": b"POST /echo/a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "two lengths": b"POST /echo/a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "lower-case version": b"GET /echo/a http/1.1\r\nHost: a.example\r\n\r\n",
    "version 1.9": b"GET /echo/a HTTP/1.9\r\nHost: a.example\r\n\r\n",
    "a method of our own": b"FROB_X /echo/a HTTP/1.1\r\nHost: a.example\r\n\r\n",
}


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_what_nginx_takes_is_read_as_nginx_reads_it_and_what_it_refuses_is_odd(name: str, nginx: Server) -> None:
    stream = ODD_REQUESTS[name]
    (answer,) = read_responses([talk(nginx.port, stream)], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", end=True).messages
    told = read_requests([stream])
    if answer.response.status == 400:
        odd = told.messages[0].odd if told.messages else set()
        assert told.error or odd or name in ("climb", "lower-case version")
        return
    method, host, path = answer.data.split(b" ", 2)
    request = told.messages[0].request
    url = request.urls[0]
    assert request.method.encode() == method
    assert (f"[{url.host}]" if ":" in url.host else url.host) == host.decode()
    assert url.path == quote(path, safe="/:[]")


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it understood, in chunks when it was asked in 1.1."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.command}|{self.headers.get('Host', '')}|{self.path}".encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), 5):
            self.wfile.write(b"%x;x=y\r\n%s\r\n" % (len(body[at : at + 5]), body[at : at + 5]))
        self.wfile.write(b"0\r\nX-Trailer: yes\r\n\r\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextmanager
def start_echo() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_pythons_own_client_and_server_are_read_exchange_by_exchange() -> None:
    with start_echo() as port, start_relay(port) as relay:
        client = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=patience_s(10))
        client.request("GET", "/a/b?c")
        first = client.getresponse().read()
        client.request("POST", "/form", body=NOISE)
        second = client.getresponse().read()
        client.close()
        (recording,) = relay.take()
    requests, responses = replay(recording)
    assert [message.data for message in requests] == [b"", NOISE]
    assert [message.data for message in responses] == [first, second]
    assert first.endswith(b"|/a/b?c")


@pytest.mark.parametrize("name", [name for name, stream in ODD_REQUESTS.items() if stream[:4] not in (b"POST", b"FROB")])
def test_what_pythons_server_takes_is_among_what_is_read(name: str) -> None:
    stream = ODD_REQUESTS[name]
    with start_echo() as port:
        reply = talk(port, stream)
    answers = read_responses([reply], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", end=True).messages
    if not answers or answers[0].response.status != 200 or answers[0].response.version == (0, 9):
        return  # refused; with a line that it cannot read, as in HTTP/0.9
    _, host, path = answers[0].data.decode().split("|", 2)
    message = read_requests([stream]).messages[0]
    assert path in message.request.target
    assert path == message.request.target or Anomaly.SPACE_IN_TARGET in message.odd
    assert host.strip() in message.request.fields.all("host") or message.odd


def test_a_long_body_costs_one_event_for_a_segment_and_no_copy() -> None:
    segment = bytes(64 << 10)
    connection = HttpConnection()
    connection.receive_client(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    connection.receive_server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * len(segment)))
    for _ in range(99):
        (event,) = connection.receive_server(segment)
        assert event.raw is event.data is segment  # type: ignore[union-attr]
    assert len(connection.receive_server(segment)) == 2


def test_a_mutated_exchange_is_read_or_refused(relay: Relay) -> None:
    """Real bytes with real damage: events or the one error, and every offset true."""
    curl(relay, "--compressed", "@/text.txt", "@/echo/x")
    (recording,) = relay.take()
    streams = recording.stream(Side.CLIENT), recording.stream(Side.SERVER)
    dice = random.Random(3)  # noqa: S311
    refused = 0
    for _ in range(500):
        client, server = (bytearray(stream) for stream in streams)
        for stream in (client, server):
            at = dice.randrange(min(600, len(stream)))
            stream[at : at + dice.randrange(3)] = dice.choice(
                [b"", b"\n", b"\r", b"\0", b":", b" ", b"0", b"ff", bytes([dice.randrange(256)])]
            )
        refused += read_requests([bytes(client)], end=True).error is not None
        try:
            refused += read_responses([bytes(server)], bytes(client), end=True).error is not None
        except HttpError:
            refused += 1
    assert 0 < refused < 900
