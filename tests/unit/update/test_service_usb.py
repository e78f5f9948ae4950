"""A release on a stick: the updater as a process, a repository of real keys, and a folder where mamori-usb@.service would mount."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware.repository.repository import Repository
from mamori.formats.offer import Wave
from mamori.paths import Device
from mamori.update.usb import MOUNTED, REPOSITORY
from tests.support.repository import Keys, open_repository, served
from tests.support.update_world import make_offer
from tests.support.updater import make_device, mamori, refuse, status, updater
from tests.support.wait import check_until

NOW = int(time.time())
DAY_S = 86_400

SIGNATURE = b"signature"
BUNDLE = bytes(100_000) + SIGNATURE + len(SIGNATURE).to_bytes(8)
"""Looks like a bundle at its end; nobody is here who would verify it."""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return make_device(tmp_path / "box")


@pytest.fixture
def repository(device: Device, tmp_path: Path) -> Repository:
    """One that the box knows."""
    repository = open_repository(tmp_path / "repository", Keys())
    repository.init(NOW)
    device.tuf_anchor.write_bytes(repository.store.root())
    return repository


def release(repository: Repository, version: str, content: bytes = BUNDLE, **changes: Any) -> None:
    bundle = repository.store.folder.with_name("bundle")
    bundle.write_bytes(content)
    offer = make_offer(version, **{"waves": (Wave(100, 0),), "activate_after": NOW + DAY_S, **changes})
    repository.add_release(bundle, offer, NOW)


def plug_in(device: Device, repository: Repository, name: str = "sdb1") -> Path:
    """A copy of the repository as it is now; the folder on the stick."""
    folder = device.sticks / name / REPOSITORY
    shutil.copytree(repository.store.folder, folder)
    (device.sticks / f"{name}{MOUNTED}").touch()
    return folder


def pull_out(device: Device, name: str = "sdb1") -> None:
    (device.sticks / f"{name}{MOUNTED}").unlink()
    shutil.rmtree(device.sticks / name)


@pytest.fixture
def box(device: Device) -> Iterator[Device]:
    with updater(device):
        yield device


def stick_problem(device: Device) -> str:
    return str(status(device)["stick_problem"])


def test_a_release_on_a_stick_is_found_and_fetched_from_there(box: Device, repository: Repository) -> None:
    release(repository, "2026.12.0")
    plug_in(box, repository)
    check_until("it was tried", lambda: status(box)["problem"], within_s=30)
    said = status(box)
    assert (said["phase"], said["offered"], said["source"], said["attempts"]) == ("available", "2026.12.0", "usb", 1)
    assert "busctl" in said["problem"] or "RAUC" in said["problem"], "it came as far as what is not here"
    assert "from a USB stick" in mamori(box, "update", "status")


def test_a_stick_that_is_pulled_out_is_waited_for_and_tried_at_once_when_it_is_back(box: Device, repository: Repository) -> None:
    release(repository, "2026.12.0")
    plug_in(box, repository)
    check_until("it was tried", lambda: status(box)["attempts"] == 1 and status(box)["problem"], within_s=30)
    pull_out(box)
    check_until("it is seen", lambda: "pulled out" in (box.root / "log").read_text(), within_s=10)
    assert "nobody has it now" in refuse(box, "update", "stage")
    said = status(box)
    assert (said["phase"], said["attempts"]) == ("available", 1), "nothing is tried where nothing is"
    plug_in(box, repository, "sdc1")
    check_until("it was tried again", lambda: status(box)["attempts"] == 2, within_s=20)


def cut_short(folder: Path) -> None:
    for bundle in folder.glob("targets/**/*.raucb"):
        os.truncate(bundle, 50_000)


def leave_out(folder: Path) -> None:
    for bundle in folder.glob("targets/**/*.raucb"):
        bundle.unlink()


def spoil_end(folder: Path) -> None:
    for bundle in folder.glob("targets/**/*.raucb"):
        bundle.write_bytes(bytes(len(BUNDLE)))


@pytest.mark.parametrize(("harm", "says"), [(cut_short, "has 50000 bytes"), (leave_out, "No such file"), (spoil_end, "no bundle")])
def test_a_bad_copy_of_a_bundle_does_not_give_the_release_up(
    device: Device, repository: Repository, harm: Callable[[Path], None], says: str
) -> None:
    release(repository, "2026.12.0")
    harm(plug_in(device, repository))
    with updater(device):
        check_until("it was tried", lambda: says in status(device)["problem"], within_s=30)
        assert status(device)["phase"] == "available"
        assert status(device)["history"] == []


def garbage(folder: Path) -> None:
    for path in folder.glob("metadata/*timestamp.json"):
        path.write_bytes(b"\xff\x00{[" * 1000)


def endless(folder: Path) -> None:
    with (folder / "metadata/timestamp.json").open("ab") as file:
        file.truncate(8 << 30)  # sparse


def a_pipe(folder: Path) -> None:
    (folder / "metadata/timestamp.json").unlink()
    os.mkfifo(folder / "metadata/timestamp.json")


def a_link(folder: Path) -> None:
    shutil.move(folder / "metadata", folder.parents[1] / "elsewhere")
    (folder / "metadata").symlink_to("../../elsewhere")


def changed(folder: Path) -> None:
    path = folder / "metadata/timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 9').replace(b'"version":2', b'"version":9'))


def nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


BAD = {
    "garbage": (garbage, "not to be believed"),
    "a file of eight gigabytes": (endless, "other bytes than it announced"),
    "a pipe": (a_pipe, "cannot be reached"),
    "a link out of it": (a_link, "cannot be reached"),
    "words that nobody signed": (changed, "signatures do not suffice"),
    "an empty repository": (nothing, "cannot be reached"),
}


@pytest.mark.parametrize(("harm", "says"), BAD.values(), ids=BAD)
def test_a_stick_that_makes_no_sense_is_told_and_changes_nothing(
    device: Device, repository: Repository, harm: Callable[[Path], None], says: str
) -> None:
    release(repository, "2026.12.0")
    harm(plug_in(device, repository))
    with updater(device):
        check_until("it is told", lambda: says in stick_problem(device), within_s=30)
        said = status(device)
        assert "sdb1" in said["stick_problem"]
        assert (said["phase"], said["offered"], said["is_checking"]) == ("idle", None, False)


def test_a_stick_of_somebody_elses_repository_is_refused(box: Device, repository: Repository, tmp_path: Path) -> None:
    del repository
    other = open_repository(tmp_path / "other", Keys())
    other.init(NOW)
    release(other, "2026.12.0")
    plug_in(box, other)
    check_until("it is told", lambda: "signatures do not suffice" in stick_problem(box), within_s=30)
    assert status(box)["offered"] is None


def test_a_stick_that_is_behind_the_repository_does_not_take_its_release_back(
    device: Device, repository: Repository, tmp_path: Path
) -> None:
    release(repository, "2026.12.0")
    old = tmp_path / "old"
    shutil.copytree(repository.store.folder, old)
    release(repository, "2026.12.1", BUNDLE + b"")
    with served(repository.store.folder) as url, updater(device):
        (device.update / "settings.toml").write_text(f'url = "{url}"\n')
        mamori(device, "update", "check")
        check_until("the new one is known", lambda: status(device)["offered"] == "2026.12.1", within_s=30)
        assert status(device)["source"] == url
        shutil.copytree(old, device.sticks / "sdb1" / REPOSITORY)
        (device.sticks / f"sdb1{MOUNTED}").touch()
        check_until("it is told", lambda: "older things than before" in stick_problem(device), within_s=30)
        assert status(device)["offered"] == "2026.12.1"


def test_a_release_that_is_older_than_what_runs_is_not_wanted(box: Device, repository: Repository) -> None:
    release(repository, "2026.10.0")
    plug_in(box, repository)
    log = box.root / "log"
    check_until("the stick was read", lambda: "its repository is sound" in log.read_text(), within_s=30)
    assert status(box)["offered"] is None


def test_the_settings_count_for_sticks_too(device: Device, repository: Repository) -> None:
    (device.update / "settings.toml").write_text('pin = "2026.11.5"\n')
    release(repository, "2026.12.0")
    plug_in(device, repository)
    with updater(device):
        check_until("it is told", lambda: "want 2026.11.5" in stick_problem(device), within_s=30)
        assert status(device)["offered"] is None


def test_a_stick_with_photographs_is_nobodys_business(box: Device, repository: Repository) -> None:
    (box.sticks / "sdb1/DCIM").mkdir(parents=True)
    (box.sticks / f"sdb1{MOUNTED}").touch()
    release(repository, "2026.12.0")
    plug_in(box, repository, "sdc1")
    check_until("the next one is looked at", lambda: status(box)["offered"], within_s=30)
    assert stick_problem(box) == ""
