"""What people see, on a terminal and elsewhere, and the exit codes of verbs."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from firmware.console import Console
from firmware.process import PIPE, Result, run, start
from tests.support.need import need
from tests.support.wait import patience_s

GUARDED = """
from firmware.console import Console, guarded
from mamori.formats.problems import MamoriError
@guarded
def verb():
{body}
verb()
"""
STEPS = """
import time
from firmware.console import Console
console = Console()
with console.step("debian base") as step:
    step.note("412 packages")
    step.line("Setting up [bold]tzdata")
    time.sleep(0.4)
"""


def run_verb(body: str) -> Result:
    return run([sys.executable, "-c", GUARDED.format(body=f"    {body}")], explain="run a verb", accept=range(256))


def on_terminal(program: str, env: dict[str, str]) -> str:
    need("script", "gives a program a terminal")
    command = f"{sys.executable} {program}"
    return run(["script", "-qec", command, os.devnull], env={"TERM": "xterm"} | env, explain="use a terminal").stdout


def streams() -> tuple[io.StringIO, io.StringIO]:
    return io.StringIO(), io.StringIO()


def test_steps_are_plain_lines_where_there_is_no_terminal() -> None:
    answers, progress = streams()
    console = Console(stream=answers, progress=progress)
    with console.step("tools tree") as step:
        step.cached()
    with console.step("debian base") as step:
        step.line("Setting up tzdata")
        step.note("412 packages")
    lines = [" ".join(line.split()) for line in progress.getvalue().splitlines()]
    assert lines == ["tools tree cached", "debian base …", "debian base ✓ 0.0 s 412 packages"]
    assert "\x1b" not in progress.getvalue()
    assert answers.getvalue() == ""


def test_verbose_shows_every_line_of_a_tool() -> None:
    _, progress = streams()
    with Console(verbose=True, progress=progress).step("debian base") as step:
        step.line("\x1b[1mSetting up [bold]tzdata\x1b[0m")
    assert "  Setting up [bold]tzdata\n" in progress.getvalue()


def test_a_step_that_fails_is_marked_and_its_error_goes_on() -> None:
    _, progress = streams()
    with pytest.raises(ValueError, match="disk"), Console(progress=progress).step("image"):
        raise ValueError("disk")
    assert progress.getvalue().split() == ["image", "✗", "0.0", "s"]


def test_a_cached_step_that_fails_is_a_failure() -> None:
    _, progress = streams()
    with pytest.raises(ValueError, match="disk"), Console(progress=progress).step("image") as step:
        step.cached()
        raise ValueError("disk")
    assert "cached" not in progress.getvalue()


def test_answers_are_apart_from_progress_so_that_json_can_be_piped() -> None:
    answers, progress = streams()
    console = Console(stream=answers, progress=progress)
    with console.step("verify"):
        console.warn("slow disk [x]")
        console.json({"箱": ["a" * 300]})
    assert json.loads(answers.getvalue()) == {"箱": ["a" * 300]}
    assert "warning: slow disk [x]\n" in progress.getvalue()


def test_a_table_lines_its_columns_up() -> None:
    answers, _ = streams()
    Console(stream=answers).table(("name", "size"), [("boot-a", 12), ("x", 3)])
    assert answers.getvalue() == "name    size\nboot-a  12\nx       3\n"


def test_a_terminal_gets_a_live_line_that_is_gone_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    output = on_terminal(str(tmp_path / "steps.py"), {})
    live, record = output.rsplit("\x1b[2K", 1)
    assert "Setting up [bold]tzdata" in live
    assert "Setting up" not in record
    assert "412 packages" in record
    assert "\x1b[32m✓" in record


def test_no_color_and_dumb_terminals_are_respected(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    assert "\x1b[32m" not in on_terminal(str(tmp_path / "steps.py"), {"NO_COLOR": "1"})
    assert "\x1b" not in on_terminal(str(tmp_path / "steps.py"), {"TERM": "dumb"})


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        pytest.param("return None", 0, "", id="success"),
        pytest.param("return 5", 5, "", id="a code of its own"),
        pytest.param(
            "raise MamoriError('lab.toml: bad', 'mend it')", 2, "error: lab.toml: bad\n    hint: mend it\n", id="bad input"
        ),
        pytest.param("raise KeyboardInterrupt", 130, "interrupted\n", id="Ctrl-C"),
    ],
)
def test_a_verb_ends_with_the_exit_code_of_its_outcome(body: str, code: int, said: str) -> None:
    outcome = run_verb(body)
    assert (outcome.code, outcome.stderr, outcome.stdout) == (code, said, "")


def test_a_bug_shows_its_traceback() -> None:
    outcome = run_verb("return 1 // 0")
    assert outcome.code == 1
    assert outcome.stderr.startswith("Traceback")
    assert "ZeroDivisionError" in outcome.stderr


def test_a_polite_kill_leaves_through_the_clean_up() -> None:
    program = GUARDED.format(
        body="    import time\n    try: print('up', flush=True); time.sleep(60)\n    finally: print('down', flush=True)"
    )
    with start([sys.executable, "-c", program], explain="be told to end", stdout=PIPE) as verb:
        assert verb.stdout is not None
        assert verb.stdout.readline() == b"up\n"
        os.kill(verb.pid, signal.SIGTERM)
        assert verb.stdout.readline() == b"down\n"
        assert verb.wait(patience_s(5)) == 128 + signal.SIGTERM
