"""The writer as a process of its own: real sockets and signals, and a plug that is pulled at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mamori.events.record import Count
from mamori.events.schema import VERSION
from mamori.events.sender import EventSender
from mamori.events.writer import COMMIT_RECORDS
from mamori.paths import Device
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.records import BUILD_S, MAC, event
from tests.support.wait import check_until, patience_s

SOURCE = Path(__file__).parents[3] / "python-app/src"

RUN = f"""
import sys
from pathlib import Path
from mamori.events.service import run_writer
from mamori.paths import Device
device = Device(Path(sys.argv[1]))
run_writer(device.events_socket, device.events_database, {BUILD_S}, lambda *line: print(*line, file=sys.stderr, flush=True))
"""

WITHIN_S = 20.0


@contextmanager
def running(device: Device, **environment: str) -> Iterator[subprocess.Popen[str]]:
    device.data.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(device.root)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        check_until("the writer is ready", lambda: is_ready(device) or process.poll() is not None, WITHIN_S)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


def is_ready(device: Device) -> bool:
    """It listens, and there is a database."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(device.events_socket))
        except OSError:
            return False
    try:
        return asked(device.events_database, "PRAGMA user_version") == [(VERSION,)]
    except sqlite3.Error:
        return False


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "root")


def asked(path: Path, question: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def numbers(path: Path) -> list[int]:
    """The events that are stored, which are numbered in the order in which they were sent."""
    return [int(subject) for (subject,) in asked(path, "SELECT subject FROM events WHERE function != 'system' ORDER BY id")]


class Load:
    """Sends numbered events, each with a count, in datagrams that the writer must keep up with."""

    def __init__(self, device: Device) -> None:
        self.sender = EventSender(device.events_socket)
        self.sent = 0

    def send(self, number: int) -> None:
        for _ in range(number):
            self.sender.send(event(f"{self.sent}", time.time()))
            # A count as a record of its own, so that events and sums of one transaction can be compared.
            self.sender.send(Count(time.time(), event().function, "url", MAC, "192.0.2.17", "", 1, 1))
            self.sent += 1

    def flush(self) -> None:
        deadline = time.monotonic() + patience_s(WITHIN_S)
        while self.sender.next_deadline() < float("inf"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
            self.sender.flush(time.monotonic())


def check_sound(database: Path, sent: int) -> int:
    """What stands there is one piece from the first event on, roll-ups and events agree. How many are there."""
    assert asked(database, "PRAGMA integrity_check") == [("ok",)]
    stored = numbers(database)
    assert stored == list(range(len(stored)))
    assert len(stored) <= sent
    for table in ("minutes", "hours", "days"):
        ((scanned,),) = asked(database, f"SELECT coalesce(sum(scanned), 0) FROM {table}")  # noqa: S608
        assert abs(scanned - len(stored)) <= 1, "a pair may be in two datagrams"
    return len(stored)


def test_a_life_of_the_writer_as_the_manager_hears_it(device: Device, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(patience_s(WITHIN_S))
        manager.bind(str(tmp_path / "notify"))
        with running(device, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000") as process:
            assert manager.recv(100) == b"READY=1"
            assert device.events_socket.stat().st_mode & 0o777 == 0o660
            assert manager.recv(100) == b"WATCHDOG=1"
            load = Load(device)
            load.send(3)
            check_until("the events are stored", lambda: numbers(device.events_database) == [0, 1, 2], WITHIN_S)
            load.send(2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(patience_s(WITHIN_S)) == 0
            heard = manager.recv(100)
            while heard == b"WATCHDOG=1":
                heard = manager.recv(100)
            assert heard == b"STOPPING=1"
    assert not device.events_socket.exists()
    assert numbers(device.events_database) == [0, 1, 2, 3, 4], "what was sent before the end is stored"


def test_the_manager_hears_while_there_is_much_to_do(device: Device, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(patience_s(WITHIN_S))
        manager.bind(str(tmp_path / "notify"))
        with running(device, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000"):
            assert manager.recv(100) == b"READY=1"
            manager.setblocking(False)
            load, heard, deadline = Load(device), 0, time.monotonic() + patience_s(WITHIN_S)
            while heard < 5:
                assert time.monotonic() < deadline, f"heard {heard} times while there was always something to store"
                load.send(50)
                with contextlib.suppress(BlockingIOError):
                    heard += manager.recv(100) == b"WATCHDOG=1"


def test_a_writer_that_was_killed_is_replaced_and_senders_go_on(device: Device) -> None:
    load = Load(device)
    with running(device) as process:
        load.send(10)
        load.flush()
        check_until("the events are stored", lambda: len(numbers(device.events_database)) == 10, WITHIN_S)
        process.kill()
        process.wait()
    assert device.events_socket.exists(), "a killed writer leaves its socket behind"
    load.send(10)
    with running(device):
        load.flush()
        check_until("the events are stored", lambda: len(numbers(device.events_database)) == 20, WITHIN_S)
    assert check_sound(device.events_database, 20) == 20


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_killed_under_load_loses_at_most_its_last_batches(device: Device, seed: int) -> None:
    chance = seeded(seed)
    load = Load(device)
    taken = 0
    with running(device) as process:
        until = time.monotonic() + chance.uniform(0.2, 1.5)
        while time.monotonic() < until:
            load.send(20)
            load.flush()
            taken = load.sent
        process.kill()
        process.wait()
    stored = check_sound(device.events_database, load.sent)
    # In memory: less than a batch. In the kernel's queue: its datagrams (net.unix.max_dgram_qlen), each with what one flush held.
    queued = 40 * int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 40
    assert stored >= taken - COMMIT_RECORDS - queued
    # The next writer goes on where this one ended.
    with running(device):
        Load(device).sender.send(event(f"{stored}"))
        check_until("the event is stored", lambda: len(numbers(device.events_database)) == stored + 1, WITHIN_S)


def snapshot(process: subprocess.Popen[str], device: Device, to: Path) -> Path:
    """The database's files as they are at one moment, on which the writer stands still."""
    process.send_signal(signal.SIGSTOP)
    check_until("the writer stands still", lambda: process_state(process.pid) == "T", WITHIN_S)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(device.events_database.parent, to)
    process.send_signal(signal.SIGCONT)
    # The index of the WAL is memory: it does not live through a power cut.
    (to / "events.db-shm").unlink(missing_ok=True)
    return to / "events.db"


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_files_of_any_moment_are_a_sound_database(device: Device, tmp_path: Path) -> None:
    chance, load = seeded(7), Load(device)
    with running(device) as process:
        last = 0
        for _ in range(25):
            load.send(chance.randrange(100, 500))
            load.flush()
            time.sleep(chance.uniform(0, 0.05))
            stored = check_sound(snapshot(process, device, tmp_path / "copy"), load.sent)
            assert stored >= last
            last = stored
    assert last > 2 * COMMIT_RECORDS


def test_a_wal_that_is_cut_or_torn_anywhere_loses_its_end_and_nothing_else(device: Device, tmp_path: Path) -> None:
    chance, load = seeded(8), Load(device)
    with running(device) as process:
        for _ in range(6):
            load.send(300)
            load.flush()
        check_until("the events are stored", lambda: len(numbers(device.events_database)) == load.sent, WITHIN_S)
        database = snapshot(process, device, tmp_path / "copy")
    wal = database.with_name("events.db-wal")
    whole = wal.read_bytes()
    # Before the first checkpoint at 1000 pages: no page of this WAL is in the database yet, so its end may be missing.
    assert 100_000 < len(whole) < 1000 * 4096
    main = database.read_bytes()
    found = set()
    for _ in range(40):
        database.write_bytes(main)
        wal.write_bytes(torn(whole, chance))
        found.add(check_sound(database, load.sent))
        database.with_name("events.db-shm").unlink(missing_ok=True)
    assert len(found) >= 3, "cuts in several transactions"


def torn(whole: bytes, chance: random.Random) -> bytes:
    """The WAL as a disk may have it that was writing: cut, or with a sector of its last part old."""
    cut = chance.randrange(len(whole))
    if chance.random() < 0.5:
        return whole[:cut]
    sector = cut // 512 * 512
    return whole[:sector] + bytes(512) + whole[sector + 512 :]


@pytest.fixture
def open_device() -> Iterator[Device]:
    """One in a folder that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Device(Path(folder) / "root")


def test_another_user_may_read_while_the_writer_writes(open_device: Device) -> None:
    need(os.geteuid() == 0, "needs root, to become a user who may only read")
    device = open_device
    read = (
        "import os, sqlite3, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True);"
        "print(c.execute('SELECT count(*) FROM events').fetchone()[0])"
    )
    with running(device):
        load = Load(device)
        for _ in range(5):
            load.send(100)
            load.flush()
            check_until("the events are stored", lambda: len(numbers(device.events_database)) == load.sent, WITHIN_S)
            done = subprocess.run(
                [sys.executable, "-c", read, str(device.events_database)], capture_output=True, text=True, check=False, timeout=60
            )
            assert (done.returncode, done.stdout) == (0, f"{load.sent}\n"), done.stderr


def test_ctrl_c_loses_nothing(device: Device) -> None:
    with running(device) as process:
        load = Load(device)
        load.send(5)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.wait(patience_s(WITHIN_S))
    assert numbers(device.events_database) == [0, 1, 2, 3, 4]


def test_a_sender_reports_what_was_lost_while_nobody_listened(device: Device) -> None:
    load = Load(device)
    load.send(4000)
    lost = load.sender.lost
    assert lost > 0
    with running(device):
        load.flush()
        check_until(
            "the loss is stored", lambda: asked(device.events_database, "SELECT 1 FROM events WHERE function = 'system'"), WITHIN_S
        )
    ((subject,),) = asked(device.events_database, "SELECT subject FROM events WHERE function = 'system'")
    assert subject == f"{lost} records were lost"
