"""A guarded bridge with a web server behind it, and what can be done to its processes while somebody downloads."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from firmware.inspect_lab import ADDRESSES
from firmware.netns import call_in_namespace
from firmware.process import Running, run, start
from mamori.formats.release import EarlyBridge
from tests.support.guarded import Guarded, start_guarded, start_service, start_writer
from tests.support.need import need
from tests.support.nginx import start_nginx
from tests.support.wait import check_until, patience_s

SERVER = ADDRESSES["server"][0]
BIG_BYTES = 12 << 20
_ETH_P_ALL = 3
_HTTP = "access_log {folder}/access.log; keepalive_timeout 600s; server {{ listen 80; root {folder}/web; }}"


@dataclass
class Rig:
    """`service` and `writer` are those that run now; what is started in their place ends with the rig."""

    box: Guarded
    service: Running
    writer: Running
    big_hash: str
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def folder(self) -> Path:
        return self.box.folder

    # --- processes ---------------------------------------------------------------------------------------------------------

    def workers(self) -> dict[int, int]:
        """The process of each worker that runs, by its number."""
        found = {}
        for pid, words in _processes():
            if "inspect-worker" in words and str(self.box.device.root) in words:
                found[int(words[words.index("--number") + 1])] = pid
        return found

    def is_well(self) -> bool:
        """Whether every worker that is wanted runs, has been heard of, and has its queue."""
        running = self.workers()
        heard = {report["number"]: report["pid"] for report in self.box.workers()}
        wanted = (self.box.report().get("packets") or {}).get("workers_wanted") if self.box.device.inspect_report.exists() else 0
        return bool(wanted) and running == heard and len(running) == wanted and self.queues() == set(running)

    def await_well(self, within_s: float = 30) -> None:
        check_until("all workers are there and have their queues", lambda: self.service.check() or self.is_well(), within_s)

    def restore(self) -> None:
        """Everything is well, whatever the test before has left."""
        if self.service.code is not None:
            self.start_service()
        if self.writer.code is not None:
            self.start_writer()
        self.await_well()

    def queues(self) -> set[int]:
        """The packet queues that somebody has."""
        table = call_in_namespace(self.box.lab.box, Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text)
        return {int(line.split()[0]) for line in table.splitlines()}

    def rules(self) -> list[str]:
        """All rules of the box, without their counters."""
        lab = self.box.lab
        return [
            line
            for command in ("iptables-nft-save", "ip6tables-nft-save")
            for line in lab.at(lab.box, command, explain="read the rules").splitlines()
            if line.startswith("-A")
        ]

    def start_service(self) -> None:
        """Another one, as the service manager starts it after the old one's end."""
        self.service = self.stack.enter_context(start_service(self.box.lab, self.box.device, self.folder))

    def start_writer(self) -> None:
        self.writer = self.stack.enter_context(start_writer(self.box.lab, self.box.device, self.folder))

    # --- traffic -----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def download(self, rate: str = "4M", retries: int = 0) -> Iterator[Download]:
        """The big file at so many bytes a second, on its way when the block is entered."""
        target = self.folder / f"download-{time.monotonic_ns()}"
        argv = ["ip", "netns", "exec", self.box.lab.client, "curl", "--silent", "--show-error", "--limit-rate", rate]
        argv += ["--max-time", f"{patience_s(90):g}", "--retry", str(retries), "--output", str(target), f"http://{SERVER}/big"]
        with start(argv, explain="download", log=self.folder / "curl.log") as running:
            check_until("the download has begun", lambda: target.exists() and target.stat().st_size > 1 << 20, within_s=20)
            yield Download(running, target, self.big_hash)

    def fetch(self, within_s: float = 20, name: str = "hello") -> str:
        """A small file over a new connection; what curl printed, "" if it failed."""
        argv = ["ip", "netns", "exec", self.box.lab.client, "curl", "--silent", "--max-time", f"{patience_s(within_s):g}"]
        argv.append(f"http://{SERVER}/{name}")
        return run(argv, explain="fetch", accept=range(100), timeout_s=patience_s(within_s + 10)).stdout

    @contextlib.contextmanager
    def fetching(self, at_once: int = 4) -> Iterator[Fetching]:
        """Small files one after the other, each over a connection of its own, until the block is left."""
        tally, stop = Fetching(), threading.Event()

        def fetch_on() -> None:
            while not stop.is_set():
                made = http.client.HTTPConnection(SERVER, timeout=patience_s(20))
                try:
                    made.sock = call_in_namespace(self.box.lab.client, made_socket)
                    is_whole = ask(made) == b"hello"
                except (OSError, http.client.HTTPException):
                    is_whole = False
                finally:
                    made.close()
                tally.count(is_whole)

        def made_socket() -> socket.socket:
            return socket.create_connection((SERVER, 80), timeout=patience_s(20))

        threads = [threading.Thread(target=fetch_on) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        try:
            yield tally
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """A connection of HTTP that was used and stays open."""
        timeout_s = patience_s(40)
        made = http.client.HTTPConnection(SERVER)
        made.sock = call_in_namespace(self.box.lab.client, lambda: socket.create_connection((SERVER, 80), timeout=timeout_s))
        with contextlib.closing(made):
            assert ask(made) == b"hello"
            yield made

    @contextlib.contextmanager
    def tapped(self) -> Iterator[list[bytes]]:
        """What comes to the server from the office meanwhile, frame by frame; complete when the block is left."""
        frames: list[bytes] = []
        with call_in_namespace(self.box.lab.server, _open_tap) as tap:
            yield frames
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, sender = tap.recvfrom(65535)
                    if sender[2] != socket.PACKET_OUTGOING:
                        frames.append(frame)

    # --- events ------------------------------------------------------------------------------------------------------------

    def times_told(self, category: str) -> int:
        """How often the system told this; what comes again soon is one event."""
        events = self.box.events("--limit", "5000")
        return sum(each["times"] for each in events if each["function"] == "system" and each["category"] == category)

    def await_event(self, category: str, more_than: int = 0, within_s: float = 15) -> None:
        """It was told more often than that."""
        check_until(f"an event tells {category}", lambda: self.times_told(category) > more_than, within_s)


@dataclass
class Fetching:
    """Files that came whole, and connections that broke."""

    whole: int = 0
    broken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, is_whole: bool) -> None:
        with self._lock:
            self.whole += is_whole
            self.broken += not is_whole


@dataclass(frozen=True)
class Download:
    running: Running
    target: Path
    wanted: str

    @property
    def received_bytes(self) -> int:
        return self.target.stat().st_size

    def finish(self, within_s: float = 60) -> None:
        """It ends, and what came is what was sent."""
        assert self.running.wait(patience_s(within_s)) == 0
        assert hashlib.sha256(self.target.read_bytes()).hexdigest() == self.wanted


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/hello")
    return connection.getresponse().read()


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes do nothing as long as the block lasts, and go on after it if they still live."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        check_until("they have stopped", lambda: all(_state(pid) == "T" for pid in pids), within_s=5)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def start_rig(folder: Path, *, early: EarlyBridge = EarlyBridge.FORWARD, name: str, policy: str = "") -> Iterator[Rig]:
    """The box with a web server outside, and everything well."""
    for tool in ("nginx", "curl"):
        need(tool, "a web server and its client")
    (folder / "web").mkdir(parents=True)
    (folder / "web/hello").write_text("hello")
    content = os.urandom(BIG_BYTES)
    (folder / "web/big").write_bytes(content)
    with (
        start_guarded(folder, name=name, early=early, policy=policy) as box,
        start_nginx(box.lab.server, folder, _HTTP.format(folder=folder)),
    ):
        rig = Rig(box, box.service, box.writer, hashlib.sha256(content).hexdigest())
        with rig.stack:
            rig.await_well()
            yield rig


def _open_tap() -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.bind(("eth0", _ETH_P_ALL))
    tap.setblocking(False)
    return tap


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Each process that has not ended, and its arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words != [""]:
                yield int(folder.name), words


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""
