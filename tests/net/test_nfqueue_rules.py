"""The rules around the queue with real packets: what passes beside it, what decides a connection, who is cut off, what fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from firmware.inspect_lab import ADDRESSES, Lab, start_worker, write_sysctls
from firmware.netns import call_in_namespace
from mamori.inspect.nfqueue.queue import Settings
from mamori.inspect.nfqueue.rules import DECIDED_MARK, render_known_bad
from tests.net.nfqueue_lab import (
    CLOSED,
    FAMILIES,
    FILE,
    OPEN,
    TCP_PORT,
    accept,
    accept_marked,
    fetch,
    passes,
    start_web_lab,
    started_filter,
    started_queue,
    tcp_pair,
    udp_pair,
)
from tests.support.wait import patience_s

MSG_FASTOPEN, SO_RCVBUFFORCE = 0x20000000, 33  # linux/socket.h, asm-generic/socket.h


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_web_lab(tmp_path_factory.mktemp("web")) as lab:
        yield lab


def test_a_connection_with_our_mark_leaves_the_queue_and_one_with_another_mark_does_not(lab: Lab) -> None:
    lab.load(OPEN)
    counts = {}
    for mark in (0x1, DECIDED_MARK, DECIDED_MARK | 0x1):
        with started_filter(lab, accept_marked(mark)) as running:
            assert fetch(lab, "file") == FILE
        counts[mark] = len(running.seen)
    # The handshake's end, the request, and what was under way before the first verdict.
    assert counts[DECIDED_MARK] <= 8
    assert counts[DECIDED_MARK | 0x1] <= 8
    assert counts[0x1] > 50


def test_a_decided_connection_stays_so_when_later_packets_carry_no_mark(lab: Lab) -> None:
    lab.load(OPEN)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_filter(lab, accept_marked(DECIDED_MARK)) as running:
        for _ in range(10):
            sender.send(b"x")
            assert receiver.recv(10) == b"x"
    assert len([packet for packet in running.seen if packet.payload[9] == 17]) == 1


@pytest.mark.parametrize(
    ("sysctl", "times", "data"),
    [("3", 2, b"early"), ("519", 1, b"early" * 20)],
    ids=["with the cookie of an earlier connection", "between ends that agree to do without"],
)
def test_data_in_a_syn_does_not_pass_beside_the_queue(lab: Lab, sysctl: str, times: int, data: bytes) -> None:
    """TCP Fast Open: RFC 7413; ip-sysctl, tcp_fastopen 0x1|0x2, and 0x4|0x200."""
    lab.load(OPEN)
    for namespace in (lab.client, lab.server):
        call_in_namespace(namespace, lambda: write_sysctls({"net.ipv4.tcp_fastopen": sysctl}))
    host = (ADDRESSES["server"][0], TCP_PORT)
    with call_in_namespace(lab.server, lambda: socket.create_server(host)) as server, started_filter(lab) as running:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        server.settimeout(patience_s(5))
        for _ in range(times):
            client = call_in_namespace(lab.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            client.sendto(data, MSG_FASTOPEN, host)
            accepted, _ = server.accept()
            with client, accepted:
                accepted.settimeout(patience_s(5))
                assert accepted.recv(1000) == data
    carriers = [packet for packet in running.seen if data in bytes(packet.payload)]
    assert [packet.payload[33] & 0x12 for packet in carriers][-1] == 0x02, "it was the SYN itself"


@FAMILIES
def test_a_known_bad_address_is_cut_off_counted_and_let_back_by_the_allow_list(lab: Lab, family: int) -> None:
    lab.load(OPEN)
    bad, allowed = [ip_network(ADDRESSES["server"][family])], [ip_network(ADDRESSES["client"][family])]

    def load(text: str) -> None:
        lab.at(lab.box, "nft", "-f", "-", input=text, explain="load the known-bad addresses")

    def dropped(counter: str) -> int:
        listed = lab.at(lab.box, "nft", "list", "counter", "inet", "mamori_known_bad", counter, explain="count drops").split()
        return int(listed[listed.index("packets") + 1])

    assert fetch(lab, "allowed", family) == b"allowed"
    load(render_known_bad(bad))
    assert fetch(lab, "allowed", family, within_s=1) is None
    assert dropped("to_bad") > 0
    load(render_known_bad(bad, allowed))
    assert fetch(lab, "allowed", family) == b"allowed"
    load(render_known_bad(allowed))
    assert fetch(lab, "allowed", family, within_s=1) is None
    assert dropped("from_bad") > 0
    load(render_known_bad([]))
    assert fetch(lab, "allowed", family) == b"allowed"


def test_without_a_worker_nothing_passes_when_closed_until_there_is_one_again(lab: Lab) -> None:
    lab.load(CLOSED)
    with start_worker(lab, fail_open=False) as worker:
        assert fetch(lab, "allowed") == b"allowed"
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(patience_s(5))
        assert fetch(lab, "allowed", within_s=1) is None
    with start_worker(lab, fail_open=False):
        assert fetch(lab, "allowed") == b"allowed"


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_worker_that_ends_or_hangs_does_not_end_a_connection_when_open(lab: Lab, kind: signal.Signals) -> None:
    lab.load(OPEN)
    with start_worker(lab, max_length=4) as worker, contextlib.ExitStack() as stack:
        ends = tcp_pair(lab, stack)
        assert passes(*ends, FILE[:100_000])
        queued = lab.queued()
        os.kill(worker.pid, kind)
        assert passes(*ends, FILE[:1_000_000])
        assert fetch(lab, "file") == FILE, "nor does it keep others from beginning"
    assert queued


def test_a_packet_that_waits_for_its_verdict_survives_new_rules_and_new_addresses(lab: Lab) -> None:
    lab.load(CLOSED)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_queue(lab, Settings(0, fail_open=False)) as queue:
        lab.at(lab.box, "nft", "-f", "-", input=render_known_bad([]), explain="load no address")
        sender.send(b"held")
        lab.load(OPEN)
        lab.at(lab.box, "nft", "-f", "-", input=render_known_bad([ip_network("192.0.2.0/24")]), explain="load an address")
        queue.send([accept(packet) for packet in queue.receive()])
        assert receiver.recv(100) == b"held"


def test_rules_are_replaced_under_traffic_without_a_gap(lab: Lab) -> None:
    """Nothing is lost, not even what waits in the queue, and nothing passes beside it."""
    lab.load(CLOSED)
    receiver, sender = udp_pair(lab)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 * 1024 * 1024)  # it is read at the end only
    stop, sent = threading.Event(), 0

    def send() -> None:
        nonlocal sent
        while not stop.is_set():
            sender.send(sent.to_bytes(4, "big"))
            sent += 1
            time.sleep(0.001)

    with receiver, sender, started_filter(lab) as running:
        sender.send(b"the first packet of a connection waits alone until it is confirmed")
        assert receiver.recv(100)
        thread = threading.Thread(target=send)
        thread.start()
        for rules in (OPEN, CLOSED, OPEN, CLOSED):
            lab.load(rules)
            lab.at(lab.box, "nft", "-f", "-", input=render_known_bad([]), explain="load no address")
        stop.set()
        thread.join()
        got = [int.from_bytes(receiver.recv(100), "big") for _ in range(sent)]
        seen = [bytes(packet.payload[28:]) for packet in running.seen if packet.payload[9] == socket.IPPROTO_UDP][1:]
    assert sorted(got) == list(range(sent))
    assert [int.from_bytes(number, "big") for number in seen] == list(range(sent))
    assert sent > 50
