"""Layers: which name wins, where it stands, and that nothing of the building machine gets in."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from firmware.image.tar import MOUNT_POINTS, add_text, add_tree, merge, new_tar, normal_name, read_members

EPOCH = 1_795_000_000


def layer(path: Path, names: dict[str, str | None], *, prefix: str = "", mode: int = 0o755) -> Path:
    """An archive of files with these contents, and folders where there is None."""
    with tarfile.open(path, "w") as tar:
        for name, content in names.items():
            info = tarfile.TarInfo(prefix + name)
            if content is None:
                info.type, info.mode, info.uid = tarfile.DIRTYPE, mode, 7
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
    return path


def listing(path: Path) -> list[str]:
    """The names in an archive, without those that every root has."""
    with tarfile.open(path) as tar:
        return [name for name in tar.getnames() if name not in (".", *MOUNT_POINTS)]


@pytest.mark.parametrize(
    ("given", "normal"),
    [("./usr/bin/", "usr/bin"), ("/usr/bin", "usr/bin"), ("usr/bin", "usr/bin"), (".", ""), ("./", ""), (".config", ".config")],
)
def test_names_have_one_spelling(given: str, normal: str) -> None:
    assert normal_name(given) == normal


def test_a_later_layer_wins_and_its_file_stands_later(tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"etc/a": "old", "etc/b": "kept"}, prefix="./")
    upper = layer(tmp_path / "upper", {"etc/a": "new", "etc/c": "added"})
    merge([lower, upper], tmp_path / "merged")
    assert listing(tmp_path / "merged") == ["etc/b", "etc/a", "etc/c"]
    assert read_members(tmp_path / "merged", ["etc/a", "etc/b", "etc/none"]) == {"etc/a": b"new", "etc/b": b"kept"}


def test_a_folder_that_an_upper_layer_passes_through_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"root": None}, mode=0o700)
    upper = layer(tmp_path / "upper", {"root": None, "root/file": "x"}, mode=0o755)
    merge([lower, upper], tmp_path / "merged")
    with tarfile.open(tmp_path / "merged") as tar:
        assert tar.getmember("root").mode == 0o700
        assert tar.getmember("root").uid == 7
    assert listing(tmp_path / "merged") == ["root", "root/file"]


def test_every_root_has_mount_points_and_a_top_folder_that_only_root_may_write_to(tmp_path: Path) -> None:
    merge([layer(tmp_path / "lower", {"run": None, "etc/a": "x"}, mode=0o700)], tmp_path / "merged")
    with tarfile.open(tmp_path / "merged") as tar:
        modes = {info.name: info.mode for info in tar if info.isdir()}
    assert modes == {".": 0o755, "dev": 0o755, "proc": 0o755, "sys": 0o755, "run": 0o700}


def test_a_hard_link_still_names_its_target(tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"bin/perl": "x"}, prefix="./")
    with tarfile.open(lower, "a") as tar:
        info = tarfile.TarInfo("./bin/perl5")
        info.type, info.linkname = tarfile.LNKTYPE, "./bin/perl"
        tar.addfile(info)
    merge([lower], tmp_path / "merged")
    with tarfile.open(tmp_path / "merged") as tar:
        assert tar.getmember("bin/perl5").linkname == "bin/perl"


def tree(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (folder / "bin" / "tool").chmod(0o700)
    (folder / "notes").write_text("x")
    (folder / "link").symlink_to("notes")
    return folder


def test_the_same_tree_gives_the_same_archive_whatever_umask_times_and_order(tmp_path: Path) -> None:
    archives: list[bytes] = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        before = os.umask(umask)
        try:
            made = tree(tmp_path / name)
        finally:
            os.umask(before)
        os.utime(made / "notes", (len(archives), len(archives)))
        with new_tar(tmp_path / f"{name}.tar") as archive:
            add_tree(archive, made, mtime=EPOCH)
        archives.append((tmp_path / f"{name}.tar").read_bytes())
    assert archives[0] == archives[1]


def test_a_tree_is_owned_by_root_and_has_two_modes(tmp_path: Path) -> None:
    with new_tar(tmp_path / "tar") as archive:
        add_tree(archive, tree(tmp_path / "tree"), mtime=EPOCH, prefix="opt/")
    with tarfile.open(tmp_path / "tar") as tar:
        found = {info.name: (info.mode, info.uid, info.gid, info.uname, info.mtime) for info in tar}
    expected = {"opt/bin": 0o755, "opt/bin/tool": 0o755, "opt/link": 0o777, "opt/notes": 0o644}
    assert found == {name: (mode, 0, 0, "", EPOCH) for name, mode in expected.items()}


def test_two_names_of_one_file_are_two_files(tmp_path: Path) -> None:
    made = tree(tmp_path / "tree")
    os.link(made / "notes", made / "again")
    with new_tar(tmp_path / "tar") as archive:
        add_tree(archive, made, mtime=EPOCH)
    assert read_members(tmp_path / "tar", ["again", "notes"]) == {"again": b"x", "notes": b"x"}


def test_a_text_becomes_a_file_of_roots(tmp_path: Path) -> None:
    with new_tar(tmp_path / "tar") as archive:
        add_text(archive, "etc/shadow", "root:*\n", mtime=EPOCH, mode=0o600)
    with tarfile.open(tmp_path / "tar") as tar:
        info = tar.getmember("etc/shadow")
    assert (info.mode, info.uid, info.mtime, info.size) == (0o600, 0, EPOCH, 7)
