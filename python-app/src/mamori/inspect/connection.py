"""One TCP connection under inspection: its packets, and what becomes of each.

    read ──▶ decided (the kernel passes the rest) | blocked (the interposer has it) | unreadable (passed, and counted)

The streams are put in order (reassembly.py) and read by the session (session.py), and meanwhile the packets pass, except:

- the packet that ends a file waits for the file's verdict, and what its sender sends after it waits behind it;
- of protocols that carry mail and files to be delivered whole (SMTP, POP3, IMAP, FTP) every packet with bytes of a file waits in
  a window (hold.py), so that a small file is judged before any of it is out. What is infected is written over at equal length,
  in what waits and in all that follows; a retransmission is written over alike;
- HTTP and TLS are answered or cut: the packet in hand and all that follow go to the interposer (interpose.py).

A packet that says again what waits is dropped, for what waits will be delivered; so is one whose bytes contradict what was read.
"""

from __future__ import annotations

from typing import Any

from mamori.inspect.commands import Accept, Drop, Replace
from mamori.inspect.craft import SEQUENCE_MASK, CraftError, normalise, overwrite, parse_syn_options
from mamori.inspect.desk import PASSED, Desk, ExpectedData, Parties
from mamori.inspect.flow import ORIGINATOR, RESPONDER, Flow
from mamori.inspect.hold import TAIL_S, WINDOW_BYTES, WINDOW_S, Held, HoldQueue, Queued
from mamori.inspect.interpose import DEFAULT_MSS, Deliver, Interposer, Pass, Side
from mamori.inspect.packet import ACK, FIN, RST, SYN, URG, Packet
from mamori.inspect.policy import Mode
from mamori.inspect.reassembly import (
    AHEAD_BYTES,
    Buffered,
    Closed,
    ConflictSeen,
    Data,
    GapSeen,
    Refusal,
    Refused,
    Restarted,
    Retransmitted,
    StreamEvent,
)
from mamori.inspect.session import Session

SIGNATURE_BYTES = 256 << 10
"""Of each direction of an undecided connection, and anew for each message of HTTP, that the signature engine sees. Most signatures
look into heads and the first kilobytes of a body; all of a download would take it longer than the download may."""

_ENCRYPTED = frozenset({"tls"})


class Connection:
    """See the module. Commands go to the desk."""

    __slots__ = (
        *("_desk", "_dropping", "_flow", "_holding", "_holds", "_interposer", "_is_left", "_session", "_signature_bytes"),
        *("_next", "_out", "_reach", "_timer_at", "_was_reset"),
    )

    def __init__(self, desk: Desk, flow: Flow[Any, str], parties: Parties, expected: ExpectedData | None) -> None:
        self._desk = desk
        self._flow = flow
        self._holds = (HoldQueue(), HoldQueue())
        self._session = Session(desk, flow, parties, self._holds, expected, self)
        self._interposer: Interposer | None = None
        self._signature_bytes = [0, 0]
        self._was_reset = [False, False]
        self._next = [0, 0]  # of each stream; kept here, since the flow table lets go of the streams first
        self._out = [0, 0]  # the highest end of what was let go
        self._reach = [0, 0]  # how far each sender is known to be
        self._timer_at: float | None = None
        self._dropping = self._holding = False
        self._is_left = False  # to the signature engine: the session has seen enough

    @property
    def parties(self) -> Parties:
        return self._session.parties

    @parties.setter
    def parties(self, parties: Parties) -> None:
        self._session.parties = parties

    def receive(self, queued: Queued, packet: Packet, direction: int) -> None:
        """One packet, and a verdict on it now or later."""
        session = self._session
        if self._interposer is not None:
            self._interpose(queued, packet, direction)
        elif self._is_left:
            self._leave(queued, packet, direction)
        elif session.is_unreadable and self._holds[direction].is_idle:
            wants = self._wants_signatures(direction, len(packet.payload))
            self._accept(queued, is_decided=False, wants_signatures=wants)
        elif self._was_reset[direction] and packet.payload:
            self._drop(queued)
        else:
            self._read(queued, packet, direction)

    def on_timer(self, now: float) -> None:
        """Something that waits may be due."""
        if self._timer_at is not None and now >= self._timer_at:
            self._timer_at = None
        if self._interposer is not None:
            return
        for direction in (ORIGINATOR, RESPONDER):
            hold = self._holds[direction]
            if hold.wait_until is not None and now >= hold.wait_until:
                self._session.viruses.give_up(direction)
        self._settle()

    def scanned(self, file: int, signature: str | None, unseen: str | None) -> None:
        """The scanner's word on a file: infected with `signature`, not seen because of `unseen`, or clean (both None)."""
        self._session.viruses.scanned(file, signature, unseen)
        self._settle()

    def lagging(self, file: int, is_behind: bool) -> None:
        """The scanner has much of this file left to take, or has caught up."""
        self._session.viruses.lag(file, is_behind)
        self._settle()

    def close(self) -> None:
        """The flow is out of the table: nothing is left waiting. What no scanner has judged by now gets what such files get."""
        if self._interposer is None:
            for direction in (ORIGINATOR, RESPONDER):
                self._session.viruses.give_up(direction)
            is_blocked = self._session.block is not None
            for direction in (ORIGINATOR, RESPONDER):
                for held in self._holds[direction].take_all():
                    if is_blocked:
                        self._desk.let_go(held.queued.data)
                        self._drop(held.queued)
                    else:
                        self._release_one(held, direction)
        self._session.close()

    # --- streams -----------------------------------------------------------------------------------------------------------

    def _read(self, queued: Queued, packet: Packet, direction: int) -> None:
        """Put the packet in its place in the stream, and see what follows from its bytes."""
        session, stream = self._session, self._flow.stream(direction)
        flags = packet.flags
        if flags & SYN:
            self._on_syn(queued, packet, direction)
        start = stream.offset_of(packet.sequence)
        self._dropping = self._holding = False
        for event in stream.receive(packet.sequence, packet.payload, flags, packet.urgent):
            self._on_stream(event, direction)
        if flags & RST and start == stream.next and not session.is_over:
            self._on_reset(direction)
        self._next[direction] = stream.next
        end = start + len(packet.payload) + bool(flags & FIN)
        if end > self._reach[direction] and end - stream.next <= AHEAD_BYTES and not flags & (SYN | RST):
            self._reach[direction] = end
        if flags & ACK and not flags & RST:
            self._on_acknowledgement(packet.acknowledgement, 1 - direction)
        if session.block is not None:
            self._start_interposer(packet, start, direction)
            self._interpose(queued, packet, direction)
        elif session.is_decided:
            self._decide(queued, packet, direction)
        elif self._dropping:
            self._drop(queued)
            self._settle()
        else:
            self._pass_or_hold(queued, packet, start, direction)

    def _on_acknowledgement(self, number: int, direction: int) -> None:
        """The receiver of this direction has everything before the number. What its sender has not said by any packet, no host
        believes to be acknowledged (RFC 9293, 3.10.7.4): a server that claims so only wants its bytes taken for missed ones."""
        stream = self._flow.stream(direction)
        if stream.has_begun and stream.offset_of(number) > self._reach[direction]:
            return
        holding, dropping = self._holding, self._dropping
        for event in stream.acknowledge(number):
            self._on_stream(event, direction)
        self._next[direction] = stream.next
        self._holding, self._dropping = holding, dropping  # the packet in hand is the other side's

    def _on_syn(self, queued: Queued, packet: Packet, direction: int) -> None:
        """The SYN passes beside the queue (nfqueue/rules.py); its answer says where the originator's bytes begin, so the stream is
        whole. And it says how long a segment may be."""
        mss = parse_syn_options(queued.data, packet).mss
        self._session.mss = min(self._session.mss, mss or DEFAULT_MSS)
        other = self._flow.stream(1 - direction)
        if packet.flags & ACK and not other.has_begun:
            other.receive((packet.acknowledgement - 1) & SEQUENCE_MASK, b"", SYN)

    def _on_reset(self, direction: int) -> None:
        """An RST that its receiver believes: what came before it is all that its sender says. Bytes that follow it are of nobody
        who means well; a receiver that did not get the RST would read them."""
        self._was_reset[direction] = True
        self._holding = self._session.end(direction) or self._holding

    def _on_stream(self, event: StreamEvent, direction: int) -> None:
        session = self._session
        if event.__class__ is Data:  # nearly all are
            if not session.is_over:
                self._holding = session.read(direction, event.data) or self._holding
                if session.begins_message(direction):
                    self._signature_bytes[direction] = 0
            return
        match event:
            case Retransmitted(start, end, unknown_bytes):
                # What lies before the place where the stream was taken up nobody here has read, and its receiver may lack it.
                is_before = start < 0 and self._flow.stream(direction).picked_up
                is_doubtful = bool(unknown_bytes) and not is_before
                self._dropping = self._dropping or is_doubtful or self._holds[direction].covers(start, end)
                # What was read of a packet that was dropped (for one conflicting byte, say) waits as it would have then.
                waits = session.viruses.keeps(direction, start, end) or (
                    end > self._out[direction] and session.viruses.has_open_file(direction)
                )
                self._holding = self._holding or waits
                return
            case Refused(_, _, reason):
                # An RST that its receiver will not believe may go; bytes that we cannot keep would be read by it and not by us.
                self._dropping = self._dropping or reason is not Refusal.RESET_OUT_OF_WINDOW
                return
            case ConflictSeen():
                self._dropping = True
        if session.is_over:
            return
        match event:
            case Closed(_, False):
                self._holding = session.end(direction) or self._holding
            case ConflictSeen(start, end):
                session.on_evasion(f"bytes {start} to {end} were sent twice, and differently")
            case Buffered():
                self._holding = self._holding or session.viruses.delivers_whole
            case GapSeen(start, end):
                self._holding = session.on_gap(f"{end - start} bytes passed unseen") or self._holding
            case Restarted():
                self._restart(direction)
            case _:
                pass

    def _restart(self, direction: int) -> None:
        """This side begins anew with another SYN: what waits is of the connection before, and nobody has heard of it."""
        self._session.restart(direction)
        hold = self._holds[direction]
        hold.overwrites.clear()
        self._reach[direction] = self._out[direction] = 0
        for held in hold.take_all():
            self._desk.let_go(held.queued.data)
            self._drop(held.queued)

    # --- passing and holding -----------------------------------------------------------------------------------------------

    def _pass_or_hold(self, queued: Queued, packet: Packet, start: int, direction: int) -> None:
        hold = self._holds[direction]
        end = start + len(packet.payload)
        is_bare = not packet.payload and not packet.flags & (FIN | RST)
        if self._holding or hold.wait_until is not None or (hold.packets and not is_bare):
            whole = self._session.viruses.delivers_whole
            wait_s = WINDOW_S if whole else TAIL_S
            hold.add(Held(queued, packet, start, end, self._desk.now + wait_s, self._holding and not whole))
            self._desk.hold(queued.data)
            self._settle()
        else:
            self._let_go(queued, packet, start, end, direction)

    def _settle(self) -> None:
        """After something was judged, or time has passed: let go of what need not wait any more."""
        if self._interposer is not None or self._is_left:
            return
        if not self._holds[0].packets and not self._holds[1].packets and self._session.block is None:
            return
        is_full = self._desk.holds_too_much
        for direction in (ORIGINATOR, RESPONDER):
            hold = self._holds[direction]
            # A packet may come before the timer, and lets nothing out that was not given up.
            is_late = hold.wait_until is not None and self._desk.now >= hold.wait_until
            if hold.packets and (is_full or is_late):
                self._session.viruses.give_up(direction)
        if self._session.block is not None:
            self._start_interposer(None, 0, ORIGINATOR)
            return
        for direction in (ORIGINATOR, RESPONDER):
            hold = self._holds[direction]
            if hold.packets:
                self._release(direction, is_full)
            deadline = hold.next_deadline()
            if deadline is not None and (self._timer_at is None or deadline < self._timer_at):
                self._timer_at = deadline
                self._desk.set_timer(deadline, self)

    def _release(self, direction: int, is_full: bool) -> None:
        """What is due; and everything, when no file is open any more or too much waits."""
        hold, viruses = self._holds[direction], self._session.viruses
        if is_full:
            due = hold.take_all()
        elif hold.wait_until is None and not viruses.has_open_file(direction):
            due = hold.take_read(self._next[direction], self._desk.now)
        else:
            if hold.has_due(self._desk.now):
                viruses.glance(direction)
            due = hold.take_due(self._desk.now, WINDOW_BYTES if viruses.delivers_whole else None)
            if not viruses.delivers_whole:
                due += hold.take_before_tail(self._next[direction])
        for held in due:
            self._release_one(held, direction)

    def _release_one(self, held: Held, direction: int) -> None:
        self._desk.let_go(held.queued.data)
        if held.start > self._next[direction]:
            self._drop(held.queued)  # still behind a hole, and unread: its sender sends it again
        else:
            self._let_go(held.queued, held.packet, held.start, held.end, direction)

    def _let_go(self, queued: Queued, packet: Packet, start: int, end: int, direction: int) -> None:
        """The packet passes, written over where that was decided, and without URG, so that every receiver reads the same."""
        hold, is_urgent = self._holds[direction], bool(packet.flags & URG)
        if hold.overwrites:
            hold.forget_before(self._flow.stream(direction).acknowledged)
        ranges = hold.overwrites_in(start, end) if hold.overwrites else []
        if end > start:
            self._session.viruses.let_out(direction, start, end)
            self._out[direction] = max(self._out[direction], end)
        if not ranges and not is_urgent:
            self._accept(queued, is_decided=False, wants_signatures=self._wants_signatures(direction, end - start))
            return
        data: bytes | memoryview = queued.data
        try:
            if is_urgent:
                data = normalise(data, packet, queued.info)
            if ranges:
                data = overwrite(data, packet, queued.info, start, ranges)
        except CraftError:
            self._drop(queued)
        else:
            self._replace(queued, bytes(data))

    def _wants_signatures(self, direction: int, size: int) -> bool:
        """Whether the signature engine is to see so many bytes more."""
        wants = self._signature_bytes[direction] < SIGNATURE_BYTES
        self._signature_bytes[direction] += size
        return wants and not self._is_exempt

    @property
    def _is_exempt(self) -> bool:
        judge = self._desk.judge
        return judge.has_exemptions and judge.exempts(self._flow.originator[0], self._flow.responder[0])

    def _decide(self, queued: Queued, packet: Packet, direction: int) -> None:
        """The session has seen enough, and so has, perhaps, the signature engine: then the kernel need not ask again."""
        for side in (ORIGINATOR, RESPONDER):
            for held in self._holds[side].take_all():
                self._release_one(held, side)
        self._session.close()
        self._is_left = True
        self._leave(queued, packet, direction)

    def _leave(self, queued: Queued, packet: Packet, direction: int) -> None:
        """A connection that is not ours to read: what is encrypted says nothing to signatures either, all else may be attacked."""
        self._signature_bytes[direction] += len(packet.payload)
        is_opaque = self._session.protocol in _ENCRYPTED or self._desk.judge.policy.ips.mode is Mode.OFF
        is_exempt = self._is_exempt
        is_decided = is_opaque or is_exempt or sum(self._signature_bytes) >= SIGNATURE_BYTES
        if is_decided:
            self._flow.decide(PASSED)
        self._accept(queued, is_decided=is_decided, wants_signatures=not is_exempt)

    # --- blocking ----------------------------------------------------------------------------------------------------------

    def _start_interposer(self, packet: Packet | None, start: int, direction: int) -> None:
        """Everything that was not forwarded belongs to it: what waits, and the packet in hand."""
        block, sides = self._session.block, []
        assert block is not None  # noqa: S101 (who calls has looked)
        for side in (ORIGINATOR, RESPONDER):
            stream, packets = self._flow.stream(side), self._holds[side].packets
            firsts = [stream.next, *(held.start for held in packets)]
            if packet is not None and side == direction:
                firsts.append(start)
            acknowledged = max(stream.acknowledged, 0)
            sides.append(Side(stream.number_at(max(min(firsts), acknowledged)), stream.number_at(acknowledged)))
        self._interposer = Interposer(block, (sides[0], sides[1]))
        self._session.close()
        self._flow.release()
        for side in (ORIGINATOR, RESPONDER):
            for held in self._holds[side].take_all():
                self._desk.let_go(held.queued.data)
                self._interpose(held.queued, held.packet, side)

    def _interpose(self, queued: Queued, packet: Packet, direction: int) -> None:
        assert self._interposer is not None  # noqa: S101
        match self._interposer.receive(direction, queued.data, packet, queued.info):
            case Deliver(data):
                self._replace(queued, data)
            case Pass():
                self._accept(queued, is_decided=False)
            case _:
                self._drop(queued)

    # --- verdicts ----------------------------------------------------------------------------------------------------------

    def _accept(self, queued: Queued, *, is_decided: bool, wants_signatures: bool = False) -> None:
        for token in queued.tokens:
            self._desk.out.append(Accept(token, is_decided, wants_signatures))

    def _drop(self, queued: Queued) -> None:
        self._desk.out.extend(map(Drop, queued.tokens))

    def _replace(self, queued: Queued, payload: bytes) -> None:
        if len(queued.tokens) == 1:
            self._desk.out.append(Replace(queued.tokens[0], payload))
        else:
            # Fragments cannot carry another packet. Hosts of today do not fragment TCP, and their sender sends again.
            self._drop(queued)
