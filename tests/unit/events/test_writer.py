"""The writer on real disks: batches, a disk that is full, and databases that are of no use."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mamori.events.batch import MAX_ROWS
from mamori.events.record import Record
from mamori.events.retention import EVENTS_DAYS, SETTLE_S
from mamori.events.schema import VERSION
from mamori.events.sender import LOST_RECORDS
from mamori.events.wire import encode_record, join_records
from mamori.events.writer import (
    COMMIT_EVERY_S,
    COMMIT_RECORDS,
    DATABASE_REPLACED,
    DISK_TROUBLE,
    PRUNE_EVERY_S,
    REFUSALS_EVERY_S,
    RETRY_EVERY_S,
    WRITER_KILLED,
    Clocks,
    Writer,
)
from tests.support.need import need
from tests.support.records import BUILD_S, NOW_S, count, event

START = Clocks(1000.0, NOW_S)


def after(seconds: float, wall_s: float | None = None) -> Clocks:
    return Clocks(START.now + seconds, START.wall_s + seconds if wall_s is None else wall_s)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def write_log(log: list[str]) -> Callable[[int, str], None]:
    return lambda level, text: log.append(f"<{level}>{text}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events/events.db"


def datagram(*records: Record) -> bytes:
    return join_records(map(encode_record, records))


def asked(path: Path, question: str, *values: object) -> list[tuple]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def subjects(path: Path) -> list[str]:
    return [subject for (subject,) in asked(path, "SELECT subject FROM events ORDER BY id")]


def test_records_are_written_a_second_after_the_first_of_them(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    writer.receive(datagram(event("1")), after(0.1))
    assert writer.next_deadline() == pytest.approx(START.now + 0.1 + COMMIT_EVERY_S)
    writer.receive(datagram(event("2")), after(0.9))
    writer.on_timer(after(1.0))
    assert subjects(path) == []
    writer.on_timer(after(1.2))
    assert subjects(path) == ["1", "2"]
    assert writer.next_deadline() == START.now + PRUNE_EVERY_S


def test_many_records_are_written_at_once(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    for number in range(COMMIT_RECORDS - 1):
        writer.receive(datagram(event(f"{number}")), after(0.1))
    assert subjects(path) == []
    writer.receive(datagram(count()), after(0.1))
    assert len(subjects(path)) == COMMIT_RECORDS - 1


def test_what_is_left_is_written_at_the_end(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    writer.receive(datagram(event("1")), after(0.1))
    writer.close(after(0.2))
    assert [file.name for file in path.parent.iterdir()] == ["events.db"]
    assert subjects(path) == ["1"]


def test_records_that_are_none_are_logged_now_and_then(path: Path, write_log, log: list[str]) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    for second in range(100):
        writer.receive(b"[1, 2]" if second % 2 else b"?", after(second))
    writer.receive(datagram(event("good")), after(100))
    writer.on_timer(after(102))
    assert [line.split(":")[0] for line in log] == ["<4>1 records refused", f"<4>{REFUSALS_EVERY_S * 3 / 2:.0f} records refused"]
    assert subjects(path) == ["good"]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 2 MB, full but for what is taken away from `ballast`."""
    need(os.geteuid() == 0, "needs root, to mount a disk that is really full")
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m,nr_inodes=50", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)  # noqa: S607 - wherever this machine has it


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=30)  # noqa: S607


def fill(folder: Path) -> None:
    with (folder / "ballast").open("ab", buffering=0) as ballast:
        for size in (65_536, 4096, 512, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue


def test_a_full_disk_is_survived_and_nothing_is_lost_that_fits_in_memory(tmp_path: Path, write_log, log: list[str]) -> None:
    with small_disk(tmp_path / "data") as disk:
        path = disk / "events/events.db"
        writer = Writer(path, BUILD_S, write_log, START)
        writer.receive(datagram(event("before")), START)
        writer.on_timer(after(1))
        fill(disk)
        for second in range(2, 60):
            writer.receive(
                datagram(*(event(f"{second}-{number}-{'x' * 900}", NOW_S + second) for number in range(20)), count()), after(second)
            )
            writer.on_timer(after(second))
        assert not writer.is_writing
        assert len(log) == 1
        assert "full" in log[0]
        assert "kept in memory" in log[0]
        (disk / "ballast").unlink()
        writer.on_timer(after(59 + RETRY_EVERY_S))
        assert writer.is_writing
        assert log[1:] == ["<5>events are written again"]
        writer.close(after(70))
        assert len(subjects(path)) == 1 + 58 * 20 + 1
        ((trouble, reason),) = asked(path, "SELECT subject, detail FROM events WHERE category = ?", DISK_TROUBLE)
        assert trouble == f"for {64 - 3} s events could not be written"
        assert "full" in reason
        assert asked(path, "SELECT sum(scanned) FROM days") == [(58,)]
        assert asked(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_end_of_a_writer_that_was_killed_is_told_by_the_next_one(tmp_path: Path, write_log) -> None:
    path = tmp_path / "events.db"
    killed = os.fork()
    if not killed:
        writer = Writer(path, BUILD_S, write_log, START)
        writer.receive(datagram(event("before")), START)
        writer.on_timer(after(1))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    Writer(path, BUILD_S, write_log, after(2)).close(after(2))
    Writer(path, BUILD_S, write_log, after(3)).close(after(3))
    assert asked(path, "SELECT category FROM events") == [("phishing",), (WRITER_KILLED,)]


def test_what_has_no_room_in_memory_is_counted_and_told_when_there_is_room(tmp_path: Path, write_log) -> None:
    with small_disk(tmp_path / "data") as disk:
        path = disk / "events/events.db"
        fill(disk)
        writer = Writer(path, BUILD_S, write_log, START)
        for number in range(MAX_ROWS + 700):
            writer.receive(datagram(event(f"{number}"), count()), after(1))
        (disk / "ballast").unlink()
        # All of it does not fit into 2 MB at once, and is not to be lost for that.
        mount("-o", "remount,size=64m", disk)
        writer.on_timer(after(RETRY_EVERY_S + 1))
        writer.close(after(10))
        ((lost,),) = asked(path, "SELECT subject FROM events WHERE category = ?", LOST_RECORDS)
        stored = len(subjects(path)) - 2  # and one tells of the disk
        assert lost == f"{MAX_ROWS + 700 - stored} records were lost"
        assert stored >= MAX_ROWS - 10
        assert asked(path, "SELECT sum(scanned) FROM days") == [(MAX_ROWS + 700,)]


def test_a_disk_that_is_not_there_yet_is_waited_for(tmp_path: Path, write_log, log: list[str]) -> None:
    path = tmp_path / "data/events/events.db"
    writer = Writer(path, BUILD_S, write_log, START)
    writer.receive(datagram(event("early")), after(1))
    for second in range(2, 20):
        writer.on_timer(after(second))
    assert len(log) == 1
    assert writer.next_deadline() <= after(19 + RETRY_EVERY_S).now
    path.parent.parent.mkdir()
    writer.on_timer(after(30))
    assert subjects(path) == ["early"]


def test_a_damaged_database_is_set_aside_and_a_new_one_says_so(path: Path, write_log, log: list[str]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database\n" * 1000)
    writer = Writer(path, BUILD_S, write_log, START)
    assert path.with_name("events.db.damaged").read_bytes() == b"no database\n" * 1000
    writer.receive(datagram(event("goes on")), after(1))
    writer.close(after(2))
    assert subjects(path) == ["a new database of events begins: the last one is damaged", "goes on"]
    assert asked(path, "SELECT function, category, detail FROM events WHERE id = 1") == [
        ("system", DATABASE_REPLACED, "file is not a database")
    ]
    assert log == [f"<3>{path}: file is not a database; set aside as events.db.damaged, a new one begins"]


def test_a_damage_that_shows_while_writing_costs_none_of_what_is_in_memory(path: Path, write_log, log: list[str]) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    for number in range(2000):
        writer.receive(datagram(event(f"{number}")), after(0.1))
    writer.on_timer(after(2))
    asked_for_checkpoint = sqlite3.connect(path)
    asked_for_checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    asked_for_checkpoint.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    for second in (3, 10, 20, 30):
        writer.receive(datagram(*(event(f"{second}-{number}-{'x' * 900}", NOW_S + second) for number in range(30))), after(second))
        writer.on_timer(after(second + 2))
    writer.close(after(40))
    assert path.with_name("events.db.damaged").exists()
    kept = subjects(path)
    assert "a new database of events begins: the last one is damaged" in kept
    assert len(kept) == 1 + 4 * 30
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert any("set aside" in line for line in log)


def test_a_database_of_a_newer_release_is_kept_and_an_older_one_goes_on_with_its_own(path: Path, write_log, log: list[str]) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    writer.receive(datagram(event("newer")), START)
    writer.close(after(1))
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    writer = Writer(path, BUILD_S, write_log, after(2))
    writer.close(after(3))
    aside = path.with_name(f"events.db.newer-{VERSION + 1}")
    assert subjects(aside) == ["newer"]
    assert subjects(path) == ["a new database of events begins: the last one is newer"]
    assert log == [
        f"<3>{path}: {path}: version: expected at most {VERSION}, got {VERSION + 1}; set aside as {aside.name}, a new one begins"
    ]


def test_old_events_go_only_after_the_clock_went_steadily_for_a_while(path: Path, write_log) -> None:
    writer = Writer(path, NOW_S - 1000 * 86_400, write_log, START)
    old = event("old", NOW_S - (EVENTS_DAYS + 1) * 86_400)
    writer.receive(datagram(old, event("young")), START)
    step = int(PRUNE_EVERY_S)
    for second in range(0, int(SETTLE_S), step):
        writer.on_timer(after(second))
    # A clock that jumps, whether forward by a year or back, must be steady anew.
    for second in range(int(SETTLE_S), 2 * int(SETTLE_S), step):
        writer.on_timer(after(second, NOW_S + 365 * 86_400 + second))
    assert subjects(path) == ["old", "young"]
    for second in range(2 * int(SETTLE_S), 3 * int(SETTLE_S) + 2 * step, step):
        writer.on_timer(after(second))
    assert subjects(path) == ["young"]


def test_old_events_stay_while_the_clock_is_before_the_build(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, Clocks(0.0, 0.0))
    writer.receive(datagram(event("1970", 5.0)), Clocks(1.0, 1.0))
    for second in range(0, 3 * int(SETTLE_S), 60):
        writer.on_timer(Clocks(second, second))
    assert asked(path, "SELECT subject, clock_ok FROM events") == [("1970", 0)]


def test_what_can_only_be_a_bug_ends_the_writer_and_the_next_one_goes_on(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER bug BEFORE INSERT ON events WHEN new.subject = 'bug' BEGIN SELECT raise(ABORT, 'no'); END"
        )
    connection.close()
    writer.receive(datagram(event("bug")), START)
    with pytest.raises(sqlite3.IntegrityError):
        writer.on_timer(after(1))
    writer = Writer(path, BUILD_S, write_log, after(2))
    writer.receive(datagram(event("next")), after(3))
    writer.close(after(4))
    assert subjects(path) == ["next"]


def page_of(path: Path, name: str) -> int:
    ((page,),) = asked(path, "SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
    return int(page)


def test_a_damage_that_is_seen_only_when_writing_is_not_opened_again_and_repetitions_begin_anew(path: Path, write_log) -> None:
    writer = Writer(path, BUILD_S, write_log, START)
    writer.receive(datagram(event("again")), START)
    writer.on_timer(after(1))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    # One page of an index: the database opens, and all but this can be read.
    with path.open("r+b") as file:
        file.seek((page_of(path, "events_at_s") - 1) * 4096)
        file.write(b"\xff" * 4096)
    for second in range(2, 40):
        writer.receive(datagram(event(f"{second}", NOW_S + second)), after(second))
        writer.on_timer(after(second))
    writer.receive(datagram(event("again", NOW_S + 40)), after(40))
    writer.close(after(41))
    assert asked(path, "SELECT times FROM events WHERE times != 1") == [], "a row of the old database is no row of this one"
    assert subjects(path).count("a new database of events begins: the last one is damaged") == 1
    assert subjects(path)[-1] == "again"
    assert len(subjects(path)) == 1 + 38 + 1
    assert path.with_name("events.db.damaged").exists()
