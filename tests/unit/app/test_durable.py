"""A file is replaced whole or not at all, and in the order that a power cut cannot spoil."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mamori import durable
from mamori.durable import replace_durably


def test_the_new_content_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"newer", b""):
        replace_durably(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_before_we_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append((synced.name, path.exists(), synced.stat().st_size if synced.is_file() else None))
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    replace_durably(path, b"content")
    assert seen == [(".file.new", False, 7), (tmp_path.name, True, None)]


@pytest.mark.parametrize("failing", ["fsync", "fchmod"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "file"
    replace_durably(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable.os, failing, fail)
    with pytest.raises(OSError, match="Input/output"):
        replace_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """/dev/full is the kernel's own full disk."""
    path = tmp_path / "file"
    replace_durably(path, b"old")
    (tmp_path / ".file.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        replace_durably(path, b"new" * 10_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
