"""How long a build takes: from nothing, after a change in the app, and when nothing changed.

Measured with `./inv build` in a copy of this checkout under `out/bench-work`, so that neither the cache nor a file of the
developer is touched. The first of the three is a fresh clone's: virtual environment, keys, tools tree and base included.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from firmware.process import download_environment, run
from firmware.workspace import Workspace

COLD_TARGET_S = 480.0
CHANGED_TARGET_S = 60.0
UNCHANGED_TARGET_S = 3.0

_WORK = "bench-work"
_CHANGED = Path("python-app/src/mamori/cli.py")
_BUILD_TIMEOUT_S = 3600.0


def bench_build(workspace: Workspace) -> dict[str, Any]:
    """Seconds of three builds of `lab`, each with its target and the seconds of the steps that it really did."""
    checkout = workspace.out / _WORK
    shutil.rmtree(checkout, ignore_errors=True)
    try:
        copy_checkout(workspace.root, checkout)
        measured = {"cold": _measure(workspace, checkout, "cold build", COLD_TARGET_S)}
        with (checkout / _CHANGED).open("a") as file:
            file.write("\n# measured\n")
        measured["app_changed"] = _measure(workspace, checkout, "build after a change in the app", CHANGED_TARGET_S)
        measured["unchanged"] = _measure(workspace, checkout, "build without a change", UNCHANGED_TARGET_S)
    finally:
        shutil.rmtree(checkout, ignore_errors=True)
    return measured


def copy_checkout(root: Path, into: Path) -> None:
    """The working tree as git sees it, changes and new files included, with a history of its own; ignored files stay behind.

    The copy builds the same version as the original.
    """
    run(["git", "clone", "--quiet", "--no-checkout", "--shared", root, into], explain="copy the history")
    listing = run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], explain="list the checkout"
    ).stdout
    for name in filter(None, listing.split("\0")):
        source, target = root / name, into / name
        if source.is_symlink() or source.exists():  # a file may have been deleted
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    run(["git", "-C", into, "reset", "--quiet"], explain="compare the copy with its history")


def _measure(workspace: Workspace, checkout: Path, name: str, target_s: float) -> dict[str, Any]:
    with workspace.console.step(name) as step:
        before, started = time.time(), time.monotonic()
        argv: list[str | Path] = [checkout / "inv", "build", "--json"]
        answer = run(argv, env=download_environment(), on_line=step.line, timeout_s=_BUILD_TIMEOUT_S, explain=name)
        seconds = time.monotonic() - started
    folder = checkout / json.loads(answer.stdout)["folder"]
    done = {entry["step"]: entry["seconds"] for entry in _steps_since(checkout / "out" / "cache", before)}
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"seconds": round(seconds, 2), "target_s": target_s, "met": seconds <= target_s, "steps_s": done, "release_bytes": size}


def _steps_since(cache: Path, moment: float) -> list[dict[str, Any]]:
    """The artifacts that were made after `moment` (Unix seconds), with the seconds that each took."""
    made = [path for path in cache.glob("*/*/artifact.json") if path.stat().st_mtime >= moment]
    return [
        {"step": path.parent.parent.name, "seconds": json.loads(path.read_text())["seconds"]} for path in sorted(made, key=_age)
    ]


def _age(path: Path) -> float:
    return path.stat().st_mtime
