"""One build and one shared box for all tests that do not change it.

The files' names put those tests last: once the shared box is up, it runs to the end of the session and takes time from the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from firmware.build import Built
from firmware.layout import MIB
from tests.support.machine import Box, build_lab, start_ready_box
from tests.support.need import need
from tests.support.office import Office, start_office

GROWN_BYTES = 512 * MIB
"""How much larger than the image the shared box's disk is."""


@pytest.fixture(scope="session")
def built() -> Built:
    need("qemu-system-x86_64", "runs the image")
    need("bwrap", "builds the image")
    return build_lab()


@pytest.fixture(scope="session")
def office(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    need(os.geteuid() == 0, "network namespaces and taps around the box need root")
    for tool in ("ip", "dnsmasq", "nginx", "curl", "socat"):
        need(tool, "the office around the box")
    with start_office(tmp_path_factory.mktemp("office"), built.tools.tree / "usr/bin/busybox") as started:
        yield started


@pytest.fixture(scope="session")
def box(built: Built, office: Office) -> Iterator[Box]:
    """Tests look at this one and leave it as it is."""
    with start_ready_box(built, office=office, grow_bytes=GROWN_BYTES) as started:
        yield started
