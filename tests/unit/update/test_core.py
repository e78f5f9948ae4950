"""The update's machine: one way through it by value, every row of the table, and a box whose plug is pulled whenever it hurts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mamori.formats.bootstate import DEFAULT_TRIES, BootState, Slot, candidates
from mamori.update.core import FIRST_RETRY_S, LAST_RETRY_S, MAX_ATTEMPTS, TABLE
from mamori.update.words import (
    NothingOffered,
    Offered,
    Outcome,
    Phase,
    Result,
    StagingFailed,
)
from tests.support.update_world import DAY_S, START, Behaviour, World, make_offer

BYTES = 200_000_000
NEXT = make_offer("2026.12.0")


def staged(world: World | None = None) -> World:
    """A box that has the next release in its other slot."""
    world = world or World()
    world.receive(Offered(NEXT, BYTES))
    world.tick()
    world.finish_staging()
    assert world.journal.phase is Phase.STAGED
    return world


def armed(world: World | None = None) -> World:
    world = staged(world)
    world.now = NEXT.activate_after
    world.tick()
    assert world.journal.phase is Phase.ARMED
    return world


def test_a_release_is_found_staged_announced_armed_tried_and_confirmed() -> None:
    world = World()
    world.receive(Offered(NEXT, BYTES))
    assert world.journal.phase is Phase.AVAILABLE
    world.tick()
    assert world.journal.phase is Phase.STAGING
    assert world.slots[Slot.B] is None, "marked bad before it is written"
    world.finish_staging()
    assert (world.journal.phase, world.told) == (Phase.STAGED, [])
    world.now = NEXT.notice_at
    world.tick()
    assert world.told == [("announced", "2026.12.0")]
    world.now = NEXT.activate_after
    world.tick()
    assert world.boot == BootState(Slot.A, Slot.B, DEFAULT_TRIES, 2)
    assert world.told[1:] == [("ready", "2026.12.0")]
    world.boot_up()
    assert (world.version, world.journal.phase) == ("2026.12.0", Phase.TRIAL)
    world.run_gate()
    assert world.boot == BootState(Slot.B, sequence=3)
    assert world.told[2:] == [("done", "2026.12.0")]
    assert world.journal.phase is Phase.IDLE
    assert world.journal.history == (Outcome("2026.12.0", Result.CONFIRMED, NEXT.activate_after),)
    assert world.journal.minimum_version == NEXT.minimum_version


@pytest.mark.parametrize("behaviour", [Behaviour.FAILS_ITS_GATE, Behaviour.PANICS, Behaviour.DOES_NOT_VERIFY])
def test_a_release_that_does_not_work_is_left_reported_and_not_tried_again(behaviour: Behaviour) -> None:
    world = armed(World({"2026.12.0": behaviour}))
    world.boot_up()
    world.run_gate()
    assert (world.version, world.journal.phase) == ("2026.11.0", Phase.IDLE)
    assert world.boot is not None
    assert (world.boot.confirmed, world.boot.trial) == (Slot.A, None)
    assert world.told[-1] == ("failed", "2026.12.0")
    assert world.journal.history[-1].result is Result.ROLLED_BACK
    world.receive(Offered(NEXT, BYTES))
    assert world.journal.phase is Phase.IDLE
    world.receive(Offered(make_offer("2026.12.1"), BYTES))
    assert world.journal.phase is Phase.AVAILABLE


def test_a_power_cycle_before_the_window_activates_nothing() -> None:
    world = staged()
    for _ in range(3):
        world.boot_up()
        world.now += DAY_S
        world.tick()
    assert {version for _, _, version in world.started} == {"2026.11.0"}
    assert world.boot == BootState(Slot.A)


def test_ten_power_cycles_of_a_confirmed_slot_change_no_boot_state() -> None:
    world = armed()
    world.boot_up()
    world.run_gate()
    before, journal = world.boot, world.journal
    for _ in range(10):
        world.boot_up()
    assert (world.boot, world.journal) == (before, journal)


def test_the_plug_may_be_pulled_twice_during_a_trial() -> None:
    world = armed()
    for tries in (2, 1, 0):
        world.boot_up()
        assert world.boot is not None
        assert (world.version, world.boot.tries) == ("2026.12.0", tries)
    world.run_gate()
    assert world.boot == BootState(Slot.B, sequence=3)


def test_a_third_time_is_once_too_often() -> None:
    world = armed()
    for _ in range(4):
        world.boot_up()
    assert world.version == "2026.11.0"
    assert world.journal.history[-1].reason == "it did not come up"


@pytest.mark.parametrize("phase", [Phase.AVAILABLE, Phase.STAGING, Phase.STAGED, Phase.ARMED])
@pytest.mark.parametrize("now_offered", [None, make_offer("2026.10.0")], ids=["nothing", "the one before"])
def test_a_release_that_is_withdrawn_is_dropped(phase: Phase, now_offered: object) -> None:
    world = World()
    world.receive(Offered(NEXT, BYTES))
    for move in (world.tick, world.finish_staging):
        if world.journal.phase is not phase:
            move()
    if phase is Phase.ARMED:
        world = armed()
    assert world.journal.phase is phase
    world.receive(NothingOffered() if now_offered is None else Offered(now_offered, BYTES))  # type: ignore[arg-type]
    assert world.journal.phase is Phase.IDLE
    assert world.journal.history[-1].result is Result.WITHDRAWN
    assert (world.boot.trial if world.boot else None) is None
    assert world.staging is None
    world.receive(Offered(NEXT, BYTES))
    assert world.journal.phase is Phase.AVAILABLE, "withdrawn is not refused: it may come again"


def test_a_newer_release_takes_the_place_of_one_that_is_armed() -> None:
    world = armed()
    world.receive(Offered(make_offer("2026.12.1", activate_after=world.now + DAY_S), BYTES))
    assert world.boot is not None
    assert (world.journal.phase, world.boot.trial) == (Phase.AVAILABLE, None)
    world.tick()
    world.finish_staging()
    world.boot_up()
    assert world.version == "2026.11.0", "the newer one has a window of its own"


def test_another_window_for_the_same_bundle_is_taken_over() -> None:
    world = staged()
    later = replace(NEXT, activate_after=NEXT.activate_after + DAY_S)
    world.receive(Offered(later, BYTES))
    world.now = NEXT.activate_after
    world.tick()
    assert world.journal.phase is Phase.STAGED
    world.now += DAY_S
    world.tick()
    assert world.journal.phase is Phase.ARMED


def test_attempts_to_stage_come_slower_and_end() -> None:
    world, pauses = World(), []
    world.receive(Offered(NEXT, BYTES))
    while world.journal.phase is not Phase.IDLE:
        world.tick()
        assert world.journal.phase is Phase.STAGING
        before = world.now
        world.receive(StagingFailed("no line"))
        world.now = world.journal.retry_at
        pauses.append(world.now - before)
    assert pauses[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert max(pauses) == LAST_RETRY_S
    assert len(pauses) == MAX_ATTEMPTS
    assert world.journal.history[-1].result is Result.FAILED
    assert world.journal.refused == (), "a line that was down for two weeks says nothing of the release"
    world.receive(Offered(NEXT, BYTES))
    assert world.journal.phase is Phase.AVAILABLE


def test_a_pause_of_a_clock_that_was_years_ahead_is_over() -> None:
    world = World(now=START + 20 * 365 * DAY_S)
    world.receive(Offered(NEXT, BYTES))
    world.tick()
    world.receive(StagingFailed("no line"))
    world.now = START
    world.tick()
    assert world.journal.phase is Phase.STAGING


def test_until_it_is_fetched_it_counts_where_a_release_comes_from() -> None:
    world = World()
    world.receive(Offered(NEXT, BYTES, "https://updates.example.com"))
    world.receive(Offered(NEXT, BYTES, "usb"))
    assert world.journal.source == "usb"
    world.tick()
    world.receive(Offered(NEXT, BYTES, "https://updates.example.com"))
    assert (world.journal.phase, world.journal.source) == (Phase.STAGING, "usb")


def test_a_bundle_that_is_refused_is_given_up_at_once() -> None:
    world = World()
    world.receive(Offered(NEXT, BYTES))
    world.tick()
    world.receive(StagingFailed("signature verification failed", is_final=True))
    assert world.journal.history[-1].reason == "signature verification failed"
    assert world.journal.refused == ("2026.12.0",)
    assert world.told == [("failed", "2026.12.0")]


@pytest.mark.parametrize(
    ("changes", "is_taken"),
    [
        ({}, True),
        ({"compatible": "another"}, False),
        ({"version": "2026.11.0"}, False),
        ({"version": "2026.11.0+gabc"}, False),
        ({"version": "2026.10.9"}, False),
        ({"version": "2026.12.0-rc.1"}, True),
    ],
)
def test_what_is_not_for_us_is_left_alone(changes: dict[str, str], is_taken: bool) -> None:
    world = World()
    world.receive(Offered(replace(NEXT, **changes), BYTES))
    assert (world.journal.phase is Phase.AVAILABLE) == is_taken


def test_what_is_below_the_floor_is_left_alone() -> None:
    world = World(journal=replace(World().journal, minimum_version="2027.1.0"))
    world.receive(Offered(NEXT, BYTES))
    assert world.journal.phase is Phase.IDLE


def test_a_boot_state_that_is_lost_is_made_anew_and_what_was_armed_is_armed_again() -> None:
    world = armed()
    world.boot = None
    world.boot_up()
    assert world.boot == BootState(Slot.A)
    world.tick()
    assert world.boot is not None
    assert world.boot.trial is Slot.B


@pytest.mark.parametrize("writes", range(12))
def test_a_power_cut_after_any_write_of_a_cycle_ends_well(writes: int) -> None:
    """The plug is pulled once, after so many writes; then the box goes on as boxes do."""
    world = World(cut_in=writes)
    world.receive(Offered(NEXT, BYTES))
    for _ in range(40):
        if not world.is_on:
            world.boot_up()
            world.receive(Offered(NEXT, BYTES))
        world.tick()
        world.finish_staging()
        world.run_gate()
        if world.journal.phase is Phase.ARMED and world.cut_in is None:
            world.boot_up()
        elif world.journal.phase is Phase.ARMED:
            remaining = world.cut_in
            world.boot_up()
            world.cut_in = remaining
        deadline = world.next_deadline()
        world.now = max(world.now, deadline or 0)
    assert world.version == "2026.12.0"
    assert world.boot is not None
    assert (world.boot.confirmed, world.boot.trial) == (Slot.B, None)
    assert [outcome.result for outcome in world.journal.history] == [Result.CONFIRMED]


def test_a_release_that_was_withdrawn_as_the_power_went_is_not_left_running() -> None:
    world = armed()
    world.cut_in = 1  # the journal is written, the boot state is not
    world.receive(NothingOffered())
    assert (world.is_on, world.journal.phase, world.boot.trial if world.boot else None) == (False, Phase.IDLE, Slot.B)
    world.boot_up()
    assert (world.version, [version for _, _, version in world.started]) == ("2026.11.0", ["2026.12.0", "2026.11.0"])
    assert world.boot is not None
    assert world.boot.trial is None


def test_where_nothing_else_starts_a_trial_of_nobodys_stays() -> None:
    world = armed(World({"2026.11.0": Behaviour.DOES_NOT_VERIFY}))
    world.journal = replace(world.journal, phase=Phase.IDLE, offer=None, slot=None)
    world.boot_up()
    assert world.version == "2026.12.0"
    assert len(world.started) == 2, "it tried to leave once"


def test_a_power_cut_between_confirming_and_writing_it_down_confirms_once() -> None:
    world = armed()
    world.boot_up()
    world.cut_in = 1
    world.run_gate()
    assert not world.is_on
    boot = world.boot
    world.boot_up()
    assert world.boot == boot == BootState(Slot.B, sequence=3)
    assert [outcome.result for outcome in world.journal.history] == [Result.CONFIRMED]


OFFERS = [make_offer(f"2026.12.{number}", activate_after=START + (5 + 3 * number) * DAY_S) for number in range(4)]


class Box(RuleBasedStateMachine):
    """Anything that people, servers and plugs do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.known = {"2026.11.0": 0} | {offer.version: offer.activate_after for offer in OFFERS}
        self.bad: set[str] = set()

    @rule(number=st.integers(0, len(OFFERS) - 1), behaviour=st.sampled_from(Behaviour))
    def a_release_is_made(self, number: int, behaviour: Behaviour) -> None:
        """How it behaves is settled before anyone has it."""
        version = OFFERS[number].version
        if version not in self.world.behaviours:
            self.world.behaviours[version] = behaviour

    @rule(number=st.integers(0, len(OFFERS) - 1))
    def it_is_offered(self, number: int) -> None:
        self.world.behaviours.setdefault(OFFERS[number].version, Behaviour.WORKS)
        self.world.receive(Offered(OFFERS[number], BYTES))

    @rule()
    def nothing_is_offered(self) -> None:
        self.world.receive(NothingOffered())

    @rule(days=st.integers(0, 4), hours=st.integers(0, 23))
    def time_passes(self, days: int, hours: int) -> None:
        self.world.now += days * DAY_S + hours * 3600
        self.world.tick()

    @rule()
    def staging_ends(self) -> None:
        self.world.finish_staging()

    @rule(is_final=st.booleans())
    def staging_fails(self, is_final: bool) -> None:
        if self.world.staging is not None:
            self.world.staging = None
            self.world.receive(StagingFailed("no line", is_final))

    @rule()
    def the_gate_is_asked(self) -> None:
        self.world.run_gate()

    @rule(writes=st.integers(0, 4))
    @precondition(lambda self: self.world.is_on)
    def the_plug_will_be_pulled(self, writes: int) -> None:
        self.world.cut_in = writes

    @rule()
    def the_plug_is_pulled_and_put_in(self) -> None:
        self.world.boot_up()

    @invariant()
    def a_whole_slot_would_start(self) -> None:
        world = self.world
        first, second = candidates(world.boot)
        verified = [slot for slot in (first, second) if world.slots[slot] is not None]
        assert verified
        assert world.slots[world.running if world.is_on else verified[0]] is not None

    @invariant()
    def the_running_slot_is_never_written(self) -> None:
        if self.world.is_on:
            assert self.world.slots[self.world.running] is not None
            assert self.world.staging is None or self.world.staging.slot is not self.world.running

    @invariant()
    def nothing_new_starts_before_its_window(self) -> None:
        for at, _, version in self.world.started:
            assert at >= self.known[version]

    @invariant()
    def what_was_rolled_back_is_not_started_again(self) -> None:
        ended = {outcome.version: outcome.at for outcome in self.world.journal.history if outcome.result is Result.ROLLED_BACK}
        for at, _, version in self.world.started:
            assert version not in ended or at <= ended[version]

    @invariant()
    def a_confirmed_slot_is_one_that_worked(self) -> None:
        boot = self.world.boot
        if boot is not None:
            version = self.world.slots[boot.confirmed]
            assert version is not None
            assert self.world.behaviours.get(version, Behaviour.WORKS) is Behaviour.WORKS


Box.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBox = Box.TestCase


def test_every_row_of_the_table_has_words_of_its_own() -> None:
    """Two rows of one phase that look alike in the diagram would be one too many."""
    seen = [(row.phase, row.event.__name__, row.why) for row in TABLE]
    assert len(seen) == len(set(seen))
