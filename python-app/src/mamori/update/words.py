"""The words of the update: what can happen to it, what it wants done, and what must not be forgotten. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mamori.formats.bootstate import BootState, Slot
from mamori.formats.offer import Offer


class Phase(Enum):
    IDLE = "idle"
    AVAILABLE = "available"
    STAGING = "staging"
    STAGED = "staged"
    ARMED = "armed"
    TRIAL = "trial"


class Result(Enum):
    """How the way of one release ended here."""

    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


class NoticeKind(Enum):
    """What people are told, in this order. OVERDUE: the window has closed, and the power cycle still activates."""

    ANNOUNCED = "announced"
    READY = "ready"
    OVERDUE = "overdue"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One line of the history; `at` in Unix seconds."""

    version: str
    result: Result
    at: int
    reason: str = ""


@dataclass(frozen=True)
class Journal:
    """All that the updater must not forget. `offer` and `length` (bytes of the bundle) are the release that is on its way, `source`
    says where from (`usb`, or a server), `slot` is where it goes, `told` what people know of it. `refused` are versions not to be
    tried again, `minimum_version` only moves up, `problem` is the last one. Times are Unix seconds."""

    phase: Phase = Phase.IDLE
    offer: Offer | None = None
    length: int = 0
    source: str = ""
    slot: Slot | None = None
    since: int = 0
    attempts: int = 0
    retry_at: int = 0
    problem: str = ""
    is_armed: bool = False
    told: tuple[NoticeKind, ...] = ()
    refused: tuple[str, ...] = ()
    minimum_version: str = "0000.1.0"
    history: tuple[Outcome, ...] = ()


@dataclass(frozen=True)
class Facts:
    """How things stand: the time, the slot and version that run, what the boot state says (None: no copy counts), and what a bundle
    must be compatible with."""

    now: int
    running: Slot
    version: str
    compatible: str
    boot: BootState | None


# --- events ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Booted:
    """The updater has started, after a boot or alone."""


@dataclass(frozen=True)
class Offered:
    """The repository offers this to us now; `length` in bytes, `source` as in the journal."""

    offer: Offer
    length: int
    source: str = ""


@dataclass(frozen=True)
class NothingOffered:
    """The repository was asked, and has nothing for us, not even what it had before. Not being able to ask is no event."""


@dataclass(frozen=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True)
class Staged:
    """The bundle is in the slot, and read back."""


@dataclass(frozen=True)
class StagingFailed:
    """`is_final`: another attempt with the same bundle cannot end otherwise."""

    problem: str
    is_final: bool = False


@dataclass(frozen=True)
class BootStateWritten:
    """What Arm, Confirm, Clear or GiveUp wanted is on the disk, in both copies."""


@dataclass(frozen=True)
class GatePassed:
    """The trial is healthy."""


@dataclass(frozen=True)
class GateFailed:
    reason: str


Event = Booted | Offered | NothingOffered | Ticked | Staged | StagingFailed | BootStateWritten | GatePassed | GateFailed


# --- commands ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Write the bundle into the slot; answer with Staged or StagingFailed."""

    offer: Offer
    length: int
    slot: Slot


@dataclass(frozen=True)
class CancelStaging:
    """Stop it; nothing is answered."""


@dataclass(frozen=True)
class Arm:
    """Make the slot the trial; answer with BootStateWritten."""

    slot: Slot


@dataclass(frozen=True)
class Confirm:
    """Make the slot the confirmed one; answer with BootStateWritten."""

    slot: Slot


@dataclass(frozen=True)
class Clear:
    """No trial. Nothing waits for it."""


@dataclass(frozen=True)
class GiveUp:
    """No more tries for the trial, then start again at once: the loader takes the confirmed slot."""


@dataclass(frozen=True)
class Repair:
    """There is no boot state that counts: make one in which the running slot is confirmed."""


@dataclass(frozen=True)
class Tell:
    """Queue the notice for people."""

    kind: NoticeKind
    offer: Offer
    reason: str = ""


Command = Stage | CancelStaging | Arm | Confirm | Clear | GiveUp | Repair | Tell
