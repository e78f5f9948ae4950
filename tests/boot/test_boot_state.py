"""The boot loader on real disks: which slot it starts, and what it writes. Machines are killed as soon as it has spoken."""

from __future__ import annotations

from pathlib import Path

from firmware.build import Built
from firmware.image.boot import UKI
from mamori.formats import bootstate
from mamori.formats.bootstate import BootState, Slot
from tests.support.disk import flip_bit, kernel_offset, read_states, write_state
from tests.support.machine import LOADER_WITHIN_S, STARTING, start_box
from tests.support.wait import patience_s

KERNEL_RUNS = "EFI stub: "
"""The kernel image's first words: the loader is through, whatever comes now."""


def test_a_trial_slot_is_started_and_each_start_spends_exactly_one_try(built: Built) -> None:
    layout, trial = built.image.layout, BootState(Slot.A, Slot.B, tries=2, sequence=7)
    with start_box(built, edit=lambda disk: write_state(disk, layout, trial, BootState(Slot.A))) as (machine, media):
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        assert machine.console.count(f"{STARTING}b") == 1
        assert f"{STARTING}a" not in machine.console
        assert read_states(media.disk, layout) == [BootState(Slot.A, Slot.B, tries=1, sequence=7)] * 2


def test_a_trial_without_tries_is_over_and_the_confirmed_slot_starts_without_a_write(built: Built) -> None:
    layout, spent = built.image.layout, BootState(Slot.A, Slot.B, tries=0, sequence=7)
    with start_box(built, edit=lambda disk: write_state(disk, layout, spent, spent)) as (machine, media):
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        assert f"{STARTING}a" in machine.console
        assert f"{STARTING}b" not in machine.console
        assert read_states(media.disk, layout) == [spent, spent]


def test_a_confirmed_slot_b_is_what_starts(built: Built) -> None:
    layout, state = built.image.layout, BootState(Slot.B, sequence=3)
    with start_box(built, edit=lambda disk: write_state(disk, layout, BootState(Slot.A), state)) as (machine, _):
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        assert machine.console.count(STARTING) == machine.console.count(f"{STARTING}b") == 1


def test_without_a_readable_state_slot_a_starts(built: Built) -> None:
    layout, garbage = built.image.layout, bytes(bootstate.BLOCK_BYTES)
    with start_box(built, edit=lambda disk: write_state(disk, layout, garbage, garbage)) as (machine, _):
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        assert machine.console.count(STARTING) == machine.console.count(f"{STARTING}a") == 1


def test_a_trial_that_does_not_verify_spends_a_try_and_the_confirmed_slot_starts(built: Built) -> None:
    layout, trial = built.image.layout, BootState(Slot.A, Slot.B, tries=3, sequence=2)
    uki = (built.uki / UKI).read_bytes()

    def edit(disk: Path) -> None:
        flip_bit(disk, kernel_offset(disk, layout, "b", uki))
        write_state(disk, layout, trial, trial)

    with start_box(built, edit=edit) as (machine, media):
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        console = machine.console
        assert console.index(f"{STARTING}b") < console.index("mamori: slot b does not start") < console.index(f"{STARTING}a")
        assert read_states(media.disk, layout) == [BootState(Slot.A, Slot.B, tries=2, sequence=2)] * 2
