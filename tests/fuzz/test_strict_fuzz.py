"""Any table is a value of the schema or raises its one error, which names only keys of that table or of the schema."""

import contextlib
import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from hypothesis import given
from hypothesis import strategies as st

from mamori.formats.problems import BadInputError
from mamori.formats.strict import Between, Matches, parse, parse_toml


class Colour(enum.Enum):
    RED = "red"
    SEVEN = 7


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Between(1, 9)]
    name: Annotated[str, Matches(r"[a-z]*", "a name")] = ""


@dataclass(frozen=True)
class Outer:
    flag: bool
    colour: Colour
    inner: Inner
    list: tuple[Inner, ...] = ()
    table: Mapping[str, Inner] | None = None
    maybe: int | None = None


KEYS = st.sampled_from(["flag", "colour", "inner", "list", "table", "maybe", "size", "name"]) | st.text(max_size=4)
VALUES = st.recursive(
    st.sampled_from([None, True, False, 7, "red", "abc"])
    | st.integers(-1, 10)
    | st.integers(15_000, 16_000).map(lambda bits: 1 << bits)  # more digits than str() gives
    | st.floats()
    | st.text(max_size=4)
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
INNERS = st.fixed_dictionaries({"size": st.integers(1, 9)}, optional={"name": st.from_regex(r"[a-z]*", fullmatch=True)})
GOOD = st.fixed_dictionaries(
    {"flag": st.booleans(), "colour": st.sampled_from(["red", 7]), "inner": INNERS},
    optional={
        "list": st.lists(INNERS, max_size=3),
        "table": st.dictionaries(st.text(), INNERS, max_size=3),
        "maybe": st.integers(),
    },
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_table_is_a_value_or_the_one_error(table: dict[str, object]) -> None:
    try:
        value = parse(Outer, table, "f")
    except BadInputError as error:
        assert error.problems
        names = set(table) | {field.name for field in fields(Outer)}
        assert all(problem.source == "f" and problem.expected and problem.got for problem in error.problems)
        assert all(
            any(problem.key.startswith((name, repr(name))) for name in names if name or problem.key) for problem in error.problems
        )
    else:
        assert isinstance(value, Outer)


@given(GOOD)
def test_a_table_that_fits_is_that_value(table: dict) -> None:
    value = parse(Outer, table, "f")
    assert (value.flag, value.colour.value, value.maybe) == (table["flag"], table["colour"], table.get("maybe"))
    assert value.inner == Inner(**table["inner"])
    assert value.list == tuple(Inner(**entry) for entry in table.get("list", []))
    assert (value.table is None) == ("table" not in table)


@given(GOOD, st.text(max_size=8).filter(lambda key: key not in {field.name for field in fields(Outer)}))
def test_one_unknown_key_is_one_problem(table: dict, key: str) -> None:
    try:
        parse(Outer, table | {key: 1}, "f")
    except BadInputError as error:
        assert [problem.got for problem in error.problems] == ["an unknown key"]
    else:
        raise AssertionError("an unknown key was taken")


@given(
    st.text()
    | st.lists(st.sampled_from(["a", "=", "[", "]", "{", "}", '"', "\n", "0x", "9" * 5000, ".", "2026-02-30", "\\u"])).map("".join)
)
def test_any_text_is_a_table_or_the_one_error(text: str) -> None:
    with contextlib.suppress(BadInputError):
        assert isinstance(parse_toml(text, "f"), dict)
