"""Every protocol over a rough network: what passes, what is blocked and what is harmless does not depend on how it is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import performance

SEEDS = st.integers(0, 2**64)
SMOKE = settings(max_examples=60)
"""A minute of tests/long/test_engine_soak.py does thousands."""


@SMOKE
@given(SEEDS)
def test_what_is_harmless_arrives_whole(seed: int) -> None:
    assert performance.harmless(seed) == []


@SMOKE
@given(SEEDS)
def test_what_is_blocked_never_arrives(seed: int) -> None:
    assert performance.forbidden(seed) == []


@SMOKE
@given(SEEDS)
def test_what_is_infected_never_arrives(seed: int) -> None:
    assert performance.infected(seed) == []


@SMOKE
@given(SEEDS)
def test_a_hostile_network_changes_nothing_of_that(seed: int) -> None:
    assert performance.hostile(seed) == []


@SMOKE
@given(SEEDS)
def test_chaos_leaves_nothing(seed: int) -> None:
    assert performance.chaos(seed) == []
