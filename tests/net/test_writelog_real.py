"""The log that QEMU really writes, of requests that its monitor makes; no machine runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware.powercut.writelog import Entry, Flag, count_entries, read_entries
from firmware.process import run
from tests.support.need import need

REQUESTS = """\
qemu-io disk "write -P 0x41 1M 4k"
qemu-io disk "write -P 0x42 512 512"
qemu-io disk "flush"
qemu-io disk "write -z 2M 64k"
qemu-io disk "write -P 0x43 0 1k"
qemu-io disk "flush"
quit
"""


@pytest.fixture
def log(tmp_path: Path) -> bytes:
    need("qemu-system-x86_64", "writes the log")
    with (tmp_path / "disk.img").open("wb") as disk:
        disk.truncate(8 << 20)
    (tmp_path / "log").write_bytes(b"")
    files = f"file.driver=file,file.filename={tmp_path}/disk.img,log.driver=file,log.filename={tmp_path}/log"
    argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "none", "-monitor", "stdio"]
    argv += ["-blockdev", f"driver=blklogwrites,node-name=disk,{files},log-super-update-interval=1"]
    run(argv, explain="write to a disk with a log", input=REQUESTS.encode(), timeout_s=60)
    return (tmp_path / "log").read_bytes()


def test_each_request_is_in_the_log_with_its_data(log: bytes) -> None:
    entries = list(read_entries(log))
    assert len(entries) == count_entries(log) == 6
    assert [(entry.offset, entry.size, entry.flags) for entry in entries] == [
        (1 << 20, 4096, Flag(0)),
        (512, 512, Flag(0)),
        (0, 0, Flag.FLUSH),
        (2 << 20, 65536, Flag(0)),
        (0, 1024, Flag(0)),
        (0, 0, Flag.FLUSH),
    ]
    written = [entry.data(log) for entry in entries]
    assert written == [b"A" * 4096, b"B" * 512, b"", bytes(65536), b"C" * 1024, b""]


def test_a_log_that_was_cut_anywhere_is_a_beginning_of_it(log: bytes) -> None:
    whole: list[Entry] = list(read_entries(log))
    for size in range(512, len(log), 509):
        entries = list(read_entries(log[:size]))
        assert entries == whole[: len(entries)]
