"""A release on its way to the confirmed slot, and back when it is no good: staged, armed, and activated by pulling the plug."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firmware.build import Built
from firmware.process import run
from firmware.qemu import Machine, Media
from mamori.formats.bootstate import BootState, Slot
from tests.support.disk import hash_partitions, read_states
from tests.support.faulty import make_faulty
from tests.support.machine import STARTING, Box, prepare_box, start_again, wait_until_ready
from tests.support.need import need
from tests.support.office import Office, start_office
from tests.support.update_lab import URL, UpdateLab, start_update_lab
from tests.support.variants import build_variant, raise_version
from tests.support.wait import check_until

pytestmark = pytest.mark.timeout(1500)

NEWER = "2099.1.0"

SETTINGS = f'url = "{URL}"\nrate_kbit_s = 0\n'

STATUS = "/run/mamori/update/status.json"

STAGED_WITHIN_S = 600.0
"""Under TCG; RAUC hashes the whole slot once, to know what need not be fetched."""

CONFIRMED_WITHIN_S = 240.0

OURS = ("esp", "boot-a", "root-a")
"""What an update leaves alone while slot a runs."""

ARMED = BootState(Slot.A, Slot.B, tries=3, sequence=2)


@dataclass(frozen=True)
class ArmedBox:
    """What a box left behind when its plug was pulled, and what had been seen of it before."""

    old: Built
    newer: Built
    office: Office
    folder: Path
    before: dict[str, str]
    staged: dict[str, Any]

    def copy(self, folder: Path) -> Media:
        """The disk and the firmware's variables, for one test."""
        media = Media(folder / "disk.img", folder / "variables.fd")
        for path in (media.disk, media.variables):
            run(["cp", "--sparse=always", self.folder / path.name, path], explain="copy a box")
        return media


@pytest.fixture(scope="module")
def newer(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A later version of the image, which can be made to fail."""

    def edit(root: Path) -> None:
        raise_version(root, NEWER)
        make_faulty(root)

    return build_variant(tmp_path_factory.mktemp("newer") / "checkout", edit)


@pytest.fixture(scope="module")
def office(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    need(os.geteuid() == 0, "network namespaces and taps around the box need root")
    for tool in ("ip", "dnsmasq", "nginx", "curl"):
        need(tool, "the office around the box")
    with start_office(tmp_path_factory.mktemp("update-office"), built.tools.tree / "usr/bin/busybox") as started:
        yield started


@pytest.fixture(scope="module")
def lab(built: Built, office: Office, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpdateLab]:
    with start_update_lab(built, office, tmp_path_factory.mktemp("repository")) as started:
        yield started


@pytest.fixture(scope="module")
def armed(
    built: Built, newer: Built, office: Office, lab: UpdateLab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ArmedBox]:
    """A box that found the release, staged it, was armed by its owner, and lost its power."""
    folder = tmp_path_factory.mktemp("armed")
    media = prepare_box(built, folder)
    layout = built.image.layout
    before = hash_partitions(media.disk, layout, OURS)
    factory = read_states(media.disk, layout)
    with start_again(built, media, office=office) as machine, wait_until_ready(built, machine, media, office) as box:
        lab.release(newer)
        box.host.check_output(f"printf '{SETTINGS}' > /data/update/settings.toml")
        box.host.check_output("mamori update check")
        staged = wait_for_phase(box, "staged", STAGED_WITHIN_S)
        assert read_states(media.disk, layout) == factory, "staging arms nothing"
        box.host.check_output("mamori update arm")
        wait_for_phase(box, "armed", 30)
        check_until("both copies are on the disk", lambda: read_states(media.disk, layout) == [ARMED, ARMED], within_s=30)
        machine.kill()
    yield ArmedBox(built, newer, office, folder, before, staged)
    shutil.rmtree(folder)


def update_status(box: Box) -> dict[str, Any]:
    """What the updater publishes; the command would start a Python each time, and take the processor from what is waited for."""
    time.sleep(1)
    answer: dict[str, Any] = json.loads(box.host.run(f"cat {STATUS}").stdout or "{}")
    return answer


def wait_for_phase(box: Box, phase: str, within_s: float) -> dict[str, Any]:
    """The status, once the update is so far. It fails at once when staging did."""
    last: dict[str, Any] = {}

    def is_there() -> bool:
        last.clear()
        last.update(update_status(box))
        box.machine.check()
        assert not last.get("problem"), last["problem"]
        return last.get("phase") == phase

    check_until(f"the update is {phase}", is_there, within_s)
    return last


def starts(machine: Machine) -> list[str]:
    """The slots that the loader started, in order."""
    return [part[0] for part in machine.console.split(STARTING)[1:]]


def test_staging_wrote_the_other_slot_and_nothing_else(armed: ArmedBox) -> None:
    layout = armed.old.image.layout
    assert armed.staged["offered"] == armed.newer.image.version
    disk = armed.folder / "disk.img"
    assert hash_partitions(disk, layout, OURS) == armed.before
    with disk.open("rb") as written, armed.newer.root.image.open("rb") as wanted:
        written.seek(layout["root-b"].start_bytes)
        while chunk := wanted.read(1 << 20):
            assert written.read(len(chunk)) == chunk


def test_a_power_cycle_tries_the_release_and_a_healthy_one_is_confirmed(armed: ArmedBox, tmp_path: Path) -> None:
    media, layout = armed.copy(tmp_path), armed.old.image.layout
    with start_again(armed.newer, media, office=armed.office) as machine:
        with wait_until_ready(armed.newer, machine, media, armed.office) as box:
            assert box.status()["slot"] == "b"
            wait_for_phase(box, "idle", CONFIRMED_WITHIN_S)
            history = update_status(box)["history"]
            assert [(outcome["version"], outcome["result"]) for outcome in history] == [(armed.newer.image.version, "confirmed")]
            machine.kill()
        assert starts(machine) == ["b"]
    assert read_states(media.disk, layout) == [BootState(Slot.B, sequence=3)] * 2
