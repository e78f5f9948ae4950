"""Any bytes are a packet that lies within them, or the one error; fragments of any kind stay within their bounds."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.fragments import MAX_BYTES, MAX_DATAGRAMS, TIMEOUT_S, Discarded, FragmentEvent, FragmentTable, Reassembled
from mamori.inspect.packet import Packet, PacketError, parse_packet
from tests.support.packets import UDP, extension, fragment_header, icmp, ipv4, ipv6, seeded, tcp, udp

PACKETS = [
    ipv4(tcp(b"payload", options=bytes(12)), options=bytes(8)),
    ipv4(udp(b"payload"), UDP),
    ipv4(icmp(8, 0, payload=b"ping"), 1),
    ipv4(b"middle..", offset=64, more=True),
    ipv6(extension(43) + extension(44) + fragment_header(51, 8, more=True) + b"middle..", 0),
    ipv6(extension(60) + fragment_header(51) + bytes([17, 4]) + bytes(22) + udp(b"payload"), 0),
]


def check_packet(data: bytes) -> Packet | None:
    try:
        packet = parse_packet(data)
    except PacketError:
        return None
    end = packet.payload_start + len(packet.payload)
    assert 20 <= packet.transport_start <= packet.payload_start <= end <= len(data)
    assert packet.payload == data[packet.payload_start : end]
    assert len(packet.source) == len(packet.destination) == (4 if packet.version == 4 else 16)
    assert 0 <= packet.missing_bytes <= 0xFFFF
    if packet.fragment:
        assert 20 <= packet.fragment.header_end <= packet.payload_start
        assert packet.fragment.protocol_at < packet.fragment.header_end
    return packet


@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_or_the_one_error(data: bytes) -> None:
    check_packet(data)
    assert check_packet(b"\x00" + data) is None


@given(st.sampled_from(PACKETS), st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=4), st.integers(0, 120))
def test_a_packet_with_any_bytes_changed_is_a_packet_or_the_one_error(
    whole: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    assert check_packet(whole)
    check_packet(bytes(data[:length]))


FRAGMENTS = st.builds(
    lambda version, number, offset, size, more, fill: (
        ipv4(bytes([fill]) * size, 253, identification=number, offset=offset * 8, more=more)
        if version == 4
        else ipv6(fragment_header(253, offset * 8, more=more, identification=number) + bytes([fill]) * size, 44)
    ),
    *(st.sampled_from([4, 6]), st.integers(0, 2), st.integers(0, 6) | st.sampled_from([0x1FFE, 0x1FFF])),
    *(st.integers(0, 6).map(lambda units: units * 8) | st.integers(0, 30), st.booleans(), st.integers(0, 1)),
)


@given(st.lists(st.tuples(FRAGMENTS, st.sampled_from([0.0, 0.0, 0.1, TIMEOUT_S])), max_size=40))
def test_every_fragment_is_answered_for_exactly_once(arrivals: list[tuple[bytes, float]]) -> None:
    table, now = FragmentTable(), 0.0
    events: list[FragmentEvent] = []
    for token, (data, pause) in enumerate(arrivals):
        packet = parse_packet(data)
        now += pause
        if packet.fragment:
            events += table.receive(data, packet, now, token)
        else:
            events.append(Reassembled(data, (token,)))
    events += table.expire(now + TIMEOUT_S)
    assert sorted(token for event in events for token in event.tokens) == list(range(len(arrivals)))
    assert (len(table), table.used_bytes) == (0, 0)
    for event in events:
        if isinstance(event, Reassembled):
            assert parse_packet(event.data).fragment is None


@given(st.binary(min_size=17, max_size=400), st.sampled_from([4, 6]), st.data())
def test_fragments_cut_anywhere_and_repeated_are_the_datagram(body: bytes, version: int, data: st.DataObject) -> None:
    places = range(8, len(body), 8)
    cuts = [0, *sorted(data.draw(st.sets(st.sampled_from(places), min_size=1))), len(body)]
    parts = [
        ipv4(body[low:high], 253, offset=low, more=high < len(body))
        if version == 4
        else ipv6(fragment_header(253, low, more=high < len(body)) + body[low:high], 44)
        for low, high in itertools.pairwise(cuts)
    ]
    order = data.draw(st.permutations(parts))
    repeated = data.draw(st.lists(st.sampled_from(order[:-1]), max_size=3))
    table = FragmentTable()
    events = [event for part in [*order[:-1], *repeated, order[-1]] for event in table.receive(part, parse_packet(part), 0.0)]
    *dropped, whole = events
    assert all(isinstance(event, Discarded) for event in dropped)
    assert len(dropped) == len(repeated)
    assert isinstance(whole, Reassembled)
    assert bytes(parse_packet(whole.data).payload) == body


def test_a_flood_of_random_fragments_stays_within_all_bounds() -> None:
    chance, table = seeded(5), FragmentTable()
    peak = 0
    for number in range(30_000):
        ends = struct.pack("!I", chance.randrange(40)), b"\x0a\0\0\1"
        place, size = 1440 * chance.randrange(1, 40), 8 * chance.randrange(1, 181)
        data = ipv4(bytes(size), UDP, ends=ends, offset=place, more=chance.random() < 0.98)
        table.receive(data, parse_packet(data), number * 1e-4, link=chance.randrange(20))
        peak = max(peak, table.used_bytes)
        assert table.used_bytes <= MAX_BYTES
        assert len(table) <= MAX_DATAGRAMS
    assert peak > MAX_BYTES // 2
