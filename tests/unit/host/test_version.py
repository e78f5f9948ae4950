import os
from pathlib import Path

import pytest

from firmware.process import run
from firmware.version import parse_release, read_source
from mamori.formats.problems import BadInputError
from tests.support.need import need

CHANGELOG = "# Changelog\n\n## 2026.11.0\n\nFirst.\n\n## 2026.10.3\n"


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
    return run(["git", "-C", root, *identity, *arguments], explain="prepare a checkout").stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    need("git", "a checkout to read")
    git(tmp_path, "init", "--quiet")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("/out/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return tmp_path


@pytest.mark.parametrize("version", ["2026.11.0", "2026.1.0", "2030.12.17"])
def test_the_release_is_the_top_entry_of_the_changelog(version: str) -> None:
    assert parse_release(f"# Changelog\n\nIntroduction.\n\n## {version}\n\n## 2001.1.0\n") == version


@pytest.mark.parametrize(
    "title",
    [
        "Unreleased",
        "2026.11",
        "2026.11.0-rc1",
        "2026.13.0",
        "2026.0.1",
        "2026.01.0",
        "2026.1.00",
        "v2026.1.0",
        "1.2.3",
        "20２６.1.0",
    ],
)
def test_a_top_entry_that_is_no_calendar_version_is_refused(title: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        parse_release(f"## {title}\n\n## 2026.11.0\n")
    assert str(refusal.value).startswith("CHANGELOG.md: top entry: expected a calendar version YYYY.M.N")
    assert repr(title) in str(refusal.value)


def test_a_changelog_without_entries_is_refused() -> None:
    with pytest.raises(BadInputError, match="got 'no entry'"):
        parse_release("# Changelog\n\n### 2026.11.0\n")


def test_a_development_build_is_named_after_its_commit(checkout: Path) -> None:
    source = read_source(checkout)
    commit = git(checkout, "rev-parse", "HEAD")
    assert (source.version, source.commit, source.dirty) == (f"2026.11.0+g{commit[:10]}", commit, False)
    assert source.epoch == int(git(checkout, "show", "--no-patch", "--format=%ct"))


def test_only_the_clean_commit_with_its_tag_is_the_release(checkout: Path) -> None:
    git(checkout, "tag", "v2026.11.0")
    assert read_source(checkout).version == "2026.11.0"
    (checkout / "new.txt").write_text("more")
    assert read_source(checkout).version.startswith("2026.11.0+g")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "Second")
    assert read_source(checkout).version.startswith("2026.11.0+g")


def test_another_releases_tag_does_not_count(checkout: Path) -> None:
    git(checkout, "tag", "v2026.10.3")
    assert "+g" in read_source(checkout).version


def test_ignored_files_change_nothing(checkout: Path) -> None:
    clean = read_source(checkout)
    (checkout / "out").mkdir()
    (checkout / "out/disk.img").write_text("large")
    assert read_source(checkout) == clean


def test_different_local_changes_have_different_names(checkout: Path) -> None:
    names = [read_source(checkout).version]
    for change in ("one", "two"):
        (checkout / "CHANGELOG.md").write_text(CHANGELOG + change)
        names.append(read_source(checkout).version)
    (checkout / "CHANGELOG.md").write_text(CHANGELOG)
    for name, text in (("a.txt", "one"), ("a.txt", "two"), ("b.txt", "")):
        (checkout / name).write_text(text)
        names.append(read_source(checkout).version)
    (checkout / "link").symlink_to("a.txt")
    names.append(read_source(checkout).version)
    assert len(set(names)) == len(names)
    assert all(read_source(checkout) == read_source(checkout) for _ in range(2))


def test_untracked_things_that_are_no_files_do_not_stop_a_build(checkout: Path) -> None:
    (checkout / "dangling").symlink_to("nowhere")
    (checkout / "folder").symlink_to("/")
    nested = checkout / "buildroot-2026.05.1"
    nested.mkdir()
    git(nested, "init", "--quiet")
    (nested / "Makefile").write_text("all:\n")
    os.mkfifo(checkout / "pipe")
    assert read_source(checkout).dirty
