"""Reassembly of IPv4 and IPv6 fragments (RFC 791 3.2, RFC 8200 4.5) within bounds of number, bytes and time.

    for event in table.receive(data, packet, now, token=token):     # of a packet with packet.fragment
        match event:
            case Reassembled(data, tokens): ...     # a whole packet: parse_packet(data) reads it on
            case Discarded(tokens, reason): ...     # drop these

A fragment alone cannot be judged: ports are in the first one only, and what a receiver reads depends on all of them. So
the caller holds fragments back, each under a token of its choice, until an event names the token; no event is "held".
Every token is named exactly once. Forwarding all of Reassembled's tokens delivers exactly the bytes that were read.

Where receivers differ, the datagram is discarded rather than guessed at; since its fragments were held, no receiver reads
another version of it:

- overlap: all fragments, those yet to come included, as RFC 5722 3 and RFC 8200 4.5 demand for IPv6, and Linux does for both
  versions (the net tests show it). Only a fragment that says again, byte for byte, what is known is dropped alone (RFC 8200
  4.5 allows it for exact copies; Linux does so without comparing). Older systems prefer the first, the last or the longer copy.
- an end that moves, a middle part that is not a multiple of 8 bytes (Linux cuts it off for IPv4, refuses it for IPv6), a
  datagram above 65,535 bytes ("ping of death"), more fragments than MAX_FRAGMENTS.

Fragments of one datagram are those with equal addresses, identification and link (VLAN), for IPv4 also protocol. When the
table is full, the oldest datagram goes: real ones are complete within milliseconds, while Linux' way, refusing new ones,
lets a slow flood of halves stop them all for as long as the timeout.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from struct import pack_into
from typing import Final

from mamori.inspect.packet import Fragment, Packet

TIMEOUT_S = 30.0
"""From a datagram's first fragment. Linux' ipfrag_time; the RFCs' 60 s are for the paths of 1989. Being faster than the
receiver is safe, as what is discarded here was never forwarded."""

MAX_DATAGRAMS = 1024
"""Unfinished ones. A full-rate 700 Mbit/s of nothing but 4 KB datagrams begins 22 in a millisecond."""

MAX_DATAGRAMS_PER_SOURCE = 128
"""So that one host that sends halves leaves room for seven others."""

MAX_BYTES = 4 << 20
"""Linux' ipfrag_high_thresh: 64 datagrams of full length at once. Every fragment counts with FRAGMENT_COST_BYTES more."""

MAX_FRAGMENTS = 256
"""Of one datagram. 65,535 bytes over an MTU of 296, the smallest in use (RFC 1191 7.1), make 241."""

FRAGMENT_COST_BYTES = 160
"""What Python needs beside the bytes: the bytes object, two list slots, two integers."""

_MAX_LENGTH: Final = 0xFFFF
_IPV6_BYTES: Final = 40


class Reason(Enum):
    """Why fragments were discarded."""

    REPEATED = "a copy of what is known"
    OVERLAPPING = "fragments overlap"
    MALFORMED = "the lengths of the fragments contradict each other"
    TOO_MANY = "a limit on datagrams, bytes or fragments was reached"
    LATE = "the datagram was discarded before"
    EXPIRED = "not all fragments came in time"


@dataclass(frozen=True, slots=True)
class Reassembled:
    """`data` is the whole packet, without a fragment header; `tokens` are those of its fragments as they came."""

    data: bytes
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Discarded:
    """These fragments will be part of nothing."""

    tokens: tuple[int, ...]
    reason: Reason


FragmentEvent = Reassembled | Discarded

_Key = tuple[int, bytes, bytes, int, int]


class _Datagram:
    """The parts so far, in order and without overlap. Once it is discarded, what is left only catches late fragments."""

    __slots__ = ("cost", "deadline", "discarded", "end", "headers", "length", "parts", "source", "starts", "tokens")

    def __init__(self, source: bytes, deadline: float) -> None:
        self.source = source
        self.deadline = deadline
        self.discarded = False
        self.starts: list[int] = []
        self.parts: list[bytes] = []
        self.tokens: list[int] = []
        self.headers = b""
        self.end: int | None = None  # of the payload, once the last fragment is here
        self.length = 0
        self.cost = 0


class FragmentTable:
    """All unfinished datagrams."""

    __slots__ = ("_bytes", "_datagrams", "_per_source")

    def __init__(self) -> None:
        # In the order of their first fragments, which is that of their deadlines.
        self._datagrams: dict[_Key, _Datagram] = {}
        self._per_source: Counter[bytes] = Counter()
        self._bytes = 0

    @property
    def used_bytes(self) -> int:
        """What the fragments that are kept cost; at most MAX_BYTES."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._datagrams)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; None if nothing waits."""
        return next((datagram.deadline for datagram in self._datagrams.values()), None)

    def expire(self, now: float) -> list[FragmentEvent]:
        """The datagrams whose time is over."""
        events: list[FragmentEvent] = []
        while self._datagrams:
            key, datagram = next(iter(self._datagrams.items()))
            if datagram.deadline > now:
                break
            events += self._remove(key, Reason.EXPIRED)
        return events

    def receive(self, data: bytes | memoryview, packet: Packet, now: float, token: int = 0, link: int = 0) -> list[FragmentEvent]:
        """The fragment `packet` of which `data` are the bytes; `link` tells networks apart that may use the same addresses."""
        part = packet.fragment
        if part is None:
            raise ValueError("not a fragment")
        protocol = packet.protocol if packet.version == 4 else -1
        key = (link, packet.source, packet.destination, part.identification, protocol)
        events = self.expire(now)
        datagram = self._datagrams.get(key)
        if datagram is None:
            events += self._make_room(packet.source)
            datagram = self._datagrams[key] = _Datagram(packet.source, now + TIMEOUT_S)
            self._per_source[packet.source] += 1
        if datagram.discarded:
            return [*events, Discarded((token,), Reason.LATE)]
        datagram.tokens.append(token)
        problem = _misfit(datagram, part, packet)
        if problem is Reason.REPEATED:
            datagram.tokens.pop()
            return [*events, Discarded((token,), problem)]
        if problem:
            return [*events, *self._discard(datagram, problem)]
        self._keep(datagram, part, packet, memoryview(data))
        if datagram.length == datagram.end and datagram.headers:
            events.append(Reassembled(_join(datagram, packet.version), tuple(datagram.tokens)))
            self._bytes -= self._forget(key).cost
            return events
        while self._bytes > MAX_BYTES:
            events += self._remove(next(iter(self._datagrams)), Reason.TOO_MANY)
        return events

    def _keep(self, datagram: _Datagram, part: Fragment, packet: Packet, data: memoryview) -> None:
        index = bisect_right(datagram.starts, part.offset)
        datagram.starts.insert(index, part.offset)
        datagram.parts.insert(index, bytes(packet.payload))
        datagram.length += len(packet.payload)
        if not part.more:
            datagram.end = part.offset + len(packet.payload)
        cost = len(packet.payload) + FRAGMENT_COST_BYTES
        if not part.offset:
            datagram.headers = _patch_headers(data, part, packet)
            cost += len(datagram.headers)
        datagram.cost += cost
        self._bytes += cost

    def _make_room(self, source: bytes) -> list[FragmentEvent]:
        if self._per_source[source] >= MAX_DATAGRAMS_PER_SOURCE:
            oldest = next(key for key, datagram in self._datagrams.items() if datagram.source == source)
            return self._remove(oldest, Reason.TOO_MANY)
        if len(self._datagrams) >= MAX_DATAGRAMS:
            return self._remove(next(iter(self._datagrams)), Reason.TOO_MANY)
        return []

    def _discard(self, datagram: _Datagram, reason: Reason) -> list[FragmentEvent]:
        """Drop the parts, but not the datagram: what is still to come belongs to it."""
        tokens = tuple(datagram.tokens)
        self._bytes -= datagram.cost
        datagram.discarded = True
        datagram.starts, datagram.parts, datagram.tokens, datagram.headers, datagram.cost = [], [], [], b"", 0
        return [Discarded(tokens, reason)] if tokens else []

    def _remove(self, key: _Key, reason: Reason) -> list[FragmentEvent]:
        return self._discard(self._forget(key), reason)

    def _forget(self, key: _Key) -> _Datagram:
        datagram = self._datagrams.pop(key)
        self._per_source[datagram.source] -= 1
        if not self._per_source[datagram.source]:
            del self._per_source[datagram.source]
        return datagram


def _misfit(datagram: _Datagram, part: Fragment, packet: Packet) -> Reason | None:
    """Why this part cannot be put to the others; None if it can."""
    starts = datagram.starts
    start, end = part.offset, part.offset + len(packet.payload)
    if packet.missing_bytes or start == end or (part.more and end % 8):
        return Reason.MALFORMED
    if part.header_end - (_IPV6_BYTES if packet.version == 6 else 0) + end > _MAX_LENGTH:
        return Reason.MALFORMED
    if datagram.end is not None and (end > datagram.end or (not part.more and end != datagram.end)):
        return Reason.MALFORMED
    if not part.more and starts and starts[-1] + len(datagram.parts[-1]) > end:
        return Reason.MALFORMED
    index = bisect_right(starts, start) - 1
    known = index >= 0 and starts[index] + len(datagram.parts[index]) > start
    if known or (index + 1 < len(starts) and starts[index + 1] < end):
        return Reason.REPEATED if known and _says_again(datagram, index, start, packet.payload) else Reason.OVERLAPPING
    return Reason.TOO_MANY if len(starts) >= MAX_FRAGMENTS else None


def _says_again(datagram: _Datagram, index: int, start: int, payload: memoryview) -> bool:
    """Whether the payload is, byte for byte, what is known from `start` on; a repetition may be cut in other places."""
    said = 0
    for known_start, known in zip(datagram.starts[index:], datagram.parts[index:], strict=True):
        offset = start + said - known_start
        if said == len(payload) or offset < 0:  # done, or a hole that this part would fill
            break
        again = payload[said : said + len(known) - offset]
        if known[offset : offset + len(again)] != again:
            return False
        said += len(again)
    return said == len(payload)


def _patch_headers(data: memoryview, part: Fragment, packet: Packet) -> bytes:
    """What stands before the payload in the first fragment, as it stands in a whole packet; the lengths come later."""
    headers = bytearray(data[: part.header_end])
    if packet.version == 6:
        headers[part.protocol_at] = packet.protocol
    else:
        headers[6:8] = headers[10:12] = b"\0\0"  # fragmentation, checksum
    return bytes(headers)


def _join(datagram: _Datagram, version: int) -> bytes:
    headers = bytearray(datagram.headers)
    if version == 6:
        pack_into("!H", headers, 4, len(headers) - _IPV6_BYTES + datagram.length)
    else:
        pack_into("!H", headers, 2, len(headers) + datagram.length)
        pack_into("!H", headers, 10, _checksum(headers))
    return b"".join((headers, *datagram.parts))


def _checksum(header: bytes | bytearray) -> int:
    """RFC 1071 by arithmetic: 65536 is 1 modulo 65535, so a number's remainder is the folded sum of its 16-bit words."""
    return -int.from_bytes(header, "big") % 0xFFFF
