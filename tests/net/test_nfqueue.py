"""The packet queue with real packets: a bridge in a network namespace, real clients and servers at both ends.

client ── box: br0 with br_netfilter, our rules, our queue ── server
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from select import select

import pytest

from firmware.inspect_lab import Lab
from firmware.netns import call_in_namespace
from firmware.process import run
from mamori.formats.problems import MamoriError
from mamori.inspect.nfqueue.messages import Packet, Verdict, encode_batch_verdict, encode_verdict, requeue
from mamori.inspect.nfqueue.queue import Settings
from tests.net.nfqueue_lab import (
    FAMILIES,
    FILE,
    FOUND,
    OPEN,
    REPLACED,
    TCP_PORT,
    accept,
    drop_what_says,
    fetch,
    replace_found,
    set_offloads,
    start_web_lab,
    started_filter,
    started_queue,
    udp_pair,
)
from tests.support.vlan import start_vlan
from tests.support.wait import check_until, patience_s

UDP_SEGMENT, SO_NO_CHECK = 103, 11  # linux/udp.h, asm-generic/socket.h


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_web_lab(tmp_path_factory.mktemp("web")) as lab:
        yield lab


@FAMILIES
def test_an_accepting_queue_lets_traffic_pass_whole_and_sees_super_packets(lab: Lab, family: int) -> None:
    lab.load(OPEN)
    with started_filter(lab) as running:
        assert fetch(lab, "file", family) == FILE
    assert max(packet.length_bytes for packet in running.seen) > 1500
    assert any(packet.is_super_packet for packet in running.seen)
    assert {packet.protocol for packet in running.seen if packet.is_super_packet} == {0x86DD if family else 0x0800}
    seen_bytes = sum(packet.length_bytes for packet in running.seen)
    assert seen_bytes > len(FILE), "nothing passed beside the queue"


def test_a_packet_says_which_port_it_came_in_by_and_who_sent_it(lab: Lab) -> None:
    lab.load(OPEN)
    with started_filter(lab) as running:
        assert fetch(lab, "allowed") == b"allowed"
    ports = {side: int(lab.at(lab.box, "cat", f"/sys/class/net/{side}/ifindex", explain="ask")) for side in ("client", "server")}
    sender = lab.at(lab.client, "cat", "/sys/class/net/eth0/address", explain="ask").strip()
    request = next(packet for packet in running.seen if b"GET /allowed" in bytes(packet.payload))
    assert (request.physindev, request.physoutdev) == (ports["client"], ports["server"])
    assert request.indev == request.outdev == int(lab.at(lab.box, "cat", "/sys/class/net/br0/ifindex", explain="ask"))
    assert request.hw_address.hex(":") == sender


def test_one_batch_verdict_lets_all_packets_pass_that_wait(lab: Lab) -> None:
    lab.load(OPEN)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_queue(lab, Settings(0, fail_open=False)) as queue:
        sender.send(b"first")  # a connection's first packet waits alone until it is confirmed
        check_until("the first packet waits", lambda: select([queue], [], [], 0)[0], within_s=5)
        queue.send([accept(packet) for packet in queue.receive()])
        assert receiver.recv(100) == b"first"
        for number in range(20):
            sender.send(b"%d" % number)
        waiting = queue.receive()
        assert len(waiting) == 20
        queue.send([encode_batch_verdict(0, waiting[9].id, Verdict.ACCEPT), encode_batch_verdict(0, waiting[14].id, Verdict.DROP)])
        queue.send([encode_batch_verdict(0, waiting[19].id, Verdict.ACCEPT)])
        got = [int(receiver.recv(100)) for _ in range(15)]
        assert got == [*range(10), *range(15, 20)]
        assert queue.receive() == []
        assert queue.counters().refused == 0


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
@FAMILIES
def test_a_replaced_payload_arrives_whole_at_the_receiver(lab: Lab, family: int, offload: bool) -> None:
    lab.load(OPEN)
    set_offloads(lab, offload)
    try:
        with started_filter(lab, replace_found) as running:
            got = fetch(lab, "file", family)
            assert running.queue.counters().refused == 0
    finally:
        set_offloads(lab, True)
    assert got is not None
    assert hashlib.sha256(got).digest() == hashlib.sha256(FILE.replace(FOUND, REPLACED)).digest()
    changed = [packet for packet in running.seen if packet.length_bytes > 1500 and FOUND in bytes(packet.payload)]
    assert any(packet.is_super_packet for packet in changed)


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
@FAMILIES
def test_a_replaced_datagram_arrives_whole_alone_and_in_a_super_packet(lab: Lab, family: int, offload: bool) -> None:
    lab.load(OPEN)
    set_offloads(lab, offload)
    receiver, sender = udp_pair(lab, family)
    try:
        with receiver, sender, started_filter(lab, replace_found) as running:
            sender.send(b"alone" + FOUND)
            assert receiver.recv(2000) == b"alone" + REPLACED
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            sender.send((FOUND + b"x" * 999) * 20 + FOUND)
            got = [receiver.recv(2000) for _ in range(21)]
    finally:
        set_offloads(lab, True)
    assert got == [REPLACED + b"x" * 999] * 20 + [REPLACED]
    assert any(packet.is_super_packet for packet in running.seen)


def test_a_datagram_that_came_without_a_checksum_is_replaced_without_one(lab: Lab) -> None:
    lab.load(OPEN)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_filter(lab, replace_found):
        sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        sender.send(b"bare" + FOUND)
        assert receiver.recv(2000) == b"bare" + REPLACED


@FAMILIES
def test_a_dropped_packet_does_not_arrive_and_its_neighbours_do(lab: Lab, family: int) -> None:
    lab.load(OPEN)
    with started_filter(lab, drop_what_says(b"GET /forbidden")):
        assert fetch(lab, "allowed", family) == b"allowed"
        assert fetch(lab, "forbidden", family, within_s=1) is None
        assert fetch(lab, "allowed", family) == b"allowed"
    with started_filter(lab):
        assert fetch(lab, "forbidden", family) == b"forbidden"


@FAMILIES
def test_a_requeued_packet_is_judged_by_the_second_queue_too(lab: Lab, family: int) -> None:
    lab.load(OPEN)

    def hand_on(packet: Packet) -> bytes:
        return encode_verdict(packet.queue, packet.id, requeue(1, bypass=True))

    with started_filter(lab, hand_on) as first:
        with started_filter(lab, drop_what_says(b"GET /forbidden"), number=1) as second:
            assert fetch(lab, "file", family) == FILE
            assert fetch(lab, "forbidden", family, within_s=1) is None
        assert any(packet.is_super_packet for packet in second.seen)
        assert sum(packet.length_bytes for packet in second.seen) == sum(packet.length_bytes for packet in first.seen)
        assert fetch(lab, "forbidden", family) == b"forbidden", "bypassed when nobody listens"


def test_a_requeue_without_bypass_to_a_queue_without_a_listener_drops(lab: Lab) -> None:
    lab.load(OPEN)
    with started_filter(lab, lambda packet: encode_verdict(packet.queue, packet.id, requeue(1, bypass=False))) as running:
        assert fetch(lab, "allowed", within_s=1) is None
        assert running.seen


def test_frames_with_a_vlan_tag_go_through_the_queue_and_keep_their_tag(lab: Lab) -> None:
    lab.load(OPEN)
    hosts = {"client": (lab.client, "10.80.0.1"), "server": (lab.server, "10.80.0.2")}
    with contextlib.ExitStack() as stack:
        for namespace, address in hosts.values():
            stack.enter_context(start_vlan(namespace, "eth0", 10, "vlan"))
            run(["ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "vlan"], explain="join the VLAN")
        receiver = call_in_namespace(lab.server, lambda: stack.enter_context(socket.create_server((hosts["server"][1], TCP_PORT))))
        receiver.settimeout(patience_s(5))
        running = stack.enter_context(started_filter(lab, replace_found))
        sender = call_in_namespace(
            lab.client, lambda: stack.enter_context(socket.create_connection((hosts["server"][1], TCP_PORT), 5))
        )
        accepted = stack.enter_context(receiver.accept()[0])
        sender.sendall(b"tagged" + FOUND)
        accepted.settimeout(patience_s(5))
        assert accepted.recv(100) == b"tagged" + REPLACED
    data = next(packet for packet in running.seen if b"tagged" in bytes(packet.payload))
    assert data.payload[0] >> 4 == 4, "the payload starts with the IP header, not with the tag"
    assert data.vlan is None, "br_netfilter took the tag off before"


def test_a_full_socket_is_counted_and_lets_packets_pass_and_is_not_the_end(lab: Lab) -> None:
    lab.load(OPEN)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_queue(lab, Settings(0, fail_open=True, receive_buffer_bytes=4096)) as queue:
        for number in range(60):
            sender.send(number.to_bytes(1, "big") + bytes(1000))
        assert queue.counters().overrun > 0
        passed = {receiver.recv(2000)[0] for _ in range(queue.counters().overrun)}
        waiting = queue.receive()
        assert 0 < len(waiting) < 60
        queue.send([accept(packet) for packet in waiting])
        assert passed | {receiver.recv(2000)[0] for _ in waiting} == set(range(60))


def test_a_socket_that_was_full_takes_packets_again_as_soon_as_one_fits(lab: Lab) -> None:
    """Without NETLINK_NO_ENOBUFS it would not before it is empty, and until then everything would pass uninspected."""
    lab.load(OPEN)
    receiver, sender = udp_pair(lab)
    with receiver, sender, started_queue(lab, Settings(0, fail_open=True, receive_buffer_bytes=4096)) as queue:
        while not queue.counters().overrun:
            sender.send(b"fill" + bytes(1000))
        assert len(queue.receive(1)) == 1
        sender.send(b"again")
        waiting = [bytes(packet.payload[28:]) for packet in queue.receive()]
    assert waiting[0][:4] == b"fill", "it was not empty"
    assert waiting[-1] == b"again"


def test_a_verdict_that_the_kernel_refuses_is_counted(lab: Lab) -> None:
    with started_queue(lab, Settings(0, fail_open=True)) as queue:
        queue.send([encode_verdict(0, 4711, Verdict.ACCEPT), encode_verdict(0, 4712, Verdict.ACCEPT, payload=bytes(60000))])
        assert queue.receive() == []
        assert queue.counters().refused == 2


def test_verdicts_that_are_more_than_one_call_takes_all_arrive(lab: Lab) -> None:
    with started_queue(lab, Settings(0, fail_open=True)) as queue:
        queue.send(encode_verdict(0, number, Verdict.ACCEPT, payload=bytes(60000)) for number in range(200))
        assert queue.receive(300) == []
        assert queue.counters().refused == 200


def test_a_queue_that_somebody_has_is_refused_to_others(lab: Lab) -> None:
    with started_queue(lab, Settings(0, fail_open=True)):
        with pytest.raises(MamoriError, match="packet queue 0"), started_queue(lab, Settings(0, fail_open=True)):
            pass
        with started_queue(lab, Settings(1, fail_open=True)) as other:
            assert other.receive() == []
