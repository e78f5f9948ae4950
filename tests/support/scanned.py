"""The guarded bridge with a real clamd on the box's side, and ends of connections that live in the namespaces."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.inspect_lab import ADDRESSES
from firmware.netns import call_in_namespace
from firmware.process import Running
from mamori.events.sender import FLUSH_EVERY_S
from mamori.events.writer import COMMIT_EVERY_S
from mamori.inspect.scan.health import Condition
from mamori.paths import Device
from tests.support.clamd import Clamd, prepare_clamd, started_clamd
from tests.support.guarded import Guarded, start_guarded
from tests.support.wait import check_until, patience_s

CLIENT, SERVER = ADDRESSES["client"][0], ADDRESSES["server"][0]


@dataclass(frozen=True)
class Scanned:
    """A box with its scanner. `clamd` can be started again where it was."""

    box: Guarded
    clamd: Clamd
    running: Running

    def await_scanner(self, condition: Condition, within_s: float = 20) -> None:
        """Every worker says so of its scanner; one is enough for what only those notice that have a file."""
        enough = all if condition is Condition.UP else any

        def workers_say() -> bool:
            packets = self.box.report().get("packets") or {}
            workers = packets.get("workers", [])
            return len(workers) == packets.get("workers_wanted") and enough(
                worker["scanner"]["condition"] == condition.value for worker in workers
            )

        check_until(f"the scanner is {condition.value}", workers_say, within_s)

    def viruses(self, subject: str = "") -> list[dict[str, Any]]:
        """The events about files, of a subject that has this in it."""
        return [event for event in self.box.events() if event["function"] == "virus" and subject in event["subject"]]

    def await_virus(self, subject: str, action: str, within_s: float = 10) -> dict[str, Any]:
        """The first such event."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [event for event in self.viruses(subject) if event["action"] == action]
            return bool(found)

        check_until(f"{action} is told of {subject!r}", look, within_s)
        return found[0]

    def counted(self, unit: str, category: str) -> tuple[int, int]:
        """What the statistics say of the office's computer: scanned, and blocked."""
        lab = self.box.lab
        mac = lab.at(lab.client, "cat", "/sys/class/net/eth0/address", explain="read the terminal's address").strip()
        rows = [json.loads(line) for line in self.box.mamori("statistics", "--json", "--terminal", mac).splitlines()]
        wanted = [row for row in rows if (row["function"], row["unit"], row["category"]) == ("virus", unit, category)]
        return sum(row["scanned"] for row in wanted), sum(row["blocked"] for row in wanted)

    def settled(self, unit: str, category: str) -> tuple[int, int]:
        """The same, once all that has happened is in it: workers keep their sums for a second, and so does the writer."""
        time.sleep(patience_s(FLUSH_EVERY_S + COMMIT_EVERY_S + 0.2))
        return self.counted(unit, category)

    def listen(self, namespace: str, port: int) -> socket.socket:
        return call_in_namespace(namespace, lambda: socket.create_server(("", port), backlog=64))

    def connect(self, port: int, *, outwards: bool = True) -> socket.socket:
        """From the office to the outside, or the other way round."""
        namespace, peer = (self.box.lab.client, SERVER) if outwards else (self.box.lab.server, CLIENT)
        timeout_s = patience_s(20)
        return call_in_namespace(namespace, lambda: socket.create_connection((peer, port), timeout=timeout_s))


@contextlib.contextmanager
def start_scanned(folder: Path, *, name: str, policy: str = "") -> Iterator[Scanned]:
    """Everything up, and the scanner in use, when the block is entered."""
    home = Device(folder / "root").clamd_socket.parent
    home.mkdir(parents=True)
    clamd = prepare_clamd(home)
    with started_clamd(clamd) as running, start_guarded(folder, name=name, policy=policy) as box:
        scanned = Scanned(box, clamd, running)
        scanned.await_scanner(Condition.UP)
        yield scanned


@contextlib.contextmanager
def serve(listener: socket.socket, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Each connection gets a thread that talks; what a peer breaks off is no error."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(patience_s(20))
            with contextlib.suppress(OSError):
                talk(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with listener, Server(("", 0), Handler, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listener
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
