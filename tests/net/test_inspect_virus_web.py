"""The test virus over HTTP through the whole application and the real clamd: each packing, encoding and direction."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from firmware.process import run
from mamori.inspect.scan.health import Condition
from tests.support.archives import tarred, zipped
from tests.support.clamd import hung
from tests.support.eicar import EICAR, MARKER, MARKER_NAME
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.scanned import SERVER, Scanned, serve, start_scanned
from tests.support.wait import patience_s

PORTS = (80, 8080)
NOISE = seeded(3).randbytes(20_000_000)


def chunked(body: bytes, piece: int = 1000) -> bytes:
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    return b"".join(b"%x;e=1\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def with_length(body: bytes, *head: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *head, b"", body])


def with_chunks(body: bytes, *head: bytes, name: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", name, *head, b"", chunked(body)])


def until_close(body: bytes, *head: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Connection: close", *head, b"", body])


@dataclass
class Web:
    """An origin server that answers a path with the very bytes that were put there, and keeps what is uploaded."""

    scanned: Scanned
    answers: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def talk(self, peer: socket.socket) -> None:
        with peer.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                head = {}
                while (line := stream.readline()) not in (b"\r\n", b""):
                    key, _, value = line.decode("latin-1").partition(":")
                    head[key.strip().lower()] = value.strip()
                if method == "GET":
                    answer = self.answers[path]
                    peer.sendall(answer)
                    if b"Content-Length" not in answer[:500] and b"chunked" not in answer[:500].lower():
                        return
                    continue
                if "expect" in head:
                    peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = b""
                if "chunked" in head.get("transfer-encoding", ""):
                    while size := int(stream.readline(), 16):
                        body += stream.read(size)
                        stream.readline()
                    stream.readline()
                    self.uploads[path] = body
                else:
                    body = stream.read(int(head["content-length"]))
                    if len(body) == int(head["content-length"]):
                        self.uploads[path] = body
                peer.sendall(with_length(b"stored"))

    def curl(self, path: str, *arguments: str, port: int = 80, input: bytes = b"") -> tuple[int, bytes]:
        """curl's exit code, and the body it got."""
        argv = ["ip", "netns", "exec", self.scanned.box.lab.client, "curl", "-s", "--max-time", f"{patience_s(15):g}"]
        url = f"http://{SERVER}:{port}{path}"
        done = run([*argv, *arguments, url], explain="fetch", accept=range(100), timeout_s=patience_s(20), input=input)
        return done.code, done.stdout_bytes


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    need("curl", "is the client")
    with start_scanned(tmp_path_factory.mktemp("v"), name="vweb") as scanned, contextlib.ExitStack() as stack:
        web = Web(scanned)
        for port in PORTS:
            stack.enter_context(serve(scanned.listen(scanned.box.lab.server, port), web.talk))
        yield web


@pytest.fixture(autouse=True)
def _default_policy(web: Web) -> Iterator[None]:
    yield
    if web.scanned.box.device.policy.read_text():
        web.scanned.box.set_policy("")


DOWNLOADS = {
    "plain": with_length(EICAR),
    "chunked": with_chunks(EICAR),
    "until close": until_close(EICAR),
    "gzip": with_length(gzip.compress(EICAR), b"Content-Encoding: gzip"),
    "gzip in chunks": with_chunks(gzip.compress(EICAR), b"Content-Encoding: x-gzip"),
    "deflate": with_length(zlib.compress(EICAR), b"Content-Encoding: deflate"),
    "raw deflate until close": until_close(zlib.compress(EICAR, wbits=-15), b"Content-Encoding: deflate"),
    "capitals": with_chunks(EICAR, name=b"TRANSFER-ENCODING:\tCHUNKED"),
    "zip": with_length(zipped(EICAR)),
    "zip in zip in chunks": with_chunks(zipped(zipped(EICAR))),
    "tar.gz": with_length(gzip.compress(tarred(EICAR))),
    "a zip that is sent with gzip": with_length(gzip.compress(zipped(EICAR)), b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("case", DOWNLOADS)
def test_a_download_of_the_virus_does_not_arrive_and_its_retry_gets_a_page(web: Web, case: str) -> None:
    number = list(DOWNLOADS).index(case)
    path, port = f"/down{number}", PORTS[number % 2]
    web.answers[path] = DOWNLOADS[case]
    web.answers[f"/clean{number}"] = DOWNLOADS["plain"].replace(EICAR, bytes(68))
    assert web.curl(f"/clean{number}", port=port) == (0, bytes(68))
    code, body = web.curl(path, "--compressed", port=port)
    assert code != 0
    assert len(body) < len(EICAR)
    for more in ([], ["--range", "0-10"], ["--range", "30-"]):
        code, body = web.curl(path, "--compressed", "--include", *more, port=port)
        assert code == 0
        assert b" 403 " in body.split(b"\r\n")[0]
        assert EICAR not in body
        assert b"Mamori.Test.Eicar" in body
    assert web.curl(f"/clean{number}", port=port) == (0, bytes(68))


UPLOADS = {
    "PUT": ["--upload-file", "-"],
    "PUT in chunks": ["--upload-file", "-", "--header", "Transfer-Encoding: chunked"],
    "POST without 100 Continue": ["--data-binary", "@-", "--header", "Expect:"],
    "a form": ["--form", "note=hello", "--form", "file=@-;filename=a.bin"],
    "a form in chunks": ["--form", "file=@-;filename=a.bin", "--header", "Transfer-Encoding: chunked"],
}


@pytest.mark.parametrize("packing", ["bare", "zip"])
@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload_of_the_virus_does_not_arrive(web: Web, case: str, packing: str) -> None:
    path, content = f"/up{list(UPLOADS).index(case)}{packing}", EICAR if packing == "bare" else zipped(EICAR)
    assert web.curl(f"{path}/clean", *UPLOADS[case], input=NOISE[:100_000], port=8080)[0] == 0
    assert NOISE[:100_000] in web.uploads[f"{path}/clean"]
    web.curl(f"{path}/virus", *UPLOADS[case], input=content, port=8080)
    assert f"{path}/virus" not in web.uploads
    event = web.scanned.await_virus(f"{path}/virus", "blocked")
    assert (event["category"], event["protocol"]) == ("Mamori.Test.Eicar", "http")
    assert web.curl(f"{path}/clean", *UPLOADS[case], input=NOISE[:100_000], port=8080)[0] == 0


@pytest.mark.parametrize("size", [100, 65_536, 1_500_000, 20_000_000])
@pytest.mark.parametrize("way", [with_length, with_chunks, until_close], ids=["with a length", "in chunks", "until close"])
def test_a_large_file_breaks_off_where_the_virus_is_and_arrives_whole_without_it(web: Web, size: int, way: object) -> None:
    content, name = NOISE[:size], f"/{way.__name__}{size}"  # type: ignore[attr-defined]
    web.answers[name] = way(content) if size < 20_000_000 or way is not with_chunks else with_length(content)  # type: ignore[operator]
    code, body = web.curl(name)
    assert code == 0
    assert hashlib.sha256(body).digest() == hashlib.sha256(content).digest()
    infected = content[:-100] + MARKER
    web.answers[f"{name}/virus"] = way(infected)  # type: ignore[operator]
    code, body = web.curl(f"{name}/virus")
    assert MARKER not in body
    assert web.scanned.await_virus(f"{name}/virus", "blocked")["category"] == MARKER_NAME
    assert code != 0 or way is until_close


def test_what_is_logged_only_or_not_scanned_passes_whole(web: Web) -> None:
    scanned = web.scanned
    web.answers["/log"], web.answers["/off"] = with_length(EICAR), with_length(EICAR)
    scanned.box.set_policy('[virus]\nmode = "log"\n')
    assert web.curl("/log") == (0, EICAR)
    assert scanned.await_virus("/log", "logged")["category"] == "Mamori.Test.Eicar"
    scanned.box.set_policy('[virus]\nmode = "off"\n')
    assert web.curl("/off") == (0, EICAR)
    scanned.box.set_policy("")
    assert web.curl("/log")[1] == b""
    assert [event["action"] for event in scanned.viruses("/off")] == []


def test_a_file_with_a_password_passes_and_is_told_unless_the_policy_blocks_what_is_unseen(web: Web) -> None:
    from tests.net.test_scan_clamd import locked

    archive, scanned = locked(EICAR), web.scanned
    web.answers["/locked"] = web.answers["/locked2"] = with_length(archive)
    assert web.curl("/locked") == (0, archive)
    assert "encrypted" in scanned.await_virus("/locked", "unseen")["detail"]
    scanned.box.set_policy('[virus]\nunseen = "block"\n')
    code, body = web.curl("/locked2")
    assert code != 0
    assert body != archive
    assert "encrypted" in scanned.await_virus("/locked2", "blocked")["detail"]
    scanned.box.set_policy("")
    assert web.curl("/locked2") == (0, archive)


def test_a_scanner_that_hangs_delays_a_file_by_hold_ms_at_most_and_is_used_again(web: Web) -> None:
    scanned = web.scanned
    contents = [EICAR + b" hung %d" % number for number in range(2)]  # what was scanned once is known without the scanner
    for number, content in enumerate(contents):
        web.answers[f"/hang{number}"] = with_length(content)
    with hung(scanned.running):
        started = time.monotonic()
        assert web.curl("/hang0") == (0, contents[0])
        assert time.monotonic() - started < patience_s(7)
        assert scanned.await_virus("/hang0", "unseen")["detail"]
    scanned.await_scanner(Condition.UP)
    code, body = web.curl("/hang1")
    assert (code != 0, body) == (True, b"")


def test_it_is_counted_for_the_terminal(web: Web) -> None:
    scanned, clean = web.scanned, web.scanned.settled("file", "")
    infected = scanned.counted("file", "Mamori.Test.Eicar")
    web.answers["/counted"], web.answers["/twice"] = with_length(b"harmless"), with_length(EICAR)
    assert web.curl("/counted") == (0, b"harmless")
    for _ in range(2):  # cut, and the page
        assert web.curl("/twice")[1] != EICAR
    assert scanned.settled("file", "") == (clean[0] + 1, clean[1])
    assert scanned.counted("file", "Mamori.Test.Eicar") == (infected[0] + 2, infected[1] + 2)
