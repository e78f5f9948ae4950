"""The source of a list file: a directory with `lists.toml` and text files of entries.

suffixes = "public_suffix_list.dat"     # or a compiled list file, whose rules are taken over

[lists.phishing]
kind = "dangerous"
label_ja = "フィッシング詐欺"
label_en = "Phishing"
files = ["phishing.txt"]

[lists.gambling-owner]
kind = "category"
category = "gambling"
label_ja = "ギャンブル"
label_en = "Gambling"
files = ["gambling.txt", "own/gambling.txt"]

A text file has an entry a line (entries.py), in UTF-8, with LF or CRLF. What comes after white space and `#`, or a `#` at the
start, is a comment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, BinaryIO

from mamori.formats.problems import BadInputError, MamoriError, Problem
from mamori.formats.strict import Matches, parse, read_toml
from mamori.inspect.lists.entries import EntryError
from mamori.inspect.lists.fileformat import MAGIC
from mamori.inspect.lists.listfile import ListFile, ListInfo, ListKind
from mamori.inspect.lists.matching import MAX_LISTS
from mamori.inspect.lists.suffixes import MAX_SUFFIXES_BYTES, Suffixes, parse_public_suffix_list

MAX_LINE_BYTES = 16 * 1024
"""More than any entry with its comment: a longer line is damage, and must not be read into memory whole."""

SYSTEM_SUFFIXES = "/usr/share/publicsuffix/public_suffix_list.dat"
"""Where Debian's package `publicsuffix` puts the list."""

_KEY = r"[a-z0-9][a-z0-9-]{0,62}"
_LABEL = Matches(r"[^\x00-\x1f\x7f]{1,100}", "one line of 1 to 100 characters")
_FILE = Matches(r"(?!/)(?!(.*/)?\.\.(/|$))[^\x00]+", "a path below the directory of lists.toml")
_COMMENT = re.compile(rb"(?:^|\s)#.*", re.DOTALL)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ListSource:
    """`category` is the policy's key; it must be said for a category, and may be for dangerous sites. `files` are read in
    their order, relative to lists.toml."""

    kind: ListKind
    label_ja: Annotated[str, _LABEL]
    label_en: Annotated[str, _LABEL]
    files: tuple[Annotated[str, _FILE], ...]
    category: Annotated[str, Matches(f"(?:{_KEY})?", "a key of lower-case letters, digits and hyphens")] = ""


class _Keys:
    says = f"up to {MAX_LISTS} keys of lower-case letters, digits and hyphens"

    @staticmethod
    def accepts(value: object) -> bool:
        return isinstance(value, Mapping) and len(value) <= MAX_LISTS and all(re.fullmatch(_KEY, key) for key in value)


@dataclass(frozen=True)
class Source:
    """lists.toml. The order of `lists` is that of the file."""

    lists: Annotated[Mapping[str, ListSource], _Keys()]
    suffixes: str = SYSTEM_SUFFIXES

    def infos(self) -> tuple[ListInfo, ...]:
        return tuple(ListInfo(key, one.kind, one.category, one.label_ja, one.label_en) for key, one in self.lists.items())


def read_source(directory: Path) -> Source:
    """The directory's lists.toml; BadInputError names everything that is wrong with it."""
    path = directory / "lists.toml"
    source = parse(Source, read_toml(path), str(path))
    problems = [
        Problem(str(path), f"lists.{key}.category", "a key, since the kind is `category`", "nothing")
        for key, one in source.lists.items()
        if one.kind is ListKind.CATEGORY and not one.category
    ]
    if problems:
        raise BadInputError(problems)
    return source


def read_suffixes(path: Path) -> Suffixes:
    """The public suffix list in a file as published, or that of a compiled list file."""
    hint = f"name one in lists.toml: `suffixes` (default {SYSTEM_SUFFIXES}, of Debian's package publicsuffix)"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SUFFIXES_BYTES)
    except OSError as error:
        raise MamoriError(f"{path}: the public suffix list cannot be read: {error.strerror}", hint) from None
    if content.startswith(MAGIC):
        with ListFile.open(path) as compiled:
            return compiled.suffixes()
    try:
        return parse_public_suffix_list(content.decode())
    except ValueError as error:
        raise BadInputError([Problem(str(path), "(content)", "a public suffix list", str(error), hint)]) from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of entries. MamoriError if it cannot be read, or is a pipe that would be waited for."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MamoriError(f"{path}: not a file")
            yield file
    except OSError as error:
        raise MamoriError(f"{path}: cannot be read: {error.strerror}") from None


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that has some, without comment and the white space around; None for one too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if b"#" in line:
            line = _COMMENT.sub(b"", line)
        line = line.strip()
        if line:
            yield number, line


def decode(line: bytes | None) -> str:
    """A line's text; EntryError if it has none."""
    if line is None:
        raise EntryError(f"a line of less than {MAX_LINE_BYTES} bytes", "more")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise EntryError("UTF-8", f"byte 0x{line[error.start]:02x} at {error.start}") from None
