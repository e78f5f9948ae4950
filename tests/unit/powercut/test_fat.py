"""The file in a FAT of each kind, and FATs that are damaged."""

from __future__ import annotations

import pytest

from firmware.powercut.fat import FatError, read_file
from tests.support.small_disk import make_fat

CONTENT = bytes(range(256)) * 25 + b"end"
SIZES = {12: 1 << 20, 16: 4 << 20, 32: 40 << 20}


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("length", [1, 512, 513, len(CONTENT)])
def test_the_file_is_read_to_its_last_byte(bits: int, length: int) -> None:
    assert read_file(memoryview(make_fat(bits, SIZES[bits], CONTENT[:length])), "mamori.efi") == CONTENT[:length]


def test_a_file_behind_the_65536th_cluster_is_found() -> None:
    assert read_file(memoryview(make_fat(32, SIZES[32], CONTENT, first=70_000)), "mamori.efi") == CONTENT


def test_another_name_is_not_found() -> None:
    with pytest.raises(FatError, match="no such file"):
        read_file(memoryview(make_fat(12, 1 << 20, CONTENT, b"OTHER   EFI")), "mamori.efi")


def damaged(offset: int, data: bytes) -> bytes:
    image = bytearray(make_fat(12, 1 << 20, CONTENT))
    image[offset : offset + len(data)] = data
    return bytes(image)


DAMAGE = {
    "the first sector is zero": damaged(0, bytes(512)),
    "the table is zero": damaged(512, bytes(3584)),
    "a file of its own first cluster over and over": damaged(512 + 3, b"\x02\x20\x00" * 8),
    "sectors of one byte": damaged(11, b"\x01\x00"),
    "clusters of no sectors": damaged(13, b"\x00"),
    "larger than the partition": damaged(32, b"\xff\xff\xff\x00"),
    "no room for files": damaged(32, b"\x04\x00\x00\x00"),
    "only its beginning is there": make_fat(12, 1 << 20, CONTENT)[:4096],
    "nothing": b"",
}


@pytest.mark.parametrize("image", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_cannot_be_read_is_an_error_and_not_data(image: bytes) -> None:
    try:
        found = read_file(memoryview(image), "mamori.efi")
    except FatError:
        return
    assert found != CONTENT
