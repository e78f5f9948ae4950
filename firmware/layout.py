"""The disk: which partitions there are, where they lie, and what they are called everywhere.

Each partition's UUID is derived from the board's and the partition's name, so no file states one by hand.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from mamori.formats.problems import Problem
from mamori.formats.strict import Between

NAMESPACE = uuid.UUID("6d0d8a3f-5f0e-4b0c-9d5b-6b2d0a7c51e4")
"""Root of every identifier that Mamori derives (RFC 9562, version 5)."""

MIB = 1024 * 1024

ALIGNMENT_MIB = 4
"""Erase blocks of eMMC and SSDs are at most this large; a partition never shares one with its neighbour."""

GPT_MIB = 1
"""Room that the primary and the backup partition table take at either end of the disk, rounded up."""

SLOTS = ("a", "b")

# Type GUIDs: UEFI specification table 5-7, and the UAPI group's Discoverable Partitions Specification. Only the ESP has
# a discoverable type: nothing on this disk is ever found or mounted by guessing.
_ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def _own_type(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"type/{name}"))


PARTITION_TYPES: Mapping[str, str] = {
    "esp": _ESP_TYPE,
    "bootstate": _own_type("bootstate"),
    "boot-a": _own_type("boot"),
    "root-a": _own_type("root"),
    "boot-b": _own_type("boot"),
    "root-b": _own_type("root"),
    "data": _LINUX_TYPE,
}
"""Every partition, in the order of its number on the disk, with its type."""


@dataclass(frozen=True)
class PartitionSpec:
    """What a board says of a partition."""

    start_mib: Annotated[int, Between(GPT_MIB, 1 << 21)]
    size_mib: Annotated[int, Between(1, 1 << 21)]


@dataclass(frozen=True)
class Partition:
    """A partition as the rest of the house sees it."""

    name: str
    number: int
    type_uuid: str
    uuid: str
    start_mib: int
    size_mib: int

    @property
    def size_bytes(self) -> int:
        return self.size_mib * MIB

    @property
    def start_bytes(self) -> int:
        return self.start_mib * MIB

    @property
    def filesystem_uuid(self) -> str:
        return str(uuid.uuid5(uuid.UUID(self.uuid), "filesystem"))

    @property
    def fat_serial(self) -> str:
        """Volume serial number of a FAT: the first 32 bits of the file system's UUID, as eight hex digits."""
        return self.filesystem_uuid[:8]

    @property
    def fat_label(self) -> str:
        """FAT labels are upper case and at most 11 characters long."""
        return self.name.upper()[:11]


@dataclass(frozen=True)
class Layout:
    """The partition table of one board."""

    disk_uuid: str
    disk_size_mib: int
    partitions: tuple[Partition, ...]

    def __getitem__(self, name: str) -> Partition:
        for partition in self.partitions:
            if partition.name == name:
                return partition
        raise KeyError(name)  # which a template reports with its own name


def plan_layout(
    board: str, disk_size_mib: int, specs: Mapping[str, PartitionSpec], file: str, problems: list[Problem]
) -> Layout | None:
    """The layout of `board`, or None with every reason added to `problems`."""
    found = _check_names(specs, file) or _check_places(disk_size_mib, specs, file)
    problems.extend(found)
    if found:
        return None
    base = uuid.uuid5(NAMESPACE, f"board/{board}")
    partitions = tuple(
        Partition(name, number, kind, str(uuid.uuid5(base, name)), specs[name].start_mib, specs[name].size_mib)
        for number, (name, kind) in enumerate(PARTITION_TYPES.items(), start=1)
    )
    return Layout(str(base), disk_size_mib, partitions)


def _check_names(specs: Mapping[str, PartitionSpec], file: str) -> list[Problem]:
    missing = [
        Problem(file, f"disk.partitions.{n}", "a table with start_mib and size_mib", "nothing")
        for n in PARTITION_TYPES
        if n not in specs
    ]
    unknown = [
        Problem(file, f"disk.partitions.{n}", f"one of {', '.join(PARTITION_TYPES)}", "an unknown partition")
        for n in specs
        if n not in PARTITION_TYPES
    ]
    return missing + unknown


def _check_places(disk_size_mib: int, specs: Mapping[str, PartitionSpec], file: str) -> list[Problem]:
    problems = []
    placed = sorted(specs.items(), key=lambda item: item[1].start_mib)
    end_mib, before = GPT_MIB, "the partition table"
    for name, spec in placed:
        key = f"disk.partitions.{name}.start_mib"
        if spec.start_mib % ALIGNMENT_MIB:
            problems.append(Problem(file, key, f"a multiple of {ALIGNMENT_MIB} (erase blocks)", str(spec.start_mib)))
        if spec.start_mib < end_mib:
            problems.append(
                Problem(file, key, f"at least {end_mib}, where {before} ends", str(spec.start_mib), f"{name} overlaps {before}")
            )
        if spec.start_mib + spec.size_mib > end_mib:
            end_mib, before = spec.start_mib + spec.size_mib, name
    if placed and placed[-1][0] != "data":
        problems.append(Problem(file, "disk.partitions.data", "the last partition, because it grows", f"{placed[-1][0]} after it"))
    if end_mib > disk_size_mib - GPT_MIB:
        problems.append(Problem(file, "disk.size_mib", f"at least {end_mib + GPT_MIB} for these partitions", str(disk_size_mib)))
    for pair in ("boot", "root"):
        sizes = [specs[f"{pair}-{slot}"].size_mib for slot in SLOTS]
        if sizes[0] != sizes[1]:
            problems.append(
                Problem(
                    file,
                    f"disk.partitions.{pair}-b.size_mib",
                    f"{sizes[0]}, the size of {pair}-a",
                    str(sizes[1]),
                    "a bundle fits either slot",
                )
            )
    return problems
