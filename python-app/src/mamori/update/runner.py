"""Carries the machine's commands out: the journal first, then the command, then what follows from it.

    runner.start()                     Booted
    runner.receive(event)              whatever happens
    runner.tick()                      when next_deadline() has come

Knows no thread and no socket: what takes long (staging, the gate) is begun through `Hands` and comes back as an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mamori.formats.bootstate import Slot
from mamori.formats.problems import MamoriError
from mamori.update.bootdisk import Change
from mamori.update.core import next_deadline, step
from mamori.update.journal import load_journal, save_journal
from mamori.update.words import (
    Arm,
    Booted,
    BootStateWritten,
    CancelStaging,
    Clear,
    Command,
    Confirm,
    Event,
    Facts,
    GiveUp,
    Journal,
    NothingOffered,
    Offered,
    Phase,
    Repair,
    Stage,
    Tell,
    Ticked,
)

MAX_STEPS = 50
"""Of one thing that happens. More would be a circle in the table; a test looks for one, and a box must not hang on it."""


_COMES_AGAIN = (Ticked, Offered, NothingOffered)
"""What happens anew by itself needs not wait for the disk."""


class Hands(Protocol):
    """What the machine may do to the world."""

    def facts(self) -> Facts:
        """How things stand now."""

    def begin_staging(self, command: Stage) -> None:
        """Its end comes back as an event."""

    def cancel_staging(self) -> None: ...

    def begin_gate(self) -> None:
        """Look at the trial's health; GatePassed or GateFailed comes back."""

    def change_boot_state(self, change: Change, slot: Slot) -> None:
        """MamoriError when it is not on the disk."""

    def start_again(self) -> None:
        """Have the box start anew at once."""

    def tell(self, notice: Tell) -> None:
        """Queue it. MamoriError or OSError when it cannot be kept."""


class Runner:
    """See the module. `log` takes a syslog level and a line."""

    def __init__(self, path: Path, hands: Hands, log: Callable[[int, str], None]) -> None:
        self._path, self._hands, self._log = path, hands, log
        self._waiting: deque[Event] = deque()
        self._disk_problem = ""
        self.journal, self.problem = load_journal(path)
        if self.problem:
            log(3, f"the journal cannot be read, a new one is begun: {self.problem}")

    def start(self) -> None:
        """After a boot, or after the updater alone has started."""
        self.receive(Booted())

    def tick(self) -> None:
        """Do all that is due."""
        for _ in range(MAX_STEPS):
            before = self.journal
            self.receive(Ticked())
            if self.journal == before:
                return
        self._log(3, f"the update's machine does not come to rest in phase {self.journal.phase.value}")

    def hurry_staging(self) -> None:
        """A person does not want to wait for the next attempt."""
        if self.journal.phase is Phase.AVAILABLE and self._keep(replace(self.journal, retry_at=0)):
            self.tick()

    def hurry_arming(self) -> None:
        """A person at the console opens the window now; for this box alone."""
        offer = self.journal.offer
        if self.journal.phase is Phase.STAGED and offer is not None:
            now = self._hands.facts().now
            early = replace(offer, notice_at=min(offer.notice_at, now), activate_after=min(offer.activate_after, now))
            if self._keep(replace(self.journal, offer=early)):
                self.tick()

    def next_deadline(self) -> int | None:
        """Unix seconds."""
        return next_deadline(self.journal)

    def receive(self, event: Event) -> None:
        """One thing that happened, and all that follows from it at once. While the disk does not take the journal it waits, and is
        gone on with by `resume`: nobody says a second time that a release was staged."""
        self._waiting.append(event)
        self.resume()

    def resume(self) -> None:
        """Go on with what waits for the disk."""
        for _ in range(MAX_STEPS):
            if not self._waiting:
                return
            event = self._waiting[0]
            journal, commands = step(self.journal, event, self._hands.facts())
            if not self._keep(journal):
                self._waiting = deque(one for one in self._waiting if not isinstance(one, _COMES_AGAIN))
                return
            self._waiting.popleft()
            follows = [follow for follow in map(self._carry_out, commands) if follow is not None]
            self._waiting.extendleft(reversed(follows))
            if isinstance(event, Booted) and self.journal.phase is Phase.TRIAL:
                self._hands.begin_gate()
        self._log(3, f"the update's machine turns in a circle in phase {self.journal.phase.value}")
        self._waiting.clear()

    def _keep(self, journal: Journal) -> bool:
        """Whether it is on the disk; if not, nothing is done: what cannot be remembered must not happen."""
        if journal == self.journal:
            return True
        try:
            save_journal(self._path, journal)
        except OSError as error:
            problem = f"{self._path}: {error.strerror}"
            if problem != self._disk_problem:  # tried every second, told once
                self._log(3, f"{problem}: the update waits")
            self._disk_problem = problem
            return False
        self._disk_problem = ""
        if journal.phase is not self.journal.phase:
            offer = journal.offer or self.journal.offer
            self._log(5, f"update {offer.version if offer else ''}: {self.journal.phase.value} → {journal.phase.value}")
        self.journal = journal
        return True

    def _carry_out(self, command: Command) -> Event | None:
        hands, running = self._hands, self._hands.facts().running
        match command:
            case Stage():
                hands.begin_staging(command)
            case CancelStaging():
                hands.cancel_staging()
            case Arm(slot):
                return self._change(Change.ARM, slot)
            case Confirm(slot):
                return self._change(Change.CONFIRM, slot)
            case Clear():
                self._change(Change.CLEAR, running)
            case Repair():
                self._change(Change.REPAIR, running)
            case GiveUp():
                self._change(Change.GIVE_UP, running)
                hands.start_again()  # even if that was not written: each start spends a try
            case Tell():
                try:
                    hands.tell(command)
                except (MamoriError, OSError) as error:
                    self._log(3, f"a notice is lost: {error}")
        return None

    def _change(self, change: Change, slot: Slot) -> Event | None:
        try:
            self._hands.change_boot_state(change, slot)
        except MamoriError as error:
            self._log(3, f"boot state, {change.value}: {error}")
            return None
        return BootStateWritten()
