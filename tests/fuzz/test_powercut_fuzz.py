"""A log of writes and a FAT are read, or refused with their one error, whatever is in them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from firmware.powercut.fat import FatError, read_file
from firmware.powercut.writelog import Flag, WriteLogError, read_entries
from tests.support.small_disk import make_fat, make_log

CONTENT = b"MZ kernel " * 120
IMAGE = make_fat(12, 64 * 1024, CONTENT)

STEPS = st.lists(
    st.one_of(
        st.none(),
        st.tuples(st.integers(0, 40).map(lambda sector: sector * 512), st.integers(1, 3).map(lambda n: bytes([n]) * 512 * n)),
    ),
    max_size=12,
)
NUMBERS = st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1))


@given(STEPS)
def test_what_was_logged_comes_back(steps: list[tuple[int, bytes] | None]) -> None:
    log = make_log(steps)
    found = [None if entry.flags & Flag.FLUSH else (entry.offset, entry.data(log)) for entry in read_entries(log)]
    assert found == steps


@given(st.binary(max_size=2048), st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4), NUMBERS)
def test_any_log_is_entries_within_it_or_one_error(data: bytes, headers: list[tuple[int, ...]], count: int) -> None:
    entries = b"".join(struct.pack("<QQQQ", *header).ljust(512, b"\0") for header in headers)
    for log in (data, make_log([])[:16] + struct.pack("<QI", count, 512).ljust(496, b"\0") + entries + data):
        try:
            found = list(read_entries(log))
        except WriteLogError:
            continue
        for entry in found:
            assert entry.flags & Flag.DISCARD or entry.data_at + entry.size <= len(log)


@given(st.lists(st.tuples(st.integers(0, 4096), st.binary(min_size=1, max_size=24)), max_size=6))
def test_a_damaged_fat_gives_some_file_or_one_error(damage: list[tuple[int, bytes]]) -> None:
    image = bytearray(IMAGE)
    for offset, data in damage:
        image[offset : offset + len(data)] = data
    try:
        found = read_file(memoryview(image), "mamori.efi")
    except FatError:
        return
    assert len(found) <= len(image)


@given(st.binary(max_size=4096))
def test_any_bytes_are_a_fat_or_not(content: bytes) -> None:
    try:
        found = read_file(memoryview(content), "mamori.efi")
    except FatError:
        return
    assert len(found) <= len(content), "a file is a part of what it lies in"
