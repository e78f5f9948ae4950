"""A copy of a release that an attacker, or a careless hand, may change and put together again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware.build import Built
from firmware.bundle import SQUASHFS_OPTIONS
from firmware.layout import Partition
from firmware.process import run
from firmware.publish import BLOCK_MAP_SUFFIX, BUNDLE_SUFFIX, DISK_SUFFIX, public_name
from firmware.records.checksums import SIGNATURE, write_checksums
from firmware.sign import Signer
from signing.commands import RaucVerb


@dataclass(frozen=True)
class ReleaseCopy:
    """Files are links to the originals until they are changed. `work` is a folder for the forger's tools."""

    built: Built = field(repr=False)
    folder: Path
    work: Path

    @property
    def disk(self) -> Path:
        return self.folder / public_name(self.built.image, DISK_SUFFIX)

    @property
    def block_map(self) -> Path:
        return self.folder / public_name(self.built.image, BLOCK_MAP_SUFFIX)

    @property
    def bundle(self) -> Path:
        return self.folder / public_name(self.built.image, BUNDLE_SUFFIX)

    def partition(self, name: str) -> Partition:
        return self.built.image.layout[name]

    def sign(self, signer: Signer | None = None) -> None:
        """Sum up and sign what is there now, with the keys of the build unless others are given."""
        (self.folder / SIGNATURE).unlink()
        (self.folder / "SHA256SUMS").unlink()
        listing = write_checksums(self.folder)
        (signer or self.built.signer).sign_file(listing, self.folder / SIGNATURE)

    def edit(self, name: str, change: Callable[[bytes], bytes]) -> None:
        path = self.folder / name
        changed = change(path.read_bytes())
        path.unlink()  # a link: the original must stay as it is
        path.write_bytes(changed)

    def edit_json(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        def edited(content: bytes) -> bytes:
            table = json.loads(content)
            change(table)
            return json.dumps(table).encode()

        self.edit(name, edited)

    def edit_disk(self, change: Callable[[Path], None], *, map_again: bool = True) -> None:
        """Change the disk image itself, map it and pack it again."""
        raw = self.work / "disk.img"
        run(["cp", "--sparse=always", self.built.disk, raw], explain="copy the disk image")
        change(raw)
        if map_again:
            self.block_map.unlink()
            self._run(["bmaptool", "create", "-o", self.work / "map", raw])
            shutil.copy(self.work / "map", self.block_map)
        self.disk.unlink()
        self._run(["zstd", "-1", "--quiet", raw, "-o", self.work / "disk.zst"])
        shutil.move(self.work / "disk.zst", self.disk)

    def put_file(self, raw: Path, partition: str, name: str, content: bytes) -> None:
        """Write a file into a FAT of the disk image."""
        (self.work / "file").write_bytes(content)
        place = f"{raw}@@{self.partition(partition).start_bytes}"
        self._run(["mcopy", "-o", "-i", place, self.work / "file", f"::{name}"])

    def make_bundle(self, change: Callable[[Path], None], signer: Signer | None = None) -> None:
        """Another bundle in the place of this one: unpacked, changed, packed and signed."""
        content = self.work / "content"
        self.built.tools.run(
            ["unsquashfs", "-quiet", "-no-progress", "-dest", content, self.bundle],
            reads=[self.bundle],
            writes=[self.work],
            explain="unpack the bundle",
        )
        for index in content.glob("*.block-hash-index"):
            index.unlink()
        (content / "manifest.raucm").write_text(self.built.rendered["rauc/manifest.raucm"])
        change(content)
        self.bundle.unlink()
        options = f"--mksquashfs-args={SQUASHFS_OPTIONS.format(epoch=self.built.image.source.epoch)}"
        (signer or self.built.signer).rauc(RaucVerb.BUNDLE, content, self.bundle, [options])

    def _run(self, argv: list[str | Path]) -> None:
        self.built.tools.run(argv, writes=[self.work], explain=f"run {argv[0]} for a forger")


def copy_release(built: Built, into: Path) -> ReleaseCopy:
    copy = ReleaseCopy(built, into / "release", into / "work")
    copy.folder.mkdir()
    copy.work.mkdir()
    for path in built.folder.iterdir():
        os.link(path, copy.folder / path.name)
    return copy


def flip(path: Path, offset: int) -> None:
    """Flip one bit of a file, in place; a negative offset counts from the end."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        place = file.tell()
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def flipped(content: bytes, offset: int | None = None) -> bytes:
    """The content with one bit flipped, in the middle unless told otherwise."""
    changed = bytearray(content)
    changed[len(content) // 2 if offset is None else offset] ^= 1
    return bytes(changed)
