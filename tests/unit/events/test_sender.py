"""The sender against a real socket: full, absent, and there again."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mamori.events.record import Count, Event, Function, Record
from mamori.events.sender import (
    FLUSH_EVERY_S,
    LOST_RECORDS,
    MAX_COUNTERS,
    MAX_WAITING_BYTES,
    RETRY_EVERY_S,
    EventSender,
)
from mamori.events.wire import parse_datagram
from tests.support.records import MAC, event


@contextmanager
def receiving(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(path))
        yield receiver
    path.unlink()


def received(receiver: socket.socket) -> list[Record]:
    """All that is in the queue, and nothing that was refused."""
    records: list[Record] = []
    while True:
        try:
            parsed = parse_datagram(receiver.recv(100_000))
        except BlockingIOError:
            return records
        assert parsed.refusals == ()
        records += parsed.records


def drained(sender: EventSender, receiver: socket.socket, now: float) -> list[Record]:
    """The same with what waits in the sender, which is flushed until it has nothing more to do."""
    records = received(receiver)
    while sender.next_deadline() < math.inf:
        now += FLUSH_EVERY_S
        sender.flush(now)
        records += received(receiver)
    return records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def test_a_record_is_sent_at_once(path: Path) -> None:
    sender = EventSender(path)
    with receiving(path) as receiver:
        sender.send(event())
        assert received(receiver) == [event()]
        assert sender.next_deadline() == math.inf


def test_without_a_writer_records_wait_and_come_in_their_order(path: Path) -> None:
    sender = EventSender(path)
    for number in range(100):
        sender.send(event(f"{number}"))
    with receiving(path) as receiver:
        assert drained(sender, receiver, 0.0) == [event(f"{number}") for number in range(100)]
    assert sender.lost == 0


def test_a_burst_larger_than_the_kernels_queue_arrives_whole(path: Path) -> None:
    sender = EventSender(path)
    with receiving(path) as receiver:
        for number in range(500):
            sender.send(event(f"{number}"))
        assert drained(sender, receiver, 0.0) == [event(f"{number}") for number in range(500)]


def test_what_does_not_fit_is_counted_and_reported_before_the_next_record(path: Path) -> None:
    sender = EventSender(path)
    subjects = [f"{number}-{'x' * 900}" for number in range(2 * MAX_WAITING_BYTES // 1000)]
    for subject in subjects:
        sender.send(event(subject))
    lost = sender.lost
    assert 0 < lost < len(subjects)
    with receiving(path) as receiver:
        first, *rest = drained(sender, receiver, 0.0)
        assert isinstance(first, Event)
        assert (first.function, first.category, first.subject) == (Function.SYSTEM, LOST_RECORDS, f"{lost} records were lost")
        assert rest == [event(subject) for subject in subjects[: len(subjects) - lost]]
        sender.send(event("after"))
        assert received(receiver) == [event("after")], "a loss is reported once"
    assert sender.lost == 0


def test_memory_is_bounded_while_nobody_listens(path: Path) -> None:
    sender = EventSender(path)
    for _ in range(10_000):
        sender.send(event("x" * 500))
        sender.count(Function.IPS, "flow", MAC, "192.0.2.1", "", 1, 0)
    assert sender._waiting_bytes <= MAX_WAITING_BYTES
    assert sum(map(len, sender._waiting)) == sender._waiting_bytes
    assert len(sender._counters) == 1


def test_a_writer_that_restarted_gets_the_next_record(path: Path) -> None:
    sender = EventSender(path)
    with receiving(path) as receiver:
        sender.send(event("1"))
        assert received(receiver) == [event("1")]
    sender.send(event("2"))
    with receiving(path) as receiver:
        assert drained(sender, receiver, 0.0) == [event("2")]
        sender.send(event("3"))
        assert received(receiver) == [event("3")]


def test_a_file_in_the_place_of_the_socket_is_a_writer_that_is_away(path: Path) -> None:
    path.write_text("")
    sender = EventSender(path)
    sender.send(event("1"))
    sender.flush(0.0)
    assert sender.next_deadline() == RETRY_EVERY_S


def test_counts_are_summed_up_and_sent_once_a_second(path: Path) -> None:
    sender = EventSender(path)
    with receiving(path) as receiver:
        for number in range(1000):
            sender.count(Function.VIRUS, "file", MAC, "192.0.2.1", "", 1, number % 10 == 0)
        sender.count(Function.DANGEROUS_SITE, "url", MAC, "192.0.2.1", "phishing", 5, 5)
        assert received(receiver) == []
        sender.flush(100.0)
        got = received(receiver)
        assert [
            (count.function, count.unit, count.category, count.scanned, count.blocked) for count in got if isinstance(count, Count)
        ] == [
            (Function.VIRUS, "file", "", 1000, 100),
            (Function.DANGEROUS_SITE, "url", "phishing", 5, 5),
        ]
        sender.count(Function.VIRUS, "file", MAC, "192.0.2.1", "", 1, 0)
        assert sender.next_deadline() == 100.0 + FLUSH_EVERY_S
        sender.flush(100.5)
        assert received(receiver) == []
        sender.flush(101.0)
        assert len(received(receiver)) == 1
        assert sender.next_deadline() == math.inf


def test_counts_that_cannot_be_sent_stay_sums_and_none_is_lost(path: Path) -> None:
    sender = EventSender(path)
    for now in range(50):
        sender.count(Function.VIRUS, "file", MAC, "192.0.2.1", "", 1, 1)
        sender.flush(float(now))
    with receiving(path) as receiver:
        (got,) = drained(sender, receiver, 100.0)
    assert isinstance(got, Count)
    assert (got.scanned, got.blocked) == (50, 50)


def test_forged_addresses_do_not_fill_the_memory_and_every_flow_is_counted(path: Path) -> None:
    sender = EventSender(path)
    for number in range(10_000):
        sender.count(Function.IPS, "flow", "", f"10.0.{number // 256}.{number % 256}", "", 1, 0)
    assert len(sender._counters) == MAX_COUNTERS + 1
    with receiving(path) as receiver:
        got = drained(sender, receiver, 0.0)
    assert sum(count.scanned for count in got if isinstance(count, Count)) == 10_000


def test_a_sender_that_is_closed_sends_what_it_has(path: Path) -> None:
    sender = EventSender(path)
    sender.send(event("1"))
    sender.count(Function.VIRUS, "file", MAC, "192.0.2.1", "", 1, 1)
    with receiving(path) as receiver:
        sender.close()
        assert [type(record) for record in received(receiver)] == [Event, Count]
