"""Headers as the RFCs draw them, and what is no packet."""

import struct

import pytest

from mamori.inspect.packet import MAX_EXTENSION_HEADERS, Packet, PacketError, parse_packet
from tests.support.packets import (
    CLIENT,
    CLIENT6,
    ICMP,
    ICMPV6,
    SERVER,
    SERVER6,
    TCP,
    UDP,
    extension,
    fragment_header,
    icmp,
    ipv4,
    ipv6,
    tcp,
    udp,
)

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT_HEADER, DESTINATION = 0, 43, 44, 51, 59, 60
SEGMENT = tcp(b"hello", sequence=0xFFFFFFFE, acknowledgement=7, flags=0x1B8, window=513, urgent=3, options=bytes(12))


def test_a_tcp_segment_over_ipv4_is_read_field_by_field() -> None:
    packet = parse_packet(ipv4(SEGMENT))
    assert packet == Packet(
        *(4, CLIENT, SERVER, TCP, 20, 52, packet.payload, 0, None, 40000, 80),
        *(0xFFFFFFFE, 7, 0x1B8, 513, 3, -1, -1),
    )
    assert bytes(packet.payload) == b"hello"


def test_a_tcp_segment_over_ipv6_is_read_field_by_field() -> None:
    packet = parse_packet(ipv6(SEGMENT))
    assert packet == Packet(
        *(6, CLIENT6, SERVER6, TCP, 40, 72, packet.payload, 0, None, 40000, 80),
        *(0xFFFFFFFE, 7, 0x1B8, 513, 3, -1, -1),
    )
    assert bytes(packet.payload) == b"hello"


def test_the_payload_is_a_view_of_what_was_given() -> None:
    data = bytearray(ipv4(udp(b"ping"), UDP))
    packet = parse_packet(memoryview(data))
    data[packet.payload_start : packet.payload_start + 4] = b"pong"
    assert bytes(packet.payload) == b"pong"


def test_ipv4_options_are_stepped_over() -> None:
    packet = parse_packet(ipv4(udp(b"x"), UDP, options=b"\x94\x04\0\0" * 10))
    assert (packet.transport_start, packet.payload_start, bytes(packet.payload)) == (60, 68, b"x")
    assert (packet.source_port, packet.destination_port) == (5353, 53)


@pytest.mark.parametrize("make", [ipv4, ipv6])
@pytest.mark.parametrize(("protocol", "body"), [(TCP, tcp(b"x")), (UDP, udp(b"x")), (ICMP, icmp(3, 1, payload=b"x")), (89, b"x")])
def test_padding_of_the_link_is_not_payload(make: object, protocol: int, body: bytes) -> None:
    assert callable(make)
    packet = parse_packet(make(body, protocol) + b"\xaa" * 18)
    assert (bytes(packet.payload), packet.missing_bytes) == (b"x", 0)


def test_bytes_after_the_udp_length_are_not_payload() -> None:
    assert bytes(parse_packet(ipv4(udp(b"payload", length=11) + b"more", UDP)).payload) == b"pay"


SUPER_PACKETS = {
    "IPv4 of zero length": ipv4(tcp(bytes(70_000)), length=0),
    "IPv6 of zero length": ipv6(tcp(bytes(70_000)), length=0),
    "IPv6 with a jumbo option": ipv6(extension(TCP, b"\xc2\x04" + struct.pack("!I", 70_028)) + tcp(bytes(70_000)), 0, length=0),
    "UDP of zero length": ipv4(udp(bytes(70_000), length=0), UDP, length=0),
}


@pytest.mark.parametrize("data", SUPER_PACKETS.values(), ids=SUPER_PACKETS)
def test_a_super_packet_above_64_kib_is_read_to_its_end(data: bytes) -> None:
    packet = parse_packet(data)
    assert (len(packet.payload), packet.missing_bytes) == (70_000, 0)


def test_an_ipv6_packet_of_zero_length_is_only_padding() -> None:
    assert bytes(parse_packet(ipv6(b"", NO_NEXT_HEADER) + bytes(6)).payload) == b""


def test_what_the_capture_cut_off_is_counted() -> None:
    whole = ipv4(tcp(bytes(1000)))
    assert (parse_packet(whole).missing_bytes, parse_packet(whole[:-300]).missing_bytes) == (0, 300)
    assert len(parse_packet(whole[:-300]).payload) == 700
    assert parse_packet(ipv6(udp(bytes(1000)), UDP)[:-300]).missing_bytes == 300


CHAINS = {
    "none": (UDP, b""),
    "hop-by-hop": (HOP_BY_HOP, extension(UDP)),
    "each kind of options": (HOP_BY_HOP, extension(ROUTING) + extension(DESTINATION, bytes(22)) + extension(UDP)),
    "the same one many times": (DESTINATION, extension(DESTINATION) * (MAX_EXTENSION_HEADERS - 1) + extension(UDP)),
    "authentication, which counts in words": (AUTHENTICATION, bytes([UDP, 4]) + bytes(22)),
    "a fragment that is the whole": (FRAGMENT, fragment_header(UDP)),
    "options after such a fragment": (FRAGMENT, fragment_header(DESTINATION) + extension(UDP)),
}


@pytest.mark.parametrize(("first", "chain"), CHAINS.values(), ids=CHAINS)
def test_extension_headers_are_walked(first: int, chain: bytes) -> None:
    packet = parse_packet(ipv6(chain + udp(b"x"), first))
    assert (packet.protocol, packet.transport_start, packet.source_port) == (UDP, 40 + len(chain), 5353)
    assert (bytes(packet.payload), packet.fragment) == (b"x", None)


@pytest.mark.parametrize("protocol", [50, NO_NEXT_HEADER, 4, 47, 253])
def test_the_walk_ends_at_what_is_no_extension_header(protocol: int) -> None:
    packet = parse_packet(ipv6(extension(protocol) + b"\0" * 20, DESTINATION))
    assert (packet.protocol, packet.payload_start, len(packet.payload)) == (protocol, 48, 20)


def test_an_ipv4_fragment_says_where_it_belongs_and_has_no_ports() -> None:
    packet = parse_packet(ipv4(tcp(b"x" * 4), options=bytes(4), offset=1480, more=True, identification=77))
    assert packet.fragment is not None
    assert (packet.fragment.identification, packet.fragment.offset, packet.fragment.more) == (77, 1480, True)
    assert (packet.protocol, packet.source_port, packet.payload_start, len(packet.payload)) == (TCP, 0, 24, 24)


def test_the_first_and_the_last_ipv4_fragment_are_fragments_too() -> None:
    first, last = parse_packet(ipv4(tcp(), more=True)), parse_packet(ipv4(tcp(), offset=8))
    assert first.fragment is not None
    assert last.fragment is not None
    assert [(part.offset, part.more) for part in (first.fragment, last.fragment)] == [(0, True), (8, False)]


def test_an_ipv6_fragment_says_where_its_own_header_is() -> None:
    data = ipv6(extension(ROUTING) + extension(FRAGMENT) + fragment_header(UDP, 1448, identification=9) + b"middle..", 0)
    part = parse_packet(data).fragment
    assert part is not None
    assert (part.identification, part.offset, part.more, part.header_end, part.protocol_at) == (9, 1448, False, 56, 48)
    assert data[part.protocol_at] == FRAGMENT
    assert bytes(parse_packet(data).payload) == b"middle.."
    assert parse_packet(data).protocol == UDP


ECHOES = {"IPv4": (ipv4, ICMP, 8, 0), "IPv6": (ipv6, ICMPV6, 128, 129)}


@pytest.mark.parametrize(("make", "protocol", "request_", "reply"), ECHOES.values(), ids=ECHOES)
def test_an_echo_and_its_reply_share_their_identifier_as_ports(make: object, protocol: int, request_: int, reply: int) -> None:
    assert callable(make)
    for kind in (request_, reply):
        packet = parse_packet(make(icmp(kind, 0, b"\x12\x34\0\x01", b"data"), protocol))
        assert (packet.icmp_type, packet.icmp_code, packet.source_port, packet.destination_port) == (kind, 0, 0x1234, 0x1234)
        assert bytes(packet.payload) == b"data"


def test_an_icmp_error_has_no_ports() -> None:
    packet = parse_packet(ipv4(icmp(3, 4, b"\x12\x34\x05\xdc", ipv4(udp())), ICMP))
    assert (packet.icmp_type, packet.icmp_code, packet.source_port) == (3, 4, 0)


LONG_CHAIN = extension(DESTINATION) * MAX_EXTENSION_HEADERS
NO_PACKETS = {
    "nothing": (b"", "an empty packet"),
    "version 5": (b"\x55" + bytes(50), "IP version 5"),
    "an IPv4 header cut short": (ipv4(b"")[:19], "IPv4 header is cut short"),
    "an IPv4 header of 16 bytes": (b"\x44" + ipv4(tcp())[1:], "contradict"),
    "IPv4 options beyond the data": (b"\x4f" + ipv4(b"")[1:], "contradict"),
    "a total length inside the header": (ipv4(tcp(), length=19), "contradict"),
    "an IPv6 header cut short": (ipv6(b"")[:39], "IPv6 header is cut short"),
    "an extension header cut short": (ipv6(b"\0", DESTINATION), "extension header is cut short"),
    "an extension header beyond the packet": (ipv6(b"\x11\x02" + bytes(14), DESTINATION), "longer than its packet"),
    "an extension header in the padding": (ipv6(extension(UDP) + udp(), DESTINATION, length=0), "extension header is cut short"),
    "a fragment header cut short": (ipv6(fragment_header(UDP)[:7], FRAGMENT), "fragment header is cut short"),
    "too many extension headers": (ipv6(LONG_CHAIN + extension(UDP) + udp(), DESTINATION), "more than 16"),
    "a TCP header cut short": (ipv4(tcp()[:19]), "TCP header is cut short"),
    "a TCP header of 16 bytes": (ipv4(tcp()[:12] + b"\x40" + tcp()[13:]), "TCP header's length"),
    "TCP options beyond the data": (ipv4(tcp()[:12] + b"\x60" + tcp()[13:]), "TCP header's length"),
    "a UDP header cut short": (ipv4(udp()[:7], UDP), "UDP header is cut short"),
    "a UDP length below 8": (ipv4(udp(length=7), UDP), "UDP length"),
    "a UDP length beyond the packet": (ipv4(udp(length=9), UDP), "UDP length"),
    "an ICMP header cut short": (ipv6(icmp(1, 0)[:7], ICMPV6), "ICMP header is cut short"),
}


@pytest.mark.parametrize(("data", "message"), NO_PACKETS.values(), ids=NO_PACKETS)
def test_what_is_no_packet_says_why(data: bytes, message: str) -> None:
    with pytest.raises(PacketError, match=message):
        parse_packet(data)


@pytest.mark.parametrize("whole", [ipv4(SEGMENT), ipv6(extension(UDP) + udp(b"x" * 9), DESTINATION)], ids=["TCP", "UDP"])
def test_a_packet_cut_anywhere_is_short_of_bytes_or_no_packet(whole: bytes) -> None:
    for length in range(len(whole)):
        try:
            packet = parse_packet(whole[:length])
        except PacketError:
            continue
        assert packet.missing_bytes == len(whole) - length
