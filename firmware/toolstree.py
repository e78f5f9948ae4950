"""The tools tree: every build tool newer than, or absent from, the host's distribution, in one Debian 13 folder.

The host brings Python, apt and bubblewrap; all that decides about a byte of the image comes from here, so a build on
Debian 12 and one on Debian 13 are the same build.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from firmware import mmdebstrap
from firmware.bases import Package
from firmware.lock import Lock
from firmware.process import run
from firmware.workspace import Tools, Workspace

TREE_NAME = "tools"

PACKAGES = (
    "bmap-tools",  # block maps
    "busybox-static",  # the initramfs' shell
    "cpio",  # the initramfs
    "cryptsetup-bin",  # veritysetup
    "dmsetup",  # the initramfs opens the root with it
    "dosfstools",  # FAT of ESP, boot state and boot slots
    "e2fsprogs",  # the data file system
    "erofs-utils",  # the root file system
    "fdisk",  # sfdisk reads the disk image's partition table back
    "genimage",  # the disk image
    "grub-efi-amd64-bin",  # boot loader
    "grub-common",
    "kmod",  # module dependencies
    "libengine-pkcs11-openssl",  # keys in an HSM, for tools that speak OpenSSL's engines
    "mtools",  # files into FATs without mounting
    "opensc",  # looks into an HSM
    "osslsigncode",  # Secure Boot signatures
    "openssl",  # CMS
    "pkcs11-provider",  # keys in an HSM, for tools that speak OpenSSL's providers
    "python3",
    "rauc",  # bundles
    "sbsigntool",  # checks them
    "shim-unsigned",  # first stage boot loader
    "softhsm2",  # an HSM for tests
    "squashfs-tools",  # rauc needs it
    "systemd",  # systemd-sysusers, systemd-analyze
    "systemd-boot-efi",  # the UKI's stub
    "systemd-repart",
    "systemd-ukify",
    "zstd",
)

_PACKAGES_FILE = "packages.json"
_TAR = "tools.tar"


def prepare_tools(workspace: Workspace, lock: Lock) -> Tools:
    """The tools tree, made if it is not there: half a minute, once."""
    pins = lock.pins(TREE_NAME)
    with workspace.console.step("tools tree") as step:

        def make(folder: Path) -> None:
            work = folder / "work"
            work.mkdir()
            tree = mmdebstrap.Tree(packages=PACKAGES, pins=pins)
            packages = mmdebstrap.make_tree(tree, folder / _TAR, epoch=lock.epoch, work=work, on_line=step.line)
            (folder / _PACKAGES_FILE).write_text(json.dumps([asdict(package) for package in packages], indent=1))
            shutil.rmtree(work)

        inputs = {"packages": " ".join(PACKAGES), "pins": pins, "epoch": str(lock.epoch)}
        artifact = workspace.cache.step("tools", inputs, make, code=(__file__, mmdebstrap.__file__), on_hit=step.cached)
        tree = workspace.out / "tools" / artifact.key
        if not tree.is_dir():
            _unpack(artifact.folder / _TAR, tree)
    return Tools(tree, artifact)


def tools_packages(tools: Tools) -> tuple[Package, ...]:
    """What is in the tree."""
    loaded = json.loads((tools.artifact / _PACKAGES_FILE).read_text())
    return tuple(Package(**{**entry, "licences": tuple(entry["licences"])}) for entry in loaded)


def _unpack(tar: Path, tree: Path) -> None:
    """Unpack beside, then rename; older trees go, they can be made again from the cache."""
    fresh = tree.with_name(f".{tree.name}.{os.getpid()}")
    shutil.rmtree(tree.parent, ignore_errors=True)
    fresh.mkdir(parents=True)
    # Device nodes need root and bubblewrap brings its own.
    run(["tar", "-xf", tar, "-C", fresh, "--no-same-owner", "--exclude=./dev/*"], explain="unpack the tools tree")
    fresh.rename(tree)
