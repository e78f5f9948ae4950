"""What the kernel's own TCP and IP send through a bad cable is read as it was meant: real hosts, curl, a web server."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace
from firmware.process import run, start
from mamori.inspect.flow import ORIGINATOR, RESPONDER, State
from mamori.inspect.fragments import Reason
from mamori.inspect.packet import parse_packet
from mamori.inspect.reassembly import Buffered, ConflictSeen, GapSeen, Refused, Retransmitted
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.wait import check_until, patience_s
from tests.support.wire import ADDRESSES, Reading, Trouble, Wire, start_wire

FILE_BYTES = 5_000_000
WEB_PORT, TALK_PORT = 8080, 7777
BAD = {"lost": 0.01, "doubled": 0.02, "overtaken": 0.02}


@pytest.fixture(autouse=True)
def need_taps() -> None:
    need(os.geteuid() == 0 and Path("/dev/net/tun").exists(), "network namespaces and taps need root and /dev/net/tun")


def trouble(seed: int, *, lost: float = 0, doubled: float = 0, overtaken: float = 0, forged: float = 0) -> Trouble:
    return Trouble(lost, doubled, overtaken, forged, seeded(seed))


def download(wire: Wire, folder: Path, version: int) -> tuple[bytes, bytes]:
    """SHA-256 of a file of the server, and of what curl at the client made of it."""
    web, fetched = folder / "web", folder / "fetched"
    web.mkdir()
    (web / "file").write_bytes(seeded(3).randbytes(FILE_BYTES))
    address = ADDRESSES["server"][version == 6]
    serve = [sys.executable, "-m", "http.server", str(WEB_PORT), "--bind", address, "--directory", str(web)]
    url = f"http://{f'[{address}]' if version == 6 else address}:{WEB_PORT}/file"
    with start(["ip", "netns", "exec", wire.namespaces["server"], *serve], explain="run a web server", log=folder / "log"):
        argv = ["ip", "netns", "exec", wire.namespaces["client"], "curl", "-sS", "--retry", "20", "--retry-connrefused"]
        run([*argv, "--retry-delay", "1", "-o", fetched, url], explain="fetch a file", timeout_s=patience_s(90))
    return hashlib.sha256((web / "file").read_bytes()).digest(), hashlib.sha256(fetched.read_bytes()).digest()


def check_reading(wire: Wire, expected: bytes) -> Reading:
    """The one connection whose answer is the file, read whole."""
    reading = max(wire.box.readings, key=lambda reading: len(reading.said[RESPONDER]))
    assert reading.said[ORIGINATOR].startswith(b"GET /file HTTP/1.1\r\n")
    _, _, body = reading.said[RESPONDER].partition(b"\r\n\r\n")
    assert hashlib.sha256(body).digest() == expected
    check_until("both sides are done", lambda: reading.closed, within_s=10)
    return reading


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("offload", [False, True], ids=["frames", "super-packets"])
def test_a_download_through_a_bad_network_is_read_as_curl_reads_it(tmp_path: Path, version: int, offload: bool) -> None:
    need("curl", "fetches the file")
    with start_wire(trouble(1, **BAD), trouble(2, **BAD), offload=offload) as wire:
        sent, fetched = download(wire, tmp_path, version)
        assert sent == fetched
        reading = check_reading(wire, sent)
    assert reading.counts[Buffered] > 0
    assert reading.counts[Retransmitted] > 0
    assert not {ConflictSeen, GapSeen, Refused} & set(reading.counts)
    assert (wire.box.largest > 10_000) == offload
    # A late copy of data opens a closed flow again (flow.TRANSITIONS): a FIN is not believed for ever.
    assert reading.flow.state is not State.OPEN


def test_a_download_through_a_good_network_is_in_order(tmp_path: Path) -> None:
    need("curl", "fetches the file")
    with start_wire(offload=True) as wire:
        sent, fetched = download(wire, tmp_path, 4)
        assert sent == fetched
        reading = check_reading(wire, sent)
    assert not {Buffered, ConflictSeen, GapSeen, Refused} & set(reading.counts)


def test_forged_copies_are_seen_and_never_reach_the_client(tmp_path: Path) -> None:
    # The first copy is lost behind the box now and then: without dropping conflicts, curl reads the forged one in its place.
    need("curl", "fetches the file")
    with start_wire(trouble(1, forged=0.5), trouble(2, lost=0.1), offload=True) as wire:
        sent, fetched = download(wire, tmp_path, 4)
        assert sent == fetched
        reading = check_reading(wire, sent)
    assert reading.counts[ConflictSeen] > 3


@contextmanager
def talk(wire: Wire) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection between the hosts: the client's end and the server's."""
    address = ADDRESSES["server"][0], TALK_PORT
    with call_in_namespace(wire.namespaces["server"], lambda: socket.create_server(address)) as listener:
        listener.settimeout(patience_s(10))
        client = call_in_namespace(wire.namespaces["client"], lambda: socket.create_connection(address, patience_s(10)))
        server, _ = listener.accept()
    server.settimeout(patience_s(10))
    with client, server:
        yield client, server


def receive_all(end: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := end.recv(size - len(received))):
        received += data
    return bytes(received)


def test_a_program_misses_exactly_the_byte_that_is_said_to_be_urgent() -> None:
    with start_wire() as wire, talk(wire) as (client, server):
        client.sendall(b"before")
        assert receive_all(server, 6) == b"before"
        client.send(b"abcX", socket.MSG_OOB)
        client.sendall(b"after")
        heard = b"before" + receive_all(server, 3 + 5)
        [reading] = wire.box.readings
        said, urgent = bytes(reading.said[ORIGINATOR]), set(reading.urgent)
    assert said == b"beforeabcXafter"
    assert heard == bytes(byte for at, byte in enumerate(said) if at not in urgent)
    assert len(urgent) == 1


def test_keep_alive_probes_of_linux_are_nothing() -> None:
    with start_wire() as wire, talk(wire) as (client, server):
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1)):
            client.setsockopt(socket.IPPROTO_TCP, option, value)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.sendall(b"hello")
        assert receive_all(server, 5) == b"hello"
        [reading] = wire.box.readings
        before = reading.flow.originator_packets
        check_until("two probes were sent", lambda: reading.flow.originator_packets >= before + 2, within_s=10)
        client.sendall(b"bye")
        assert receive_all(server, 3) == b"bye"
    assert reading.said[ORIGINATOR] == b"hellobye"
    assert not {ConflictSeen, Refused, GapSeen} & set(reading.counts)


def test_a_receiver_that_stops_reading_loses_nothing() -> None:
    content = seeded(9).randbytes(4_000_000)
    with start_wire() as wire, talk(wire) as (client, server):
        client.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 1.5  # long enough for the window to close and to be probed
        while time.monotonic() < deadline:
            try:
                sent += client.send(content[sent:])
            except BlockingIOError:
                time.sleep(0.01)
        assert 0 < sent < len(content)
        assert receive_all(server, sent) == content[:sent]
        [reading] = wire.box.readings
        assert bytes(reading.said[ORIGINATOR]) == content[:sent]
    assert not {ConflictSeen, Refused, GapSeen} & set(reading.counts)


def test_bytes_in_a_syn_are_read_before_the_handshake_is_over() -> None:
    address = ADDRESSES["server"][0], TALK_PORT
    request = b"GET / HTTP/1.1\r\n\r\n"
    with start_wire() as wire:
        for host in wire.namespaces.values():
            call_in_namespace(host, lambda: Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3"))
        with call_in_namespace(wire.namespaces["server"], lambda: socket.create_server(address)) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
            listener.settimeout(patience_s(10))
            for _ in range(2):  # the first time, the client gets its cookie
                with call_in_namespace(wire.namespaces["client"], socket.socket) as client:
                    # Not `settimeout`: without a cookie, a socket that does not block connects, but does not send.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(patience_s(10)), 0))
                    client.sendto(request, socket.MSG_FASTOPEN, address)
                    client.settimeout(patience_s(10))
                    server, _ = listener.accept()
                    with server:
                        assert receive_all(server, len(request)) == request
                        server.sendall(b"ok")
                        assert receive_all(client, 2) == b"ok"
        first, second = wire.box.readings
        assert bytes(first.said[ORIGINATOR]) == bytes(second.said[ORIGINATOR]) == request
        assert (first.said_in_syn, second.said_in_syn) == (False, True)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_fragments_of_linux_are_held_until_they_are_whole(version: int) -> None:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    messages = [seeded(size).randbytes(size) for size in (3_000, 20_000, 60_000)]
    with start_wire(trouble(4, overtaken=0.3, doubled=0.2)) as wire:
        ends = [call_in_namespace(wire.namespaces[host], lambda: socket.socket(family, socket.SOCK_DGRAM)) for host in ADDRESSES]
        for end, host in zip(ends, ADDRESSES, strict=True):
            end.bind((ADDRESSES[host][version == 6], TALK_PORT))
            end.settimeout(patience_s(10))
        client, server = ends
        with client, server:
            for message in messages:
                client.sendto(message, server.getsockname())
                assert server.recv(65_535) == message
                server.sendto(message, client.getsockname())
                assert client.recv(65_535) == message
    read = [bytes(parse_packet(data).payload) for data in wire.box.reassembled]
    assert sorted(read, key=len) == sorted(messages * 2, key=len)
    assert {event.reason for event in wire.box.discarded} == {Reason.REPEATED}
