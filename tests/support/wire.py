"""A cable between two hosts with a box in its middle, bad on both sides of it: frames get lost, doubled and overtaken.

The hosts are network namespaces with the kernel's own TCP, their network cards are taps, and the cable is a thread here. So
nothing is needed that a kernel may lack (netem), and the box sees what a bridge sees, super-packets included.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import select
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from firmware.netns import open_tap, start_namespace
from firmware.process import run
from mamori.inspect.flow import Flow, FlowTable, State
from mamori.inspect.fragments import Discarded, FragmentTable, Reassembled
from mamori.inspect.packet import ACK, TCP, Packet, parse_packet
from mamori.inspect.reassembly import Closed, ConflictSeen, Data, Refused, Restarted, Retransmitted, StreamEvent, UrgentSeen
from tests.support.packets import seeded

HOSTS = ("client", "server")
ADDRESSES = {"client": ("10.79.0.1", "fd79::1"), "server": ("10.79.0.2", "fd79::2")}
PORT = "cable"

_TUNSETOFFLOAD, _TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 0x400454D0, 1, 2, 4  # linux/if_tun.h
_MAX_FRAME_BYTES = 70_000
_VNET_BYTES, _ETHERNET_BYTES = 10, 14  # struct virtio_net_hdr; two addresses and a type
_IP = (b"\x08\x00", b"\x86\xdd")
_IDLE_S = 0.005

_numbers = itertools.count()


@dataclass
class Trouble:
    """Shares of frames; `forged` ones are followed by a copy with other bytes at the end of its payload, as an attacker who
    sits behind the sender would send it."""

    lost: float = 0
    doubled: float = 0
    overtaken: float = 0
    forged: float = 0
    chance: random.Random = field(default_factory=lambda: seeded(1))
    late: list[bytes] = field(default_factory=list)

    def suffer(self, frame: bytes) -> list[bytes]:
        """What becomes of a frame; one that is overtaken waits for `rest`, or for a few others."""
        draw = self.chance.random
        if draw() < self.lost:
            return []
        if draw() < self.overtaken:
            self.late.append(frame)
            return self.rest() if len(self.late) > 3 else []
        frames = [frame]
        if draw() < self.forged and _has_payload(frame):
            frames.append(frame[:-8] + b"FORGED!!")
        if draw() < self.doubled:
            frames.append(frame)
        return frames + (self.rest() if self.late and draw() < 0.3 else [])

    def rest(self) -> list[bytes]:
        """Those that wait, the last one first."""
        frames, self.late = self.late[::-1], []
        return frames


class Box:
    """What a bridge would do with this core: hold fragments, read streams, drop what is not part of a stream as it is read."""

    def __init__(self) -> None:
        self.flows: FlowTable[Reading, None] = FlowTable()
        self.readings: list[Reading] = []
        self.fragments = FragmentTable()
        self.reassembled: list[bytes] = []
        self.discarded: list[Discarded] = []
        self.largest = 0
        self._held: dict[int, bytes] = {}
        self._tokens = itertools.count()

    def pass_on(self, frame: bytes, now: float) -> list[bytes]:
        """The frames to forward now that this one has come."""
        if frame[_VNET_BYTES + 12 : _VNET_BYTES + 14] not in _IP:
            return [frame]
        data = memoryview(frame)[_VNET_BYTES + _ETHERNET_BYTES :]
        packet = parse_packet(data)
        assert not packet.missing_bytes
        self.largest = max(self.largest, len(packet.payload))
        if packet.fragment:
            return self._hold(frame, data, packet, now)
        return [frame] if self._read(packet, now) else []

    def _hold(self, frame: bytes, data: memoryview, packet: Packet, now: float) -> list[bytes]:
        token = next(self._tokens)
        self._held[token] = frame
        frames = []
        for event in self.fragments.receive(data, packet, now, token):
            parts = [self._held.pop(token) for token in event.tokens]
            if isinstance(event, Reassembled):
                self.reassembled.append(event.data)
                if self._read(parse_packet(event.data), now):
                    frames += parts
            else:
                self.discarded.append(event)
        return frames

    def _read(self, packet: Packet, now: float) -> bool:
        """Whether the packet may go on."""
        flow, direction = self.flows.receive(packet, now)
        if packet.protocol != TCP:
            return True
        if flow.inspector is None:
            flow.inspector = Reading(flow)
            self.readings.append(flow.inspector)
        events = flow.stream(direction).receive(packet.sequence, packet.payload, packet.flags, packet.urgent)
        flow.inspector.take(direction, events)
        if packet.flags & ACK:
            flow.inspector.take(1 - direction, flow.stream(1 - direction).acknowledge(packet.acknowledgement))
        doubtful = any(isinstance(event, Retransmitted) and event.unknown_bytes for event in events)
        return not doubtful and not any(isinstance(event, ConflictSeen | Refused) for event in events)


class Reading:
    """What was read of a connection: both streams, and how often which event came."""

    def __init__(self, flow: Flow[Reading, None]) -> None:
        self.flow = flow
        self.said = bytearray(), bytearray()
        self.urgent: list[int] = []
        self.said_in_syn = False
        self.counts: Counter[type[StreamEvent]] = Counter()

    def take(self, direction: int, events: list[StreamEvent]) -> None:
        for event in events:
            self.counts[type(event)] += 1
            if isinstance(event, Data):
                assert event.start == len(self.said[direction])
                self.said_in_syn = self.said_in_syn or self.flow.state is State.OPENING
                self.said[direction].extend(event.data)
            elif isinstance(event, Restarted):
                self.said[direction].clear()
            elif isinstance(event, UrgentSeen):
                self.urgent.append(event.at)

    @property
    def closed(self) -> bool:
        """Whether both sides have said that they are done."""
        return self.counts[Closed] >= 2


@dataclass(frozen=True)
class Wire:
    """`namespaces` by host; `box` is what is in the middle."""

    namespaces: dict[str, str]
    box: Box


@contextlib.contextmanager
def start_wire(before: Trouble | None = None, after: Trouble | None = None, *, offload: bool = False) -> Iterator[Wire]:
    """Two hosts at ADDRESSES, with trouble before and after the box for frames of the server; all gone after the block.

    With `offload`, hosts leave segmentation to the cable, which lets super-packets through.
    """
    name, box = f"mamori-wire-{os.getpid()}-{next(_numbers)}", Box()
    with contextlib.ExitStack() as stack:
        namespaces = {host: stack.enter_context(start_namespace(f"{name}-{host}")) for host in HOSTS}
        taps = []
        for host in HOSTS:
            taps.append(open_tap(namespaces[host], PORT))
            stack.callback(os.close, taps[-1])
            if offload:
                fcntl.ioctl(taps[-1], _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
            for address, bits in zip(ADDRESSES[host], ("/24", "/64"), strict=True):
                add = ["ip", "-n", namespaces[host], "address", "add", address + bits, "dev", PORT]
                run([*add, *(["nodad"] if ":" in address else [])], explain="give a host its address")
        stop, stopping = os.pipe()
        stack.callback(os.close, stop)
        errors: list[BaseException] = []
        roads = {taps[0]: (taps[1], Trouble(), Trouble()), taps[1]: (taps[0], before or Trouble(), after or Trouble())}
        thread = threading.Thread(target=_relay, args=(roads, stop, box, errors), name="wire")
        thread.start()
        try:
            yield Wire(namespaces, box)
        finally:
            os.close(stopping)
            thread.join()
        if errors:
            raise errors[0]


def _relay(roads: dict[int, tuple[int, Trouble, Trouble]], stop: int, box: Box, errors: list[BaseException]) -> None:
    try:
        for turn in itertools.count():
            ready, _, _ = select.select([*roads, stop], [], [], _IDLE_S)
            if stop in ready:
                return
            for tap, (peer, before, after) in roads.items():
                arrived = before.suffer(os.read(tap, _MAX_FRAME_BYTES)) if tap in ready else before.rest() if not ready else []
                passed = [out for frame in arrived for out in box.pass_on(frame, turn * 1e-6)]
                delivered = [out for frame in passed for out in after.suffer(frame)] + (after.rest() if not ready else [])
                for frame in delivered:
                    os.write(peer, frame)
    except BaseException as error:  # it is raised again where the wire was started
        errors.append(error)


def _has_payload(frame: bytes) -> bool:
    if frame[_VNET_BYTES + 12 : _VNET_BYTES + 14] not in _IP:
        return False
    packet = parse_packet(memoryview(frame)[_VNET_BYTES + _ETHERNET_BYTES :])
    return packet.protocol == TCP and len(packet.payload) >= 8
