"""What is in force when files change, break, and come back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mamori.inspect.policy import Mode
from mamori.inspect.sources import JudgeSource
from tests.support.need import need

LOG_VIRUSES = '[virus]\nmode = "log"\n'


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def source(tmp_path: Path, said: list[str]) -> JudgeSource:
    return JudgeSource(tmp_path / "policy.toml", tmp_path / "accepted.toml", tmp_path / "lists", said.append)


def write(path: Path, text: str) -> None:
    """As a portal would: another file in its place."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(path)


def test_without_any_file_the_defaults_are_in_force(source: JudgeSource, said: list[str]) -> None:
    assert source.load().policy.virus.mode is Mode.BLOCK
    assert source.reload() is None
    assert said == []


def test_a_new_policy_is_taken_once(source: JudgeSource, tmp_path: Path) -> None:
    source.load()
    write(tmp_path / "policy.toml", LOG_VIRUSES)
    judge = source.reload()
    assert judge is not None
    assert judge.policy.virus.mode is Mode.LOG
    assert source.reload() is None


@pytest.mark.parametrize(
    "text",
    [
        "[virus\n",
        '[virus]\nmode = "x"\n',
        "[nothing]\n",
        '[block]\nurls = ["http://[::1/x"]\n',
        "\xff",
    ],
    ids=["no TOML", "a mode that is none", "an unknown table", "an address that is none", "not what it was"],
)
def test_a_policy_that_is_none_leaves_the_old_one_in_force_and_is_told_once(
    source: JudgeSource, tmp_path: Path, said: list[str], text: str
) -> None:
    write(tmp_path / "policy.toml", LOG_VIRUSES)
    source.load()
    write(tmp_path / "policy.toml", text)
    assert source.reload() is None
    assert source.reload() is None
    assert source.policy.virus.mode is Mode.LOG
    assert len(said) == 1
    assert "policy" in source.describe()["problems"]
    write(tmp_path / "policy.toml", "")
    assert source.reload() is not None
    assert source.describe()["problems"] == {}


def test_at_the_start_a_bad_policy_is_replaced_by_the_last_good_one(source: JudgeSource, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[")
    (tmp_path / "accepted.toml").write_text(LOG_VIRUSES)
    assert source.load().policy.virus.mode is Mode.LOG
    assert "policy" in source.describe()["problems"]


def test_a_pipe_or_a_folder_in_place_of_a_file_is_no_reason_to_wait(source: JudgeSource, tmp_path: Path, said: list[str]) -> None:
    source.load()
    os.mkfifo(tmp_path / "policy.toml")
    os.mkfifo(tmp_path / "lists")
    assert source.reload() is None
    (tmp_path / "policy.toml").unlink()
    (tmp_path / "policy.toml").mkdir()
    assert source.reload() is None
    assert [text.rpartition(": ")[2] for text in said] == ["not a file", "Invalid argument"]


def test_a_link_to_itself_is_no_reason_to_take_the_defaults(source: JudgeSource, tmp_path: Path, said: list[str]) -> None:
    write(tmp_path / "policy.toml", LOG_VIRUSES)
    source.load()
    for name in ("policy.toml", "lists"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(name)
    assert source.reload() is None
    assert source.policy.virus.mode is Mode.LOG
    assert len(said) == 2
    (tmp_path / "policy.toml").unlink()
    judge = source.reload()
    assert judge is not None
    assert judge.policy.virus.mode is Mode.BLOCK


def test_a_folder_that_may_not_be_read_is_no_reason_to_end(tmp_path: Path, said: list[str]) -> None:
    need(os.geteuid() == 0, "only root can become somebody who may not read")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o711)
    os.seteuid(65534)
    try:
        source = JudgeSource(closed / "policy.toml", closed / "accepted.toml", closed / "lists", said.append)
        assert source.load().policy.virus.mode is Mode.BLOCK
        assert source.reload() is None
    finally:
        os.seteuid(0)
    assert {text.rpartition(": ")[2] for text in said} == {"Permission denied"}


def test_lists_that_are_damaged_are_told_and_change_nothing(source: JudgeSource, tmp_path: Path, said: list[str]) -> None:
    source.load()
    (tmp_path / "lists").write_bytes(os.urandom(1000))
    assert source.reload() is None
    assert len(said) == 1
    assert said[0].startswith("lists: ")
