"""What is inside a unified kernel image: the command lines that its signature covers, and with them the root that it starts.

`ukify inspect` shows one section of each name; an image with profiles has several, so the section table is read here
(PE format: Microsoft, "PE Format", section table; profiles: UAPI group, UKI specification).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware.image.root import BLOCK_BYTES
from firmware.layout import SLOTS
from firmware.recipe import Image
from firmware.verify.case import Case, blamed_on
from mamori.formats.problems import MamoriError
from signing.commands import plan_secure_boot_verification

_PE_OFFSET = 0x3C
_HEADER, _SECTION = struct.Struct("<4sHH12xH2x"), struct.Struct("<8sIIII16x")


@dataclass(frozen=True)
class KernelImage:
    """The root that a kernel image starts, as its command lines say: `blocks` of 4096 bytes of data, then the tree."""

    root_hash: str
    blocks: int
    salt: str

    @property
    def hash_offset(self) -> int:
        """Where the first hash block is, in bytes: behind the data and the verity superblock, which nothing signs."""
        return (self.blocks + 1) * BLOCK_BYTES


def read_sections(content: bytes, what: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every section of a PE file, in order; MamoriError when it is none."""
    try:
        (start,) = struct.unpack_from("<I", content, _PE_OFFSET)
        signature, _machine, count, optional_bytes = _HEADER.unpack_from(content, start)
        if signature != b"PE\0\0":
            raise MamoriError(f"{what}: not a PE file")
        for number in range(count):
            place = start + _HEADER.size + optional_bytes + number * _SECTION.size
            name, size, _address, raw_size, offset = _SECTION.unpack_from(content, place)
            yield name.rstrip(b"\0").decode("ascii", "replace"), content[offset : offset + min(size, raw_size)]
    except struct.error:
        raise MamoriError(f"{what}: ends before its section table does") from None


def read_kernel_image(path: Path, image: Image, what: str) -> KernelImage:
    """The root that the kernel image starts; MamoriError unless it is of this version and all its command lines say the same."""
    content = path.read_bytes()
    if f'IMAGE_VERSION="{image.version}"' not in "".join(section_texts(content, ".osrel", what)).splitlines():
        raise MamoriError(f"{what}: expected a kernel image of version {image.version}, got another one")
    arguments = [_arguments(line) for line in section_texts(content, ".cmdline", what)]
    slots = [words.get("mamori.slot", "none") for words in arguments]
    if slots != ["none", *SLOTS]:
        raise MamoriError(f"{what}: expected command lines for no slot, {', '.join(SLOTS)}, got some for {', '.join(slots)}")
    roots = {tuple(words.get(name, "") for name in ("roothash", "mamori.blocks", "mamori.salt")) for words in arguments}
    if len(roots) != 1:
        raise MamoriError(f"{what}: its command lines start different roots")
    ((root_hash, blocks, salt),) = roots
    if not blocks.isascii() or not blocks.isdigit() or not root_hash:
        raise MamoriError(f"{what}: its command line names no root")
    return KernelImage(root_hash, int(blocks), salt)


def check_signature(case: Case, file: Path, what: str) -> None:
    """MamoriError unless an EFI executable is signed with db: the firmware, or shim, would refuse it."""
    plan = plan_secure_boot_verification(case.db, file)
    with blamed_on(f"{what}: not signed with the Secure Boot db key of this keyset"):
        case.ask(plan.argv, *reversed(plan.reads))


def section_texts(content: bytes, name: str, what: str) -> list[str]:
    """The texts of all sections of one name, in order: that of the image itself first, then those of its profiles."""
    return [section.decode(errors="replace").strip("\0\n ") for found, section in read_sections(content, what) if found == name]


def _arguments(line: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in line.split())
