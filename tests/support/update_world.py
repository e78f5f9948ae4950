"""A box as its updater sees it, with a plug: two slots, a boot state that a loader reads and spends, a journal that outlives power.

What is real here: the machine (mamori.update.core) and the boot state's rules (mamori.formats.bootstate). What is played: the
disk, the loader by docs/boot-state.md section 5, and how a release behaves once it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from mamori.formats.bootstate import DEFAULT_TRIES, BootState, Slot, candidates
from mamori.formats.offer import Channel, Offer, ReleaseNotes, Wave
from mamori.update.core import is_wanted, next_deadline, step
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
    GateFailed,
    GatePassed,
    GiveUp,
    Journal,
    Phase,
    Repair,
    Stage,
    Staged,
    Tell,
    Ticked,
)

COMPATIBLE = "mamori-test"
DAY_S = 86_400
START = 1_800_000_000


class Behaviour(Enum):
    """What becomes of a release that is started."""

    WORKS = "works"
    FAILS_ITS_GATE = "fails its gate"
    PANICS = "panics"
    DOES_NOT_VERIFY = "does not verify"


def make_offer(version: str, *, activate_after: int = START + 10 * DAY_S, **changes: object) -> Offer:
    """A release with a hash of its own; announced a day before its window of a week."""
    return replace(
        Offer(
            version=version,
            compatible=COMPATIBLE,
            manifest_hash=version.encode().hex().ljust(64, "0"),
            channel=Channel.STABLE,
            minimum_version="2026.1.0",
            waves=(Wave(100, START),),
            notice_at=activate_after - DAY_S,
            activate_after=activate_after,
            activate_before=activate_after + 7 * DAY_S,
            notes=ReleaseNotes("直しました", "mended"),
        ),
        **changes,  # type: ignore[arg-type]
    )


class PowerCutError(Exception):
    """The plug is out."""


@dataclass
class World:
    """`cut_in` counts durable writes that still happen before the plug is pulled; None: it stays in."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    now: int = START
    slots: dict[Slot, str | None] = field(default_factory=lambda: {Slot.A: "2026.11.0", Slot.B: None})
    boot: BootState | None = field(default_factory=lambda: BootState(Slot.A))
    journal: Journal = field(default_factory=Journal)
    running: Slot = Slot.A
    cut_in: int | None = None
    told: list[tuple[str, str]] = field(default_factory=list)
    started: list[tuple[int, Slot, str]] = field(default_factory=list)
    staging: Stage | None = None
    is_on: bool = True

    @property
    def version(self) -> str:
        version = self.slots[self.running]
        assert version is not None, "a slot without a whole image was started"
        return version

    def facts(self) -> Facts:
        return Facts(self.now, self.running, self.version, COMPATIBLE, self.boot)

    def receive(self, event: Event) -> None:
        """The machine gets an event, and its commands are carried out, unless the power goes."""
        if not self.is_on:
            return
        try:
            self._receive(event)
        except PowerCutError:
            self.is_on = False

    def tick(self) -> None:
        """Time has passed: all that is due is done, one thing after the other."""
        for _ in range(10):
            before = self.journal
            self.receive(Ticked())
            if self.journal == before:
                return
        raise AssertionError("the machine does not come to rest")

    def boot_up(self) -> None:
        """The plug is in: the loader, perhaps more than once, then the updater."""
        self.staging, self.cut_in, self.is_on = None, None, True
        for _ in range(2 * DEFAULT_TRIES + 2):
            slot = self._load()
            if slot is not None and self.behaviours.get(self.slots[slot] or "", Behaviour.WORKS) is not Behaviour.PANICS:
                self.running = slot
                self.started.append((self.now, slot, self.version))
                self.receive(Booted())
                return
        raise AssertionError("no slot starts: a brick")

    def finish_staging(self) -> None:
        """RAUC is done with the whole of it."""
        if self.staging is not None:
            done, self.staging = self.staging, None
            self.slots[done.slot] = done.offer.version
            self.receive(Staged())

    def run_gate(self) -> None:
        """The trial's health is looked at."""
        if self.is_on and self.journal.phase is Phase.TRIAL and self.staging is None:
            healthy = self.behaviours.get(self.version, Behaviour.WORKS) is Behaviour.WORKS
            self.receive(GatePassed() if healthy else GateFailed("the gate says no"))

    def is_offered(self, offer: Offer) -> bool:
        return is_wanted(self.journal, offer, self.facts())

    def next_deadline(self) -> int | None:
        return next_deadline(self.journal)

    # --- inside ------------------------------------------------------------------------------------------------------------

    def _load(self) -> Slot | None:
        """docs/boot-state.md 5.1 to 5.4; None when nothing starts."""
        state = self.boot
        order = candidates(state)
        if state is not None and state.trial is not None and state.tries:
            self.boot = replace(state, tries=state.tries - 1)
        for slot in order:
            version = self.slots[slot]
            if version is not None and self.behaviours.get(version) is not Behaviour.DOES_NOT_VERIFY:
                return slot
        return None

    def _receive(self, event: Event) -> None:
        journal, commands = step(self.journal, event, self.facts())
        if journal != self.journal:
            self._write(lambda: setattr(self, "journal", journal))
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        confirmed = self.boot.confirmed if self.boot else self.running
        match command:
            case Stage():
                # The target is marked bad before it is written.
                self._write(lambda: self.slots.update({command.slot: None}))
                self.staging = command
            case CancelStaging():
                self.staging = None
            case Arm(slot):
                self._set_boot(BootState(confirmed, slot, DEFAULT_TRIES))
                self._receive(BootStateWritten())
            case Confirm(slot):
                self._set_boot(BootState(slot))
                self._receive(BootStateWritten())
            case Clear():
                self._set_boot(BootState(confirmed))
            case GiveUp():
                state = self.boot
                if state is not None and state.trial is not None:
                    self._set_boot(BootState(confirmed, state.trial, 0))
                self.boot_up()
            case Repair():
                self._set_boot(BootState(self.running))
            case Tell(kind, offer, _):
                self.told.append((kind.value, offer.version))

    def _set_boot(self, state: BootState) -> None:
        """Both copies, as docs/boot-state.md 7.1 shows, count as one write: old or new."""
        sequence = self.boot.sequence + 1 if self.boot else 1
        self._write(lambda: setattr(self, "boot", replace(state, sequence=sequence)))

    def _write(self, write: Callable[[], None]) -> None:
        if self.cut_in is not None:
            if self.cut_in == 0:
                raise PowerCutError
            self.cut_in -= 1
        write()
