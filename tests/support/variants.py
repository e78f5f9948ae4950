"""Images that differ from the checkout's in what a test says: built from a copy, with the checkout's cache and keys."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

from firmware.bench_build import copy_checkout
from firmware.build import Built, build_image
from firmware.console import Console
from firmware.recipe import ROOT
from firmware.version import CHANGELOG
from firmware.workspace import Workspace


def build_variant(folder: Path, edit: Callable[[Path], None]) -> Built:
    """The lab's image after `edit` has changed the copy, which becomes `folder`; what does not depend on that is in the cache."""
    copy_checkout(ROOT, folder)
    shutil.copytree(ROOT / "keys", folder / "keys")
    edit(folder)
    (folder / "out").mkdir()
    for shared in ("cache", "tools"):
        (folder / "out" / shared).symlink_to(ROOT / "out" / shared)
    return build_image(Workspace(Console(progress=io.StringIO()), folder, folder / "out"), "lab")


def raise_version(root: Path, version: str) -> None:
    """The checkout at `root` becomes that release's (CHANGELOG's top entry decides)."""
    path = root / CHANGELOG
    head, entries, rest = path.read_text().partition("\n## ")
    path.write_text(f"{head}\n## {version}\n\nA test's.\n{entries}{rest}")
