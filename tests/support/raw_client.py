"""A client whose every packet is written by hand, on the real cable of the office: what no kernel would send."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from firmware.inspect_lab import ADDRESSES
from firmware.netns import call_in_namespace
from firmware.process import run
from mamori.inspect.packet import ACK, RST, SYN, TCP, Packet, PacketError, parse_packet
from tests.support.crafted import added_up
from tests.support.guarded import Guarded
from tests.support.packets import ipv4, tcp
from tests.support.wait import patience_s

ADDRESS, MAC = "10.79.0.77", bytes.fromhex("020000000077")
ISN = 0xFFFFFFC0
"""The numbers wrap around soon."""

_ETH_P_IP, _ETHERNET_BYTES = 0x0800, 14


@dataclass
class RawClient:
    """One connection from a computer that the office's kernel does not know, so nobody answers in its place."""

    cable: socket.socket
    port: int
    server_mac: bytes
    server_port: int
    answer: int = 0

    @property
    def name(self) -> tuple[str, int]:
        """Address and port, as the server sees them."""
        return ADDRESS, self.port

    def segment(self, offset: int, data: bytes = b"", flags: int = ACK, *, urgent: int = 0, options: bytes = b"") -> bytes:
        """A TCP segment with these bytes of the stream, and a checksum that is right."""
        content = tcp(
            data,
            ports=(self.port, self.server_port),
            sequence=(ISN + 1 + offset) & 0xFFFFFFFF,
            acknowledgement=self.answer if flags & ACK else 0,
            flags=flags,
            window=60_000,
            urgent=urgent,
            options=options,
        )
        pseudo = b"".join(map(socket.inet_aton, self._ends)) + struct.pack(">II", len(content), TCP)
        return content[:16] + (0xFFFF - added_up(pseudo + content)).to_bytes(2, "big") + content[18:]

    def send(self, payload: bytes, *, offset: int = 0, more: bool = False, identification: int = 1) -> None:
        """An IPv4 packet, or a fragment of one, with this in it."""
        ends = socket.inet_aton(ADDRESS), socket.inet_aton(self._ends[1])
        packet = ipv4(payload, TCP, ends=ends, offset=offset, more=more, identification=identification)
        checksum = (0xFFFF - added_up(packet[:20])).to_bytes(2, "big")
        self.cable.send(self.server_mac + MAC + _ETH_P_IP.to_bytes(2, "big") + packet[:10] + checksum + packet[12:])

    def say(self, offset: int, data: bytes = b"", flags: int = ACK, *, urgent: int = 0, options: bytes = b"") -> None:
        self.send(self.segment(offset, data, flags, urgent=urgent, options=options))

    def hear(self, within_s: float) -> list[Packet]:
        """What the server sends to this connection until then."""
        packets, deadline = [], time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0 and select.select([self.cable], [], [], left_s)[0]:
            frame = self.cable.recv(70_000)
            if frame[:6] == MAC and frame[12:14] == _ETH_P_IP.to_bytes(2, "big"):
                with contextlib.suppress(PacketError):
                    packet = parse_packet(memoryview(frame)[_ETHERNET_BYTES:])
                    if packet.protocol == TCP and packet.destination_port == self.port:
                        packets.append(packet)
        return packets

    def connect(self) -> None:
        """The handshake."""
        deadline = time.monotonic() + patience_s(5)
        while time.monotonic() < deadline:
            self.say(-1, flags=SYN)
            for packet in self.hear(0.3):
                if packet.flags & (SYN | ACK) == SYN | ACK:
                    self.answer = (packet.sequence + 1) & 0xFFFFFFFF
                    self.say(0)
                    return
        raise AssertionError("no answer to the SYN")

    @property
    def _ends(self) -> tuple[str, str]:
        return ADDRESS, ADDRESSES["server"][0]


@contextlib.contextmanager
def start_raw_client(box: Guarded, port: int, server_port: int) -> Iterator[RawClient]:
    """A connection that is established when the block is entered, and reset when it is left."""
    command = ["ip", "-n", box.lab.server, "neighbour", "replace", ADDRESS, "lladdr", MAC.hex(":"), "dev", "eth0"]
    run(command, explain="tell the server the way")
    mac = box.lab.at(box.lab.server, "cat", "/sys/class/net/eth0/address", explain="read the server's address").strip()
    with call_in_namespace(box.lab.client, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) as cable:
        cable.bind(("eth0", 3))
        client = RawClient(cable, port, bytes.fromhex(mac.replace(":", "")), server_port)
        client.connect()
        yield client
        client.say(0, flags=RST)
