import pickle

import pytest

from mamori.formats.problems import BadInputError, MamoriError, Problem


def test_a_problem_is_one_line_and_its_hint_another() -> None:
    problem = Problem("lab.toml", "update.tries", "2 to 9", "0")
    assert str(problem) == "lab.toml: update.tries: expected 2 to 9, got 0"
    assert str(Problem("lab.toml", "k", "x", "y", "try z")) == "lab.toml: k: expected x, got y\n    hint: try z"


def test_problems_are_told_once_each_and_in_order() -> None:
    second, first = Problem("b", "k", "x", "y"), Problem("a", "k", "x", "y")
    error = BadInputError(iter([second, first, second]))
    assert error.problems == (first, second)
    assert str(error) == f"{first}\n{second}"


def test_an_error_for_people_carries_its_message_and_hint() -> None:
    error = MamoriError("no mirror", hint="set one")
    assert (error.message, error.hint, str(error)) == ("no mirror", "set one", "no mirror\n    hint: set one")
    assert str(MamoriError("no mirror")) == "no mirror"


def test_bad_input_is_an_error_for_people() -> None:
    with pytest.raises(MamoriError, match="got y"):
        raise BadInputError([Problem("a", "k", "x", "y")])


def test_a_problem_survives_the_way_between_processes() -> None:
    problem = Problem("a", "k", "x", "y", "z")
    assert pickle.loads(pickle.dumps(problem)) == problem  # noqa: S301 - our own bytes
