"""The boot state on its partition: read, and written so that a power cut leaves the old state or the new one.

docs/boot-state.md section 6 is what this does; `§` is a clause of it. The partition is never mounted: the two blocks lie where the
factory put them, and are found by their signature.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from mamori.formats.bootstate import (
    BLOCK_BYTES,
    COPIES,
    DEFAULT_TRIES,
    FIRST_SEQUENCE,
    MAX_SEQUENCE,
    SECTOR_BYTES,
    BootState,
    BootStateError,
    Slot,
    choose,
    decode,
    encode,
    locate,
)
from mamori.formats.problems import MamoriError

MAX_PARTITION_BYTES = 16 << 20
"""Boards give it 4 MiB."""

LARGE_SECTOR_BYTES = 4096
"""What a disk with native 4 KiB sectors reads and writes at once; it writes these whole or not at all."""


class BootDiskError(MamoriError):
    """The state cannot be read or written; what is on the disk is the old state or, if that was said, the new one."""


class Change(Enum):
    """Why the system writes (§6.4)."""

    ARM = "arm"
    CONFIRM = "confirm"
    CLEAR = "clear"
    GIVE_UP = "give up"
    REPAIR = "repair"


def next_state(current: BootState | None, change: Change, slot: Slot) -> BootState:
    """The state after the change. `slot` is the one to arm or to confirm, and the one that runs for the others (§6.1).

    BootStateError for what makes no sense: to arm the confirmed slot, or to give up where nothing is on trial.
    """
    sequence = FIRST_SEQUENCE if current is None else current.sequence + 1
    if sequence > MAX_SEQUENCE:
        raise BootStateError(f"boot state: sequence {MAX_SEQUENCE} has no successor (§3.4)")
    confirmed = slot if current is None else current.confirmed
    match change:
        case Change.ARM:
            if current is None:  # the running slot is the confirmed one, and what is armed is the other one
                confirmed = slot.other
            return BootState(confirmed, slot, DEFAULT_TRIES, sequence)
        case Change.CONFIRM:
            return BootState(slot, None, 0, sequence)
        case Change.CLEAR:
            return BootState(confirmed, None, 0, sequence)
        case Change.GIVE_UP:
            if current is None or current.trial is None:
                raise BootStateError("boot state: nothing is on trial")
            return replace(current, tries=0, sequence=sequence)
        case Change.REPAIR:
            return BootState(confirmed, None, 0, sequence)


@dataclass(frozen=True)
class Found:
    """What is on the partition: the places of the blocks that bear the signature, with their content."""

    offsets: tuple[int, ...]
    blocks: tuple[bytes, ...]

    @property
    def state(self) -> BootState | None:
        """What counts (§4)."""
        return choose(self.blocks)

    @property
    def is_damaged(self) -> bool:
        """Fewer copies than the factory made, or one that is not valid: to be repaired (§6.4)."""
        return len(self.blocks) != len(COPIES) or any(not _is_valid(block) for block in self.blocks)


def write_order(blocks: Sequence[bytes]) -> tuple[int, ...]:
    """The copies in the order in which they are written: the one that counts last (§6.3)."""
    counting = choose(blocks)
    last = next((number for number, block in enumerate(blocks) if counting is not None and _is_state(block, counting)), 0)
    return tuple(sorted(range(len(blocks)), key=lambda number: number == last))


class BootDisk:
    """The partition, or a file with the same content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Found:
        """Past the cache: what a loader would find now. BootDiskError without any copy, or with more than there can be."""
        with self._opened(os.O_RDONLY) as (descriptor, sector):
            size = min(os.lseek(descriptor, 0, os.SEEK_END), MAX_PARTITION_BYTES)
            content = self._read_at(descriptor, 0, size - size % sector)
        offsets = locate(content)
        if not 1 <= len(offsets) <= len(COPIES):
            raise BootDiskError(f"{self._path}: {len(offsets)} boot state blocks, not {len(COPIES)} (docs/boot-state.md §6.2)")
        return Found(offsets, tuple(content[offset : offset + BLOCK_BYTES] for offset in offsets))

    def change(self, change: Change, slot: Slot) -> BootState:
        """Read, change, write both copies one after the other, each read back (§6.3). The new state, once it is on the disk."""
        found = self.read()
        state = next_state(found.state, change, slot)
        self.write(found, state)
        return state

    def write(self, found: Found, state: BootState) -> None:
        """BootDiskError if the disk does not take it, or gives back something else."""
        block = encode(state)
        with self._opened(os.O_RDWR | os.O_DSYNC) as (descriptor, sector):
            for number in write_order(found.blocks):
                offset = found.offsets[number]
                start, end = offset - offset % sector, -(-(offset + BLOCK_BYTES) // sector) * sector
                around = bytearray(self._read_at(descriptor, start, end - start))
                around[offset - start : offset - start + BLOCK_BYTES] = block
                self._write_changed(descriptor, start, bytes(around), sector)
                if self._read_at(descriptor, start, end - start) != around:
                    raise BootDiskError(f"{self._path}: copy {number + 1} was written and reads otherwise")

    def _write_changed(self, descriptor: int, start: int, content: bytes, sector: int) -> None:
        """Only sectors that differ: of a block that is the first one (§2.4), so that a write is whole or not at all."""
        before = self._read_at(descriptor, start, len(content))
        for at in range(0, len(content), sector):
            piece = content[at : at + sector]
            if piece == before[at : at + sector]:
                continue
            with mmap.mmap(-1, max(sector, mmap.PAGESIZE)) as buffer, memoryview(buffer) as view:
                buffer[:sector] = piece
                try:
                    written = os.pwritev(descriptor, [view[:sector]], start + at)
                except OSError as error:
                    raise BootDiskError(f"{self._path}: cannot be written: {error.strerror}") from None
            if written != sector:
                raise BootDiskError(f"{self._path}: {written} of {sector} bytes were written")

    def _read_at(self, descriptor: int, offset: int, size: int) -> bytes:
        if not size:
            return b""
        with mmap.mmap(-1, size) as buffer, memoryview(buffer) as view:
            try:
                done = os.preadv(descriptor, [view], offset)
            except OSError as error:
                raise BootDiskError(f"{self._path}: cannot be read: {error.strerror}") from None
            if done != size:
                raise BootDiskError(f"{self._path}: {done} of {size} bytes were read")
            return bytes(view)

    @contextmanager
    def _opened(self, flags: int) -> Iterator[tuple[int, int]]:
        """The partition, open for direct access, and the size of its sectors in bytes."""
        try:
            descriptor = os.open(self._path, flags | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            raise BootDiskError(f"{self._path}: cannot be opened: {error.strerror}") from None
        try:
            yield descriptor, _sector_bytes(descriptor, self._path)
        finally:
            os.close(descriptor)


def _sector_bytes(descriptor: int, path: Path) -> int:
    """The smallest piece that the disk takes, found by reading: open(2) says of O_DIRECT that alignment depends on the device."""
    for size in (SECTOR_BYTES, LARGE_SECTOR_BYTES):
        with mmap.mmap(-1, LARGE_SECTOR_BYTES) as buffer, memoryview(buffer) as view:
            try:
                os.preadv(descriptor, [view[:size]], size)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise BootDiskError(f"{path}: cannot be read: {error.strerror}") from None
            else:
                return size
    raise BootDiskError(f"{path}: has sectors of more than {LARGE_SECTOR_BYTES} bytes")


def _is_state(block: bytes, state: BootState) -> bool:
    try:
        return decode(block) == state
    except BootStateError:
        return False


def _is_valid(block: bytes) -> bool:
    try:
        decode(block)
    except BootStateError:
        return False
    return True
