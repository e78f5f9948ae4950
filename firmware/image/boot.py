"""What the firmware starts: shim, GRUB and the unified kernel image, each signed with the Secure Boot db key."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from firmware.bases import BaseTree
from firmware.cache import Artifact, text_sha256
from firmware.image.initramfs import IMAGE as INITRAMFS
from firmware.image.root import Root
from firmware.layout import SLOTS
from firmware.sign import Signer
from firmware.workspace import Tools, Workspace

UKI = "mamori.efi"
UNSIGNED_UKI = "mamori.unsigned.efi"
SHIM = "BOOTX64.EFI"
GRUB = "grubx64.efi"
"""The name is shim's: it starts this file from its own folder."""

STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
SHIM_SOURCE = "usr/lib/shim/shimx64.efi"

GRUB_MODULES = (
    *("part_gpt", "fat"),  # where boot state and kernels are
    *("normal", "test", "regexp", "loadenv", "echo", "sleep", "true"),  # the script
    "chain",  # the kernel, through shim
)
"""All that our GRUB can do. Under lockdown it loads no further module; what is absent cannot be misused."""


def build_uki(
    workspace: Workspace, tools: Tools, signer: Signer, base: BaseTree, initramfs: Artifact, root: Root, rendered: Mapping[str, str]
) -> Artifact:
    """The signed unified kernel image: kernel, initramfs, and a command line with the root hash of `root`."""
    command_line = f"{rendered['cmdline'].strip()} {root.arguments}"
    os_release = rendered["rootfs/usr/lib/os-release"]
    inputs = {
        "base": base.artifact.digest,
        "initramfs": initramfs.digest,
        "tools": tools.digest,
        "command line": command_line,
        "os-release": text_sha256(os_release),
        "signer": signer.secure_boot_identity,
    }
    with workspace.console.step("kernel image") as step:

        def make(folder: Path) -> None:
            work = folder / "work"
            work.mkdir()
            (work / "os-release").write_text(os_release)
            profiles = _make_profiles(tools, work, command_line)
            ukify = ["ukify", "build", f"--linux={base.kernel}", f"--uname={base.kernel_release}", f"--stub=/{STUB}"]
            ukify += [f"--initrd={initramfs / INITRAMFS}", f"--cmdline={command_line}", f"--os-release=@{work / 'os-release'}"]
            ukify += ["--profile=ID=any", *(f"--join-profile={profile}" for profile in profiles)]
            ukify += [f"--output={folder / UNSIGNED_UKI}"]
            reads = [base.kernel, initramfs / INITRAMFS]
            tools.run(ukify, reads=reads, writes=[folder], on_line=step.line, explain="make the kernel image")
            shutil.rmtree(work)
            signer.sign_pe(folder / UNSIGNED_UKI, folder / UKI)

        artifact = workspace.cache.step("uki", inputs, make, code=(__file__,), on_hit=step.cached)
        step.note(f"{(artifact / UKI).stat().st_size / 1e6:.1f} MB")
    return artifact


def _make_profiles(tools: Tools, work: Path, command_line: str) -> list[Path]:
    """Profiles 1 and 2 of the kernel image, one a slot: its own command line. Profile 0, for a loader that does not
    choose, is the image itself."""
    profiles = []
    for slot in SLOTS:
        profiles.append(work / f"slot-{slot}.efi")
        ukify = ["ukify", "build", f"--profile=ID=slot-{slot}", f"--cmdline={command_line} mamori.slot={slot}"]
        ukify += [f"--output={profiles[-1]}"]
        tools.run(ukify, writes=[work], explain=f"make the kernel image's profile for slot {slot}")
    return profiles


def build_boot_loader(workspace: Workspace, tools: Tools, signer: Signer, rendered: Mapping[str, str]) -> Artifact:
    """shim and GRUB with its script inside; no kernel, so it changes almost never."""
    inputs = {
        "tools": tools.digest,
        "modules": " ".join(GRUB_MODULES),
        "grub.cfg": rendered["grub.cfg"],
        "sbat": rendered["grub-sbat.csv"],
        "signer": signer.secure_boot_identity,
    }
    with workspace.console.step("boot loader") as step:

        def make(folder: Path) -> None:
            work = folder / "work"
            work.mkdir()
            for name in ("grub.cfg", "grub-sbat.csv"):
                (work / name).write_text(rendered[name])
            # Standalone: script and modules are in a memory disk inside the signed file. Nothing on the ESP is configuration.
            modules = " ".join(GRUB_MODULES)
            mkimage = ["grub-mkstandalone", "--format=x86_64-efi", "--locales=", "--fonts=", "--themes="]
            mkimage += [f"--modules={modules}", f"--install-modules={modules}", f"--sbat={work / 'grub-sbat.csv'}"]
            mkimage += [f"--output={work / 'grub.efi'}", f"boot/grub/grub.cfg={work / 'grub.cfg'}"]
            tools.run(["grub-script-check", work / "grub.cfg"], reads=[work], explain="check the boot loader's script")
            tools.run(mkimage, writes=[work], env={"SOURCE_DATE_EPOCH": "0"}, on_line=step.line, explain="make the boot loader")
            shutil.copy(tools.tree / SHIM_SOURCE, work / "shim.efi")
            signer.sign_pe(work / "shim.efi", folder / SHIM)
            signer.sign_pe(work / "grub.efi", folder / GRUB)
            shutil.rmtree(work)

        return workspace.cache.step("boot-loader", inputs, make, code=(__file__,), on_hit=step.cached)
