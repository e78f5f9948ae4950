"""The clock has a floor: the build time, and the latest time that was seen."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mamori.update.clockfloor import SAVE_EVERY_S, is_save_due, raise_clock, read_floor, save_time

BUILT = 1_795_000_000


@pytest.mark.parametrize(
    ("saved", "floor"),
    [
        (None, BUILT),
        (b"1795000500\n", 1_795_000_500),
        (b"1000\n", BUILT),
        (b"", BUILT),
        (b"-5\n", BUILT),
        (b"\xff\xff", BUILT),
        (b"9" * 40, BUILT),
        (b"soon", BUILT),
    ],
    ids=["nothing", "later", "earlier", "empty", "negative", "no text", "beyond all years", "no number"],
)
def test_the_floor_is_the_latest_time_that_makes_sense(tmp_path: Path, saved: bytes | None, floor: int) -> None:
    path = tmp_path / "clock"
    if saved is not None:
        path.write_bytes(saved)
    assert read_floor(BUILT, path) == floor


def test_a_clock_that_is_ahead_is_left() -> None:
    before = time.time()
    assert raise_clock(int(before) - 100) is False
    assert abs(time.time() - before) < 5


def test_time_is_saved_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "update/clock"
    assert is_save_due(path, BUILT)
    save_time(path, BUILT)
    assert read_floor(0, path) == BUILT
    assert not is_save_due(path, BUILT + SAVE_EVERY_S - 1)
    assert is_save_due(path, BUILT + SAVE_EVERY_S)
    assert not is_save_due(path, BUILT - 1000), "a clock that went back does not take the floor with it"
    path.write_bytes(os.urandom(8))
    assert is_save_due(path, BUILT)
