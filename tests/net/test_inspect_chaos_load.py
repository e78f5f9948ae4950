"""Disks that are full, files that are none, queues that overflow and floods of new flows: traffic goes on, and it is told."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace
from firmware.process import run
from mamori.inspect.flow import MAX_FLOWS
from tests.support import packets
from tests.support.chaos import SERVER, Rig, ask, start_rig, stopped
from tests.support.wait import check_until

DISK_KIB = 2048


@pytest.fixture(scope="module")
def open_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """What it writes is on small disks."""
    folder = tmp_path_factory.mktemp("l")
    with contextlib.ExitStack() as stack:
        for disk in ("root/data", "root/data/inspect", "root/run"):
            stack.enter_context(small_disk(folder / disk))
        yield stack.enter_context(start_rig(folder, name="load"))


@pytest.fixture
def rig(open_rig: Rig) -> Iterator[Rig]:
    open_rig.restore()
    yield open_rig
    open_rig.box.set_policy("")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", folder], explain="mount a small disk")
    try:
        yield
    finally:
        run(["umount", "--lazy", folder], explain="unmount it")


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte fits on this disk as long as the block lasts."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


def test_a_full_data_partition_stops_nobody_and_is_told_when_there_is_room(rig: Rig) -> None:
    told = rig.times_told("disk-trouble")
    with full(rig.box.device.data), rig.connection() as old, rig.download(rate="8M") as download:
        os.kill(rig.workers()[0], signal.SIGKILL)
        rig.await_well()
        assert rig.fetch(within_s=5) == "hello"
        assert ask(old) == b"hello"
        download.finish()
    rig.await_event("disk-trouble", told, within_s=20)
    rig.await_event("worker-ended")


def test_workers_live_on_with_a_full_run_and_the_report_comes_back(rig: Rig) -> None:
    before = rig.workers()
    with full(rig.box.device.root / "run"):
        with rig.connection() as old, rig.download() as download:
            assert rig.fetch(within_s=5) == "hello"
            download.finish()
            assert ask(old) == b"hello"
        assert rig.workers() == before
    stamp = rig.box.report()["at_monotonic_s"]
    check_until("the report goes on", lambda: rig.box.report()["at_monotonic_s"] > stamp, within_s=10)
    assert rig.workers() == before


def test_a_policy_that_cannot_be_copied_is_in_force_and_is_copied_when_there_is_room(rig: Rig) -> None:
    rig.box.set_policy('[virus]\nmode = "log"\n')
    policy = "# " + "x" * 50_000 + '\n[evasion]\nmode = "log"\n'
    with full(rig.box.device.accepted_policy.parent):
        rig.box.set_policy(policy)
        rig.await_event("policy-not-kept")
    check_until("the copy is made", lambda: rig.box.device.accepted_policy.read_text() == policy, within_s=20)


@pytest.mark.parametrize("kind", ["garbage", "a pipe"])
def test_files_that_are_none_are_refused_and_told_and_the_old_policy_stays(rig: Rig, kind: str) -> None:
    device = rig.box.device
    rig.box.set_policy('[block]\nurls = ["10.79.0.2/blocked"]\n')
    (device.address_feeds).mkdir(parents=True, exist_ok=True)
    device.lists.parent.mkdir(parents=True, exist_ok=True)
    told = {what: rig.times_told(what) for what in ("policy-refused", "lists-refused", "feed-refused")}
    paths = (device.policy, device.lists, device.address_feeds / "bad.txt")
    for path in paths:
        spoil(path, kind)
    try:
        rig.await_event("policy-refused", told["policy-refused"])
        rig.await_event("lists-refused", told["lists-refused"])
        if kind == "garbage":  # what is no file is no feed
            rig.await_event("feed-refused", told["feed-refused"])
        assert rig.fetch() == "hello"
        assert "遮断" in rig.fetch(name="blocked")
    finally:
        for path in paths:
            path.unlink()
    rig.box.set_policy("")
    assert "404 Not Found" in rig.fetch(name="blocked")


def spoil(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(os.urandom(5000))


FLOOD = 100_000

FLOW_BYTES = 4096
"""A flow of datagrams costs less: see tests/unit/inspect/test_memory.py."""


def test_a_flood_of_new_flows_is_bounded_and_others_go_on(rig: Rig) -> None:
    rig.box.set_policy('[ips]\nfloods = "off"\n')
    before = {worker["number"]: worker["memory_bytes"] for worker in rig.box.workers()}
    with rig.connection() as old, rig.download() as download:
        call_in_namespace(rig.box.lab.client, send_flood)
        assert rig.fetch(within_s=5) == "hello"
        assert ask(old) == b"hello"
        download.finish()
    check_until("the flood was seen", lambda: sum(worker["flows"] for worker in rig.box.workers()) > 5000, within_s=10)
    for worker in rig.box.workers():
        assert worker["flows"] <= MAX_FLOWS
        assert worker["memory_bytes"] < before[worker["number"]] + worker["flows"] * FLOW_BYTES + SLACK_BYTES
        assert worker["bugs"] == 0


def test_a_queue_that_overflows_stops_nobody_and_it_is_told_how_many_passed_unseen(rig: Rig) -> None:
    rig.box.set_policy('[ips]\nfloods = "off"\n')
    told = rig.times_told("queue-overflow")
    workers = rig.workers()
    with rig.connection() as old:
        with stopped(*workers.values()):
            call_in_namespace(rig.box.lab.client, send_flood)
            assert rig.fetch(within_s=5) == "hello", "a full queue passes packets"
        assert ask(old) == b"hello"
    rig.await_event("queue-overflow", told, within_s=25)
    assert rig.workers() == workers


SLACK_BYTES = 16 << 20
"""What the scanner and the queue's socket may have needed for the download."""


def send_flood() -> None:
    """Datagrams to the server, from so many forged sources and ports."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for number in range(FLOOD):
            source = bytes((10, 80 + (number >> 16), number >> 8 & 0xFF, number & 0xFF))
            datagram = packets.udp(b"x" * 20, ports=(1024, 9999))
            sender.sendto(packets.ipv4(datagram, ends=(source, socket.inet_aton(SERVER)), protocol=17), (SERVER, 0))
