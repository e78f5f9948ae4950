"""What computers call themselves, through the whole application: a real DHCP client, server and mDNS responder's packet."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest

from firmware.inspect_lab import ADDRESSES, Lab
from firmware.netns import call_in_namespace
from firmware.process import run, start
from mamori.formats.problems import MamoriError
from mamori.inspect.hearing import EACH_BURST, GROUP
from mamori.inspect.nflog import LogGroup
from tests.support import packets
from tests.support.checkout import ROOT
from tests.support.guarded import Guarded, start_guarded
from tests.support.need import need
from tests.support.wait import check_until, patience_s

GIVEN = "10.79.0.60"
SITE = '[block]\nnames = ["bad.example"]\n'


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    for tool in ("dnsmasq", "udhcpc"):
        need(tool, "gives addresses, and asks for one")
    with start_guarded(tmp_path_factory.mktemp("names"), policy=SITE, name="names") as box:
        yield box


def mac_of(lab: Lab, namespace: str) -> str:
    return lab.at(namespace, "cat", "/sys/class/net/eth0/address", explain="ask").strip()


@contextlib.contextmanager
def dhcp_server(lab: Lab, folder: Path) -> Iterator[None]:
    argv = ["ip", "netns", "exec", lab.server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"]
    argv += [f"--pid-file={folder}/pid", f"--dhcp-leasefile={folder}/leases", "--interface=eth0", "--bind-interfaces"]
    argv += [f"--dhcp-range={GIVEN},{GIVEN},255.255.255.0,5m", "--dhcp-authoritative", "--no-ping", "--user=root"]
    with start(argv, explain="give addresses", log=folder / "log") as server:
        check_until("dnsmasq runs", lambda: server.check() or (folder / "pid").exists(), within_s=10)
        yield


def announcement(name: str, address: str) -> bytes:
    """What a computer says of its name over mDNS when it comes (RFC 6762, 8.3)."""
    message = dns.message.Message(id=0)
    message.flags = dns.flags.QR | dns.flags.AA
    called = dns.name.Name([name.encode(), b"local", b""])
    message.answer.append(dns.rrset.from_text(called, 120, "IN", "AAAA" if ":" in address else "A", address))
    return message.to_wire()


def say_over_mdns(lab: Lab, name: str) -> None:
    address = ADDRESSES["client"][0]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            sender.bind((address, 5353))
            sender.sendto(announcement(name, address), ("224.0.0.251", 5353))

    call_in_namespace(lab.client, send)


def visit(box: Guarded) -> None:
    """An event about the computer: a DNS question for a name that the policy blocks."""
    question = dns.message.make_query("www.bad.example", "A").to_wire()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(question, (ADDRESSES["server"][0], 53))

    call_in_namespace(box.lab.client, send)


def names(box: Guarded) -> set[str]:
    return {event["terminal_name"] for event in box.events("--search", "bad.example")}


def test_a_computer_is_called_what_it_told_over_mdns_then_over_dhcp(box: Guarded, tmp_path: Path) -> None:
    visit(box)
    check_until("the event is there", lambda: names(box) == {""}, within_s=10)
    say_over_mdns(box.lab, "suzuki-macbook")
    check_until("the event has the name", lambda: names(box) == {"suzuki-macbook"}, within_s=10)
    with dhcp_server(box.lab, tmp_path):
        argv = ["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", "/bin/true", "-x", "hostname:tanaka-pc"]
        said = run(["ip", "netns", "exec", box.lab.client, *argv], explain="ask for an address", timeout_s=patience_s(20))
        assert GIVEN in said.stderr + said.stdout
    check_until("the event has the better name", lambda: names(box) == {"tanaka-pc"}, within_s=10)
    assert "tanaka-pc" in box.mamori("events", "--terminal", mac_of(box.lab, box.lab.client))
    assert box.events("--terminal", "TANAKA-PC")
    assert "dangerous-site" in box.mamori("statistics", "--terminal", "tanaka-pc")
    say_over_mdns(box.lab, "suzuki-macbook-2")
    assert names(box) == {"tanaka-pc"}


def question(box: Guarded, number: int, name: str) -> bytes:
    """A frame to the server with a DNS question; an event, if the policy blocks the name."""
    target = bytes.fromhex(mac_of(box.lab, box.lab.server).replace(":", ""))
    return target + frame(number, 53, dns.message.make_query(name, "A").to_wire(), target=ADDRESSES["server"][0])[6:]


def frame(number: int, port: int, payload: bytes, *, version: int = 4, tag: int = 0, target: str = "10.79.0.255") -> bytes:
    """From a computer with this number, to all."""
    datagram = packets.udp(payload, ports=(port, port))
    if version == 4:
        ends = IPv4Address(f"10.79.0.{number}").packed, IPv4Address(target).packed
        kind, packet = 0x0800, packets.ipv4(datagram, packets.UDP, ends=ends)
        packet = packet[:10] + struct.pack(">H", header_checksum(packet[:20])) + packet[12:]
    else:
        ends = IPv6Address(f"fd79::{number:x}").packed, IPv6Address("ff02::fb").packed
        kind, packet = 0x86DD, packets.ipv6(datagram, packets.UDP, ends=ends)
    tagged = struct.pack(">HH", 0x8100, tag) if tag else b""
    return b"\xff" * 6 + computer(number) + tagged + struct.pack(">H", kind) + packet


def computer(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0x79, number])


def header_checksum(header: bytes) -> int:
    """RFC 791, 3.1; the bridge drops a packet without it."""
    total = sum(struct.unpack(">10H", header))
    return ~(total + (total >> 16)) & 0xFFFF


def send_frames(namespace: str, frames: Sequence[bytes]) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            for each in frames:
                sender.send(each)

    call_in_namespace(namespace, send)


def known(box: Guarded) -> dict[str, str]:
    """What the writer calls each computer, by MAC address."""
    with contextlib.closing(sqlite3.connect(f"file:{box.device.events_database}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT mac, name FROM terminals"))


def name_of(box: Guarded, number: int) -> str | None:
    return known(box).get(computer(number).hex(":"))


def vector(name: str) -> bytes:
    return bytes.fromhex((ROOT / f"tests/vectors/terminals/{name}.hex").read_text())


OTHERS = {
    "a Samba server's NetBIOS": (frame(101, 137, vector("nmbd-registration")), "SATO-PC"),
    "DHCPv6": (frame(102, 547, vector("dhclient-solicit6"), version=6), "suzuki-pc"),
    "mDNS over IPv6": (frame(103, 5353, announcement("ito-pc", "fd79::67"), version=6), "ito-pc"),
    "mDNS in a VLAN": (frame(104, 5353, announcement("vlan-pc", "10.79.0.104"), tag=5), "vlan-pc"),
    "an escape sequence": (frame(105, 5353, announcement("\x1b[2jpc", "10.79.0.105")), "\x1b[2jpc"),
    "a right-to-left mark": (frame(106, 5353, announcement("\u202egnp.exe", "10.79.0.106")), "\u202egnp.exe"),
}


def test_names_come_by_every_way_and_from_any_computer(box: Guarded) -> None:
    send_frames(box.lab.client, [sent for sent, _ in OTHERS.values()])
    wanted = {case: name for case, (_, name) in OTHERS.items()}

    def heard() -> dict[str, str | None]:
        return {case: name_of(box, 101 + at) for at, case in enumerate(OTHERS)}

    with contextlib.suppress(AssertionError):
        check_until("the writer knows all of them", lambda: heard() == wanted, within_s=10)
    assert heard() == wanted


def test_what_is_said_outside_is_no_name_of_a_computer_of_the_office(box: Guarded) -> None:
    send_frames(box.lab.server, [frame(111, 5353, announcement("outside-pc", "10.79.0.111"))])
    send_frames(box.lab.client, [frame(112, 5353, announcement("inside-pc", "10.79.0.112"))])
    check_until("the one inside is known", lambda: name_of(box, 112) == "inside-pc", within_s=10)
    assert name_of(box, 111) is None


def test_a_computer_that_renames_itself_a_thousand_times_keeps_one_name_and_silences_nobody(box: Guarded) -> None:
    flood = [frame(121, 5353, announcement(f"name-{number}", "10.79.0.121")) for number in range(1000)]
    send_frames(box.lab.client, [*flood, frame(122, 5353, announcement("quiet-pc", "10.79.0.122"))])
    check_until("the quiet one is known", lambda: name_of(box, 122) == "quiet-pc", within_s=10)
    name = name_of(box, 121) or ""
    assert 0 <= int(name.removeprefix("name-")) <= EACH_BURST
    send_frames(box.lab.client, [frame(121, 5353, announcement("name-1000", "10.79.0.121"))])
    send_frames(box.lab.client, [frame(123, 5353, announcement("another-pc", "10.79.0.123"))])
    check_until("another one is known", lambda: name_of(box, 123) == "another-pc", within_s=10)
    assert name_of(box, 121) == name


def test_two_computers_with_one_name_are_both_found_by_it(box: Guarded) -> None:
    send_frames(box.lab.client, [frame(number, 5353, announcement("twin", f"10.79.0.{number}")) for number in (131, 132)])
    check_until("both are known", lambda: name_of(box, 131) == name_of(box, 132) == "twin", within_s=10)
    for number in (131, 132):
        send_frames(box.lab.client, [question(box, number, f"twin{number}.bad.example")])
    check_until("both asked", lambda: len(box.events("--terminal", "twin")) == 2, within_s=10)
    assert {event["subject"] for event in box.events("--terminal", "Twin")} == {"twin131.bad.example", "twin132.bad.example"}


def test_a_name_with_an_escape_sequence_is_shown_escaped(box: Guarded) -> None:
    send_frames(box.lab.client, [question(box, 105, "escape.bad.example")])
    check_until("it asked", lambda: box.events("--search", "escape.bad"), within_s=10)
    text = box.mamori("events", "--search", "escape.bad")
    assert "\\x1b[2jpc" in text
    assert "\x1b" not in text + box.mamori("events", "--json", "--search", "escape.bad")


def test_nobody_else_can_have_the_group(box: Guarded) -> None:
    with pytest.raises(MamoriError, match="nobody else may have the group"):
        call_in_namespace(box.lab.box, lambda: LogGroup(GROUP))
    group = call_in_namespace(box.lab.box, lambda: LogGroup(GROUP + 1))
    assert group.receive() == []
    group.close()
