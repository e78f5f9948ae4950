"""The OTA bundle, as an appliance will judge it: RAUC's own verdict first, then every byte behind it.

In a sandbox RAUC will not read the payload ("exclusive access"), so the verity tree over it is checked with veritysetup:
a bundle is a squashfs, its hash tree, a CMS signature around the manifest, and the signature's length in eight bytes
(RAUC manual, "Bundle Formats", verity).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.bundle import BOOT_IN_BUNDLE, ROOT_IN_BUNDLE
from firmware.cache import file_sha256
from firmware.image.root import BLOCK_BYTES
from firmware.verify.case import Case, blamed_on
from firmware.verify.disk import check_kernel, check_names, read_fat
from firmware.verify.kernel_image import KernelImage
from firmware.verify.root import check_root
from mamori.formats.problems import MamoriError

INDEX = "block-hash-index"
"""RAUC's adaptive mode: hashes of the blocks of an image, beside it in the bundle."""

IMAGES = (ROOT_IN_BUNDLE, BOOT_IN_BUNDLE)

MANIFEST = "manifest.raucm"

_LENGTH_BYTES = 8

# rauc heeds a purpose in a configuration file only.
_SYSTEM = """\
[system]
compatible={compatible}
bootloader=noop
bundle-formats=verity
data-directory=/tmp
[keyring]
path={keyring}
check-purpose=codesign
"""


@dataclass(frozen=True)
class Manifest:
    """What a bundle's signature covers. `images` are RAUC's entries, `verity` is about the payload, `hash` SHA-256 of it all."""

    update: dict[str, str]
    verity: dict[str, Any]
    images: list[dict[str, Any]]
    hash: str


def unpack_bundle(case: Case, bundle: Path, into: Path) -> str:
    """Unpack the bundle's files into the new folder `into`; MamoriError unless it is signed under the keyset's CAs, is for
    this image, and every byte of it is what its signed manifest promises."""
    manifest, image = read_manifest(case, bundle), case.image
    said = {**manifest.update, "format": manifest.verity.get("format")}
    for name, expected in (("compatible", image.compatible), ("version", image.version), ("format", "verity")):
        if said.get(name) != expected:
            raise MamoriError(f"{bundle.name}: {name}: expected {expected}, got {said.get(name)}")
    check_payload(case, bundle, manifest)
    with blamed_on(f"{bundle.name}: its payload cannot be unpacked"):
        case.ask(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", into, bundle], bundle)
    _check_images(manifest, into, bundle.name)
    return f"signature, payload and images as signed, for {image.compatible}"


def check_bundle_slot(case: Case, content: Path, what: str) -> KernelImage:
    """MamoriError unless the bundle's kernel is signed, and starts the bundle's root, which verifies to its last block."""
    kernel = check_kernel(case, read_fat(case, content / BOOT_IN_BUNDLE, None, what), f"{what}: {BOOT_IN_BUNDLE}")
    check_root(case, content / ROOT_IN_BUNDLE, kernel, f"{what}: {ROOT_IN_BUNDLE}")
    return kernel


def read_manifest(case: Case, bundle: Path) -> Manifest:
    """The manifest, if RAUC accepts the bundle's signature as one of code by a CA of the keyset."""
    system = case.scratch / "system.conf"
    system.write_text(_SYSTEM.format(compatible=case.image.compatible, keyring=case.keyring))
    argv: list[str | Path] = ["rauc", "info", f"--conf={system}", "--output-format=json-2", bundle]
    with blamed_on(f"{bundle.name}: RAUC does not accept it under the bundle CAs of this keyset"):
        said = json.loads(case.ask(argv, bundle).stdout)
    return Manifest(said["update"], said["bundle"], said["images"], said["manifest-hash"])


def payload_bytes(bundle: Path, manifest: Manifest) -> int:
    """The size of the squashfs, which is all of a bundle that the same inputs always give."""
    size = bundle.stat().st_size
    with bundle.open("rb") as file:
        file.seek(size - _LENGTH_BYTES)
        signature_bytes = int.from_bytes(file.read(), "big")
    return size - _LENGTH_BYTES - signature_bytes - int(manifest.verity["verity-size"])


def check_payload(case: Case, bundle: Path, manifest: Manifest) -> None:
    """MamoriError unless every block of the payload leads to the root hash in the signed manifest."""
    end, verity = payload_bytes(bundle, manifest), manifest.verity
    argv = ["veritysetup", "verify", "--no-superblock", f"--hash-offset={end}", f"--data-blocks={end // BLOCK_BYTES}"]
    argv += [
        "--hash=sha256",
        f"--data-block-size={BLOCK_BYTES}",
        f"--hash-block-size={BLOCK_BYTES}",
        f"--salt={verity['verity-salt']}",
    ]
    with blamed_on(f"{bundle.name}: its payload is not what its signed manifest promises"):
        case.ask([*argv, bundle, bundle, verity["verity-hash"]], bundle)


def _check_images(manifest: Manifest, content: Path, what: str) -> None:
    """The files, their hashes, and the index that keeps an update over a thin line small."""
    files = {path.name: path for path in content.iterdir()}
    check_names(files, {MANIFEST, *IMAGES, *(f"{name}.{INDEX}" for name in IMAGES)}, what)
    images = {entry["filename"]: entry for entry in manifest.images}
    check_names({name: content / name for name in images}, set(IMAGES), f"{what}: {MANIFEST}")
    for name, entry in images.items():
        if file_sha256(files[name]) != entry["checksum"]:
            raise MamoriError(f"{what}: {name}: expected SHA-256 {entry['checksum']}, as the signed manifest says, got another")
        if (adaptive := entry.get("adaptive")) != [INDEX]:
            raise MamoriError(f"{what}: {MANIFEST}: {name}: adaptive: expected {INDEX}, got {adaptive}")
