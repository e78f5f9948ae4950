"""TCP connections through the engine, written as a transcript: who says what, what the other one gets, what is told.

The two hosts are as simple as hosts can be: they number bytes, acknowledge what they get in order, and send again what was not
acknowledged when they are asked to. Nothing is mocked: packets are real bytes, and what the engine lets pass is read as a host
reads it. The scanner is a function over whole files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mamori.events.record import Event
from mamori.inspect.applications import Applications, own_applications
from mamori.inspect.commands import Accept, BeginScan, CancelScan, Drop, FeedScan, FinishScan, GlanceScan, Replace, Tally, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.judge import Judge, Lists
from mamori.inspect.packet import FIN, RST, Packet, PacketError, parse_packet
from mamori.inspect.policy import Policy, parse_policy
from mamori.inspect.sources import NoLists
from tests.support import packets

CLIENT_MAC, SERVER_MAC = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
CLIENT, SERVER = 0, 1
MARKER = b"EVIL-MARKER"
SIGNATURE = "Test.Marker"

_SYN, _ACK, _PSH = 2, 16, 8
_MASK, _HALF = 0xFFFFFFFF, 0x80000000
_APPLICATIONS = own_applications()

Scan = Callable[[bytes], str | None]
Carrier = Callable[[bytes, int], list[tuple[bytes, int]]]
"""Makes IP packets, each with the kernel's info flags, of a TCP segment that this side sends."""


def over_ipv4(segment: bytes, side: int) -> list[tuple[bytes, int]]:
    ends = (packets.CLIENT, packets.SERVER)
    return [(packets.ipv4(segment, ends=ends if side == CLIENT else ends[::-1]), 0)]


def find_marker(content: bytes) -> str | None:
    return SIGNATURE if MARKER in content else None


@dataclass
class Host:
    """One end: the next number it sends, the next it expects, what it has read, and how the connection ended for it. Numbers are
    those of the wire without its wrapping. While it is away packets to it are lost; while it is silent it acknowledges nothing.
    `is_mixed`: of a byte that it had not read two different copies came, so what it reads is its own choice. `longest_bytes` is the
    longest segment that came."""

    next: int
    expects: int
    read: bytearray = field(default_factory=bytearray)
    early: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    unacknowledged: list[tuple[int, bytes, int]] = field(default_factory=list)
    acknowledged: int = 0
    copies: dict[int, int] = field(default_factory=dict)
    is_away: bool = False
    is_silent: bool = False
    is_mixed: bool = False
    longest_bytes: int = 0
    is_reset: bool = False
    is_finished: bool = False


class Network:
    """An engine and everything around it. `clock` is the engine's time in seconds."""

    def __init__(
        self,
        policy: str = "",
        *,
        lists: Lists | None = None,
        applications: Applications = _APPLICATIONS,
        scan: Scan | None = find_marker,
    ) -> None:
        self.policy: Policy = parse_policy(policy, "policy.toml")
        self._lists, self._applications = lists or NoLists(), applications
        self.engine = Engine(Judge(self.policy, self._lists, applications), wall_offset_s=1_800_000_000.0)
        self.clock = 100.0
        self.events: list[Event] = []
        self.tallies: list[Tally] = []
        self.glances = 0
        self.fates: dict[int, str] = {}
        self.decided = False
        self.asked_signatures: set[int] = set()
        self._scan = scan
        self.is_prompt = True  # the scanner answers at once; else when `answer_scans` is called
        self._files: dict[int, bytearray] = {}
        self._pending: list[int] = []
        self._waiting: dict[int, tuple[Connection, int, bytes, float]] = {}
        self.longest_wait_s = 0.0
        self._on_the_wire: deque[tuple[Connection, int, bytes]] = deque()
        self._is_arriving = False
        self._token = 0
        self._ports = 40000

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Function, action and subject of all events."""
        return [(event.function.value, event.action.value, event.subject) for event in self.events]

    def set_policy(self, policy: str) -> None:
        """The owner has changed it."""
        self.policy = parse_policy(policy, "policy.toml")
        self.engine.set_judge(Judge(self.policy, self._lists, self._applications))

    def connect(
        self,
        port: int = 80,
        *,
        numbers: tuple[int, int] = (1001, 5001),
        carrier: Carrier = over_ipv4,
        ports: int = 0,
        is_established: bool = True,
    ) -> Connection:
        """`numbers`: of each side's first byte; `ports`: the client's, to use one again."""
        self._ports += 1
        connection = Connection(self, (ports or self._ports, port), numbers, carrier)
        if is_established:
            connection.establish()
        return connection

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due happens."""
        end = self.clock + seconds
        while True:
            deadline = self.engine.next_deadline()
            if deadline is None or deadline > end:
                break
            self.clock = max(self.clock, deadline)
            self.engine.on_timer(self.clock)
            self.carry_out()
        self.clock = end

    def send(self, connection: Connection, side: int, data: bytes, *, info: int = 0) -> int:
        """One packet of `side`; its token."""
        self._token += 1
        self._waiting[self._token] = connection, side, data, self.clock
        mac = (CLIENT_MAC, SERVER_MAC)[side]
        self.engine.receive(self._token, memoryview(data), info, is_inside=side == CLIENT, mac=mac, now=self.clock)
        token = self._token
        self.carry_out()
        return token

    def answer_scans(self) -> None:
        """The scanner has had its time."""
        while self._pending:
            file = self._pending.pop(0)
            assert self._scan is not None
            self.engine.scanned(file, self._scan(bytes(self._files.pop(file))), None, self.clock)
            self.carry_out()

    def answer_one(self, signature: str | None, unseen: str | None) -> None:
        """The scanner's word on the oldest file that waits for it, if any does."""
        if self._pending:
            file = self._pending.pop(0)
            self._files.pop(file, None)
            self.engine.scanned(file, signature, unseen, self.clock)
            self.carry_out()

    def carry_out(self) -> None:
        for command in self.engine.take_commands():
            match command:
                case Accept(token, is_decided, wants):
                    self.decided = self.decided or is_decided
                    if wants:
                        self.asked_signatures.add(token)
                    self._deliver(token, None, "accepted")
                case Replace(token, payload):
                    self._deliver(token, payload, "replaced")
                case Drop(token):
                    self._settle(token, "dropped")
                case BeginScan(file, _):
                    self._files[file] = bytearray()
                case FeedScan(file, data):
                    self._files[file] += data
                case FinishScan(file):
                    self._pending.append(file)
                case GlanceScan(file):
                    self._glance(file)
                case CancelScan(file):
                    self._files.pop(file, None)
                    self._pending = [each for each in self._pending if each != file]
                case Tell(record):
                    assert isinstance(record, Event)
                    self.events.append(record)
                case Tally():
                    self.tallies.append(command)
        if self._scan is not None and self._pending and self.is_prompt:
            self.answer_scans()
        while self._on_the_wire and not self._is_arriving:
            # One by one: what a host answers is on the wire behind what is there already.
            self._is_arriving = True
            connection, side, packet = self._on_the_wire.popleft()
            connection.arrive(side, packet)
            self._is_arriving = False

    def _glance(self, file: int) -> None:
        """The scanner's word on what came so far: at once, as from one that is idle."""
        self.glances += 1
        signature = self._scan(bytes(self._files[file])) if self._scan is not None and file in self._files else None
        if signature is not None:
            self.engine.scanned(file, signature, None, self.clock)
        else:
            self.engine.lagging(file, is_behind=False, now=self.clock)
        self.carry_out()

    @property
    def held(self) -> int:
        """Packets without a verdict."""
        return len(self._waiting)

    def _settle(self, token: int, fate: str) -> tuple[Connection, int, bytes]:
        assert token not in self.fates, f"packet {token} has two verdicts"
        self.fates[token] = fate
        connection, side, data, came_at = self._waiting.pop(token)
        self.longest_wait_s = max(self.longest_wait_s, self.clock - came_at)
        return connection, side, data

    def _deliver(self, token: int, payload: bytes | None, fate: str) -> None:
        connection, side, data = self._settle(token, fate)
        self._on_the_wire.append((connection, 1 - side, data if payload is None else payload))


class Connection:
    """One TCP connection between the two hosts; it begins as the rules let it: the SYN passes beside the queue."""

    def __init__(
        self, network: Network, ports: tuple[int, int], numbers: tuple[int, int] = (1001, 5001), carrier: Carrier = over_ipv4
    ) -> None:
        self._network = network
        self.ports = ports
        self._numbers = numbers
        self._carrier = carrier
        self._parts: dict[tuple[int, int], dict[int, Packet]] = {}
        self.hosts = (Host(*numbers, acknowledged=numbers[0]), Host(*numbers[::-1], acknowledged=numbers[1]))

    def establish(self, options: bytes = b"") -> None:
        """The SYN passes beside the queue; what answers it, and what confirms that, do not."""
        self._send(SERVER, b"", flags=_SYN | _ACK, sequence=self._numbers[1] - 1, options=options)
        self._send(CLIENT, b"")

    def client(self, data: bytes, size: int | None = None, *, fin: bool = False) -> int:
        """The client says this, in segments of so many bytes; the last one's token."""
        return self._say(CLIENT, data, size, fin)

    def server(self, data: bytes, size: int | None = None, *, fin: bool = False) -> int:
        return self._say(SERVER, data, size, fin)

    def segment(self, side: int, offset: int, data: bytes, *, flags: int = _ACK, urgent: int = 0) -> int:
        """A segment at an offset of the stream, whatever was sent before; its token."""
        return self._send(side, data, sequence=self._numbers[side] + offset, flags=flags, urgent=urgent)

    def number(self, side: int) -> int:
        """Of the first byte of this side."""
        return self._numbers[side]

    def repeat(self, side: int) -> None:
        """Send again all that was not acknowledged."""
        for sequence, data, flags in list(self.hosts[side].unacknowledged):
            self._send(side, data, sequence=sequence, flags=flags)

    @property
    def to_client(self) -> bytes:
        """What the client's program has read."""
        return bytes(self.hosts[CLIENT].read)

    @property
    def to_server(self) -> bytes:
        return bytes(self.hosts[SERVER].read)

    @property
    def is_reset(self) -> tuple[bool, bool]:
        """Whether client and server got an RST."""
        return self.hosts[CLIENT].is_reset, self.hosts[SERVER].is_reset

    def _say(self, side: int, data: bytes, size: int | None, fin: bool) -> int:
        host, token = self.hosts[side], 0
        step = size or max(1, len(data))
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        for number, piece in enumerate(pieces):
            last = fin and number == len(pieces) - 1
            flags = _ACK | _PSH | (FIN if last else 0)
            sequence = host.next
            host.next += len(piece) + last
            host.unacknowledged.append((sequence, piece, flags))
            token = self._send(side, piece, sequence=sequence, flags=flags)
        return token

    def pass_unseen(self, side: int, offset: int, data: bytes) -> None:
        """A segment that the box lets through without a look, as when its queue is full."""
        segment = packets.tcp(
            data,
            ports=self.ports if side == CLIENT else self.ports[::-1],
            sequence=self._numbers[side] + offset & _MASK,
            acknowledgement=self.hosts[side].expects & _MASK,
        )
        for packet, _ in self._carrier(segment, side):
            self.arrive(1 - side, packet)

    def _send(
        self, side: int, data: bytes, *, sequence: int | None = None, flags: int = _ACK, urgent: int = 0, options: bytes = b""
    ) -> int:
        host, token = self.hosts[side], 0
        number = host.next if sequence is None else sequence
        segment = packets.tcp(
            data,
            ports=self.ports if side == CLIENT else self.ports[::-1],
            sequence=number & _MASK,
            acknowledgement=host.expects & _MASK if flags & _ACK else 0,
            flags=flags,
            urgent=urgent,
            options=options,
        )
        for packet, info in self._carrier(segment, side):
            token = self._network.send(self, side, packet, info=info)
        return token

    def arrive(self, side: int, data: bytes) -> None:
        """A packet comes to this host, which reads it and answers."""
        try:
            packet = parse_packet(data)
        except PacketError:
            return
        if packet.fragment is not None:
            self._collect(side, packet)
        elif packet.protocol == packets.TCP:
            self._read(side, packet)

    def _collect(self, side: int, packet: Packet) -> None:
        """A fragment; a datagram without a hole is read. Which of two copies counts makes no difference here."""
        assert packet.fragment is not None
        parts = self._parts.setdefault((side, packet.fragment.identification), {})
        parts[packet.fragment.offset] = packet
        whole = b""
        for offset, part in sorted(parts.items()):
            if offset != len(whole):
                return
            whole += part.payload
        if not any(part.fragment is not None and not part.fragment.more for part in parts.values()):
            return
        ends = (packet.source, packet.destination)
        make = packets.ipv4 if packet.version == 4 else packets.ipv6
        self.arrive(side, make(whole, ends=ends))

    def _read(self, side: int, packet: Packet) -> None:
        host = self.hosts[side]
        if host.is_away or host.is_reset or packet.flags & _SYN:
            return
        sequence = host.expects + ((packet.sequence - host.expects + _HALF) & _MASK) - _HALF
        if packet.flags & RST:
            host.is_reset = host.is_reset or sequence == host.expects
            return
        acknowledged = host.next + ((packet.acknowledgement - host.next + _HALF) & _MASK) - _HALF
        if acknowledged <= host.next:  # RFC 9293, 3.10.7.4: what was not sent is not acknowledged
            host.acknowledged = max(host.acknowledged, acknowledged)
            host.unacknowledged = [each for each in host.unacknowledged if each[0] + len(each[1]) > acknowledged]
        if not packet.payload and not packet.flags & FIN:
            return
        host.longest_bytes = max(host.longest_bytes, len(packet.payload))
        self._note_copies(host, sequence, bytes(packet.payload))
        before = host.expects
        known = host.early.get(sequence, (b"", False))
        if len(packet.payload) >= len(known[0]):
            host.early[sequence] = bytes(packet.payload), bool(packet.flags & FIN)
        for start in sorted(host.early):
            if start <= host.expects:
                text, fin = host.early.pop(start)
                fresh = text[host.expects - start :]
                host.read += fresh
                host.expects += len(fresh)
                if fin and not host.is_finished and start + len(text) == host.expects:
                    host.is_finished = True
                    host.expects += 1
        host.copies = {number: byte for number, byte in host.copies.items() if number >= host.expects}
        if not host.is_silent and (host.expects != before or sequence < before or host.early):
            self._send(side, b"")

    @staticmethod
    def _note_copies(host: Host, sequence: int, payload: bytes) -> None:
        for number, byte in enumerate(payload, sequence):
            if number >= host.expects and host.copies.setdefault(number, byte) != byte:
                host.is_mixed = True
