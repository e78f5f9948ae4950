"""Packets of one direction that wait, in order, and the bytes of the stream that are to be written over.

A packet waits until its deadline, until the window is full (the oldest goes), or until it is let go. While a file's verdict is
out (`wait_until`) nothing goes before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mamori.inspect.findings import Coding
from mamori.inspect.packet import Packet

WINDOW_S = 0.05
"""How long a packet with bytes of a mail or a file waits for the rest of the file. Senders write a mail of some packets at once; a
longer one is slowed down by this for each round trip of its slow start, which nobody notices in mail."""

WINDOW_BYTES = 64 << 10
"""How much waits in the window. Most attachments with harmful scripts are smaller; a sender's window is larger, so it goes on."""

TAIL_S = 0.02
"""How long the last packet that has come of a download of unknown length waits for the next one or for the end. Servers write
the last, empty chunk, or FIN, at once after the rest; whoever pauses (a page that goes on for ever) is slowed down by no more."""


class Queued(NamedTuple):
    """A packet as it came: its tokens (several if it was reassembled from fragments), its bytes from the IP header on, the
    kernel's info flags (nfqueue.messages.Info), whether it came from the office, and the MAC it came from."""

    tokens: tuple[int, ...]
    data: memoryview
    info: int
    is_inside: bool
    mac: bytes


@dataclass(slots=True)
class Held:
    """A packet that waits; its payload is [start, end) of the stream. `is_tail`: it has bytes of a file that may be its last."""

    queued: Queued
    packet: Packet
    start: int
    end: int
    deadline: float
    is_tail: bool = False


class Range(NamedTuple):
    """Bytes of the stream, and how they may be written over."""

    start: int
    end: int
    coding: Coding


class HoldQueue:
    """One direction's waiting packets and its overwrite map."""

    __slots__ = ("_bytes", "_tails", "overwrites", "packets", "wait_until")

    def __init__(self) -> None:
        self.packets: list[Held] = []  # not a deque: an empty one takes 760 bytes, and few packets ever wait
        self.overwrites: list[Range] = []
        self.wait_until: float | None = None
        self._bytes = self._tails = 0

    @property
    def held_bytes(self) -> int:
        return self._bytes

    @property
    def is_idle(self) -> bool:
        """Whether packets may pass without a look: nothing waits, and nothing is to be written over."""
        return not self.packets and not self.overwrites and self.wait_until is None

    def add(self, held: Held) -> None:
        """It waits behind those that wait."""
        self.packets.append(held)
        self._bytes += len(held.queued.data)
        self._tails += held.is_tail

    def covers(self, start: int, end: int) -> bool:
        """Whether bytes of this range wait."""
        return any(held.start < end and start < held.end for held in self.packets)

    def take_due(self, now: float, window_bytes: int | None = WINDOW_BYTES) -> list[Held]:
        """The packets whose wait is over, or for which the window has no room, in order: never one before an older one."""
        if self.wait_until is not None and now < self.wait_until:
            return []
        due = []
        room = self._bytes if window_bytes is None else window_bytes
        while self.packets and (self.packets[0].deadline <= now or self._bytes > room):
            due.append(self._pop())
        return due

    def take_read(self, offset: int, now: float) -> list[Held]:
        """The packets that begin up to this offset, to which all was read. One behind a hole waits for what fills it, or is due."""
        taken = []
        while self.packets and (self.packets[0].start <= offset or self.packets[0].deadline <= now):
            taken.append(self._pop())
        return taken

    def take_before_tail(self, offset: int) -> list[Held]:
        """All before the last packet that may end a file: what comes after a piece of a file shows that this was not its end. All
        was read up to the offset; what begins behind it waits for what fills the hole. So what a scanner held up goes at once when
        that is over; else all that follows would wait behind it, packet for packet."""
        taken = []
        while self.wait_until is None and self.packets:
            first = self.packets[0]
            if self._tails <= 1 and (first.is_tail or first.start > offset):
                break
            taken.append(self._pop())
        return taken

    def take_all(self) -> list[Held]:
        return [self._pop() for _ in range(len(self.packets))]

    def has_due(self, now: float) -> bool:
        """Whether a packet would go now because its time is over."""
        return self.wait_until is None and bool(self.packets) and self.packets[0].deadline <= now

    def next_deadline(self) -> float | None:
        """When `take_due` has something to give; None if nothing waits."""
        if not self.packets:
            return None
        return self.packets[0].deadline if self.wait_until is None else self.wait_until

    def overwrite(self, start: int, end: int, coding: Coding) -> None:
        """Write over these bytes whenever they pass."""
        if self.overwrites and self.overwrites[-1].end == start and self.overwrites[-1].coding is coding:
            start = self.overwrites.pop().start
        self.overwrites.append(Range(start, end, coding))

    def overwrites_in(self, start: int, end: int) -> list[Range]:
        return [each for each in self.overwrites if each.start < end and start < each.end]

    def forget_before(self, offset: int) -> None:
        """The receiver has everything before this: no retransmission of it is read."""
        if self.overwrites and self.overwrites[0].end <= offset:
            self.overwrites = [each for each in self.overwrites if each.end > offset]

    def _pop(self) -> Held:
        held = self.packets.pop(0)
        self._bytes -= len(held.queued.data)
        self._tails -= held.is_tail
        return held
