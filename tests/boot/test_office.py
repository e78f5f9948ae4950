"""A computer in the office and servers outside, with the box between them."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import time

import pytest

from firmware.netns import call_in_namespace
from firmware.qemu import TAPS
from tests.support.machine import Box
from tests.support.office import BOX, POOL, ROUTER, ROUTER6, VLAN_ADDRESSES, WEB_NAME, Office
from tests.support.packets import UDP, ipv4, udp
from tests.support.wait import check_until, patience_s

PAGE = "はじめまして\n"
LARGE_BYTES = 100_000_000

LLDP, LLDP_MULTICAST = 0x88CC, bytes.fromhex("0180c200000e")  # IEEE 802.1AB: a bridge that takes part would keep it
PPPOE_DISCOVERY = 0x8863  # RFC 2516
IPV4 = 0x0800
ANY_MULTICAST = bytes.fromhex("01005e7f0001")  # 239.255.0.1 (RFC 1112)


def udp_packet(payload: bytes) -> bytes:
    """An IPv4 packet to 239.255.0.1 with its header's checksum; of UDP the checksum may be left out (RFC 768)."""
    packet = bytearray(ipv4(udp(payload, ports=(40000, 40000)), UDP, ends=(bytes((10, 77, 0, 99)), bytes((239, 255, 0, 1)))))
    packet[10:12] = (-int.from_bytes(packet[:20], "big") % 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


@pytest.fixture(scope="module")
def page(office: Office) -> str:
    (office.web / "index.html").write_text(PAGE)
    return PAGE


@pytest.fixture(scope="module")
def leased(box: Box, office: Office) -> str:
    return office.lease()


def test_a_computer_gets_its_address_through_the_box(leased: str) -> None:
    first, last = (int(address.rpartition(".")[2]) for address in POOL)
    assert leased.rpartition(".")[0] == ROUTER.rpartition(".")[0]
    assert first <= int(leased.rpartition(".")[2]) <= last


def test_a_page_is_fetched_over_ipv4(office: Office, leased: str, page: str) -> None:
    assert _fetch(office, f"http://{ROUTER}/") == page
    resolve = f"{WEB_NAME}:80:{ROUTER}"
    assert _fetch(office, f"http://{WEB_NAME}/", "--resolve", resolve) == page
    assert any(line.startswith(leased) for line in (office.folder / "access.log").read_text().splitlines())


def test_a_page_is_fetched_over_ipv6(office: Office, box: Box, page: str) -> None:
    check_until("the computer has an IPv6 address", lambda: office.address("-6"), within_s=60)
    assert _fetch(office, f"http://[{ROUTER6}]/") == page


def test_a_large_file_arrives_intact(office: Office, leased: str) -> None:
    content = os.urandom(1_000_000) * (LARGE_BYTES // 1_000_000)
    (office.web / "large").write_bytes(content)
    target = office.folder / "fetched"
    _fetch(office, f"http://{ROUTER}/large", "--output", str(target), within_s=120)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
    target.unlink()
    (office.web / "large").unlink()


def test_tagged_frames_pass_with_their_tag(office: Office, box: Box, page: str) -> None:
    with office.vlan():
        assert _fetch(office, f"http://{VLAN_ADDRESSES['wan']}/") == page


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        pytest.param(LLDP, LLDP_MULTICAST, id="LLDP, which is for the nearest bridge"),
        pytest.param(PPPOE_DISCOVERY, b"\xff" * 6, id="PPPoE discovery"),
        pytest.param(IPV4, ANY_MULTICAST, id="multicast that nobody asked for"),
    ],
)
@pytest.mark.parametrize(("sender", "receiver"), [("lan", "wan"), ("wan", "lan")])
def test_frames_that_a_router_would_keep_pass(
    office: Office, box: Box, kind: int, target: bytes, sender: str, receiver: str
) -> None:
    namespaces = {"wan": office.wan, "lan": office.lan}
    # What calls itself IPv4 and is none is dropped where the bridge hands its packets to the IP hooks (br_validate_ipv4).
    content = udp_packet(os.urandom(64)) if kind == IPV4 else os.urandom(64)
    frame = target + bytes.fromhex("024d00000099") + struct.pack("!H", kind) + content
    incoming = call_in_namespace(namespaces[receiver], lambda: _open(receiver, kind))
    outgoing = call_in_namespace(namespaces[sender], lambda: _open(sender, kind))
    with incoming, outgoing:
        deadline = time.monotonic() + patience_s(10)
        received = []
        while frame not in received and time.monotonic() < deadline:
            outgoing.send(frame)
            with_timeout = _receive(incoming)
            received += [with_timeout] if with_timeout else []
    assert frame in received


def test_the_box_itself_answers_on_the_bridge(office: Office, leased: str) -> None:
    answer = office.at_lan("ping", "-c", "1", "-W", "5", BOX, explain="reach the box from the office").stdout
    assert "1 received" in answer


def _fetch(office: Office, url: str, *options: str, within_s: float = 30) -> str:
    curl = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", str(int(patience_s(within_s)))]
    return office.at_lan(*curl, *options, url, explain=f"fetch {url}", within_s=within_s + 5).stdout


def _open(port: str, kind: int) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    packets.bind((TAPS[port], kind))
    packets.settimeout(0.5)
    return packets


def _receive(packets: socket.socket) -> bytes | None:
    try:
        return packets.recv(2048)
    except TimeoutError:
        return None
