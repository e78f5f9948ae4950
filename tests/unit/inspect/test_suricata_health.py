"""When the signature engine counts as up, away or stuck."""

from __future__ import annotations

import pytest

from mamori.inspect.suricata.health import STUCK_AFTER_S, Condition, Health, Look, judge_look

STEP_S = STUCK_AFTER_S / 4
SILENT = Look(True, False)


def seen(*looks: Look) -> list[Condition]:
    """What is said after each look."""
    health, said = Health(), []
    for number, look in enumerate(looks):
        health = judge_look(health, look, 100.0 + number * STEP_S)
        said.append(health.condition)
    return said


@pytest.mark.parametrize(
    ("looks", "last"),
    [
        ([Look(False)], Condition.AWAY),
        ([Look(True, True, None, 0)] * 9, Condition.UP),
        ([Look(True, True, 5, 5)] * 9, Condition.UP),
        ([Look(True, True, number, number) for number in range(9)], Condition.UP),
        ([Look(True, True, 5, number) for number in range(9)], Condition.STUCK),
        ([SILENT] * 4, Condition.UP),
        ([SILENT] * 5, Condition.STUCK),
        ([Look(True, True, 5, 5), *[SILENT] * 4], Condition.STUCK),
        ([*[SILENT] * 3, Look(True, True, 5, 5), *[SILENT] * 3], Condition.UP),
        ([*[SILENT] * 4, Look(False), SILENT], Condition.UP),
        ([Look(True, True, 5, 100), *[Look(True, True, 5, 7)] * 9], Condition.UP),
    ],
    ids=[
        *("nobody listens", "it does not count yet", "nothing to do", "it moves", "it answers and does not move"),
        *("silent for a moment", "silent", "silent after it was well", "an answer between", "another one in its place"),
        "a worker began anew",
    ],
)
def test_what_the_looks_say(looks: list[Look], last: Condition) -> None:
    assert seen(*looks)[-1] is last


def test_stuck_lasts_until_it_moves_or_another_one_is_there() -> None:
    said = seen(*[SILENT] * 7, Look(True, True, 1, 0), *[SILENT] * 5, Look(False), SILENT)
    assert [condition.name for condition in said[4:9]] == ["STUCK", "STUCK", "STUCK", "UP", "UP"]
    assert [condition.name for condition in said[-4:]] == ["STUCK", "STUCK", "AWAY", "UP"]
