"""How a bridge without an address answers, cuts and ends a connection: by verdicts that change the packets which pass anyway.

    interposer = Interposer(Cut(direction), sides)                  # the receiver of that direction gets no byte more
    interposer = Interposer(Answer(page, mss), sides)               # the client gets `page` and the end, the server nothing
    interposer = Interposer(kind, sides, is_length_fixed=True)      # in a PPPoE session, see below
    outcome = interposer.receive(direction, data, packet, info)     # Deliver(bytes) | Pass() | Drop(), for every packet from now on

It begins with the packet in hand (those that were held come first) and goes on until the flow is forgotten. Nothing is injected: no
packet of its own, no address, no route; so it works wherever a packet can be queued, and the sender's timestamps, TTL and
addresses are right by themselves. One packet in, at most one packet out, in the same direction. Pure.

The probe
---------
To speak to one side, a packet is needed that goes there. A probe makes the other side send one: a segment of one zero byte that
was acknowledged before. RFC 9293 3.10.7.4: "If an incoming segment is not acceptable, an acknowledgment should be sent in reply";
3.8.4 knows it as the keep-alive "with one garbage octet". Linux answers at once (tcp_input.c, tcp_data_queue: "A retransmit …
Force an immediate ack"), and its limit for such answers leaves out segments with data (tcp_oow_rate_limited). A host that has no
such connection (any more) answers with RST whose number is the probe's acknowledgement (RFC 9293 3.10.7.1). So any packet, of
any length, can be made a probe: nobody reads it, and whoever gets it answers. A super-packet stays as long as it is (see craft.py)
and is zeros up to a byte that was acknowledged.

Cut
---
The packet in hand becomes an RST for its receiver, the *target*, with exactly the number that it expects (RFC 5961 3.2). Later
packets of its sender, the *peer*, become probes: a target without the connection answers them with an RST, which passes to the peer
with the number that the peer expects; then both are closed. A target that answers otherwise has not believed or not received its
RST; that answer also says which number it expects, and the next packet is the RST again. A target that speaks before its RST (a
server whose response is to be cut, to a client that has said everything and only waits) makes the peer's: what it says becomes an
RST for the peer, and what it says again an acknowledgement, which the peer, without the connection, answers with the target's.

Answer
------
The client's request becomes a probe to the server, the server's acknowledgement carries a part of the answer to the client, the
client's acknowledgement of that is the next probe, and so on: a part for each round trip.

- *The last part first.* A receiver acknowledges at once what comes out of order and what fills a hole (RFC 5681 4.2), but may keep
  an acknowledgement of what comes in order for up to 500 ms, and without it nothing moves. Backwards, every part is answered at
  once, and the program at the client gets the whole answer in one moment. After that pass, always the part that the client lacks.
- *The client's own clock repairs losses.* Of what it sent, the last byte is not acknowledged before it has the whole answer. So
  it keeps sending that again, and each time that is a probe. One byte more is acknowledged with each part: progress, which keeps
  its retransmission timer from doubling.
- *The end.* When the client has everything, all that it sent is acknowledged. Its FIN becomes the RST of the server, and what it
  sends after that (its FIN again, not being acknowledged) probes of a server without the connection, whose RST ends the client's.
- *What was before goes first.* Bytes before `Side.limit` that their receiver may lack still pass, both ways.
- A server that does not answer for MAX_UNANSWERED retransmissions is cut off, as in Cut.

PPPoE
-----
The session's header has a length of its own. br_netfilter puts it back as it was (nf_bridge_push_encap_header), and the receiver
believes it (pppoe.c, pppoe_rcv): a packet of another length is lost. With `is_length_fixed` every packet keeps its length. RSTs and
probes are zeros then, or empty; nothing can be carried, so an Answer is a Cut of the server, whose RST the client gets after its
first retransmission. The queue does not tell which packets are of a session.

The client never gets a byte that the server sent at or after its limit, and the server none that the client did. The table is
TABLE; whatever comes that cannot be made into what it says is dropped, and comes again.

Limits: packets that pass the queue unseen (fail-open) pass as they are. A target that hides closed ports, as Windows' firewall
does, never answers the probe after its RST, and the peer retransmits until it gives up. Multipath TCP sees its signals removed
and falls back or gives up. Do not answer while an earlier answer of the server is still to come: its bytes would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from mamori.inspect.craft import SEQUENCE_MASK, CraftError, Segment, craft, is_super_packet
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.packet import ACK, FIN, PSH, RST, SYN, TCP, Packet

DEFAULT_MSS = 1220
"""What a link must take that IPv6 uses: 1280 bytes (RFC 8200 5) without headers. For IPv4, RFC 9293 3.7.1 says 536 if nothing is
known; but the SYN passes beside the queue, and every part costs a round trip."""
LOWEST_MSS = 536
"""Whoever asks for less gets this all the same: every IPv4 host takes it (RFC 791 3.1), and an answer is to be a few parts."""
MAX_ANSWER_BYTES = 32_768
"""A page, not a file: it must fit into a client's window, and at a part for each round trip nobody would wait for more."""
MAX_UNANSWERED = 6
"""Retransmissions of the client that the server answers with nothing. Linux' come after 0.2, 0.4, 0.8 … s: 13 s in all, which a
person waits for, and a fifth of all packets lost on each leg makes it wrong in one case of a hundred."""
MAX_CARRIERS = 200
"""Packets that carried parts: thrice what the longest answer in the shortest parts needs. The client does not take them."""

_OPTION_SPACE = 40  # RFC 9293 3.1: the most that options take; the MSS does not count them (RFC 6691)
_HALF: Final = 0x80000000
_PLAIN_HEADER_BYTES = {4: 20, 6: 40}
_NO_SCALE_WINDOW = 0xFFFF


@dataclass(frozen=True, slots=True)
class Side:
    """One direction, in sequence numbers as on the wire.

    limit          the first byte that its receiver must not get; all before it was forwarded (or may be)
    acknowledged   the highest number that its receiver has acknowledged; at most `limit`
    """

    limit: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class Cut:
    """End the connection; first for the receiver of this direction."""

    direction: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The client gets `data` and FIN in place of what the server would say. `mss`: the longest segment (without options) that is
    sure to reach the client, the lower of what both SYNs say as far as they are known."""

    data: bytes
    mss: int = DEFAULT_MSS


@dataclass(frozen=True, slots=True)
class Deliver:
    """Accept the packet with this in its place."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """Accept the packet as it is."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop the packet."""


Outcome = Deliver | Pass | Drop


class Phase(Enum):
    """How far it has come."""

    ANSWERING = "the client does not have the whole answer"
    DELIVERED = "it has, but does not know that we have all it sent"
    ACKNOWLEDGED = "it has been told"
    AIMING = "the target is to get its RST"
    SHOT = "the target got one; what it says may have been on the way before"
    ASKED = "the target got a probe after its RST"
    OVER = "both ends know"


class Signal(Enum):
    """What came. The target of an answer is the server; of a cut, the receiver of what is cut."""

    PEER_DATA = "bytes of the peer"
    PEER_BARE = "an acknowledgement of the peer"
    PEER_FIN = "FIN of the peer, or anything but RST after it"
    PEER_RST = "RST of the peer"
    TARGET_DATA = "bytes or FIN of the target"
    TARGET_ANY = "anything else but RST of the target"
    TARGET_RST = "RST of the target"


class Action(Enum):
    """What becomes of it."""

    PROBE = "a byte that was acknowledged before, to the target"
    SHOOT = "RST to the target"
    CARRY = "a part of the answer, to the client"
    ACKNOWLEDGE = "an acknowledgement of all that the client sent, to it"
    STRIP = "an acknowledgement without bytes and without FIN, to the peer"
    TELL = "RST to the peer"


_ENDING: Final = {
    Signal.PEER_RST: (Action.SHOOT, Phase.OVER),
    Signal.TARGET_RST: (Action.TELL, Phase.OVER),
    Signal.TARGET_DATA: (Action.STRIP, Phase.AIMING),
    Signal.TARGET_ANY: (Action.STRIP, Phase.AIMING),
}
_SHOOT, _ASK = (Action.SHOOT, Phase.SHOT), (Action.PROBE, Phase.ASKED)

TABLE: Final = MappingProxyType(
    {
        Phase.ANSWERING: {
            Signal.PEER_DATA: (Action.PROBE, Phase.ANSWERING),
            Signal.PEER_BARE: (Action.PROBE, Phase.ANSWERING),
            Signal.PEER_FIN: (Action.PROBE, Phase.ANSWERING),
            Signal.PEER_RST: (Action.SHOOT, Phase.OVER),
            Signal.TARGET_DATA: (Action.CARRY, Phase.ANSWERING),
            Signal.TARGET_ANY: (Action.CARRY, Phase.ANSWERING),
            # A host without the connection answers every probe with RST, and that carries as well as anything.
            Signal.TARGET_RST: (Action.CARRY, Phase.ANSWERING),
        },
        Phase.DELIVERED: {
            Signal.PEER_DATA: (Action.PROBE, Phase.DELIVERED),
            Signal.PEER_BARE: (Action.PROBE, Phase.DELIVERED),
            Signal.PEER_FIN: _SHOOT,
            Signal.PEER_RST: (Action.SHOOT, Phase.OVER),
            # Not yet TELL: an RST may take from the client's program what it has not read (Windows does so).
            Signal.TARGET_DATA: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
            Signal.TARGET_ANY: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
            Signal.TARGET_RST: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
        },
        Phase.ACKNOWLEDGED: {
            Signal.PEER_DATA: (Action.PROBE, Phase.DELIVERED),
            Signal.PEER_BARE: _SHOOT,
            Signal.PEER_FIN: _SHOOT,
            Signal.PEER_RST: (Action.SHOOT, Phase.OVER),
            Signal.TARGET_DATA: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
            Signal.TARGET_ANY: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
            Signal.TARGET_RST: (Action.ACKNOWLEDGE, Phase.ACKNOWLEDGED),
        },
        Phase.AIMING: {
            **_ENDING,
            Signal.PEER_DATA: _SHOOT,
            Signal.PEER_BARE: _SHOOT,
            Signal.PEER_FIN: _SHOOT,
            Signal.TARGET_DATA: (Action.TELL, Phase.OVER),
        },
        Phase.SHOT: {
            **_ENDING,
            Signal.PEER_DATA: _ASK,
            Signal.PEER_BARE: _ASK,
            Signal.PEER_FIN: _ASK,
            Signal.TARGET_DATA: (Action.STRIP, Phase.SHOT),
            Signal.TARGET_ANY: (Action.STRIP, Phase.SHOT),
        },
        # It still has the connection, so the RST was lost or not believed.
        Phase.ASKED: {Signal.PEER_DATA: _ASK, Signal.PEER_BARE: _ASK, Signal.PEER_FIN: _ASK, **_ENDING},
        Phase.OVER: {
            Signal.PEER_DATA: (Action.PROBE, Phase.OVER),
            Signal.PEER_BARE: (Action.PROBE, Phase.OVER),
            Signal.PEER_FIN: (Action.PROBE, Phase.OVER),
            **_ENDING,
        },
    }
)
"""What is done with each packet, and where that leads. Every phase has every signal. Besides: DELIVERED begins when the client has
acknowledged everything, and AIMING when answering takes too long."""


def _is_after(number: int, other: int) -> bool:
    return 0 < (number - other & SEQUENCE_MASK) < _HALF


def _lower(number: int, other: int) -> int:
    return other if _is_after(number, other) else number


class Interposer:
    """See the module. `sides`: what the originator sends, and what the responder sends. It keeps the answer and a few numbers."""

    def __init__(self, kind: Cut | Answer, sides: tuple[Side, Side], *, is_length_fixed: bool = False) -> None:
        self._toward = kind.direction if isinstance(kind, Cut) else ORIGINATOR  # the direction whose receiver is the target
        self._back = 1 - self._toward
        self._limits = [side.limit for side in sides]
        self._acknowledged = [_lower(side.acknowledged, side.limit) for side in sides]
        self._sent = list(self._limits)  # the end of what each sender has said
        self._aim = self._limits[self._toward]
        self._answer = kind.data if isinstance(kind, Answer) else b""
        self._part_bytes = max(LOWEST_MSS, kind.mss) - _OPTION_SPACE if isinstance(kind, Answer) else 0
        self._plan = list(range(0, len(self._answer), self._part_bytes)) if self._answer else []
        self._end = self._limits[self._back] + len(self._answer) + 1 & SEQUENCE_MASK  # FIN counts
        self._carriers = self._unanswered = 0
        self._window = _NO_SCALE_WINDOW
        self._has_fin = False  # of the peer
        self._is_answer = isinstance(kind, Answer)
        self._is_length_fixed = is_length_fixed
        self._phase = Phase.ANSWERING if self._is_answer and not is_length_fixed else Phase.AIMING
        if len(self._answer) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {len(self._answer)} bytes, more than {MAX_ANSWER_BYTES}")

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def is_done(self) -> bool:
        """Both ends know that the connection is over. Packets that still come are to be given here all the same."""
        return self._phase is Phase.OVER

    def receive(self, direction: int, data: bytes | memoryview, packet: Packet, info: int) -> Outcome:
        """What becomes of the next packet of the connection."""
        if packet.protocol != TCP or packet.fragment:
            return Drop()
        if packet.flags & SYN:  # another connection, or an answer to one; the flow table knows. Nobody here reads its numbers
            return Drop() if packet.payload else Pass()
        self._note(direction, packet)
        try:
            earlier = self._pass_earlier(direction, data, packet, info)
            if earlier:
                return earlier
            action, phase = TABLE[self._phase][self._signal(direction, packet)]
            segment = self._segment(action, direction, packet, info)
            made = craft(data, packet, info, segment)
        except CraftError:
            return Drop()
        self._commit(action, phase)
        return Deliver(made)

    def _signal(self, direction: int, packet: Packet) -> Signal:
        if direction == self._back:
            if packet.flags & RST:
                return Signal.TARGET_RST
            return Signal.TARGET_DATA if packet.payload or packet.flags & FIN else Signal.TARGET_ANY
        if packet.flags & RST:
            return Signal.PEER_RST
        if self._has_fin:
            return Signal.PEER_FIN
        return Signal.PEER_DATA if packet.payload else Signal.PEER_BARE

    def _note(self, direction: int, packet: Packet) -> None:
        """What the packet says about both sides."""
        end = packet.sequence + len(packet.payload) + bool(packet.flags & FIN) & SEQUENCE_MASK
        is_new = not packet.flags & RST and _is_after(end, self._sent[direction])
        if is_new:
            self._sent[direction] = end
        if packet.flags & ACK and not packet.flags & RST:
            self._note_acknowledgement(1 - direction, packet.acknowledgement)
        if direction == self._back:
            self._unanswered = 0
            self._window = packet.window or self._window
            if packet.flags & ACK and not packet.flags & RST:
                self._aim = _lower(packet.acknowledgement, self._limits[self._toward])
        else:
            self._has_fin = self._has_fin or bool(packet.flags & FIN)
            self._unanswered += bool(packet.payload) and not is_new
        if self._phase is Phase.ANSWERING:
            if self._acknowledged[self._back] == self._end:
                self._phase = Phase.DELIVERED
            elif self._unanswered >= MAX_UNANSWERED or self._carriers > MAX_CARRIERS:
                self._phase = Phase.AIMING

    def _note_acknowledgement(self, side: int, number: int) -> None:
        if not _is_after(number, self._acknowledged[side]):
            return
        if self._is_answer and side == self._back:
            if not _is_after(number, self._end):
                self._acknowledged[side] = number
            return
        # A receiver knows what it has, even if it came by here unseen.
        self._acknowledged[side] = number
        if _is_after(number, self._limits[side]):
            self._limits[side] = number

    def _pass_earlier(self, direction: int, data: bytes | memoryview, packet: Packet, info: int) -> Deliver | None:
        """What is left of a segment before the limit that its receiver may lack; while answering, for the answer comes after it."""
        limit, length = self._limits[direction], len(packet.payload)
        before = limit - packet.sequence & SEQUENCE_MASK
        if self._phase is not Phase.ANSWERING or packet.flags & RST or not length or not 0 < before < _HALF:
            return None
        if not _is_after(_lower(packet.sequence + length & SEQUENCE_MASK, limit), self._acknowledged[direction]):
            return None
        if length > before and (is_super_packet(info) or self._is_length_fixed):
            return None
        acknowledgement = _lower(packet.acknowledgement, self._limits[1 - direction])
        segment = Segment(packet.sequence, acknowledgement, packet.flags & ~FIN, bytes(packet.payload[:before]))
        return Deliver(craft(data, packet, info, segment))

    def _segment(self, action: Action, direction: int, packet: Packet, info: int) -> Segment:
        """What the packet is to say."""
        is_fixed = self._is_length_fixed or is_super_packet(info)
        zeros = bytes(len(packet.payload)) if is_fixed else b""
        # Whom it goes to must not hear of bytes that it did not send.
        acknowledgement = _lower(packet.acknowledgement, self._limits[1 - direction])
        expected = self._acknowledged[direction]
        match action:
            case Action.PROBE:
                # An empty probe is answered, too, but at an alive Linux twice a second at most (tcp_invalid_ratelimit).
                old = zeros if is_fixed else b"\0"
                return Segment(expected - max(1, len(old)), acknowledgement, ACK, old)
            case Action.SHOOT:
                if packet.flags & ACK:
                    return Segment(self._aim, acknowledgement, RST | ACK, zeros)
                return Segment(self._aim, 0, RST, zeros)
            case Action.CARRY:
                return self._part(packet)
            case Action.ACKNOWLEDGE:
                return Segment(expected, self._sent[self._toward], ACK, window=packet.window or self._window)
            case Action.STRIP:
                if self._is_length_fixed and packet.payload:
                    raise CraftError("bytes that cannot be left out")
                return Segment(expected, acknowledgement, ACK)
            case Action.TELL:
                return Segment(expected, 0, RST, zeros)

    def _part(self, packet: Packet) -> Segment:
        """The next part of the answer: each one once, the last one first; then what the client lacks."""
        start = self._limits[self._back]
        has = self._acknowledged[self._back] - start & SEQUENCE_MASK
        has = 0 if has >= _HALF else min(has, len(self._answer))
        at = self._plan[-1] if self._plan and self._plan[-1] > has else has
        # The MSS is without options of either header (RFC 6691).
        options = packet.payload_start - 20 - _PLAIN_HEADER_BYTES[packet.version]
        part = self._answer[at : at + min(self._part_bytes, max(1, self._part_bytes + _OPTION_SPACE - options))]
        flags = ACK | PSH | (FIN if at + len(part) == len(self._answer) else 0)
        first, last = self._limits[self._toward], self._sent[self._toward]
        acknowledgement = first + min(self._carriers + 1, max(0, (last - first & SEQUENCE_MASK) - 1))
        return Segment(start + at, acknowledgement, flags, part, packet.window or self._window)

    def _commit(self, action: Action, phase: Phase) -> None:
        if action is Action.CARRY:
            self._carriers += 1
            if self._plan:
                self._plan.pop()
        self._phase = phase
