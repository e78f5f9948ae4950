"""Every wait of a test has a deadline, and one multiplier slows all of them: MAMORI_PATIENCE=3 on a busy machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_POLL_S = 0.02


def patience_s(seconds: float) -> float:
    """`seconds` on an idle machine, times the multiplier."""
    return seconds * float(os.environ.get("MAMORI_PATIENCE", "1"))


def check_until(what: str, condition: Callable[[], object], within_s: float) -> None:
    """Wait until the condition holds; the test fails with `what` when it does not in `within_s` seconds."""
    deadline = time.monotonic() + patience_s(within_s)
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s(within_s):g} s: {what}"
        time.sleep(_POLL_S)
