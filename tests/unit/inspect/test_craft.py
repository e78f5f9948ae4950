"""Packets made from packets, held against what their receivers check."""

from __future__ import annotations

import pytest

from mamori.inspect.craft import (
    CraftError,
    Segment,
    SynOptions,
    craft,
    normalise,
    overwrite,
    parse_syn_options,
    refuse_dns,
    trim,
)
from mamori.inspect.findings import Coding
from mamori.inspect.packet import ACK, FIN, PSH, RST, SYN, URG, parse_packet
from tests.support.crafted import SUPER, check_crafted
from tests.support.packets import UDP, extension, fragment_header, ipv4, ipv6, tcp, udp

TIMES = bytes.fromhex("080a0000000100000002")
SACK = bytes.fromhex("050a0000000500000009")
OPTIONS = b"\1\1" + TIMES + b"\1\1" + SACK
SEGMENT = tcp(b"hello world", sequence=1000, acknowledgement=2000, flags=0x1D8, urgent=4, options=OPTIONS)
PACKETS = {
    "IPv4": ipv4(SEGMENT),
    "IPv4 with options": ipv4(SEGMENT, options=bytes.fromhex("94040000")),
    "IPv6": ipv6(SEGMENT),
    "IPv6 with extensions": ipv6(extension(60) + extension(6) + SEGMENT, 0),
    "padded": ipv4(SEGMENT) + bytes(6),
}
EACH = pytest.mark.parametrize("data", PACKETS.values(), ids=PACKETS.keys())


@EACH
@pytest.mark.parametrize("payload", [b"", b"x", b"hello", b"y" * 1400], ids=len)
def test_another_segment_takes_the_place_of_the_old_one(data: bytes, payload: bytes) -> None:
    old = parse_packet(data)
    made = craft(data, old, 0, Segment(0x1_0000_0005, 7, ACK | PSH | FIN, payload, window=77))
    new = check_crafted(made)
    assert (new.sequence, new.acknowledgement, new.window, new.urgent) == (5, 7, 77, 0)
    assert new.flags == 0x1C0 | ACK | PSH | FIN, "URG is gone, what is ECN's stays"
    assert bytes(new.payload) == payload
    assert (new.source, new.destination, new.source_port, new.destination_port) == (
        old.source,
        old.destination,
        old.source_port,
        old.destination_port,
    )
    assert made[new.transport_start + 20 : new.payload_start] == b"\1\1" + TIMES + b"\1" * 12, "timestamps and nothing else"


@EACH
def test_a_window_that_is_not_given_stays(data: bytes) -> None:
    old = parse_packet(data)
    assert check_crafted(craft(data, old, 0, Segment(1, 2, RST))).window == old.window


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (bytes.fromhex("0101080b00000001000000020000"), b"\1" * 16),
        (b"\x1e\x04\1\2" + b"\1\1" + TIMES, b"\1" * 6 + TIMES),
        (b"\5\0" + TIMES, b"\1" * 12),
        (b"\0\0" + TIMES, b"\1" * 12),
        (b"\1\1\1\x08", b"\1\1\1\1"),
        (b"\1\1" + TIMES + b"\5\x40\1\1", b"\1\1" + TIMES + b"\1" * 4),
    ],
    ids=["timestamps of another length", "MPTCP", "length 0", "after the end", "cut short", "longer than there is"],
)
def test_options_that_are_no_timestamps_become_padding(options: bytes, kept: bytes) -> None:
    options += b"\1" * (-len(options) % 4)
    data = ipv4(tcp(b"", options=options))
    made = craft(data, parse_packet(data), 0, Segment(1, 2, ACK))
    assert made[40:] == kept.ljust(len(options), b"\1")


def test_a_super_packet_keeps_its_length_and_the_checksum_that_it_came_with() -> None:
    data = bytearray(ipv4(tcp(b"x" * 4000)))
    data[36:38] = b"\xbe\xef"
    old = parse_packet(bytes(data))
    made = craft(bytes(data), old, SUPER, Segment(5, 6, RST, bytes(4000)))
    assert check_crafted(made, SUPER).flags == RST
    assert made[36:38] == b"\xbe\xef"
    for payload in (b"", bytes(3999), bytes(4001)):
        with pytest.raises(CraftError, match="another length"):
            craft(bytes(data), old, SUPER, Segment(5, 6, RST, payload))
    with pytest.raises(CraftError, match="another length"):
        trim(bytes(data), old, SUPER, 1)


def test_a_super_packet_that_the_queue_cut_short_becomes_as_long_as_what_is_there() -> None:
    data = ipv4(tcp(b"x" * 4000))[:3000]
    packet = parse_packet(data)
    assert len(check_crafted(craft(data, packet, SUPER, Segment(5, 6, ACK, bytes(2960))), SUPER).payload) == 2960
    check_crafted(overwrite(data, packet, SUPER, 0, [(0, 10, Coding.BINARY)]), SUPER)
    with pytest.raises(CraftError, match="in part"):
        overwrite(data, packet, 0, 0, [])
    finished = ipv4(tcp(b"x" * 4000, flags=FIN | ACK))[:3000]
    with pytest.raises(CraftError, match="in part"):
        overwrite(finished, parse_packet(finished), SUPER, 0, [])


@pytest.mark.parametrize(
    "data",
    [
        ipv4(udp(b"payload"), UDP),
        ipv4(b"middle..", offset=64, more=True),
        ipv6(fragment_header(6) + tcp(b"x"), 44),
        ipv6(extension(6, bytes.fromhex("c20400011170")) + tcp(b"x"), 0, length=0),
    ],
    ids=["UDP", "a fragment", "an atomic fragment", "a jumbogram"],
)
def test_what_cannot_be_a_segment_is_the_one_error(data: bytes) -> None:
    packet = parse_packet(data)
    with pytest.raises(CraftError):
        craft(data, packet, 0, Segment(1, 2, ACK))
    with pytest.raises(CraftError):
        normalise(data, packet, 0)


def test_more_than_a_packet_holds_is_the_one_error() -> None:
    for data in (ipv4(tcp()), ipv6(tcp())):
        with pytest.raises(CraftError):
            craft(data, parse_packet(data), 0, Segment(1, 2, ACK, bytes(65_536)))


@EACH
def test_a_trimmed_segment_begins_where_its_number_says(data: bytes) -> None:
    packet = parse_packet(data)
    new = check_crafted(trim(data, packet, 0, 2, 3))
    assert (new.sequence, bytes(new.payload), new.flags) == (1002, b"llo wo", 0x1D8 | URG & packet.flags)
    assert check_crafted(trim(data, packet, 0, 0, 11, flags=ACK)).flags == 0x1C0 | ACK
    for front, back in ((-1, 0), (0, 12), (6, 6)):
        with pytest.raises(CraftError):
            trim(data, packet, 0, front, back)


@EACH
def test_a_normalised_packet_is_the_same_without_urgency(data: bytes) -> None:
    urgent = bytearray(data)
    urgent[parse_packet(data).transport_start + 13] |= URG
    packet = parse_packet(bytes(urgent))
    new = check_crafted(normalise(bytes(urgent), packet, 0))
    assert (new.flags, new.urgent, bytes(new.payload)) == (packet.flags & ~URG, 0, b"hello world")


@EACH
@pytest.mark.parametrize("cut", range(12))
def test_a_stream_is_overwritten_alike_wherever_it_is_cut(data: bytes, cut: int) -> None:
    packet = parse_packet(data)
    ranges = [(102, 105, Coding.BINARY), (106, 108, Coding.BASE64), (0, 90, Coding.BINARY), (111, 999, Coding.TEXT)]
    whole = check_crafted(overwrite(data, packet, 0, 100, ranges))
    assert bytes(whole.payload) == b"heXXX AArld"
    front, back = trim(data, packet, 0, 0, 11 - cut), trim(data, packet, 0, cut)
    got = [
        bytes(check_crafted(overwrite(part, parse_packet(part), 0, offset, ranges)).payload)
        for part, offset in ((front, 100), (back, 100 + cut))
    ]
    assert b"".join(got) == bytes(whole.payload)


def test_what_cannot_be_overwritten_is_the_one_error_and_only_where_it_is() -> None:
    data = PACKETS["IPv4"]
    packet = parse_packet(data)
    check_crafted(overwrite(data, packet, 0, 100, [(0, 100, Coding.COMPRESSED), (111, 200, Coding.COMPRESSED)]))
    with pytest.raises(CraftError, match="not to be written over"):
        overwrite(data, packet, 0, 100, [(110, 111, Coding.COMPRESSED)])


@pytest.mark.parametrize(
    ("options", "flags", "said"),
    [
        ("020405b4 0402 080a0000000100000000 01 030307", SYN, SynOptions(1460, 7)),
        ("020405b4", SYN | ACK, SynOptions(1460, None)),
        ("020405b4", ACK, SynOptions(None, None)),
        ("020405b4 02040218", SYN, SynOptions(1460, None)),
        ("020305 030401ff 020405b4 01", SYN, SynOptions(1460, None)),
        ("0200 020405b4 0101", SYN, SynOptions(None, None)),
        ("00 020405b4 010101", SYN, SynOptions(None, None)),
        ("", SYN, SynOptions(None, None)),
    ],
    ids=["Linux", "a SYN-ACK", "no SYN", "twice", "wrong lengths", "length 0", "after the end", "none"],
)
def test_the_options_of_a_syn_are_read(options: str, flags: int, said: SynOptions) -> None:
    raw = bytes.fromhex(options)
    data = ipv6(tcp(flags=flags, options=raw + b"\1" * (-len(raw) % 4)))
    assert parse_syn_options(data, parse_packet(data)) == said


QUESTION = bytes.fromhex("03777777 076578616d706c65 00 0001 0001")
RESPONSE = bytes.fromhex("1234 85b0 0001 0001 0000 0001") + QUESTION + bytes.fromhex("c00c00010001000000010004c0000201") + bytes(11)


@pytest.mark.parametrize("data", [ipv4(udp(RESPONSE), UDP), ipv6(udp(RESPONSE), UDP)], ids=["IPv4", "IPv6"])
def test_a_dns_response_becomes_nxdomain_with_its_question(data: bytes) -> None:
    if data[0] >> 4 == 4:
        data = data[:26] + b"\x11\x11" + data[28:]  # its sender made a checksum
    packet = parse_packet(data)
    new = check_crafted(refuse_dns(data, packet, 0))
    wanted = bytes.fromhex("1234 8193 0001 0000 0000 0000") + QUESTION
    assert bytes(new.payload) == wanted
    same = check_crafted(refuse_dns(data, packet, 0, is_length_fixed=True))
    assert bytes(same.payload) == wanted.ljust(len(RESPONSE), b"\0")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        RESPONSE[:11],
        RESPONSE[: 12 + len(QUESTION) - 1],
        RESPONSE[:2] + b"\x01" + RESPONSE[3:],
        RESPONSE[:4] + b"\0\2" + RESPONSE[6:],
        RESPONSE[:12] + b"\xc0\x0c" + RESPONSE[12:],
        RESPONSE[:12] + (b"\x3f" + b"a" * 63) * 5 + RESPONSE[12:],
    ],
    ids=["empty", "half a header", "half a question", "a query", "two questions", "a pointer", "a name that is too long"],
)
def test_what_is_no_response_to_one_question_is_the_one_error(message: bytes) -> None:
    data = ipv4(udp(message), UDP)
    with pytest.raises(CraftError):
        refuse_dns(data, parse_packet(data), 0)
    with pytest.raises(CraftError):
        refuse_dns(PACKETS["IPv4"], parse_packet(PACKETS["IPv4"]), 0)
