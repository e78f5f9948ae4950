"""What is inside an image, for people and for scanners: SBOM, licence manifest, licence texts."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from firmware.bases import BaseTree, Package
from firmware.cache import Artifact
from firmware.image.tar import normal_name
from firmware.process import Argument
from firmware.recipe import Image
from firmware.sign import Signer
from firmware.toolstree import tools_packages
from firmware.workspace import Tools, Workspace

if TYPE_CHECKING:
    from firmware.records.sbom import Part

LICENCE_TEXTS = "licences.tar.zst"

BOOT_PACKAGES = ("shim-unsigned", "grub-efi-amd64-bin", "systemd-boot-efi")
"""Whose files the firmware starts: shim, GRUB, and the stub in front of the kernel."""

INITRAMFS_PACKAGES = (
    *("busybox-static", "dmsetup"),
    *("libc6", "libcap2", "libdevmapper1.02.1", "libpcre2-8-0", "libselinux1", "libudev1"),
)
"""Whose files the initramfs is made of."""

MAX_LICENCE_BYTES = 4 * 1024 * 1024
"""The longest copyright file in Debian has 3 MB; what is longer is none."""


def make_inventory(workspace: Workspace, image: Image, signer: Signer, base: BaseTree, steps: Mapping[str, Artifact]) -> Artifact:
    """The inventory of `image`: `steps` are the artifacts of the build by name."""
    inputs = {name: steps[name].digest for name in ("app", "tools", "facts")}
    inputs |= {"base": base.artifact.digest, "version": image.version}
    with workspace.console.step("inventory") as step:

        def make(folder: Path) -> None:
            from firmware.records import licences, sbom  # slow to import

            parts = _parts(base, signer.tools, steps["app"])
            subject = sbom.Subject(f"mamori-{image.label}", image.version, image.compatible, image.source.epoch)
            (folder / sbom.SBOM).write_text(sbom.render_sbom(subject, parts))
            everything = [package for packages in parts.values() for package in packages]
            (folder / licences.MANIFEST).write_text(licences.render_licences(everything))
            texts = base.licences_tar
            argv: list[Argument] = ["zstd", "-9", "--threads=1", "--quiet", texts, "-o", folder / LICENCE_TEXTS]
            signer.tools.run(argv, reads=[texts], writes=[folder], explain="pack the licence texts")

        return workspace.cache.step("inventory", inputs, make, code=_code(), on_hit=step.cached)


def _code() -> tuple[str, ...]:
    folder = Path(__file__).parent
    return tuple(str(folder / name) for name in ("inventory.py", "sbom.py", "licences.py", "debian_copyright.py"))


def _parts(base: BaseTree, tools: Tools, app: Artifact) -> Mapping[Part, Sequence[Package]]:
    from firmware.records.sbom import Part

    installed = list(_licensed(base.packages, _copyright_files(base.licences_tar)))
    of_tools = {package.name: package for package in tools_packages(tools)}
    texts = {name: _text(tools.tree / "usr/share/doc" / name / "copyright") for name in (*BOOT_PACKAGES, *INITRAMFS_PACKAGES)}
    kernels = [package for package in installed if package.name.startswith("linux-image-") or package.name == "linux"]
    return {
        Part.ROOT: [package for package in installed if package not in kernels],
        Part.KERNEL: kernels,
        Part.BOOT: list(_licensed([of_tools[name] for name in BOOT_PACKAGES], texts)),
        Part.INITRAMFS: list(_licensed([of_tools[name] for name in INITRAMFS_PACKAGES], texts)),
        Part.APP: [_application(app)],
    }


def _application(app: Artifact) -> Package:
    from mamori import __version__

    about = "Bridge inspection and update"
    return Package("mamori", __version__, "pypi", sha256=app.files["app.tar"], licences=("Apache-2.0",), description=about)


def _licensed(packages: Iterable[Package], texts: Mapping[str, str]) -> Iterable[Package]:
    """The packages with the licences that their copyright files speak of."""
    from firmware.records.debian_copyright import parse_copyright

    for package in packages:
        found = package.licences or (parse_copyright(texts[package.name]) if texts.get(package.name) else ())
        yield dataclasses.replace(package, licences=tuple(found))


def _copyright_files(licences_tar: Path) -> Mapping[str, str]:
    texts = {}
    with tarfile.open(licences_tar) as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            if content:
                texts[PurePosixPath(normal_name(info.name)).parts[0]] = content.read(MAX_LICENCE_BYTES).decode(errors="replace")
    return texts


def _text(path: Path) -> str:
    return path.read_bytes()[:MAX_LICENCE_BYTES].decode(errors="replace") if path.is_file() else ""
