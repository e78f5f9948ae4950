"""`debian.lock` on disk: which version of which package each Debian tree is made of, and the time that their files carry.

A build asks for exactly these versions wherever the mirror still has them. What came out differently is told, and stands
in the build record; a release refuses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.bases import Package
from firmware.bases.debian_packages import LOCK, Drift, LockedPackage, compare, lock_packages, parse_lock, render_lock, render_pins
from firmware.console import Console
from firmware.recipe import Image
from mamori.formats.problems import MamoriError
from mamori.formats.release import Variant

UNLOCKED_EPOCH = 1735689600
"""2025-01-01: the time that files of a tree carry when there is no lock. Files older than this keep their own time."""

_EPOCH = re.compile(r"^# epoch: (\d{9,10})$", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """The lock's content. `epoch` (Unix seconds) is when it was made: no file of a tree is younger, so that rebuilding
    on another day gives the same tree."""

    trees: Mapping[str, Sequence[LockedPackage]]
    epoch: int

    def pins(self, tree: str) -> str:
        """apt preferences that ask for the locked versions of `tree`; empty when it is not locked."""
        return render_pins(self.trees.get(tree, ()))

    def drift(self, tree: str, packages: Sequence[Package]) -> Drift:
        """How `packages` differ from what is locked. MamoriError when an archive's bytes changed under its version."""
        if tree not in self.trees:
            return Drift()
        drift = compare(self.trees[tree], lock_packages(packages))
        drift.check_hashes(tree)
        return drift


def read_lock(root: Path) -> Lock:
    """The lock of a checkout; an empty one when there is none."""
    path = root / LOCK
    if not path.exists():
        return Lock({}, UNLOCKED_EPOCH)
    text = path.read_text()
    epoch = _EPOCH.search(text)
    if not epoch:
        raise MamoriError(f"{LOCK}: expected a line `# epoch: SECONDS`", "`./inv lock` writes the file")
    return Lock(parse_lock(text), int(epoch.group(1)))


def write_lock(root: Path, trees: Mapping[str, Sequence[Package]], epoch: int) -> Path:
    """Put the packages of `trees` into the lock; other trees' sections stay."""
    path = root / LOCK
    sections = {**read_lock(root).trees, **{name: lock_packages(packages) for name, packages in trees.items()}}
    fresh = path.with_name(f".{LOCK}.new")
    with fresh.open("w") as file:
        file.write(f"# epoch: {epoch}\n{render_lock(sections)}")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return path


def check_drift(lock: Lock, console: Console, image: Image, trees: Mapping[str, Sequence[Package]]) -> Mapping[str, Drift]:
    """Where `trees` differ from the lock, by section: told on the console, and refused in a release."""
    found = {name: lock.drift(name, packages) for name, packages in trees.items() if name}
    for name, drift in found.items():
        if drift and image.recipe.variant is Variant.RELEASE:
            hint = "`./inv lock RECIPE` takes the new versions; review its diff"
            raise MamoriError(f"{LOCK}: [{name}]: this build differs from the lock: {drift}", hint)
        if drift:
            console.warn(f"{LOCK}: [{name}]: {drift}; `./inv lock` takes the new versions")
    return found
