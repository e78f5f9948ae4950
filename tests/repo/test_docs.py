"""Documents agree with the code and with each other."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import re
import runpy
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.loader import FilesystemLoader

from firmware.recipe import Board, Recipe
from firmware.version import parse_release
from mamori import cli
from tests.support.checkout import ROOT, files

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
MAX_HELP_CHARS = 60


def namespace() -> Collection:
    module, _ = FilesystemLoader(start=str(ROOT)).load("tasks")
    collection: Collection = module.namespace
    return collection


def verbs() -> dict[str, str]:
    """Name and docstring of every verb of ./inv."""
    return {name: namespace()[name].body.__doc__ or "" for name in namespace().task_names}


def bare_arguments() -> Mapping[str, str]:
    """The verbs whose optional first argument `inv` itself spells out for Invoke."""
    spelled_out: Mapping[str, str] = runpy.run_path(str(ROOT / "inv"))["BARE_ARGUMENT"]
    return spelled_out


def documents() -> dict[Path, str]:
    return {path: (ROOT / path).read_text() for path in files() if path.suffix == ".md"}


def links() -> Iterator[tuple[Path, str]]:
    """Relative links of every document, code left out."""
    for path, text in documents().items():
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        for match in LINK.finditer(prose):
            target = match.group(1) or match.group(2)
            if not re.match(r"[a-z+]+:", target):
                yield path, target


def anchors(text: str) -> set[str]:
    """Heading anchors as GitHub and its kin make them: lower case, punctuation gone, spaces to hyphens."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def test_every_verb_has_help_of_one_line_that_a_terminal_shows_whole() -> None:
    assert len(verbs()) >= 9
    assert {name: text for name, text in verbs().items() if not text or "\n" in text or len(text) > MAX_HELP_CHARS} == {}


def test_every_verb_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in verbs() if f"./inv {name.replace('.', ' ')}" not in readme] == []


def test_every_command_of_the_box_that_is_for_people_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    (commands,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    for_people = {shown.dest for shown in commands._choices_actions}  # those that have a help text
    assert {"status", "events", "policy"} <= for_people
    services = {"signatures-keeper", "events-writer", "boot-backend"}
    assert [name for name in sorted(for_people - services) if f"`mamori {name}" not in readme] == []


def test_the_readme_shows_the_bare_arguments_that_a_verb_takes() -> None:
    """`VERB NAME` is a required argument, `VERB [NAME]` an optional one; Invoke would ignore a positional one with a default."""
    shown = dict(
        re.findall(r"^\| `\./inv ([a-z]+(?: [a-z]+)?)(?: (\[?)[A-Z]+\]?)?` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    assert {verb.replace(" ", ".") for verb in shown} == set(verbs())
    optional = {verb for verb, bracket in shown.items() if bracket}
    assert optional == set(bare_arguments())
    assert [
        name for name in verbs() for argument in namespace()[name].get_arguments() if argument.positional and argument.default
    ] == []


def test_the_changelog_goes_from_the_newest_calendar_version_to_the_oldest() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    entries = [parse_release(f"## {title}") for title in re.findall(r"^## (.+)$", changelog, re.MULTILINE)]
    assert entries == sorted(set(entries), key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    assert entries[0] == parse_release(changelog)


def test_decisions_are_numbered_from_one_without_gaps() -> None:
    decisions = sorted(path for path in files() if path.parts[:2] == ("docs", "adr"))
    assert [path.name[:5] for path in decisions] == [f"{number:04}-" for number in range(1, len(decisions) + 1)]
    assert decisions


@pytest.mark.parametrize("path", [path for path in files() if path.parts[:2] == ("docs", "adr")], ids=str)
def test_a_decision_says_why_and_what_was_refused(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert re.match(rf"# {int(path.name[:4])}\. \S", text)
    assert {"Context", "Decision", "Refused"} <= set(re.findall(r"^## (\w+)", text, re.MULTILINE))


def keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Every TOML key of a dataclass and of those in it, with dots; in a table of any names, the name is NAME."""
    for name, annotation in typing.get_type_hints(schema).items():
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            yield from (f"{prefix}{name}={choice.value}" for choice in annotation)
            continue
        inner = [type_ for type_ in (annotation, *typing.get_args(annotation)) if dataclasses.is_dataclass(type_)]
        is_table = typing.get_origin(annotation) is Mapping
        yield from (
            keys(typing.cast(type, inner[0]), f"{prefix}{name}.{'NAME.' if is_table else ''}") if inner else [f"{prefix}{name}"]
        )


def explained(text: str) -> Iterator[str]:
    """What a document's tables explain: the key in the first cell of a row, and `key=value` for each value in its other cells."""
    for key, rest in re.findall(r"^\| `([\w.]+)` \|(.*)$", text, re.MULTILINE):
        yield key
        yield from (f"{key}={value}" for value in re.findall(r"`([a-z]+)`", rest))


@pytest.mark.parametrize(("document", "schema"), [("docs/recipes.md", Recipe), ("docs/boards.md", Board)])
def test_every_key_and_choice_of_a_recipe_and_a_board_is_explained(document: str, schema: type) -> None:
    told = set(explained((ROOT / document).read_text()))
    assert [key for key in keys(schema) if key not in told] == []
    assert {key for key in told if "=" not in key} == {key.partition("=")[0] for key in keys(schema)}


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for path, target in links():
        place, _, anchor = target.partition("#")
        file = (ROOT / path.parent / place).resolve() if place else ROOT / path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            broken.append(f"{path}: {target}")
    assert broken == []
