"""Names from packets of real programs (tests/vectors/terminals: BusyBox 1.35 udhcpc, ISC dhclient 4.4, dnsmasq 2.9, Samba 4.17
nmbd, Avahi 0.8, recorded on a veth pair), and from what others would send."""

from __future__ import annotations

import struct
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from mamori.inspect.terminals import (
    MAX_NAME_CHARACTERS,
    TerminalName,
    names_from_dhcp,
    names_from_dhcp6,
    names_from_mdns,
    names_from_netbios,
)

VECTORS = Path(__file__).parents[2] / "vectors/terminals"
MAC = "02:00:00:00:00:11"


def real(name: str) -> bytes:
    return bytes.fromhex((VECTORS / f"{name}.hex").read_text())


def dhcp(*options: tuple[int, bytes], kind: int = 3, ciaddr: bytes = bytes(4), sname: bytes = b"", file: bytes = b"") -> bytes:
    """A client's message, RFC 2131 section 2."""
    head = struct.pack(">BBBBIHH4s12s16s64s128s", 1, 1, 6, 0, 1, 0, 0, ciaddr, b"", bytes.fromhex("020000000011"), sname, file)
    return (
        head
        + b"\x63\x82\x53\x63"
        + b"".join(bytes([code, len(text)]) + text for code, text in ((53, bytes([kind])), *options))
        + b"\xff"
    )


REAL = {
    "a Discover, whose address is only a wish": (names_from_dhcp, "udhcpc-discover", TerminalName("tanaka-pc", MAC, "", "dhcp")),
    "a Request": (names_from_dhcp, "udhcpc-request", TerminalName("tanaka-pc", MAC, "192.0.2.60", "dhcp")),
    "a Discover with a name in both options": (names_from_dhcp, "dhclient-discover", TerminalName("suzuki-pc", MAC, "", "dhcp")),
    "a server's answer": (names_from_dhcp, "dnsmasq-ack", None),
    "a Solicit": (names_from_dhcp6, "dhclient-solicit6", TerminalName("suzuki-pc", "", "", "dhcp")),
    "a registration": (names_from_netbios, "nmbd-registration", TerminalName("SATO-PC", "", "192.0.2.17", "netbios")),
    "a file server's": (names_from_netbios, "nmbd-registration-server", TerminalName("SATO-PC", "", "192.0.2.17", "netbios")),
    "a messenger's": (names_from_netbios, "nmbd-registration-messenger", None),
    "a workgroup's": (names_from_netbios, "nmbd-group", None),
    "an election's": (names_from_netbios, "nmbd-group-election", None),
}


@pytest.mark.parametrize(("read", "vector", "name"), REAL.values(), ids=REAL)
def test_a_real_program_says_its_name(read, vector: str, name: TerminalName | None) -> None:
    assert read(real(vector)) == name


@pytest.mark.parametrize(
    ("vector", "sender", "name"),
    [
        ("avahi-answer4", "192.0.2.17", "itou-mac"),
        ("avahi-answer6", "fe80::ff:fe00:11", "itou-mac"),
        ("avahi-answer4", "192.0.2.99", None),
        ("avahi-probe4", "192.0.2.17", None),
        ("avahi-answer4", "nobody", None),
    ],
)
def test_an_mdns_answer_names_the_one_that_it_comes_from(vector: str, sender: str, name: str | None) -> None:
    assert names_from_mdns(real(vector), sender) == (TerminalName(name, "", sender, "mdns") if name else None)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"pc", "pc"),
        (b"pc\0", "pc"),
        (b" pc \0\0", "pc"),
        ("経理パソコン".encode(), "経理パソコン"),
        ("経理パソコン".encode("cp932"), "経理パソコン"),
        (b"a\x81\xff", "a\ufffd\ufffd"),
        (b"a\x1b[31m", "a\x1b[31m"),
        (b"x" * 255, "x" * MAX_NAME_CHARACTERS),
        (b"", None),
        (b"\0pc", None),
        (b"localhost", None),
        (b"(none)", None),
    ],
)
def test_a_host_name_is_read_as_it_is_meant(raw: bytes, name: str | None) -> None:
    found = names_from_dhcp(dhcp((12, raw)))
    assert (found.name if found else None) == name


FQDN = {
    "as text": (b"\x01\0\0pc.example.com", "pc"),
    "in wire format": (b"\x05\0\0\x02pc\x07example\x03com\0", "pc"),
    "in wire format, a host name alone": (b"\x05\0\0\x02pc", "pc"),
    "in wire format, with a pointer": (b"\x05\0\0\xc0\x0c", None),
    "the root": (b"\x05\0\0\0", None),
    "flags alone": (b"\x05\0\0", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("option", "name"), FQDN.values(), ids=FQDN)
def test_a_full_name_gives_its_first_label(option: bytes, name: str | None) -> None:
    found = names_from_dhcp(dhcp((81, option)))
    assert (found.name if found else None) == name


def test_a_host_name_goes_before_a_full_name() -> None:
    found = names_from_dhcp(dhcp((81, b"\0\0\0long.example"), (12, b"short")))
    assert found is not None
    assert found.name == "short"


ADDRESSES = {
    "a Request for the first time": (dhcp((12, b"pc"), (50, b"\xc0\0\2\x11")), "192.0.2.17"),
    "a Request to renew": (dhcp((12, b"pc"), ciaddr=b"\xc0\0\2\x12"), "192.0.2.18"),
    "an Inform": (dhcp((12, b"pc"), kind=8, ciaddr=b"\xc0\0\2\x12"), "192.0.2.18"),
    "a Discover": (dhcp((12, b"pc"), (50, b"\xc0\0\2\x11"), kind=1), ""),
    "a Discover that says an address, which none should have": (dhcp((12, b"pc"), kind=1, ciaddr=b"\xc0\0\2\x12"), ""),
    "an option of another length": (dhcp((12, b"pc"), (50, b"\xc0\0\2")), ""),
}


@pytest.mark.parametrize(("payload", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_address_is_the_one_that_the_client_will_have(payload: bytes, address: str) -> None:
    assert names_from_dhcp(payload) == TerminalName("pc", MAC, address, "dhcp")


NO_NAMES = {
    "a Release": dhcp((12, b"pc"), kind=7),
    "a Decline": dhcp((12, b"pc"), kind=4),
    "two kinds": dhcp((12, b"pc"), (53, b"\x03")),
    "a reply": b"\x02" + dhcp((12, b"pc"))[1:],
    "a token ring": b"\x01\x06" + dhcp((12, b"pc"))[2:],
    "an InfiniBand address": b"\x01\x20\x00" + dhcp((12, b"pc"))[3:],
    "BOOTP without a cookie": dhcp((12, b"pc"))[:236] + bytes(64),
    "an option that runs past the end": dhcp()[:-1] + b"\x0c\x09pc",
    "a code without a length": dhcp()[:-1] + b"\x0c",
    "after the end": dhcp() + b"\x0c\x02pc",
}


@pytest.mark.parametrize("payload", NO_NAMES.values(), ids=NO_NAMES)
def test_what_is_no_clients_name_is_none(payload: bytes) -> None:
    assert names_from_dhcp(payload) is None


def test_long_options_are_joined_and_overloaded_fields_are_read() -> None:
    found = names_from_dhcp(dhcp((12, b"tana"), (12, b"ka")))
    assert found is not None
    assert found.name == "tanaka"
    for overload, field in ((1, "file"), (2, "sname"), (3, "file"), (3, "sname")):
        found = names_from_dhcp(dhcp((52, bytes([overload])), **{field: b"\x0c\x06tanaka\xff"}))  # type: ignore[arg-type]
        assert found is not None
        assert found.name == "tanaka"
    assert names_from_dhcp(dhcp((52, b"\1"), sname=b"\x0c\x06tanaka\xff")) is None


@pytest.mark.parametrize(
    "vector", ["udhcpc-request", "dhclient-discover", "dhclient-solicit6", "avahi-answer4", "nmbd-registration"]
)
def test_a_packet_that_is_cut_anywhere_is_a_name_or_none(vector: str) -> None:
    whole = real(vector)
    names = set()
    for length in range(len(whole)):
        cut = whole[:length]
        for found in (names_from_dhcp(cut), names_from_dhcp6(cut), names_from_mdns(cut, "192.0.2.17"), names_from_netbios(cut)):
            names.add(found.name if found else None)
    assert None in names
    assert names <= {None, "tanaka-pc", "suzuki-pc", "itou-mac", "SATO-PC"}


def mdns(name: str, address: str = "192.0.2.17") -> bytes:
    message = dns.message.Message(id=0)
    message.flags = 0x8400
    message.answer.append(dns.rrset.from_text(name, 120, "IN", "A", address))
    return message.to_wire()


@pytest.mark.parametrize(
    ("full", "name"),
    [
        ("Tanaka-no-MacBook.local.", "tanaka-no-macbook"),
        (r"\231\181\140\231\144\134.local.", "経理"),
        (r"tanaka\.pc.local.", "tanaka.pc"),
        (r"a\\b.local.", r"a\b"),
        ("pc.example.com.", None),
        ("a.b.local.", None),
        ("local.", None),
        (".", None),
        ("0dd2e4c7-3f4a-4b1e-9f3e-1f2d3c4b5a69.local.", None),
    ],
)
def test_a_name_of_mdns_is_one_label_below_local(full: str, name: str | None) -> None:
    found = names_from_mdns(mdns(full), "192.0.2.17")
    assert (found.name if found else None) == name


def test_a_name_that_a_proxy_tells_for_another_is_not_the_proxys() -> None:
    assert names_from_mdns(mdns("sleeper.local.", "192.0.2.44"), "192.0.2.17") is None


def test_dhcp6_of_relays_and_servers_names_nobody() -> None:
    solicit = real("dhclient-solicit6")
    for kind in (2, 7, 12, 13):
        assert names_from_dhcp6(bytes([kind]) + solicit[1:]) is None


@pytest.mark.parametrize(("opcode", "is_name"), [(5, True), (8, True), (9, True), (15, True), (6, False), (0, False)])
def test_a_netbios_name_is_registered_or_refreshed(opcode: int, is_name: bool) -> None:
    packet = bytearray(real("nmbd-registration"))
    packet[2] = packet[2] & 0x87 | opcode << 3
    assert (names_from_netbios(bytes(packet)) is not None) is is_name


def test_a_netbios_name_in_japanese_is_read() -> None:
    packet = bytearray(real("nmbd-registration"))
    raw = "経理PC".encode("cp932").ljust(15) + b"\0"
    packet[13:45] = bytes(letter for byte in raw for letter in (0x41 + (byte >> 4), 0x41 + (byte & 15)))
    found = names_from_netbios(bytes(packet))
    assert found is not None
    assert found.name == "経理PC"
