"""SHA256SUMS: strict to read, complete to write, and the first wrong file has a name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.records.checksums import CHECKSUMS, SIGNATURE, check_checksums, parse_checksums, render_checksums, write_checksums
from mamori.formats.problems import BadInputError, MamoriError

A, B = "a" * 64, "b" * 64


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for name, content in {"disk.img.zst": b"disk", "licences.csv": b"", "rendered/grub.cfg": b"grub"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_checksums(tmp_path)
    (tmp_path / SIGNATURE).write_bytes(b"signature")
    return tmp_path


def test_the_list_is_what_coreutils_writes(release: Path) -> None:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in (("disk.img.zst", b"disk"), ("licences.csv", b""))}
    expected = f"{digests['disk.img.zst']}  disk.img.zst\n{digests['licences.csv']}  licences.csv\n"
    assert (release / CHECKSUMS).read_text().startswith(expected)


def test_a_whole_folder_passes_and_gives_its_list(release: Path) -> None:
    assert sorted(check_checksums(release)) == ["disk.img.zst", "licences.csv", "rendered/grub.cfg"]


def test_writing_again_changes_nothing(release: Path) -> None:
    before = (release / CHECKSUMS).read_bytes()
    assert write_checksums(release).read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda r: (r / "disk.img.zst").write_bytes(b"disc"), "disk.img.zst: damaged", id="a changed byte"),
        pytest.param(lambda r: (r / "licences.csv").write_bytes(b"x"), "licences.csv: damaged", id="a file that grew"),
        pytest.param(lambda r: (r / "rendered/grub.cfg").unlink(), "rendered/grub.cfg: missing", id="a missing file"),
        pytest.param(lambda r: (r / "z").write_bytes(b""), "z: not in SHA256SUMS", id="an extra file"),
        pytest.param(lambda r: (r / ".hidden").write_bytes(b""), ".hidden: not in SHA256SUMS", id="a hidden file"),
        pytest.param(lambda r: (r / "rendered/SHA256SUMS").write_bytes(b""), "not in SHA256SUMS", id="a list in a folder below"),
        pytest.param(lambda r: (r / "link").symlink_to("disk.img.zst"), "link: not a regular file", id="a symbolic link"),
        pytest.param(lambda r: (r / "d").symlink_to("rendered"), "d: not a regular file", id="a link to a folder"),
        pytest.param(lambda r: os.mkfifo(r / "pipe"), "pipe: not a regular file", id="a pipe"),
        pytest.param(lambda r: (r / CHECKSUMS).unlink(), "SHA256SUMS: cannot be read: No such file", id="no list"),
        pytest.param(lambda r: (r / CHECKSUMS).write_bytes(b"x" * (1 << 21)), "at most 1048576 bytes", id="an endless list"),
        pytest.param(lambda r: (r / CHECKSUMS).write_bytes(b"\xff\n"), "line 1: expected 64 hex", id="a binary list"),
    ],
)
def test_the_first_wrong_file_is_named(release: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(release)
    with pytest.raises(MamoriError, match=says):
        check_checksums(release)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f"{A}  ../keys", id="a folder above"),
        pytest.param(f"{A}  a/../../b", id="a folder above in the middle"),
        pytest.param(f"{A}  /etc/passwd", id="an absolute name"),
        pytest.param(f"{A}  a//b", id="an empty folder name"),
        pytest.param(f"{A}  ./a", id="a name with a dot"),
        pytest.param(f"{A}  -rf", id="an option"),
        pytest.param(f"{A}  a b", id="a space"),
        pytest.param(f"{A}  a\x1b[2J", id="a control character"),
        pytest.param(f"{A}  a\r", id="a carriage return"),
        pytest.param(f"{A}  あ", id="a letter that looks like others"),
        pytest.param(f"\\{A}  a", id="an escaped name"),
        pytest.param(f"{A} *a", id="binary mode"),
        pytest.param(f"{A.upper()}  a", id="upper case"),
        pytest.param(f"{A[1:]}  a", id="a short digest"),
        pytest.param(f"{A}  SHA256SUMS", id="the list itself"),
        pytest.param(f"{A}  SHA256SUMS.p7s", id="its signature"),
        pytest.param("", id="an empty line"),
    ],
)
def test_a_line_that_two_programs_may_read_differently_is_refused(line: str) -> None:
    with pytest.raises(BadInputError, match="line 1"):
        parse_checksums(line + "\n")


@pytest.mark.parametrize("text", [f"{A}  a\n{B}  a\n", f"{A}  a", f"{A}  a\n{B}  b"], ids=["a file twice", "no end", "half a list"])
def test_a_list_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_checksums(text)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"")
    with pytest.raises(BadInputError, match="plain name of a file"):
        write_checksums(tmp_path)


@given(st.text() | st.lists(st.sampled_from([f"{A}  a\n", f"{B}  b/c.x\n", "x", "\n", " "])).map("".join))
def test_foreign_text_gives_plain_names_or_the_one_error(text: str) -> None:
    try:
        digests = parse_checksums(text)
    except BadInputError:
        return
    assert sorted(render_checksums(digests).splitlines()) == sorted(text.split("\n")[:-1])
    assert not any(Path(name).is_absolute() or ".." in Path(name).parts for name in digests)
