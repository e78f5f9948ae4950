"""Data goes forward by steps, survives a power cut in any of them, and can be had back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mamori.durable import write_durably
from mamori.update import dataformat as module
from mamori.update.dataformat import DataFormatError, Step, forget_kept, migrate, newest_format, read_format, restore


def to_two(data: Path) -> None:
    """Every line of the list gets a mark, once; a note is made."""
    path = data / "list"
    lines = [line if line.startswith("2 ") else f"2 {line}" for line in path.read_text().splitlines()]
    write_durably(path, "".join(f"{line}\n" for line in lines).encode())
    write_durably(data / "note", b"made by step 2\n")


def to_three(data: Path) -> None:
    """A folder takes the place of the list."""
    folder = data / "lists"
    folder.mkdir(exist_ok=True)
    if (data / "list").exists():
        write_durably(folder / "first", (data / "list").read_bytes())
        (data / "list").unlink()


STEPS = {2: Step(("list", "note"), to_two), 3: Step(("list", "lists"), to_three)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "list").write_text("a\nb\n")
    (tmp_path / "update").mkdir()
    return tmp_path


def content(data: Path) -> dict[str, str]:
    """All files but the copies."""
    return {
        str(path.relative_to(data)): path.read_text()
        for path in sorted(data.rglob("*"))
        if path.is_file() and "kept" not in path.parts
    }


def test_data_goes_forward_step_by_step_and_back_with_what_was_kept(data: Path) -> None:
    first = content(data)
    assert migrate(data, STEPS) == [2, 3]
    assert content(data) == {"format": "3\n", "lists/first": "2 a\n2 b\n", "note": "made by step 2\n"}
    assert migrate(data, STEPS) == []
    assert restore(data, 2) == [3]
    assert content(data) == {"format": "2\n", "list": "2 a\n2 b\n", "note": "made by step 2\n"}
    assert restore(data, 1) == [2]
    assert content(data) == {**first, "format": "1\n"}
    assert migrate(data, STEPS) == [2, 3]


def test_what_was_not_kept_cannot_be_had_back(data: Path) -> None:
    migrate(data, STEPS)
    forget_kept(data)
    with pytest.raises(DataFormatError, match="was not kept"):
        restore(data, 1)
    assert read_format(data) == 3


def test_data_of_a_newer_image_is_left_alone(data: Path) -> None:
    (data / "format").write_text("4\n")
    with pytest.raises(DataFormatError, match="this image knows 3"):
        migrate(data, STEPS)
    assert (data / "list").exists()


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "99999", "1.5", "\xff"])
def test_a_number_that_is_none_is_told(data: Path, text: str) -> None:
    (data / "format").write_text(text, encoding="latin-1")
    with pytest.raises(DataFormatError, match="expected a number"):
        read_format(data)


def test_this_images_steps_lead_from_the_first_format_to_its_own_without_a_gap() -> None:
    assert sorted(module.STEPS) == list(range(2, newest_format() + 1))


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("survived", range(20))
def test_a_power_cut_anywhere_in_a_step_is_gone_on_from(data: Path, monkeypatch: pytest.MonkeyPatch, survived: int) -> None:
    """Of all writes of both steps so many are on the disk. Afterwards either way is open: forward, and back to what it was."""
    first, left = content(data), [survived]

    def cut(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            return real(*arguments, **named)

        return write

    with monkeypatch.context() as patched:
        for name in ("write_durably", "replacing"):
            patched.setattr(module, name, cut(getattr(module, name)))
        patched.setitem(globals(), "write_durably", cut(write_durably))
        patched.setattr(module.shutil, "copytree", cut(module.shutil.copytree))
        done = True
        try:
            migrate(data, STEPS)
        except PowerCutError:
            done = False
    assert done == (read_format(data) == 3)
    migrate(data, STEPS)
    assert content(data) == {"format": "3\n", "lists/first": "2 a\n2 b\n", "note": "made by step 2\n"}
    restore(data, 1)
    assert content(data) == {**first, "format": "1\n"}
