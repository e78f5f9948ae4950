"""A disk of a few MiB with the partitions that decide about a start, and logs of writes to it, made by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from firmware.layout import MIB, PARTITION_TYPES, Layout, Partition
from firmware.powercut.view import Firmware
from firmware.powercut.writelog import MAGIC, VERSION, Flag
from mamori.formats import bootstate
from mamori.formats.bootstate import BootState, Slot

LAYOUT = Layout(
    "disk",
    1 + len(PARTITION_TYPES),
    tuple(Partition(name, number, kind, name, number, 1) for number, (name, kind) in enumerate(PARTITION_TYPES.items(), start=1)),
)
"""Each partition has one MiB, and lies where its number says."""

COPY_OFFSETS = (64 * 512, 70 * 512)

OLD = Firmware("1.0.0", b"MZ old kernel " * 300, b"old root" * 8192)
NEW = Firmware("2.0.0", b"MZ new kernel " * 350, b"new root" * 8192)

SECTOR_BYTES = 512

Step = tuple[int, bytes] | None
"""A write, offset on the disk and data, or a flush."""


def make_fat(bits: int, size: int, content: bytes, name: bytes = b"MAMORI  EFI", first: int = 3) -> bytes:
    """A FAT with one file behind a volume label and a long name, its clusters one after the other from `first`; `size` must suit
    `bits`."""
    sectors, root_entries = size // SECTOR_BYTES, 0 if bits == 32 else 16
    reserved, table_sectors = (32 if bits == 32 else 1), -(-(sectors + 2) * bits // 8 // SECTOR_BYTES)
    image = bytearray(size)
    image[11:36] = struct.pack(
        "<HBHBHHBHHHII", SECTOR_BYTES, 1, reserved, 1, root_entries, 0, 0xF8, table_sectors, 1, 1, 0, sectors
    )
    if bits == 32:
        image[22:24] = bytes(2)
        image[36:40], image[44:48] = struct.pack("<I", table_sectors), struct.pack("<I", 2)
    count = -(-len(content) // SECTOR_BYTES)
    chain = {number: number + 1 for number in range(first, first + count - 1)} | {first + count - 1: (1 << bits) - 1}
    table = reserved * SECTOR_BYTES
    for number, following in (chain | ({2: 0x0FFFFFFF} if bits == 32 else {})).items():
        _put_entry(image, table, bits, number, following)
    folder = table + table_sectors * SECTOR_BYTES
    data = folder + (SECTOR_BYTES if root_entries else 0)
    entries = [b"LABEL      \x08", b"\x41m\0a\0m\0o\0r\0\x0f", name + b"\x20"]
    for place, entry in enumerate(entries):
        image[folder + place * 32 : folder + place * 32 + len(entry)] = entry
    place = folder + 2 * 32
    image[place + 20 : place + 32] = struct.pack("<H4xHI", first >> 16, first & 0xFFFF, len(content))
    at = data + (first - 2) * SECTOR_BYTES
    image[at : at + len(content)] = content
    return bytes(image)


def make_boot(release: Firmware) -> bytes:
    return make_fat(12, MIB, release.uki)


def make_disk(folder: Path, a: Firmware | None, b: Firmware | None, copies: Sequence[bytes | BootState]) -> Path:
    """A slot without a release is empty."""
    image = bytearray((1 + len(LAYOUT.partitions)) * MIB)
    for slot, release in (("a", a), ("b", b)):
        if release:
            _put(image, LAYOUT[f"boot-{slot}"].start_bytes, make_boot(release))
            _put(image, LAYOUT[f"root-{slot}"].start_bytes, release.root)
    for offset, copy in zip(COPY_OFFSETS, copies, strict=True):
        _put(image, LAYOUT["bootstate"].start_bytes + offset, copy if isinstance(copy, bytes) else bootstate.encode(copy))
    path = folder / "disk.img"
    path.write_bytes(image)
    return path


def write_at(partition: str, offset: int, data: bytes) -> Step:
    return LAYOUT[partition].start_bytes + offset, data


def write_copy(number: int, state: BootState) -> Step:
    """The first sector of a copy, as the updater writes it."""
    return write_at("bootstate", COPY_OFFSETS[number], bootstate.encode(state)[:SECTOR_BYTES])


def make_log(steps: Sequence[Step]) -> bytes:
    entries = [_entry(*step, Flag(0)) if step else _entry(0, b"", Flag.FLUSH) for step in steps]
    return _sector(struct.pack("<QQQI", MAGIC, VERSION, len(entries), SECTOR_BYTES)) + b"".join(entries)


def change(state: BootState) -> list[Step]:
    """Both copies, each flushed, when both held the same: the second one first."""
    return [write_copy(1, state), None, write_copy(0, state), None]


def _entry(offset: int, data: bytes, flags: Flag) -> bytes:
    header = struct.pack("<QQQQ", offset // SECTOR_BYTES, len(data) // SECTOR_BYTES, flags, 0)
    return _sector(header) + data


def _sector(content: bytes) -> bytes:
    return content.ljust(SECTOR_BYTES, b"\0")


def _put(image: bytearray, offset: int, data: bytes) -> None:
    image[offset : offset + len(data)] = data


def _put_entry(image: bytearray, table: int, bits: int, number: int, value: int) -> None:
    if bits == 12:
        at = table + number * 3 // 2
        (pair,) = struct.unpack_from("<H", image, at)
        pair = (pair & 0x000F | (value & 0xFFF) << 4) if number & 1 else (pair & 0xF000 | value & 0xFFF)
        struct.pack_into("<H", image, at, pair)
    else:
        struct.pack_into("<H" if bits == 16 else "<I", image, table + number * bits // 8, value & ((1 << bits) - 1))


SPOIL: list[Step] = [write_at("boot-b", 0, bytes(MIB)), None]
ROOT: list[Step] = [write_at("root-b", at, NEW.root[at : at + 8192]) for at in range(0, len(NEW.root), 8192)]
BOOT: list[Step] = [write_at("boot-b", 0, make_boot(NEW)), None]
CONFIRMED_A = BootState(Slot.A)
ARMED = BootState(Slot.A, Slot.B, 3, 2)
TRIED = BootState(Slot.A, Slot.B, 2, 2)
CONFIRMED_B = BootState(Slot.B, None, 0, 3)
STAGE = [*SPOIL, *ROOT, None, *BOOT]
CYCLE = [*STAGE, *change(ARMED), *change(TRIED), *change(CONFIRMED_B)]
"""A whole update of slot b, as docs/update.md has it."""
