"""The scanner and the real clamd with files whose senders pause."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from mamori.inspect.scan.scanner import Scanner, ScanSettings
from mamori.inspect.scan.verdicts import Infected
from tests.support.clamd import await_verdicts, drive, hung, open_scanner, prepare_clamd, started_clamd
from tests.support.eicar import MARKER, MARKER_NAME
from tests.support.packets import seeded

MARKED = Infected(MARKER_NAME)
NOISE = seeded(29).randbytes(1_000_000)


def test_what_came_before_a_pause_is_looked_at_again_and_again_and_the_whole_at_the_end(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    glances: list[int] = []
    with started_clamd(clamd), contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        for file in (1, 2):
            scanner.begin(file)
            for _ in range(3):
                scanner.feed(file, b"a clean line\n", time.monotonic())
                scanner.glance(file, time.monotonic())
                drive(scanner, lambda: glances.extend(scanner.take_glances()) or glances)
                assert (glances.pop(), glances, scanner.take_results()) == (file, [], [])
            assert scanner.usage().open_sessions == 0
        scanner.feed(1, MARKER, time.monotonic())
        scanner.glance(1, time.monotonic())
        found = await_verdicts(scanner)
        scanner.feed(2, NOISE, time.monotonic())
        scanner.glance(2, time.monotonic())  # it goes to clamd while it comes, which is word enough
        told = scanner.take_glances()
        scanner.feed(2, MARKER, time.monotonic())
        scanner.finish(2, time.monotonic())
        assert await_verdicts(scanner) == {2: MARKED}
    assert (found, told) == ({1: MARKED}, [1, 2])
    assert (scanner.usage().open_sessions, scanner.usage().held_bytes) == (0, 0)


def test_to_look_at_a_file_while_clamd_is_away_or_hangs_ends_with_the_word_on_clamd(tmp_path: Path) -> None:
    clamd = prepare_clamd(tmp_path)
    with started_clamd(clamd) as running, contextlib.closing(open_scanner(ScanSettings(clamd.socket))) as scanner:
        scanner.begin(1)
        scanner.feed(1, b"hello", time.monotonic())
        with hung(running):
            scanner.glance(1, time.monotonic())
            assert scanner.take_glances() == []
            scanner.cancel(1, time.monotonic())
            assert scanner.take_glances() == [1]
    with contextlib.closing(Scanner(ScanSettings(clamd.socket), time.monotonic())) as scanner:
        scanner.begin(1)
        scanner.feed(1, b"hello", time.monotonic())
        scanner.glance(1, time.monotonic())
        assert scanner.take_glances() == [1]
