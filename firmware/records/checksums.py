"""`SHA256SUMS`: every file of a release folder with its digest, as `sha256sum --check` reads it.

The parser takes less than coreutils does: one spelling, plain relative names, each once. What it accepts is signed, and a
signed list that two programs read differently is worth nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from firmware.cache import file_sha256
from mamori.formats.problems import BadInputError, MamoriError, Problem

CHECKSUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.p7s"
"""Detached CMS signature (RFC 8551 names the suffix); it and the list itself are the only files that the list leaves out."""

MAX_CHECKSUMS_BYTES = 1024 * 1024
"""Some 10,000 files; a release has about ten."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")  # two spaces: text mode, what sha256sum writes unless told otherwise
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+~-]*)*")
_UNLISTED = frozenset({CHECKSUMS, SIGNATURE})


def render_checksums(digests: Mapping[str, str]) -> str:
    """The list's text, sorted by name, from file names to SHA-256 in hex; BadInputError when it would not be read back."""
    text = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    parse_checksums(text)
    return text


def parse_checksums(text: str, source: str = CHECKSUMS) -> Mapping[str, str]:
    """File name to SHA-256 in hex; BadInputError names every line that is not as `render_checksums` writes it.

    Names are relative, without `..`, hidden files or characters that a shell or a terminal takes for something else.
    """
    digests: dict[str, str] = {}
    problems: list[Problem] = []
    *lines, rest = text.split("\n")
    if rest or not lines:
        problems.append(Problem(source, "last line", "lines that end with a line feed", repr(rest[:60])))
    for number, line in enumerate(lines, start=1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            problems.append(Problem(source, f"line {number}", "64 hex digits, two spaces and a name", repr(line[:100])))
        elif not _NAME.fullmatch(entry[2]) or entry[2] in _UNLISTED:
            problems.append(Problem(source, f"line {number}", "the plain name of a file below this folder", repr(entry[2][:100])))
        elif entry[2] in digests:
            problems.append(Problem(source, f"line {number}", "each file once", f"a second {entry[2]}"))
        else:
            digests[entry[2]] = entry[1]
    if problems:
        raise BadInputError(problems)
    return MappingProxyType(digests)


def write_checksums(folder: Path) -> Path:
    """Write the list of all files below `folder`, except itself and its signature; MamoriError for what cannot be listed."""
    text = render_checksums({name: file_sha256(folder / name) for name in _files(folder)})
    path = folder / CHECKSUMS
    path.write_text(text)
    return path


def check_checksums(folder: Path) -> Mapping[str, str]:
    """The list of `folder`, when exactly its files are there and have its digests; MamoriError names the first that is not.

    Says nothing of who wrote the list: check its signature first.
    """
    listed = parse_checksums(_read(folder / CHECKSUMS), str(folder / CHECKSUMS))
    present = _files(folder)
    for name in sorted(listed.keys() | present):
        if name not in present:
            raise MamoriError(f"{folder / name}: missing: {CHECKSUMS} lists it")
        if name not in listed:
            raise MamoriError(f"{folder / name}: not in {CHECKSUMS}", "a file that nobody signed does not belong here")
    for name, digest in sorted(listed.items()):
        actual = file_sha256(folder / name)
        if actual != digest:
            raise MamoriError(f"{folder / name}: damaged: expected SHA-256 {digest}, got {actual}")
    return listed


def _files(folder: Path) -> set[str]:
    """Names of all files below `folder` that must be listed. Links, pipes and the like are refused: they have no content."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    strange = [path for path in paths if path.is_symlink() or not path.is_file()]
    if strange:
        raise MamoriError(f"{strange[0]}: not a regular file")
    return {path.relative_to(folder).as_posix() for path in paths} - _UNLISTED


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CHECKSUMS_BYTES + 1)
    except OSError as error:
        raise MamoriError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_CHECKSUMS_BYTES:
        raise BadInputError([Problem(str(path), "(size)", f"at most {MAX_CHECKSUMS_BYTES} bytes", "more")])
    return content.decode("ascii", "replace")
