"""How much memory the application takes with a long list of names and many connections.

Measured as PSS (proc_pid_smaps_rollup): pages that processes share, as the mapped list, are counted once.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from firmware.inspect_box import Box, start_box
from firmware.inspect_lab import WITHIN_S, Lab, start_lab
from firmware.inspect_loads import NAME, SERVERS
from firmware.netns import call_in_namespace
from mamori.formats.problems import MamoriError

NAMES = 1_000_000
CONNECTIONS, READ_SHARE = 50_000, 10
"""100 PCs with 500 connections each. Nine of ten are TLS, as nearly all is today; the tenth is HTTP, and is still read."""

_FIRST_PORT = 2000
_LINGERING = 500
"""Connections whose ends are still there: an acknowledgement that meets nobody would be answered with a reset."""
_TCP_REPAIR = 19  # linux/tcp.h


@dataclass(frozen=True)
class Memory:
    """Of the service, its workers and the writer of events together, in MB: with the names, and with the connections, too."""

    with_names_mb: float
    with_connections_mb: float
    connections: int


def write_names(folder: Path, count: int = NAMES) -> Path:
    """The source of a list of harmful names, the same every time; the folder, for compile_lists."""
    folder.mkdir(parents=True)
    table = (
        '[lists.names]\nkind = "dangerous"\ncategory = "phishing"\nlabel_ja = "名前"\nlabel_en = "names"\nfiles = ["names.txt"]\n'
    )
    (folder / "lists.toml").write_text(table)
    words = random.Random(5)  # noqa: S311 (no secret)
    with (folder / "names.txt").open("w") as file:
        file.writelines(f"{words.getrandbits(60):x}.bench{number % 5000}.com\n" for number in range(count))
    return folder


def measure_memory(lists: Path, name: str, connections: int = CONNECTIONS) -> Memory:
    """Without clamd, which has limits of its own."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mamori-bench-")))
        lab = stack.enter_context(start_lab(name))
        box = stack.enter_context(start_box(lab, folder, policy="", lists=lists))
        touch(lists)
        with_names_mb = pss_mb(box)
        open_connections(lab, connections)
        _await_connections(box, connections)
        return Memory(with_names_mb, pss_mb(box), sum(worker["flows"] for worker in box.workers()))


def touch(lists: Path) -> None:
    """Have the list in the page cache; what a worker has not looked at is not counted as its memory."""
    lists.read_bytes()


def pss_mb(box: Box) -> float:
    """Of all processes of the application."""
    total_kib = 0
    for pid in (box.service.pid, box.writer.pid, *(worker["pid"] for worker in box.workers())):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total_kib += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total_kib * 1024 / 1e6


def open_connections(lab: Lab, count: int) -> None:
    """So many TCP connections through the bridge, over several pairs of addresses, in each of which the client has said something.

    Both ends vanish without a word (TCP_REPAIR, as for moving a connection to another machine), so the bridge takes them for open
    and they take no descriptors.
    """
    for address in SERVERS:
        lab.at(lab.server, "ip", "address", "add", f"{address}/24", "dev", "eth0", explain="give the server more addresses")
    listener = call_in_namespace(lab.server, lambda: socket.create_server(("", 443), backlog=128))
    hello, request = _hello(), f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()

    opened: deque[tuple[socket.socket, socket.socket]] = deque()

    def connect() -> None:
        for number in range(count):
            client = socket.socket()
            client.settimeout(WITHIN_S)
            # A port of its own for each on the same server: the kernel takes one whose connection has vanished for free.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("", _FIRST_PORT + number // len(SERVERS)))
            client.connect((SERVERS[number % len(SERVERS)], 443))
            server, _ = listener.accept()
            said = request if number % READ_SHARE == 0 else hello
            client.sendall(said)
            server.recv(len(said), socket.MSG_WAITALL)
            opened.append((client, server))
            if len(opened) > _LINGERING:
                vanish(*opened.popleft())
        time.sleep(0.2)
        while opened:
            vanish(*opened.popleft())

    def vanish(*ends: socket.socket) -> None:
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            end.close()

    with listener:
        call_in_namespace(lab.client, connect)


def _await_connections(box: Box, count: int) -> None:
    """Until the workers' reports, which come every two seconds, have them."""
    deadline = time.monotonic() + WITHIN_S
    while sum(worker["flows"] for worker in box.workers()) < count:
        if time.monotonic() > deadline:
            flows = [worker["flows"] for worker in box.workers()]
            raise MamoriError(f"bench: {count} connections are open, and the workers have {flows}")
        time.sleep(0.2)


def _hello() -> bytes:
    """What OpenSSL says first."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
