"""A box whose recipe says that nothing passes without the inspection: while it starts, is stopped, or is killed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator

import pytest

from firmware.bench_build import copy_checkout
from firmware.build import Built, build_image
from firmware.console import Console
from firmware.process import run
from firmware.qemu import TAPS
from firmware.recipe import ROOT
from firmware.workspace import Workspace
from tests.support.machine import READY_WITHIN_S, STARTING, Box, start_box, wait_until_ready
from tests.support.need import need
from tests.support.office import WEB_NAME, Office, start_office
from tests.support.recipes import LAB, edit
from tests.support.wait import check_until, patience_s

PAGE = "the page"
COMPUTER = "10.77.0.50/24"
POLICY = "/data/policy/policy.toml"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def closed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The lab's image, but closed; what does not depend on that is taken from the cache."""
    root = tmp_path_factory.mktemp("closed") / "checkout"
    copy_checkout(ROOT, root)
    shutil.copytree(ROOT / "keys", root / "keys")
    edit(root, LAB, "", '\n[bridge]\nearly = "closed"\n')
    (root / "out").mkdir()
    for shared in ("cache", "tools"):
        (root / "out" / shared).symlink_to(ROOT / "out" / shared)
    return build_image(Workspace(Console(progress=io.StringIO()), root, root / "out"), "lab")


@pytest.fixture(scope="module")
def office(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    need(os.geteuid() == 0, "network namespaces and taps around the box need root")
    for tool in ("ip", "dnsmasq", "nginx", "curl"):
        need(tool, "the office around the box")
    with start_office(tmp_path_factory.mktemp("closed-office"), built.tools.tree / "usr/bin/busybox") as started:
        (started.web / "page").write_text(PAGE)
        run(["ip", "-n", started.lan, "address", "add", COMPUTER, "dev", TAPS["lan"]], explain="give the computer an address")
        yield started


@pytest.fixture(scope="module")
def box(closed: Built, office: Office) -> Iterator[Box]:
    """Ready; while it started, the office heard nothing from it."""
    with start_box(closed, office=office) as (machine, media):
        machine.wait_for(STARTING, patience_s(READY_WITHIN_S))
        assert office.fetch("page", within_s=2) == ""
        assert frames_from_box(office) == 0
        with wait_until_ready(closed, machine, media, office) as started:
            yield started


def frames_from_box(office: Office) -> int:
    """How many frames the port `lan` has sent to the office."""
    shown = run(["ip", "-n", office.lan, "-j", "-s", "link", "show", "dev", TAPS["lan"]], explain="count frames").stdout
    return int(json.loads(shown)[0]["stats64"]["rx"]["packets"])


def works(office: Office, within_s: float = 30) -> bool:
    return office.fetch("page", within_s).endswith(PAGE)


def received(box: Box) -> int:
    return sum(worker["queue"]["received"] for worker in box.packets().get("workers", []))


def test_the_ports_stay_down_until_the_inspection_is_ready(box: Box, office: Office) -> None:
    log = box.host.check_output("dmesg")
    assert "mamori: bridge is closed until the inspection opens it" in log
    opened = {port: float(at) for at, port in re.findall(r"\[ *([0-9.]+)\] br0: port \d\((\w+)\) entered forwarding state", log)}
    assert set(opened) == {"wan", "lan"}
    started_us = box.host.check_output("systemctl show mamori-inspect --property=ExecMainStartTimestampMonotonic --value")
    assert min(opened.values()) > int(started_us) / 1e6
    check_until("the office is online", lambda: works(office, 5), within_s=60)
    check_until("its packets came through the queue", lambda: received(box) > 0, within_s=20)


def test_nothing_passes_while_the_inspection_is_stopped(box: Box, office: Office) -> None:
    assert works(office)
    box.host.check_output("systemctl stop mamori-inspect")
    assert office.fetch("page", within_s=5) == ""
    box.host.check_output("systemctl start mamori-inspect")
    check_until("the office is online again", lambda: works(office, 5), within_s=60)


def test_what_is_blocked_stays_so_while_the_inspection_is_killed_and_comes_back(box: Box, office: Office) -> None:
    box.host.check_output(f"printf '[block]\\nnames = [\"{WEB_NAME}\"]\\n' > {POLICY}")
    check_until("the site is blocked", lambda: "403 Forbidden" in office.fetch("page", 5), within_s=60)
    killed = box.main_pid("mamori-inspect")
    box.host.check_output(f"kill -9 {killed}")
    deadline = time.monotonic() + patience_s(90)
    answers: list[str] = []
    while not (box.main_pid("mamori-inspect") not in (0, killed) and answers and "403 Forbidden" in answers[-1]):
        assert time.monotonic() < deadline
        answers.append(office.fetch("page", within_s=2))
        assert PAGE not in answers[-1]
    box.host.check_output(f"rm {POLICY}")
    check_until("the office is online again", lambda: works(office, 5), within_s=60)
