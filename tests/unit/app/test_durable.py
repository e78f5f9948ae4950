"""A file is replaced as a whole. What reaches the disk in which order is read off the system calls, and each may be the last."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from firmware.recipe import ROOT
from mamori.durable import put_in_place, replacing, write_durably
from tests.support.need import need

OLD, NEW = b"old", b"new" * 10
"""Less than a buffer, which must be flushed before anything is synced."""
CALLS = ("flock", "openat", "fchmod", "write", "fsync", "rename", "unlink")

PROGRAMS = {
    "written": ("write_durably(path, b'new' * 10)", ".file.new"),
    "put in place": ("put_in_place(path.with_name('fresh'), path)", "fresh"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder/file"
    path.parent.mkdir()
    path.write_bytes(OLD)
    path.with_name("fresh").write_bytes(NEW)
    return path


def calls(path: Path, program: str, *options: str) -> list[str]:
    """The system calls of a program of one line that touch the folder or what is in it, as strace prints them."""
    need("strace", "shows in which order a file reaches the disk, and ends a process at a call")
    trace = path.parent.with_name("trace")
    places = (path.parent, path, path.with_name(".file.new"), path.with_name("fresh"))
    argv = ["strace", "-y", "-qq", "-o", trace, "-e", f"trace={','.join(CALLS)}"]
    argv += [word for place in places for word in ("-P", place)] + [*options, sys.executable, "-c"]
    argv += [f"import pathlib; from mamori.durable import *; path = pathlib.Path({str(path)!r}); {program}"]
    subprocess.run(argv, env={"PYTHONPATH": str(ROOT / "python-app/src")}, timeout=60, stderr=subprocess.DEVNULL)
    return trace.read_text().splitlines()


@pytest.mark.parametrize(("program", "fresh"), PROGRAMS.values(), ids=PROGRAMS)
def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_is_done(path: Path, program: str, fresh: str) -> None:
    steps = []
    for call in calls(path, program):
        name = call.partition("(")[0]
        if name in ("write", "fsync", "rename") and call.endswith(("= 0", f"= {len(NEW)}")):
            steps.append((name, "folder" if f"<{path.parent}>" in call else fresh if f"/{fresh}" in call else call))
    written = [("write", fresh)] if fresh != "fresh" else []
    assert steps == [*written, ("fsync", fresh), ("rename", fresh), ("fsync", "folder")]
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("program", [program for program, _ in PROGRAMS.values()], ids=PROGRAMS)
def test_whichever_call_the_power_cuts_off_the_file_is_old_or_new(path: Path, program: str) -> None:
    made = [call.partition("(")[0] for call in calls(path, program)]
    assert "rename" in made
    for index, name in enumerate(made):
        path.write_bytes(OLD)
        path.with_name("fresh").write_bytes(NEW)
        cut = calls(path, program, "-e", f"inject={name}:signal=KILL:when={made[: index + 1].count(name)}")
        assert cut[-1].startswith("+++ killed"), name
        assert path.read_bytes() == (NEW if "rename" in made[:index] else OLD), name
        write_durably(path, b"next")  # what was left of it is in nobody's way
        assert path.read_bytes() == b"next"
        assert not path.with_name(".file.new").exists()


@pytest.mark.parametrize("call", ["fchmod", "write", "fsync", "rename"])
def test_a_disk_that_fails_leaves_the_old_file_alone(path: Path, call: str) -> None:
    calls(path, PROGRAMS["written"][0], "-e", f"inject={call}:error=ENOSPC:when=1")
    assert path.read_bytes() == OLD
    assert not path.with_name(".file.new").exists()


def test_what_raises_in_the_block_leaves_the_old_file_alone(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(NEW)
        raise ZeroDivisionError
    assert path.read_bytes() == OLD
    assert sorted(left.name for left in path.parent.iterdir()) == ["file", "fresh"]


def test_the_file_has_the_mode_that_was_asked_for_whatever_the_process_hides(path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_durably(path, NEW)
        with replacing(path.with_name("secret"), 0o600) as file:
            file.write(NEW)
    finally:
        os.umask(before)
    assert [path.with_name(name).stat().st_mode & 0o777 for name in ("file", "secret")] == [0o644, 0o600]


def test_a_second_writer_in_the_folder_is_refused_and_spoils_nothing(path: Path) -> None:
    other = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(other, fcntl.LOCK_SH)  # the least that shows that ours is exclusive
    try:
        with pytest.raises(BlockingIOError):
            write_durably(path, NEW)
        with pytest.raises(BlockingIOError):
            put_in_place(path.with_name("fresh"), path)
    finally:
        os.close(other)
    assert path.read_bytes() == OLD
    write_durably(path, NEW)
    assert path.read_bytes() == NEW
