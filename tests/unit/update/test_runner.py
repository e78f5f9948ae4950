"""The journal comes first: what cannot be written down does not happen, and a boot state that fails is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mamori.formats.bootstate import DEFAULT_TRIES, BootState, Slot, encode
from mamori.formats.problems import MamoriError
from mamori.update.bootdisk import BootDisk, Change
from mamori.update.journal import read_journal, save_journal
from mamori.update.runner import Runner
from mamori.update.words import Facts, Journal, NothingOffered, Offered, Phase, Stage, Staged, Tell
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


def fill_disk(folder: Path) -> None:
    """Nothing can be put in place there for as long as this folder stands in the way."""
    (folder / "update/.journal.json.new").mkdir()


def empty_disk(folder: Path) -> None:
    (folder / "update/.journal.json.new").rmdir()


def test_what_is_said_once_is_not_lost_on_a_full_disk(runner: Runner, box: Box, tmp_path: Path, said: list[str]) -> None:
    runner.receive(Offered(OFFER, 100))
    runner.tick()
    fill_disk(tmp_path)
    runner.receive(Staged())
    for _ in range(100):
        runner.resume()
        runner.tick()
    assert runner.journal.phase is Phase.STAGING
    assert sum("the update waits" in line for line in said) == 1, "told once, not every second"
    empty_disk(tmp_path)
    runner.resume()
    assert runner.journal.phase is Phase.STAGED
    assert read_journal(tmp_path / "update/journal.json").phase is Phase.STAGED
    fill_disk(tmp_path)
    box.now = OFFER.activate_after
    runner.tick()
    assert sum("the update waits" in line for line in said) == 2, "it was well in between"
    empty_disk(tmp_path)


def test_what_comes_again_by_itself_is_not_kept_while_the_disk_is_full(runner: Runner, box: Box, tmp_path: Path) -> None:
    runner.receive(Offered(OFFER, 100))
    runner.tick()
    fill_disk(tmp_path)
    for number in range(5):
        runner.receive(Offered(make_offer(f"2027.{number}.0"), 100))
    runner.receive(NothingOffered())
    empty_disk(tmp_path)
    runner.resume()
    assert (runner.journal.phase, runner.journal.offer) == (Phase.STAGING, OFFER)
    assert box.begun == ["stage b"]


def test_a_start_on_a_full_disk_is_made_up_for(box: Box, tmp_path: Path, said: list[str]) -> None:
    """The new slot runs: its trial begins as soon as that can be written down."""
    path = tmp_path / "update/journal.json"
    save_journal(path, Journal(phase=Phase.ARMED, offer=make_offer("2026.11.0"), length=1, slot=Slot.A, is_armed=True))
    runner = Runner(path, box, lambda _level, text: said.append(text))
    fill_disk(tmp_path)
    runner.start()
    assert (runner.journal.phase, box.begun) == (Phase.ARMED, [])
    empty_disk(tmp_path)
    runner.resume()
    assert (runner.journal.phase, box.begun) == (Phase.TRIAL, ["gate"])


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
