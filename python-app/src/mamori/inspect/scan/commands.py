"""`mamori hashes`: compile, check. Imports are where they are used, as in cli.py: every start of `mamori` passes here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_commands(commands: Any, write: Callable[[str], object]) -> None:
    """Register `hashes …` with cli.py's subparsers; `write` gets what the command says."""
    parser = commands.add_parser("hashes", allow_abbrev=False, help="compile and check lists of harmful files")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    compile_ = verbs.add_parser("compile", allow_abbrev=False, help="make a list of hashes from a text file")
    compile_.add_argument("out", type=Path, metavar="OUT", help="the file to make or replace")
    compile_.add_argument("--source", type=Path, required=True, metavar="FILE", help="lines of SHA-256:LENGTH:NAME")
    compile_.set_defaults(run=lambda options: write(run_compile(options)))

    check = verbs.add_parser("check", allow_abbrev=False, help="say whether a list has files")
    check.add_argument("list", type=Path, metavar="LIST", help="a compiled list")
    check.add_argument("files", nargs="*", type=Path, metavar="FILE", help="files to look up")
    check.set_defaults(run=lambda options: write(run_check(options)))


def run_compile(options: argparse.Namespace) -> str:
    """Compile `options.source` to `options.out`; MamoriError for what cannot be read or written."""
    from mamori.formats.problems import MamoriError
    from mamori.inspect.scan.hashes import compile_hashes

    try:
        with options.source.open(encoding="utf-8", errors="replace") as lines:
            entries = compile_hashes(lines, options.out, str(options.source))
    except OSError as error:
        raise MamoriError(f"{error.filename or options.out}: {error.strerror}") from None
    return f"{entries} entries, {options.out.stat().st_size} bytes\n"


def run_check(options: argparse.Namespace) -> str:
    """Look up each of `options.files` in `options.list`."""
    from hashlib import file_digest

    from mamori.formats.problems import MamoriError
    from mamori.inspect.scan.hashes import open_hashes

    hashes = open_hashes(options.list)
    lines = [f"{options.list}: {len(hashes)} entries\n"]
    for path in options.files:
        try:
            with path.open("rb") as file:
                digest, length = file_digest(file, "sha256").digest(), file.tell()
        except OSError as error:
            raise MamoriError(f"{path}: {error.strerror}") from None
        lines.append(f"{path}: {hashes.find(digest, length) or 'not on the list'}\n")
    return "".join(lines)
