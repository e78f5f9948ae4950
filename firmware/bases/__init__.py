"""Where the kernel and the root file system come from; everything after this is the same for every base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firmware.cache import Artifact
from firmware.recipe import Image


@dataclass(frozen=True, order=True)
class Package:
    """One piece of software in an image, as the SBOM and the licence manifest need it.

    `ecosystem` is a package URL type (`deb`, `pypi`, `generic`); `sha256` is the digest of the archive that it was
    installed from (hex); `licences` are SPDX expressions or the names that the packager used.
    """

    name: str
    version: str
    ecosystem: str = "generic"
    architecture: str = ""
    source: str = ""
    source_version: str = ""
    sha256: str = ""
    licences: tuple[str, ...] = ()
    homepage: str = ""
    description: str = ""


@dataclass(frozen=True)
class PythonTarget:
    """Where the device's Python looks for packages, and the version (`3.13`) that byte code must be for."""

    version: str
    site_packages: str


@dataclass(frozen=True)
class BaseTree:
    """What a base hands over: files in the artifact `artifact`, named by the constants below. `lock_section` is where
    `debian.lock` has its packages; a base that is pinned elsewhere has none."""

    artifact: Artifact
    kernel_release: str
    python: PythonTarget
    packages: tuple[Package, ...]
    lock_section: str = ""

    ROOTFS = "rootfs.tar"
    KERNEL = "vmlinuz"
    KERNEL_CONFIG = "kernel-config"
    FACTS = "facts.json"
    PACKAGES = "packages.json"
    LICENCES = "licences.tar"

    @property
    def rootfs_tar(self) -> Path:
        """The root file system without kernel image, with modules under usr/lib/modules; numeric owners, clamped times."""
        return self.artifact.folder / self.ROOTFS

    @property
    def kernel(self) -> Path:
        return self.artifact.folder / self.KERNEL

    @property
    def licences_tar(self) -> Path:
        """Licence texts as NAME/copyright (or NAME/FILE) for every package."""
        return self.artifact.folder / self.LICENCES


class Base(Protocol):
    """A way to make a root file system."""

    def missing(self, image: Image) -> Sequence[str]:
        """What this machine lacks to build `image` on this base: one clear paragraph each, empty when nothing."""
        ...

    def build(self, image: Image, rendered: Path) -> BaseTree:
        """Build from the files in `rendered`, or take from the cache. Raises MamoriError with what to do."""
        ...
