"""The database with real files: what stands in it, how it grows and shrinks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mamori.events.batch import Batch, Merger
from mamori.events.record import Function, Record, TerminalSeen
from mamori.events.retention import plan_cutoffs
from mamori.events.schema import MIGRATIONS, VERSION, NewerDatabaseError, day_of, hour_of, migrate, read_version
from mamori.events.store import PRUNE_ROWS, DamagedError, Store, is_damage, set_aside
from mamori.events.terminals import EVICT_AGE_S, MAX_TERMINALS
from tests.support.records import BUILD_S, MAC, NOW_S, count, event

DAY_S = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events/events.db"


def batch_of(records: Iterable[Record], now_s: float = NOW_S) -> Batch:
    merger = Merger(BUILD_S)
    for record in records:
        merger.add(record, now_s)
    return merger.take()


def written(path: Path, records: Iterable[Record], now_s: float = NOW_S) -> None:
    store = Store(path, check=True)
    store.write(batch_of(records, now_s))
    store.close()


def asked(path: Path, question: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def test_an_event_stands_there_with_all_that_it_said(path: Path) -> None:
    written(path, [event("http://bad.example/\x1b[31m", detail="because")])
    assert asked(path, "SELECT * FROM events") == [
        (
            *(1, NOW_S, NOW_S, 1, 1, "dangerous-site", "blocked", "outbound", 1, MAC, "192.0.2.17"),
            *("198.51.100.1", 80, "http", "http://bad.example/\x1b[31m", "phishing-jp", "phishing", "because"),
        )
    ]
    assert asked(path, "PRAGMA auto_vacuum") == [(2,)]
    assert asked(path, "PRAGMA journal_mode") == [("wal",)]
    assert asked(path, "PRAGMA user_version") == [(VERSION,)]


def test_a_repetition_is_written_into_its_row(path: Path) -> None:
    store, merger = Store(path, check=False), Merger(BUILD_S)
    for second in range(3):
        merger.add(event(at_s=NOW_S + second), NOW_S)
        store.write(merger.take())
    store.close()
    assert asked(path, "SELECT times, at_s, last_s FROM events") == [(3, NOW_S, NOW_S + 2)]


def test_a_repetition_of_a_row_that_was_pruned_is_a_new_row(path: Path) -> None:
    store, merger = Store(path, check=False), Merger(BUILD_S)
    merger.add(event(), NOW_S)
    store.write(merger.take())
    asked_directly = sqlite3.connect(path)
    with asked_directly:
        asked_directly.execute("DELETE FROM events")
    asked_directly.close()
    merger.add(event(), NOW_S)
    store.write(merger.take())
    store.close()
    assert asked(path, "SELECT id, times FROM events") == [(2, 2)]


def test_counts_are_summed_up_by_minute_hour_and_day_in_japan(path: Path) -> None:
    evening = 1_795_359_540.0  # 2026-11-22 23:59:00 in Japan
    times = (evening, evening + 30, evening + 60, evening + 3660)
    for at_s in times:
        written(path, [count(10, 1, at_s)], evening)
    question = "SELECT at_s - 1795359540, sum(scanned), sum(blocked) FROM {} GROUP BY at_s"
    assert asked(path, question.format("minutes")) == [(0, 20, 2), (60, 10, 1), (3660, 10, 1)]
    assert asked(path, question.format("hours")) == [(60 - 3600, 20, 2), (60, 10, 1), (3660, 10, 1)]
    assert asked(path, question.format("days")) == [(60 - 86400, 20, 2), (60, 20, 2)]


def test_a_span_begins_where_people_in_japan_say_it_does() -> None:
    midnight = 1_795_359_600  # 2026-11-23 00:00:00+09:00
    assert [day_of(midnight - 1), day_of(midnight), day_of(midnight + 86_399)] == [midnight - 86_400, midnight, midnight]
    assert [hour_of(midnight - 1), hour_of(midnight + 3599)] == [midnight - 3600, midnight]
    assert (day_of(0), hour_of(0)) == (0, 0), "no time stays no time"


def test_counts_without_a_time_are_in_one_place_and_stay(path: Path) -> None:
    written(path, [count(1, 0, 5.0), count(2, 0, 100_000.0)])
    store = Store(path, check=True)
    while store.prune(plan_cutoffs(NOW_S)):
        pass
    store.close()
    assert asked(path, "SELECT at_s, scanned FROM days") == [(0, 3)]


def test_a_terminal_is_known_by_its_mac_and_keeps_its_number(path: Path) -> None:
    written(path, [event(terminal="192.0.2.17"), TerminalSeen(NOW_S, MAC, "192.0.2.17", "tanaka-pc", "dhcp")])
    written(path, [event("later", NOW_S + 100, terminal="2001:db8::17"), count(at_s=NOW_S + 200, terminal="192.0.2.99")])
    assert asked(path, "SELECT id, key, mac, address, name, source, first_s, last_s FROM terminals") == [
        (1, MAC, MAC, "192.0.2.99", "tanaka-pc", "dhcp", NOW_S, NOW_S + 160)
    ]
    assert asked(path, "SELECT terminal, terminal_address FROM events") == [(1, "192.0.2.17"), (1, "2001:db8::17")]


def test_who_knows_only_an_address_means_whoever_had_it_last(path: Path) -> None:
    written(path, [event("1"), event("2", mac="")])
    written(path, [event("3", mac=""), event("4", mac="", terminal="192.0.2.200"), event("5", mac="", terminal="")])
    assert asked(path, "SELECT subject, terminal FROM events") == [("1", 1), ("2", 1), ("3", 1), ("4", 2), ("5", 0)]


def test_a_worse_source_does_not_take_a_good_name_away(path: Path) -> None:
    for name, source in (("TANAKA-PC", "netbios"), ("tanaka-pc", "dhcp"), ("tanaka", "mdns"), ("", "dhcp")):
        written(path, [TerminalSeen(NOW_S, MAC, "192.0.2.17", name, source)])
    assert asked(path, "SELECT name, source FROM terminals") == [("tanaka-pc", "dhcp")]


def test_forged_addresses_do_not_push_out_the_computers_that_are_there(path: Path) -> None:
    forged = [
        event(f"{n}", NOW_S, mac="", terminal=f"10.{n // 65536}.{n // 256 % 256}.{n % 256}") for n in range(MAX_TERMINALS + 500)
    ]
    written(path, [event("first", NOW_S), *forged])
    assert asked(path, "SELECT count(*) FROM terminals") == [(MAX_TERMINALS,)]
    assert asked(path, "SELECT count(*) FROM events WHERE terminal = 0") == [(501,)]
    later = NOW_S + EVICT_AGE_S + 100
    written(path, [event("still here", later), event("new", later + 1, mac="02:00:00:00:00:22")], later)
    assert asked(path, "SELECT terminal FROM events WHERE subject = 'still here'") == [(1,)]
    assert asked(path, "SELECT count(*) FROM terminals WHERE mac = '02:00:00:00:00:22'") == [(1,)]


def test_a_batch_is_written_whole_or_not_at_all(path: Path) -> None:
    store = Store(path, check=False)
    batch = batch_of([event("1"), count()])
    blocker = sqlite3.connect(path)
    blocker.execute("CREATE TRIGGER no_days BEFORE INSERT ON days BEGIN SELECT raise(ABORT, 'no'); END")
    blocker.commit()
    blocker.close()
    with pytest.raises(sqlite3.Error):
        store.write(batch)
    store.close()
    assert [row.rowid for row in batch.rows.values()] == [None], "what was rolled back has no row"
    assert asked(path, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM minutes)") == [(0, 0)]


def test_what_is_too_old_goes_in_small_steps(path: Path) -> None:
    old = [event(f"{number}", NOW_S - 91 * DAY_S) for number in range(3 * PRUNE_ROWS)]
    merger = Merger(0.0)
    for record in (*old, event("1970", 5.0), event("young", NOW_S - 89 * DAY_S)):
        merger.add(record, NOW_S)
    store = Store(path, check=False)
    store.write(merger.take())
    steps = 0
    while store.prune(plan_cutoffs(NOW_S)):
        steps += 1
        assert steps < 10
    store.close()
    assert steps == 3
    assert asked(path, "SELECT subject FROM events") == [("young",)]


@pytest.mark.parametrize(("table", "days"), [("minutes", 2), ("hours", 60), ("days", 731)])
def test_each_roll_up_keeps_its_time(path: Path, table: str, days: int) -> None:
    merger = Merger(0.0)
    for age_days in (0, days - 1.1, days + 1.1, days + 100):
        merger.add(count(at_s=NOW_S - age_days * DAY_S), NOW_S)
    store = Store(path, check=False)
    store.write(merger.take())
    while store.prune(plan_cutoffs(NOW_S)):
        pass
    store.close()
    assert store_count(path, table) == 2


def test_without_a_clock_to_trust_nothing_goes_for_its_age(path: Path) -> None:
    merger = Merger(0.0)
    merger.add(event(at_s=1.0), NOW_S)
    store = Store(path, check=False)
    store.write(merger.take())
    assert store.prune(None) is False
    store.close()
    assert asked(path, "SELECT count(*) FROM events") == [(1,)]


def test_what_is_too_much_goes_oldest_first_and_the_file_shrinks(path: Path) -> None:
    store = Store(path, check=False)
    for start in range(0, 10_000, 500):
        store.write(batch_of(event(f"{number:05}{'x' * 500}") for number in range(start, start + 500)))
    asked(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    before, limit = path.stat().st_size, 3 * 1024 * 1024
    assert before > 2 * limit
    while store.prune(None, limit):
        pass
    assert limit / 2 < store.used_bytes() <= limit
    store.close()
    ((first, last, number),) = asked(path, "SELECT min(id), max(id), count(*) FROM events")
    assert (last, number) == (10_000, 10_000 - first + 1)
    assert path.stat().st_size <= limit + 1024 * 1024


def test_sums_go_only_when_there_are_no_events_left_and_the_finest_first(path: Path) -> None:
    merger = Merger(0.0)
    for number in range(5000):
        merger.add(count(at_s=NOW_S - 60 * number, terminal=f"{number}", mac=""), NOW_S)
    merger.add(event(), NOW_S)
    store = Store(path, check=False)
    store.write(merger.take())
    limit = store.used_bytes() * 7 // 8
    before = [store_count(path, table) for table in ("minutes", "hours", "days")]
    while store.prune(None, limit):
        pass
    store.close()
    events, minutes, *coarser = (store_count(path, table) for table in ("events", "minutes", "hours", "days"))
    assert events == 0
    assert 0 < minutes < before[0]
    assert coarser == before[1:]


def store_count(path: Path, table: str) -> int:
    ((number,),) = asked(path, f"SELECT count(*) FROM {table}")  # noqa: S608
    return int(number)


def test_a_newer_database_is_refused_with_both_versions(path: Path) -> None:
    written(path, [event()])
    asked(path, f"PRAGMA user_version = {VERSION + 3}")
    with pytest.raises(NewerDatabaseError, match=rf"{path}: version: expected at most {VERSION}, got {VERSION + 3}"):
        Store(path, check=True)


NEXT = (*MIGRATIONS, ("ALTER TABLE events ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",))


def test_a_database_of_an_older_version_becomes_a_newer_one_and_keeps_its_rows(path: Path) -> None:
    written(path, [event()])
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, NEXT)
    assert read_version(connection) == VERSION + 1
    assert connection.execute("SELECT subject, mood FROM events").fetchall() == [("http://bad.example/", "calm")]
    migrate(connection, path, NEXT)
    connection.close()


def test_a_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    written(path, [event()])
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, path, (*MIGRATIONS, ("CREATE TABLE half (x)", "no statement")))
    assert read_version(connection) == VERSION
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'half'").fetchall() == []
    connection.close()


def flip_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_bytes(b"no database\n" * 1000),
    "pages of zeros": flip_pages,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_from_other_trouble(path: Path, damage: Callable[[Path], object]) -> None:
    written(path, [event(f"{number}") for number in range(100)])
    damage(path)
    with pytest.raises((sqlite3.DatabaseError, DamagedError)) as caught:
        Store(path, check=True)
    assert is_damage(caught.value)


def test_a_folder_that_cannot_be_is_trouble_but_no_damage(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")
    with pytest.raises(OSError, match="exists") as caught:
        Store(tmp_path / "events/events.db", check=True)
    assert not is_damage(caught.value)


def test_what_is_set_aside_leaves_a_free_place_and_replaces_what_was_there(path: Path) -> None:
    for subject in ("first", "second"):
        store = Store(path, check=False)
        store.write(batch_of([event(subject)]))
        aside = set_aside(path, "damaged")
        store.close()
        assert not path.exists()
    assert aside == path.with_name("events.db.damaged")
    assert asked(aside, "SELECT subject FROM events") == [("second",)], "its WAL went with it"
    written(path, [event("third", function=Function.IPS)])
    assert asked(path, "SELECT subject FROM events") == [("third",)]


def test_a_checkpoint_waits_for_the_disk(path: Path) -> None:
    # NORMAL is 1. A killed process cannot tell it from OFF: what was written lives on in the kernel; only a power cut would.
    store = Store(path, check=False)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (1,)
    store.close()
