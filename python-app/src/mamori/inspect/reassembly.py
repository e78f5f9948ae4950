"""TCP reassembly: the segments of one direction in, its bytes in order and once out, at absolute stream offsets.

    events = stream.receive(packet.sequence, packet.payload, packet.flags, packet.urgent)
    events += peer_stream.acknowledge(packet.acknowledgement)       # if packet.flags & ACK

Offset 0 is the first byte after the SYN. A stream whose SYN was not seen is `picked_up`: 0 is then its first byte seen, or the
one that the peer waits for. Offsets never wrap; sequence numbers do (RFC 9293 3.4).

What a receiver may read, and when
----------------------------------
A bridge forwards while it reads. A receiving program gets byte N only when all bytes before N have come too, so:

    Data                    in order: forwarding this packet makes these bytes readable, and with them all Data events that
                            follow in the list (bytes which came early and may have been forwarded then). To stop or to
                            change what a stream says, hold *this* packet until the verdict
    Buffered                early, behind a hole: whether the packet is forwarded or held, nobody can read it until the hole
                            is filled, and a sender that is refused it sends it again. Forward it if the stream is only going to
                            be cut; hold or drop it if the bytes may have to be rewritten
    Retransmitted           seen before. If `unknown_bytes` is 0, the packet may go: what is acknowledged is not read again, the
                            rest is the same as the first time. Otherwise so many of its bytes may differ from the first copy,
                            because that was forgotten (limits below): drop it where a verdict hangs on it. A connection
                            stalls then only if the first copy was lost behind the box
    ConflictSeen            seen before, but different: no sender does this by accident, so it is a signal of evasion. The stream
                            keeps the first copy, which is what was forwarded. What the receiver reads if both reach it depends
                            on its system, so drop the packet, or write `first` over the range before it goes
    SynSeen                 a SYN with another number in a connection that is under way. Forward it: the receiver ignores it and
                            what it carries (RFC 5961 4), or has lost the connection and begins another, which `FlowTable`
                            recognises by the answer
    Refused                 not part of the stream as it is read here. Drop the packet; a sender in good faith sends again.
                            If it was forwarded all the same, the receiver's acknowledgement turns it into GapSeen
    GapSeen                 the receiver has acknowledged bytes that never came by here (they passed while the box failed
                            open). The stream goes on after them
    UrgentSeen              the byte at this offset is in the stream as read here and in what a program reads that asks for
                            SO_OOBINLINE; others miss exactly this one (RFC 6093 3.4). Clear URG and the pointer in the packet,
                            as normalisers do, and all read the same
    Restarted               another SYN took the place of the first before any was acknowledged: parsers start anew at offset 0. If
                            bytes were read before (they came with a SYN), the receiver may have taken those all the same
    Closed                  all bytes up to `at` are out, and FIN came; or a plausible RST. An RST ends nothing here, as it may
                            not reach or not convince the peer (RFC 5961 3.2): bytes that follow are read on

The policy has one name, *first copy wins*, also for bytes whose first copy the receiver dropped unread (a wrong checksum, a
small TTL, PAWS). Such a stream stalls if the caller drops conflicting copies; that is the attacker's loss.

An acknowledgement is believed: the caller sees to it that it is the receiver's own, and of what the sender is known to have said.

Not special: keep-alive probes repeat one byte that is acknowledged, or none; zero-window probes are a byte of data in
order, or one that is acknowledged; data in a SYN (RFC 7413) begins at offset 0, and if the server ignores it, its second copy
is compared like any other. After more than 2 GiB that passed unseen, sequence numbers are ambiguous and data looks old.

Memory: bytes are copied and kept until their acknowledgement, up to HISTORY_BYTES (then compared no more) and AHEAD_BYTES (then
refused), and within the budget that all streams share.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mamori.inspect.packet import FIN, RST, SYN, URG

AHEAD_BYTES = 4 << 20
"""How much may wait behind a hole, and how far ahead it may be. At 700 Mbit/s and 40 ms round trip, 3.5 MB arrive before a
lost segment does again; Linux' receive buffer grows to 6 MB (tcp_rmem), of which a part is window."""

HISTORY_BYTES = AHEAD_BYTES
"""How much that is out but not acknowledged is kept for comparison: all that may be in flight. The byte that a receiver lacks, and
an attacker would say differently the second time, is the *oldest* one: while it is missing, acknowledgements stand still and the
window fills up behind it. Otherwise acknowledgements keep this at what is between the box and the receiver, a few KB."""

BUDGET_BYTES = 48 << 20
"""For all streams of a process together, a third of the 150 MB that the app may use."""

SEGMENT_COST_BYTES = 112
"""What Python needs beside the bytes of a segment: bytes object (33), offset (32), two list slots with reserve (36), rounding."""

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
_UNUSUAL: Final = FIN | SYN | RST | URG


class Refusal(Enum):
    """Why a segment is not part of the stream."""

    TOO_FAR_AHEAD = "beyond AHEAD_BYTES"
    NO_ROOM = "AHEAD_BYTES or the budget is used up"
    BEYOND_THE_END = "after the FIN"
    OTHER_END = "a FIN in another place, or before bytes that came already"
    RESET_OUT_OF_WINDOW = "an RST that the peer would not believe"


@dataclass(frozen=True, slots=True)
class Data:
    """The bytes from `start` on, each of the stream exactly once and in order."""

    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Buffered:
    """These bytes wait for those before them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Retransmitted:
    """These bytes came before; `unknown_bytes` of them are neither acknowledged nor remembered."""

    start: int
    end: int
    unknown_bytes: int


@dataclass(frozen=True, slots=True)
class ConflictSeen:
    """These bytes came before and were different; `first` is what they were. The range begins and ends with a difference."""

    start: int
    end: int
    first: bytes


@dataclass(frozen=True, slots=True)
class GapSeen:
    """These bytes will not come: the receiver has them already."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UrgentSeen:
    """The byte at this offset is urgent; it may be yet to come."""

    at: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A segment of these bytes was left out."""

    start: int
    end: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class SynSeen:
    """A SYN that does not belong to this connection, and its number."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """Forget what was read: the connection begins with another SYN."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The sender is done after `at` bytes: by FIN, or by RST (then `reset`)."""

    at: int
    reset: bool


StreamEvent = Data | Buffered | Retransmitted | ConflictSeen | GapSeen | UrgentSeen | SynSeen | Refused | Restarted | Closed


class Budget:
    """Bytes that many streams share. Half of it is reserved for data behind holes: forgetting history costs certainty,
    refusing data costs throughput."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = BUDGET_BYTES) -> None:
        self.limit_bytes, self.used_bytes = limit_bytes, 0


class Stream:
    """One direction of a TCP connection.

    next          offset of the first byte that has not come in order
    acknowledged  offset up to which the receiver has confirmed; -1 before it has confirmed anything
    end           offset of the FIN, once it came
    picked_up     begun without a SYN; a SYN puts that right as long as nothing is confirmed
    closed        everything up to the FIN is out; `has_begun`: something came
    """

    __slots__ = (
        *("_ahead_cost", "_budget", "_cost", "_parts", "_sequence", "_starts"),
        *("acknowledged", "closed", "end", "next", "picked_up"),
    )

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        # The bytes that are remembered, in order and without overlap. First the history: out already, without a hole, and ending
        # at `next`. Then those ahead of a hole.
        self._starts: list[int] = []
        self._parts: list[bytes] = []
        self._cost = self._ahead_cost = 0
        self._sequence = -1  # on the wire, of the byte at `next`; -1 before anything came
        self.next = 0
        self.acknowledged = -1
        self.end: int | None = None
        self.picked_up = False
        self.closed = False

    def receive(self, sequence: int, payload: bytes | memoryview, flags: int = 0, urgent: int = 0) -> list[StreamEvent]:
        """One segment, with `sequence`, `flags` and `urgent` as on the wire."""
        if sequence != self._sequence or flags & _UNUSUAL or self._ahead_cost or self.end is not None:
            return self._receive_unusual(sequence, payload, flags, urgent)
        # The way of nearly every segment: the next bytes, nothing waiting, no flag that matters.
        if not payload:
            return []
        start, data = self.next, bytes(payload)
        self._advance(len(data))
        self._starts.append(start)
        self._parts.append(data)
        self._charge(len(data) + SEGMENT_COST_BYTES)
        return [Data(start, data)]

    def acknowledge(self, number: int) -> list[StreamEvent]:
        """The receiver has everything before this sequence number: of a packet of the other direction that has ACK set."""
        if self._sequence < 0:
            self._begin(number, picked_up=True)
            return []
        offset = self._offset(number)
        if self.acknowledged < 0 and not self.picked_up and not 0 <= offset <= self._highest():
            # The SYN that was seen is not the one that was answered. A later SYN may still say otherwise, for this may be the
            # answer of a peer that has not forgotten the connection before (RFC 9293 3.5.1).
            events: list[StreamEvent] = [Restarted()] if self.next else []
            self._begin(number, picked_up=True)
            return events
        if offset <= self.acknowledged:
            return []
        events = []
        limit = offset if self.end is None else min(offset, self.end)  # a FIN takes a number, but is no byte
        while self.next < limit:
            self._skip_hole(limit, events)
        self._close(events)
        self.acknowledged = limit
        self._forget_before(limit)
        return events

    @property
    def has_begun(self) -> bool:
        return self._sequence >= 0

    def offset_of(self, sequence: int) -> int:
        """The stream offset of the first payload byte of a segment with this number and without SYN, near what came last."""
        return self._offset(sequence) if self.has_begun else self.next

    def number_at(self, offset: int) -> int:
        """The sequence number on the wire of the byte at this offset; 0 before anything came."""
        return (self._sequence + offset - self.next) & _MASK if self.has_begun else 0

    def begins_after(self, sequence: int) -> bool:
        """Whether a SYN with this number is the stream's own."""
        return self._sequence == (sequence + 1 + self.next) & _MASK

    def release(self) -> None:
        """Forget all bytes, and give their share of the budget back."""
        self._budget.used_bytes -= self._cost
        self._starts, self._parts, self._cost, self._ahead_cost = [], [], 0, 0

    def _begin(self, sequence: int, *, picked_up: bool) -> None:
        self.release()
        self._sequence = sequence
        self.next, self.acknowledged, self.end = 0, -1, None
        self.picked_up, self.closed = picked_up, False

    def _offset(self, sequence: int) -> int:
        """The place in the stream that is nearest to `next` and has this number."""
        return self.next + ((sequence - self._sequence + _HALF) & _MASK) - _HALF

    def _advance(self, length: int) -> None:
        self.next += length
        self._sequence = (self._sequence + length) & _MASK

    def _highest(self) -> int:
        """The end of all that came, in numbers: a FIN counts."""
        if self.end is not None:
            return self.end + 1
        return max(self.next, self._starts[-1] + len(self._parts[-1])) if self._starts else self.next

    def _receive_unusual(self, sequence: int, payload: bytes | memoryview, flags: int, urgent: int) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if flags & SYN:
            if not self._synchronise(sequence, events):
                return [SynSeen(sequence)]
            sequence = (sequence + 1) & _MASK
        elif self._sequence < 0:
            self._begin(sequence, picked_up=True)
        start = self._offset(sequence)
        end = start + len(payload)
        if flags & RST:  # what it carries is text for people (RFC 9293 3.5.3)
            believed = self.acknowledged <= start <= self._highest()
            return [*events, Closed(self.next, True) if believed else Refused(start, start, Refusal.RESET_OUT_OF_WINDOW)]
        if flags & URG:
            # Linux takes 0 like 1, and takes the pointer from a segment without bytes, too.
            events.append(UrgentSeen(start + max(urgent - 1, 0)))
        if start == end and not flags & FIN:
            return events
        refusal = self._refuse(start, end, flags)
        if refusal:
            return [*events, Refused(start, end, refusal)]
        data, skipped = bytes(payload), max(0, self.next - start)
        if start < self.next and data:
            self._compare_history(start, data, events)
        if end > self.next and data:
            self._insert(start + skipped, data[skipped:], events)
            self._drain(events)
        if flags & FIN:
            self.end = end
        self._close(events)
        return events

    def _synchronise(self, sequence: int, events: list[StreamEvent]) -> bool:
        """Begin at a SYN; False if the connection is under way with another."""
        if self.begins_after(sequence) and not self.picked_up:
            return True
        if self.acknowledged >= 0:
            return False
        if self.next:
            events.append(Restarted())
        self._begin((sequence + 1) & _MASK, picked_up=False)
        return True

    def _refuse(self, start: int, end: int, flags: int) -> Refusal | None:
        if end - self.next > AHEAD_BYTES:
            return Refusal.TOO_FAR_AHEAD
        if self.end is not None and end > self.end:
            return Refusal.BEYOND_THE_END
        if flags & FIN and end < (self._highest() if self.end is None else self.end):
            return Refusal.OTHER_END
        cost = end - start + SEGMENT_COST_BYTES
        budget = self._budget
        if start > self.next and (self._ahead_cost + cost > AHEAD_BYTES or budget.used_bytes + cost > budget.limit_bytes):
            return Refusal.NO_ROOM
        return None

    def _compare_history(self, start: int, data: bytes, events: list[StreamEvent]) -> None:
        """Hold what begins before `next` against what is remembered of it."""
        starts, parts = self._starts, self._parts
        end = min(start + len(data), self.next)
        remembered = starts[0] if starts and starts[0] < self.next else self.next
        known = max(start, self.acknowledged) if self.acknowledged >= 0 else start
        events.append(Retransmitted(start, end, max(0, min(end, remembered) - known)))
        index = max(0, bisect_right(starts, known) - 1)
        while index < len(starts) and starts[index] < end:
            _compare(starts[index], parts[index], known, data[known - start :], events)
            index += 1

    def _insert(self, start: int, data: bytes, events: list[StreamEvent]) -> None:
        """Remember bytes from `next` on. Parts that lie in between become one part with the new bytes, so that crumbs do not
        add up; the parts at either end stay as they are."""
        starts, parts = self._starts, self._parts
        end = start + len(data)
        low, high = bisect_right(starts, start), bisect_left(starts, end)
        fresh_start, fresh_end = start, end
        if low and starts[low - 1] + len(parts[low - 1]) > start:
            fresh_start = starts[low - 1] + len(parts[low - 1])
            _compare(starts[low - 1], parts[low - 1], start, data, events)
        if high > low and starts[high - 1] + len(parts[high - 1]) > end:
            high -= 1
            fresh_end = starts[high]
            _compare(starts[high], parts[high], start, data, events)
        if fresh_start >= fresh_end:
            events.append(Retransmitted(start, end, 0))
            return
        fresh = data[fresh_start - start : fresh_end - start]
        cost = len(fresh) + SEGMENT_COST_BYTES
        if high > low:
            patched = bytearray(fresh)
            for known_start, known in zip(starts[low:high], parts[low:high], strict=True):
                _compare(known_start, known, start, data, events)
                patched[known_start - fresh_start : known_start - fresh_start + len(known)] = known
                cost -= len(known) + SEGMENT_COST_BYTES
            fresh = bytes(patched)
        starts[low:high], parts[low:high] = [fresh_start], [fresh]
        self._ahead_cost += cost
        self._charge(cost)
        if start > self.next:
            events.append(Buffered(fresh_start, fresh_end))

    def _drain(self, events: list[StreamEvent]) -> None:
        """What has no hole before it any more is out."""
        index = bisect_left(self._starts, self.next)
        while index < len(self._starts) and self._starts[index] == self.next:
            data = self._parts[index]
            events.append(Data(self.next, data))
            self._ahead_cost -= len(data) + SEGMENT_COST_BYTES
            self._advance(len(data))
            index += 1
        self._charge(0)

    def _skip_hole(self, limit: int, events: list[StreamEvent]) -> None:
        """Go on after the hole at `next`, at most up to `limit`."""
        index = bisect_left(self._starts, self.next)
        stop = min(self._starts[index], limit) if index < len(self._starts) else limit
        events.append(GapSeen(self.next, stop))
        self._forget(index)
        self._advance(stop - self.next)
        self._drain(events)

    def _close(self, events: list[StreamEvent]) -> None:
        if self.next == self.end and not self.closed:
            self.closed = True
            events.append(Closed(self.next, False))

    def _charge(self, cost: int) -> None:
        """Account for bytes that were added, and forget the oldest history that is too much."""
        budget = self._budget
        self._cost += cost
        budget.used_bytes += cost
        while self._cost - self._ahead_cost > HISTORY_BYTES or (
            budget.used_bytes * 2 > budget.limit_bytes and self._cost > self._ahead_cost
        ):
            self._forget(1)

    def _forget_before(self, offset: int) -> None:
        starts, parts, count = self._starts, self._parts, 0
        while count < len(starts) and starts[count] + len(parts[count]) <= offset:
            count += 1
        if count:
            self._forget(count)

    def _forget(self, count: int) -> None:
        """Let go of the first parts, which are history."""
        freed = sum(map(len, self._parts[:count])) + count * SEGMENT_COST_BYTES
        del self._starts[:count], self._parts[:count]
        self._cost -= freed
        self._budget.used_bytes -= freed


def _compare(known_start: int, known: bytes, start: int, data: bytes, events: list[StreamEvent]) -> None:
    """Report where two copies differ in what they share."""
    low, high = max(known_start, start), min(known_start + len(known), start + len(data))
    first, again = known[low - known_start : high - known_start], data[low - start : high - start]
    if first == again:
        return
    difference = int.from_bytes(first, "big") ^ int.from_bytes(again, "big")
    begin = high - (difference.bit_length() + 7) // 8
    end = high - ((difference & -difference).bit_length() - 1) // 8
    events.append(ConflictSeen(begin, end, first[begin - low : end - low]))
