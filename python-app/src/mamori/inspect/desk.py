"""What all connections of one engine share: the policy in force, the commands that go out, timers, and short memories."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Event, Function, Heading
from mamori.inspect.commands import Command, Tally, Tell
from mamori.inspect.findings import Coding
from mamori.inspect.judge import Judge
from mamori.inspect.unread import Unread

MAX_HELD_BYTES = 16 << 20
"""Packets that wait for a verdict on their file, of one engine: 250 super-packets. Beyond it the oldest is let go by the policy's
word on what could not be scanned."""

MAX_HELD_PACKETS = 1024
"""And so many of them: half of what the kernel's queue takes (nfqueue.queue, MAX_LENGTH). When that is full, everybody's packets
pass unseen, or none does: one sender of tiny segments must not bring that about."""

MAX_INFECTED = 4096
"""Addresses that are remembered as infected. A retry comes within minutes; a day's finds of an office are a handful."""

INFECTED_FOR_S = 3600.0
"""How long. After that the file is scanned again: it may have been replaced by a clean one."""

MAX_EXPECTED = 1024
"""FTP data connections that were agreed on and have not come."""

EXPECTED_FOR_S = 120.0
"""vsftpd waits 60 s for the client to connect (connect_timeout, accept_timeout), others two minutes."""

UNSEEN_EVERY_S = 60.0
"""A reason why files were not seen is told once in so long; all of them are counted. A scanner that is away is one such."""

MAX_REASONS = 64
"""Reasons that are remembered for that; they are texts of ours, and few."""

PASSED = "passed"
"""A flow's final verdict."""


MAX_TEXTS = 8192
"""Addresses whose text is remembered: an office's, and what it talks to at one time."""

IP_BYTES = (4, 16)


class Timed(Protocol):
    """Who wants to be called when its time has come."""

    def on_timer(self, now: float) -> None: ...


class ScanOwner(Protocol):
    """Who waits for the verdict on a file."""

    def scanned(self, file: int, signature: str | None, unseen: str | None) -> None: ...
    def lagging(self, file: int, is_behind: bool) -> None: ...


class Owner(ScanOwner, Timed, Protocol):
    """Both: a connection."""


@dataclass(frozen=True, slots=True)
class Parties:
    """Who talks: the computer in the office and its peer. MAC "" where unknown; addresses are text."""

    heading: Heading
    terminal_mac: str
    terminal: str
    peer: str
    peer_port: int


class ExpectedData:
    """An FTP data connection that is on its way; filled in further when the command comes that says what it carries."""

    __slots__ = ("coding", "expires_at", "is_part", "name", "subject")

    def __init__(self, name: str, coding: Coding, subject: str, is_part: bool, expires_at: float) -> None:
        self.name, self.coding, self.subject, self.is_part, self.expires_at = name, coding, subject, is_part, expires_at


class Desk:
    """See the module. `out` collects commands until the engine takes them; `wall_offset_s` turns the engine's clock into Unix
    time for events."""

    def __init__(self, judge: Judge, wall_offset_s: float = 0.0) -> None:
        self.judge = judge
        self.out: list[Command] = []
        self.wall_offset_s = wall_offset_s
        self.now = 0.0
        self.held_bytes = self.held_packets = 0
        self.unread = Unread()
        self.next_scan = 1
        self.scans: dict[int, tuple[ScanOwner, int]] = {}
        self._infected: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._expected: OrderedDict[tuple[bytes, int], ExpectedData] = OrderedDict()
        self._reasons: dict[str, float] = {}
        self._texts: dict[bytes, str] = {}
        self._timers: list[tuple[float, int, Timed]] = []
        self._timer_number = 0

    def tell(
        self,
        parties: Parties,
        function: Function,
        action: Action,
        protocol: str,
        subject: str,
        *,
        list_name: str = "",
        category: str = "",
        detail: str = "",
    ) -> None:
        """An event about this conversation."""
        if len(subject) > MAX_SUBJECT_CHARACTERS:
            subject = subject[: MAX_SUBJECT_CHARACTERS - 1] + "…"
        at_s = self.now + self.wall_offset_s
        self.out.append(
            Tell(
                Event(
                    at_s,
                    function,
                    action,
                    parties.heading,
                    parties.terminal_mac,
                    parties.terminal,
                    parties.peer,
                    parties.peer_port,
                    protocol,
                    subject,
                    list_name,
                    category,
                    detail,
                )
            )
        )

    def tally(
        self, parties: Parties, function: Function, unit: str, category: str = "", scanned: int = 1, blocked: int = 0
    ) -> None:
        """For the statistics."""
        self.out.append(Tally(function, unit, parties.terminal_mac, parties.terminal, category, scanned, blocked))

    def hold(self, data: memoryview) -> None:
        """A packet waits."""
        self.held_bytes += len(data)
        self.held_packets += 1

    def let_go(self, data: memoryview) -> None:
        """It does not wait any more."""
        self.held_bytes -= len(data)
        self.held_packets -= 1

    @property
    def holds_too_much(self) -> bool:
        return self.held_bytes > MAX_HELD_BYTES or self.held_packets > MAX_HELD_PACKETS

    def text_of(self, address: bytes) -> str:
        """An IP or MAC address, the same string for all flows that it has: 200 bytes of each flow less."""
        text = self._texts.get(address)
        if text is None:
            if len(self._texts) >= MAX_TEXTS:
                self._texts.clear()
            text = self._texts[address] = address_text(address) if len(address) in IP_BYTES else mac_text(address)
        return text

    def set_timer(self, at: float, timed: Timed) -> None:
        """Call `timed.on_timer` then. A timer cannot be taken back; who is called too early looks at the time."""
        self._timer_number += 1
        heapq.heappush(self._timers, (at, self._timer_number, timed))

    def next_timer(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def fire_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].on_timer(now)

    def is_news(self, reason: str) -> bool:
        """Whether this reason for not seeing a file was not told just now."""
        told_at = self._reasons.get(reason)
        if told_at is not None and self.now < told_at + UNSEEN_EVERY_S:
            return False
        if len(self._reasons) >= MAX_REASONS:
            self._reasons.clear()
        self._reasons[reason] = self.now
        return True

    def remember_infected(self, address: str, signature: str) -> None:
        """The file at this address (a URL, or an FTP server and path) was infected."""
        self._infected.pop(address, None)
        self._infected[address] = signature, self.now + INFECTED_FOR_S
        while len(self._infected) > MAX_INFECTED:
            self._infected.popitem(last=False)

    def recall_infected(self, address: str) -> str | None:
        """The signature, if the file at this address was infected lately."""
        found = self._infected.get(address) if self._infected else None
        return found[0] if found is not None and found[1] > self.now else None

    def expect(self, listener: bytes, port: int, name: str, coding: Coding, subject: str, is_part: bool) -> None:
        """A data connection to this address and port will come; a second word on the same one adds what it carries."""
        expires_at = self.now + EXPECTED_FOR_S
        known = self._expected.get((listener, port))
        if known is not None:
            known.name, known.coding, known.subject, known.expires_at = name or known.name, coding, subject, expires_at
            known.is_part = is_part
            return
        self._expected[listener, port] = ExpectedData(name, coding, subject, is_part, expires_at)
        while len(self._expected) > MAX_EXPECTED:
            self._expected.popitem(last=False)

    def take_expected(self, listener: bytes, port: int) -> ExpectedData | None:
        """Whether a connection to there was agreed on. It stays for the word that may still come, until it expires."""
        if not self._expected:
            return None
        found = self._expected.get((listener, port))
        return found if found is not None and found.expires_at > self.now else None


def address_text(address: bytes) -> str:
    """4 or 16 bytes as `ipaddress` writes them."""
    return str(ip_address(address))


def mac_text(mac: bytes) -> str:
    """aa:bb:cc:dd:ee:ff"""
    return mac.hex(":")
