"""A root file system, as the initramfs will open it and as the device will read it."""

from __future__ import annotations

from pathlib import Path

from firmware.image.layers import describe_release
from firmware.image.root import BLOCK_BYTES
from firmware.verify.case import Case, blamed_on
from firmware.verify.kernel_image import KernelImage
from mamori.formats import release
from mamori.formats.problems import MamoriError

RELEASE_FILE = "/usr/lib/mamori/release.json"
BUNDLE_ANCHORS = "/usr/lib/mamori/anchors/bundle.pem"


def check_root(case: Case, root: Path, kernel: KernelImage, what: str) -> None:
    """MamoriError unless every block of `root` is what the kernel's root hash promises, and it says of itself what it should."""
    check_verity(case, root, kernel, what)
    expected = {
        RELEASE_FILE: release.encode(describe_release(case.image, case.anchors)),
        BUNDLE_ANCHORS: case.anchors.rauc_keyring,
    }
    for name, content in expected.items():
        with blamed_on(f"{what}: {name} cannot be read"):
            found = case.ask(["dump.erofs", "--cat", f"--path={name}", root], root).stdout_bytes
        if found != content:
            raise MamoriError(f"{what}: {name}: {_difference(found, content)}")


def check_verity(case: Case, root: Path, kernel: KernelImage, what: str) -> None:
    """MamoriError unless data and hash tree lead to the root hash. The superblock is left aside, as the initramfs does."""
    argv = ["veritysetup", "verify", "--no-superblock", f"--hash-offset={kernel.hash_offset}", f"--data-blocks={kernel.blocks}"]
    argv += [f"--data-block-size={BLOCK_BYTES}", f"--hash-block-size={BLOCK_BYTES}", "--hash=sha256", f"--salt={kernel.salt}"]
    with blamed_on(f"{what}: does not verify against the root hash {kernel.root_hash} of its kernel image"):
        case.ask([*argv, root, root, kernel.root_hash], root)


def _difference(found: bytes, expected: bytes) -> str:
    try:
        was, should = (release.decode(content, "release.json") for content in (found, expected))
    except MamoriError:
        return "not the public certificates of the keyset" if b"CERTIFICATE" in expected else "not a release file"
    for name in release.Release.__dataclass_fields__:
        if getattr(was, name) != getattr(should, name):
            return f"{name}: expected {getattr(should, name)}, got {getattr(was, name)}"
    return "written by another Mamori"
