"""Lists of known-bad hashes: lines in, a file out, and what is found in it."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError, MamoriError
from mamori.inspect.scan.hashes import (
    ANY_LENGTH,
    MAX_NAME_BYTES,
    MAX_PROBLEMS,
    HashList,
    HashSource,
    compile_hashes,
    encode_hashes,
    open_hashes,
    parse_hashes,
)
from mamori.inspect.scan.known import MAX_KNOWN, KnownFiles
from mamori.inspect.scan.verdicts import Clean, Infected


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def line(number: int, length: str = "*", name: str = "") -> str:
    return f"{digest(number).hex()}:{length}:{name or f'Virus.{number}'}"


def test_every_entry_is_found_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "list"
    assert compile_hashes([line(number, str(number)) for number in range(1000)], path, "test") == 1000
    hashes = open_hashes(path)
    assert len(hashes) == 1000
    for number in range(1000):
        assert hashes.find(digest(number), number) == f"Virus.{number}"
        assert hashes.find(digest(number), number + 1) is None
        assert hashes.find(digest(number + 1000), number) is None
    assert hashes.find(bytes(32), 0) is None
    assert hashes.find(b"\xff" * 32, 0) is None
    hashes.close()


def test_an_entry_may_be_for_any_length_or_for_several() -> None:
    entries = [(digest(1), ANY_LENGTH, "any"), (digest(2), 5, "five"), (digest(2), 7, "seven"), (digest(2), 7, "later")]
    hashes = HashList(encode_hashes(entries), "test")
    assert len(hashes) == 3
    assert [hashes.find(digest(1), length) for length in (0, 5, 2**40)] == ["any"] * 3
    assert [hashes.find(digest(2), length) for length in (5, 6, 7)] == ["five", None, "later"]


def test_comments_and_empty_lines_are_no_entries() -> None:
    assert parse_hashes(["# a list", "", "  ", line(1).upper().replace("VIRUS", "Virus") + "\n", line(2, "3", "日本")], "x") == [
        (digest(1), ANY_LENGTH, "Virus.1"),
        (digest(2), 3, "日本"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x", id="no entry"),
        pytest.param("ab" * 31 + ":1:Name", id="a short hash"),
        pytest.param("xy" * 32 + ":1:Name", id="no hexadecimal"),
        pytest.param("ab" * 32 + ":-1:Name", id="a negative length"),
        pytest.param("ab" * 32 + ":" + "9" * 19 + ":Name", id="a length beyond 64 bits"),
        pytest.param("ab" * 32 + ":1:", id="no name"),
        pytest.param("ab" * 32 + ":1:a\tb", id="a control character"),
        pytest.param("ab" * 32 + ":1:" + "あ" * (MAX_NAME_BYTES // 3 + 1), id="a long name"),
        pytest.param("ab" * 16 + ":68:MD5", id="an MD5 list"),
    ],
)
def test_a_bad_line_is_told_with_its_number(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_hashes([line(1), text], "bad.hsb")
    assert str(caught.value).startswith("bad.hsb: line 2: expected SHA-256:length or *:name, got ")


def test_a_wrong_file_is_told_briefly() -> None:
    with pytest.raises(BadInputError) as caught:
        parse_hashes(["x" * 10_000] * 10_000, "x")
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert len(str(caught.value)) < 10_000


def test_a_failed_compilation_leaves_the_old_list(tmp_path: Path) -> None:
    path = tmp_path / "list"
    compile_hashes([line(1)], path, "test")
    with pytest.raises(BadInputError):
        compile_hashes(["x"], path, "test")
    assert open_hashes(path).find(digest(1), 0) == "Virus.1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["list"]


@pytest.mark.parametrize("length", [0, 1, 23, 24, 30, 67, 70, -1, -9])
def test_a_list_that_was_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    content = encode_hashes([(digest(1), 1, "name"), (digest(2), 2, "name")])
    path = tmp_path / "list"
    path.write_bytes(content[:length])
    with pytest.raises(BadInputError, match="a compiled list of hashes"):
        open_hashes(path)


def test_a_list_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match="nowhere: No such file"):
        open_hashes(tmp_path / "nowhere")


def test_a_new_list_is_taken_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "list"
    source = HashSource(path)
    source.refresh()
    assert "No such file" in source.problem
    assert source.find(digest(1), 0) is None
    for number in (1, 2):
        compile_hashes([line(number)], path, "test")
        source.refresh()
        assert (source.problem, source.find(digest(number), 0)) == ("", f"Virus.{number}")
    (tmp_path / "new").write_bytes(b"damaged")
    (tmp_path / "new").replace(path)
    source.refresh()
    assert "expected a compiled list" in source.problem
    assert source.find(digest(2), 0) == "Virus.2"
    path.unlink()
    source.refresh()
    assert source.find(digest(2), 0) == "Virus.2"
    source.close()
    assert source.find(digest(2), 0) is None


def test_known_files_are_told_by_all_of_their_hash_and_their_length() -> None:
    known = KnownFiles()
    known.add(digest(1), 5, Clean())
    known.add(digest(2), 5, Infected("x"))
    assert [known.get(digest(1), 5), known.get(digest(2), 5)] == [Clean(), Infected("x")]
    assert [known.get(digest(1), 6), known.get(digest(1)[:31] + b"\0", 5)] == [None, None]


def test_the_least_recently_used_file_is_forgotten() -> None:
    known = KnownFiles(maximum=3)
    for number in range(3):
        known.add(digest(number), 0, Clean())
    assert known.get(digest(0), 0) == Clean()
    known.add(digest(3), 0, Clean())
    known.add(digest(3), 0, Clean())
    assert [number for number in range(4) if known.get(digest(number), 0)] == [0, 2, 3]
    known.clear()
    assert len(known) == 0


def test_known_files_take_the_memory_that_is_said() -> None:
    known = KnownFiles()
    tracemalloc.start()
    for _ in range(MAX_KNOWN * 2):
        known.add(os.urandom(32), 1000, Clean())
    took = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(known) == MAX_KNOWN
    assert took < 5_000_000, took


def test_a_pipe_or_a_folder_in_the_lists_place_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hashes"
    compile_hashes([line(1)], path, "test")
    source = HashSource(path)
    source.refresh()
    path.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(path)
        source.refresh()
        assert source.problem in (f"{path}: not a file", f"{path}: Is a directory")
        assert source.find(digest(1), 7) == "Virus.1", "the old list stays"
        path.rmdir() if path.is_dir() else path.unlink()
