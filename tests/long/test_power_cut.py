"""Twenty power cuts at random moments of an update, with real starts: not one brick."""

from __future__ import annotations

import io

import pytest

from firmware.bench_power_cut import COUNT, bench_power_cut
from firmware.console import Console
from firmware.workspace import Workspace
from tests.support.need import need

pytestmark = pytest.mark.timeout(4 * 3600)


def test_no_power_cut_leaves_a_brick() -> None:
    need("qemu-system-x86_64", "runs the image")
    need("bwrap", "builds the image")
    need("ssh", "tells the box where its repository is")
    figures = bench_power_cut(Workspace(Console(progress=io.StringIO())), COUNT)
    print(figures)  # noqa: T201 (the figures are wanted)
    assert figures["kills"] == COUNT
    assert figures["wrong"] == []
    assert sum(figures["started"].values()) > 0
