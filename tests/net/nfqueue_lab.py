"""A bridge with our queue between a web server and its clients, and what tests do with it. No test is in here."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from select import select

import pytest

from firmware.inspect_lab import ADDRESSES, Lab, start_lab
from firmware.netns import call_in_namespace
from firmware.process import Argument, run, start
from mamori.inspect.nfqueue.checksum import finish_checksum
from mamori.inspect.nfqueue.messages import Packet, Verdict, encode_verdict
from mamori.inspect.nfqueue.queue import Queue, Settings, start_queue
from mamori.inspect.nfqueue.rules import QueueRules
from tests.support.need import need
from tests.support.wait import check_until, patience_s

OPEN, CLOSED = QueueRules(workers=1, fail_open=True), QueueRules(workers=1, fail_open=False)
FOUND, REPLACED = b"\xaa", b"\xbb"
"""A byte that no header of HTTP has; being one byte, it cannot lie across two segments."""
FILE = random.Random(7).randbytes(8_000_000)  # noqa: S311
UDP_PORT, TCP_PORT = 5353, 8053

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])

Decide = Callable[[Packet], bytes]


def accept(packet: Packet) -> bytes:
    return encode_verdict(packet.queue, packet.id, Verdict.ACCEPT)


def accept_marked(mark: int) -> Decide:
    return lambda packet: encode_verdict(packet.queue, packet.id, Verdict.ACCEPT, mark=mark)


def drop_what_says(text: bytes) -> Decide:
    return lambda packet: encode_verdict(packet.queue, packet.id, Verdict.DROP if text in bytes(packet.payload) else Verdict.ACCEPT)


def replace_found(packet: Packet) -> bytes:
    """Accept, with every FOUND of the TCP or UDP payload REPLACED."""
    start = 40 if packet.payload[0] >> 4 == 6 else 20
    is_tcp = packet.payload[6 if start == 40 else 9] == 6
    start += (packet.payload[start + 12] >> 4) * 4 if is_tcp else 8
    if FOUND not in bytes(packet.payload[start:]):
        return accept(packet)
    assert not packet.is_truncated
    changed = bytearray(packet.payload)
    changed[start:] = changed[start:].replace(FOUND, REPLACED)
    finish_checksum(changed, packet.info)
    return encode_verdict(packet.queue, packet.id, Verdict.ACCEPT, payload=bytes(changed))


@dataclass(frozen=True)
class Filter:
    """A queue that is being answered, and the packets that it had."""

    queue: Queue
    seen: list[Packet]


@contextlib.contextmanager
def started_queue(lab: Lab, settings: Settings) -> Iterator[Queue]:
    """A queue of the box; it is entered there, as a socket belongs to the namespace in which it is opened."""
    with contextlib.ExitStack() as stack:
        yield call_in_namespace(lab.box, lambda: stack.enter_context(start_queue(settings)))


@contextlib.contextmanager
def started_filter(lab: Lab, decide: Decide = accept, number: int = 0) -> Iterator[Filter]:
    """Answer a queue of the box from a thread; what goes wrong there goes wrong here."""
    errors: list[BaseException] = []
    stop, stopped = os.pipe()
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(started_queue(lab, Settings(number, fail_open=True)))
        running = Filter(queue, [])

        def work() -> None:
            try:
                while stop not in select([queue.fileno(), stop], [], [])[0]:
                    packets = queue.receive()
                    running.seen.extend(packets)
                    queue.send([decide(packet) for packet in packets])
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name=f"queue {number}")
        thread.start()
        try:
            yield running
        finally:
            os.close(stopped)
            thread.join()
            os.close(stop)
    assert errors == []


@contextlib.contextmanager
def start_web_lab(web: Path) -> Iterator[Lab]:
    """The bridge, and a web server behind it that serves `file`, `allowed` and `forbidden`."""
    need(os.geteuid() == 0, "network namespaces take root")
    for tool in ("ip", "curl", "ethtool", "iptables-nft-restore", "nft"):
        need(tool, "lays out the bridge and sends through it")
    need(Path("/proc/sys/net/bridge").exists(), "the kernel module br_netfilter is not loaded")
    (web / "file").write_bytes(FILE)
    for name in ("allowed", "forbidden"):
        (web / name).write_text(name)
    with start_lab(f"mamori-nfq-{os.getpid()}") as lab:
        argv: list[Argument] = [
            "ip",
            "netns",
            "exec",
            lab.server,
            sys.executable,
            "-m",
            "http.server",
            "--bind",
            "::",
            "--directory",
            web,
            "80",
        ]
        with start(argv, explain="run the web server", log=web / "log") as server:
            listening = ["ip", "netns", "exec", lab.server, "ss", "-Hltn", "sport = 80"]
            check_until("the web server listens", lambda: run(listening, explain="ask").stdout, within_s=20)
            server.check()
            yield lab


def fetch(lab: Lab, name: str, family: int = 0, *, within_s: float = 20) -> bytes | None:
    """What curl gets for the name; None when it gets nothing, or not all of it, in time."""
    host = ADDRESSES["server"][family]
    address = f"http://[{host}]/{name}" if ":" in host else f"http://{host}/{name}"
    argv = ["ip", "netns", "exec", lab.client, "curl", "--silent", "--fail", "--max-time", f"{patience_s(within_s):g}"]
    got = run([*argv, address], explain="fetch", accept=(0, 7, 18, 28), timeout_s=patience_s(within_s) + 20)
    return got.stdout_bytes if got.code == 0 else None


def udp_pair(lab: Lab, family: int = 0) -> tuple[socket.socket, socket.socket]:
    """A socket of the server that is bound, and one of the client that is connected to it."""
    kind, host = (socket.AF_INET6 if family else socket.AF_INET), ADDRESSES["server"][family]
    receiver = call_in_namespace(lab.server, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    receiver.bind((host, UDP_PORT))
    receiver.settimeout(patience_s(2))
    sender = call_in_namespace(lab.client, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    sender.connect((host, UDP_PORT))
    return receiver, sender


def tcp_pair(lab: Lab, stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection, the server's and the client's."""
    host = (ADDRESSES["server"][0], TCP_PORT)
    listening = call_in_namespace(lab.server, lambda: stack.enter_context(socket.create_server(host)))
    listening.settimeout(patience_s(5))
    client = call_in_namespace(lab.client, lambda: stack.enter_context(socket.create_connection(host, patience_s(5))))
    server = stack.enter_context(listening.accept()[0])
    server.settimeout(patience_s(10))
    return server, client


def passes(server: socket.socket, client: socket.socket, data: bytes) -> bool:
    """Whether the data arrives over a connection, whole; in pieces that the sender's buffer takes."""
    for at in range(0, len(data), 50_000):
        piece, got = data[at : at + 50_000], b""
        client.sendall(piece)
        while len(got) < len(piece):
            got += server.recv(len(piece))
        if got != piece:
            return False
    return True


def set_offloads(lab: Lab, on: bool) -> None:
    """Segmentation and checksums: by the hardware (veth: by nobody, until someone looks) or by the kernel at the bridge's ports."""
    state = "on" if on else "off"
    for port in ("client", "server"):
        lab.at(lab.box, "ethtool", "-K", port, "tx", state, "tso", state, "gso", state, explain=f"turn offloads {state}")
