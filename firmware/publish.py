"""The release folder: artefacts under their public names, records, checksums, and one signature over all of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from firmware.bases import BaseTree
from firmware.bases.debian_packages import Drift
from firmware.bundle import BUNDLE
from firmware.cache import Artifact
from firmware.image.disk import BLOCK_MAP, DISK
from firmware.recipe import Image
from firmware.records.inventory import make_inventory
from firmware.sign import Signer
from firmware.toolstree import tools_packages
from firmware.workspace import Workspace

LATEST = "latest"
"""A link beside the versions to the one that was built last."""

DISK_SUFFIX, BLOCK_MAP_SUFFIX, BUNDLE_SUFFIX = ".img.zst", ".img.bmap", ".raucb"


def public_name(image: Image, suffix: str) -> str:
    """`mamori-lab-2026.11.0.raucb`: what it is stays with a file that is copied around."""
    return f"mamori-{image.label}-{image.version}{suffix}"


def publish(
    workspace: Workspace,
    image: Image,
    signer: Signer,
    base: BaseTree,
    steps: Sequence[Artifact],
    drift: Mapping[str, Drift],
    started: float,
) -> Path:
    """The folder `out/LABEL/VERSION`, complete or not there at all; `started` is when the build began (time.monotonic)."""
    artifacts = {step.step: step for step in steps}
    inventory = make_inventory(workspace, image, signer, base, artifacts)
    inputs = {step.step: step.digest for step in (*steps, inventory)} | {"signer": signer.bundle_identity}
    inputs["drift"] = repr(sorted((section, str(found)) for section, found in drift.items()))
    with workspace.console.step("release folder") as step:

        def make(folder: Path) -> None:
            from firmware.records import build_record, checksums

            files = {
                public_name(image, DISK_SUFFIX): artifacts["disk-zst"] / f"{DISK}.zst",
                public_name(image, BLOCK_MAP_SUFFIX): artifacts["disk"] / BLOCK_MAP,
                public_name(image, BUNDLE_SUFFIX): artifacts["bundle"] / BUNDLE,
                **{name: inventory / name for name in inventory.files},
            }
            for name, path in files.items():
                os.link(path, folder / name)
            authorities = {f"bundle CA {number}": ca for number, ca in enumerate(signer.anchors.bundle, start=1)}
            certificates = {"secure boot": signer.anchors.db, **authorities}
            record = build_record.Build(
                image,
                (*steps, inventory),
                tools_packages(signer.tools),
                build_record.read_host(),
                time.monotonic() - started,
                certificates,
                drift,
            )
            (folder / build_record.BUILD_RECORD).write_text(build_record.render_build_record(record))
            listing = checksums.write_checksums(folder)
            signer.sign_file(listing, folder / checksums.SIGNATURE)

        artifact = workspace.cache.step("release", inputs, make, code=(__file__,), on_hit=step.cached)
        return _expose(artifact, workspace.out / image.label, image.version)


def _expose(artifact: Artifact, folder: Path, version: str) -> Path:
    """Give the artifact its place in `folder`. The link `latest` is moved last, so it never names half a release."""
    target = folder / version
    if not _is_same(artifact, target):
        fresh, old = folder / f".{version}.new", folder / f".{version}.old"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in artifact.files:
            os.link(artifact / name, fresh / name)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    link = folder / f".{LATEST}"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    link.replace(folder / LATEST)
    return target


def _is_same(artifact: Artifact, target: Path) -> bool:
    """Whether every file of `target` is the artifact's own (a link to the same inode), and no other is there."""
    if not target.is_dir() or {path.name for path in target.iterdir()} != set(artifact.files):
        return False
    return all((target / name).samefile(artifact / name) for name in artifact.files)
