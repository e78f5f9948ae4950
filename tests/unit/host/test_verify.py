"""The parts of verification that need no image: what a record, a kernel image and a list of names may look like."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from firmware.layout import Partition
from firmware.process import ToolError
from firmware.recipe import Image, read_image
from firmware.verify.case import blamed_on
from firmware.verify.disk import check_names, cut_out
from firmware.verify.kernel_image import read_kernel_image, read_sections, section_texts
from firmware.verify.record import read_record
from mamori.formats.problems import BadInputError, MamoriError
from tests.support.recipes import SOURCE

MIB = 1024 * 1024
RECORD: dict[str, Any] = {
    "format": 1,
    "image": {
        "name": "lab",
        "board": "qemu-x86_64",
        "base": "debian",
        "variant": "lab",
        "version": "2026.11.0",
        "compatible": "mamori-qemu-x86_64-lab",
    },
    "source": {"commit": "0" * 40, "dirty": False, "epoch": 1_795_000_000},
    "steps": [{"step": "disk", "key": "k", "digest": "a" * 64, "inputs": {}, "files": {"disk.img": f"sparse:{'b' * 64}"}}],
    "certificates": {"bundle CA 1": {"subject": "CN=ca", "sha256": "c" * 64}},
    "timings": {"seconds": 1.5},
}


def record_file(folder: Path, record: object) -> Path:
    path = folder / "build.json"
    path.write_text(json.dumps(record))
    return path


def test_a_record_is_read_with_what_can_be_compared(tmp_path: Path) -> None:
    record = read_record(record_file(tmp_path, RECORD))
    assert (record.image.version, record.source.epoch) == ("2026.11.0", 1_795_000_000)
    assert record.made("disk", "disk.img") == f"sparse:{'b' * 64}"


def test_a_key_that_a_newer_mamori_adds_is_passed_over(tmp_path: Path) -> None:
    """docs/records.md, 4.1."""
    assert read_record(record_file(tmp_path, RECORD | {"weather": "rain"})).image.name == "lab"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("format",), 2, "format: expected 1"),
        (("format",), True, "format: expected 1"),
        (("image", "colour"), "red", "image.colour: expected one of"),
        (("image", "variant"), "beta", "image.variant: expected one of lab, release, got 'beta'"),
        (("image", "version"), "latest", "image.version: expected a version"),
        (("source", "commit"), "HEAD", "source.commit: expected 40 hex digits"),
        (("source", "dirty"), 0, "source.dirty: expected true or false"),
        (("steps",), {}, "steps: expected an array"),
        (("certificates",), [], "certificates: expected a table"),
    ],
)
def test_a_record_that_breaks_its_format_is_refused_with_the_key(
    tmp_path: Path, path: tuple[str, ...], value: object, told: str
) -> None:
    record = copy.deepcopy(RECORD)
    table = record
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value
    with pytest.raises(BadInputError) as refused:
        read_record(record_file(tmp_path, record))
    assert told in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff", b"", b"[]", b"[" * 100_000])
def test_a_record_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "build.json").write_bytes(content)
    with pytest.raises(BadInputError):
        read_record(tmp_path / "build.json")


def test_a_step_that_the_record_does_not_know_is_named(tmp_path: Path) -> None:
    record = read_record(record_file(tmp_path, RECORD))
    with pytest.raises(MamoriError, match=r"expected a step bundle that made bundle\.raucb"):
        record.made("bundle", "bundle.raucb")


def pe_file(*sections: tuple[str, bytes]) -> bytes:
    """The parts of a PE file that are looked at: headers, section table, contents."""
    start, optional = 0x80, 16
    table_end = start + 24 + optional + 40 * len(sections)
    content = bytearray(table_end)
    struct.pack_into("<I", content, 0x3C, start)
    struct.pack_into("<4sHH12xHH", content, start, b"PE\0\0", 0x8664, len(sections), optional, 0)
    for number, (name, data) in enumerate(sections):
        place = start + 24 + optional + 40 * number
        struct.pack_into("<8sIIII16x", content, place, name.encode(), len(data), 0, len(data) + 3, len(content))
        content += data + b"\0" * 3  # padding that is no part of the section
    return bytes(content)


ROOT_HASH, SALT = "5a" * 32, "a5" * 32
LINE = f"console=ttyS0 roothash={ROOT_HASH} mamori.blocks=100 mamori.salt={SALT}"


def kernel(*lines: str, version: str = SOURCE.version) -> bytes:
    return pe_file((".osrel", f'ID=mamori\nIMAGE_VERSION="{version}"\n'.encode()), *((".cmdline", line.encode()) for line in lines))


@pytest.fixture
def image() -> Image:
    return read_image("lab", SOURCE)


def test_sections_of_the_same_name_are_all_found_in_order() -> None:
    content = kernel("one", "two\0\n", "three")
    assert section_texts(content, ".cmdline", "kernel") == ["one", "two", "three"]
    assert [name for name, _ in read_sections(content, "kernel")] == [".osrel", ".cmdline", ".cmdline", ".cmdline"]


def test_a_kernel_image_starts_the_root_that_all_its_command_lines_name(tmp_path: Path, image: Image) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(kernel(LINE, f"{LINE} mamori.slot=a", f"{LINE} mamori.slot=b"))
    found = read_kernel_image(path, image, "kernel")
    assert (found.root_hash, found.blocks, found.salt) == (ROOT_HASH, 100, SALT)
    assert found.hash_offset == 101 * 4096


OTHER = LINE.replace(ROOT_HASH, "00" * 32)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(kernel(LINE, f"{LINE} mamori.slot=a"), "expected command lines for no slot, a, b", id="a slot is missing"),
        pytest.param(kernel(LINE, f"{LINE} mamori.slot=b", f"{LINE} mamori.slot=a"), "for none, b, a", id="slots are exchanged"),
        pytest.param(
            kernel(LINE, f"{LINE} mamori.slot=a", f"{OTHER} mamori.slot=b"), "different roots", id="another root in slot b"
        ),
        pytest.param(kernel("", "mamori.slot=a", "mamori.slot=b"), "names no root", id="no root at all"),
        pytest.param(
            kernel(LINE, LINE, LINE, version="2025.1.0"), "expected a kernel image of version 2026.11.0", id="another version"
        ),
        pytest.param(b"MZ", "ends before its section table", id="two bytes"),
        pytest.param(b"\0" * 4096, "not a PE file", id="zeros"),
        pytest.param(kernel(LINE)[:0xB0], "ends before its section table", id="cut short"),
    ],
)
def test_a_kernel_image_that_does_not_say_one_thing_is_refused(tmp_path: Path, image: Image, content: bytes, told: str) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    with pytest.raises(MamoriError) as refused:
        read_kernel_image(path, image, "partition boot-a")
    assert str(refused.value).startswith("partition boot-a: ")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("found", "told"),
    [({"a"}, "disk: b is missing"), ({"a", "b", "c"}, "disk: c does not belong there"), ({"c"}, "disk: a is missing")],
)
def test_a_missing_name_is_told_before_one_too_many(found: set[str], told: str) -> None:
    with pytest.raises(MamoriError, match=told):
        check_names({name: Path(name) for name in found}, {"a", "b"}, "disk")


def test_a_partition_is_cut_out_with_its_holes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
        for offset, data in (
            (7 * MIB, b"before"),
            (8 * MIB, b"first"),
            (30 * MIB, b"middle"),
            (40 * MIB - 4, b"last"),
            (40 * MIB, b"after"),
        ):
            file.seek(offset)
            file.write(data)
    cut = cut_out(disk, Partition("data", 7, "", "", start_mib=8, size_mib=32), tmp_path / "cut")
    content = cut.read_bytes()
    assert len(content) == 32 * MIB
    assert (content[:5], content[22 * MIB : 22 * MIB + 6], content[-4:]) == (b"first", b"middle", b"last")
    assert content.count(0) == len(content) - 15
    assert cut.stat().st_blocks * 512 < 2 * MIB


def test_what_a_tool_complains_of_is_told_without_its_command() -> None:
    with pytest.raises(MamoriError) as refused, blamed_on("disk.img: not ours"):
        raise ToolError("look", "exit code 1", ["first", "Verification failed", ""], "tool --secret-looking arguments")
    assert str(refused.value) == "disk.img: not ours (Verification failed)"
