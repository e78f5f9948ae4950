"""The root file system: layers in, one file out that holds EROFS and, behind it, the dm-verity tree over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware.cache import Artifact, text_sha256
from firmware.image import tar
from firmware.image.tar import merge
from firmware.layout import Partition
from firmware.recipe import Image
from firmware.workspace import Tools, Workspace
from mamori.formats.problems import MamoriError

BLOCK_BYTES = 4096
"""EROFS block, dm-verity data and hash block, and RAUC's block hash index: one size, so that deltas stay aligned."""

IMAGE = "root.img"
_FACTS = "root.json"

COMPRESSION = "zstd,level=6"
"""Measured on 461 MB: 269 MB in 29 s on two cores; level 12 takes three times as long for 3 % less."""


@dataclass(frozen=True)
class Root:
    """A root image: `blocks` of data in 4096 bytes, its verity root hash and salt in hex."""

    artifact: Artifact
    blocks: int
    root_hash: str
    salt: str

    @property
    def image(self) -> Path:
        return self.artifact / IMAGE

    @property
    def size_bytes(self) -> int:
        return self.image.stat().st_size

    @property
    def arguments(self) -> str:
        """What the kernel command line must say for the initramfs to open this root."""
        return f"roothash={self.root_hash} mamori.blocks={self.blocks} mamori.salt={self.salt}"


def build_root(workspace: Workspace, tools: Tools, image: Image, layers: Mapping[Path, Artifact]) -> Root:
    """EROFS and verity over `layers`: tars, lowest first, with the artifacts that they are part of."""
    image_uuid, epoch = image.layout["root-a"].filesystem_uuid, image.source.epoch
    # The salt is public and constant: it only keeps one product's trees apart from another's. A random one would change
    # every hash block of every release, and with it the delta.
    salt = text_sha256(f"verity salt of {image_uuid}")
    inputs = {artifact.step: artifact.digest for artifact in layers.values()}
    inputs |= {"tools": tools.digest, "uuid": image_uuid, "epoch": str(epoch)}
    with workspace.console.step("root file system") as step:

        def make(folder: Path) -> None:
            merged, target = folder / "merged.tar", folder / IMAGE
            step.note("merge layers")
            merge(layers, merged)
            step.note("EROFS")
            erofs = ["mkfs.erofs", "--quiet", "--tar=f", f"-z{COMPRESSION}", "-T", str(epoch), "-U", image_uuid]
            tools.run([*erofs, target, merged], writes=[folder], on_line=step.line, explain="make the EROFS image")
            merged.unlink()
            step.note("verity")
            (folder / _FACTS).write_text(json.dumps(_add_verity(tools, target, image_uuid, salt)))

        artifact = workspace.cache.step("root", inputs, make, code=(__file__, tar.__file__), on_hit=step.cached)
        facts = json.loads((artifact / _FACTS).read_text())
        step.note(f"{(artifact / IMAGE).stat().st_size / 1e6:.0f} MB")
    return Root(artifact, **facts)


def _add_verity(tools: Tools, image: Path, image_uuid: str, salt: str) -> dict[str, str | int]:
    data_bytes, hash_file = image.stat().st_size, Path(f"{image}.hash")
    assert data_bytes % BLOCK_BYTES == 0, data_bytes  # noqa: S101 - mkfs.erofs writes whole blocks
    argv = ["veritysetup", "format", f"--hash-offset={data_bytes}", f"--data-blocks={data_bytes // BLOCK_BYTES}"]
    argv += [f"--uuid={image_uuid}", f"--salt={salt}", f"--root-hash-file={hash_file}"]
    tools.run([*argv, image, image], writes=[image.parent], explain="make the verity tree")
    root_hash = hash_file.read_text().strip()
    hash_file.unlink()
    # RAUC's index counts whole blocks.
    size = image.stat().st_size
    with image.open("r+b") as file:
        file.truncate(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
    return {"blocks": data_bytes // BLOCK_BYTES, "root_hash": root_hash, "salt": salt}


def check_fits(what: str, size_bytes: int, partition: Partition, board: str) -> None:
    """MamoriError when `size_bytes` do not fit into `partition`, saying by how much."""
    excess = size_bytes - partition.size_bytes
    if excess > 0:
        raise MamoriError(
            f"board/{board}/board.toml: disk.partitions.{partition.name}.size_mib: {what} is {size_bytes} bytes,"
            f" {excess} bytes ({excess / (1 << 20):.1f} MiB) more than the {partition.size_mib} MiB of {partition.name}",
            "leave packages out of the recipe; a larger slot only works for boards that are not in the field yet",
        )
