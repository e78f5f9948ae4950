"""The lock of Debian packages on disk: read, written, and what becomes of a build that differs from it."""

from __future__ import annotations

import dataclasses
from io import StringIO
from pathlib import Path

import pytest

from firmware.bases import Package
from firmware.bases.debian_packages import LOCK
from firmware.console import Console
from firmware.lock import UNLOCKED_EPOCH, Lock, check_drift, read_lock, write_lock
from firmware.recipe import Image, read_image
from mamori.formats.problems import MamoriError
from mamori.formats.release import Variant
from tests.support.recipes import SOURCE

EPOCH = 1_795_000_000


def package(name: str, version: str = "1.0-1", sha256: str = "ab" * 32) -> Package:
    return Package(name, version, "deb", "amd64", sha256=sha256)


@pytest.fixture
def image() -> Image:
    return read_image("lab", SOURCE)


def as_release(image: Image) -> Image:
    return dataclasses.replace(image, recipe=dataclasses.replace(image.recipe, variant=Variant.RELEASE))


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_lock(tmp_path, {"tools": [package("rauc"), package("bash")]}, EPOCH)
    lock = read_lock(tmp_path)
    assert lock.epoch == EPOCH
    assert [locked.name for locked in lock.trees["tools"]] == ["bash", "rauc"]
    assert "Package: rauc\nPin: version 1.0-1\nPin-Priority: 1001\n" in lock.pins("tools")
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_writing_one_tree_leaves_the_others(tmp_path: Path) -> None:
    write_lock(tmp_path, {"tools": [package("rauc")], "base lab": [package("python3")]}, EPOCH)
    write_lock(tmp_path, {"tools": [package("rauc", "2.0-1")]}, EPOCH + 1)
    lock = read_lock(tmp_path)
    assert {name: [(p.name, p.version) for p in packages] for name, packages in lock.trees.items()} == {
        "tools": [("rauc", "2.0-1")],
        "base lab": [("python3", "1.0-1")],
    }
    assert lock.epoch == EPOCH + 1


def test_a_checkout_without_a_lock_builds_with_a_fixed_time(tmp_path: Path) -> None:
    lock = read_lock(tmp_path)
    assert (lock.trees, lock.epoch, lock.pins("tools")) == ({}, UNLOCKED_EPOCH, "")
    assert not lock.drift("tools", [package("rauc")])


def test_a_lock_without_its_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("[tools]\n")
    with pytest.raises(MamoriError, match="expected a line `# epoch: SECONDS`"):
        read_lock(tmp_path)


def test_drift_is_told_in_the_laboratory(tmp_path: Path, image: Image) -> None:
    write_lock(tmp_path, {"tools": [package("rauc"), package("gone")]}, EPOCH)
    said = StringIO()
    found = check_drift(read_lock(tmp_path), Console(progress=said), image, {"tools": [package("rauc", "1.0-2"), package("new")]})
    text = "1 added (new); 1 removed (gone); 1 with another version (rauc 1.0-1 -> 1.0-2)"
    assert str(found["tools"]) == text
    assert f"[tools]: {text}; `./inv lock` takes the new versions" in said.getvalue()


def test_drift_is_refused_in_a_release(tmp_path: Path, image: Image) -> None:
    write_lock(tmp_path, {"tools": [package("rauc")]}, EPOCH)
    with pytest.raises(MamoriError, match=r"\[tools\]: this build differs from the lock: 1 with another version"):
        check_drift(read_lock(tmp_path), Console(progress=StringIO()), as_release(image), {"tools": [package("rauc", "1.0-2")]})


def test_no_drift_says_nothing(tmp_path: Path, image: Image) -> None:
    write_lock(tmp_path, {"tools": [package("rauc")]}, EPOCH)
    said = StringIO()
    assert not check_drift(read_lock(tmp_path), Console(progress=said), as_release(image), {"tools": [package("rauc")]})["tools"]
    assert said.getvalue() == ""


def test_other_bytes_under_the_same_version_are_refused_even_in_the_laboratory(image: Image, tmp_path: Path) -> None:
    write_lock(tmp_path, {"tools": [package("rauc")]}, EPOCH)
    with pytest.raises(MamoriError, match=r"rauc 1\.0-1 is locked with SHA-256"):
        check_drift(read_lock(tmp_path), Console(progress=StringIO()), image, {"tools": [package("rauc", sha256="cd" * 32)]})


def test_a_tree_that_has_no_section_in_the_lock_is_not_compared(image: Image) -> None:
    found = check_drift(
        Lock({}, EPOCH), Console(progress=StringIO()), image, {"": [package("linux")], "base lab": [package("bash")]}
    )
    assert {name: bool(drift) for name, drift in found.items()} == {"base lab": False}
