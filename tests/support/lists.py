"""Small lists for tests, compiled for real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mamori.inspect.lists.compile import compile_lists
from mamori.inspect.lists.suffixes import parse_public_suffix_list

SUFFIXES = """\
// A small one in the format of the great one.
// ===BEGIN ICANN DOMAINS===
com
net   a comment after white space
jp
co.jp
// wildcards with exceptions
*.kobe.jp
!city.kobe.jp
*.ck
!www.ck
cn
公司.cn
// ===END ICANN DOMAINS===
// ===BEGIN PRIVATE DOMAINS===
github.io
blogspot.com
// ===END PRIVATE DOMAINS===
"""
RULES = parse_public_suffix_list(SUFFIXES)


def make_source(folder: Path, lists: Mapping[str, str | bytes | Sequence[str]]) -> Path:
    """A source directory: key to the entries. A key that begins with `category-` is a category of the rest of it."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = ['suffixes = "suffixes.dat"\n']
    (folder / "suffixes.dat").write_text(SUFFIXES)
    for key, entries in lists.items():
        is_category = key.startswith("category-")
        kind = f'kind = "category"\ncategory = "{key.removeprefix("category-")}"' if is_category else 'kind = "dangerous"'
        tables.append(f'[lists.{key}]\n{kind}\nlabel_ja = "表示 {key}"\nlabel_en = "Label {key}"\nfiles = ["{key}.txt"]\n')
        text = entries if isinstance(entries, str | bytes) else "".join(f"{entry}\n" for entry in entries)
        (folder / f"{key}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "lists.toml").write_text("\n".join(tables))
    return folder


def compiled(folder: Path, lists: Mapping[str, str | bytes | Sequence[str]]) -> Path:
    """The lists as a compiled file."""
    out = folder / "compiled.lists"
    compile_lists(make_source(folder / "source", lists), out)
    return out
