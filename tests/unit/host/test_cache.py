"""The step cache: what is found again, what is made anew, and what a failed or killed step leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.cache import KEEP_PER_STEP, Cache, content_digest, file_sha256, tree_sha256

MIB = 1024 * 1024


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def writes(text: str, made: list[str] | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "out").write_text(text)
        if made is not None:
            made.append(text)

    return make


def test_a_step_with_the_same_inputs_is_made_once(cache: Cache) -> None:
    made: list[str] = []
    hits: list[bool] = []
    first = cache.step("root", {"a": "1"}, writes("x", made), on_hit=lambda: hits.append(True))
    second = cache.step("root", {"a": "1"}, writes("x", made), on_hit=lambda: hits.append(True))
    assert (made, hits) == (["x"], [True])
    assert first == second
    assert (second / "out").read_text() == "x"


def test_another_input_name_value_or_code_makes_it_anew(cache: Cache, tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("old")
    keys = [cache.step("root", inputs, writes("x"), code=(str(code),)).key for inputs in ({"a": "1"}, {"a": "2"}, {"b": "1"})]
    code.write_text("new")
    keys.append(cache.step("root", {"a": "1"}, writes("x"), code=(str(code),)).key)
    keys.append(cache.step("disk", {"a": "1"}, writes("x"), code=(str(code),)).key)
    assert len(set(keys)) == 5


def test_the_digest_stands_for_the_files_and_not_for_how_they_were_made(cache: Cache) -> None:
    one, same = (cache.step("root", {"a": a}, writes("x")) for a in ("1", "2"))
    other = cache.step("root", {"a": "3"}, writes("y"))
    assert one.key != same.key
    assert one.digest == same.digest != other.digest


def test_a_step_that_fails_leaves_nothing(cache: Cache) -> None:
    def fails(folder: Path) -> None:
        (folder / "out").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.step("root", {}, fails)
    assert list((cache.folder / "root").iterdir()) == []
    assert (cache.step("root", {}, writes("whole")) / "out").read_text() == "whole"


@pytest.mark.parametrize("damage", ["record", "file"])
def test_a_damaged_artifact_is_made_anew(cache: Cache, damage: str) -> None:
    found = cache.step("root", {}, writes("x"))
    (found.folder / "artifact.json").write_text("{") if damage == "record" else (found / "out").unlink()
    assert (cache.step("root", {}, writes("again")) / "out").read_text() == "again"


def test_the_artifacts_that_were_used_last_are_kept(cache: Cache) -> None:
    first = cache.step("root", {"n": "first"}, writes("x"))
    os.utime(first.folder, (1, 1))
    for number in range(KEEP_PER_STEP):
        made = cache.step("root", {"n": str(number)}, writes("x"))
        os.utime(made.folder, (number + 2, number + 2))
    assert len(list((cache.folder / "root").iterdir())) == KEEP_PER_STEP
    assert not first.folder.exists()


def test_an_artifact_names_the_files_that_it_has(cache: Cache) -> None:
    artifact = cache.step("root", {}, writes("x"))
    assert artifact.files == {"out": file_sha256(artifact / "out")}
    with pytest.raises(KeyError, match="root makes out, not image"):
        artifact / "image"


def test_the_record_of_an_artifact_says_what_went_in(cache: Cache) -> None:
    artifact = cache.step("root", {"lock": "abc"}, writes("x"))
    record = json.loads((artifact.folder / "artifact.json").read_text())
    assert record["inputs"] == {"lock": "abc"}
    assert record["seconds"] >= 0


def sparse_file(path: Path, size: int, content: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in content.items():
            file.seek(offset)
            file.write(data)
    return path


def test_the_digest_of_a_sparse_file_depends_on_content_and_size_but_not_on_its_holes(tmp_path: Path) -> None:
    data = {64 * MIB: b"x" * 5000, 200 * MIB: b"y"}
    plain = sparse_file(tmp_path / "plain", 256 * MIB, data)
    with_zeros = sparse_file(tmp_path / "zeros", 256 * MIB, {32 * MIB: b"\0" * MIB, **data})
    assert with_zeros.stat().st_blocks > plain.stat().st_blocks
    digest = content_digest(plain)
    assert digest.startswith("sparse:")
    assert content_digest(with_zeros) == digest
    assert content_digest(sparse_file(tmp_path / "longer", 257 * MIB, data)) != digest
    assert content_digest(sparse_file(tmp_path / "moved", 256 * MIB, {65 * MIB: b"x" * 5000, 200 * MIB: b"y"})) != digest
    assert content_digest(sparse_file(tmp_path / "other", 256 * MIB, {64 * MIB: b"x" * 5000, 200 * MIB: b"z"})) != digest


def test_the_digest_of_a_tree_sees_names_modes_links_and_contents(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_text("x")
    (tree / "link").symlink_to("sub/file")
    seen = [tree_sha256(tree)]
    (tree / "sub" / "file").chmod(0o755)
    seen.append(tree_sha256(tree))
    (tree / "sub" / "file").write_text("y")
    seen.append(tree_sha256(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("sub")
    seen.append(tree_sha256(tree))
    (tree / "sub").rename(tree / "other")
    seen.append(tree_sha256(tree))
    assert len(set(seen)) == len(seen)


def test_the_digest_of_a_tree_does_not_see_times_and_byte_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = tree_sha256(tmp_path)
    os.utime(tmp_path / "file", (1, 1))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "file.pyc").write_text("x")
    assert tree_sha256(tmp_path) == before
