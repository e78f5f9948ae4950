"""The linters, type checker and layer rules find nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from firmware.process import run
from tests.support.checkout import ROOT, files
from tests.support.need import need

BESIDE_PYTHON = Path(sys.executable).parent
TIMEOUT_S = 240

LINTERS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    # Without its cache: an incremental run after a file moved has reported modules as missing.
    "mypy --strict": ["mypy", "--cache-dir=/dev/null"],
    "mypy --strict of the verbs": ["mypy", "--cache-dir=/dev/null", "tasks.py"],
    "lint-imports": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("command", LINTERS.values(), ids=LINTERS)
def test_the_linter_finds_nothing(command: list[str]) -> None:
    outcome = run([BESIDE_PYTHON / command[0], *command[1:]], cwd=ROOT, explain=command[0], timeout_s=TIMEOUT_S, accept=range(256))
    assert outcome.code == 0, f"\n{outcome.stdout}{outcome.stderr}"


def shell_scripts() -> list[Path]:
    """Scripts by their first line. Templates are checked as their rendered golden copies: shellcheck cannot read Jinja."""
    candidates = [path for path in files() if path.suffix not in (".py", ".md", ".j2")]
    return [
        path for path in candidates if (ROOT / path).read_bytes()[:64].partition(b"\n")[0].endswith((b"sh", b"sh -eu", b"sh -e"))
    ]


def test_shellcheck_finds_nothing_in_scripts() -> None:
    need("shellcheck", "checks shell scripts")
    assert Path(".ci/run") in shell_scripts()
    outcome = run(["shellcheck", "--severity=warning", *shell_scripts()], cwd=ROOT, explain="shellcheck", accept=range(256))
    assert outcome.code == 0, f"\n{outcome.stdout}"
