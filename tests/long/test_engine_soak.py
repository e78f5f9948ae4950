"""The plays of tests/fuzz/test_plays_fuzz.py for as long as somebody wants to wait: MAMORI_SOAK_MINUTES, ten by default.

A failure names its seed; `performance.hostile(SEED)` and the like play it again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable

import pytest

from tests.support import performance

MINUTES = float(os.environ.get("MAMORI_SOAK_MINUTES", "10"))
PERFORMANCES = (performance.harmless, performance.forbidden, performance.infected, performance.hostile, performance.chaos)


@pytest.mark.parametrize("perform", PERFORMANCES, ids=lambda perform: perform.__name__)
def test_no_seed_is_wrong(perform: Callable[[int], list[str]]) -> None:
    first, count = secrets.randbits(48), 0
    end = time.monotonic() + 60 * MINUTES / len(PERFORMANCES)
    while time.monotonic() < end:
        assert (first + count, perform(first + count)) == (first + count, [])
        count += 1
    assert count, "not one play was performed"
