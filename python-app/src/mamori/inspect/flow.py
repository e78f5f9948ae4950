"""Flows: the packets between two endpoints in both directions, what is known of them, and when they are over.

    flow, direction = table.receive(packet, now)        # direction: who sent it, ORIGINATOR or RESPONDER
    for ended in table.take_ended(): ...                # after each batch: flows that had to make room
    for ended in table.expire(now): ...                 # when next_deadline() has come

Fragments are reassembled before they get here. The originator is the sender of the first packet, unless that is the answer to a
SYN. An ICMP error is a flow of its own. When both ports are used again, the new flow begins with the *answer* to the SYN: a SYN
alone, and a FIN or RST before it, are easily forged so that the peer ignores them. Where the SYN was not seen, it begins with the
acknowledgement of the answer.

A flow's state is only about how long to remember it, and who goes first when the table is full. It trusts flags, because a
forged FIN or RST costs no more than that; whether an RST is believable and what was said is up to `Stream`. A TCP flow counts as
open when its originator has answered the answer, so neither a flood of SYNs with forged sources nor the victim's replies to it
look like people at work.

Memory: 0.5 KB per flow, 1.2 KB once both of its streams were used (CPython 3.11; a test measures), and what these remember, which
the table's budget bounds. An inspector bounds itself. `decide` lets go of it and of the streams.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from mamori.inspect.packet import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, Packet
from mamori.inspect.reassembly import BUDGET_BYTES, Budget, Stream

MAX_FLOWS = 65_536
"""Of one process: 100 PCs with 500 connections each, and a third more."""

SHARE = 16
"""A state's flows may be evicted for being of that state when they fill more than a sixteenth of the table. Without it, in a
table full of open flows, each new one would push out the one just before it. Some state always has that much: there are ten."""

ORIGINATOR: Final = 0
RESPONDER: Final = 1

Inspector = TypeVar("Inspector")
Verdict = TypeVar("Verdict")


class State(Enum):
    """How far a flow has come."""

    CLOSED = "both sides are done, or one has reset it"
    OPENING = "TCP that nobody has answered"
    ONE_WAY = "datagrams that nobody has answered"
    ICMP = "ICMP"
    ANSWERED = "TCP whose answer is not answered yet"
    ORIGINATOR_DONE = "TCP, the originator has sent FIN"
    RESPONDER_DONE = "TCP, the responder has sent FIN"
    OTHER = "another protocol"
    TWO_WAY = "datagrams in both directions"
    OPEN = "TCP"


class Signal(Enum):
    """What a packet means to its flow's state."""

    ORIGINATOR_SENT = "something from the originator"
    RESPONDER_SENT = "something from the responder"
    ORIGINATOR_FINISHED = "FIN of the originator"
    RESPONDER_FINISHED = "FIN of the responder"
    RESET = "RST of either"


TIMEOUTS_S: Final = MappingProxyType(
    {
        State.CLOSED: 10.0,  # late retransmissions; nf_conntrack_tcp_timeout_close
        State.OPENING: 60.0,  # outlasts the longest pause but one between Linux' SYNs, 32 s (tcp_syn_retries)
        State.ONE_WAY: 30.0,  # nf_conntrack_udp_timeout
        State.ICMP: 30.0,  # nf_conntrack_icmp_timeout
        State.ANSWERED: 60.0,  # nf_conntrack_tcp_timeout_syn_recv
        State.ORIGINATOR_DONE: 240.0,  # RFC 5382 REQ-5: transitory connections, 4 minutes
        State.RESPONDER_DONE: 240.0,
        State.OTHER: 600.0,  # nf_conntrack_generic_timeout
        State.TWO_WAY: 300.0,  # RFC 4787 REQ-5: 5 minutes recommended
        State.OPEN: 7440.0,  # RFC 5382 REQ-5: not less than 2 hours and 4 minutes
    }
)
"""After how many silent seconds a flow is over. The order is that of eviction."""
SHORTEST_TIMEOUT_S: Final = min(TIMEOUTS_S.values())

_ENDINGS: Final = {
    Signal.ORIGINATOR_FINISHED: State.ORIGINATOR_DONE,
    Signal.RESPONDER_FINISHED: State.RESPONDER_DONE,
    Signal.RESET: State.CLOSED,
}

TRANSITIONS: Final = MappingProxyType(
    {
        State.OPENING: {Signal.RESPONDER_SENT: State.ANSWERED, **_ENDINGS},
        State.ANSWERED: {Signal.ORIGINATOR_SENT: State.OPEN, **_ENDINGS},
        State.OPEN: _ENDINGS,
        State.ORIGINATOR_DONE: {Signal.RESPONDER_FINISHED: State.CLOSED, Signal.RESET: State.CLOSED},
        State.RESPONDER_DONE: {Signal.ORIGINATOR_FINISHED: State.CLOSED, Signal.RESET: State.CLOSED},
        # The reset was forged, or not believed: it goes on.
        State.CLOSED: {Signal.ORIGINATOR_SENT: State.ANSWERED, Signal.RESPONDER_SENT: State.ANSWERED},
        State.ONE_WAY: {Signal.RESPONDER_SENT: State.TWO_WAY},
        State.TWO_WAY: {},
        State.ICMP: {},
        State.OTHER: {},
    }
)
"""A signal that is not there changes nothing."""

_FIRST_STATES: Final = {TCP: State.OPENING, UDP: State.ONE_WAY, ICMP: State.ICMP, ICMPV6: State.ICMP}

# One bytes object as the key: 50 to 74 bytes, where a tuple of the same would be 250.
_IPV4_KEY: Final = Struct("!4sH4sHBI")
_IPV6_KEY: Final = Struct("!16sH16sHBI")
_MASK: Final = 0xFFFFFFFF


class Ending(Enum):
    """Why a flow is over."""

    CLOSED = "closed"
    IDLE = "silent for too long"
    EVICTED = "the table was full"
    REOPENED = "a new connection between the same ports"


class Flow(Generic[Inspector, Verdict]):
    """One flow. Times are those of the caller's clock; lengths are of IP packets, and a super-packet counts as one.

    inspector     what the caller keeps with the flow
    verdict       None until `decide`
    originator_packets, originator_bytes, responder_packets, responder_bytes
                  what each side sent
    """

    __slots__ = (
        *("_answer", "_budget", "_flipped", "_key", "_queue", "_streams", "_syn"),
        *("first_seen", "inspector", "last_seen", "state", "verdict"),
        *("originator_bytes", "originator_packets", "responder_bytes", "responder_packets"),
    )

    def __init__(self, key: bytes, flipped: bool, queue: _Queue, state: State, now: float, budget: Budget) -> None:
        self._key = key
        self._flipped = flipped
        self._queue = queue
        self._budget = budget
        self._streams: tuple[Stream, Stream] | None = None
        self._syn: tuple[int, int] | None = None  # direction and number of a SYN that is not this connection's
        self._answer: tuple[int, int, int] | None = None  # and of such a SYN's answer: direction, number, acknowledgement
        self.state = state
        self.first_seen = self.last_seen = now
        self.inspector: Inspector | None = None
        self.verdict: Verdict | None = None
        self.originator_packets = self.originator_bytes = 0
        self.responder_packets = self.responder_bytes = 0

    @property
    def originator(self) -> tuple[bytes, int]:
        """Address and port."""
        return self._endpoints()[self._flipped]

    @property
    def responder(self) -> tuple[bytes, int]:
        """Address and port."""
        return self._endpoints()[not self._flipped]

    @property
    def protocol(self) -> int:
        """IANA number."""
        return self._key[-5]

    @property
    def link(self) -> int:
        """What the caller gave."""
        return int.from_bytes(self._key[-4:], "big")

    def stream(self, direction: int) -> Stream:
        """What this side of a TCP flow sends. Made when it is asked for: many flows are decided without."""
        if self._streams is None:
            self._streams = Stream(self._budget), Stream(self._budget)
        return self._streams[direction]

    def decide(self, verdict: Verdict) -> None:
        """The verdict is final: nothing more needs to be read."""
        self.verdict, self.inspector = verdict, None
        self.release()

    def release(self) -> None:
        """Let go of the streams and what they remember."""
        for stream in self._streams or ():
            stream.release()
        self._streams = None

    def _endpoints(self) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
        layout = _IPV4_KEY if len(self._key) == _IPV4_KEY.size else _IPV6_KEY
        low, low_port, high, high_port, _, _ = layout.unpack(self._key)
        return (low, low_port), (high, high_port)


_Queue = OrderedDict[bytes, None]


def _begins_another(flow: Flow[Inspector, Verdict], packet: Packet, direction: int) -> bool:
    """Whether a packet answers the SYN of another connection, or confirms such an answer where the SYN was not seen (it passes
    beside the queue): the answer alone could be forged by the server, but no host confirms what it did not ask for. The SYN
    itself is only taken down."""
    if not packet.flags & SYN:
        begun = flow._answer == (1 - direction, (packet.acknowledgement - 1) & _MASK, packet.sequence)
        return begun and bool(packet.flags & ACK) and not packet.flags & RST
    if packet.flags & ACK and flow._syn == (1 - direction, (packet.acknowledgement - 1) & _MASK):
        return True
    stream = flow._streams[direction] if flow._streams else None
    if flow.state is State.OPENING if stream is None else not stream.has_begun or stream.begins_after(packet.sequence):
        return False
    if packet.flags & ACK:
        flow._answer = direction, packet.sequence, packet.acknowledgement
    else:
        flow._syn = direction, packet.sequence
    return False


@dataclass(frozen=True, slots=True)
class Ended(Generic[Inspector, Verdict]):
    """The flow is not in the table any more; its inspector is left to be finished."""

    flow: Flow[Inspector, Verdict]
    ending: Ending


class FlowTable(Generic[Inspector, Verdict]):
    """All flows, at most `max_flows`; `budget` is what their streams may remember together."""

    __slots__ = ("_ended", "_flows", "_max_flows", "_queues", "budget")

    def __init__(self, max_flows: int = MAX_FLOWS, budget_bytes: int = BUDGET_BYTES) -> None:
        if max_flows < len(State):
            raise ValueError(f"max_flows: expected at least {len(State)}, got {max_flows}")
        self._max_flows = max_flows
        self._flows: dict[bytes, Flow[Inspector, Verdict]] = {}
        # By state, the flow that was silent longest first; a state has one timeout, so that one is also the first to expire.
        self._queues: dict[State, _Queue] = {state: OrderedDict() for state in TIMEOUTS_S}
        self._ended: list[Ended[Inspector, Verdict]] = []
        self.budget = Budget(budget_bytes)

    def __len__(self) -> int:
        return len(self._flows)

    def receive(self, packet: Packet, now: float, link: int = 0) -> tuple[Flow[Inspector, Verdict], int]:
        """The packet's flow, which it may begin, and who sent it. `link` (a VLAN) tells networks with equal addresses apart."""
        source, destination = packet.source, packet.destination
        from_port, to_port = packet.source_port, packet.destination_port
        layout = _IPV4_KEY if packet.version == 4 else _IPV6_KEY
        flipped = destination < source or (source == destination and to_port < from_port)
        if flipped:
            key = layout.pack(destination, to_port, source, from_port, packet.protocol, link)
        else:
            key = layout.pack(source, from_port, destination, to_port, packet.protocol, link)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._open(key, flipped, packet, now)
        elif (packet.flags & SYN or flow._answer is not None) and _begins_another(
            flow, packet, ORIGINATOR if flipped == flow._flipped else RESPONDER
        ):
            flow = self._reopen(flow, key, flipped, packet, now)
        else:
            flow._queue.move_to_end(key)
        flow.last_seen = now
        length = packet.payload_start + len(packet.payload)
        direction = ORIGINATOR if flipped == flow._flipped else RESPONDER
        if direction == ORIGINATOR:
            flow.originator_packets += 1
            flow.originator_bytes += length
        else:
            flow.responder_packets += 1
            flow.responder_bytes += length
        if flow.state is not State.OPEN or packet.flags & (FIN | RST):
            self._follow(flow, packet, direction)
        return flow, direction

    def expire(self, now: float) -> list[Ended[Inspector, Verdict]]:
        """The flows whose time is over."""
        ended = []
        for state, queue in self._queues.items():
            ending = Ending.CLOSED if state is State.CLOSED else Ending.IDLE
            while queue:
                flow = self._flows[next(iter(queue))]
                if flow.last_seen + TIMEOUTS_S[state] > now:
                    break
                ended.append(self._end(flow, ending))
        return ended

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; None if there is no flow."""
        return min(
            (self._flows[next(iter(queue))].last_seen + TIMEOUTS_S[state] for state, queue in self._queues.items() if queue),
            default=None,
        )

    def take_ended(self) -> list[Ended[Inspector, Verdict]]:
        """The flows that `receive` has ended since this was asked last; at most one for each packet, so ask after each batch."""
        ended, self._ended = self._ended, []
        return ended

    def inspectors(self) -> list[Inspector]:
        """Those of all flows that are still inspected."""
        return [flow.inspector for flow in self._flows.values() if flow.inspector is not None]

    def _open(self, key: bytes, flipped: bool, packet: Packet, now: float) -> Flow[Inspector, Verdict]:
        if len(self._flows) >= self._max_flows:
            self._ended.append(self._make_room(now))
        answer = packet.flags & (SYN | ACK) == SYN | ACK
        state = _FIRST_STATES.get(packet.protocol, State.OTHER)
        queue = self._queues[state]
        flow: Flow[Inspector, Verdict] = Flow(key, flipped != answer, queue, state, now, self.budget)
        self._flows[key] = flow
        queue[key] = None
        return flow

    def _reopen(
        self, old: Flow[Inspector, Verdict], key: bytes, flipped: bool, packet: Packet, now: float
    ) -> Flow[Inspector, Verdict]:
        """Begin a flow with the answer to a SYN that was taken for the old one's, or with what confirms that answer."""
        self._ended.append(self._end(old, Ending.REOPENED))
        flow = self._open(key, flipped, packet, now)
        if packet.flags & SYN:
            flow.stream(ORIGINATOR).receive((packet.acknowledgement - 1) & _MASK, b"", SYN)
        else:
            flow.stream(ORIGINATOR).receive((packet.sequence - 1) & _MASK, b"", SYN)
            flow.stream(RESPONDER).receive((packet.acknowledgement - 1) & _MASK, b"", SYN)
        return flow

    def _follow(self, flow: Flow[Inspector, Verdict], packet: Packet, direction: int) -> None:
        """Move the flow to the state that the table says."""
        if packet.flags & RST:
            signal = Signal.RESET
        elif packet.flags & FIN:
            signal = Signal.RESPONDER_FINISHED if direction else Signal.ORIGINATOR_FINISHED
        elif flow.state is State.CLOSED and not packet.payload:
            return  # the acknowledgement of the last FIN
        else:
            signal = Signal.RESPONDER_SENT if direction else Signal.ORIGINATOR_SENT
        state = TRANSITIONS[flow.state].get(signal)
        if state is not None:
            del flow._queue[flow._key]
            flow.state, flow._queue = state, self._queues[state]
            flow._queue[flow._key] = None

    def _make_room(self, now: float) -> Ended[Inspector, Verdict]:
        """End the flow that is missed least: a closed one; one whose time is over; the one silent longest of those in the first
        state, in the order of TIMEOUTS_S, that fills more than its share."""
        closed = self._queues[State.CLOSED]
        if closed:
            return self._end(self._flows[next(iter(closed))], Ending.CLOSED)
        for state, queue in self._queues.items():
            if queue:
                flow = self._flows[next(iter(queue))]
                if flow.last_seen + TIMEOUTS_S[state] <= now:
                    return self._end(flow, Ending.IDLE)
        queue = next(queue for queue in self._queues.values() if len(queue) * SHARE > self._max_flows)
        return self._end(self._flows[next(iter(queue))], Ending.EVICTED)

    def _end(self, flow: Flow[Inspector, Verdict], ending: Ending) -> Ended[Inspector, Verdict]:
        del self._flows[flow._key], flow._queue[flow._key]
        flow.release()
        return Ended(flow, ending)
