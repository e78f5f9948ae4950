"""The boot state on a disk: found, changed, and after a power cut at any sector the old state or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mamori.formats.bootstate import BLOCK_BYTES, DEFAULT_TRIES, SECTOR_BYTES, BootState, BootStateError, Slot, choose, encode
from mamori.update.bootdisk import BootDisk, BootDiskError, Change, next_state, write_order

PARTITION_BYTES = 256 * 1024
PLACES = (40 * SECTOR_BYTES, 44 * SECTOR_BYTES)
FACTORY = BootState(Slot.A)
ARMED = BootState(Slot.A, Slot.B, DEFAULT_TRIES, 7)

CHANGES = [
    (FACTORY, Change.ARM, Slot.B, BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2)),
    (ARMED, Change.CONFIRM, Slot.B, BootState(Slot.B, None, 0, 8)),
    (ARMED, Change.CLEAR, Slot.A, BootState(Slot.A, None, 0, 8)),
    (ARMED, Change.GIVE_UP, Slot.B, BootState(Slot.A, Slot.B, 0, 8)),
    (None, Change.REPAIR, Slot.B, BootState(Slot.B)),
    (None, Change.CONFIRM, Slot.B, BootState(Slot.B)),
    (None, Change.ARM, Slot.B, BootState(Slot.A, Slot.B, DEFAULT_TRIES)),
    (None, Change.CLEAR, Slot.B, BootState(Slot.B)),
]


@pytest.fixture
def partition(tmp_path: Path) -> Callable[..., Path]:
    """A file that is the partition, with these blocks at their places; None: no block."""

    def make(*blocks: bytes | None) -> Path:
        path = tmp_path / "bootstate"
        content = bytearray(os.urandom(PARTITION_BYTES))
        for place, block in zip(PLACES, blocks, strict=False):
            if block is not None:
                content[place : place + BLOCK_BYTES] = block
        path.write_bytes(content)
        return path

    return make


@pytest.mark.parametrize(("before", "change", "slot", "after"), CHANGES)
def test_what_a_change_makes_of_a_state(before: BootState | None, change: Change, slot: Slot, after: BootState) -> None:
    assert next_state(before, change, slot) == after


@pytest.mark.parametrize(
    ("before", "change", "slot"),
    [
        (FACTORY, Change.ARM, Slot.A),
        (FACTORY, Change.GIVE_UP, Slot.A),
        (None, Change.GIVE_UP, Slot.A),
        (BootState(Slot.A, sequence=999_999_999), Change.ARM, Slot.B),
    ],
    ids=["the confirmed slot", "no trial", "no state", "no number left"],
)
def test_what_makes_no_sense_is_refused(before: BootState | None, change: Change, slot: Slot) -> None:
    with pytest.raises(BootStateError):
        next_state(before, change, slot)


def test_both_copies_are_written_and_nothing_else(partition: Callable[..., Path]) -> None:
    path = partition(encode(FACTORY), encode(FACTORY))
    before = path.read_bytes()
    assert BootDisk(path).change(Change.ARM, Slot.B) == BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2)
    after = path.read_bytes()
    changed = {number for number in range(0, PARTITION_BYTES, SECTOR_BYTES) if before[number:][:512] != after[number:][:512]}
    assert changed == set(PLACES), "one sector of each copy (§2.4)"
    found = BootDisk(path).read()
    assert found.blocks[0] == found.blocks[1] == encode(BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2))
    assert not found.is_damaged


def test_the_copy_that_counts_is_written_last() -> None:
    old, new = encode(FACTORY), encode(BootState(Slot.A, sequence=5))
    assert write_order((old, new)) == (0, 1)
    assert write_order((new, old)) == (1, 0)
    assert write_order((old, old)) == (1, 0)
    assert write_order((b"#" * BLOCK_BYTES, new)) == (0, 1)
    assert write_order((new,)) == (0,)


def torn(old: bytes, new: bytes) -> list[bytes]:
    """What a write of one sector may leave: the old or the new sector; and on a disk that breaks that promise, garbage."""
    return [old, new, os.urandom(SECTOR_BYTES)]


@pytest.mark.parametrize(("before", "change", "slot", "after"), [row for row in CHANGES if row[0] is not None])
@pytest.mark.parametrize("unequal", [None, 0, 1], ids=["copies alike", "first behind", "second behind"])
def test_a_power_cut_at_any_sector_leaves_the_old_state_or_the_new_one(
    partition: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    before: BootState,
    change: Change,
    slot: Slot,
    after: BootState,
    unequal: int | None,
) -> None:
    """Every write that the code makes is recorded; then the disk is looked at with each of them the last one, whole, not at all, or
    garbage in its sector (§7.2)."""
    blocks = [encode(before), encode(before)]
    if unequal is not None:
        blocks[unequal] = encode(BootState(before.confirmed, sequence=max(before.sequence - 1, 0)))
    path = partition(*blocks)
    disk = bytearray(path.read_bytes())
    writes: list[tuple[int, bytes]] = []
    real = os.pwritev

    def pwritev(descriptor: int, buffers: list[Any], offset: int) -> int:
        writes.append((offset, bytes(buffers[0])))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    assert BootDisk(path).change(change, slot) == after
    assert [len(piece) for _, piece in writes] == [SECTOR_BYTES] * 2
    seen = set()
    for offset, piece in writes:
        for left in torn(bytes(disk[offset : offset + SECTOR_BYTES]), piece):
            cut = bytearray(disk)
            cut[offset : offset + SECTOR_BYTES] = left
            seen.add(choose([bytes(cut[place : place + BLOCK_BYTES]) for place in PLACES]))
        disk[offset : offset + SECTOR_BYTES] = piece
    assert seen == {before, after}


def test_a_copy_that_is_gone_is_told_and_the_other_is_written(partition: Callable[..., Path]) -> None:
    path = partition(None, encode(ARMED))
    found = BootDisk(path).read()
    assert (found.offsets, found.state, found.is_damaged) == (PLACES[1:], ARMED, True)
    assert BootDisk(path).change(Change.CONFIRM, Slot.B).confirmed is Slot.B
    assert BootDisk(path).read().state == BootState(Slot.B, None, 0, 8)


def test_a_copy_that_is_damaged_is_mended_by_the_next_write(partition: Callable[..., Path]) -> None:
    damaged = bytearray(encode(FACTORY))
    damaged[30:60] = b"x" * 30
    path = partition(bytes(damaged), encode(ARMED))
    assert BootDisk(path).read().is_damaged
    BootDisk(path).change(Change.CLEAR, Slot.A)
    found = BootDisk(path).read()
    assert not found.is_damaged
    assert found.blocks[0] == found.blocks[1]


def test_without_any_copy_nothing_is_written(partition: Callable[..., Path]) -> None:
    path = partition()
    before = path.read_bytes()
    with pytest.raises(BootDiskError, match="0 boot state blocks"):
        BootDisk(path).change(Change.ARM, Slot.B)
    assert path.read_bytes() == before


def test_a_partition_that_is_not_there_or_may_not_be_written_is_told(partition: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BootDiskError, match="No such file"):
        BootDisk(tmp_path / "nothing").read()
    with pytest.raises(BootDiskError, match="cannot be opened"):
        BootDisk(tmp_path).change(Change.CLEAR, Slot.A)


def test_a_disk_that_gives_back_something_else_is_told(partition: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = partition(encode(FACTORY), encode(FACTORY))
    monkeypatch.setattr(os, "pwritev", lambda _descriptor, buffers, _offset: len(buffers[0]))
    with pytest.raises(BootDiskError, match="reads otherwise"):
        BootDisk(path).change(Change.ARM, Slot.B)
