"""When clamd is used, probed and left alone; and what is kept of a file."""

from __future__ import annotations

import math
import select
from pathlib import Path

import pytest

from mamori.inspect.scan import health
from mamori.inspect.scan.clamd import Version
from mamori.inspect.scan.clamd_link import ClamdLink
from mamori.inspect.scan.files import CHECKPOINTS, Backlog, FileScan, checkpoints
from mamori.inspect.scan.health import Breaker, Condition
from mamori.inspect.scan.scanner import MAX_SCAN_BYTES
from mamori.inspect.scan.verdicts import Clean, Unscanned, Why

VERSION = Version("ClamAV 1.4.6", "27456")


def up(now: float = 0.0) -> Breaker:
    return health.probe_answered(health.begin_probe(health.start(now), now), VERSION, "Database.1", now)


def test_clamd_is_probed_at_once_and_used_meanwhile() -> None:
    breaker = health.start(10.0)
    assert breaker.probe_at == 10.0
    assert breaker.health.is_usable
    assert health.begin_probe(breaker, 10.0).probe_at == math.inf


def test_clamd_that_is_up_is_asked_every_minute() -> None:
    assert up(10.0).probe_at == 10.0 + health.PROBE_EVERY_S
    assert up(10.0).health == health.Health(Condition.UP, 10.0, "", VERSION, "Database.1")


def test_clamd_that_is_down_is_probed_every_second_however_long() -> None:
    breaker = up()
    for now in range(100, 200):
        breaker = health.failed(health.begin_probe(breaker, now), "gone", now)
        assert breaker.probe_at == now + 1
    assert breaker.health == health.Health(Condition.DOWN, 100, "gone", VERSION, "Database.1")
    assert not breaker.health.is_usable


def test_a_probe_of_clamd_that_hangs_stays_open_and_its_answer_counts() -> None:
    breaker = health.hung(health.begin_probe(up(), 60.0), 62.0)
    assert breaker.health == health.Health(Condition.DOWN, 62.0, "clamd does not answer", VERSION, "Database.1")
    assert breaker.probe_at == math.inf, "no other one beside it"
    back = health.probe_answered(breaker, VERSION, "Database.1", 75.0)
    assert (back.health.condition, back.health.since) == (Condition.UP, 75.0)
    assert back.generation != breaker.generation


def test_it_is_down_since_the_first_failure() -> None:
    breaker = health.failed(health.failed(up(), "gone", 100.0), "still gone", 200.0)
    assert (breaker.health.since, breaker.health.reason) == (100.0, "still gone")


@pytest.mark.parametrize(
    ("version", "database", "is_new"),
    [
        pytest.param(VERSION, "Database.1", False, id="the same"),
        pytest.param(VERSION, "Database.2", True, id="another name"),
        pytest.param(Version("ClamAV 1.4.6", "27457"), "Database.1", True, id="another number"),
        pytest.param(Version("ClamAV 1.5.0", "27456"), "Database.1", True, id="another clamd"),
    ],
)
def test_another_database_is_another_generation(version: Version, database: str, is_new: bool) -> None:
    old = up()
    new = health.probe_answered(old, version, database, 60.0)
    assert (new.generation != old.generation) == is_new
    assert new.health.since == 0.0


def test_a_clamd_that_came_back_may_have_another_database() -> None:
    old = up()
    assert health.probe_answered(health.failed(old, "gone", 1.0), VERSION, "Database.1", 2.0).generation != old.generation


def test_who_waits_for_long_makes_clamd_suspect() -> None:
    breaker = up()
    assert health.suspect_at(breaker, 10.0) == 12.0
    assert health.suspect(breaker, 12.0).probe_at == 12.0
    probing = health.begin_probe(breaker, 12.0)
    assert health.suspect_at(probing, 10.0) == math.inf
    answered = health.probe_answered(probing, VERSION, "Database.1", 12.5)
    assert health.suspect_at(answered, 10.0) == 14.0, "not all the time"
    assert health.suspect(answered, 13.0) == answered
    down = health.failed(breaker, "gone", 20.0)
    assert health.suspect_at(down, 10.0) == math.inf
    assert health.suspect(down, 20.0) == down


def test_a_box_without_clamd_never_probes() -> None:
    breaker = health.absent(5.0)
    assert breaker.probe_at == math.inf
    assert not breaker.health.is_usable
    assert health.suspect(breaker, 100.0) == breaker


@pytest.mark.parametrize(("socket", "told"), [(None, ["absent"]), (Path("/nowhere/socket"), [])], ids=["absent", "expected"])
def test_that_there_is_no_clamd_is_told_once_at_the_start(socket: Path | None, told: list[str]) -> None:
    with select.epoll() as epoll:
        link = ClamdLink(socket, epoll, 5.0)
        assert [change.condition.value for change in link.take_changes()] == told
        assert link.take_changes() == []


def test_a_backlog_keeps_what_is_still_needed() -> None:
    backlog = Backlog()
    backlog.append(b"abcdef")
    assert backlog.release(2) == 2
    backlog.append(memoryview(b"ghi"))
    with backlog.view(3, 7) as view:
        assert bytes(view) == b"defg"
    assert (backlog.start, backlog.end, len(backlog)) == (2, 9, 7)
    assert [backlog.release(offset) for offset in (1, 4, 100)] == [0, 2, 5]
    assert (backlog.start, backlog.end, len(backlog)) == (9, 9, 0)


@pytest.mark.parametrize(("start", "end"), [(1, 3), (3, 7), (4, 3)])
def test_bytes_that_a_backlog_does_not_have_are_an_error(start: int, end: int) -> None:
    backlog = Backlog()
    backlog.append(b"abcdef")
    backlog.release(2)
    with pytest.raises(ValueError, match="of a backlog from 2 to 6"):
        backlog.view(start, end)
    with backlog.view(1, 1) as nothing:
        assert bytes(nothing) == b"", "a session that has sent all it needs"


def test_a_file_keeps_no_more_than_is_scanned_but_hashes_all() -> None:
    scan = FileScan(1, None)
    assert [scan.receive(b"x" * 60, 100), scan.receive(b"x" * 60, 100), scan.receive(b"x" * 60, 100)] == [60, 40, 0]
    assert (scan.length, scan.backlog.end) == (180, 100)
    assert scan.is_last(None, 100)
    other = FileScan(2, None)
    other.stopped = Unscanned(Why.OVERLOADED)
    assert other.receive(b"x" * 180, 1000) == 0
    third = FileScan(3, None)
    third.answer = Clean()
    assert third.receive(b"x" * 180, 1000) == 0
    for file in (scan, other, third):
        file.finish(0.0)
    assert scan.digest == other.digest == third.digest


@pytest.mark.parametrize("length", [1, 65_536, 786_431, 786_432, 3_145_728, 5_000_000, 12_582_912, MAX_SCAN_BYTES, 10**9])
@pytest.mark.parametrize("is_known", [True, False], ids=["length known", "length unknown"])
def test_what_is_scanned_twice_stays_below_half(length: int, is_known: bool) -> None:
    scan = FileScan(1, length if is_known else None)
    scan.length = length
    ends = [end for end in checkpoints(scan.expected_bytes, MAX_SCAN_BYTES) if scan.has(3 * end)]
    assert ends == [end for end in CHECKPOINTS if 3 * end <= length]
    assert sum(ends) < length / 2


def test_a_beginning_ends_early_only_if_the_rest_is_announced() -> None:
    first = CHECKPOINTS[0]
    announced, silent = FileScan(1, 3 * first), FileScan(2, None)
    for scan in (announced, silent):
        scan.receive(bytes(first), MAX_SCAN_BYTES)
    assert (announced.is_last(first, MAX_SCAN_BYTES), silent.is_last(first, MAX_SCAN_BYTES)) == (True, False)
    silent.receive(bytes(2 * first), MAX_SCAN_BYTES)
    assert silent.is_last(first, MAX_SCAN_BYTES)
    assert not silent.is_last(None, MAX_SCAN_BYTES)
