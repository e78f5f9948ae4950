"""A hostile sender against the kernel's own TCP and IP, with the box between them: what the victim reads is what the box read.

The sender is written down packet by packet and sits on a tap; the victim is a socket of Linux in a network namespace.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace, open_tap, start_namespace
from firmware.process import run
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.packet import ACK, FIN, RST, SYN, TCP, parse_packet
from tests.support.need import need
from tests.support.packets import UDP, ipv4, seeded, tcp, udp
from tests.support.wait import patience_s
from tests.support.wire import Box

ATTACKER, VICTIM, PORT = "10.80.0.1", "10.80.0.2", 7777
ENDS = socket.inet_aton(ATTACKER), socket.inet_aton(VICTIM)
MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SOURCE_PORT, ISN = 40000, 0xFFFFFFF0  # the numbers wrap around after 15 bytes

# struct virtio_net_hdr: a TCP checksum that is still to be filled in (NEEDS_CSUM), which passes for a good one; one to be
# checked, and ours are wrong (TCP) or absent (UDP).
VALID, CHECKED = struct.pack("=BBHHHH", 1, 0, 0, 0, 14 + 20, 16), bytes(10)

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def need_taps() -> None:
    need(os.geteuid() == 0 and Path("/dev/net/tun").exists(), "network namespaces and taps need root and /dev/net/tun")


@dataclass
class Attack:
    """A cable to the victim; without a box, packets reach it as they are."""

    namespace: str
    tap: int
    box: Box | None

    def send(self, packet: bytes, checksum: bytes = CHECKED) -> None:
        """One IPv4 packet, whose header gets its checksum."""
        header = packet[:20]
        value = -int.from_bytes(header, "big") % 0xFFFF
        frame = checksum + MAC[1] + MAC[0] + b"\x08\0" + header[:10] + struct.pack("!H", value) + packet[12:]
        for passed in self.box.pass_on(frame, 0.0) if self.box else [frame]:
            os.write(self.tap, passed)

    def say(self, offset: int, data: bytes = b"", flags: int = ACK, *, checksum: bytes = VALID, answer: int = 0) -> None:
        """A TCP segment with these bytes of the stream."""
        segment = tcp(
            data, ports=(SOURCE_PORT, PORT), sequence=(ISN + 1 + offset) & 0xFFFFFFFF, acknowledgement=answer, flags=flags
        )
        self.send(ipv4(segment, TCP, ends=ENDS), checksum)

    def hear(self, within_s: float = 0.0) -> list[bytes]:
        """The packets of the victim, each through the box."""
        packets = []
        while select.select([self.tap], [], [], within_s)[0]:
            frame = os.read(self.tap, 70_000)
            if frame[22:24] == b"\x08\0":
                packets.append(frame[24:])
                if self.box:
                    self.box.pass_on(frame, 0.0)
            within_s = 0.0
        return packets

    def connect(self, listener: socket.socket) -> tuple[socket.socket, int]:
        """The victim's end after a handshake, and the number that acknowledges it."""
        self.say(-1, flags=SYN)
        deadline = time.monotonic() + patience_s(5)
        while time.monotonic() < deadline:
            for packet in map(parse_packet, self.hear(within_s=0.1)):
                if packet.flags & (SYN | ACK) == SYN | ACK:
                    answer = (packet.sequence + 1) & 0xFFFFFFFF
                    self.say(0, answer=answer)
                    return listener.accept()[0], answer
        raise AssertionError("no answer to the SYN")


@contextlib.contextmanager
def start_attack(*, box: bool) -> Iterator[Attack]:
    with start_namespace(f"mamori-victim-{os.getpid()}-{next(_numbers)}") as namespace:
        tap = open_tap(namespace, "cable")
        try:
            for argv in (
                ["link", "set", "cable", "address", MAC[1].hex(":")],
                ["address", "add", f"{VICTIM}/24", "dev", "cable"],
                ["neighbour", "add", ATTACKER, "lladdr", MAC[0].hex(":"), "dev", "cable"],
            ):
                run(["ip", "-n", namespace, *argv], explain="set the victim up")
            yield Attack(namespace, tap, Box() if box else None)
        finally:
            os.close(tap)


@contextlib.contextmanager
def start_talk(*, box: bool = True) -> Iterator[tuple[Attack, socket.socket, int]]:
    with start_attack(box=box) as attack:
        listener = call_in_namespace(attack.namespace, lambda: socket.create_server((VICTIM, PORT)))
        with listener:
            listener.settimeout(patience_s(5))
            victim, answer = attack.connect(listener)
            with victim:
                yield attack, victim, answer


def read_now(victim: socket.socket) -> bytes:
    """What the victim's program can read."""
    victim.settimeout(0.05)
    heard = bytearray()
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := victim.recv(65_536):
            heard += data
    return bytes(heard)


def test_without_the_box_linux_reads_the_copy_that_came_second() -> None:
    # Why conflicting copies must not be forwarded: the larger segment replaces what waits (tcp_data_queue_ofo).
    with start_talk(box=False) as (attack, victim, answer):
        attack.say(5, b"good ", answer=answer)
        attack.say(4, b" evil !", answer=answer)
        attack.say(0, b"very", answer=answer)
        assert read_now(victim) == b"very evil !"


def test_with_the_box_linux_reads_the_copy_that_came_first() -> None:
    with start_talk() as (attack, victim, answer):
        attack.say(5, b"good ", answer=answer)
        attack.say(4, b" evil !", answer=answer)
        attack.say(0, b"very ", answer=answer)
        assert read_now(victim) == b"very good "
        assert attack.box is not None
        assert attack.box.readings[0].said[ORIGINATOR].startswith(b"very good ")


SIZE = 120


def assault(attack: Attack, chance: random.Random, answer: int, copies: tuple[bytes, ...], wrong_checksums: float) -> None:
    """Segments of any copy of the stream in any order, with forged RSTs, SYNs and FINs among them; at last all of the first."""
    for _ in range(60):
        start = chance.randrange(SIZE)
        end = min(SIZE, start + chance.choice([1, 3, 10, 40]))
        checksum = CHECKED if chance.random() < wrong_checksums else VALID
        attack.say(start, chance.choice(copies)[start:end], checksum=checksum, answer=answer)
        match chance.randrange(20):
            case 0:
                attack.say(chance.choice([start + 100_000, start + SIZE]), b"", RST, answer=answer)
            case 1:
                attack.say(chance.choice([-1, start]), b"", SYN)
            case 2:
                attack.say(start, b"", FIN | ACK, checksum=CHECKED, answer=answer)
            case 3:
                attack.say(SIZE + (8 << 20), b"far", answer=answer)
        attack.hear()
    for start in range(0, SIZE, 7):
        attack.say(start, copies[0][start : min(SIZE, start + 7)], answer=answer)
    attack.hear(within_s=0.05)


@pytest.mark.parametrize("seed", range(12))
def test_what_linux_reads_of_a_hostile_stream_is_what_the_box_read(seed: int) -> None:
    chance = seeded(seed)
    copies = chance.randbytes(SIZE), chance.randbytes(SIZE), bytes(SIZE)
    wrong_checksums = 0.1 if seed % 3 == 0 else 0.0
    with start_talk() as (attack, victim, answer):
        assault(attack, chance, answer, copies[: 1 + seed % 4], wrong_checksums)
        heard = read_now(victim)
        assert attack.box is not None
        said = bytes(max(attack.box.readings, key=lambda reading: len(reading.said[ORIGINATOR])).said[ORIGINATOR])
    assert said.startswith(heard)
    if seed % 4 == 0 and not wrong_checksums:
        assert heard == copies[0]  # an honest stream out of order, with forged control segments around it


BODY = bytes(range(64))
DATAGRAM = udp(BODY, ports=(SOURCE_PORT, PORT))


def part(low: int, high: int, fill: bytes = b"") -> bytes:
    """Bytes `low` to `high` of the datagram, or `fill`, as an IPv4 fragment."""
    body = fill * (high - low) if fill else DATAGRAM[low:high]
    return ipv4(body, UDP, ends=ENDS, offset=low, more=high < len(DATAGRAM))


FRAGMENTS = {
    "in order": [part(0, 24), part(24, 48), part(48, 72)],
    "backwards": [part(48, 72), part(24, 48), part(0, 24)],
    "a copy of one": [part(0, 24), part(24, 48), part(0, 24), part(48, 72)],
    "a copy of a piece of one": [part(0, 48), part(8, 24), part(48, 72)],
    "a copy of two at once": [part(0, 24), part(24, 48), part(0, 48), part(48, 72)],
    "the tail overlaps": [part(0, 32), part(24, 48), part(48, 72)],
    "the head overlaps": [part(24, 48), part(48, 72), part(0, 32)],
    "one covers another": [part(24, 32), part(0, 48), part(48, 72)],
    "other bytes in an overlap": [part(0, 32), part(24, 48, b"x"), part(48, 72)],
}


def hear_datagram(attack: Attack, fragments: list[bytes]) -> bytes:
    """What the victim's program gets; nothing if Linux does not put these together."""
    with call_in_namespace(attack.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as victim:
        victim.bind((VICTIM, PORT))
        victim.settimeout(0.2)
        for fragment in fragments:
            attack.send(fragment)
        try:
            return victim.recv(65_535)
        except TimeoutError:
            return b""


@pytest.mark.parametrize("fragments", FRAGMENTS.values(), ids=FRAGMENTS)
def test_fragments_are_put_together_or_discarded_as_linux_does(fragments: list[bytes]) -> None:
    heard = []
    for box in (False, True):
        with start_attack(box=box) as attack:
            heard.append(hear_datagram(attack, fragments))
    alone, behind_the_box = heard
    assert alone == behind_the_box
    assert alone in (BODY, b"")


def test_a_copy_with_other_bytes_discards_the_datagram_though_linux_would_keep_the_first() -> None:
    fragments = [part(0, 24), part(24, 48), part(24, 48, b"x"), part(48, 72)]
    with start_attack(box=False) as attack:
        assert hear_datagram(attack, fragments) == BODY
    with start_attack(box=True) as attack:
        assert hear_datagram(attack, fragments) == b""
