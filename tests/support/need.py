"""What a test needs of the machine: its absence is a skip with the reason on a laptop, and a failure in CI."""

from __future__ import annotations

import os

import pytest

from firmware.host_tools import install_hint, which


def need(thing: str | bool, why: str) -> None:
    """Go on only if the command `thing` is installed, or the condition holds; `why` says what the test does with it."""
    if which(thing) is not None if isinstance(thing, str) else thing:
        return
    reason = f"{thing} is missing ({why}); {install_hint(thing)}" if isinstance(thing, str) else why
    if os.environ.get("CI"):
        pytest.fail(f"CI must not skip: {reason}", pytrace=False)
    pytest.skip(reason)
