"""One file of a FAT that may be torn: read as GRUB does, so that what it would find is found, and nothing else.

Names are those of 8.3, which is what our kernel image has; GRUB's reader is grub-core/fs/fat.c, the format Microsoft's
"FAT32 File System Specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mamori.formats.problems import MamoriError

_BPB = struct.Struct("<HBHBHHBHHHII")  # from byte 11: bytes per sector … number of large sectors
_ENTRY_BYTES = 32
_DIRECTORY, _LABEL = 0x10, 0x08
_MAX_FAT12, _MAX_FAT16 = 4085, 65525
"""Clusters: the specification's only way to tell the three kinds."""


class FatError(MamoriError):
    """No FAT, no such file, or a chain that does not hold it."""


@dataclass(frozen=True)
class _Fat:
    content: memoryview
    bits: int
    table_at: int
    root: tuple[int, int]
    """Where the root folder is, for FAT12 and FAT16: offset and bytes."""
    root_cluster: int
    data_at: int
    cluster_bytes: int
    clusters: int

    def chain(self, cluster: int) -> Iterator[int]:
        """The clusters of a file from its first; at most as many as there are, so a ring ends."""
        for _ in range(self.clusters):
            if not 2 <= cluster < self.clusters + 2:
                return
            yield cluster
            cluster = self._next(cluster)

    def cluster(self, number: int) -> memoryview:
        at = self.data_at + (number - 2) * self.cluster_bytes
        return self.content[at : at + self.cluster_bytes]

    def _next(self, cluster: int) -> int:
        if self.bits == 12:
            (pair,) = struct.unpack_from("<H", self.content, self.table_at + cluster * 3 // 2)
            return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
        if self.bits == 16:
            return int(struct.unpack_from("<H", self.content, self.table_at + cluster * 2)[0])
        return int(struct.unpack_from("<I", self.content, self.table_at + cluster * 4)[0] & 0x0FFFFFFF)


def read_file(content: memoryview, name: str) -> bytes:
    """The file `name` ("mamori.efi") of the root folder; FatError when there is none that can be read to its end."""
    try:
        fat = _open(content)
        first, size = _find(fat, _short(name))
        needed = -(-size // fat.cluster_bytes)
        clusters = [number for number, _ in zip(fat.chain(first), range(needed), strict=False)]
    except struct.error:
        raise FatError("FAT: a table lies behind the end of the partition") from None
    if len(clusters) < needed:
        raise FatError(f"FAT: {name} ends early")
    return b"".join(fat.cluster(number) for number in clusters)[:size]


def _open(content: memoryview) -> _Fat:
    sector, per_cluster, reserved, tables, root_entries, small, _, table16, _, _, _, large = _BPB.unpack_from(content, 11)
    table_sectors = table16 or struct.unpack_from("<I", content, 36)[0]
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or per_cluster & (per_cluster - 1) or not tables or not reserved:
        raise FatError("FAT: no boot sector")
    root_at = (reserved + tables * table_sectors) * sector
    root_bytes = -(-root_entries * _ENTRY_BYTES // sector) * sector
    data_at, size = root_at + root_bytes, (small or large) * sector
    clusters = (size - data_at) // (per_cluster * sector)
    if clusters <= 0 or size > len(content):
        raise FatError("FAT: larger than its partition, or without room")
    bits = 32 if not table16 else 12 if clusters < _MAX_FAT12 else 16
    root_cluster = struct.unpack_from("<I", content, 44)[0] if bits == 32 else 0
    return _Fat(content, bits, reserved * sector, (root_at, root_bytes), root_cluster, data_at, per_cluster * sector, clusters)


def _find(fat: _Fat, wanted: bytes) -> tuple[int, int]:
    """First cluster and size of the file with this name of 11 bytes."""
    at, length = fat.root
    pieces = map(fat.cluster, fat.chain(fat.root_cluster)) if fat.bits == 32 else iter([fat.content[at : at + length]])
    for piece in pieces:
        for place in range(0, len(piece) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
            entry = piece[place : place + _ENTRY_BYTES]
            if entry[0] == 0:
                raise FatError("FAT: no such file")
            if entry[:11] == wanted and not entry[11] & (_DIRECTORY | _LABEL):
                high, low, size = struct.unpack_from("<H4xHI", entry, 20)
                return (high << 16 | low if fat.bits == 32 else low), size
    raise FatError("FAT: no such file")


def _short(name: str) -> bytes:
    stem, _, extension = name.upper().partition(".")
    return stem.ljust(8).encode("ascii") + extension.ljust(3).encode("ascii")
