"""`./inv` in a copy of the checkout that a test may spoil, with a previous output in it that must survive.

The copy runs its own code in this checkout's virtual environment: making another one is what tests of bootstrap do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware.bench_build import copy_checkout
from firmware.process import Argument, Result, Running, run, start
from firmware.recipe import ROOT

PREVIOUS = "out/lab/2026.1.0"


@dataclass(frozen=True)
class Copy:
    root: Path

    def argv(self, arguments: Sequence[str]) -> list[Argument]:
        return [sys.executable, "-P", "-m", "invoke", "--search-root", self.root, *arguments]

    def inv(self, *arguments: str, env: Mapping[str, str] | None = None, within: Sequence[Argument] = ()) -> Result:
        """What `./inv ARGUMENTS` says, whatever its exit code; `within` is a command that it is started by."""
        return run([*within, *self.argv(arguments)], cwd=self.root, env=env, accept=range(256), timeout_s=280, explain="run ./inv")

    @contextmanager
    def start(self, *arguments: str, log: Path) -> Iterator[Running]:
        with start(self.argv(arguments), cwd=self.root, log=log, explain="run ./inv") as running:
            yield running

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.root / file).read_text()
        assert old in text, f"{file} no longer says {old!r}"
        (self.root / file).write_text(text.replace(old, new, 1))

    def output(self) -> dict[str, str]:
        """All that people may have from an earlier build: names and contents below out/lab, without rendered files."""
        files = {}
        for path in sorted((self.root / "out" / "lab").rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_symlink():
                files[name] = f"-> {path.readlink()}"
            elif path.is_file() and "rendered" not in path.parts:
                files[name] = path.read_text()
        return files


def make_copy(folder: Path) -> Copy:
    """A copy with a finished build from long ago."""
    copy_checkout(ROOT, folder)
    previous = folder / PREVIOUS
    previous.mkdir(parents=True)
    (previous / "SHA256SUMS").write_text("from an earlier build\n")
    (previous.parent / "latest").symlink_to(previous.name)
    return Copy(folder)


def check_refused(result: Result, *told: str) -> None:
    """The contract of bad input: exit code 2, one paragraph that says what is wrong, no traceback, nothing on stdout."""
    assert result.code == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1, result.stderr
    paragraph = result.stderr[result.stderr.index("error: ") :]
    for words in told:
        assert words in paragraph, f"{words!r} is not in:\n{paragraph}"
    assert not result.stdout
