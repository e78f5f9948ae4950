"""The journal comes first: what cannot be written down does not happen, and a boot state that fails is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mamori.formats.bootstate import DEFAULT_TRIES, BootState, Slot, encode
from mamori.formats.problems import MamoriError
from mamori.update.bootdisk import BootDisk, Change
from mamori.update.journal import read_journal
from mamori.update.runner import Runner
from mamori.update.words import Facts, Offered, Phase, Stage, Staged, Tell
from tests.support.update_world import COMPATIBLE, START, make_offer

OFFER = make_offer("2026.12.0")


@dataclass
class Box:
    """Hands over a real boot state; what is begun is written down."""

    disk: BootDisk
    now: int = START
    begun: list[str] = field(default_factory=list)
    refuses: bool = False

    def facts(self) -> Facts:
        return Facts(self.now, Slot.A, "2026.11.0", COMPATIBLE, self.disk.read().state)

    def begin_staging(self, command: Stage) -> None:
        self.begun.append(f"stage {command.slot.value}")

    def cancel_staging(self) -> None:
        self.begun.append("cancel")

    def begin_gate(self) -> None:
        self.begun.append("gate")

    def change_boot_state(self, change: Change, slot: Slot) -> None:
        if self.refuses:
            raise MamoriError("the disk does not take it")
        self.disk.change(change, slot)

    def start_again(self) -> None:
        self.begun.append("start again")

    def tell(self, notice: Tell) -> None:
        self.begun.append(f"tell {notice.kind.value}")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    path = tmp_path / "bootstate"
    path.write_bytes(bytes(8192) + 2 * encode(BootState(Slot.A)).ljust(2048, b"\0") + bytes(8192))
    return Box(BootDisk(path))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def runner(box: Box, tmp_path: Path, said: list[str]) -> Runner:
    return Runner(tmp_path / "update/journal.json", box, lambda _level, text: said.append(text))


def test_what_happens_is_in_the_journal_before_it_is_begun(runner: Runner, box: Box, tmp_path: Path) -> None:
    runner.start()
    runner.receive(Offered(OFFER, 100))
    runner.tick()
    assert box.begun == ["stage b"]
    assert read_journal(tmp_path / "update/journal.json").phase is Phase.STAGING


def test_a_full_disk_lets_nothing_begin(runner: Runner, box: Box, tmp_path: Path, said: list[str]) -> None:
    runner.receive(Offered(OFFER, 100))
    (tmp_path / "update/.journal.json.new").symlink_to("/dev/full")
    runner.tick()
    assert (box.begun, runner.journal.phase) == ([], Phase.AVAILABLE)
    assert "No space left on device: the update waits" in said[-1]
    runner.tick()  # what was in the way is gone with the attempt
    assert box.begun == ["stage b"]


def test_a_boot_state_that_is_not_taken_is_not_called_ready_and_is_written_again_later(
    runner: Runner, box: Box, said: list[str]
) -> None:
    runner.receive(Offered(OFFER, 100))
    runner.tick()
    runner.receive(Staged())
    box.now, box.refuses = OFFER.activate_after, True
    runner.tick()
    assert runner.journal.phase is Phase.ARMED
    assert "tell ready" not in box.begun
    assert "boot state, arm: the disk does not take it" in said
    box.refuses = False
    runner.tick()
    assert "tell ready" not in box.begun, "not before a while has passed"
    deadline = runner.next_deadline()
    assert deadline is not None
    box.now = deadline
    runner.tick()
    assert box.begun[-1] == "tell ready"
    assert box.disk.read().state == BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2)


def test_a_person_may_open_the_window(runner: Runner, box: Box) -> None:
    runner.receive(Offered(OFFER, 100))
    runner.hurry_arming()
    assert runner.journal.phase is Phase.AVAILABLE, "nothing is staged"
    runner.tick()
    runner.receive(Staged())
    runner.hurry_arming()
    assert (runner.journal.phase, runner.journal.is_armed) == (Phase.ARMED, True)


def test_a_bad_journal_is_said_and_begun_anew(box: Box, tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b"\0")
    assert Runner(path, box, lambda _level, text: said.append(text)).journal.phase is Phase.IDLE
    assert "the journal cannot be read" in said[0]
