"""A real update, every write of it recorded, and the power cut everywhere: a verified slot starts, the old one or the new one."""

from __future__ import annotations

import contextlib
import io
import mmap
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware.build import Built
from firmware.console import Console
from firmware.powercut.cycle import STARTING, Lab, open_log, record_cycle, start_box, start_lab
from firmware.powercut.replay import Report, advance, number_entries, replay
from firmware.powercut.view import View
from firmware.qemu import Media
from firmware.variant import build_variant, raise_version
from firmware.workspace import Workspace
from mamori.formats.bootstate import BootState, Slot
from tests.support.faulty import make_faulty
from tests.support.machine import LOADER_WITHIN_S
from tests.support.need import need
from tests.support.wait import patience_s

pytestmark = pytest.mark.timeout(2400)

NEWER = "2099.1.0"

KERNEL_RUNS = "EFI stub: "

LEAST_CUTS = 1000
"""A cycle has several hundred writes, most of them torn in a few ways; fewer would mean that they were not recorded."""


@dataclass(frozen=True)
class Recorded:
    """A cycle, what a replay of it gave, and the places to which the real loader is sent."""

    lab: Lab
    logs: Sequence[mmap.mmap]
    report: Report

    def view(self, entry: int = 0) -> View:
        """The disk after that entry of the logs."""
        view = View(self.lab.factory, self.lab.layout, self.lab.releases)
        advance(view, self.logs, entry)
        return view

    def writes_to(self, partition: str) -> list[int]:
        """The numbers of the entries that wrote to the partition."""
        start = self.lab.layout[partition].start_bytes
        end = start + self.lab.layout[partition].size_bytes
        return [number for number, _, entry in number_entries(self.logs) if entry and entry.size and start <= entry.offset < end]


@pytest.fixture(scope="module")
def lab(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need("ssh", "tells the box where its repository is")

    def edit(root: Path) -> None:
        raise_version(root, NEWER)
        make_faulty(root)  # nothing is wrong with it here: it is the release that tests/boot/test_update.py builds too

    newer = build_variant(tmp_path_factory.mktemp("newer") / "checkout", edit)
    workspace = Workspace(Console(progress=io.StringIO()))
    with start_lab(workspace, built, newer, tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture(scope="module")
def recorded(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    paths = record_cycle(lab, tmp_path_factory.mktemp("recorded"))
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(open_log(path)) for path in paths]
        yield Recorded(lab, logs, replay(View(lab.factory, lab.layout, lab.releases), logs))


def test_wherever_the_power_goes_a_verified_slot_starts(recorded: Recorded) -> None:
    report = recorded.report
    print("\n".join(report.lines()))  # noqa: T201 (the figures are wanted)
    assert report.bricks == 0, report.findings[:5]
    assert report.tried > LEAST_CUTS
    assert {kind for kind, count in report.cuts.items() if count} == {"flush", "write", "torn", "garbage", "reordered"}


def test_the_cycle_went_through_the_states_of_an_update(recorded: Recorded) -> None:
    assert recorded.report.states == [
        BootState(Slot.A),
        BootState(Slot.A, Slot.B, 3, 2),
        BootState(Slot.A, Slot.B, 2, 2),
        BootState(Slot.B, None, 0, 3),
    ]
    old, newer = (release.version for release in recorded.lab.releases)
    assert recorded.report.starts.keys() == {("a", old), ("b", newer)}


@pytest.mark.parametrize("place", ["in the midst of the root", "between the copies, armed", "between the copies, started"])
def test_the_real_loader_starts_what_the_replay_says(recorded: Recorded, tmp_path: Path, place: str) -> None:
    state = recorded.writes_to("bootstate")
    entry = {
        "in the midst of the root": statistics.median_low(recorded.writes_to("root-b")),
        "between the copies, armed": state[0],
        "between the copies, started": state[2],
    }[place]
    view = recorded.view(entry)
    predicted = view.start()
    media = Media(tmp_path / "disk.img", tmp_path / "variables.fd")
    view.save(media.disk)
    media.variables.write_bytes(recorded.lab.variables.read_bytes())
    with start_box(recorded.lab, media) as machine:
        machine.wait_for(KERNEL_RUNS, patience_s(LOADER_WITHIN_S))
        machine.kill()
        assert predicted.slot is not None
        assert [part[0] for part in machine.console.split(STARTING)[1:]] == [predicted.slot.value]
