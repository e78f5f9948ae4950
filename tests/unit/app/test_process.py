"""The door to other programs, with real ones behind it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from mamori.formats.problems import MamoriError
from mamori.process import Child, run_tool

PYTHON = sys.executable


def test_a_tool_gets_its_input_and_gives_what_it_prints() -> None:
    assert run_tool(("cat",), input=b"\0\xff" * 100_000, explain="copy") == b"\0\xff" * 100_000


def test_a_tool_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SECRET", "x")
    names = {line.partition(b"=")[0] for line in run_tool(("env",), explain="look").splitlines()}
    assert names == {b"PATH", b"LC_ALL"}


def not_to_be_executed(folder: Path) -> tuple[str, ...]:
    (folder / "tool").write_text("x")
    return (str(folder / "tool"),)


def no_program(folder: Path) -> tuple[str, ...]:
    (folder / "tool").write_bytes(b"\x7fELF")
    (folder / "tool").chmod(0o755)
    return (str(folder / "tool"),)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: ("no-such-tool",), "load it: no-such-tool is not installed"),
        (not_to_be_executed, "cannot be started: Permission denied"),
        (no_program, "cannot be started: Exec format error"),
        (
            lambda _: (PYTHON, "-c", "import sys; sys.exit('one\\n\\xff\\nlast words')"),
            "failed with exit code 1: one / ÿ / last words",
        ),
        (lambda _: (PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"), "failed with exit code -9"),
    ],
    ids=["is not there", "is not to be executed", "is no program", "fails with words", "is killed"],
)
def test_a_tool_that_does_not_do_it_is_told_in_one_line(make, says: str, tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match="load it: ") as failed:
        run_tool(make(tmp_path), explain="load it")
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_child_is_stopped_in_order_or_killed() -> None:
    for end, code in (("stop", -signal.SIGTERM), ("kill", -signal.SIGKILL)):
        child = Child([PYTHON, "-c", "import time; time.sleep(60)"])
        assert child.exit_code() is None
        assert not child.wait(0.01)
        getattr(child, end)()
        assert child.wait(20)
        assert child.exit_code() == code
        getattr(child, end)()  # once more does no harm, though the number may be another process's by now
        assert child.wait(0)


def test_a_child_that_is_stopped_by_a_signal_can_be_killed() -> None:
    child = Child([PYTHON, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
    assert not child.wait(0.3)
    child.kill()
    assert child.wait(20)
