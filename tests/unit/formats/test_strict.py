import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from mamori.formats.problems import BadInputError, MamoriError
from mamori.formats.strict import MAX_FILE_BYTES, Between, Matches, parse, parse_toml, read_toml


class Channel(enum.Enum):
    STABLE = "stable"
    BETA = "beta"


class Level(enum.Enum):
    ONE = 1
    TWO = 2


@dataclass(frozen=True)
class Port:
    name: Annotated[str, Matches(r"[a-z]+\d", "a port's name")]
    up: bool = True


@dataclass(frozen=True)
class Everything:
    number: int
    text: str
    flag: bool
    channel: Channel
    level: Level
    limited: Annotated[int, Between(1, 9)]
    matched: Annotated[str, Matches(r"[a-z]+", "lower-case letters")]
    port: Port
    ports: tuple[Port, ...]
    words: tuple[Annotated[str, Matches(r"[a-z]+", "a word")], ...]
    sizes: Mapping[str, Annotated[int, Between(0, 10)]]
    maybe: int | None = None
    maybe_limited: Annotated[int, Between(1, 9)] | None = None
    defaulted: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Optional:
    value: int | None


GOOD = """
number = -3
text = "雨"
flag = false
channel = "beta"
level = 2
limited = 9
matched = "abc"
port = { name = "eth0", up = false }
ports = [{ name = "eth1" }, { name = "eth2" }]
words = ["a", "b"]
sizes = { "root a" = 10, boot = 0 }
maybe = 7
maybe_limited = 1
"""

VALUE = Everything(
    number=-3,
    text="雨",
    flag=False,
    channel=Channel.BETA,
    level=Level.TWO,
    limited=9,
    matched="abc",
    port=Port("eth0", up=False),
    ports=(Port("eth1"), Port("eth2")),
    words=("a", "b"),
    sizes={"root a": 10, "boot": 0},
    maybe=7,
    maybe_limited=1,
)


def complaints(text: str, schema: type = Everything) -> list[str]:
    with pytest.raises(BadInputError) as caught:
        parse(schema, parse_toml(text, "f"), "f")
    return [str(problem).removeprefix("f: ") for problem in caught.value.problems]


def changed(line: str) -> str:
    """GOOD with the line of the same key replaced."""
    key = line.split(" = ")[0]
    lines = [line if old.startswith(f"{key} = ") else old for old in GOOD.splitlines()]
    assert line in lines
    return "\n".join(lines)


def test_every_kind_of_annotation_is_read() -> None:
    assert parse(Everything, parse_toml(GOOD, "f"), "f") == VALUE


def test_what_is_not_given_gets_its_default() -> None:
    value = parse(Everything, parse_toml(GOOD.replace("maybe = 7\nmaybe_limited = 1\n", ""), "f"), "f")
    assert (value.maybe, value.maybe_limited, value.defaulted) == (None, None, ())


def test_a_table_that_was_read_cannot_be_changed() -> None:
    value = parse(Everything, parse_toml(GOOD, "f"), "f")
    with pytest.raises(TypeError):
        value.sizes["boot"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("number = 1.0", "number: expected an integer, got 1.0"),
        ("number = true", "number: expected an integer, got true"),
        ('number = "1"', "number: expected an integer, got '1'"),
        ("text = 1", "text: expected a string, got 1"),
        ("flag = 1", "flag: expected true or false, got 1"),
        ('channel = "stabel"', "channel: expected one of stable, beta, got 'stabel'\n    hint: did you mean `stable`?"),
        ("channel = 1", "channel: expected one of stable, beta, got 1"),
        ("level = true", "level: expected one of 1, 2, got true"),
        ("limited = 0", "limited: expected 1 to 9, got 0"),
        ("limited = 10", "limited: expected 1 to 9, got 10"),
        ("limited = true", "limited: expected an integer, got true"),
        ('matched = "abc\\n"', "matched: expected lower-case letters, got 'abc\\n'"),
        ('matched = "xABC"', "matched: expected lower-case letters, got 'xABC'"),
        ('port = "eth0"', "port: expected a table, got 'eth0'"),
        ('port = { name = "eth" }', "port.name: expected a port's name, got 'eth'"),
        ('ports = { name = "eth0" }', "ports: expected an array, got a table"),
        ('ports = [{ name = "eth0" }, 3]', "ports[1]: expected a table, got 3"),
        ('ports = [{ name = "eth0" }, { nam = "eth1", name = "eth1" }]',
         "ports[1].nam: expected one of name, up, got an unknown key\n    hint: did you mean `name`?"),
        ('words = ["a", "B"]', "words[1]: expected a word, got 'B'"),
        ("sizes = [1]", "sizes: expected a table, got [1]"),
        ('sizes = { "root a" = 11 }', "sizes.'root a': expected 0 to 10, got 11"),
        ('maybe = "x"', "maybe: expected an integer, got 'x'"),
        ("maybe_limited = 0", "maybe_limited: expected 1 to 9, got 0"),
        ("text = 2026-11-23", "text: expected a string, got datetime.date(2026, 11, 23)"),
        (f'number = "{"x" * 100}"', f"number: expected an integer, got '{'x' * 58}…"),
        (f"text = 0x{'f' * 5000}", "text: expected a string, got a value too large to show"),
        (f"channel = 0x{'f' * 5000}", "channel: expected one of stable, beta, got a value too large to show"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_key(line: str, complaint: str) -> None:
    assert complaints(changed(line)) == [complaint]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = changed("limited = 0").replace("number = -3\n", "nmber = 3\n").replace('port = { name = "eth0"', "port = { nam = 1")
    assert [complaint.split(": expected")[0] for complaint in complaints(text)] == [
        "limited",
        "nmber",
        "number",
        "port.nam",
        "port.name",
    ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("number", "an integer"),
        ("text", "a string"),
        ("flag", "true or false"),
        ("channel", "one of stable, beta"),
        ("limited", "1 to 9"),
        ("matched", "lower-case letters"),
        ("port", "a table"),
        ("ports", "an array"),
        ("sizes", "a table"),
    ],
)
def test_a_missing_key_says_what_belongs_there(key: str, expected: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{key} ="))
    assert complaints(text) == [f"{key}: expected {expected}, got nothing (the key is missing)"]


def test_a_missing_optional_key_without_default_says_what_belongs_there() -> None:
    assert complaints("", Optional) == ["value: expected an integer, got nothing (the key is missing)"]


def test_an_unknown_key_that_resembles_nothing_gets_no_hint() -> None:
    (complaint,) = complaints(GOOD + "zzzzzzzz = 1\n")
    assert complaint.startswith("zzzzzzzz: expected one of channel, defaulted, flag, ")
    assert "hint" not in complaint


def test_a_strange_key_is_shown_quoted() -> None:
    assert complaints(GOOD + '"a\\u001b[31m.b" = 1\n')[0].startswith(r"'a\x1b[31m.b': expected one of ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = \nb = 1", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        (f"a = {'9' * 5000}", "integer string"),
        (f"a = {'[' * 5000}", "nest|recursion"),
    ],
    ids=["no value", "a key twice", "thousands of digits", "thousands of arrays"],
)
def test_broken_toml_is_a_problem_of_its_file(text: str, says: str) -> None:
    with pytest.raises(BadInputError, match=f"(?i)^f: \\(syntax\\): expected TOML 1.0, got .*({says})"):
        parse_toml(text, "f")


def test_a_file_is_read_and_named_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "雨"')
    assert read_toml(path) == {"name": "雨"}
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(BadInputError, match=r"^lab\.toml: \(encoding\): expected UTF-8, got byte 0xff at 8$"):
        read_toml(path, "lab.toml")


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * MAX_FILE_BYTES)
    assert read_toml(path) == {}
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadInputError, match=r"x\.toml: \(size\): expected at most 4194304 bytes, got more"):
        read_toml(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match=r"none\.toml: cannot be read: No such file or directory$"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(MamoriError, match=r"cannot be read: Is a directory$"):
        read_toml(tmp_path)
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    with pytest.raises(MamoriError, match="Too many levels of symbolic links"):
        read_toml(loop)
