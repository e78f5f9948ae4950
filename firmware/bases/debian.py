"""The debian base: Debian 13 packages, for the lab and for anyone without a Buildroot tree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware import mmdebstrap
from firmware.bases import BaseTree, Package, PythonTarget
from firmware.cache import Artifact
from firmware.lock import Lock
from firmware.recipe import Image
from firmware.workspace import Workspace
from mamori.formats.release import Variant

COMMON_PACKAGES = (
    "ca-certificates",  # the update repository's web server
    "clamav-daemon",  # the virus scanner; finish.sh takes out what it brings for fetching signatures
    "dbus",  # RAUC's service
    "e2fsprogs",  # checks and grows `data`
    "ethtool",
    "fdisk",  # sfdisk, to look at a disk
    "iproute2",
    "iptables",  # NFQUEUE
    "kmod",
    "nftables",
    "python3",  # the app
    "python3-cryptography",  # the app reads QUIC Initial packets with it
    "python3-tuf",  # the updater: which release this box may have
    "rauc",
    "rauc-service",  # its unit, and its name on the bus
    "suricata",  # the signature engine
    "systemd",
    "systemd-repart",  # grows the partition `data`
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "tzdata",
    "udev",
)

LAB_PACKAGES = (
    "login",  # the serial console
    "openssh-server",
    "procps",
    "tcpdump",
)


def tree_name(image: Image) -> str:
    """The section of the lock for the base of `image`."""
    return f"base {image.name}"


@dataclass(frozen=True)
class DebianBase:
    """Implements `firmware.bases.Base` with mmdebstrap."""

    workspace: Workspace
    lock: Lock

    def missing(self, image: Image) -> Sequence[str]:
        """Nothing: what it needs of the host, `./inv` has installed (`firmware.host_tools`)."""
        del image
        return ()

    def build(self, image: Image, rendered: Path) -> BaseTree:
        """The tree of `image`; the package scripts are in `rendered/debian/`."""
        lab = LAB_PACKAGES if image.recipe.variant is Variant.LAB else ()
        packages = sorted({*COMMON_PACKAGES, *lab, *image.recipe.debian.packages})
        pins = self.lock.pins(tree_name(image))
        scripts = {name: (rendered / "debian" / f"{name}.sh") for name in ("prepare", "finish")}
        inputs = {
            "packages": " ".join(packages),
            "pins": pins,
            "epoch": str(self.lock.epoch),
            **{f"debian/{name}.sh": script.read_text() for name, script in scripts.items()},
        }
        with self.workspace.console.step("debian base") as step:

            def make(folder: Path) -> None:
                _make(packages, pins, scripts, self.lock.epoch, folder, step.line)

            code = (__file__, mmdebstrap.__file__)
            artifact = self.workspace.cache.step("debian-base", inputs, make, code=code, on_hit=step.cached)
        return _base_tree(artifact, tree_name(image))


def _make(
    packages: Sequence[str], pins: str, scripts: dict[str, Path], epoch: int, folder: Path, on_line: mmdebstrap.OnLine
) -> None:
    work = folder / "work"
    handed_out = {name: work / name for name in ("kernel", "licences")}
    for path in (work, *handed_out.values()):
        path.mkdir(mode=0o777)
    tree = mmdebstrap.Tree(
        packages=packages,
        pins=pins,
        prepare=scripts["prepare"],
        outputs=[(f"/mamori-out/{name}", path) for name, path in handed_out.items()],
        finish=scripts["finish"],
    )
    installed = mmdebstrap.make_tree(tree, folder / BaseTree.ROOTFS, epoch=epoch, work=work, on_line=on_line)
    kernel = handed_out["kernel"]
    (folder / BaseTree.PACKAGES).write_text(json.dumps([asdict(package) for package in installed], indent=1))
    for source, target in ((kernel / "vmlinuz", BaseTree.KERNEL), (kernel / "config", BaseTree.KERNEL_CONFIG)):
        shutil.move(source, folder / target)
    shutil.move(handed_out["licences"] / BaseTree.LICENCES, folder / BaseTree.LICENCES)
    facts = {name: (kernel / name).read_text().strip() for name in ("release", "python")}
    (folder / BaseTree.FACTS).write_text(json.dumps(facts))
    shutil.rmtree(work)


def _base_tree(artifact: Artifact, section: str) -> BaseTree:
    facts = json.loads((artifact / BaseTree.FACTS).read_text())
    entries = json.loads((artifact / BaseTree.PACKAGES).read_text())
    packages = tuple(Package(**{**entry, "licences": tuple(entry["licences"])}) for entry in entries)
    return BaseTree(artifact, facts["release"], PythonTarget(facts["python"], "usr/lib/python3/dist-packages"), packages, section)
