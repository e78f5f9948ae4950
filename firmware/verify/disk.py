"""The disk image, flashed into a file: partition table, file systems, boot chain, both slots, boot state."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from firmware.image.boot import GRUB, SHIM
from firmware.layout import MIB, Layout, Partition
from firmware.verify.case import Case, blamed_on
from firmware.verify.kernel_image import KernelImage, check_signature, read_kernel_image
from firmware.verify.root import check_root
from mamori.formats import bootstate
from mamori.formats.problems import MamoriError

KERNEL_FILE = "mamori.efi"

_MIB_SECTORS = MIB // 512


def flash(case: Case, compressed: Path, block_map: Path, target: Path) -> None:
    """Write the image to `target` as bmaptool writes it to a disk: only what the map names, each range against its checksum."""
    with blamed_on(f"{compressed.name}: cannot be flashed with {block_map.name}"):
        case.ask(["bmaptool", "--quiet", "copy", "--bmap", block_map, compressed, target], compressed, block_map)


def check_table(case: Case, disk: Path, what: str) -> str:
    """MamoriError unless the partition table is the layout of the image's board, with both of its copies sound."""
    with blamed_on(f"{what}: its partition table is damaged"):
        complaint = case.ask(["sfdisk", "--verify", disk], disk).stderr.strip()
        table = json.loads(case.ask(["sfdisk", "--json", disk], disk).stdout)["partitiontable"]
    if complaint:  # sfdisk is content with one good table of the two
        raise MamoriError(f"{what}: its partition table is damaged ({complaint.splitlines()[0]})")
    board, layout = f"board/{case.image.board_name}/board.toml", case.image.layout
    found = {entry["name"]: entry for entry in table["partitions"]}
    for name, expected in _expected(layout).items():
        entry = found.pop(name, {})
        if {key: str(entry.get(key)).lower() for key in expected} != expected:
            raise MamoriError(f"{what}: partition {name} is not where and what {board} says")
    whole = (table["label"], table["id"].lower(), disk.stat().st_size)
    if found or whole != ("gpt", layout.disk_uuid, layout.disk_size_mib * MIB):
        raise MamoriError(f"{what}: not the disk that {board} describes")
    return f"{len(layout.partitions)} partitions as {board} says"


def check_boot_loader(case: Case, disk: Path, what: str) -> str:
    """MamoriError unless the ESP holds shim and GRUB, both signed with db, and nothing else."""
    esp = case.image.layout["esp"]
    files = read_fat(case, disk, esp, what)
    check_names(files, {f"EFI/BOOT/{name}" for name in (SHIM, GRUB)}, f"{what}: partition {esp.name}")
    for name, file in files.items():
        check_signature(case, file, f"{what}: partition {esp.name}: {name}")
    return f"{SHIM} and {GRUB} signed, nothing else on the ESP"


def check_slot(case: Case, disk: Path, slot: str, what: str) -> KernelImage:
    """MamoriError unless a slot's kernel is signed and starts this very slot's root, which verifies to its last block."""
    boot, root = case.image.layout[f"boot-{slot}"], case.image.layout[f"root-{slot}"]
    kernel = check_kernel(case, read_fat(case, disk, boot, what), f"{what}: partition {boot.name}")
    copy = cut_out(disk, root, case.scratch / root.name)
    check_root(case, copy, kernel, f"{what}: partition {root.name}")
    copy.unlink()
    return kernel


def check_kernel(case: Case, files: Mapping[str, Path], where: str) -> KernelImage:
    """MamoriError unless `files` of a boot slot are one kernel image, which is signed and of this version."""
    check_names(files, {KERNEL_FILE}, where)
    check_signature(case, files[KERNEL_FILE], f"{where}: {KERNEL_FILE}")
    return read_kernel_image(files[KERNEL_FILE], case.image, f"{where}: {KERNEL_FILE}")


def check_boot_state(case: Case, disk: Path, what: str) -> str:
    """MamoriError unless both copies say that slot A is confirmed and nothing is on trial, and lie where they can be rewritten."""
    partition = case.image.layout["bootstate"]
    where = f"{what}: partition {partition.name}"
    files = read_fat(case, disk, partition, what)
    check_names(files, set(bootstate.COPIES), where)
    fresh = bootstate.BootState(bootstate.Slot.A)
    for name, file in files.items():
        try:
            state = bootstate.decode(file.read_bytes())
        except bootstate.BootStateError as error:
            raise MamoriError(f"{where}: {name}: {error}") from None
        if state != fresh:
            raise MamoriError(f"{where}: {name}: expected slot a confirmed and no trial, got {state}")
    content = cut_out(disk, partition, case.scratch / f"{partition.name}.img").read_bytes()
    if len(bootstate.locate(content)) != len(bootstate.COPIES):
        raise MamoriError(f"{where}: expected {len(bootstate.COPIES)} boot states in it, found others (docs/boot-state.md, 6.2)")
    return "both copies: slot a confirmed, no trial"


def check_data(case: Case, disk: Path, what: str) -> str:
    """MamoriError unless the data file system is whole."""
    data = case.image.layout["data"]
    copy = cut_out(disk, data, case.scratch / data.name)
    with blamed_on(f"{what}: partition {data.name}: its file system is damaged"):
        case.ask(["e2fsck", "-f", "-n", copy], copy)
    copy.unlink()
    return "ext4 without errors"


def check_names(files: Mapping[str, Path], expected: set[str], where: str) -> None:
    """MamoriError unless exactly the expected files are there."""
    for name in (*sorted(expected - files.keys()), *sorted(files.keys() - expected)):
        raise MamoriError(f"{where}: {name} {'is missing' if name in expected else 'does not belong there'}")


def read_fat(case: Case, disk: Path, partition: Partition | None, what: str) -> Mapping[str, Path]:
    """Every file of a FAT by its path, copied; `partition` says where on the disk it is, None that the whole file is one."""
    name, start = (partition.name, partition.start_bytes) if partition else (disk.name, 0)
    into = case.scratch / f"{name}.files"
    into.mkdir()
    with blamed_on(f"{what}: {name}: its FAT cannot be read"):
        case.ask(["mcopy", "-s", "-n", "-i", f"{disk}@@{start}", "::*", into], disk)
    return {path.relative_to(into).as_posix(): path for path in into.rglob("*") if path.is_file()}


def cut_out(disk: Path, partition: Partition, target: Path) -> Path:
    """A partition as a file of its own, with the disk's holes."""
    end = partition.start_bytes + partition.size_bytes
    with disk.open("rb") as source, target.open("wb") as copy:
        copy.truncate(partition.size_bytes)
        for start, stop in _data_ranges(source.fileno(), partition.start_bytes, end):
            for offset in range(start, stop, MIB):
                os.pwrite(copy.fileno(), os.pread(source.fileno(), min(MIB, stop - offset), offset), offset - partition.start_bytes)
    return target


def _data_ranges(descriptor: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    while offset < end:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        if start < end:
            yield start, min(offset, end)


def _expected(layout: Layout) -> dict[str, dict[str, str]]:
    """What sfdisk should say of each partition; it counts in sectors."""
    return {
        p.name: {
            "start": str(p.start_mib * _MIB_SECTORS),
            "size": str(p.size_mib * _MIB_SECTORS),
            "type": p.type_uuid,
            "uuid": p.uuid,
        }
        for p in layout.partitions
    }
