"""When a new set of rules takes the old one's place. The test run is Suricata's; here it is a value: what it said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mamori.inspect.suricata.ruleset import RulesetError, Taken, refused_lines, take_rules

Test = Callable[[Path], tuple[int, str]]
LINES = [f"rule {number}\n" for number in range(1, 31)]


@pytest.fixture
def active(tmp_path: Path) -> Path:
    path = tmp_path / "active.rules"
    path.write_text("old\n")
    return path


def says(*answers: tuple[int, str]) -> Test:
    """A test run that gives one answer after the other; {} in it is the candidate's path."""
    left = list(answers)

    def test(candidate: Path) -> tuple[int, str]:
        code, text = left.pop(0)
        return code, text.replace("{}", str(candidate))

    return test


def refusal(*lines: int) -> str:
    return "".join(
        f'E: detect-parse: no.\nE: detect: error parsing signature "a "b" from file" from file {{}} at line {line}\n'
        for line in lines
    )


def test_a_set_that_passes_its_test_takes_the_old_ones_place(active: Path) -> None:
    assert take_rules(LINES, active, says((0, ""))) == Taken(30, 0)
    assert active.read_text() == "".join(LINES)
    assert [path.name for path in active.parent.iterdir()] == ["active.rules"]


def test_rules_that_are_refused_are_left_out_and_the_rest_is_tested_again(active: Path) -> None:
    assert take_rules(LINES, active, says((1, refusal(2, 30)), (0, ""))) == Taken(28, 2)
    assert active.read_text() == "".join(LINES[:1] + LINES[2:29])


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([], []),
        (LINES, [(1, "E: suricata: no memory\n")]),
        (LINES, [(1, refusal(1, 2, 3, 4))]),
        (LINES, [(1, refusal(1)), (1, refusal(2))]),
        (LINES[:1], [(1, refusal(1))]),
        (LINES, [(-9, "")]),
    ],
    ids=["empty", "refused as a whole", "more than a tenth refused", "refused again", "its only rule refused", "killed"],
)
def test_a_set_that_fails_changes_nothing(active: Path, lines: list[str], answers: list[tuple[int, str]]) -> None:
    with pytest.raises(RulesetError):
        take_rules(lines, active, says(*answers))
    assert active.read_text() == "old\n"
    assert [path.name for path in active.parent.iterdir()] == ["active.rules"]


def test_feeds_that_end_while_they_are_read_change_nothing(active: Path) -> None:
    def broken() -> object:
        yield from LINES
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        take_rules(broken(), active, says((0, "")))  # type: ignore[arg-type]
    assert active.read_text() == "old\n"


def test_only_lines_of_the_candidate_are_read_off_the_words() -> None:
    said = 'E: error parsing signature "x" from file /other at line 3\nE: error parsing signature "y" from file /c at line 4\n'
    assert refused_lines(said, Path("/c")) == {4}


def test_bytes_that_are_no_utf8_come_through_as_they_were(active: Path) -> None:
    take_rules([b"\xff\xe3\x81\x82\n".decode(errors="surrogateescape")], active, says((0, "")))
    assert active.read_bytes() == b"\xff\xe3\x81\x82\n"
