"""What random power cuts are judged by: consoles, predictions and the end of an update, without a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firmware.bench_power_cut import KERNEL_RUNS, Tally, end_of, judge, moment_of
from firmware.powercut.cycle import READY, STARTING
from firmware.powercut.view import Start
from mamori.formats.bootstate import BootState, Slot

OLD, NEWER = "1.0.0", "2.0.0"
FROM_A = Start(Slot.A, OLD, BootState(Slot.A), frozenset())
NOTHING = replace(FROM_A, slot=None, version=None)


@pytest.mark.parametrize(
    ("console", "moment"),
    [
        ("", "firmware or loader"),
        (f"{STARTING}a\n", "kernel image"),
        (f"{STARTING}a\n{KERNEL_RUNS}Loaded", "system"),
        (f"{STARTING}a\n{KERNEL_RUNS}Loaded\n{READY}1.0.0", "ready"),
    ],
)
def test_the_moment_of_a_kill_is_read_from_the_console(console: str, moment: str) -> None:
    assert moment_of(console) == moment


JUDGED = [
    ("as the disk said", f"{STARTING}a\n", FROM_A, False, 0),
    ("killed before it could", "", FROM_A, False, 0),
    ("it had the time and did nothing", "", FROM_A, True, 1),
    ("the other slot", f"{STARTING}b\n", FROM_A, False, 1),
    ("something where nothing should", f"{STARTING}a\n", NOTHING, False, 1),
]


@pytest.mark.parametrize(("console", "predicted", "ran", "wrong"), [case[1:] for case in JUDGED], ids=[case[0] for case in JUDGED])
def test_a_start_is_judged_by_what_the_disk_said(console: str, predicted: Start, ran: bool, wrong: int) -> None:
    tally = Tally(seed=1)
    judge(console, predicted, tally, ran=ran)
    assert len(tally.wrong) == tally.figures()["bricks"] == wrong


ENDS = [
    ("not begun", BootState(Slot.A), OLD, None),
    ("armed", BootState(Slot.A, Slot.B, 3, 2), NEWER, None),
    ("given up, not yet cleared", BootState(Slot.A, Slot.B, 0, 3), OLD, None),
    ("confirmed", BootState(Slot.B, None, 0, 3), NEWER, "confirmed"),
    ("rolled back", BootState(Slot.A, None, 0, 3), OLD, "rolled back"),
    ("no state at all", None, OLD, None),
]


@pytest.mark.parametrize(("state", "version", "end"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_the_end_of_an_update_is_read_from_the_boot_state(state: BootState | None, version: str, end: str | None) -> None:
    assert end_of(Start(Slot.A, version, state, frozenset()), OLD) == end
