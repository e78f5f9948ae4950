"""Which names of terminals are heard, and which of them are news. The rule and the kernel: tests/net/test_terminal_names.py."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

import pytest

from mamori.inspect.hearing import AGAIN_EVERY_S, MAX_NAMES, MAX_TOLD, RENAME_EVERY_S, Names, read_name
from mamori.inspect.nflog import Copy, decode_log, encode_group
from mamori.inspect.nfqueue.netlink import Answered, MessageError
from mamori.inspect.terminals import TerminalName
from tests.support import packets
from tests.support.checkout import ROOT

FRAME_MAC = bytes.fromhex("02000000aabb")
TANAKA = TerminalName("tanaka-pc", "02:00:00:00:00:11", "192.0.2.17", "dhcp")
HOST, ALL = bytes([192, 0, 2, 77]), bytes([255] * 4)
LINK_LOCAL = bytes.fromhex("fe80000000000000000000fffe00aabb".rjust(32, "0"))


def vector(name: str) -> bytes:
    return bytes.fromhex((ROOT / f"tests/vectors/terminals/{name}.hex").read_text())


def sent(port: int, payload: bytes, sender: bytes = HOST) -> bytes:
    datagram = packets.udp(payload, ports=(port, port))
    if len(sender) == 4:
        return packets.ipv4(datagram, packets.UDP, ends=(sender, ALL))
    return packets.ipv6(datagram, packets.UDP, ends=(sender, bytes.fromhex("ff02" + "00" * 13 + "fb")))


def without_mac(dhcp: bytes, mac: bytes = bytes(6)) -> bytes:
    return dhcp[:28] + mac + dhcp[34:]


HEARD = {
    "a Request before there is an address": (
        sent(67, vector("udhcpc-request"), bytes(4)),
        TerminalName("tanaka-pc", "02:00:00:00:00:11", "192.0.2.60", "dhcp"),
    ),
    "a Discover": (sent(67, vector("udhcpc-discover"), bytes(4)), replace(TANAKA, address="")),
    "DHCP that says no MAC address": (
        sent(67, without_mac(vector("udhcpc-discover"))),
        TerminalName("tanaka-pc", "02:00:00:00:aa:bb", "192.0.2.77", "dhcp"),
    ),
    "DHCP that says a group's": (
        sent(67, without_mac(vector("udhcpc-discover"), b"\xff" * 6)),
        TerminalName("tanaka-pc", "02:00:00:00:aa:bb", "192.0.2.77", "dhcp"),
    ),
    "DHCPv6, from a link-local address": (
        sent(547, vector("dhclient-solicit6"), LINK_LOCAL),
        TerminalName("suzuki-pc", "02:00:00:00:aa:bb", "", "dhcp"),
    ),
    "NetBIOS": (sent(137, vector("nmbd-registration")), TerminalName("SATO-PC", "02:00:00:00:aa:bb", "192.0.2.17", "netbios")),
    "a DHCP server's answer": (sent(67, vector("dnsmasq-ack")), None),
    "DHCP at another port": (sent(68, vector("udhcpc-request")), None),
    "TCP": (packets.ipv4(packets.tcp(vector("udhcpc-request"), ports=(67, 67))), None),
    "a fragment": (packets.ipv4(packets.udp(vector("udhcpc-request"), ports=(68, 67)), packets.UDP, more=True), None),
    "half an IP header": (sent(67, vector("udhcpc-request"))[:15], None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("packet", "name"), HEARD.values(), ids=HEARD)
def test_a_packet_says_whose_name_it_is(packet: bytes, name: TerminalName | None) -> None:
    assert read_name(memoryview(packet), FRAME_MAC) == name


def test_a_name_of_nobody_is_not_told() -> None:
    names = Names()
    for mac in (b"", bytes(6), b"\x01\x00\x5e\0\0\xfb"):
        said = read_name(memoryview(sent(137, vector("nmbd-registration"))), mac)
        assert said is not None
        names.hear(said, 0.0)
    assert names.take(0.0) == []


def test_a_name_is_told_once_and_again_after_an_hour() -> None:
    names = Names()
    for now, told in ((0.0, [TANAKA]), (1.0, []), (AGAIN_EVERY_S - 1, []), (AGAIN_EVERY_S, [TANAKA]), (AGAIN_EVERY_S + 1, [])):
        names.hear(TANAKA, now)
        assert names.take(now) == told


def test_of_many_new_names_the_last_is_told_after_a_minute() -> None:
    names = Names()
    told = []
    for number in range(60_000):
        now = 100.0 + number / 1000
        names.hear(replace(TANAKA, name=f"name-{number}"), now)
        told += [name.name for name in names.take(now)]
    assert told == ["name-0"]
    assert [name.name for name in names.take(100.0 + RENAME_EVERY_S)] == ["name-59999"]
    assert names.take(100.0 + 3 * RENAME_EVERY_S) == []


def test_a_name_that_comes_back_before_the_new_one_was_told_is_no_news() -> None:
    names = Names()
    names.hear(TANAKA, 0.0)
    assert names.take(0.0) == [TANAKA]
    names.hear(replace(TANAKA, name="other"), 1.0)
    names.hear(TANAKA, 2.0)
    assert names.take(RENAME_EVERY_S + 2) == []


def test_each_source_has_a_name_of_its_own() -> None:
    names = Names()
    other = replace(TANAKA, name="Tanakas-MacBook", source="mdns")
    names.hear(TANAKA, 0.0)
    names.hear(other, 0.0)
    assert names.take(0.0) == [TANAKA, other]


def test_forged_addresses_are_told_few_at_a_time_and_forgotten() -> None:
    names = Names()

    def hear(numbers: Iterable[int], now: float) -> None:
        for number in numbers:
            names.hear(replace(TANAKA, mac=f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"), now)

    hear(range(3 * MAX_NAMES), 0.0)
    looks = [len(names.take(1.0)) for _ in range(200)]
    assert max(looks) == MAX_TOLD
    assert sum(looks) == MAX_NAMES
    hear([0], 2.0)
    assert len(names.take(2.0)) == 1, "the first one was forgotten, and is news again"


# --- the log group's messages, laid out by hand from the kernel's headers (little-endian machines, as all of ours are) ---------

BIND = """
    28000000 0104 0500 07000000 00000000  # 40 bytes, NFULNL_MSG_CONFIG, REQUEST|ACK, sequence 7
    00 00 0102  # family, version, group 258
    0500 0100  01 000000  # NFULA_CFG_CMD: BIND, padded
    0a00 0200  00000800 02 00 0000  # NFULA_CFG_MODE: 2048 bytes, COPY_PACKET, padding
"""

PACKET = """
    44000000 0004 0000 00000000 00000000  # 68 bytes, NFULNL_MSG_PACKET
    02 00 0007  # AF_INET, group 7
    0800 0100  0800 00 00  # NFULA_PACKET_HDR: IPv4, PREROUTING
    0800 0600  00000004  # NFULA_IFINDEX_PHYSINDEV
    1000 0800  0006 0000 0242ac110002 0000  # NFULA_HWADDR: 6 bytes
    0700 0900  450000 00  # NFULA_PAYLOAD, padded
    0500 0a00  00 000000  # NFULA_PREFIX: empty
"""

DONE = "14000000 0300 0000 00000000 00000000 00000000"
REFUSED = "24000000 0200 0000 07000000 00000000  f0ffffff  28000000 0104 0500 07000000 00000000"


def raw(text: str) -> bytes:
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def test_the_group_is_asked_for_as_the_kernel_wants_it() -> None:
    assert encode_group(258, sequence=7) == raw(BIND)


def test_a_batch_of_copies_is_read() -> None:
    copy = Copy(memoryview(b"\x45\0\0"), 4, bytes.fromhex("0242ac110002"))
    assert decode_log(raw(PACKET) * 2 + raw(DONE)) == [copy, copy]


def test_a_refusal_is_read() -> None:
    assert decode_log(raw(REFUSED)) == [Answered(7, 16)]


BAD = {
    "half a header": raw(PACKET)[:10],
    "a length beyond the datagram": b"\xff" + raw(PACKET)[1:],
    "a length of nothing": bytes(16),
    "no header of netfilter": struct.pack("=IHHII", 16, 0x400, 0, 0, 0),
    "an attribute beyond the message": raw(PACKET)[:20] + b"\xff" + raw(PACKET)[21:],
    "a port's number in two bytes": struct.pack("=IHHII", 28, 0x400, 0, 0, 0) + bytes(4) + struct.pack("=HHxxxx", 6, 6),
    "an answer without its question": struct.pack("=IHHIII", 20, 2, 0, 0, 0, 0),
}


@pytest.mark.parametrize("datagram", BAD.values(), ids=BAD)
def test_what_is_no_message_is_one_error(datagram: bytes) -> None:
    with pytest.raises(MessageError):
        decode_log(datagram)
