"""Processes of the inspection are killed and hang while somebody downloads: an open box goes on, a closed one stays closed."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from firmware.netns import call_in_namespace
from mamori.formats.release import EarlyBridge
from mamori.inspect.nfqueue.queue import MAX_LENGTH
from tests.support.chaos import SERVER, Rig, ask, start_rig, stopped
from tests.support.wait import check_until


@pytest.fixture(scope="module")
def open_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(tmp_path_factory.mktemp("o"), name="open") as rig:
        yield rig


@pytest.fixture
def rig(open_rig: Rig) -> Rig:
    open_rig.restore()
    return open_rig


def test_killed_workers_are_replaced_and_nobody_notices(rig: Rig) -> None:
    before, told = rig.workers(), rig.times_told("worker-ended")
    with rig.connection() as old, rig.download() as download:
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        assert rig.fetch(within_s=5) == "hello"
        rig.await_well()
        assert ask(old) == b"hello"
        download.finish()
    assert not set(before.values()) & set(rig.workers().values())
    rig.await_event("worker-ended", told + len(before) - 1)


def test_a_worker_that_hangs_is_found_by_its_silence(rig: Rig) -> None:
    before, told = rig.workers(), rig.times_told("worker-hangs")
    with rig.connection() as old, rig.download() as download, stopped(*before.values()):
        check_until("they are killed", lambda: not set(before.values()) & set(rig.workers().values()), within_s=20)
        rig.await_well()
        assert rig.fetch(within_s=5) == "hello"
        assert ask(old) == b"hello"
        download.finish()
    rig.await_event("worker-hangs", told)


def test_a_killed_supervisor_takes_its_workers_with_it_and_the_next_one_has_their_queues(rig: Rig) -> None:
    before, rules = rig.workers(), rig.rules()
    with rig.connection() as old, rig.download() as download:
        os.kill(rig.service.pid, signal.SIGKILL)
        assert rig.fetch(within_s=5) == "hello"
        rig.start_service()
        rig.await_well()
        assert not set(before.values()) & set(rig.workers().values())
        assert ask(old) == b"hello"
        download.finish()
    assert rig.rules() == rules
    check_until("nothing is left of the workers", lambda: len(rig.workers()) == len(before), within_s=5)
    rig.await_event("inspection-killed")


def test_a_supervisor_that_hangs_stops_nobody(rig: Rig) -> None:
    before = rig.workers()
    with rig.connection() as old, rig.download(rate="8M") as download, stopped(rig.service.pid):
        assert rig.fetch(within_s=5) == "hello"
        assert ask(old) == b"hello"
        download.finish()
    rig.await_well()
    assert rig.workers() == before


def test_a_service_that_stops_and_starts_in_order_breaks_no_connection(rig: Rig) -> None:
    with rig.connection() as old, rig.download() as download:
        os.kill(rig.service.pid, signal.SIGTERM)
        assert rig.service.wait(10) == 0
        assert (rig.workers(), rig.queues()) == ({}, set())
        assert rig.fetch(within_s=5) == "hello"
        rig.start_service()
        rig.await_well()
        assert ask(old) == b"hello"
        download.finish()
    rig.await_event("inspection-stopped")


def test_not_one_of_many_connections_breaks_when_the_service_stops_and_starts(rig: Rig) -> None:
    with rig.fetching() as fetching:
        for _ in range(2):
            os.kill(rig.service.pid, signal.SIGTERM)
            assert rig.service.wait(10) == 0
            rig.start_service()
            rig.await_well()
    assert fetching.broken == 0
    assert fetching.whole > 50


def test_events_of_the_time_without_a_writer_are_told_afterwards(rig: Rig) -> None:
    told = rig.times_told("worker-ended")
    os.kill(rig.writer.pid, signal.SIGKILL)
    os.kill(rig.workers()[0], signal.SIGKILL)
    assert rig.fetch(within_s=5) == "hello"
    rig.await_well()
    rig.start_writer()
    rig.await_event("worker-ended", told)
    rig.await_event("writer-killed")


def test_a_writer_that_hangs_stops_nobody_and_loses_nothing(rig: Rig) -> None:
    told = rig.times_told("worker-ended")
    with rig.download(rate="8M") as download, stopped(rig.writer.pid):
        os.kill(rig.workers()[0], signal.SIGKILL)
        assert rig.fetch(within_s=5) == "hello"
        rig.await_well()
        download.finish()
    rig.await_event("worker-ended", told)


@pytest.fixture(scope="module")
def closed_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(tmp_path_factory.mktemp("c"), name="shut", early=EarlyBridge.CLOSED) as rig:
        yield rig


@pytest.fixture
def shut(closed_rig: Rig) -> Rig:
    closed_rig.restore()
    return closed_rig


def test_a_closed_box_lets_nothing_pass_without_workers_and_all_of_it_after(shut: Rig) -> None:
    rig = shut
    with rig.connection() as old, rig.download() as download:
        with stopped(rig.service.pid):
            for pid in rig.workers().values():
                os.kill(pid, signal.SIGKILL)
            check_until("nobody has a queue", lambda: not rig.queues(), within_s=5)
            with rig.tapped() as frames:
                old.request("GET", "/hello")
                received = download.received_bytes
                assert rig.fetch(within_s=3) == ""
            assert [frame for frame in frames if not may_pass(frame)] == []
            assert download.received_bytes <= received + SOCKET_BYTES
        rig.await_well()
        assert old.getresponse().read() == b"hello"
        assert rig.fetch() == "hello"
        download.finish()
    rig.await_event("worker-ended")


def test_a_closed_box_stays_closed_when_the_supervisor_is_killed_until_there_is_another(shut: Rig) -> None:
    rig = shut
    with rig.connection() as old:
        os.kill(rig.service.pid, signal.SIGKILL)
        check_until("the workers end", lambda: not rig.queues() and not rig.workers(), within_s=5)
        with rig.tapped() as frames:
            old.request("GET", "/hello")
            assert rig.fetch(within_s=2) == ""
        assert [frame for frame in frames if not may_pass(frame)] == []
        rig.start_service()
        rig.await_well()
        assert old.getresponse().read() == b"hello"
        assert rig.fetch() == "hello"


def test_a_closed_box_lets_nothing_pass_by_workers_that_hang(shut: Rig) -> None:
    rig = shut
    with rig.connection() as old, stopped(rig.service.pid, *rig.workers().values()):
        with rig.tapped() as frames:
            old.request("GET", "/hello")
            call_in_namespace(rig.box.lab.client, lambda: send_datagrams(3 * MAX_LENGTH))
            assert rig.fetch(within_s=2) == ""
        assert [frame for frame in frames if not may_pass(frame)] == []
    rig.await_well()
    with rig.connection() as new:
        assert ask(new) == b"hello"


def test_a_worker_that_hangs_without_its_supervisor_keeps_its_queue_from_nobody_for_longer_than_it_hangs(rig: Rig) -> None:
    (orphan, *others) = rig.workers().values()
    with stopped(orphan):
        os.kill(rig.service.pid, signal.SIGKILL)
        check_until("the others end", lambda: not set(others) & set(rig.workers().values()), within_s=5)
        rig.start_service()
        rig.await_event("worker-ended", rig.times_told("worker-ended"))
    rig.await_well()
    assert orphan not in rig.workers().values()
    assert rig.fetch() == "hello"


def send_datagrams(number: int) -> None:
    """So many to the server, more than a queue takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(number):
            sender.sendto(b"x" * 20, (SERVER, 9999))


SOCKET_BYTES = 8 << 20
"""What the client's kernel had when the last worker ended; curl takes it slowly."""


def may_pass(frame: bytes) -> bool:
    """ARP, neighbour discovery, multicast, and the first packet of a TCP connection: see nfqueue/rules.py."""
    kind, header = frame[12:14], frame[14:]
    if kind == b"\x08\x06" or frame[0] & 1 or (kind == b"\x86\xdd" and header[6] == 58 and header[40] in range(133, 138)):
        return True
    return kind == b"\x08\x00" and header[9] == 6 and header[(header[0] & 15) * 4 + 13] & 0x17 == 0x02
