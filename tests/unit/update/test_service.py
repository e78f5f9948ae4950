"""The updater as a process: a real repository over HTTP, a boot state in a file, its commands; only RAUC is not here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firmware.process import Argument, run, start
from mamori.formats.bootstate import DEFAULT_TRIES, BootState, Slot
from mamori.formats.offer import Wave
from mamori.formats.release import Update
from mamori.formats.release import encode as encode_release
from mamori.paths import Device
from mamori.update.journal import read_journal, save_journal
from mamori.update.words import Journal, Phase, Result
from tests.support.guarded import RELEASE
from tests.support.repository import Keys, open_repository, served
from tests.support.update_world import COMPATIBLE, make_offer
from tests.support.updater import ENVIRONMENT, make_device, mamori, read_state, status, updater, write_state
from tests.support.wait import check_until, patience_s

NOW = int(time.time())
DAY_S = 86_400


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return make_device(tmp_path / "box")


@pytest.fixture
def repository(device: Device, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`release(version, …)` puts one into a repository that the box knows."""
    keys = Keys()
    repository = open_repository(tmp_path / "repository", keys)
    repository.init(NOW)
    device.tuf_anchor.write_bytes(repository.store.root())
    bundle = tmp_path / "bundle"

    def release(version: str, content: bytes = b"no bundle", **changes: Any) -> None:
        bundle.write_bytes(content)
        repository.add_release(bundle, make_offer(version, waves=(Wave(100, 0),), **changes), NOW)

    with served(repository.store.folder) as url:
        (device.update / "settings.toml").write_text(f'url = "{url}"\n')
        yield release


def test_a_new_box_says_that_nothing_is_to_be_done(device: Device) -> None:
    with updater(device):
        said = status(device)
        assert (said["phase"], said["version"], said["offered"]) == ("idle", "2026.11.0", None)
        assert "Up to date" in mamori(device, "update", "status")
        assert mamori(device, "update", "history") == ""
    assert len(device.identity.read_text().strip()) == 32
    assert read_state(device) == BootState(Slot.A)


def test_a_release_is_found_on_command_and_what_is_no_bundle_is_given_up(device: Device, repository: Callable[..., None]) -> None:
    repository("2026.12.0", activate_after=NOW + DAY_S)
    with updater(device):
        mamori(device, "update", "check")
        check_until("it was given up", lambda: status(device)["history"], within_s=20)
        (outcome,) = status(device)["history"]
        assert (outcome["version"], outcome["result"]) == ("2026.12.0", Result.FAILED.value)
        assert "no bundle" in outcome["reason"]
        assert "failed: no bundle" in mamori(device, "update", "history")
    assert read_journal(device.journal).refused == ("2026.12.0",)
    notice = json.loads(next((device.update / "notices").glob("*.json")).read_text())
    assert (notice["kind"], notice["version"]) == ("failed", "2026.12.0")
    assert "今までのバージョン" in notice["ja"]


def test_other_bytes_than_were_named_do_not_give_a_release_up(
    device: Device, repository: Callable[..., None], tmp_path: Path
) -> None:
    """Whoever sits on the line could otherwise see to it that this box never takes a good release."""
    repository("2026.12.0", bytes(1000), activate_after=NOW + DAY_S)
    (target,) = (tmp_path / "repository/targets").rglob("*.raucb")
    target.write_bytes(b"\x01" * 1000)
    with updater(device):
        mamori(device, "update", "check")
        check_until("one attempt was made", lambda: "no bundle" in status(device)["problem"], within_s=30)
        assert (status(device)["phase"], status(device)["history"]) == ("available", [])


SLOW = bytes(1000) + bytes(60_000) + (60_000).to_bytes(8)
"""Its end alone takes eight minutes at the slowest rate that can be set."""


def test_much_can_happen_while_a_release_is_fetched(device: Device, repository: Callable[..., None]) -> None:
    settings = device.update / "settings.toml"
    url = settings.read_text()
    settings.write_text(f"{url}rate_kbit_s = 1\n")
    repository("2026.12.0", SLOW, activate_after=NOW + DAY_S)

    def is_staging(version: str) -> bool:
        said = status(device)
        return (said["phase"], said["offered"]) == ("staging", version)

    with updater(device):
        mamori(device, "update", "check")
        check_until("it is fetched", lambda: is_staging("2026.12.0"), within_s=20)
        settings.write_text(f"{url}nonsense = 1\n")
        mamori(device, "update", "check")
        check_until("it was asked again", lambda: not status(device)["is_checking"], within_s=20)
        assert "nonsense" in status(device)["settings_problem"]
        assert (is_staging("2026.12.0"), status(device)["attempts"]) == (True, 1)
        repository("2026.12.1", SLOW, activate_after=NOW + DAY_S)
        mamori(device, "update", "check")
        check_until("the newer one is fetched instead", lambda: is_staging("2026.12.1"), within_s=20)
        settings.write_text(f'{url}rate_kbit_s = 1\npin = "2026.11.5"\n')
        mamori(device, "update", "check")
        check_until("its owner wants another one", lambda: status(device)["phase"] == "idle", within_s=20)
        assert status(device)["history"][-1]["result"] == "withdrawn"
        settings.write_text(f"{url}rate_kbit_s = 1\n")
        mamori(device, "update", "check")
        check_until("it is fetched after all", lambda: is_staging("2026.12.1"), within_s=20)
    assert read_journal(device.journal).phase is Phase.STAGING, "ended in the middle, at once and without complaint"
    with updater(device):
        check_until("it goes on", lambda: status(device)["attempts"] == 2 and is_staging("2026.12.1"), within_s=20)


def test_an_updater_that_can_write_nothing_lives_and_says_so(device: Device) -> None:
    """The folder is a file: like a disk that was damaged and can only be read."""
    shutil.rmtree(device.update)
    device.update.write_text("")
    with updater(device):
        time.sleep(1.5)
        assert status(device)["phase"] == "idle"
    assert device.update.read_text() == ""


def test_without_raucs_service_staging_is_tried_again_later_and_says_why(device: Device, repository: Callable[..., None]) -> None:
    signature = b"signature"
    repository("2026.12.0", bytes(1000) + signature + len(signature).to_bytes(8), activate_after=NOW + DAY_S)
    with updater(device):
        mamori(device, "update", "check")
        check_until("one attempt was made", lambda: status(device)["problem"], within_s=30)
        said = status(device)
        assert (said["phase"], said["attempts"]) == ("available", 1)
        assert "2026.12.0" in said["next_en"]
    with updater(device):
        assert status(device)["phase"] == "available", "remembered"


def test_a_repository_that_is_away_is_told_and_its_return_is_noticed(device: Device, repository: Callable[..., None]) -> None:
    settings = device.update / "settings.toml"
    url = settings.read_text()
    settings.write_text('url = "http://127.0.0.1:1"\n')
    repository("2026.12.0", activate_after=NOW + DAY_S)
    with updater(device):
        mamori(device, "update", "check")
        check_until("it says so", lambda: "cannot be reached" in status(device)["check_problem"], within_s=20)
        settings.write_text("nonsense = 1\n")
        mamori(device, "update", "check")
        check_until("bad settings are told", lambda: "nonsense" in status(device)["settings_problem"], within_s=20)
        settings.write_text(url)
        mamori(device, "update", "check")
        check_until("all is well again", lambda: status(device)["checked_at"], within_s=20)
        assert (status(device)["check_problem"], status(device)["settings_problem"]) == ("", "")


@pytest.mark.parametrize(
    ("word", "says"), [("stage", "nothing to stage"), ("arm", "nothing to arm"), ("confirm", "nothing to confirm")]
)
def test_a_command_without_sense_is_refused(device: Device, word: str, says: str) -> None:
    argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", device.root, "update", word]
    refused = run(argv, explain="ask", env=ENVIRONMENT, accept=[2])
    assert "does not answer" in refused.stderr
    with updater(device):
        refused = run(argv, explain="ask", env=ENVIRONMENT, accept=[2])
        assert f"nothing to {word}" in refused.stderr


def armed_journal(**changes: Any) -> Journal:
    offer = make_offer("2026.12.0", activate_after=NOW - DAY_S)
    return replace(Journal(phase=Phase.ARMED, offer=offer, length=100, slot=Slot.B, since=NOW, is_armed=True), **changes)


def staged_for_tomorrow() -> Journal:
    return armed_journal(phase=Phase.STAGED, is_armed=False, offer=make_offer("2026.12.0", activate_after=NOW + DAY_S))


def test_a_staged_release_is_armed_on_command_and_said_to_be_ready(device: Device) -> None:
    save_journal(device.journal, staged_for_tomorrow())
    with updater(device):
        assert status(device)["phase"] == "staged"
        assert read_state(device) == BootState(Slot.A)
        mamori(device, "update", "arm")
        check_until("it is armed", lambda: status(device)["is_armed"], within_s=10)
    assert read_state(device) == BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2)
    kinds = [json.loads(path.read_text())["kind"] for path in sorted((device.update / "notices").glob("*.json"))]
    assert kinds == ["announced", "ready"]


def test_a_window_opens_by_itself(device: Device) -> None:
    save_journal(device.journal, armed_journal(phase=Phase.STAGED, is_armed=False))
    with updater(device):
        check_until("it is armed", lambda: read_state(device) == BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2), within_s=10)


def on_trial(device: Device) -> None:
    """As after a power cycle: the loader has spent a try on slot B, which is what runs."""
    save_journal(device.journal, armed_journal())
    write_state(device, BootState(Slot.A, Slot.B, DEFAULT_TRIES - 1, 2))
    device.slot.write_text("b\n")
    device.release.write_bytes(
        encode_release(replace(RELEASE, version="2026.12.0", update=Update(COMPATIBLE), features=("portal",)))
    )


def test_a_trial_is_confirmed_by_a_person_in_a_hurry(device: Device) -> None:
    on_trial(device)
    with updater(device):
        assert status(device)["phase"] == "trial"
        mamori(device, "update", "confirm")
        check_until("it is confirmed", lambda: read_state(device) == BootState(Slot.B, None, 0, 3), within_s=10)
        assert status(device)["phase"] == "idle"
        assert status(device)["history"][-1]["result"] == "confirmed"


def test_a_trial_that_is_not_healthy_is_left(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a box is here but the updater, so the gate says no; its time is cut short for the test."""
    monkeypatch.setitem(ENVIRONMENT, "MAMORI_GATE_WITHIN_S", "4")
    on_trial(device)
    with updater(device):
        leave = device.update_runtime / "leave-trial"
        check_until("it wants to start again", leave.exists, within_s=20)
    assert read_state(device) == BootState(Slot.A, Slot.B, 0, 3)
    journal = read_journal(device.journal)
    assert journal.phase is Phase.TRIAL
    assert "inspect: not running" in journal.problem
    # The loader takes the old slot.
    leave.unlink()
    device.slot.write_text("a\n")
    device.release.write_bytes(encode_release(replace(RELEASE, update=Update(COMPATIBLE), features=("portal",))))
    with updater(device):
        said = status(device)
        assert (said["phase"], said["history"][-1]["result"]) == ("idle", "rolled back")
        assert "inspect: not running" in said["history"][-1]["reason"]
    state = read_state(device)
    assert state is not None
    assert (state.confirmed, state.trial) == (Slot.A, None)


def test_an_updater_that_is_killed_goes_on_where_it_was(device: Device) -> None:
    save_journal(device.journal, staged_for_tomorrow())
    argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", device.root, "update", "service"]
    with start(argv, explain="update", env=ENVIRONMENT, log=device.root / "log") as running:
        check_until("it answers", (device.update_runtime / "socket").exists, within_s=20)
        os.kill(running.pid, signal.SIGKILL)
        running.wait(patience_s(5))
    with updater(device):
        assert status(device)["phase"] == "staged"
