"""TCP connections through the engine, written as a transcript: who says what, what the other one gets, what is told.

The two hosts are as simple as hosts can be: they number bytes, acknowledge what they get in order, and send again what was not
acknowledged when they are asked to. Nothing is mocked: packets are real bytes, and what the engine lets pass is read as a host
reads it. The scanner is a function over whole files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mamori.events.record import Event
from mamori.inspect.applications import Applications, own_applications
from mamori.inspect.commands import Accept, BeginScan, CancelScan, Drop, FeedScan, FinishScan, Replace, Tally, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.judge import Judge, Lists
from mamori.inspect.packet import FIN, RST, PacketError, parse_packet
from mamori.inspect.policy import Policy, parse_policy
from mamori.inspect.sources import NoLists
from tests.support import packets

CLIENT_MAC, SERVER_MAC = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
CLIENT, SERVER = 0, 1
MARKER = b"EVIL-MARKER"
SIGNATURE = "Test.Marker"

_SYN, _ACK, _PSH = 2, 16, 8
_APPLICATIONS = own_applications()

Scan = Callable[[bytes], str | None]


def find_marker(content: bytes) -> str | None:
    return SIGNATURE if MARKER in content else None


@dataclass
class Host:
    """One end: the next number it sends, the next it expects, what it has read, and how the connection ended for it. While it is
    away packets to it are lost."""

    next: int
    expects: int
    read: bytearray = field(default_factory=bytearray)
    early: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    unacknowledged: list[tuple[int, bytes, int]] = field(default_factory=list)
    is_away: bool = False
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
        self.engine = Engine(Judge(self.policy, lists or NoLists(), applications), wall_offset_s=1_800_000_000.0)
        self.clock = 100.0
        self.events: list[Event] = []
        self.tallies: list[Tally] = []
        self.fates: dict[int, str] = {}
        self.decided = False
        self.asked_signatures: set[int] = set()
        self._scan = scan
        self._files: dict[int, bytearray] = {}
        self._pending: list[int] = []
        self._waiting: dict[int, tuple[Connection, int, bytes]] = {}
        self._token = 0
        self._ports = 40000

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Function, action and subject of all events."""
        return [(event.function.value, event.action.value, event.subject) for event in self.events]

    def connect(self, port: int = 80) -> Connection:
        self._ports += 1
        return Connection(self, (self._ports, port))

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
        self._waiting[self._token] = connection, side, data
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
            self.engine.scanned(self._pending.pop(0), signature, unseen, self.clock)
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
                case CancelScan(file):
                    self._files.pop(file, None)
                case Tell(record):
                    assert isinstance(record, Event)
                    self.events.append(record)
                case Tally():
                    self.tallies.append(command)
        if self._scan is not None and self._pending:
            self.answer_scans()

    @property
    def held(self) -> int:
        """Packets without a verdict."""
        return len(self._waiting)

    def _settle(self, token: int, fate: str) -> tuple[Connection, int, bytes]:
        assert token not in self.fates, f"packet {token} has two verdicts"
        self.fates[token] = fate
        return self._waiting.pop(token)

    def _deliver(self, token: int, payload: bytes | None, fate: str) -> None:
        connection, side, data = self._settle(token, fate)
        connection.arrive(1 - side, data if payload is None else payload)


class Connection:
    """One TCP connection between the two hosts; it begins as the rules let it: the SYN passes beside the queue."""

    def __init__(self, network: Network, ports: tuple[int, int]) -> None:
        self._network = network
        self._ports = ports
        self.hosts = (Host(1001, 5001), Host(5001, 1001))
        self._send(SERVER, b"", flags=_SYN | _ACK, sequence=5000)
        self._send(CLIENT, b"")

    def client(self, data: bytes, size: int | None = None, *, fin: bool = False) -> int:
        """The client says this, in segments of so many bytes; the last one's token."""
        return self._say(CLIENT, data, size, fin)

    def server(self, data: bytes, size: int | None = None, *, fin: bool = False) -> int:
        return self._say(SERVER, data, size, fin)

    def segment(self, side: int, offset: int, data: bytes, *, flags: int = _ACK) -> int:
        """A segment at an offset of the stream, whatever was sent before; its token."""
        return self._send(side, data, sequence=(1001, 5001)[side] + offset, flags=flags)

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

    def _send(self, side: int, data: bytes, *, sequence: int | None = None, flags: int = _ACK) -> int:
        host = self.hosts[side]
        ports = self._ports if side == CLIENT else self._ports[::-1]
        ends = (packets.CLIENT, packets.SERVER) if side == CLIENT else (packets.SERVER, packets.CLIENT)
        number = host.next if sequence is None else sequence
        segment = packets.tcp(data, ports=ports, sequence=number, acknowledgement=host.expects, flags=flags)
        return self._network.send(self, side, packets.ipv4(segment, ends=ends))

    def arrive(self, side: int, data: bytes) -> None:
        """A packet comes to this host, which reads it and answers."""
        host = self.hosts[side]
        try:
            packet = parse_packet(data)
        except PacketError:
            return
        if host.is_away or host.is_reset or packet.flags & _SYN:
            return
        if packet.flags & RST:
            host.is_reset = host.is_reset or packet.sequence == host.expects
            return
        acknowledged = packet.acknowledgement
        host.unacknowledged = [each for each in host.unacknowledged if each[0] + len(each[1]) > acknowledged]
        if not packet.payload and not packet.flags & FIN:
            return
        before = host.expects
        host.early[packet.sequence] = bytes(packet.payload), bool(packet.flags & FIN)
        for sequence in sorted(host.early):
            if sequence <= host.expects:
                text, fin = host.early.pop(sequence)
                fresh = text[host.expects - sequence :]
                host.read += fresh
                host.expects += len(fresh)
                if fin and not host.is_finished and sequence + len(text) == host.expects:
                    host.is_finished = True
                    host.expects += 1
        if host.expects != before or packet.sequence < before or host.early:
            self._send(side, b"")
