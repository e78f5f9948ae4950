"""The files of the checkout as the house rules see them: what git tracks, and what it would track next."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from firmware.process import run

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("firmware", "signing", "python-app", "tests")
CONTENT_FOLDERS = ("board", "overlay", "image-recipes", "package")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or neither tracked nor ignored, relative to the root."""
    listing = run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, explain="list the checkout"
    ).stdout
    return tuple(Path(name) for name in sorted(listing.split("\0")) if name and (ROOT / name).is_file())


def files_under(*folders: str) -> tuple[Path, ...]:
    return tuple(path for path in files() if path.parts[0] in folders)


def text_files() -> dict[Path, str]:
    """Path and text of every file that is text."""
    contents = {path: (ROOT / path).read_bytes() for path in files()}
    return {path: content.decode(errors="replace") for path, content in contents.items() if b"\0" not in content}


@cache
def python_files() -> dict[Path, ast.Module]:
    """Every Python file with its syntax tree; `inv` is one, too. For all tests the same, so look and do not touch."""
    return {
        path: ast.parse((ROOT / path).read_bytes(), str(path)) for path in files() if path.suffix == ".py" or path == Path("inv")
    }
