"""Which modules the initramfs loads, and in which order."""

from __future__ import annotations

import pytest

from firmware.image.initramfs import module_name, parse_module_index
from mamori.formats.problems import MamoriError

DEP = """\
kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz
kernel/net/llc/llc.ko.xz:
kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-mod.ko.xz:
"""
BUILT_IN = "kernel/crypto/sha256_generic.ko\nkernel/fs/erofs/erofs.ko\n"

INDEX = parse_module_index(DEP, BUILT_IN)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("kernel/net/bridge/bridge.ko", "bridge"),
        ("kernel/drivers/md/dm-mod.ko.xz", "dm_mod"),
        ("drivers/net/8139too.ko.zst", "8139too"),
    ],
)
def test_a_module_is_known_by_the_name_that_the_kernel_uses(path: str, name: str) -> None:
    assert module_name(path) == name


def test_what_a_module_needs_comes_before_it() -> None:
    assert INDEX.load_order(["bridge"]) == ("llc", "stp", "bridge")
    assert INDEX.load_order(["dm_verity", "bridge"]) == ("dm_mod", "dm_bufio", "dm_verity", "llc", "stp", "bridge")


def test_a_module_is_loaded_once() -> None:
    assert INDEX.load_order(["stp", "bridge", "stp"]) == ("llc", "stp", "bridge")


def test_what_the_kernel_has_built_in_is_left_out() -> None:
    assert INDEX.load_order(["erofs"], optional=["sha256_generic"]) == ()


def test_an_optional_module_comes_first_or_not_at_all() -> None:
    assert INDEX.load_order(["dm_mod"], optional=["llc", "sha256_ssse3"]) == ("llc", "dm_mod")


def test_a_wanted_module_that_is_nowhere_is_named() -> None:
    with pytest.raises(MamoriError, match=r"the kernel has no module igb\n    hint: check board.toml"):
        INDEX.load_order(["igb"])
