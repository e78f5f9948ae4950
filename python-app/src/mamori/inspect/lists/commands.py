"""`mamori lists`: compile, lookup, check. Each `run_` gives the text to show; cli.py writes it.

Imports are where they are used, as in cli.py: every start of `mamori` passes here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mamori.inspect.lists.compile import CompileReport, FileReport
    from mamori.inspect.lists.listfile import Hit, ListFile


def add_commands(commands: Any, write: Callable[[str], object]) -> None:
    """Register `lists …` with cli.py's subparsers; `write` gets what the command says."""
    parser = commands.add_parser("lists", allow_abbrev=False, help="compile, look up and check lists of sites")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    compile_ = verbs.add_parser("compile", allow_abbrev=False, help="make a list file of text files")
    compile_.add_argument("out", type=Path, metavar="OUT", help="the file to make or replace")
    compile_.add_argument("--source", type=Path, required=True, metavar="DIR", help="the directory with lists.toml")
    compile_.set_defaults(run=lambda options: write(run_compile(options)))

    lookup = verbs.add_parser("lookup", allow_abbrev=False, help="say which lists have a name or a URL")
    lookup.add_argument("file", type=Path, metavar="FILE", help="a compiled list file")
    lookup.add_argument("sites", nargs="+", metavar="NAME_OR_URL", help="www.example.com, or https://example.com/a")
    lookup.add_argument("--json", action="store_true", help="one JSON array")
    lookup.set_defaults(run=lambda options: write(run_lookup(options)))

    check = verbs.add_parser("check", allow_abbrev=False, help="read all of a list file, and say what is in it")
    check.add_argument("file", type=Path, metavar="FILE", help="a compiled list file")
    check.set_defaults(run=lambda options: write(run_check(options)))


def run_compile(options: argparse.Namespace) -> str:
    """Compile `options.source` to `options.out`."""
    from mamori.inspect.lists.compile import compile_lists

    return render_report(compile_lists(options.source, options.out))


def run_lookup(options: argparse.Namespace) -> str:
    """Look up each of `options.sites` in `options.file`; BadInputError names those that are neither name nor URL."""
    from mamori.formats.problems import BadInputError, Problem
    from mamori.inspect.lists.entries import EntryError
    from mamori.inspect.lists.listfile import ListFile

    answers, problems = [], []
    with ListFile.open(options.file) as lists:
        for site in options.sites:
            try:
                answers.append((site, _lookup(lists, site)))
            except EntryError as error:
                problems.append(Problem("(arguments)", site, error.expected, error.got))
    if problems:
        raise BadInputError(problems)
    if options.json:
        rows = [{"site": site, "hits": [_hit_row(hit) for hit in hits]} for site, hits in answers]
        return f"{json.dumps(rows, indent=2, ensure_ascii=False)}\n"
    return "".join(_answer_text(site, hits) for site, hits in answers)


def run_check(options: argparse.Namespace) -> str:
    """Read all of `options.file`."""
    from mamori.inspect.lists.listfile import ListFile

    with ListFile.open(options.file) as lists:
        lists.check()
        rows = "".join(f"  {info.key}: {info.kind.value} {info.category}".rstrip() + "\n" for info in lists.lists)
        return f"{options.file}: sound, {lists.records} records, {lists.size_bytes} bytes, {len(lists.lists)} lists\n{rows}"


def render_report(report: CompileReport) -> str:
    """What compiling did, for people."""
    total = f"{report.records} records, {report.size_bytes} bytes\n"
    return "".join(map(_file_text, report.files)) + total


def _file_text(report: FileReport) -> str:
    text = f"{report.list_key}: {report.file}: {report.entries} entries\n"
    if report.bad_lines:
        text += f"  {report.bad_lines} bad lines skipped\n" + "".join(f"    {problem}\n" for problem in report.bad)
    if report.suffix_lines:
        text += f"  {report.suffix_lines} public suffixes, which match only exactly: {' '.join(report.suffixes)}"
        text += " …\n" if report.suffix_lines > len(report.suffixes) else "\n"
    return text


def _lookup(lists: ListFile, site: str) -> tuple[Hit, ...]:
    from mamori.inspect.http_url import DEFAULT_PORT, Url
    from mamori.inspect.lists.entries import parse_address

    address = parse_address(site)
    if address.path or address.port is not None:
        return lists.lookup_url(Url(address.host, address.port or DEFAULT_PORT, address.path or "/", address.query))
    return lists.lookup_name(address.host)


def _hit_row(hit: Hit) -> dict[str, str]:
    return {
        "list": hit.list.key,
        "kind": hit.list.kind.value,
        "category": hit.list.category,
        "label_ja": hit.list.label_ja,
        "label_en": hit.list.label_en,
        "entry": hit.entry,
        "entry_kind": hit.entry_kind.name.lower(),
    }


def _answer_text(site: str, hits: tuple[Hit, ...]) -> str:
    if not hits:
        return f"{site}: on no list\n"
    return "".join(f"{site}: {hit.list.key} ({hit.list.label_en}), by {hit.entry}: {hit.entry_kind.value}\n" for hit in hits)
