"""The OTA bundle: one slot's boot and root images in RAUC's verity format, with the index that makes updates small."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from firmware.cache import Artifact, text_sha256
from firmware.image.disk import BOOT_FAT
from firmware.image.root import Root
from firmware.recipe import Image
from firmware.sign import Signer
from firmware.workspace import Workspace
from signing.commands import RaucVerb

BUNDLE = "bundle.raucb"

ROOT_IN_BUNDLE = "rootfs.img"
BOOT_IN_BUNDLE = "boot.vfat"

# What is inside is compressed already, or a hash; and a range of an uncompressed file is fetched without its neighbours.
SQUASHFS_OPTIONS = "-noI -noD -noF -noX -all-root -mkfs-time {epoch} -all-time {epoch}"


def build_bundle(
    workspace: Workspace, signer: Signer, image: Image, boot: Artifact, root: Root, rendered: Mapping[str, str]
) -> Artifact:
    """The signed bundle. Its payload depends on the inputs alone; the signature has a time and a random verity salt in it."""
    epoch = str(image.source.epoch)
    inputs = {
        "manifest": text_sha256(rendered["rauc/manifest.raucm"]),
        "boot": boot.digest,
        "root": root.artifact.digest,
        "tools": signer.tools.digest,
        "signer": signer.bundle_identity,
        "epoch": epoch,
    }
    with workspace.console.step("bundle") as step:

        def make(folder: Path) -> None:
            content = folder / "content"
            content.mkdir()
            (content / "manifest.raucm").write_text(rendered["rauc/manifest.raucm"])
            # Hard links: RAUC refuses symbolic ones, and half a gigabyte need not be copied.
            os.link(boot / BOOT_FAT, content / BOOT_IN_BUNDLE)
            os.link(root.image, content / ROOT_IN_BUNDLE)
            squashfs = SQUASHFS_OPTIONS.format(epoch=epoch)
            signer.rauc(RaucVerb.BUNDLE, content, folder / BUNDLE, [f"--mksquashfs-args={squashfs}"])
            shutil.rmtree(content)

        artifact = workspace.cache.step("bundle", inputs, make, code=(__file__,), on_hit=step.cached)
        step.note(f"{(artifact / BUNDLE).stat().st_size / 1e6:.0f} MB")
    return artifact
