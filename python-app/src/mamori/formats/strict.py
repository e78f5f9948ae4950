"""A strict reader from TOML tables to frozen dataclasses: unknown keys, wrong types and wrong values, all in one report.

The dataclass is the schema. A field without a default is required; limits stand in its annotation, where a reader of
the class sees them::

    @dataclass(frozen=True)
    class Update:
        tries: Annotated[int, Between(1, 9)] = 3
        channel: Channel = Channel.STABLE

Supported annotations: `bool`, `int`, `str`, enums by value, nested dataclasses, `tuple[T, ...]` from arrays,
`Mapping[str, T]` from tables, and `T | None`. TOML has no null, so `T | None` only makes sense with a default.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mamori.formats.problems import BadInputError, MamoriError, Problem

T = TypeVar("T")

MAX_FILE_BYTES = 4 * 1024 * 1024
"""No file that a person writes comes near this; a larger one is a mistake or an attack on memory."""

MAX_PROBLEMS = 100
"""More are only counted: nobody reads them, and a file of commas would make megabytes of text."""

MAX_KEY_PARTS = 8
"""Of a dotted key or a table's name. tomllib keeps every beginning of a key: 100,000 parts in 200 KB of text take 40 GB."""

_SHOWN_VALUE_CHARS = 60

_UNKEYED = re.compile(
    r'''"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)|\'{3}.*?(?:\'{3,5}|\Z)|"(?:\\.|[^"\\\n])*+"?|'[^'\n]*+'?|\#[^\n]*+''', re.DOTALL
)
"""Strings and comments, closed or not, so that what is left are keys and numbers. Each character is looked at once. A string of
many lines may end with one or two quotes of its own before the three."""

_LONG_KEY = re.compile(rf"(?<![^\s.=\[\]{{}},])(?:[^\s.=\[\]{{}},]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS},}}+")


@dataclass(frozen=True)
class Between:
    """An integer from `low` to `high`, both included."""

    low: int
    high: int

    @property
    def says(self) -> str:
        return f"{self.low} to {self.high}"

    def accepts(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Matches:
    """A string that `pattern` matches from end to end; `says` names it in a message."""

    pattern: str
    says: str

    def accepts(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


class _Reader:
    """Walks a table beside its schema and collects problems instead of raising at the first one."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.found = 0
        self._hints: dict[Any, dict[str, Any]] = {}

    def complain(self, key: str, expected: str, got: str, hint: str = "") -> None:
        self.found += 1
        if self.found <= MAX_PROBLEMS:
            self.problems.append(Problem(self.source, key or "(top level)", expected, got, hint))

    def read(self, annotation: Any, value: object, key: str) -> Any:
        if typing.get_origin(annotation) is Annotated:
            return self._read_annotated(annotation, value, key)
        origin = typing.get_origin(annotation)
        if origin in (types.UnionType, typing.Union):
            (present,) = (arm for arm in typing.get_args(annotation) if arm is not type(None))
            return self.read(present, value, key)
        if dataclasses.is_dataclass(annotation):
            return self._read_dataclass(annotation, value, key)
        if origin is tuple:
            return self._read_tuple(typing.get_args(annotation)[0], value, key)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._read_mapping(typing.get_args(annotation)[1], value, key)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self._read_enum(annotation, value, key)
        # bool is an int to Python, but not to the person who writes `tries = true`.
        if type(value) is not annotation:
            self.complain(key, _type_name(annotation), _shown(value))
            return None
        return value

    def _read_annotated(self, annotation: Any, value: object, key: str) -> Any:
        base, *limits = typing.get_args(annotation)
        before = self.found
        result = self.read(base, value, key)
        if self.found == before:
            for limit in limits:
                if not limit.accepts(result):
                    self.complain(key, limit.says, _shown(value))
        return result

    def _read_dataclass(self, schema: Any, value: object, key: str) -> Any:
        if not isinstance(value, Mapping):
            self.complain(key, "a table", _shown(value))
            return None
        if schema not in self._hints:  # they take as long to get as everything else
            self._hints[schema] = typing.get_type_hints(schema, include_extras=True)
        hints = self._hints[schema]
        fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
        before = self.found
        for name in value:
            if name not in fields:
                known = ", ".join(sorted(fields))
                hint = _did_you_mean(name, fields) if self.found < MAX_PROBLEMS else ""
                self.complain(_dotted(key, name), f"one of {known}", "an unknown key", hint)
        arguments = {}
        for name, field in fields.items():
            if name in value:
                arguments[name] = self.read(hints[name], value[name], _dotted(key, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                self.complain(_dotted(key, name), _type_name(hints[name]), "nothing (the key is missing)")
        return schema(**arguments) if self.found == before else None

    def _read_tuple(self, item: Any, value: object, key: str) -> Any:
        if not isinstance(value, list):
            self.complain(key, "an array", _shown(value))
            return None
        return tuple(self.read(item, entry, f"{key}[{index}]") for index, entry in enumerate(value))

    def _read_mapping(self, item: Any, value: object, key: str) -> Any:
        if not isinstance(value, Mapping):
            self.complain(key, "a table", _shown(value))
            return None
        return types.MappingProxyType({name: self.read(item, entry, _dotted(key, name)) for name, entry in value.items()})

    def _read_enum(self, choices: type[enum.Enum], value: object, key: str) -> Any:
        for choice in choices:
            if type(value) is type(choice.value) and choice.value == value:
                return choice
        names = [str(choice.value) for choice in choices]
        self.complain(key, f"one of {', '.join(names)}", _shown(value), _did_you_mean(value, names))
        return None


def parse(schema: type[T], table: Mapping[str, object], source: str) -> T:
    """The table as a `schema` value; BadInputError names every problem. `source` is the file name shown to people."""
    reader = _Reader(source)
    value = reader.read(schema, table, "")
    if reader.found > MAX_PROBLEMS:
        reader.problems.append(Problem(source, "(number)", f"at most {MAX_PROBLEMS} problems", f"{reader.found}"))
    if reader.problems:
        raise BadInputError(reader.problems)
    return typing.cast(T, value)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """TOML text as a table; a syntax error becomes a problem with its line."""
    import tomllib  # most commands read JSON only, and start faster without

    text = text.removeprefix("\ufeff")  # Windows' editors write one
    if _LONG_KEY.search(_UNKEYED.sub("s", text)):
        raise BadInputError([Problem(source, "(syntax)", f"keys of at most {MAX_KEY_PARTS} parts", "more")])
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: int() refuses thousands of digits
        raise BadInputError([Problem(source, "(syntax)", "TOML 1.0", str(error) or "tables nested too deeply")]) from None


def read_toml(path: Path, source: str | None = None, *, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """The table in a TOML file, with every way in which a file cannot be read told in one sentence."""
    source = source or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise MamoriError(f"{source}: cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise BadInputError([Problem(source, "(size)", f"at most {max_bytes} bytes", "more")])
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        got = f"byte 0x{content[error.start]:02x} at {error.start}"
        raise BadInputError([Problem(source, "(encoding)", "UTF-8", got)]) from None
    return parse_toml(text, source)


def _dotted(key: str, name: str) -> str:
    shown = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else repr(name)
    if len(shown) > _SHOWN_VALUE_CHARS:
        shown = shown[: _SHOWN_VALUE_CHARS - 1] + "…"
    return f"{key}.{shown}" if key else shown


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    try:
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
    except (ValueError, RecursionError):
        return "a value too large to show"  # thousands of digits (a TOML 0x… may have them), or nested too deeply
    return text if len(text) <= _SHOWN_VALUE_CHARS else text[: _SHOWN_VALUE_CHARS - 1] + "…"


def _did_you_mean(name: object, known: Mapping[str, Any] | list[str]) -> str:
    if not isinstance(name, str):
        return ""
    import difflib  # only bad input needs it

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _type_name(annotation: Any) -> str:
    return " ".join(_type_words(annotation))


def _type_words(annotation: Any) -> Iterator[str]:
    if typing.get_origin(annotation) is Annotated:
        base, *limits = typing.get_args(annotation)
        yield limits[0].says if limits else _type_name(base)
    elif typing.get_origin(annotation) in (types.UnionType, typing.Union):
        yield _type_name(next(arm for arm in typing.get_args(annotation) if arm is not type(None)))
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield f"one of {', '.join(str(choice.value) for choice in annotation)}"
    elif dataclasses.is_dataclass(annotation):
        yield "a table"
    elif typing.get_origin(annotation) is tuple:
        yield "an array"
    else:
        yield {bool: "true or false", int: "an integer", str: "a string"}.get(annotation, "a table")
