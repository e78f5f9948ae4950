"""The same commit, lock and keys give the same bytes, wherever the checkout lies and whatever the cache holds.

Outside the comparison, because they cannot be the same: RAUC's signature over a bundle, with the random salt of its
verity tree, and the detached signature of the checksums (both carry a time). The Secure Boot signatures are inside.
"""

from __future__ import annotations

import os
import shutil
import struct
from io import StringIO
from pathlib import Path

import pytest

from firmware.bench_build import copy_checkout
from firmware.build import Built, build_image
from firmware.cache import Artifact, content_digest
from firmware.console import Console
from firmware.image.root import BLOCK_BYTES
from firmware.workspace import Workspace

SIGNED = {"bundle", "release"}
"""Steps whose output has a signature in it that no two runs give alike."""

SHOWN_DIFFERENCES = 5


def quiet(root: Path) -> Workspace:
    return Workspace(Console(progress=StringIO()), root, root / "out")


@pytest.fixture(scope="module")
def elsewhere(built: Built, checkout: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same sources, built from nothing (tools tree included) in a folder with another, longer name, by other umask and hour."""
    folder = tmp_path_factory.mktemp("another folder") / "a checkout, cloned"
    copy_checkout(checkout.root, folder)
    shutil.copytree(checkout.root / "keys", folder / "keys")
    before = os.umask(0o077)
    try:
        return build_image(quiet(folder), "lab")
    finally:
        os.umask(before)


@pytest.mark.timeout(1800)
def test_every_step_gives_the_same_files_in_another_folder(built: Built, elsewhere: Built) -> None:
    assert elsewhere.image.version == built.image.version, "the checkout changed while it was built"
    differences = []
    for one, other in zip(steps_of(built), steps_of(elsewhere), strict=True):
        assert one.step == other.step
        if one.step not in SIGNED:
            names = [name for name in {**one.files, **other.files} if one.files.get(name) != other.files.get(name)]
            differences += [f"{one.step}: {name}" for name in names]
    assert differences == []  # the first one is where to look: what follows is made of it


@pytest.mark.timeout(1800)
def test_the_disk_image_has_the_same_bytes(built: Built, elsewhere: Built) -> None:
    different = [p.name for p in built.image.layout.partitions if not same(built.disk, elsewhere.disk, p.start_bytes, p.size_bytes)]
    assert different == []
    assert content_digest(built.disk) == content_digest(elsewhere.disk)


@pytest.mark.timeout(1800)
def test_the_bundle_has_the_same_payload(built: Built, elsewhere: Built) -> None:
    sizes = {payload_bytes(built.bundle), payload_bytes(elsewhere.bundle)}
    assert len(sizes) == 1
    assert same(built.bundle, elsewhere.bundle, 0, sizes.pop())


def steps_of(built: Built) -> list[Artifact]:
    return [
        built.tools.artifact,
        built.base.artifact,
        built.root.artifact,
        built.initramfs,
        built.uki,
        built.loader,
        built.disk_image,
    ]


def payload_bytes(bundle: Path) -> int:
    """The size of the squashfs at the start of a bundle, in whole blocks (superblock: `bytes_used` at byte 40)."""
    with bundle.open("rb") as file:
        superblock = file.read(96)
    assert superblock[:4] == b"hsqs"
    (used,) = struct.unpack_from("<Q", superblock, 40)
    return -(-int(used) // BLOCK_BYTES) * BLOCK_BYTES


def same(one: Path, other: Path, start: int, size: int) -> bool:
    chunk = 4 * 1024 * 1024
    with one.open("rb") as first, other.open("rb") as second:
        return all(
            os.pread(first.fileno(), min(chunk, start + size - offset), offset)
            == os.pread(second.fileno(), min(chunk, start + size - offset), offset)
            for offset in range(start, start + size, chunk)
        )


def keys_of(folder: Path) -> dict[str, set[str]]:
    """The artifacts in a cache: step to keys."""
    return {step.name: {path.name for path in step.iterdir()} for step in (folder / "out" / "cache").iterdir() if step.is_dir()}


@pytest.mark.timeout(1800)
def test_nothing_is_made_again_when_nothing_changed(elsewhere: Built) -> None:
    folder = elsewhere.tools.tree.parents[2]
    before = keys_of(folder)
    progress = StringIO()
    again = build_image(Workspace(Console(progress=progress), folder, folder / "out"), "lab")
    assert keys_of(folder) == before
    assert again.folder == elsewhere.folder
    lines = [line for line in progress.getvalue().splitlines() if line.strip()]
    # The mirror may have moved on since the lock was written; that is told every time.
    lines = [line for line in lines if not line.startswith("warning: debian.lock: ")]
    assert len(lines) >= 15
    assert [line for line in lines if "cached" not in line] == []


@pytest.mark.timeout(1800)
def test_a_release_folder_that_somebody_spoiled_is_put_right_by_the_next_build(elsewhere: Built) -> None:
    folder = elsewhere.tools.tree.parents[2]
    sums = (elsewhere.folder / "SHA256SUMS").read_bytes()
    (elsewhere.folder / "SHA256SUMS").unlink()
    (elsewhere.folder / "notes.txt").write_text("mine")
    (folder / "out/lab/latest").unlink()
    assert build_image(quiet(folder), "lab").folder == elsewhere.folder
    assert (folder / "out/lab/latest").resolve() == elsewhere.folder.resolve()
    assert (elsewhere.folder / "SHA256SUMS").read_bytes() == sums
    assert not (elsewhere.folder / "notes.txt").exists()
    assert [path.name for path in (folder / "out/lab").iterdir() if path.name.startswith(".")] == []


@pytest.mark.timeout(1800)
def test_a_change_in_the_app_leaves_base_tools_and_boot_loader_alone(elsewhere: Built) -> None:
    folder = elsewhere.tools.tree.parents[2]
    before = keys_of(folder)
    with (folder / "python-app/src/mamori/cli.py").open("a") as file:
        file.write("\n# changed by a test\n")
    build_image(quiet(folder), "lab")
    made = {step for step, keys in keys_of(folder).items() if keys - before.get(step, set())}
    assert {"app", "root", "uki", "boot-fat", "disk", "disk-zst", "bundle", "release"} <= made
    assert made.isdisjoint({"tools", "debian-base", "boot-loader", "overlay", "initramfs"})
