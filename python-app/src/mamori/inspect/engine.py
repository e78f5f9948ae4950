"""The inspection engine: packets, scan results and the time in; verdicts, files to scan and events out. Knows no socket.

    engine.receive(token, data, info, is_inside=…, mac=…, now=…)
    engine.scanned(file, signature, unseen, now)      # the answer to FinishScan, or earlier: something was found
    engine.on_timer(now)                              # when next_deadline() has come
    for command in engine.take_commands(): ...

The same engine reads a queue of the kernel (worker.py) and a capture file (replay.py). Every token gets exactly one verdict; one
that has none yet is held. `now` is in seconds of a clock that only goes forward; `wall_offset_s` makes Unix time of it.
"""

from __future__ import annotations

from dataclasses import replace

from mamori.events.record import Action, Function, Heading
from mamori.inspect.commands import Accept, Command, Drop
from mamori.inspect.connection import Connection
from mamori.inspect.datagrams import DatagramFlow
from mamori.inspect.desk import Desk, Parties
from mamori.inspect.flow import MAX_FLOWS, ORIGINATOR, SHORTEST_TIMEOUT_S, Ending, Flow, FlowTable
from mamori.inspect.fragments import Discarded, FragmentTable
from mamori.inspect.hold import Queued
from mamori.inspect.judge import Judge
from mamori.inspect.packet import SYN, TCP, UDP, Packet, PacketError, parse_packet

_ANYONE = Parties(Heading.NONE, "", "", "", 0)

TABLE_FULL = "more connections than can be remembered: some are forgotten while they go on"


class Engine:
    """See the module."""

    def __init__(self, judge: Judge, *, wall_offset_s: float = 0.0, max_flows: int = MAX_FLOWS) -> None:
        self._desk = Desk(judge, wall_offset_s)
        self._flows: FlowTable[Connection | DatagramFlow, str] = FlowTable(max_flows)
        self._fragments = FragmentTable()
        self._fragment_packets: dict[int, Queued] = {}
        self._next_fragment = 0
        self._expire_at = 0.0  # no flow is over before

    @property
    def flows(self) -> int:
        return len(self._flows)

    @property
    def open_scans(self) -> int:
        """Files whose verdict is out."""
        return len(self._desk.scans)

    @property
    def held_bytes(self) -> int:
        return self._desk.held_bytes

    @property
    def unread_bytes(self) -> int:
        """What all readers keep of what is not whole yet."""
        return self._desk.unread.held_bytes

    def set_judge(self, judge: Judge) -> None:
        """Another policy, other lists. What was decided stays; all that is still read is judged by the new one."""
        self._desk.judge = judge

    def set_wall_offset(self, wall_offset_s: float) -> None:
        """The wall clock was set."""
        self._desk.wall_offset_s = wall_offset_s

    def take_commands(self) -> list[Command]:
        """What is to be done, in order; taken once."""
        commands, self._desk.out = self._desk.out, []
        return commands

    def receive(self, token: int, data: memoryview, info: int, *, is_inside: bool, mac: bytes, now: float) -> None:
        """A packet from its IP header on, as NFQUEUE gives it; `info` as in nfqueue.messages.Info. The bytes must stay as they are
        until the token has its verdict."""
        self._desk.now = now
        queued = Queued((token,), data, info, is_inside, mac)
        try:
            packet = parse_packet(data)
        except PacketError as error:
            self._desk.tell(_ANYONE, Function.EVASION, Action.BLOCKED, "ip", str(error))
            self._desk.out.append(Drop(token))
            return
        if packet.fragment is not None:
            self._receive_fragment(queued, packet, now)
        else:
            self._receive_packet(queued, packet, now)

    def scanned(self, scan: int, signature: str | None, unseen: str | None, now: float) -> None:
        """What the scanner says of the file of BeginScan: infected, not seen, or clean when both are None."""
        self._desk.now = now
        found = self._desk.scans.get(scan)
        if found is not None:
            owner, file = found
            owner.scanned(file, signature, unseen)

    def lagging(self, scan: int, is_behind: bool, now: float) -> None:
        """The scanner has much of an open file left to take: its sender is held, at most as long as for a verdict, until this is
        said to be over."""
        self._desk.now = now
        found = self._desk.scans.get(scan)
        if found is not None:
            owner, file = found
            owner.lagging(file, is_behind)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        self._desk.now = now
        self._desk.fire_timers(now)
        if now >= self._expire_at:
            for ended in self._flows.expire(now):
                if ended.flow.inspector is not None:
                    ended.flow.inspector.close()
            # Flows that begin or change their state after this are silent for so long at least: no need to look after each packet.
            deadline = self._flows.next_deadline()
            self._expire_at = now + SHORTEST_TIMEOUT_S if deadline is None else min(now + SHORTEST_TIMEOUT_S, deadline)
        for event in self._fragments.expire(now):
            self._discard(event.tokens)

    def next_deadline(self) -> float | None:
        """When `on_timer` may have something to do; None if nothing waits for the time."""
        candidates = (self._desk.next_timer(), self._expire_at if len(self._flows) else None, self._fragments.next_deadline())
        return min((each for each in candidates if each is not None), default=None)

    def close(self) -> None:
        """Let go of everything that waits: the engine ends, and nobody else knows these packets."""
        for inspector in self._flows.inspectors():
            inspector.close()
        for queued in self._fragment_packets.values():
            self._desk.out.extend(Accept(token, False, False) for token in queued.tokens)
        self._fragment_packets.clear()

    def _receive_packet(self, queued: Queued, packet: Packet, now: float) -> None:
        flow, direction = self._flows.receive(packet, now)
        if flow.verdict is not None:
            # With SYN it is an answer that begins another connection between the same ports, about which nothing is decided yet.
            is_decided = not (packet.protocol == TCP and packet.flags & SYN)
            self._desk.out.extend(Accept(token, is_decided, False) for token in queued.tokens)
        elif packet.protocol == TCP and packet.missing_bytes:
            # NFQUEUE cannot give us the end of it, and its sender sends it again in smaller pieces.
            self._desk.out.extend(map(Drop, queued.tokens))
        else:
            inspector = flow.inspector
            if inspector is None:
                inspector = self._open(flow, queued, packet, direction)
            elif queued.is_inside and queued.mac and not inspector.parties.terminal_mac:
                inspector.parties = replace(inspector.parties, terminal_mac=self._desk.text_of(queued.mac))
            if inspector is None:
                wants_signatures = not self._desk.judge.exempts(packet.source, packet.destination)
                self._desk.out.extend(Accept(token, False, wants_signatures) for token in queued.tokens)
            else:
                inspector.receive(queued, packet, direction)
        for ended in self._flows.take_ended():
            if ended.flow.inspector is not None:
                ended.flow.inspector.close()
            if ended.ending is Ending.EVICTED and self._desk.is_news(TABLE_FULL):
                self._desk.tell(_ANYONE, Function.SYSTEM, Action.REPORTED, "", TABLE_FULL, category="table-full")

    def _open(
        self, flow: Flow[Connection | DatagramFlow, str], queued: Queued, packet: Packet, direction: int
    ) -> Connection | DatagramFlow | None:
        """Begin to inspect a flow; None for protocols that are not."""
        if packet.protocol not in (TCP, UDP):
            return None
        sender_is_originator = direction == ORIGINATOR
        originator_inside = queued.is_inside == sender_is_originator
        inner, outer = (flow.originator, flow.responder) if originator_inside else (flow.responder, flow.originator)
        parties = Parties(
            Heading.OUTBOUND if originator_inside else Heading.INBOUND,
            self._desk.text_of(queued.mac) if queued.is_inside else "",
            self._desk.text_of(inner[0]),
            self._desk.text_of(outer[0]),
            outer[1],
        )
        inspector: Connection | DatagramFlow
        if packet.protocol == TCP:
            inspector = Connection(self._desk, flow, parties, self._desk.take_expected(*flow.responder))
        else:
            inspector = DatagramFlow(self._desk, flow, parties)
        flow.inspector = inspector
        return inspector

    def _receive_fragment(self, queued: Queued, packet: Packet, now: float) -> None:
        number, self._next_fragment = self._next_fragment, self._next_fragment + 1
        self._fragment_packets[number] = queued
        for event in self._fragments.receive(queued.data, packet, now, token=number):
            if isinstance(event, Discarded):
                self._discard(event.tokens)
                continue
            tokens = tuple(token for each in event.tokens for token in self._fragment_packets.pop(each).tokens)
            whole = Queued(tokens, memoryview(event.data), queued.info, queued.is_inside, queued.mac)
            try:
                self._receive_packet(whole, parse_packet(whole.data), now)
            except PacketError:
                self._desk.out.extend(map(Drop, tokens))

    def _discard(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self._desk.out.extend(map(Drop, self._fragment_packets.pop(number).tokens))
