"""The bytes of a compiled list file, version 1. Everything is little-endian.

    offset  bytes
    0       8     magic `MAMORILS`
    8       2     version
    10      2     labels of the longest entry of a name     (where a walk up a name may begin)
    12      2     segments of the deepest folder
    14      2     zero
    16      8     number of records
    24      32    key of the hashes
    56      48×4  sections: offset, size (8 bytes each), SHA-256
    248     4     CRC-32 of all before
    252     4     zero

    INFO      JSON: the lists in the order of their numbers
    SUFFIXES  the public suffix list's rules as they were when this was compiled, one a line
    INDEX     the first hash of each block (8 bytes each)
    BLOCKS    blocks of 4096 bytes, at a multiple of 4096 and up to the end of the file

A record is a text's 64-bit hash (BLAKE2b with the key) and a 16-bit tag: 12 bits of the list's number, 4 of the kind. Records
are sorted by hash, then by tag, without repetition. A block has BLOCK_RECORDS hashes, then as many tags, zeros, and at its end
the CRC-32 of all before; the last block is filled up with zeros.

With a block a page, a lookup touches the index, which stays in cache, and one page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from zlib import crc32

from mamori.formats.problems import MamoriError

MAGIC = b"MAMORILS"
VERSION = 1
HEADER_BYTES = 256
BLOCK_BYTES = 4096
BLOCK_RECORDS = 408
"""10 bytes each, and 16 bytes are left for the CRC."""

TAGS_AT = BLOCK_RECORDS * 8
CRC_AT = BLOCK_BYTES - 4
KEY_BYTES = 32
MAX_SECTION_BYTES = 16 * 1024 * 1024
"""Of INFO and SUFFIXES, which are read into memory. A whole public suffix list is 0.2 MB, a thousand lists 0.3 MB."""

_FIELDS = struct.Struct(f"<8sHHHHQ{KEY_BYTES}s")
_SECTION = struct.Struct("<QQ32s")
_CRC = struct.Struct("<II")


class ListError(MamoriError):
    """A compiled file that is damaged, cut short, or none."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the file: where it is, in bytes, and the SHA-256 of its content."""

    offset: int
    size: int
    digest: bytes

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Header:
    """See the module. `max_labels` and `max_folders` are matching.Bounds."""

    max_labels: int
    max_folders: int
    records: int
    key: bytes
    info: Section
    suffixes: Section
    index: Section
    blocks: Section

    @property
    def sections(self) -> tuple[Section, ...]:
        return self.info, self.suffixes, self.index, self.blocks


def encode_header(header: Header) -> bytes:
    """The first HEADER_BYTES, with their CRC."""
    content = _FIELDS.pack(MAGIC, VERSION, header.max_labels, header.max_folders, 0, header.records, header.key)
    content += b"".join(_SECTION.pack(section.offset, section.size, section.digest) for section in header.sections)
    return content + _CRC.pack(crc32(content), 0)


def parse_header(content: bytes, file_bytes: int) -> Header:
    """The header of a file of `file_bytes`; `content` is its start. ListError if it is damaged or does not fit the file."""
    if content[: len(MAGIC)] != MAGIC:
        raise ListError("not a compiled list file")
    if len(content) < HEADER_BYTES:
        raise ListError(f"cut short: {file_bytes} bytes")
    _, version, labels, folders, _, records, key = _FIELDS.unpack_from(content)
    if version != VERSION:
        raise ListError(f"a list file of version {version}; this software reads version {VERSION}")
    crc_at = _FIELDS.size + 4 * _SECTION.size
    if _CRC.unpack_from(content, crc_at)[0] != crc32(content[:crc_at]):
        raise ListError("damaged: the header's checksum is wrong")
    sections = (Section(*_SECTION.unpack_from(content, _FIELDS.size + at * _SECTION.size)) for at in range(4))
    header = Header(labels, folders, records, key, *sections)
    _check_bounds(header, file_bytes)
    return header


def _check_bounds(header: Header, file_bytes: int) -> None:
    if header.blocks.end != file_bytes:
        raise ListError(f"cut short or overlong: {file_bytes} bytes, expected {header.blocks.end}")
    blocks = block_count(header.records)
    if (
        any(section.offset < HEADER_BYTES or section.end > file_bytes for section in header.sections)
        or max(header.info.size, header.suffixes.size) > MAX_SECTION_BYTES
        or header.index.offset % 8
        or header.blocks.offset % BLOCK_BYTES
        or header.index.size != blocks * 8
        or header.blocks.size != blocks * BLOCK_BYTES
    ):
        raise ListError("damaged: the sections do not fit each other")


def block_count(records: int) -> int:
    """How many blocks so many records fill."""
    return -(-records // BLOCK_RECORDS)


def digest_of(content: bytes | memoryview) -> bytes:
    """A section's digest."""
    return sha256(content).digest()


def hash_of(text: str, key: bytes) -> bytes:
    """A record's hash; as a number it is big-endian, so that bytes and numbers sort alike."""
    return blake2b(text.encode("ascii", "backslashreplace"), digest_size=8, key=key).digest()


class Records:
    """Records that are being collected: 10 bytes each, in PARTS heaps by the hash's first byte, so that sorting needs memory
    for one heap at a time."""

    PARTS = 256

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._parts = [bytearray() for _ in range(self.PARTS)]
        self.added = 0

    def add(self, text: str, tag: int) -> None:
        digest = hash_of(text, self.key)
        self._parts[digest[0]] += digest + tag.to_bytes(2, "big")
        self.added += 1

    def sorted(self) -> Iterator[tuple[int, int]]:
        """Hash and tag of each, ascending and without repetition. Gives the memory back on the way: to be called once."""
        for number, part in enumerate(self._parts):
            content = bytes(part)
            self._parts[number] = bytearray()
            yield from struct.iter_unpack(">QH", b"".join(sorted({content[at : at + 10] for at in range(0, len(content), 10)})))


def encode_block(records: list[tuple[int, int]]) -> bytes:
    """At most BLOCK_RECORDS records as a block."""
    padding = (0,) * (BLOCK_RECORDS - len(records))
    hashes = struct.pack(f"<{BLOCK_RECORDS}Q", *(record[0] for record in records), *padding)
    tags = struct.pack(f"<{BLOCK_RECORDS}H", *(record[1] for record in records), *padding)
    content = (hashes + tags).ljust(CRC_AT, b"\0")
    return content + crc32(content).to_bytes(4, "little")


def is_block_sound(block: memoryview) -> bool:
    """Whether a block's CRC is that of its content."""
    return crc32(block[:CRC_AT]) == int.from_bytes(block[CRC_AT:], "little")
