"""How bad input is told to people: every problem at once, each with file, key, expected and actual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with one key of one file."""

    source: str
    key: str
    expected: str
    got: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.source}: {self.key}: expected {self.expected}, got {self.got}"
        return f"{line}\n    hint: {self.hint}" if self.hint else line


class MamoriError(Exception):
    """The user, the input or the machine is at fault, not the code: shown as text without a traceback, exit code 2."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}\n    hint: {hint}" if hint else message)


class BadInputError(MamoriError):
    """One or more problems in files that people write."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
