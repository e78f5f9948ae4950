"""The log of writes, entry by entry, and where it stops."""

from __future__ import annotations

import struct

import pytest

from firmware.powercut.writelog import Entry, Flag, WriteLogError, count_entries, read_entries
from tests.support.small_disk import make_log

DATA = bytes(range(256)) * 4


def header(*numbers: int) -> bytes:
    return struct.pack("<QQQQ", *numbers).ljust(512, b"\0")


def counting(entries: int, *pieces: bytes) -> bytes:
    return struct.pack("<QQQI", 0x6A736677736872, 1, entries, 512).ljust(512, b"\0") + b"".join(pieces)


def test_writes_and_flushes_come_in_their_order_with_their_data() -> None:
    log = make_log([(1024, DATA), None, (0, b"a" * 512)])
    entries = list(read_entries(log))
    assert entries == [Entry(1024, 1024, Flag(0), 1024), Entry(0, 0, Flag.FLUSH, 2560), Entry(0, 512, Flag(0), 3072)]
    assert [entry.data(log) for entry in entries] == [DATA, b"", b"a" * 512]


def test_a_discard_has_no_data_and_makes_zeros() -> None:
    log = counting(2, header(4, 3, Flag.DISCARD, 0), header(1, 1, Flag.FUA, 0), b"z" * 512)
    discard, write = read_entries(log)
    assert (discard.offset, discard.data(log)) == (2048, bytes(1536))
    assert (write.offset, write.data(log)) == (512, b"z" * 512)


def test_a_mark_is_passed_over() -> None:
    log = counting(2, header(0, 0, Flag.MARK, 3), b"abc".ljust(512, b"\0"), header(1, 1, 0, 0), b"z" * 512)
    assert [entry.offset for entry in read_entries(log)] == [512]


@pytest.mark.parametrize("size", [512 + 512 + 512 + 512 * 2, 512 + 512 + 512 + 20, 512 + 512 + 512 + 512])
def test_a_log_whose_writer_was_killed_ends_with_the_last_whole_entry(size: int) -> None:
    log = counting(2, header(1, 1, 0, 0), b"z" * 512, header(4, 3, 0, 0), DATA)[:size]
    assert count_entries(log) == 2
    assert [entry.offset for entry in read_entries(log)] == [512]


def test_an_entry_that_was_promised_and_never_written_ends_the_log() -> None:
    log = counting(3, header(1, 1, 0, 0), b"z" * 512, bytes(512), header(4, 1, 0, 0), b"y" * 512)
    assert [entry.offset for entry in read_entries(log)] == [512]


WRONG = {
    "nothing": b"",
    "half a superblock": counting(0)[:20],
    "another magic": b"x" + counting(0)[1:],
    "another version": struct.pack("<QQQI", 0x6A736677736872, 2, 0, 512).ljust(512, b"\0"),
    "sectors of no bytes": struct.pack("<QQQI", 0x6A736677736872, 1, 1, 0).ljust(512, b"\0"),
    "sectors of 513 bytes": struct.pack("<QQQI", 0x6A736677736872, 1, 1, 513).ljust(512, b"\0"),
    "a sector at the end of the world": counting(1, header(2**64 - 1, 1, 0, 0)),
    "unknown flags": counting(1, header(1, 1, 16, 0)),
}


@pytest.mark.parametrize("log", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_log_is_refused(log: bytes) -> None:
    with pytest.raises(WriteLogError):
        list(read_entries(log))
