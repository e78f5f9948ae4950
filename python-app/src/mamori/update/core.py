"""The update's state machine: one table, pure. What happened and how things stand in, the next journal and commands out.

    journal, commands = step(journal, event, facts)

The shell saves the journal, durably, before it carries out a command, so a power cut after any of them leaves a journal that knows
of it; `Booted` then finds out from the boot state what became of it. The diagram in docs/update.md is made from TABLE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mamori.formats.bootstate import DEFAULT_TRIES, Slot
from mamori.formats.offer import Offer
from mamori.formats.version import VersionOrder
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
    NothingOffered,
    NoticeKind,
    Offered,
    Outcome,
    Phase,
    Repair,
    Result,
    Stage,
    Staged,
    StagingFailed,
    Tell,
    Ticked,
)

FIRST_RETRY_S = 300
LAST_RETRY_S = 6 * 3600
"""Between attempts to stage: an office's line may be down for a night, and a server for a day."""

ARM_RETRY_S = 60

MAX_ATTEMPTS = 40
"""Some ten days of attempts. Then people are told, and the release has to be offered anew."""

MAX_HISTORY = 50
"""Outcomes that are kept: ten years of updates."""

MAX_REFUSED = 50


Change = tuple[Journal, tuple[Command, ...]]


@dataclass(frozen=True)
class Row:
    """In `phase`, when `event` comes and `when` holds, `does` says what becomes of it. Rows are tried in order. `then` is the phase
    afterwards, and `why` the words of the diagram."""

    phase: Phase
    event: type
    why: str
    when: Callable[[Journal, Event, Facts], bool]
    then: Phase
    does: Callable[[Journal, Event, Facts], Change]


def step(journal: Journal, event: Event, facts: Facts) -> Change:
    """The next journal, and what is to be done. An event that no row wants changes nothing."""
    for row in TABLE:
        if row.phase is journal.phase and isinstance(event, row.event) and row.when(journal, event, facts):
            after, commands = row.does(journal, event, facts)
            after = replace(after, phase=row.then, since=journal.since if row.then is journal.phase else facts.now)
            return after, commands
    return journal, ()


def is_wanted(journal: Journal, offer: Offer, facts: Facts) -> bool:
    """Whether the release is for us: made for this appliance, newer, not known as bad, not below the floor."""
    order = VersionOrder(offer.version)
    return (
        offer.compatible == facts.compatible
        and order > VersionOrder(facts.version)
        and order >= VersionOrder(journal.minimum_version)
        and offer.version not in journal.refused
    )


def next_deadline(journal: Journal) -> int | None:
    """When, in Unix seconds, a Ticked has something to do; None if only events do."""
    offer = journal.offer
    if offer is None:
        return None
    times = []
    if journal.phase is Phase.AVAILABLE:
        times.append(journal.retry_at)
    if journal.phase is Phase.STAGED:
        times.append(offer.activate_after)
    if journal.phase is Phase.ARMED and not journal.is_armed:
        times.append(journal.retry_at)
    if NoticeKind.ANNOUNCED not in journal.told and journal.phase in _BEFORE_READY:
        times.append(offer.notice_at)
    if journal.phase is Phase.ARMED and journal.is_armed and NoticeKind.OVERDUE not in journal.told:
        times.append(offer.activate_before)
    return min(times, default=None)


# --- conditions --------------------------------------------------------------------------------------------------------------

_BEFORE_READY = (Phase.AVAILABLE, Phase.STAGING, Phase.STAGED)


def _always(_journal: Journal, _event: Event, _facts: Facts) -> bool:
    return True


def _offer(journal: Journal) -> Offer:
    assert journal.offer is not None  # noqa: S101 (every phase but IDLE has one)
    return journal.offer


def _slot(journal: Journal) -> Slot:
    assert journal.slot is not None  # noqa: S101 (from STAGING on)
    return journal.slot


def _wanted(journal: Journal, event: Event, facts: Facts) -> bool:
    return isinstance(event, Offered) and is_wanted(journal, event.offer, facts)


def _is_another(journal: Journal, event: Event) -> bool:
    """Another release than the one that is on its way, or the same version made anew."""
    return isinstance(event, Offered) and event.offer.manifest_hash != _offer(journal).manifest_hash


def _another_wanted(journal: Journal, event: Event, facts: Facts) -> bool:
    return _is_another(journal, event) and _wanted(journal, event, facts)


def _another_unwanted(journal: Journal, event: Event, facts: Facts) -> bool:
    """The one before it again, say: ours is withdrawn."""
    return _is_another(journal, event) and not _wanted(journal, event, facts)


def _changed(journal: Journal, event: Event, _facts: Facts) -> bool:
    """The same bundle with other times or words."""
    return isinstance(event, Offered) and not _is_another(journal, event) and event.offer != _offer(journal)


def _changed_or_elsewhere(journal: Journal, event: Event, facts: Facts) -> bool:
    """Before it is fetched, it also counts where from."""
    is_elsewhere = isinstance(event, Offered) and not _is_another(journal, event) and event.source != journal.source
    return is_elsewhere or _changed(journal, event, facts)


def _pause_is_over(journal: Journal, facts: Facts) -> bool:
    """A pause that is longer than any is one of a clock that was ahead then."""
    return not 0 < journal.retry_at - facts.now <= LAST_RETRY_S


def _due(journal: Journal, _event: Event, facts: Facts) -> bool:
    return _pause_is_over(journal, facts)


def _window_open(journal: Journal, _event: Event, facts: Facts) -> bool:
    return facts.now >= _offer(journal).activate_after


def _to_announce(journal: Journal, _event: Event, facts: Facts) -> bool:
    return NoticeKind.ANNOUNCED not in journal.told and facts.now >= _offer(journal).notice_at


def _overdue(journal: Journal, _event: Event, facts: Facts) -> bool:
    return journal.is_armed and NoticeKind.OVERDUE not in journal.told and facts.now >= _offer(journal).activate_before


def _final(journal: Journal, event: Event, _facts: Facts) -> bool:
    return isinstance(event, StagingFailed) and (event.is_final or journal.attempts >= MAX_ATTEMPTS)


def _runs_it(journal: Journal, _event: Event, facts: Facts) -> bool:
    return facts.running is journal.slot and facts.version == _offer(journal).version


def _is_confirmed(journal: Journal, event: Event, facts: Facts) -> bool:
    return _runs_it(journal, event, facts) and facts.boot is not None and facts.boot.confirmed is journal.slot


def _not_armed_yet(journal: Journal, _event: Event, facts: Facts) -> bool:
    return facts.running is not journal.slot and facts.boot is not None and facts.boot.trial is None


def _still_armed(journal: Journal, _event: Event, facts: Facts) -> bool:
    """No start was spent on it: only the updater has started anew."""
    boot = facts.boot
    return facts.running is not journal.slot and boot is not None and boot.trial is journal.slot and boot.tries == DEFAULT_TRIES


def _lost_boot_state(journal: Journal, _event: Event, facts: Facts) -> bool:
    """Without one the loader starts slot A, whatever was armed."""
    return facts.boot is None and facts.running is not journal.slot


def _arming_due(journal: Journal, _event: Event, facts: Facts) -> bool:
    return not journal.is_armed and _pause_is_over(journal, facts)


def _stray_trial(_journal: Journal, _event: Event, facts: Facts) -> bool:
    return facts.boot is not None and facts.boot.trial is not None


# --- what is done ------------------------------------------------------------------------------------------------------------


def _nothing(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return journal, ()


def _take(journal: Journal, event: Event, facts: Facts) -> Change:
    """A new release; what was known of another one is forgotten."""
    assert isinstance(event, Offered)  # noqa: S101
    fresh = replace(_forget(journal), offer=event.offer, length=event.length, source=event.source, retry_at=facts.now)
    return fresh, ()


def _renew(journal: Journal, event: Event, _facts: Facts) -> Change:
    assert isinstance(event, Offered)  # noqa: S101
    return replace(journal, offer=event.offer), ()


def _renew_all(journal: Journal, event: Event, _facts: Facts) -> Change:
    assert isinstance(event, Offered)  # noqa: S101
    return replace(journal, offer=event.offer, source=event.source), ()


def _take_cancelling(journal: Journal, event: Event, facts: Facts) -> Change:
    return _take(journal, event, facts)[0], (CancelStaging(),)


def _take_clearing(journal: Journal, event: Event, facts: Facts) -> Change:
    return _take(journal, event, facts)[0], (Clear(),)


def _stage(journal: Journal, _event: Event, facts: Facts) -> Change:
    slot = facts.running.other
    after = replace(journal, slot=slot, attempts=journal.attempts + 1)
    return after, (Stage(_offer(journal), journal.length, slot),)


def _retry(journal: Journal, event: Event, facts: Facts) -> Change:
    problem = event.problem if isinstance(event, StagingFailed) else "interrupted"
    pause_s = min(FIRST_RETRY_S * 2 ** min(journal.attempts - 1, 10), LAST_RETRY_S)
    return replace(journal, problem=problem, retry_at=facts.now + pause_s), ()


def _retry_now(journal: Journal, _event: Event, facts: Facts) -> Change:
    """The plug was pulled: that is nobody's fault, and what was written is kept by the block-hash index."""
    return replace(journal, problem="interrupted", retry_at=facts.now), ()


def _fail(journal: Journal, event: Event, facts: Facts) -> Change:
    """What failed so often for want of a line or a disk says nothing of the release: it may be offered anew."""
    assert isinstance(event, StagingFailed)  # noqa: S101
    after = _end(journal, Result.FAILED, facts, event.problem)
    after = _refuse(after, _offer(journal).version) if event.is_final else after
    return after, (Tell(NoticeKind.FAILED, _offer(journal), event.problem),)


def _withdraw(journal: Journal, _event: Event, facts: Facts) -> Change:
    return _end(journal, Result.WITHDRAWN, facts), ()


def _withdraw_cancelling(journal: Journal, _event: Event, facts: Facts) -> Change:
    return _end(journal, Result.WITHDRAWN, facts), (CancelStaging(),)


def _withdraw_clearing(journal: Journal, _event: Event, facts: Facts) -> Change:
    return _end(journal, Result.WITHDRAWN, facts), (Clear(),)


def _finish_staging(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return replace(journal, problem=""), ()


def _announce(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return _told(journal, NoticeKind.ANNOUNCED)


def _arm(journal: Journal, _event: Event, facts: Facts) -> Change:
    """Again after a while if the disk does not take it."""
    return replace(journal, is_armed=False, retry_at=facts.now + ARM_RETRY_S), (Arm(_slot(journal)),)


def _say_ready(journal: Journal, _event: Event, _facts: Facts) -> Change:
    """Only now: "ready" is said to people when nothing more needs to be written."""
    return _told(replace(journal, is_armed=True), NoticeKind.READY)


def _remind(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return _told(journal, NoticeKind.OVERDUE)


def _confirm(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return replace(journal, problem=""), (Confirm(_slot(journal)),)


def _finish(journal: Journal, _event: Event, facts: Facts) -> Change:
    offer = _offer(journal)
    floor = max(journal.minimum_version, offer.minimum_version, key=VersionOrder)
    after = replace(_end(journal, Result.CONFIRMED, facts), minimum_version=floor)
    return after, (Tell(NoticeKind.DONE, offer),)


def _give_up(journal: Journal, event: Event, _facts: Facts) -> Change:
    assert isinstance(event, GateFailed)  # noqa: S101
    return replace(journal, problem=event.reason), (GiveUp(),)


def _roll_back(journal: Journal, _event: Event, facts: Facts) -> Change:
    offer = _offer(journal)
    reason = journal.problem or "it did not come up"
    after = _refuse(_end(journal, Result.ROLLED_BACK, facts, reason), offer.version)
    return after, (Clear(), Tell(NoticeKind.FAILED, offer, reason))


def _leave(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return journal, (GiveUp(),)


def _clear(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return journal, (Clear(),)


def _repair(journal: Journal, _event: Event, _facts: Facts) -> Change:
    return journal, (Repair(),)


def _told(journal: Journal, kind: NoticeKind) -> Change:
    if kind in journal.told:
        return journal, ()
    return replace(journal, told=(*journal.told, kind)), (Tell(kind, _offer(journal)),)


def _forget(journal: Journal) -> Journal:
    return Journal(refused=journal.refused, minimum_version=journal.minimum_version, history=journal.history)


def _end(journal: Journal, result: Result, facts: Facts, reason: str = "") -> Journal:
    outcome = Outcome(_offer(journal).version, result, facts.now, reason)
    return replace(_forget(journal), history=(*journal.history, outcome)[-MAX_HISTORY:])


def _refuse(journal: Journal, version: str) -> Journal:
    return replace(journal, refused=(*journal.refused, version)[-MAX_REFUSED:])


def _runs_stray_trial(journal: Journal, event: Event, facts: Facts) -> bool:
    """What was withdrawn when the power went, and was started before that was on the disk. With its last try spent it stays: the
    loader may have had nothing else."""
    return (
        _stray_trial(journal, event, facts)
        and facts.boot is not None
        and facts.boot.trial is facts.running
        and facts.boot.tries > 0
    )


def _no_boot_state(_journal: Journal, _event: Event, facts: Facts) -> bool:
    return facts.boot is None


_P = Phase

TABLE: tuple[Row, ...] = (
    # A boot state that is gone comes before everything: nothing can be armed or confirmed without one.
    *(Row(phase, Booted, "no boot state counts", _no_boot_state, phase, _repair) for phase in (_P.IDLE, _P.AVAILABLE, _P.STAGED)),
    Row(_P.IDLE, Booted, "a trial of nobody's runs", _runs_stray_trial, _P.IDLE, _leave),
    Row(_P.IDLE, Booted, "a trial of nobody's", _stray_trial, _P.IDLE, _clear),
    Row(_P.IDLE, Offered, "newer, for us", _wanted, _P.AVAILABLE, _take),
    Row(_P.AVAILABLE, Booted, "a trial of nobody's runs", _runs_stray_trial, _P.AVAILABLE, _leave),
    Row(_P.AVAILABLE, Booted, "a trial of nobody's", _stray_trial, _P.AVAILABLE, _clear),
    Row(_P.AVAILABLE, Offered, "another release", _another_wanted, _P.AVAILABLE, _take),
    Row(_P.AVAILABLE, Offered, "other times, words or source", _changed_or_elsewhere, _P.AVAILABLE, _renew_all),
    Row(_P.AVAILABLE, Offered, "withdrawn for another", _another_unwanted, _P.IDLE, _withdraw),
    Row(_P.AVAILABLE, NothingOffered, "withdrawn", _always, _P.IDLE, _withdraw),
    Row(_P.AVAILABLE, Ticked, "notice date", _to_announce, _P.AVAILABLE, _announce),
    Row(_P.AVAILABLE, Ticked, "due", _due, _P.STAGING, _stage),
    Row(_P.STAGING, Booted, "interrupted", _always, _P.AVAILABLE, _retry_now),
    Row(_P.STAGING, Offered, "another release", _another_wanted, _P.AVAILABLE, _take_cancelling),
    Row(_P.STAGING, Offered, "other times or words", _changed, _P.STAGING, _renew),
    Row(_P.STAGING, Offered, "withdrawn for another", _another_unwanted, _P.IDLE, _withdraw_cancelling),
    Row(_P.STAGING, NothingOffered, "withdrawn", _always, _P.IDLE, _withdraw_cancelling),
    Row(_P.STAGING, StagingFailed, "cannot be", _final, _P.IDLE, _fail),
    Row(_P.STAGING, StagingFailed, "failed", _always, _P.AVAILABLE, _retry),
    Row(_P.STAGING, Staged, "written and read back", _always, _P.STAGED, _finish_staging),
    Row(_P.STAGING, Ticked, "notice date", _to_announce, _P.STAGING, _announce),
    Row(_P.STAGED, Booted, "a trial of nobody's runs", _runs_stray_trial, _P.STAGED, _leave),
    Row(_P.STAGED, Booted, "a trial of nobody's", _stray_trial, _P.STAGED, _clear),
    Row(_P.STAGED, Offered, "another release", _another_wanted, _P.AVAILABLE, _take),
    Row(_P.STAGED, Offered, "other times or words", _changed, _P.STAGED, _renew),
    Row(_P.STAGED, Offered, "withdrawn for another", _another_unwanted, _P.IDLE, _withdraw),
    Row(_P.STAGED, NothingOffered, "withdrawn", _always, _P.IDLE, _withdraw),
    Row(_P.STAGED, Ticked, "notice date", _to_announce, _P.STAGED, _announce),
    Row(_P.STAGED, Ticked, "the window opens", _window_open, _P.ARMED, _arm),
    Row(_P.ARMED, BootStateWritten, "armed", _always, _P.ARMED, _say_ready),
    Row(_P.ARMED, Booted, "the new slot runs", _runs_it, _P.TRIAL, _nothing),
    Row(_P.ARMED, Booted, "no boot state counts", _lost_boot_state, _P.STAGED, _repair),
    Row(_P.ARMED, Booted, "not armed yet", _not_armed_yet, _P.ARMED, _arm),
    Row(_P.ARMED, Booted, "no start was spent", _still_armed, _P.ARMED, _say_ready),
    Row(_P.ARMED, Booted, "the old slot runs again", _always, _P.IDLE, _roll_back),
    Row(_P.ARMED, Offered, "another release", _another_wanted, _P.AVAILABLE, _take_clearing),
    Row(_P.ARMED, Offered, "other times or words", _changed, _P.ARMED, _renew),
    Row(_P.ARMED, Offered, "withdrawn for another", _another_unwanted, _P.IDLE, _withdraw_clearing),
    Row(_P.ARMED, NothingOffered, "withdrawn", _always, _P.IDLE, _withdraw_clearing),
    Row(_P.ARMED, Ticked, "the disk did not take it", _arming_due, _P.ARMED, _arm),
    Row(_P.ARMED, Ticked, "the window closes", _overdue, _P.ARMED, _remind),
    Row(_P.TRIAL, Booted, "confirmed before the power cut", _is_confirmed, _P.IDLE, _finish),
    Row(_P.TRIAL, Booted, "the new slot runs again", _runs_it, _P.TRIAL, _nothing),
    Row(_P.TRIAL, Booted, "the old slot runs again", _always, _P.IDLE, _roll_back),
    Row(_P.TRIAL, GatePassed, "healthy", _always, _P.TRIAL, _confirm),
    Row(_P.TRIAL, BootStateWritten, "confirmed", _always, _P.IDLE, _finish),
    Row(_P.TRIAL, GateFailed, "not healthy", _always, _P.TRIAL, _give_up),
)
"""The whole machine."""
