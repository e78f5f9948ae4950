"""Answers, cuts and rewrites with real packets: curl, the bridge with our queue, nginx; both ends are the kernel's own TCP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from firmware.inspect_lab import ADDRESSES
from firmware.process import run
from mamori.inspect.blockpage import Block, Label, render_block_page
from mamori.inspect.craft import normalise, overwrite, refuse_dns
from mamori.inspect.findings import Coding
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.interpose import Answer, Cut
from mamori.inspect.nfqueue.messages import Packet, Verdict, encode_verdict
from mamori.inspect.packet import UDP, parse_packet
from tests.net.interpose_lab import BODY_BYTES, TLS_ALERT, VIRUS, Judge, Office, start_office
from tests.net.nfqueue_lab import FAMILIES, OPEN, UDP_PORT, set_offloads, started_filter, udp_pair
from tests.support.pppoe import ADDRESS, start_pppoe
from tests.support.vlan import start_vlan

OFFLOADS = pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
LONG = Label("とても長い分類の名前" * 19, "a category with a very long name " * 6)
PAGE = render_block_page(Block("example.com/blocked", LONG, LONG, "総務部 内線 123"))
PAGES = {b"GET /blocked": Answer(PAGE), b"POST /blocked": Answer(PAGE)}
HELLO = b"\x16\x03\x01"
ABOUT_A_ROUND_TRIP_S = 0.15
"""An answer in the lab takes 1 ms; whatever waits for a timer of TCP takes 200."""


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with start_office(tmp_path_factory.mktemp("office")) as office:
        (office.folder / "post").write_bytes(b"p" * 200_000)
        (office.folder / "upload").write_bytes(b"u" * 2_000_000 + VIRUS + b"v" * 3_000_000)
        office.lab.load(OPEN)
        yield office


@contextlib.contextmanager
def offloads(office: Office, on: bool) -> Iterator[None]:
    """At the bridge's ports, and at the client's own."""
    state = "on" if on else "off"
    argv = ["ethtool", "-K", "eth0", "tx", state, "tso", state, "gso", state, "gro", state]
    set_offloads(office.lab, on)
    office.lab.at(office.lab.client, *argv, explain="turn offloads")
    try:
        yield
    finally:
        set_offloads(office.lab, True)
        office.lab.at(office.lab.client, *(word.replace("off", "on") for word in argv), explain="turn offloads on")


def check_page(output: bytes, requests: int = 1) -> float:
    """The last response is the page, whole, and nothing of the server's; the seconds that curl says it took."""
    body, _, report = output.rpartition(b"\n")
    code, size, seconds, _ = report.split()
    assert body.endswith(PAGE)
    assert (code, int(size)) == (b"403", len(PAGE.partition(b"\r\n\r\n")[2]))
    assert body.count(b"HTTP/1.1 ") == requests
    assert b"own words" not in body
    return float(seconds)


REQUESTS: dict[str, list[str | Path]] = {
    "HTTP/1.1": ["/blocked"],
    "HTTP/1.0": ["--http1.0", "/blocked"],
    "4 KB of cookies": ["--header", "Cookie: a=" + "x" * 4000, "/blocked"],
    "30 KB of cookies": [*(word for n in range(8) for word in ("--header", f"Cookie{n}: a=" + "x" * 4000)), "/blocked"],
}


@OFFLOADS
@FAMILIES
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_blocked_get_is_answered_with_the_page_and_never_reaches_the_server(
    office: Office, request_name: str, family: int, offload: bool
) -> None:
    judge = Judge(PAGES)
    with offloads(office, offload), started_filter(office.lab, judge):
        got = office.curl("--include", *REQUESTS[request_name], family=family)
        office.check_closed()
    assert got.code == 0
    assert check_page(got.stdout_bytes) < ABOUT_A_ROUND_TRIP_S
    assert judge.reached_server() == b""
    assert "blocked" not in office.log()
    assert [talk.interposer.is_done for talk in judge.talks.values() if talk.interposer] == [True]
    if offload and "cookies" in request_name:
        assert any(is_super for _, _, is_super in judge.delivered), "a super-packet became a probe"


@OFFLOADS
def test_a_blocked_second_request_of_a_connection_is_answered_after_the_first_went_well(office: Office, offload: bool) -> None:
    judge = Judge(PAGES)
    before = office.log().count("GET /fine")
    with offloads(office, offload), started_filter(office.lab, judge):
        got = office.curl("--include", "--output", "-", "/fine", "--include", "--output", "-", "/blocked")
        office.check_closed()
    assert got.code == 0
    assert len(judge.talks) == 1
    assert b"\r\n\r\nfine" in got.stdout_bytes
    assert check_page(got.stdout_bytes, requests=2) < ABOUT_A_ROUND_TRIP_S
    assert office.log().count("GET /fine") == before + 1
    assert "blocked" not in office.log()


@OFFLOADS
@FAMILIES
@pytest.mark.parametrize("expects", [True, False], ids=["waits for 100", "sends at once"])
def test_a_blocked_post_of_200_kb_is_answered_before_its_body_was_sent(
    office: Office, expects: bool, family: int, offload: bool
) -> None:
    judge = Judge(PAGES)
    expect = "Expect: 100-continue" if expects else "Expect:"
    with offloads(office, offload), started_filter(office.lab, judge):
        got = office.curl("--include", "--header", expect, "--data-binary", f"@{office.folder}/post", "/blocked", family=family)
        office.check_closed()
    assert got.code == 0
    assert check_page(got.stdout_bytes) < ABOUT_A_ROUND_TRIP_S
    assert judge.reached_server() == b""
    assert "POST /blocked" not in office.log()


@FAMILIES
def test_a_tls_client_gets_an_alert_within_a_round_trip(office: Office, family: int) -> None:
    judge = Judge({HELLO: Answer(TLS_ALERT)})
    with started_filter(office.lab, judge):
        got = office.curl("/fine", family=family, scheme="https")
        office.check_closed()
    assert got.code == 35
    assert "alert access denied" in got.stderr
    assert float(got.stdout.split()[2]) < ABOUT_A_ROUND_TRIP_S
    assert judge.reached_server() == b""


@OFFLOADS
@FAMILIES
def test_a_cut_download_ends_at_once_at_both_ends_and_without_the_virus(office: Office, family: int, offload: bool) -> None:
    judge, target = Judge({VIRUS: Cut(RESPONDER)}), office.folder / "got"
    with offloads(office, offload), started_filter(office.lab, judge):
        got = office.curl("--output", target, "/infected", family=family)
        closed_s = office.check_closed()
    assert got.code == 56
    assert closed_s < 1
    body, whole = target.read_bytes(), (office.folder / "web/infected").read_bytes()
    assert 0 < len(body) <= BODY_BYTES // 2
    assert sha256(whole[: len(body)]).hexdigest() == sha256(body).hexdigest()
    if offload:
        assert any(is_super for _, _, is_super in judge.delivered), "a super-packet became an RST or a probe"
    assert all(not payload.strip(b"\0") for _, payload, _ in judge.delivered)


@OFFLOADS
@FAMILIES
def test_a_cut_upload_ends_at_once_at_both_ends_and_without_the_virus(office: Office, family: int, offload: bool) -> None:
    judge = Judge({VIRUS: Cut(ORIGINATOR)})
    with offloads(office, offload), started_filter(office.lab, judge):
        got = office.curl("--data-binary", f"@{office.folder}/upload", "/up", family=family)
        office.check_closed()
    assert got.code in (55, 56)
    assert float(got.stdout.split()[2]) < 1
    assert judge.reached_server() == b""
    assert all(not payload.strip(b"\0") for _, payload, _ in judge.delivered)


@pytest.mark.parametrize("seed", range(6))
def test_the_page_arrives_though_every_tenth_packet_is_lost_on_each_side_of_the_box(office: Office, seed: int) -> None:
    judge = Judge(PAGES, loss=0.1, seed=seed)
    with offloads(office, False), started_filter(office.lab, judge):
        got = office.curl("--include", "/blocked", family=seed % 2, within_s=60)
        judge.loss = 0.0  # the ends' last words have their timers doubled by now
        office.check_closed(60)
    assert got.code == 0
    check_page(got.stdout_bytes)
    assert judge.reached_server() == b""
    assert "blocked" not in office.log()


def test_a_page_passes_through_a_vlan(office: Office) -> None:
    lab, judge = office.lab, Judge(PAGES)
    with contextlib.ExitStack() as stack:
        for namespace, address in ((lab.client, "10.80.0.1"), (lab.server, "10.80.0.2")):
            stack.enter_context(start_vlan(namespace, "eth0", 10, "vlan"))
            run(["ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "vlan"], explain="join the VLAN")
        stack.enter_context(started_filter(lab, judge))
        got = office.curl("--include", "http://10.80.0.2/blocked")
        office.check_closed()
    assert got.code == 0
    check_page(got.stdout_bytes)
    assert judge.reached_server() == b""


@contextlib.contextmanager
def session(office: Office) -> Iterator[str]:
    """The server's address in a PPPoE session with the client."""
    lab = office.lab
    ends = {lab.client: ("10.81.0.1", "10.81.0.2"), lab.server: ("10.81.0.2", "10.81.0.1")}
    macs = {end: lab.at(end, "cat", "/sys/class/net/eth0/address", explain="ask").strip() for end in ends}
    with contextlib.ExitStack() as stack:
        for end, other in ((lab.client, lab.server), (lab.server, lab.client)):
            stack.enter_context(start_pppoe(end, "eth0", bytes.fromhex(macs[other].replace(":", "")), 7, "ppp0"))
            own, peer = ends[end]
            run(["ip", "-n", end, "address", "add", f"{own}/24", "dev", "ppp0"], explain="join the session")
            neighbour = ["neighbour", "add", peer, "lladdr", ADDRESS.hex(":"), "dev", "ppp0"]
            run(["ip", "-n", end, *neighbour], explain="join the session")
        yield ends[lab.client][1]


def test_in_a_pppoe_session_a_packet_of_another_length_is_lost(office: Office) -> None:
    """Why there is is_length_fixed. When this fails, the kernel has learnt to mend the session's header, and it can go."""
    judge = Judge(PAGES)
    with session(office) as server, started_filter(office.lab, judge):
        assert office.curl(f"http://{server}/fine").code == 0
        assert office.curl(f"http://{server}/blocked", within_s=2).code == 28


def test_in_a_pppoe_session_a_blocked_request_and_a_download_are_cut(office: Office) -> None:
    judge = Judge({**PAGES, VIRUS: Cut(RESPONDER)}, is_length_fixed=True)
    target = office.folder / "got-in-session"
    with session(office) as server, started_filter(office.lab, judge):
        assert office.curl(f"http://{server}/blocked").code == 56
        office.check_closed()
        assert office.curl("--output", target, f"http://{server}/infected").code == 56
        office.check_closed()
    assert "blocked" not in office.log()
    assert judge.reached_server() == b""
    assert target.stat().st_size <= BODY_BYTES // 2


@OFFLOADS
@FAMILIES
def test_an_overwritten_download_arrives_with_equal_length(office: Office, family: int, offload: bool) -> None:
    first: list[int] = []
    low, high = BODY_BYTES // 2, BODY_BYTES // 2 + 100_000

    def rewrite(queued: Packet) -> bytes:
        packet = parse_packet(queued.payload)
        if packet.source_port != 80 or not packet.payload:
            return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT)
        if not first:
            first.append(packet.sequence + bytes(packet.payload).index(b"\r\n\r\n") + 4)
        offset = packet.sequence - first[0] & 0xFFFFFFFF
        offset -= (offset >> 31) << 32
        made = overwrite(queued.payload, packet, queued.info, offset, [(low, high, Coding.BINARY)])
        return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT, payload=made)

    target = office.folder / "rewritten"
    with offloads(office, offload), started_filter(office.lab, rewrite):
        got = office.curl("--output", target, "/infected", family=family)
    assert got.code == 0
    whole = (office.folder / "web/infected").read_bytes()
    wanted = whole[:low] + b"X" * (high - low) + whole[high:]
    assert sha256(target.read_bytes()).hexdigest() == sha256(wanted).hexdigest()


@FAMILIES
def test_a_dns_answer_becomes_nxdomain_that_a_resolver_would_take(office: Office, family: int) -> None:
    question = bytes.fromhex("1234 8580 0001 0001 0000 0000 03777777 076578616d706c65 00 0001 0001")
    answer = bytes.fromhex("c00c 0001 0001 0000003c 0004 c0000201")

    def refuse(queued: Packet) -> bytes:
        packet = parse_packet(queued.payload)
        is_answer = packet.protocol == UDP and packet.source_port == UDP_PORT
        made = refuse_dns(queued.payload, packet, queued.info) if is_answer else None
        return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT, payload=made)

    receiver, sender = udp_pair(office.lab, family)
    with receiver, sender, started_filter(office.lab, refuse):
        sender.settimeout(5)
        sender.send(b"a query")
        _, address = receiver.recvfrom(100)
        receiver.sendto(question + answer, address)
        got = sender.recv(2000)
    assert got == question[:2] + bytes.fromhex("8183 0001 0000 0000 0000") + question[12:]


def test_a_normalised_urgent_byte_is_read_in_its_place(office: Office) -> None:
    def clear(queued: Packet) -> bytes:
        packet = parse_packet(queued.payload)
        made = normalise(queued.payload, packet, queued.info) if packet.protocol == 6 else None
        return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT, payload=made)

    program = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 80)); s.sendall(b'GET /fi');"
        "s.send(b'n', socket.MSG_OOB); s.sendall(b'e HTTP/1.0\\r\\n\\r\\n'); print(s.makefile('rb').read())"
    )
    with started_filter(office.lab, clear):
        said = office.lab.at(office.lab.client, "python3", "-c", program, ADDRESSES["server"][0], explain="send urgent data")
    assert "200 OK" in said


def test_a_server_that_hears_nothing_is_given_up_and_the_client_gets_none_of_its_words(office: Office) -> None:
    # The last one: both ends still have this connection when it ends, and nothing holds it back then.
    judge = Judge(PAGES)
    decide = judge.__call__

    def deaf(packet: Packet) -> bytes:
        if judge.outcomes["from client Deliver"] and parse_packet(packet.payload).source_port == 80:
            return encode_verdict(packet.queue, packet.id, Verdict.DROP)
        return decide(packet)

    with started_filter(office.lab, deaf):
        got = office.curl("--include", "/blocked", within_s=3)
    assert got.code == 28
    assert judge.reached_server() == b""
    assert b"own words" not in got.stdout_bytes
