"""Compiled list files: made from people's and feeds' text, replaced under readers, damaged."""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.process import start
from mamori.formats.problems import BadInputError, MamoriError
from mamori.inspect.http_url import Url
from mamori.inspect.lists import commands
from mamori.inspect.lists.compile import MAX_TOLD, compile_lists
from mamori.inspect.lists.fileformat import (
    BLOCK_BYTES,
    BLOCK_RECORDS,
    HEADER_BYTES,
    MAGIC,
    Records,
    digest_of,
    encode_block,
    encode_header,
    hash_of,
    parse_header,
)
from mamori.inspect.lists.listfile import MAX_UNLISTED, ListError, ListFile
from mamori.inspect.lists.source import MAX_LINE_BYTES, read_suffixes
from tests.support.lists import RULES, compiled, make_source
from tests.support.wait import check_until

APP = Path(__file__).parents[3] / "python-app/src"


def names(count: int, seed: int = 1) -> list[str]:
    """Random names; two seeds share none."""
    letters = random.Random(seed)  # noqa: S311
    return [f"{letters.getrandbits(60):x}-{seed}.{letters.choice(['com', 'co.jp', 'net'])}" for _ in range(count)]


def test_every_entry_is_found_and_no_other_name(tmp_path: Path) -> None:
    listed, others = names(20_000), names(100_000, seed=2)
    with ListFile.open(compiled(tmp_path, {"one": listed, "two": listed[::2]})) as lists:
        assert lists.records == 30_000
        found = [lists.lookup_name(f"www.{name}") for name in listed]
        assert [len(hits) for hits in found] == [2, 1] * 10_000
        assert [name for name in others if lists.lookup_name(name)] == []
        assert [name for name in others[:10_000] if lists.lookup_url(Url(name, 80, "/a/b/c", "d"))] == []
        lists.check()


def test_what_a_list_says_of_a_host_it_says_again_and_again(tmp_path: Path) -> None:
    with ListFile.open(compiled(tmp_path, {"one": ["bad.com", "half.com/bad/"]})) as lists:
        for _ in range(3):
            assert [hit.entry for hit in lists.lookup_name("www.bad.com")] == ["bad.com"]
            assert lists.lookup_name("www.good.com") == ()
            assert lists.lookup_url(Url("half.com", 80, "/good/", "")) == ()
            assert [hit.entry for hit in lists.lookup_url(Url("half.com", 80, "/bad/x", ""))] == ["half.com/bad/"]
            assert lists.lookup_name("half.com") == ()


def test_hosts_that_are_remembered_as_unlisted_are_bounded_in_number_and_length(tmp_path: Path) -> None:
    with ListFile.open(compiled(tmp_path, {"one": ["bad.com"]})) as lists:
        for name in names(MAX_UNLISTED + 10):
            lists.lookup_name(name)
        assert 0 < len(lists._unlisted) <= MAX_UNLISTED
        lists.lookup_name("x" * 100_000)
        assert max(map(len, lists._unlisted)) <= 253


def test_a_name_on_more_lists_than_a_block_has_records_is_found_on_all_of_them(tmp_path: Path) -> None:
    keys = [f"list-{number}" for number in range(BLOCK_RECORDS * 2 + 50)]
    with ListFile.open(compiled(tmp_path, {key: ["example.com", f"{key}.net"] for key in keys})) as lists:
        lists.check()
        assert [hit.list.key for hit in lists.lookup_name("example.com")] == keys
        assert all([hit.list.key for hit in lists.lookup_name(f"{key}.net")] == [key] for key in keys)


@pytest.mark.parametrize("count", [0, 1, BLOCK_RECORDS - 1, BLOCK_RECORDS, BLOCK_RECORDS + 1, 3 * BLOCK_RECORDS])
def test_a_file_of_any_number_of_records_can_be_read(tmp_path: Path, count: int) -> None:
    listed = names(count)
    with ListFile.open(compiled(tmp_path, {"one": listed})) as lists:
        lists.check()
        assert lists.records == count
        assert all(lists.lookup_name(name) for name in listed)
        assert not lists.lookup_name("elsewhere.com")


def test_the_same_input_gives_the_same_bytes_and_another_input_another_key(tmp_path: Path) -> None:
    one = compiled(tmp_path / "1", {"a": names(1000), "b": ["example.com"]}).read_bytes()
    same = compiled(tmp_path / "2", {"a": names(1000), "b": ["example.com"]}).read_bytes()
    other = compiled(tmp_path / "3", {"a": [*names(1000), "example.net"], "b": ["example.com"]}).read_bytes()
    assert one == same
    assert (tmp_path / "1/compiled.lists").stat().st_mode & 0o777 == 0o644
    assert one[24:56] != other[24:56]


def test_repetitions_cost_nothing_but_a_host_of_urls_costs_a_record(tmp_path: Path) -> None:
    listed = ["example.com", "EXAMPLE.com.", "example.net/a", "example.net/b", "example.net/a"]
    with ListFile.open(compiled(tmp_path, {"one": listed * 1000})) as lists:
        assert lists.records == 1 + 2 + 1
        lists.check()


def test_lines_may_have_comments_and_any_line_ends(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf# a list\r\n  example.com  # why\r\n\r\n\t#\nexample.net/p#top\n\xe3\x81\x82.jp\nlast.com"
    with ListFile.open(compiled(tmp_path, {"one": text})) as lists:
        assert lists.records == 5
        assert all(map(lists.lookup_name, ["example.com", "xn--l8j.jp", "last.com"]))
        assert lists.lookup_url(Url("example.net", 80, "/p", ""))


def test_what_compiling_did_is_told(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", {"one": ["co.jp", "=co.jp", "github.io", "example.com", *names(200), "no entry"]})
    report = compile_lists(source, tmp_path / "out")
    (one,) = report.files
    assert (one.entries, one.bad_lines, one.suffix_lines, one.suffixes) == (204, 1, 2, ("co.jp", "github.io"))
    assert (report.records, report.size_bytes) == (203, (tmp_path / "out").stat().st_size)
    assert (one.bad[0].key, one.bad[0].expected) == ("line 205", "a name or a URL")


def test_a_few_bad_lines_of_a_feed_are_skipped_and_many_refuse_it(tmp_path: Path) -> None:
    out = compiled(tmp_path, {"one": [*names(99), "no entry"]})
    before = out.read_bytes()
    with pytest.raises(BadInputError) as caught:
        compiled(tmp_path, {"one": [*names(98), "no entry"]})
    assert [(problem.key, problem.got) for problem in caught.value.problems] == [
        ("line 99", "white space or a control character inside")
    ]
    with pytest.raises(BadInputError) as caught:
        compiled(tmp_path, {"one": [*names(1000), *["no entry"] * 1000], "two": ["*.com"]})
    assert len(caught.value.problems) == MAX_TOLD + 2
    assert ("(all)", "1000 of 2000") in [(problem.key, problem.got) for problem in caught.value.problems]
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compiled.lists", "source"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param(b"\xff.com", "UTF-8", id="not UTF-8"),
        pytest.param(b"a" * 5 * MAX_LINE_BYTES, "a line of less than", id="a line without end"),
        pytest.param(b"a" * (MAX_LINE_BYTES - 1), "at most", id="a line of just the limit"),
        pytest.param("あ".encode() * 5000, "at most", id="a name of 5000 letters"),
    ],
)
def test_a_bad_line_is_told_and_the_next_is_read(tmp_path: Path, line: bytes, told: str) -> None:
    with pytest.raises(BadInputError) as caught:
        compiled(tmp_path, {"one": line + b"\n*.com\n"})
    assert [problem.key for problem in caught.value.problems] == ["line 1", "line 2"]
    assert told in caught.value.problems[0].expected


BAD_SOURCES = {
    "a category without its key": ('kind = "dangerous"', 'kind = "category"', "lists.one.category"),
    "an unknown kind": ('"dangerous"', '"nasty"', "lists.one.kind"),
    "an unknown key": ("label_en", "labelen", "did you mean `label_en`"),
    "a list's key in capitals": ("[lists.one]", "[lists.One]", "lower-case letters"),
    "a file outside": ('"one.txt"', '"../one.txt"', "files[0]"),
    "a file from the root": ('"one.txt"', '"/etc/passwd"', "files[0]"),
    "no file": ('"one.txt"', '"two.txt"', "cannot be read: No such file"),
    "a folder": ('"one.txt"', '"."', "two.txt|not a file|Is a directory"),
    "a label of two lines": ("Label one", "Label\\none", "lists.one.label_en"),
    "no public suffix list": ('"suffixes.dat"', '"none.dat"', "hint: name one in lists.toml"),
    "a public suffix list that is none": ('"suffixes.dat"', '"one.txt"', "a public suffix list"),
    "no TOML": ("[lists.one]", "[lists.one", "TOML 1.0"),
}


@pytest.mark.parametrize(("old", "new", "told"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_bad_source_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, told: str) -> None:
    source = make_source(tmp_path / "s", {"one": ["example.com"]})
    text = (source / "lists.toml").read_text()
    assert old in text
    (source / "lists.toml").write_text(text.replace(old, new))
    with pytest.raises(MamoriError, match=told if "|" in told else f"(?s).*{told.replace('[', chr(92) + '[')}"):
        compile_lists(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", {"one": []})
    (source / "one.txt").unlink()
    os.mkfifo(source / "one.txt")
    with pytest.raises(MamoriError, match="not a file"):
        compile_lists(source, tmp_path / "out")
    with pytest.raises(ListError, match="cannot be read"):
        ListFile.open(source / "one.txt")


def test_where_the_file_cannot_be_written_is_told(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", {"one": ["example.com"]})
    with pytest.raises(MamoriError, match="cannot be written: No such file"):
        compile_lists(source, tmp_path / "none" / "out")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MamoriError, match="cannot be written: Is a directory"):
        compile_lists(source, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "s"]


def test_the_public_suffix_list_can_come_from_a_compiled_file(tmp_path: Path) -> None:
    first = compiled(tmp_path, {"one": ["example.com"]})
    assert read_suffixes(first) == RULES
    source = make_source(tmp_path / "owner", {"own": ["github.io"]})
    (source / "suffixes.dat").write_bytes(first.read_bytes())
    assert compile_lists(source, tmp_path / "out").files[0].suffixes == ("github.io",)
    with ListFile.open(tmp_path / "out") as lists:
        assert lists.suffixes() == RULES


def test_a_reader_knows_when_its_file_was_replaced(tmp_path: Path) -> None:
    file = compiled(tmp_path, {"one": ["example.com"]})
    with ListFile.open(file) as lists:
        assert not lists.is_stale()
        compiled(tmp_path, {"one": ["example.com"]})  # the same bytes: another file all the same
        assert lists.is_stale()
        assert lists.lookup_name("example.com")
        file.unlink()
        assert not lists.is_stale()
        assert lists.lookup_name("example.com")


READER = """
import sys
from pathlib import Path
from mamori.inspect.lists.listfile import ListFile

path, opened, lookups = Path(sys.argv[1]), 1, 0
lists = ListFile.open(path)
while True:
    if lists.is_stale():
        lists.close()
        lists = ListFile.open(path)
        opened += 1
    answers = {name: bool(lists.lookup_name(f"www.{name}.com")) for name in ("always", "even", "odd", "never")}
    assert answers["always"] and not answers["never"] and answers["even"] != answers["odd"], answers
    lookups += 1
    if lookups % 20 == 0:
        Path(sys.argv[2]).write_text(f"{opened} {lookups}")
    if lists.lookup_name("stop.com"):
        break
"""


def test_a_reader_in_another_process_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    filler = names(3000)
    file = compiled(tmp_path, {"one": ["always.com", "even.com", *filler]})
    told = tmp_path / "told"
    argv = [sys.executable, "-c", READER, file, told]
    with start(argv, env={**os.environ, "PYTHONPATH": str(APP)}, log=tmp_path / "log", explain="look up names") as reader:
        check_until("the reader looks up", told.exists, 30)
        for turn in range(30):
            compiled(tmp_path, {"one": ["always.com", "odd.com" if turn % 2 else "even.com", *filler[turn:]]})
        compiled(tmp_path, {"one": ["always.com", "odd.com", "stop.com"]})
        assert reader.wait(60) == 0, (tmp_path / "log").read_text()
    opened, lookups = map(int, told.read_text().split())
    assert opened > 3
    assert lookups > 20


NOT_FILES = {
    "nothing": b"",
    "something else": b"#!/bin/sh\n" * 1000,
    "a magic alone": MAGIC,
    "a magic and zeros": MAGIC + bytes(BLOCK_BYTES * 2),
}


@pytest.mark.parametrize("content", NOT_FILES.values(), ids=NOT_FILES)
def test_what_is_no_list_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ListError, match=f"^{tmp_path}/file: "):
        ListFile.open(tmp_path / "file")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ListError, match="cannot be read"):
            ListFile.open(path)


def test_a_file_cut_short_or_prolonged_anywhere_is_refused(tmp_path: Path) -> None:
    content = compiled(tmp_path, {"one": names(500)}).read_bytes()
    for size in (*range(0, 300, 7), *range(300, len(content), 997), len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(ListError):
            ListFile.open(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(content + b"\0")
    with pytest.raises(ListError, match="overlong"):
        ListFile.open(tmp_path / "cut")


def test_a_file_of_a_later_version_is_told_apart_from_damage(tmp_path: Path) -> None:
    content = bytearray(compiled(tmp_path, {"one": ["example.com"]}).read_bytes())
    content[8:10] = struct.pack("<H", 2)
    (tmp_path / "later").write_bytes(content)
    with pytest.raises(ListError, match="version 2; this software reads version 1"):
        ListFile.open(tmp_path / "later")


def rewritten(content: bytes, records: Sequence[tuple[int, int]], first: int | None = None) -> bytes:
    """The file of one block with other records, and all checksums and digests as they should be."""
    header = parse_header(content[:HEADER_BYTES], len(content))
    block = encode_block(list(records))
    index = (records[0][0] if first is None else first).to_bytes(8, "little")
    changed = bytearray(content[:-BLOCK_BYTES] + block)
    changed[header.index.offset : header.index.end] = index
    header = replace(
        header,
        index=replace(header.index, digest=digest_of(index)),
        blocks=replace(header.blocks, digest=digest_of(block)),
    )
    changed[:HEADER_BYTES] = encode_header(header)
    return bytes(changed)


def test_check_finds_what_no_checksum_can(tmp_path: Path) -> None:
    file = compiled(tmp_path, {"one": ["a.com", "b.com", "c.com"]})
    content = file.read_bytes()
    records = sorted((int.from_bytes(hash_of(name, content[24:56]), "big"), 1) for name in ("a.com", "b.com", "c.com"))
    assert rewritten(content, records) == content
    wrong = {
        "record 1 is out of order": rewritten(content, [records[1], records[0], records[2]]),
        "record 2 is out of order": rewritten(content, [*records[:2], records[1]]),
        "record 0 is out of order": rewritten(content, records, first=records[0][0] - 1),
        "record 0 is of an unknown list": rewritten(content, [(records[0][0], 1 << 4 | 1), *records[1:]]),
    }
    for told, changed in wrong.items():
        file.write_bytes(changed)
        with ListFile.open(file) as lists, pytest.raises(ListError, match=told):
            lists.check()


def test_an_entry_of_an_unknown_list_is_damage(tmp_path: Path) -> None:
    file = compiled(tmp_path, {"one": ["a.com"]})
    content = file.read_bytes()
    number = int.from_bytes(hash_of("a.com", content[24:56]), "big")
    file.write_bytes(rewritten(content, [(number, 7 << 4 | 1)]))
    with ListFile.open(file) as lists, pytest.raises(ListError, match="an unknown list"):
        lists.lookup_name("www.a.com")


def test_records_are_sorted_and_said_once() -> None:
    records = Records(bytes(32))
    texts = [f"{number}.com" for number in range(5000)]
    for text in [*texts, *texts]:
        records.add(text, 3)
        records.add(text, 2)
    result = list(records.sorted())
    assert result == sorted({(int.from_bytes(hash_of(text, bytes(32)), "big"), tag) for text in texts for tag in (2, 3)})


def test_a_block_says_its_own_checksum() -> None:
    block = encode_block([(1, 2), (3, 4)])
    assert len(block) == BLOCK_BYTES
    assert block[-4:] == zlib.crc32(block[:-4]).to_bytes(4, "little")


def test_the_commands_compile_look_up_and_check(tmp_path: Path) -> None:
    said: list[str] = []
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(), said.append)
    source = make_source(
        tmp_path / "s", {"phishing": ["example.com/bad/", "co.jp", "a.com:81", *names(200), "no entry"], "category-games": []}
    )
    out = str(tmp_path / "out")
    for arguments in (
        ["compile", out, "--source", str(source)],
        ["check", out],
        ["lookup", out, "http://www.example.com/bad/x", "日本語.jp"],
        ["lookup", "--json", out, "www.example.com:8080/bad/x", "co.jp", "a.com:81", "a.com:82"],
    ):
        options = parser.parse_args(["lists", *arguments])
        options.run(options)
    compiling, checking, text, rows = said
    assert "203 entries" in compiling
    assert "1 bad lines skipped" in compiling
    assert "line 204: expected a name or a URL, got white space" in compiling
    assert "match only exactly: co.jp\n" in compiling
    assert "sound, 205 records" in checking
    assert "category-games: category games" in checking
    assert text == (
        "http://www.example.com/bad/x: phishing (Label phishing), by example.com/bad/: everything below a folder\n"
        "日本語.jp: on no list\n"
    )
    assert [[hit["entry"] for hit in row["hits"]] for row in json.loads(rows)] == [
        ["example.com/bad/"],
        ["co.jp"],
        ["a.com:81/"],
        [],
    ]
    with pytest.raises(BadInputError, match=r"\*\.com"):
        commands.run_lookup(argparse.Namespace(file=Path(out), sites=["a.com", "*.com"], json=False))
