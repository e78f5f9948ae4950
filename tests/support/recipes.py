"""A copy of the recipes, boards and templates that a test may spoil, and a version that never changes."""

from __future__ import annotations

import shutil
from pathlib import Path

from firmware.recipe import BOARDS, RECIPES, ROOT
from firmware.version import Source

SOURCE = Source(version="2026.11.0", commit="0123456789abcdef0123456789abcdef01234567", dirty=False, epoch=1_795_000_000)

LAB, APPLIANCE = "image-recipes/lab.toml", "image-recipes/appliance.toml"
QEMU, UTM = "board/qemu-x86_64/board.toml", "board/utm-x86_64/board.toml"


def copy_recipes(folder: Path) -> Path:
    """`folder` with everything in it that an image is read and rendered from."""
    for part in (RECIPES, BOARDS):
        shutil.copytree(ROOT / part, folder / part)
    return folder


def edit(root: Path, file: str, old: str, new: str) -> None:
    """Replace `old`, which must be in the file, by `new`; an empty `old` appends."""
    text = (root / file).read_text()
    assert old in text, f"{file} no longer says {old!r}"
    (root / file).write_text(text.replace(old, new, 1) if old else text + new)
