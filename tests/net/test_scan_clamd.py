"""Files scanned by the real clamd with the image's configuration."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware.process import ToolError, run
from mamori.inspect.scan.clamd import DATABASE_PROBE, stream_frame
from mamori.inspect.scan.hashes import compile_hashes
from mamori.inspect.scan.health import PROBE_EVERY_S, Condition
from mamori.inspect.scan.scanner import Scanner, ScanSettings
from mamori.inspect.scan.verdicts import Clean, Infected, Scanned, Unscanned, Why
from tests.support.archives import locked, tarred, zipped
from tests.support.clamd import (
    SHIPPED,
    Clamd,
    ask,
    await_verdicts,
    drive,
    feed,
    hung,
    open_scanner,
    prepare_clamd,
    scan,
    started_clamd,
)
from tests.support.eicar import EICAR, EICAR_NAME, MARKER, MARKER_NAME
from tests.support.wait import check_until, patience_s

MEGABYTE = 1_000_000
VIRUS, MARKED = Infected(EICAR_NAME), Infected(MARKER_NAME)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    with started_clamd(clamd := prepare_clamd(tmp_path_factory.mktemp("clamd"))):
        yield clamd


@pytest.fixture
def scanner(clamd: Clamd) -> Iterator[Scanner]:
    with contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        yield scanner


def nested(times: int, pack: Callable[[bytes], bytes]) -> bytes:
    content = EICAR
    for _ in range(times):
        content = pack(content)
    return content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(EICAR, id="bare"),
        pytest.param(EICAR + b"\r\n", id="with a line end"),
        pytest.param(zipped(b"hello", EICAR), id="zip"),
        pytest.param(gzip.compress(EICAR), id="gzip"),
        pytest.param(bz2.compress(EICAR), id="bzip2"),
        pytest.param(lzma.compress(EICAR), id="xz"),
        pytest.param(tarred(EICAR), id="tar"),
        pytest.param(gzip.compress(tarred(EICAR)), id="tar.gz"),
        pytest.param(zipped(gzip.compress(tarred(zipped(EICAR)))), id="zip in tar in gzip in zip"),
        pytest.param(nested(8, zipped), id="zip eight times"),
        pytest.param(b"MZ" + noise(3000) + zipped(EICAR), id="zip behind something else"),
        pytest.param(zipped(*[noise(100, seed) for seed in range(500)], EICAR), id="the last of 500 files"),
        pytest.param(zipped(noise(3 * MEGABYTE), EICAR), id="in a zip of 3 MB"),
    ],
)
def test_a_virus_is_found_in_whatever_it_is_packed(scanner: Scanner, content: bytes) -> None:
    verdict = scan(scanner, content)
    assert verdict == VIRUS


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="a byte"),
        pytest.param(noise(65_535), id="just small"),
        pytest.param(noise(65_536), id="just not small"),
        pytest.param(zipped(b"hello"), id="zip"),
        pytest.param(noise(5 * MEGABYTE), id="5 MB"),
        pytest.param(noise(25 * 1024 * 1024), id="the largest size"),
        pytest.param(b"PK\3\4" + noise(1000), id="a broken zip"),
        pytest.param(zipped(noise(50_000))[:-200], id="a zip that broke off"),
    ],
)
def test_a_harmless_file_is_clean(scanner: Scanner, content: bytes) -> None:
    verdict = scan(scanner, content)
    assert verdict == Clean()


@pytest.mark.parametrize("piece", [1, 7, 1448])
def test_it_does_not_matter_how_a_file_is_cut(scanner: Scanner, piece: int) -> None:
    content = noise(70_000) + MARKER + noise(100)
    verdict = scan(scanner, content, piece=piece)
    assert verdict == MARKED
    verdict = scan(scanner, content[:-150], piece=piece)
    assert verdict == Clean()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(locked(EICAR), Why.ENCRYPTED, id="a password"),
        pytest.param(gzip.compress(tarred(locked(EICAR))), Why.ENCRYPTED, id="a password further down"),
        pytest.param(nested(30, zipped), Why.TOO_DEEP, id="zip thirty times"),
        pytest.param(gzip.compress(bytes(200 * MEGABYTE), 1), Why.TOO_DEEP, id="a bomb"),
        pytest.param(zipped(*[b"%d" % number for number in range(6000)]), Why.TOO_DEEP, id="too many files"),
        pytest.param(noise(25 * 1024 * 1024 + 1), Why.TOO_LARGE, id="a byte too many"),
    ],
)
def test_what_clamd_cannot_look_into_is_not_called_clean(scanner: Scanner, content: bytes, why: Why) -> None:
    verdict = scan(scanner, content)
    assert isinstance(verdict, Unscanned)
    assert verdict.why is why


def test_the_locked_archive_is_one_that_its_password_opens() -> None:
    with zipfile.ZipFile(io.BytesIO(locked(EICAR))) as archive:
        assert archive.read("secret.exe", pwd=b"secret") == EICAR


def test_a_virus_beside_a_locked_file_is_a_virus(scanner: Scanner) -> None:
    verdict = scan(scanner, zipped(locked(b"hello"), EICAR))
    assert verdict == VIRUS


@pytest.mark.parametrize("expected", [True, False], ids=["length known", "length unknown"])
@pytest.mark.parametrize(("within", "told_at"), [(200_000, 256 * 1024), (900_000, 1024 * 1024), (4 * MEGABYTE, 4 * 1024 * 1024)])
def test_a_virus_near_the_start_is_told_while_the_rest_is_to_come(
    scanner: Scanner, expected: bool, within: int, told_at: int
) -> None:
    content = bytearray(noise(20 * MEGABYTE))
    content[within : within + len(MARKER)] = MARKER
    if not expected:
        told_at *= 3
    scanner.begin(1, len(content) if expected else None)
    feed(scanner, 1, bytes(content[: told_at - 1000]))
    time.sleep(0.2)
    scanner.on_ready(time.monotonic())
    assert scanner.take_results() == []
    feed(scanner, 1, bytes(content[told_at - 1000 : told_at]))
    assert await_verdicts(scanner) == {1: MARKED}
    feed(scanner, 1, bytes(content[told_at:]))
    scanner.finish(1, time.monotonic())
    assert scanner.take_results() == []
    assert scanner.usage().open_files == scanner.usage().open_sessions == scanner.usage().held_bytes == 0


def test_a_virus_in_the_first_part_of_a_file_that_is_too_large_is_found(scanner: Scanner) -> None:
    verdict = scan(scanner, noise(24 * MEGABYTE) + MARKER + noise(10 * MEGABYTE))
    assert verdict == MARKED


def test_a_large_file_ends_with_nothing_left_over(scanner: Scanner) -> None:
    verdict = scan(scanner, noise(30 * MEGABYTE))
    assert verdict == Unscanned(Why.TOO_LARGE, "the first 26214400 bytes are clean")
    usage = scanner.usage()
    assert (usage.open_files, usage.open_sessions, usage.held_bytes, usage.streamed_bytes) == (0, 0, 0, 0)


def test_a_known_file_is_not_scanned_again_until_the_database_changes(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with started_clamd(clamd), contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        assert scanner.health.database == "Mamori.Database.1"
        file = b"a new kind of virus"
        verdict = scan(scanner, file)
        assert verdict == Clean()
        verdict = scan(scanner, EICAR)
        assert verdict == VIRUS
        assert scanner.usage().known_files == 2
        scanner.begin(9)
        feed(scanner, 9, file)
        scanner.finish(9, time.monotonic())
        assert [scanned.verdict for scanned in scanner.take_results()] == [Clean()], "at once"

        scanner.begin(10)
        feed(scanner, 10, bytes(200_000))

        (clamd.folder / "database/new.ndb").write_text(f"Mamori.Test.New:0:0:{file.hex()}\n")
        clamd.write_database("Mamori.Database.2")
        assert b"RELOADING" in ask(clamd.socket, b"zRELOAD\0")
        probe = stream_frame(DATABASE_PROBE)
        check_until("clamd has the new database", lambda: b"Database.2" in ask(clamd.socket, probe), within_s=20)
        drive(scanner, lambda: scanner.health.database == "Mamori.Database.2", ahead_s=PROBE_EVERY_S + 1)
        assert scanner.usage().known_files == 0
        scanner.finish(10, time.monotonic())
        (verdict,) = await_verdicts(scanner).values()
        assert verdict == Clean()
        assert scanner.usage().known_files == 0, "who knows which database that was"
        verdict = scan(scanner, file)
        assert verdict == Infected("Mamori.Test.New")


def test_a_clamd_that_is_not_there_is_told_at_once_and_used_when_it_comes(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    started = time.monotonic()
    with contextlib.closing(Scanner(ScanSettings(clamd.socket), started)) as scanner:
        assert scanner.health.condition is Condition.DOWN
        scanner.begin(1)
        scanner.feed(1, noise(100_000), started)
        scanner.finish(1, started)
        away = Unscanned(Why.UNAVAILABLE, "clamd: No such file or directory")
        assert scanner.take_results() == [Scanned(1, away)], "without any event in between"
        with started_clamd(clamd):
            drive(scanner, lambda: scanner.health.condition is Condition.UP)
            verdict = scan(scanner, EICAR)
        assert verdict == VIRUS
        assert [(change.condition, change.reason) for change in scanner.take_changes()] == [
            (Condition.DOWN, "clamd: No such file or directory"),
            (Condition.UP, ""),
        ]


def test_a_clamd_that_is_killed_takes_its_files_along_and_no_others(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with contextlib.ExitStack() as stack:
        with started_clamd(clamd):
            scanner = stack.enter_context(contextlib.closing(open_scanner(ScanSettings(clamd.socket))))
            scanner.begin(1)
            feed(scanner, 1, noise(MEGABYTE))
        with started_clamd(clamd):
            feed(scanner, 1, noise(MEGABYTE))
            drive(scanner, lambda: scanner.usage().open_sessions == 0)
            scanner.finish(1, time.monotonic())
            (lost,) = await_verdicts(scanner).values()
            drive(scanner, lambda: scanner.health.condition is Condition.UP)
            verdict = scan(scanner, EICAR)
    assert isinstance(lost, Unscanned)
    assert lost.why in (Why.FAILED, Why.UNAVAILABLE)
    assert verdict == VIRUS


def test_a_clamd_that_hangs_is_found_out_soon_and_used_again_when_it_goes_on(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with started_clamd(clamd) as running, contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        started = time.monotonic()
        with hung(running):
            verdict = scan(scanner, b"hello")
            waited_s = time.monotonic() - started
            scanner.begin(2)
            scanner.finish(2, time.monotonic())
            scanner.begin(3)
            scanner.feed(3, b"x", time.monotonic())
            scanner.finish(3, time.monotonic())
            at_once = scanner.take_results()
        drive(scanner, lambda: scanner.health.condition is Condition.UP)
        after = scan(scanner, EICAR)
    unavailable = Unscanned(Why.UNAVAILABLE, "clamd does not answer")
    assert verdict == unavailable
    assert 3.5 < waited_s < patience_s(5), "less than the five seconds that packets are held"
    assert at_once == [Scanned(2, Clean()), Scanned(3, unavailable)]
    assert after == VIRUS


def test_a_clamd_that_does_not_accept_any_more_is_told_at_once(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path, MaxConnectionQueueLength="3")
    with started_clamd(clamd) as running, contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner, hung(running):
        now = time.monotonic()
        for file in range(1, 10):
            scanner.begin(file)
            scanner.feed(file, b"hello", now)
            scanner.finish(file, now)
        results = scanner.take_results()
    refused = Unscanned(Why.UNAVAILABLE, "clamd does not accept connections")
    assert sorted(results, key=lambda scanned: scanned.file) == [Scanned(file, refused) for file in range(1, 10)]


def test_a_clamd_that_takes_nothing_costs_bounded_memory(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with started_clamd(clamd) as running, contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner, hung(running):
        now, most = time.monotonic(), 0
        for file in range(10):
            scanner.begin(file)
            for _ in range(200):
                scanner.feed(file, bytes(65_000), now)
                most = max(most, scanner.usage().held_bytes)
            scanner.finish(file, now)
        results = scanner.take_results()
    assert {scanned.verdict for scanned in results} == {Unscanned(Why.OVERLOADED, "clamd takes files too slowly")}
    assert len(results) == 10
    assert most < 9 * 1024 * 1024
    assert scanner.usage().held_bytes == 0


def test_a_clamd_that_is_behind_gets_no_beginnings_before_the_file_is_given_up(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with started_clamd(clamd) as running, contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        with hung(running):
            now = time.monotonic()
            scanner.begin(1)
            scanner.feed(1, MARKER + bytes(1_000_000), now)
            before = scanner.usage().open_sessions
            for _ in range(5):
                scanner.feed(1, bytes(1_000_000), now)
            after = scanner.usage().open_sessions
        assert (before, after) == (4, 1)
        assert scanner.backlog_bytes(1) > 5_000_000
        scanner.finish(1, time.monotonic())
        assert await_verdicts(scanner) == {1: MARKED}
        assert scanner.backlog_bytes(1) == 0


def test_more_files_than_sessions_wait_their_turn(clamd: Clamd) -> None:
    settings = ScanSettings(clamd.socket, max_sessions=3)
    with contextlib.closing(open_scanner(settings)) as scanner:
        for file in range(100):
            scanner.begin(file)
            scanner.feed(file, b"%d" % file + (MARKER if file % 7 == 0 else b""), time.monotonic())
            scanner.finish(file, time.monotonic())
            assert scanner.usage().open_sessions <= 3
        verdicts = await_verdicts(scanner, 100)
    assert verdicts == {file: MARKED if file % 7 == 0 else Clean() for file in range(100)}


def test_a_file_that_is_cancelled_while_it_waits_is_not_sent(clamd: Clamd) -> None:
    with contextlib.closing(open_scanner(ScanSettings(clamd.socket, max_sessions=1))) as scanner:
        scanner.begin(1)
        feed(scanner, 1, bytes(100_000))
        scanner.begin(2)
        feed(scanner, 2, MARKER)
        scanner.finish(2, time.monotonic())
        scanner.cancel(2, time.monotonic())
        scanner.finish(1, time.monotonic())
        verdicts = await_verdicts(scanner)
        assert verdicts == {1: Clean()}
        usage = scanner.usage()
        assert (usage.open_files, usage.open_sessions) == (0, 0)


def test_a_clamd_with_a_smaller_limit_says_so_before_it_closes(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path, StreamMaxLength="1M")
    with started_clamd(clamd), contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        scanner.begin(1)
        feed(scanner, 1, noise(2 * MEGABYTE))
        check_until("clamd has closed", lambda: bytes_refused(scanner, 1), within_s=10)
        scanner.finish(1, time.monotonic())
        (verdict,) = await_verdicts(scanner).values()
        assert verdict == Unscanned(Why.TOO_LARGE, "INSTREAM size limit exceeded. ERROR")


def bytes_refused(scanner: Scanner, file: int) -> bool:
    """Send more without looking at what came back; whether the sessions are gone because of it."""
    scanner.feed(file, b"more", time.monotonic())
    return scanner.usage().open_sessions == 0


def test_files_that_are_cancelled_get_no_verdict_and_leave_nothing(scanner: Scanner) -> None:
    now = time.monotonic()
    for file in range(20):
        scanner.begin(file)
        scanner.feed(file, MARKER + bytes(100_000 if file % 2 else 100), now)
        if file % 3 == 0:
            scanner.finish(file, now)
        scanner.cancel(file, now)
    verdict = scan(scanner, b"afterwards", file=99)
    assert verdict == Clean()
    usage = scanner.usage()
    assert (usage.open_files, usage.open_sessions, usage.held_bytes, usage.streamed_bytes) == (0, 0, 0, 0)


def test_large_files_at_once_stay_within_clamds_memory(clamd: Clamd) -> None:
    settings = ScanSettings(clamd.socket, streamed_bytes=5 * MEGABYTE)
    with contextlib.closing(open_scanner(settings)) as scanner:
        for file in range(4):
            scanner.begin(file, 3 * MEGABYTE)
            feed(scanner, file, noise(3 * MEGABYTE, file))
        for file in range(4):
            scanner.finish(file, time.monotonic())
        verdicts = await_verdicts(scanner, 4)
    crowded = Unscanned(Why.OVERLOADED, "too many large files at once")
    assert Clean() in verdicts.values()
    assert crowded in verdicts.values()
    assert set(verdicts.values()) == {Clean(), crowded}


def test_a_listed_file_is_found_without_clamd(tmp_path: Path) -> None:
    bad = noise(200_000)
    compile_hashes([f"{hashlib.sha256(bad).hexdigest()}:{len(bad)}:Mamori.Listed"], tmp_path / "list", "test")
    now = time.monotonic()
    with contextlib.closing(Scanner(ScanSettings(None, tmp_path / "list"), now)) as scanner:
        for file, content in enumerate((bad, bad[1:], bad + b"x")):
            scanner.begin(file)
            scanner.feed(file, content, now)
            scanner.finish(file, now)
        absent = Unscanned(Why.UNAVAILABLE, "this box has too little memory for it")
        assert scanner.take_results() == [Scanned(0, Infected("Mamori.Listed")), Scanned(1, absent), Scanned(2, absent)]
        assert scanner.health.condition is Condition.ABSENT


def test_clamd_comes_up_with_bad_signatures_too_with_those_of_the_image(tmp_path: Path) -> None:
    for folder in ("data/feeds/bad", "usr/lib", "run/mamori/clamd"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/mamori").symlink_to(SHIPPED.parent)
    (tmp_path / "data/feeds/bad/daily.ndb").write_text("this is no signature\n")
    (tmp_path / "data/feeds/clamav").symlink_to("bad")
    clamd = prepare_clamd(tmp_path, DatabaseDirectory=str(tmp_path / "run/mamori/clamd/database"))
    script = SHIPPED.parent / "clamd-database"
    environment = {"MAMORI_ROOT": str(tmp_path), "SERVICE_RESULT": "exit-code"}
    run([script, "choose"], explain="choose", env=environment)
    with pytest.raises(ToolError), started_clamd(clamd):
        pass
    for verb in ("failed", "choose"):
        run([script, verb], explain=verb, env=environment)
    with started_clamd(clamd), contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        verdict = scan(scanner, EICAR)
        assert verdict == VIRUS
        assert scanner.health.database == "Mamori.Database.Fallback"
