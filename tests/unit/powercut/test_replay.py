"""Each order of writes that docs/boot-state.md forbids is found as a fault, and the right one has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware.powercut.replay import advance, number_entries, replay
from firmware.powercut.view import Fault, View
from mamori.formats.bootstate import BootState, Slot
from mamori.formats.problems import MamoriError
from tests.support.small_disk import (
    ARMED,
    BOOT,
    CONFIRMED_A,
    CONFIRMED_B,
    CYCLE,
    LAYOUT,
    NEW,
    OLD,
    ROOT,
    SECTOR_BYTES,
    SPOIL,
    STAGE,
    TRIED,
    Step,
    change,
    make_boot,
    make_disk,
    make_log,
    write_at,
    write_copy,
)

OLDER = BootState(Slot.A, sequence=4)
COUNTING = BootState(Slot.B, sequence=5)


def view(folder: Path, *copies: bytes | BootState, b: bool = True) -> View:
    return View(make_disk(folder, OLD, OLD if b else None, copies or (CONFIRMED_A, CONFIRMED_A)), LAYOUT, [OLD, NEW])


def test_an_update_in_the_right_order_survives_every_cut(tmp_path: Path) -> None:
    report = replay(view(tmp_path), [make_log(CYCLE)])
    assert report.findings == []
    assert report.bricks == 0
    assert report.states == [CONFIRMED_A, ARMED, TRIED, CONFIRMED_B]
    assert report.starts.keys() == {("a", OLD.version), ("b", NEW.version)}
    assert report.cuts["flush"] == 1 + CYCLE.count(None)
    assert report.cuts["write"] == len(CYCLE) - CYCLE.count(None)
    assert report.cuts["garbage"] == 6 * 2
    assert report.cuts["torn"] > 0
    assert report.cuts["reordered"] > 0


def test_a_cycle_may_go_over_several_starts_of_the_machine(tmp_path: Path) -> None:
    logs = [make_log([*STAGE, *change(ARMED)]), make_log([*change(TRIED), *change(CONFIRMED_B)])]
    report = replay(view(tmp_path), logs)
    assert report.bricks == 0
    assert report.states == [CONFIRMED_A, ARMED, TRIED, CONFIRMED_B]


BROKEN: list[tuple[str, list[Step], Fault]] = [
    ("the root is written before the slot is marked bad", [*ROOT, None, *SPOIL, *BOOT], Fault.HALF_WRITTEN),
    ("the mark may still be in the cache when the root is written", [SPOIL[0], *ROOT, None, *BOOT], Fault.HALF_WRITTEN),
    (
        "only the first sector of a slot is spoiled, so with the new one the old kernel is back",
        [write_at("boot-b", 0, bytes(SECTOR_BYTES)), None, *ROOT, None, *BOOT],
        Fault.HALF_WRITTEN,
    ),
    (
        "the same, and the first sector is written last, but may reach the disk first",
        [write_at("boot-b", 0, bytes(SECTOR_BYTES)), None, *ROOT, None]
        + [write_at("boot-b", at, make_boot(NEW)[at : at + 2048]) for at in range(14336, -1, -2048)],
        Fault.HALF_WRITTEN,
    ),
    ("the kernel is written before the root", [*SPOIL, *BOOT, *ROOT, None], Fault.HALF_WRITTEN),
    ("the kernel may reach the disk before the root", [*SPOIL, *ROOT, *BOOT], Fault.HALF_WRITTEN),
    ("one block of the root is missing", [*SPOIL, *ROOT[:-1], None, *BOOT, *change(ARMED)], Fault.UNVERIFIED),
    ("the trial is armed before its root is written", [*change(ARMED), *ROOT, None, *BOOT], Fault.UNVERIFIED),
    (
        "the confirmed slot is written during a trial",
        [*STAGE, *change(ARMED), write_at("root-a", 0, NEW.root), None],
        Fault.NO_WAY_BACK,
    ),
    (
        "both slots are marked bad",
        [*SPOIL, write_at("boot-a", 0, bytes(SECTOR_BYTES)), None],
        Fault.NOTHING_STARTS,
    ),
    ("the boot state's FAT is written", [write_at("bootstate", 0, b"x" * SECTOR_BYTES), None], Fault.OTHER_SECTORS),
]


@pytest.mark.parametrize(("steps", "fault"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_wrong_order_is_found(tmp_path: Path, steps: list[Step], fault: Fault) -> None:
    report = replay(view(tmp_path), [make_log(steps)])
    assert fault in report.faults, report.findings


def test_writing_the_copy_that_counts_first_lets_an_older_state_come_back(tmp_path: Path) -> None:
    newest = BootState(Slot.B, sequence=6)
    right = [write_copy(0, newest), None, write_copy(1, newest), None]
    report = replay(view(tmp_path, OLDER, COUNTING), [make_log(right)])
    assert report.bricks == 0
    wrong = [write_copy(1, newest), None, write_copy(0, newest), None]
    report = replay(view(tmp_path, OLDER, COUNTING), [make_log(wrong)])
    assert report.faults.keys() == {Fault.THIRD_STATE}
    assert {finding.cut for finding in report.findings} == {"garbage"}


def test_a_state_that_vanishes_during_a_write_is_found(tmp_path: Path) -> None:
    spoiled = bytes(SECTOR_BYTES)
    copies = [write_at("bootstate", offset, spoiled) for offset in (64 * 512, 70 * 512)]
    report = replay(view(tmp_path), [make_log([copies[0], None, write_copy(1, ARMED), None])])
    assert report.faults[Fault.THIRD_STATE] > 0


def test_a_finding_names_the_entry_up_to_which_the_disk_can_be_made_again(tmp_path: Path) -> None:
    logs = [make_log(SPOIL), make_log([*change(ARMED), *BOOT, *ROOT])]
    report = replay(view(tmp_path), logs)
    (first, *_) = (finding for finding in report.findings if finding.cut == "write")
    assert [entry is None for _, _, entry in number_entries(logs)].index(True) == len(SPOIL)
    disk = view(tmp_path)
    advance(disk, logs, first.entry - 1)
    assert first.fault not in disk.start().faults
    again = view(tmp_path)
    advance(again, logs, first.entry)
    assert first.fault in again.start().faults


def test_people_read_how_many_cuts_were_tried_and_what_was_found(tmp_path: Path) -> None:
    good = list(replay(view(tmp_path), [make_log(CYCLE)]).lines())
    assert good[0].startswith("power cuts tried: ")
    assert good[-1] == "bricks found: 0"
    bad = list(replay(view(tmp_path), [make_log([*SPOIL, write_at("boot-a", 0, bytes(SECTOR_BYTES)), None])]).lines())
    assert "bricks found: 0" not in bad
    assert any(line.endswith(Fault.NOTHING_STARTS.value) for line in bad)


def test_a_slot_that_was_empty_at_the_factory_is_no_fault(tmp_path: Path) -> None:
    assert replay(view(tmp_path, b=False), [make_log(CYCLE)]).bricks == 0


def test_after_a_replay_the_disk_holds_all_that_was_written(tmp_path: Path) -> None:
    disk = view(tmp_path)
    replay(disk, [make_log(CYCLE)])
    disk.save(tmp_path / "after.img")
    again = View(make_disk(tmp_path, OLD, NEW, (CONFIRMED_B, CONFIRMED_B)), LAYOUT, [OLD, NEW])
    again.save(tmp_path / "expected.img")
    assert (tmp_path / "after.img").read_bytes() == (tmp_path / "expected.img").read_bytes()


def test_a_write_behind_the_end_of_the_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match="a disk of 8388608 bytes"):
        replay(view(tmp_path), [make_log([(8 << 20, bytes(512))])])
