"""The real clamd with the image's configuration, in a folder of its own, and a scanner that is driven until it has answered."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware.inspect_box import CLAMD_CONFIG, render_clamd_config
from firmware.process import Running, start
from mamori.inspect.scan.health import Condition
from mamori.inspect.scan.scanner import FILE_BACKLOG_BYTES, Scanner, ScanSettings
from mamori.inspect.scan.verdicts import Verdict
from tests.support.eicar import signatures
from tests.support.need import need
from tests.support.wait import check_until, patience_s

SHIPPED = CLAMD_CONFIG


@dataclass(frozen=True)
class Clamd:
    """A folder with clamd's configuration, socket and database."""

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def write_database(self, name: str) -> None:
        (self.folder / "database/test.ndb").write_text(signatures(name))


def prepare_clamd(folder: Path, **changes: str) -> Clamd:
    """The shipped configuration with its three paths here; `changes` replace other lines."""
    need("/usr/sbin/clamd", "the virus scanner itself")
    for name in ("database", "tmp"):
        (folder / name).mkdir()
    (folder / "clamd.conf").write_text(render_clamd_config(folder, **changes))
    clamd = Clamd(folder)
    clamd.write_database("Mamori.Database.1")
    return clamd


@contextlib.contextmanager
def started_clamd(clamd: Clamd) -> Iterator[Running]:
    """clamd runs, and answers, for as long as the `with` block."""
    argv = ["/usr/sbin/clamd", "-c", clamd.folder / "clamd.conf"]
    with start(argv, explain="run clamd", log=clamd.folder / "log") as running:
        check_until("clamd answers", lambda: running.code is not None or answers(clamd.socket), within_s=20)
        running.check()
        yield running


@contextlib.contextmanager
def hung(running: Running) -> Iterator[None]:
    """clamd does nothing for as long as the `with` block."""
    os.kill(running.pid, signal.SIGSTOP)
    try:
        check_until("all of clamd has stopped", lambda: set(_states(running.pid)) == {"T"}, within_s=5)
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)


def _states(pid: int) -> Iterator[str]:
    """Of each thread, as in proc_pid_stat(5)."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        yield stat.read_text().rpartition(") ")[2][0]


def answers(path: Path) -> bool:
    return ask(path, b"zPING\0") == b"PONG\0"


def ask(path: Path, command: bytes) -> bytes:
    """What clamd answers to a command; nothing if it is not there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience_s(5))
        connection.connect(str(path))
        connection.sendall(command)
        return connection.recv(4096)
    return b""


def drive(scanner: Scanner, until: Callable[[], object], within_s: float = 20, ahead_s: float = 0) -> None:
    """Run the scanner's event loop until the condition holds; its clock is `ahead_s` seconds ahead."""
    deadline = time.monotonic() + patience_s(within_s)
    while not until():
        assert time.monotonic() < deadline, f"not within {patience_s(within_s):g} s"
        wait_s = scanner.next_deadline() - time.monotonic() - ahead_s
        if select.select([scanner], [], [], max(0.0, min(wait_s, 0.1)))[0]:
            scanner.on_ready(time.monotonic() + ahead_s)
        scanner.on_timer(time.monotonic() + ahead_s)


def await_verdicts(scanner: Scanner, count: int = 1, within_s: float = 20) -> dict[int, Verdict]:
    """The next verdicts, by file."""
    results: dict[int, Verdict] = {}

    def is_enough() -> bool:
        results.update({scanned.file: scanned.verdict for scanned in scanner.take_results()})
        return len(results) >= count

    drive(scanner, is_enough, within_s)
    return results


def feed(scanner: Scanner, file: int, content: bytes, piece: int = 65_000) -> None:
    """All of the content, no faster than clamd takes it: a line is slower than a loop."""
    for at in range(0, len(content), piece):
        if scanner.usage().held_bytes > FILE_BACKLOG_BYTES // 4:
            drive(scanner, lambda: scanner.usage().held_bytes < FILE_BACKLOG_BYTES // 8)
        scanner.feed(file, content[at : at + piece], time.monotonic())


def scan(scanner: Scanner, content: bytes, *, file: int = 1, expected_bytes: int | None = None, piece: int = 65_000) -> Verdict:
    """The verdict on a whole file."""
    scanner.begin(file, expected_bytes)
    feed(scanner, file, content, piece)
    scanner.finish(file, time.monotonic())
    return await_verdicts(scanner)[file]


def open_scanner(settings: ScanSettings) -> Scanner:
    """A scanner whose first probe is over."""
    scanner = Scanner(settings, time.monotonic())
    drive(scanner, lambda: scanner.health.condition is not Condition.STARTING)
    return scanner
