"""docs/events.md agrees with the code: fields, functions, actions, what the box tells of itself, units, how long all is kept."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from pathlib import Path

import pytest

from mamori.events import batch, retention, sender, terminals, wire
from mamori.events.commands import DEFAULT_LIMIT
from mamori.events.query import Span, StoredEvent
from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Function, Heading
from mamori.inspect.nfqueue.limits import COUNTERS
from mamori.inspect.scan.health import Condition
from tests.support.checkout import ROOT, python_files

TEXT = (ROOT / "docs/events.md").read_text()
APP = Path("python-app/src/mamori")


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first heading is this, each cell as it stands."""
    rows = TEXT.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_names(heading: str) -> list[str]:
    return [name for row in table(heading) for name in names(row[0])]


@functools.cache
def calls() -> tuple[ast.Call, ...]:
    trees = [tree for path, tree in python_files().items() if path.is_relative_to(APP)]
    return tuple(node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))


def target(call: ast.Call) -> str:
    """`tell` of `self._desk.tell(…)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def constants() -> dict[str, str]:
    """Module constants of the application that are text."""
    return {
        node.targets[0].id: node.value.value
        for path, tree in python_files().items()
        if path.is_relative_to(APP) and isinstance(tree, ast.Module)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def told_of_itself() -> set[str]:
    """The categories of events of Function.SYSTEM in the source: of `own_event(…, "bug", …)`, of `self._tell("worker-ended", …)`,
    which makes one, and of `tell(…, Function.SYSTEM, …, category="table-full")`."""
    found, known = {f"scanner-{condition.value}" for condition in Condition}, constants()
    for call in calls():
        argument: ast.expr | None
        if target(call) == "own_event":
            argument = call.args[1]
        elif target(call) == "_tell" and call.args:
            argument = call.args[0]
        elif "Function.SYSTEM" in map(ast.unparse, call.args):
            argument = next((keyword.value for keyword in call.keywords if keyword.arg == "category"), None)
        else:
            continue
        if isinstance(argument, ast.Constant):
            found.add(argument.value)
        elif isinstance(argument, ast.Name) and argument.id in known:
            found.add(known[argument.id])
    return found


def test_every_field_of_an_event_is_explained() -> None:
    assert sorted(first_names("field")) == sorted(field.name for field in dataclasses.fields(StoredEvent))
    (heading,) = [row[1] for row in table("field") if names(row[0]) == ["heading"]]
    assert names(heading) == [choice.value for choice in (Heading.OUTBOUND, Heading.INBOUND, Heading.NONE)]


def test_every_function_and_action_is_explained() -> None:
    assert sorted(first_names("function")) == sorted(function.value for function in Function)
    assert sorted(first_names("action")) == sorted(action.value for action in Action)


def test_every_counter_of_the_kernel_is_named() -> None:
    (ips,) = [row[1] for row in table("function") if names(row[0]) == ["ips"]]
    assert sorted(names(ips)) == sorted(name.replace("_", "-") for name in COUNTERS)


def test_everything_that_the_box_tells_of_itself_is_explained() -> None:
    assert len(told_of_itself()) > 15
    assert sorted(first_names("category of `system`")) == sorted(told_of_itself())


def test_every_unit_that_is_counted_is_explained() -> None:
    counted = set()
    for call in calls():
        name = target(call)
        if name in ("tally", "count"):
            for argument, following in zip(call.args, call.args[1:], strict=False):
                if ast.unparse(argument).split(".")[0] in ("Function", "function"):
                    counted |= {node.value for node in ast.walk(following) if isinstance(node, ast.Constant) and node.value}
    rows = TEXT.split("| function | unit |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    assert {names(row.split(" | ")[1])[0] for row in rows} == counted


KEPT = {
    "events": retention.EVENTS_DAYS,
    "counts by the minute": retention.MINUTES_DAYS,
    "counts by the hour": retention.HOURS_DAYS,
    "counts by the day": retention.DAYS_DAYS,
}


def test_the_document_says_how_long_all_is_kept() -> None:
    said = {row[0]: row[1] for row in table("kept")}
    assert {what: said[what] for what in KEPT} == {what: f"{days} days" for what, days in KEPT.items()}
    assert said["terminals"] == f"the {terminals.MAX_TERMINALS:,} seen last"


@pytest.mark.parametrize(
    "sentence",
    [
        f"keeps up to {sender.MAX_WAITING_BYTES >> 10} KiB",
        f"at most {MAX_SUBJECT_CHARACTERS} characters",
        f"at most {retention.MAX_DATABASE_BYTES >> 20} MiB",
        f"up to {batch.MAX_ROWS:,} of them",
        f"at most {wire.MAX_DATAGRAM_BYTES >> 10} KiB",
        f"the newest {DEFAULT_LIMIT},",
        "hour, day, week or month" if [span.value for span in Span] == ["hour", "day", "week", "month"] else "another span",
    ],
)
def test_a_number_of_the_document_is_that_of_the_code(sentence: str) -> None:
    assert sentence in " ".join(TEXT.split())
