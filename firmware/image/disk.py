"""The factory disk: partitions as files, put together by genimage, with a block map and compressed for flashing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from firmware.cache import Artifact, text_sha256
from firmware.image.boot import GRUB, SHIM, UKI
from firmware.image.root import IMAGE as ROOT_IMAGE
from firmware.image.root import Root, check_fits
from firmware.layout import MIB, Layout, Partition
from firmware.process import Argument
from firmware.recipe import Image
from firmware.workspace import Tools, Workspace
from mamori.formats import bootstate

DISK = "disk.img"
BLOCK_MAP = "disk.img.bmap"
BOOT_FAT = "boot.vfat"

FAT_SLACK_BYTES = 2 * MIB
"""FAT tables, root folder and rounding, on top of the one file of a boot slot."""

ZSTD_LEVEL = 3
"""Nearly all of a disk image is EROFS, compressed already, or holes: a higher level finds nothing more."""


def build_boot_fat(workspace: Workspace, tools: Tools, image: Image, uki: Artifact) -> Artifact:
    """The content of a boot slot: a FAT with the signed kernel image, no larger than it must be."""
    slot = image.layout["boot-a"]
    size_mib = -(-((uki / UKI).stat().st_size + FAT_SLACK_BYTES) // (4 * MIB)) * 4
    check_fits("the kernel image in its file system", size_mib * MIB, slot, image.board_name)
    inputs = {"uki": uki.digest, "tools": tools.digest, "slot": repr(slot), "epoch": str(image.source.epoch)}
    with workspace.console.step("boot slot") as step:

        def make(folder: Path) -> None:
            _make_fat(tools, folder / BOOT_FAT, size_mib * MIB, slot, {"/mamori.efi": uki / UKI}, image.source.epoch)

        return workspace.cache.step("boot-fat", inputs, make, code=(__file__,), on_hit=step.cached)


def build_disk(
    workspace: Workspace, tools: Tools, image: Image, loader: Artifact, boot: Artifact, root: Root, rendered: Mapping[str, str]
) -> Artifact:
    """The whole disk as a sparse file, and its block map."""
    layout, epoch = image.layout, image.source.epoch
    check_fits("the root file system with its verity tree", root.size_bytes, layout["root-a"], image.board_name)
    state = bootstate.encode(bootstate.BootState(bootstate.Slot.A))
    inputs = {
        "loader": loader.digest,
        "boot": boot.digest,
        "root": root.artifact.digest,
        "tools": tools.digest,
        "table": text_sha256(rendered["genimage.cfg"]),
        "bootstate": state.decode("ascii"),
        "epoch": str(epoch),
    }
    with workspace.console.step("disk image") as step:

        def make(folder: Path) -> None:
            parts = folder / "parts"
            parts.mkdir()
            _make_esp(tools, parts, layout, loader, epoch)
            _make_bootstate(tools, parts, layout, state, epoch)
            _make_data(tools, parts, layout["data"], epoch)
            (parts / "boot.img").symlink_to(boot / BOOT_FAT)
            (parts / "root.img").symlink_to(root.artifact / ROOT_IMAGE)
            (parts / "genimage.cfg").write_text(rendered["genimage.cfg"])
            step.note("partitions")
            _genimage(tools, parts, [boot.folder, root.artifact.folder])
            (parts / DISK).rename(folder / DISK)
            step.note("block map")
            bmaptool: list[Argument] = ["bmaptool", "create", "-o", folder / BLOCK_MAP, folder / DISK]
            tools.run(bmaptool, writes=[folder], explain="make the block map")
            shutil.rmtree(parts)

        return workspace.cache.step("disk", inputs, make, code=(__file__,), on_hit=step.cached)


def compress_disk(workspace: Workspace, tools: Tools, disk: Artifact) -> Artifact:
    """The disk image as it is handed out."""
    with workspace.console.step("compress") as step:

        def make(folder: Path) -> None:
            # The result of zstd's threads depends on their number; two are what the smallest build machine has.
            argv: list[Argument] = ["zstd", f"-{ZSTD_LEVEL}", "--threads=2", "--quiet", disk / DISK, "-o", folder / f"{DISK}.zst"]
            tools.run(argv, reads=[disk / DISK], writes=[folder], explain="compress the disk image")

        inputs = {"disk": disk.digest, "tools": tools.digest}
        artifact = workspace.cache.step("disk-zst", inputs, make, code=(__file__,), on_hit=step.cached)
        step.note(f"{(artifact / f'{DISK}.zst').stat().st_size / 1e6:.0f} MB")
    return artifact


def _make_esp(tools: Tools, parts: Path, layout: Layout, loader: Artifact, epoch: int) -> None:
    files = {f"/EFI/BOOT/{name}": loader / name for name in (SHIM, GRUB)}
    _make_fat(tools, parts / "esp.img", layout["esp"].size_bytes, layout["esp"], files, epoch)


def _make_bootstate(tools: Tools, parts: Path, layout: Layout, state: bytes, epoch: int) -> None:
    """Two copies in a FAT that never held another file, so each lies in one piece (docs/boot-state.md, clause 1.2)."""
    copy = parts / "bootstate.copy"
    copy.write_bytes(state)
    files = {f"/{name}": copy for name in bootstate.COPIES}
    _make_fat(tools, parts / "bootstate.img", layout["bootstate"].size_bytes, layout["bootstate"], files, epoch)


def _make_fat(tools: Tools, target: Path, size_bytes: int, partition: Partition, files: Mapping[str, Path], epoch: int) -> None:
    with target.open("wb") as file:
        file.truncate(size_bytes)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "/"})
    lines = ['mkfs.vfat --invariant -i "$SERIAL" -n "$LABEL" "$IMAGE" > /dev/null']
    lines += [f'mmd -i "$IMAGE" "::{folder}"' for folder in folders]
    lines += [f'mcopy -i "$IMAGE" "$FILE{number}" "::{name}"' for number, name in enumerate(files)]
    environment = {"SERIAL": partition.fat_serial, "LABEL": partition.fat_label, "IMAGE": str(target)}
    environment |= {"SOURCE_DATE_EPOCH": str(epoch)} | {f"FILE{number}": str(path) for number, path in enumerate(files.values())}
    shell = ["sh", "-euc", "\n".join(lines)]
    tools.run(shell, reads=list(files.values()), writes=[target.parent], env=environment, explain=f"make {partition.name}")


def _make_data(tools: Tools, parts: Path, data: Partition, epoch: int) -> None:
    """An empty ext4. Its journal is what makes a power cut harmless, so it is on; nothing in it depends on the day."""
    empty = parts / "data.tree"
    empty.mkdir()
    empty.chmod(0o755)
    target = parts / "data.img"
    options = f"hash_seed={data.filesystem_uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    argv = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "1", "-L", data.name, "-U", data.filesystem_uuid, "-E", options]
    argv += ["-d", str(empty), str(target), f"{data.size_mib}M"]
    tools.run(argv, writes=[parts], env={"SOURCE_DATE_EPOCH": str(epoch)}, explain="make the data file system")
    empty.rmdir()


def _genimage(tools: Tools, parts: Path, sources: list[Path]) -> None:
    (parts / "empty").mkdir()
    argv = ["genimage", f"--config={parts / 'genimage.cfg'}", f"--rootpath={parts / 'empty'}", f"--tmppath={parts / 'tmp'}"]
    argv += [f"--inputpath={parts}", f"--outputpath={parts}"]
    tools.run(argv, reads=sources, writes=[parts], explain="put the disk image together")
