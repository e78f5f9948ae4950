"""Disks that something happened to: flipped bits, another boot state; and what is on one, by partition."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from firmware.layout import Layout
from mamori.formats import bootstate
from mamori.formats.bootstate import BootState

_CHUNK_BYTES = 1 << 20


def read_partition(disk: Path, layout: Layout, name: str) -> bytes:
    with disk.open("rb") as file:
        file.seek(layout[name].start_bytes)
        return file.read(layout[name].size_bytes)


def hash_partitions(disk: Path, layout: Layout, names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each named partition."""
    hashes = {}
    with disk.open("rb") as file:
        for name in names:
            digest = hashlib.sha256()
            file.seek(layout[name].start_bytes)
            for _ in range(layout[name].size_bytes // _CHUNK_BYTES):
                digest.update(file.read(_CHUNK_BYTES))
            hashes[name] = digest.hexdigest()
    return hashes


def flip_bit(disk: Path, offset: int) -> None:
    """The lowest bit of the byte at `offset` becomes the other one."""
    with disk.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def kernel_offset(disk: Path, layout: Layout, slot: str, uki: bytes) -> int:
    """Where on the disk the middle of the kernel in the slot's unified kernel image is."""
    partition = layout[f"boot-{slot}"]
    start, size = _find_section(uki, b".linux")
    piece = uki[start + size // 2 :][:4096]
    found = read_partition(disk, layout, partition.name).find(piece)
    assert found >= 0, f"the kernel of slot {slot} is not on the disk"
    return partition.start_bytes + found


def write_state(disk: Path, layout: Layout, *copies: bytes | BootState) -> None:
    """Put the blocks, or states, where the copies are, in their order."""
    offsets = bootstate.locate(read_partition(disk, layout, "bootstate"))
    with disk.open("r+b") as file:
        for offset, copy in zip(offsets, copies, strict=True):
            file.seek(layout["bootstate"].start_bytes + offset)
            file.write(copy if isinstance(copy, bytes) else bootstate.encode(copy))


def read_states(disk: Path, layout: Layout) -> list[BootState]:
    """What the copies say, in their order; BootStateError for one that is damaged."""
    partition = read_partition(disk, layout, "bootstate")
    return [bootstate.decode(partition[offset : offset + bootstate.BLOCK_BYTES]) for offset in bootstate.locate(partition)]


def _find_section(image: bytes, wanted: bytes) -> tuple[int, int]:
    """Offset and size of a PE section in the file (PE format, sections 3 and 4)."""
    (header,) = struct.unpack_from("<I", image, 0x3C)
    sections, optional_bytes = struct.unpack_from("<H", image, header + 6)[0], struct.unpack_from("<H", image, header + 20)[0]
    for number in range(sections):
        name, _, _, size, start = struct.unpack_from("<8sIIII", image, header + 24 + optional_bytes + number * 40)
        if name.rstrip(b"\0") == wanted:
            return start, size
    raise AssertionError(f"the image has no section {wanted.decode()}")
