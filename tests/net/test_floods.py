"""Floods and scans against a real bridge: they are limited, counted and noted, and everybody else goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from firmware.inspect_lab import ADDRESSES, Lab
from firmware.netns import call_in_namespace
from mamori.inspect.nfqueue.limits import (
    COUNTERS,
    ICMP_SOURCE,
    SCAN_PORTS,
    SWEEP_MACHINES,
    SYN_DESTINATION,
    SYN_SOURCE,
    TABLE,
    UDP_DESTINATION,
    UDP_SOURCE,
    Noted,
    parse_counters,
    parse_noted,
    render_limits,
)
from mamori.inspect.policy import Mode
from tests.net.nfqueue_lab import FAMILIES, FILE, OPEN, fetch, start_web_lab
from tests.support.packets import ICMP, TCP, UDP, icmp, ipv4, tcp, udp

ATTACKER, TARGET = "10.79.0.66", ADDRESSES["server"][0]
SYN, RST, ACK, FIN, PSH, URG = 0x02, 0x04, 0x10, 0x01, 0x08, 0x20
SEEN = """\
table inet seen {
  counter arrived { }
  chain prerouting { type filter hook prerouting priority raw; policy accept; }
}
flush chain inet seen prerouting
reset counters table inet seen
add rule inet seen prerouting ip saddr 10.79.0.64/26 counter name arrived
add rule inet seen prerouting ip saddr 172.16.0.0/12 counter name arrived
"""
"""At the server: what came of the attacker's packets."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_web_lab(tmp_path_factory.mktemp("web")) as lab:
        lab.load(OPEN)
        lab.at(lab.server, "ip", "address", "add", "10.79.0.3/24", "dev", "eth0", explain="give the server a second address")
        lab.at(lab.client, "ping", "-c1", "-W2", TARGET, explain="let both ends know where the other is")
        yield lab


@pytest.fixture
def limited(lab: Lab) -> Lab:
    """The limits as new: nothing is known of anybody."""
    lab.at(lab.box, "nft", "delete", "table", "inet", TABLE, explain="forget the limits", accept=(0, 1))
    load(lab, Mode.BLOCK)
    lab.at(lab.server, "nft", "-f", "-", input=SEEN, explain="count what arrives")
    return lab


def load(lab: Lab, mode: Mode, *allowed: str) -> None:
    lab.at(lab.box, "nft", "-f", "-", input=render_limits(mode, map(ip_network, allowed)), explain="load the limits")


def counted(lab: Lab) -> dict[str, int]:
    """Packets of the counters that counted any."""
    text = lab.at(lab.box, "nft", "-j", "list", "counters", "table", "inet", TABLE, explain="read the counters")
    counters = parse_counters(text)
    assert set(counters) == set(COUNTERS)
    return {name: counter.packets for name, counter in counters.items() if counter.packets}


def noted(lab: Lab, name: str) -> list[Noted]:
    return parse_noted(lab.at(lab.box, "nft", "-j", "list", "set", "inet", TABLE, name, explain="read who went too far"))


def arrived(lab: Lab) -> int:
    text = lab.at(lab.server, "nft", "-j", "list", "counters", "table", "inet", "seen", explain="count what arrived")
    return parse_counters(text)["arrived"].packets


def send(lab: Lab, packets: Iterable[bytes]) -> int:
    """Raw packets from the client's machine, with whatever source they name; how many there were."""
    sent = 0
    with call_in_namespace(lab.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as sender:
        for packet in packets:
            sender.sendto(packet, (str(ip_address(packet[16:20])), 0))
            sent += 1
    return sent


def packet(payload: bytes, protocol: int = TCP, source: str = ATTACKER, target: str = TARGET) -> bytes:
    return ipv4(payload, protocol, ends=(ip_address(source).packed, ip_address(target).packed))


def syn(source: str = ATTACKER, target: str = TARGET, source_port: int = 1, port: int = 80) -> bytes:
    return packet(tcp(ports=(source_port, port), flags=SYN), source=source, target=target)


def test_a_flood_of_syns_is_cut_to_its_limit_and_another_client_goes_on(limited: Lab) -> None:
    sent = send(limited, (syn(source_port=1 + number % 60_000) for number in range(20_000)))
    assert SYN_SOURCE.burst <= arrived(limited) < SYN_SOURCE.burst + 10 * SYN_SOURCE.rate
    assert counted(limited) == {"syn_flood": sent - arrived(limited)}
    assert noted(limited, "flooding4") == [Noted(ip_address(ATTACKER), "tcp")]
    assert fetch(limited, "file") == FILE


def test_a_flood_from_forged_sources_is_cut_to_the_targets_limit_and_other_targets_go_on(limited: Lab) -> None:
    """More sources than can be remembered."""
    sources = (f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(100_000))
    sent = send(limited, (syn(source) for source in sources))
    got = arrived(limited)
    assert SYN_DESTINATION.burst <= got < SYN_DESTINATION.burst + 20 * SYN_DESTINATION.rate
    assert counted(limited) == {"syn_flood": sent - got}
    assert len(noted(limited, "flooding4")) <= 1024
    client = call_in_namespace(limited.client, lambda: socket.create_connection(("10.79.0.3", 80), 5))
    client.close()


def test_a_flood_of_datagrams_that_nobody_answers_is_cut_and_an_answered_one_is_not(limited: Lab) -> None:
    sent = send(limited, (packet(udp(b"x", ports=(1 + number % 60_000, 9)), UDP) for number in range(20_000)))
    assert UDP_SOURCE.burst <= arrived(limited) < UDP_SOURCE.burst + 10 * UDP_SOURCE.rate
    assert counted(limited) == {"udp_flood": sent - arrived(limited)}
    assert noted(limited, "flooding4") == [Noted(ip_address(ATTACKER), "udp")]
    server = call_in_namespace(limited.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = call_in_namespace(limited.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server, client:
        server.bind((TARGET, 9999))
        server.settimeout(5)
        client.settimeout(5)
        client.connect((TARGET, 9999))
        client.send(b"question")
        _, peer = server.recvfrom(100)
        for number in range(20_000):
            server.sendto(number.to_bytes(4, "big"), peer)
            assert client.recv(10) == number.to_bytes(4, "big")
    assert counted(limited) == {"udp_flood": sent - arrived(limited)}


def test_datagrams_from_forged_sources_are_cut_to_the_targets_limit(limited: Lab) -> None:
    sources = (f"172.16.{number // 256}.{number % 256}" for number in range(40_000))
    sent = send(limited, (packet(udp(b"x", ports=(5, 9)), UDP, source) for source in sources))
    got = arrived(limited)
    assert UDP_DESTINATION.burst <= got < UDP_DESTINATION.burst + 1.5 * UDP_DESTINATION.rate
    assert counted(limited) == {"udp_flood": sent - got}


def test_a_flood_of_pings_is_cut(limited: Lab) -> None:
    sent = send(limited, (packet(icmp(8, 0, payload=b"x"), ICMP) for _ in range(10_000)))
    assert ICMP_SOURCE.burst <= arrived(limited) < ICMP_SOURCE.burst + 10 * ICMP_SOURCE.rate
    assert counted(limited) == {"icmp_flood": sent - arrived(limited)}


def test_a_port_scan_sees_few_ports_and_its_other_connections_go_on(limited: Lab) -> None:
    send(limited, (syn(port=port) for port in range(1, 1024)))
    assert SCAN_PORTS.burst <= arrived(limited) <= SCAN_PORTS.burst + 2
    assert counted(limited) == {"port_scan": 1023 - arrived(limited)}
    assert noted(limited, "scanning4") == [Noted(ip_address(ATTACKER), "")]
    before = arrived(limited)
    send(limited, (syn(port=port, source_port=2) for port in range(1, SCAN_PORTS.burst)))
    assert arrived(limited) == before + SCAN_PORTS.burst - 1, "those that it knows"


@pytest.mark.parametrize("allowed", [(ATTACKER,), (f"{TARGET}/32", "10.79.0.3", "2001:db8::/32")], ids=["scanner", "target"])
def test_the_scanner_that_the_owner_allows_sees_every_port(limited: Lab, allowed: tuple[str, ...]) -> None:
    load(limited, Mode.BLOCK, *allowed)
    send(limited, (syn(port=port) for port in range(1, 1024)))
    assert (arrived(limited), counted(limited)) == (1023, {})
    load(limited, Mode.BLOCK)
    send(limited, (syn(port=port, source_port=2) for port in range(1, 1024)))
    assert arrived(limited) <= 1023 + SCAN_PORTS.burst + 2


def test_passive_ftp_and_a_browser_are_no_scan(limited: Lab) -> None:
    send(limited, (syn(port=port) for port in range(1024, 2024)))
    send(limited, (syn(source_port=number, port=443) for number in range(1, 500)))
    assert (arrived(limited), counted(limited)) == (1499, {})


def test_a_sweep_is_cut_though_its_syns_alone_would_be_no_flood(limited: Lab) -> None:
    """The client's machine sends nothing to machines that are not there, so these are many ports of one, and high ones."""
    send(limited, (syn(port=1024 + number) for number in range(SWEEP_MACHINES.burst)))
    time.sleep(2)
    before, again = arrived(limited), 2 * SYN_SOURCE.rate - 200
    send(limited, (syn(port=10_000 + number) for number in range(again)))
    assert arrived(limited) - before < again - 300
    assert counted(limited) == {"sweep": SWEEP_MACHINES.burst + again - arrived(limited)}
    assert noted(limited, "scanning4") == [Noted(ip_address(ATTACKER), "")]


@pytest.mark.parametrize(
    "bad",
    [
        packet(tcp(flags=0)),
        packet(tcp(flags=FIN)),
        packet(tcp(flags=FIN | PSH | URG)),
        packet(tcp(flags=SYN | FIN)),
        packet(tcp(flags=SYN | FIN | ACK)),
        packet(tcp(flags=SYN | RST)),
        packet(tcp(ports=(0, 80), flags=SYN)),
        packet(tcp(ports=(5, 0), flags=ACK)),
        packet(udp(b"x", ports=(5, 0)), UDP),
        packet(tcp(flags=ACK), source="127.0.0.1"),
        packet(udp(b"x"), UDP, source="224.0.0.5"),
    ],
    ids=["null", "FIN", "Xmas", "SYN FIN", "SYN FIN ACK", "SYN RST", "from port 0", "to port 0", "UDP", "loopback", "from a group"],
)
def test_a_malformed_packet_is_dropped_and_counted(limited: Lab, bad: bytes) -> None:
    send(limited, [bad])
    assert (counted(limited), arrived(limited)) == ({"malformed": 1}, 0)


@pytest.mark.parametrize(
    "flags", [SYN, SYN | ACK, ACK, ACK | PSH | FIN, RST, RST | ACK, FIN | PSH | URG | ACK, SYN | 0xC0, SYN | URG]
)
def test_what_a_real_system_may_send_is_not_malformed(limited: Lab, flags: int) -> None:
    send(limited, [packet(tcp(flags=flags))])
    assert (counted(limited), arrived(limited)) == ({}, 1)


def test_log_counts_and_lets_pass_and_off_does_not_even_count(limited: Lab) -> None:
    load(limited, Mode.LOG)
    send(limited, (syn(source_port=1 + number) for number in range(SYN_SOURCE.burst + 3000)))
    assert arrived(limited) == SYN_SOURCE.burst + 3000
    logged = counted(limited)["syn_flood"]
    assert logged > 0
    load(limited, Mode.OFF)
    send(limited, [packet(tcp(flags=0))])
    assert counted(limited) == {"syn_flood": logged}, "what was counted stays"


@FAMILIES
def test_a_client_that_does_nothing_wrong_does_not_notice_the_limits(limited: Lab, family: int) -> None:
    for _ in range(50):
        assert fetch(limited, "allowed", family) == b"allowed"
    assert fetch(limited, "file", family) == FILE
    assert counted(limited) == {}
