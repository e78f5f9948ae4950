"""Copies of everything that is rendered, so that a change of a template, a recipe or a board is read as what it does."""

import difflib
import os
from pathlib import Path

import pytest

from firmware.recipe import read_image, recipe_names
from firmware.render import render_image, write_rendered
from tests.support.recipes import SOURCE

GOLDEN = Path(__file__).parent / "golden"
RENEW = "MAMORI_RENEW_GOLDEN"
HOW = f"If this is what the change was meant to do: {RENEW}=1 pytest tests/unit/host/test_golden.py, and commit the difference."


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipe_renders_what_its_golden_copies_say(name: str) -> None:
    rendered = dict(render_image(read_image(name, SOURCE)))
    if os.environ.get(RENEW):
        write_rendered(rendered, GOLDEN / name)
    golden = {path.relative_to(GOLDEN / name).as_posix(): path.read_text() for path in (GOLDEN / name).rglob("*") if path.is_file()}
    differences = [_difference(f"{name}/{file}", golden.get(file), rendered.get(file)) for file in sorted({*golden, *rendered})]
    assert not any(differences), "\n".join(["", *filter(None, differences), HOW])


def test_there_are_no_golden_copies_of_recipes_that_are_gone() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == recipe_names()


def _difference(name: str, golden: str | None, rendered: str | None) -> str:
    if golden is None or rendered is None:
        return f"{name}: {'new' if golden is None else 'no longer rendered'}"
    lines = difflib.unified_diff(golden.splitlines(), rendered.splitlines(), f"golden/{name}", f"rendered/{name}", lineterm="", n=1)
    return "\n".join(lines) or ("" if golden == rendered else f"{name}: differs in line ends")
