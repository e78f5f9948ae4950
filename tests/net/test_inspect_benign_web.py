"""Nothing that is harmless is touched: odd but honest peers of the web, with every function on as the defaults have it.

The virus scanner is the real one and the lists have 100,000 entries. What arrives is compared byte by byte, and nothing may be told
as blocked.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import gzip
import hashlib
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from firmware.process import start
from tests.support import dns_peers, quic_peers
from tests.support.lists import compiled
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.scanned import serve, start_scanned
from tests.support.wait import check_until, patience_s
from tests.support.web import Way, Web, hear, start_web

ORIGIN_PORT, PYTHON_PORT, ECHO_PORT = 8090, 8000, 7007
ENTRIES = 100_000
NOISE = seeded(11).randbytes(3_000_000)
TEXT = b"".join(b"line %d of a harmless text, and it goes on\r\n" % number for number in range(3000))
PARTS = b"--b\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--b\r\nContent-Range: bytes 4-5/9\r\n\r\nef\r\n--b--\r\n"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def long(body: bytes, *head: bytes) -> list[bytes]:
    return [b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *head, b"", body])]


def chunks(body: bytes, size: int, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%X%b\r\n%b\r\n" % (len(each), extension, each) for each in pieces) + b"0\r\n" + trailers + b"\r\n"


def chunked(body: bytes, size: int = 1000, *head: bytes, extension: bytes = b"", trailers: bytes = b"") -> list[bytes]:
    lines = [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *head, b"", chunks(body, size, extension, trailers)]
    return [b"\r\n".join(lines)]


def closing(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n") -> list[bytes]:
    return [head + body]


@dataclass(frozen=True)
class Answer:
    """What a server sends, a pause between the pieces, and what the client makes of it. `closes`: the connection ends after it."""

    pieces: list[bytes]
    body: bytes
    pause_s: float = 0.0
    closes: bool = False
    arguments: list[str] = field(default_factory=list)


ANSWERS = {
    "a length": Answer(long(NOISE), NOISE),
    "text": Answer(long(TEXT, b"Content-Type: text/html; charset=Shift_JIS"), TEXT),
    "no body": Answer(long(b""), b""),
    "chunks": Answer(chunked(NOISE), NOISE),
    "chunks of one byte": Answer(chunked(TEXT[:2000], 1), TEXT[:2000]),
    "chunks with extensions": Answer(chunked(TEXT, 700, extension=b";name=value"), TEXT),
    "chunks with trailers": Answer(chunked(TEXT, 700, b"Trailer: X-Sum", trailers=b"X-Sum: 1\r\nX-More: 2\r\n"), TEXT),
    "until the end": Answer(closing(NOISE), NOISE, closes=True),
    "HTTP/1.0": Answer(closing(TEXT, b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"), TEXT, closes=True),
    "HTTP/0.9": Answer(closing(TEXT, b""), TEXT, closes=True, arguments=["--http0.9"]),
    "lines with LF alone": Answer([b"HTTP/1.1 200 OK\nContent-Length: 5\nX-Old: yes\n\nhello"], b"hello"),
    "no reason": Answer([b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"], b"hello"),
    "a folded field": Answer([b"HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 5\r\n\r\nhello"], b"hello"),
    "the same length twice": Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"], b"hello"),
    "fields in Japanese": Answer(long(TEXT, "Content-Disposition: attachment; filename=見積.txt".encode("cp932")), TEXT),
    "thousands of fields": Answer(long(TEXT, *(b"X-%d: %d" % (number, number) for number in range(2000))), TEXT),
    "early hints": Answer([b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", *long(TEXT)], TEXT, 0.05),
    "processing": Answer([b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", *long(TEXT)], TEXT, 0.05),
    "no content": Answer([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    "not modified": Answer([b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 500\r\n\r\n'], b""),
    "only the head": Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"], b"", arguments=["--head"]),
    "gzip": Answer(long(gzip.compress(TEXT), b"Content-Encoding: gzip"), TEXT, arguments=["--compressed"]),
    "gzip in chunks": Answer(chunked(gzip.compress(TEXT), 100, b"Content-Encoding: gzip"), TEXT, arguments=["--compressed"]),
    "deflate": Answer(long(zlib.compress(TEXT), b"Content-Encoding: deflate"), TEXT, arguments=["--compressed"]),
    "raw deflate": Answer(
        closing(zlib.compress(TEXT, wbits=-15), b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n"),
        TEXT,
        closes=True,
        arguments=["--compressed"],
    ),
    "said to be gzip and left packed": Answer(long(NOISE[:9000], b"Content-Encoding: gzip"), NOISE[:9000]),
    "a part": Answer(
        [b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/100\r\nContent-Length: 5\r\n\r\nhello"],
        b"hello",
        arguments=["--range", "5-9"],
    ),
    "several parts": Answer(
        [
            b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: %d\r\n\r\n"
            % len(PARTS)
            + PARTS
        ],
        PARTS,
        arguments=["--range", "0-1,4-5"],
    ),
    "an error with a page": Answer([b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nlater"], b"later"),
    "a very slow server": Answer([bytes([byte]) for byte in long(TEXT[:60])[0]], TEXT[:60], 0.02),
    "a server that thinks first": Answer([b"", *long(TEXT)], TEXT, 2.0),
}


@dataclass
class Origin:
    """Answers a request as its path's number says; keeps what is uploaded."""

    uploads: dict[str, bytes] = field(default_factory=dict)

    def talk(self, peer: socket.socket) -> None:
        with peer.makefile("rb") as stream:
            while line := stream.readline():
                method, path = line.decode("latin-1").split()[:2]
                fields = dict(self._fields(stream))
                if method in ("PUT", "POST"):
                    self._take(peer, stream, path, fields)
                    peer.sendall(long(b"stored")[0])
                    continue
                answer = list(ANSWERS.values())[int(path.rpartition("/")[2])]
                for piece in answer.pieces:
                    peer.sendall(piece)
                    time.sleep(answer.pause_s)
                if answer.closes:
                    return

    def _fields(self, stream: object) -> Iterator[tuple[str, str]]:
        while (line := stream.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()

    def _take(self, peer: socket.socket, stream: object, path: str, fields: dict[str, str]) -> None:
        read = stream.read  # type: ignore[attr-defined]
        if "expect" in fields:
            peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "content-length" in fields:
            self.uploads[path] = read(int(fields["content-length"]))
            return
        body = b""
        while size := int(stream.readline(), 16):  # type: ignore[attr-defined]
            body += read(size + 2)[:-2]
        stream.readline()  # type: ignore[attr-defined]
        self.uploads[path] = body


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("b")
    chance = seeded(5)
    names = {"".join(chance.choices(LETTERS, k=chance.randrange(3, 20))) + chance.choice((".com", ".jp")) for _ in range(ENTRIES)}
    lists = compiled(folder / "lists", {"phishing": sorted(names)[::2], "category-games": sorted(names)[1::2]})
    with start_scanned(folder, name="fine") as scanned, start_web(scanned.box, folder) as web:
        scanned.box.device.lists.parent.mkdir(parents=True, exist_ok=True)
        lists.replace(scanned.box.device.lists)
        in_force = lambda: all(each["policy"]["lists"] for each in scanned.box.workers())  # noqa: E731
        check_until("the lists are in force", in_force, within_s=10)
        yield web


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_blocked(web: Web) -> Iterator[None]:
    """The last word on all tests of the module."""
    yield
    time.sleep(1.5)  # the writer's next transaction
    events = web.box.events("--limit", "5000")
    assert [event for event in events if event["action"] == "blocked" or event["category"] == "bug"] == []
    assert [event for event in events if event["function"] == "evasion"] == []
    assert {event["detail"] for event in events if event["action"] == "unseen"} <= {"not what its coding says"}
    assert all(worker["bugs"] == 0 and worker["policy"]["lists"] for worker in web.box.workers())


@pytest.fixture(scope="module")
def origin(web: Web) -> Iterator[Origin]:
    origin = Origin()
    with contextlib.ExitStack() as stack:
        for side in ("server", "client"):
            stack.enter_context(serve(web.listen(side, ORIGIN_PORT), origin.talk))
        yield origin


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("origin")
@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_arrives_whole(web: Web, case: str) -> None:
    answer, number = ANSWERS[case], list(ANSWERS).index(case)
    way = list(Way)[number % 4]
    done = web.curl(f"http://www.example.org:{ORIGIN_PORT}/{number}", *answer.arguments, way=way)
    assert done.code == 0, done.stderr
    assert digest(done.stdout_bytes) == digest(answer.body if "--head" not in answer.arguments else answer.pieces[0])


@pytest.mark.usefixtures("origin")
def test_one_connection_for_everything_that_leaves_it_open(web: Web) -> None:
    urls = [
        f"http://www.example.org:{ORIGIN_PORT}/{number}"
        for number, answer in enumerate(ANSWERS.values())
        if not answer.closes and not answer.arguments and answer.pause_s < 1
    ]
    done = web.curl(urls[0], *urls[1:], "--write-out", "%{stderr}%{num_connects} ")
    wanted = [answer.body for answer in ANSWERS.values() if not answer.closes and not answer.arguments and answer.pause_s < 1]
    assert sorted(done.stderr.split())[-2:] == ["0", "1"], "one connection was made"
    # curl fetches the last argument, which `Web.curl` puts there, as it stands: in the end.
    assert digest(done.stdout_bytes) == digest(b"".join([*wanted[1:], wanted[0]]))


UPLOADS = {
    "PUT": ["--upload-file", "-"],
    "PUT in chunks": ["--upload-file", "-", "--header", "Transfer-Encoding: chunked"],
    "POST": ["--data-binary", "@-"],
    "POST without 100 Continue": ["--data-binary", "@-", "--header", "Expect:"],
    "a form": ["--form", "file=@-;filename=見積.bin", "--form", "note=こんにちは"],
    "a form in chunks": ["--form", "file=@-;filename=a.bin", "--header", "Transfer-Encoding: chunked"],
}


@pytest.mark.parametrize("way", [Way.OUT4, Way.IN6], ids=lambda way: way.name)
@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload_arrives_whole(web: Web, origin: Origin, case: str, way: Way) -> None:
    path = f"/{way.name}/{list(UPLOADS).index(case)}"
    done = web.curl(f"http://www.example.org:{ORIGIN_PORT}{path}", *UPLOADS[case], way=way, input=NOISE)
    assert (done.code, done.stdout) == (0, "stored")
    if "form" in case:
        assert NOISE in origin.uploads[path]
    else:
        assert digest(origin.uploads[path]) == digest(NOISE)


def test_a_server_of_python_and_wget(web: Web) -> None:
    need("wget", "is another client")
    folder = web.folder / "python"
    folder.mkdir()
    (folder / "noise.bin").write_bytes(NOISE)
    (folder / "日本語.txt").write_bytes(TEXT)
    argv = ["ip", "netns", "exec", web.box.lab.server, sys.executable, "-m", "http.server", str(PYTHON_PORT), "--bind", "::"]
    with start([*argv, "--directory", folder], explain="serve", log=web.folder / "python.log"):
        ask = "look whether it listens"
        check_until("it listens", lambda: f":{PYTHON_PORT}" in web.at("server", "ss", "-Hltn", explain=ask).stdout, within_s=10)
        url = f"http://{Way.OUT4.host}:{PYTHON_PORT}"
        for name, content in (("noise.bin", NOISE), ("%E6%97%A5%E6%9C%AC%E8%AA%9E.txt", TEXT)):
            done = web.at("client", "wget", "-q", "-O", "-", f"{url}/{name}", explain="fetch")
            assert digest(done.stdout_bytes) == digest(content)
        mirror = web.folder / "mirror"
        done = web.at(
            "client", "wget", "-q", "--recursive", "-P", mirror, f"http://{Way.OUT6.host}:{PYTHON_PORT}/", explain="mirror"
        )
        assert done.code == 0
        assert sorted(
            map(digest, (file.read_bytes() for file in mirror.rglob("*.*") if file.suffix in (".bin", ".txt")))
        ) == sorted((digest(NOISE), digest(TEXT)))


def test_many_at_once_in_clear_and_encrypted(web: Web) -> None:
    for number in range(10):
        (web.files / f"{number}").write_bytes(NOISE[number * 1000 : number * 200_000 + 2000])
    wanted = {f"{number}": digest((web.files / f"{number}").read_bytes()) for number in range(10)}

    def fetch(number: int) -> bool:
        scheme, way, name = ("http", "https")[number % 2], (Way.OUT4, Way.OUT6)[number % 3 % 2], f"{number % 10}"
        options = [["--compressed"], ["--http1.1"], ["--tls-max", "1.2"]][number % 3]
        done = web.curl(f"{scheme}://h{number}.example.org/files/{name}", *options, way=way)
        return digest(done.stdout_bytes) == wanted[name]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(fetch, range(30)))


@pytest.mark.usefixtures("origin")
def test_everything_at_once(web: Web) -> None:
    """Questions, then clear and encrypted connections of all kinds beside each other, as in an office at nine o'clock."""
    quick = [number for number, answer in enumerate(ANSWERS.values()) if answer.pause_s == 0 and not answer.arguments]

    def resolve(number: int) -> bool:
        kind, way = (dns_peers.A, dns_peers.AAAA)[number % 2], (Way.OUT4, Way.OUT6)[number // 2 % 2]
        answer = dns_peers.ask(web, f"host-{number}.example.org", kind, way=way, tcp=number % 5 == 0)
        return answer.addresses == (dns_peers.ANSWERS[kind],)

    def quic(number: int) -> bool:
        words = NOISE[number : number + 30_000]
        return quic_peers.ask(web, f"q{number}.example.org", words, (Way.OUT4, Way.OUT6)[number % 2]) == words

    def fetch(number: int) -> bool:
        answer = list(ANSWERS.values())[quick[number % len(quick)]]
        done = web.curl(f"http://f{number}.example.org:{ORIGIN_PORT}/{quick[number % len(quick)]}", way=list(Way)[number % 4])
        return digest(done.stdout_bytes) == digest(answer.body)

    def encrypted(number: int) -> bool:
        return web.curl(f"https://e{number}.example.org/", way=list(Way)[number % 4]).stdout == "hello"

    work = [(do, number) for number in range(12) for do in (resolve, resolve, quic, fetch, encrypted)]
    servers = (dns_peers.start_dnsmasq(web), quic_peers.start_echo(web, "server", 443))
    with servers[0], servers[1], concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = [(do.__name__, number, pool.submit(do, number)) for do, number in work]
        assert [(name, number) for name, number, future in done if not future.result()] == []


def test_pipelined_requests_are_answered_in_order(web: Web) -> None:
    requests = [b"GET /%d HTTP/1.1\r\nHost: p%d.example.org\r\n\r\n" % (number, number) for number in range(20)]
    with web.connect(80) as client:
        client.sendall(b"".join(requests[:-1]) + requests[-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert hear(client).count(b"\r\n\r\nhello") == len(requests)


@pytest.mark.usefixtures("origin")
def test_a_client_that_ends_its_side_first_gets_its_answer(web: Web) -> None:
    with web.connect(ORIGIN_PORT) as client:
        client.sendall(b"GET /0 HTTP/1.1\r\nHost: www.example.org\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert hear(client, 1 << 24).endswith(NOISE)


def test_a_stream_of_events_that_stays_open_is_not_delayed(web: Web) -> None:
    go = threading.Semaphore(0)

    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n")
        for number in range(20):
            assert go.acquire(timeout=patience_s(10))
            peer.sendall(b"data: %d\n\n" % number)
        time.sleep(0.1)

    with serve(web.listen("server", ECHO_PORT), talk), web.connect(ECHO_PORT) as client, client.makefile("rb") as stream:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: www.example.org\r\nAccept: text/event-stream\r\n\r\n")
        while stream.readline() != b"\r\n":
            pass
        for number in range(20):
            started = time.monotonic()
            go.release()
            assert (stream.readline(), stream.readline()) == (b"data: %d\n" % number, b"\n")
            assert time.monotonic() - started < patience_s(0.5)


def test_a_websocket_passes_both_ways(web: Web) -> None:
    def talk(peer: socket.socket) -> None:
        with peer.makefile("rb") as stream:
            key = b""
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"sec-websocket-key:"):
                    key = line.partition(b":")[2].strip()
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455 1.3
            peer.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
                % accept
            )
            while header := stream.read(2):
                size = {126: lambda: struct.unpack("!H", stream.read(2))[0], 127: lambda: struct.unpack("!Q", stream.read(8))[0]}
                length = size[header[1] & 0x7F]() if header[1] & 0x7F > 125 else header[1] & 0x7F
                stream.read(4)  # the mask is zeros
                peer.sendall(bytes([header[0], 127]) + struct.pack("!Q", length) + stream.read(length))

    frames = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NOISE[:70_000], NOISE, b""]
    with serve(web.listen("server", ECHO_PORT + 1), talk), web.connect(ECHO_PORT + 1) as client, client.makefile("rb") as stream:
        upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        client.sendall(b"GET /chat HTTP/1.1\r\nHost: www.example.org\r\n" + upgrade + b"\r\n")
        assert stream.readline().startswith(b"HTTP/1.1 101")
        while stream.readline() != b"\r\n":
            pass
        for frame in frames:
            client.sendall(b"\x82\xff" + struct.pack("!Q", len(frame)) + bytes(4) + frame)
            assert stream.read(10) == b"\x82\x7f" + struct.pack("!Q", len(frame))
            assert digest(stream.read(len(frame))) == digest(frame)


FIRST_BYTES = {
    "noise": (NOISE[:3000], NOISE[3000:9000]),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n" + NOISE[:500], b"SSH-2.0-OpenSSH_9.6\r\n" + NOISE[:500]),
    "a database": (b"\0\0\0\x4e\x0a8.0.36\0" + NOISE[:60], b"\0\0\0\x01\x85" + NOISE[:200]),
    "remote desktop": (b"\x03\0\0\x13\x0e\xd0\0\0\x12\x34\0\x02\x1f\x08\0\x02\0\0\0", b"\x03\0\0\x2b\x26\xe0" + NOISE[:37]),
    "a printer": (b"", b"\x1b%-12345X@PJL JOB\r\n" + NOISE[:20_000]),
    "zeros": (bytes(2000), bytes(2000)),
    "almost HTTP": (b"", b"GETTY /dev/tty1\r\n" + TEXT),
    "almost TLS": (b"", b"\x16\x03\x09" + NOISE[:900]),
}


@pytest.mark.parametrize("case", FIRST_BYTES)
def test_what_is_no_web_passes_both_ways(web: Web, case: str) -> None:
    said, asked = FIRST_BYTES[case]
    port = 7100 + list(FIRST_BYTES).index(case)

    def talk(peer: socket.socket) -> None:
        peer.sendall(said)
        heard = hear(peer, len(asked))
        peer.sendall(digest(heard).encode() + NOISE[:200_000])

    with serve(web.listen("client", port), talk), web.connect(port, Way.IN4) as client:
        assert hear(client, len(said)) == said
        client.sendall(asked)
        assert digest(hear(client)) == digest(digest(asked).encode() + NOISE[:200_000])


def test_a_proxy_that_tunnels(web: Web) -> None:
    def talk(peer: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1)
        port = int(head.split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as behind:
            peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=relay, args=(behind, peer))
            back.start()
            relay(peer, behind)
            back.join()

    with proxied(web, talk):
        for scheme in ("http", "https"):
            done = web.curl(f"{scheme}://www.example.org/", "--proxytunnel", "--proxy", f"http://{Way.OUT4.host}:3128", "--http1.1")
            assert (done.code, done.stdout) == (0, "hello")


@contextlib.contextmanager
def proxied(web: Web, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """A thread of `serve` is not in the server's namespace, so what it connects to is opened there."""
    from firmware.netns import call_in_namespace

    with serve(web.listen("server", 3128), lambda peer: call_in_namespace(web.box.lab.server, lambda: talk(peer))):
        yield


def relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
