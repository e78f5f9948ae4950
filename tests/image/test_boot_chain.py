"""What the firmware starts: kernel image, initramfs, boot loader; and the bundle that replaces a slot."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from firmware.build import Built
from firmware.image.boot import GRUB, SHIM, UKI
from firmware.image.initramfs import APPLETS, IMAGE, MAX_BYTES, ModuleIndex
from firmware.image.root import BLOCK_BYTES
from firmware.layout import SLOTS
from firmware.verify.kernel_image import read_sections, section_texts
from mamori.formats.problems import MamoriError
from tests.conftest import ToolsTree

LIBRARIES = {
    *("ld-linux-x86-64.so.2", "libc.so.6", "libcap.so.2", "libdevmapper.so.1.02.1"),
    *("libm.so.6", "libpcre2-8.so.0", "libselinux.so.1", "libudev.so.1"),
}
"""dmsetup's, with the dynamic loader."""

GROUPS = {"ports", "watchdog", "storage"}


@pytest.fixture(scope="module")
def initramfs(built: Built, tools: ToolsTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initramfs")
    script = 'cd "$2" && zstd --decompress --stdout "$1" | cpio --quiet --extract --make-directories'
    tools.run(["sh", "-euc", script, "sh", built.initramfs / IMAGE, folder], reads=[built.initramfs / IMAGE], writes=[folder])
    return folder


def test_the_initramfs_is_small(built: Built) -> None:
    assert 1024 * 1024 < (built.initramfs / IMAGE).stat().st_size <= MAX_BYTES == 12 * 1024 * 1024


def test_the_initramfs_holds_what_init_needs_and_nothing_else(initramfs: Path) -> None:
    files = {path.relative_to(initramfs).as_posix() for path in initramfs.rglob("*") if path.is_file() or path.is_symlink()}
    modules = {name for name in files if name.startswith("modules/") and name.endswith(".ko")}
    expected = {"init", "lib", "bin/busybox", "bin/dmsetup", *(f"bin/{applet}" for applet in APPLETS)}
    expected |= {f"lib64/{library}" for library in LIBRARIES} | {f"modules/{group}" for group in GROUPS}
    assert files - modules == expected


def test_every_module_of_the_initramfs_is_loaded_by_a_group_and_after_what_it_needs(initramfs: Path) -> None:
    groups = {group: [line.split()[0] for line in (initramfs / "modules" / group).read_text().splitlines()] for group in GROUPS}
    assert {name for order in groups.values() for name in order} == {path.name for path in (initramfs / "modules").glob("*.ko")}
    assert {"virtio_net.ko", "bridge.ko"} <= set(groups["ports"])
    assert groups["ports"].index("stp.ko") < groups["ports"].index("bridge.ko")
    assert groups["watchdog"][-1] == "i6300esb.ko"
    assert groups["storage"].index("dm_mod.ko") < groups["storage"].index("dm_verity.ko")


def test_a_module_that_the_kernel_lacks_is_named() -> None:
    with pytest.raises(MamoriError, match="the kernel has no module warp_drive"):
        ModuleIndex({}, {}, frozenset()).load_order(["warp_drive"])


def test_the_kernel_image_starts_the_root_of_this_build_from_either_slot(built: Built) -> None:
    lines = section_texts((built.uki / UKI).read_bytes(), ".cmdline", "the kernel image")
    common = f"{built.rendered['cmdline'].strip()} {built.root.arguments}"
    assert lines == [common, *(f"{common} mamori.slot={slot}" for slot in SLOTS)]
    assert f"roothash={built.root.root_hash} " in common
    words = common.split()
    assert not [word for word in words if word.startswith(("init=", "rdinit=", "systemd.unit=", "systemd.debug", "rd.break"))]
    assert "lockdown=integrity" in words


def test_the_kernel_image_is_the_bases_kernel_and_our_initramfs(built: Built) -> None:
    sections = dict(read_sections((built.uki / UKI).read_bytes(), "the kernel image"))
    assert sections[".linux"][: built.base.kernel.stat().st_size] == built.base.kernel.read_bytes()
    assert sections[".initrd"] == (built.initramfs / IMAGE).read_bytes()
    assert sections[".uname"].decode().strip("\0") == built.base.kernel_release


@pytest.mark.parametrize(
    ("file", "components"), [(SHIM, ["shim"]), (GRUB, ["grub", "grub.mamori"]), (UKI, ["systemd-stub", "uki"])]
)
def test_every_stage_says_which_generation_it_is_so_that_it_can_be_revoked(built: Built, file: str, components: list[str]) -> None:
    path = built.uki / file if file == UKI else built.loader / file
    (sbat,) = section_texts(path.read_bytes(), ".sbat", file)
    generations = {line.split(",")[0]: int(line.split(",")[1]) for line in sbat.splitlines()}
    assert {"sbat", *components} <= generations.keys()
    assert min(generations.values()) >= 1


def test_the_bundle_has_an_index_of_the_blocks_of_its_root(built: Built, tools: ToolsTree, tmp_path: Path) -> None:
    """Hash by hash, in the order of the blocks: what RAUC compares with the slot to fetch nothing twice."""
    argv: list[str | Path] = ["unsquashfs", "-quiet", "-no-progress", "-dest", tmp_path / "content", built.bundle]
    tools.run(argv, reads=[built.bundle], writes=[tmp_path])
    root, index = tmp_path / "content" / "rootfs.img", (tmp_path / "content" / "rootfs.img.block-hash-index").read_bytes()
    blocks = root.stat().st_size // BLOCK_BYTES
    assert root.stat().st_size % BLOCK_BYTES == 0
    assert len(index) == blocks * 32
    with root.open("rb") as file:
        for number in (0, 1, blocks // 2, blocks - 1):
            file.seek(number * BLOCK_BYTES)
            assert hashlib.sha256(file.read(BLOCK_BYTES)).digest() == index[number * 32 : number * 32 + 32]


def test_the_bundle_is_in_the_verity_format(built: Built) -> None:
    """Its last eight bytes say how long the signature before them is, and the manifest inside names the tree."""
    with built.bundle.open("rb") as file:
        file.seek(-8, 2)
        (length,) = struct.unpack(">Q", file.read())
        file.seek(-8 - length, 2)
        signature = file.read(length)
    assert b"format=verity\n" in signature
    assert b"verity-hash=" in signature
    assert f"compatible={built.image.compatible}\n".encode() in signature
