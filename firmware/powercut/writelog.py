"""The log of a disk's writes, as QEMU's block driver `blklogwrites` keeps it.

The format is that of Linux' device mapper target log-writes (kernel documentation, admin-guide/device-mapper/log-writes;
drivers/md/dm-log-writes.c): a superblock, then entries, each a header in a sector of its own with the data behind it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mamori.formats.problems import MamoriError

MAGIC, VERSION = 0x6A736677736872, 1

MIN_SECTOR_BYTES, MAX_SECTOR_BYTES = 512, 1 << 20
"""QEMU takes powers of two up to half of a 4-byte number; no disk has sectors of more than a few KiB."""

MAX_DISK_BYTES = 1 << 44
"""16 TiB: what a header says beyond that is not about a disk of ours, and no later sum can become absurd."""

_SUPERBLOCK = struct.Struct("<QQQI")
_HEADER = struct.Struct("<QQQQ")


class Flag(enum.IntFlag):
    """What an entry is, besides a write."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8


class WriteLogError(MamoriError):
    """Not a log of writes."""


class Buffer(Protocol):
    """Bytes, or a file in memory: a log is as large as all that was written."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...


@dataclass(frozen=True)
class Entry:
    """One request to the disk. `data_at` is where its data lies in the log; a discard has none and makes `size` bytes zero."""

    offset: int
    size: int
    flags: Flag
    data_at: int

    def data(self, log: Buffer) -> bytes:
        """What was written."""
        return bytes(self.size) if self.flags & Flag.DISCARD else log[self.data_at : self.data_at + self.size]


def count_entries(log: Buffer) -> int:
    """How many entries the superblock promises. A QEMU that was killed may have promised one that it had not yet written."""
    return _read_superblock(log)[0]


def read_entries(log: Buffer) -> Iterator[Entry]:
    """Every request in its order; WriteLogError when the log is none.

    A header of zeros, or data that the file ends before, is where a killed QEMU stopped: the log ends there, as the disk's
    writes did.
    """
    count, sector_bytes = _read_superblock(log)
    at = sector_bytes
    for _ in range(count):
        header = log[at : at + _HEADER.size]
        if len(header) < _HEADER.size or not any(header):
            return
        sector, sectors, flags, data_bytes = _HEADER.unpack(header)
        at += sector_bytes
        offset, size = sector * sector_bytes, sectors * sector_bytes
        if offset + size > MAX_DISK_BYTES or flags >= 2 * Flag.MARK:
            raise WriteLogError(f"log of writes: byte {at - sector_bytes} holds no entry")
        if flags & Flag.MARK:  # a word of somebody's; nothing was written
            at += -(-data_bytes // sector_bytes) * sector_bytes
            continue
        entry = Entry(offset, size, Flag(flags), at)
        if not flags & Flag.DISCARD:
            at += size
        if at > len(log):
            return
        yield entry


def _read_superblock(log: Buffer) -> tuple[int, int]:
    """The number of entries, and the bytes of a sector."""
    content = log[: _SUPERBLOCK.size]
    if len(content) < _SUPERBLOCK.size:
        raise WriteLogError("log of writes: it ends before its superblock does")
    magic, version, count, sector_bytes = _SUPERBLOCK.unpack(content)
    if (magic, version) != (MAGIC, VERSION):
        raise WriteLogError("log of writes: no superblock of version 1")
    if not MIN_SECTOR_BYTES <= sector_bytes <= MAX_SECTOR_BYTES or sector_bytes & (sector_bytes - 1):
        raise WriteLogError(f"log of writes: sectors of {sector_bytes} bytes")
    return count, sector_bytes
