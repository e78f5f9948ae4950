"""Documents agree with the code and with each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.loader import FilesystemLoader

from firmware.version import parse_release
from tests.support.checkout import ROOT, files

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
MAX_HELP_CHARS = 60


def verbs() -> dict[str, str]:
    """Name and docstring of every verb of ./inv."""
    module, _ = FilesystemLoader(start=str(ROOT)).load("tasks")
    namespace: Collection = module.namespace
    return {name: namespace[name].body.__doc__ or "" for name in namespace.task_names}


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


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for path, target in links():
        place, _, anchor = target.partition("#")
        file = (ROOT / path.parent / place).resolve() if place else ROOT / path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            broken.append(f"{path}: {target}")
    assert broken == []
