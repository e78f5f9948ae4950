"""What a connection costs the inspection in memory, and that all of it comes back."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from mamori.inspect.applications import own_applications
from mamori.inspect.commands import FinishScan
from mamori.inspect.engine import Engine
from mamori.inspect.flow import MAX_FLOWS, TIMEOUTS_S
from mamori.inspect.judge import Judge
from mamori.inspect.packet import UDP
from mamori.inspect.policy import Policy
from mamori.inspect.sources import NoLists
from tests.support import packets
from tests.support.conversation import CLIENT, CLIENT_MAC, SERVER
from tests.support.hellos import python_hello

FLOWS = 500
"""So many are made; a flow of the fifty-thousandth is no larger than these."""

SYN, ACK = 2, 16
REQUEST = b"GET /file HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11)\r\nAccept: */*\r\nCookie: a=b\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 500\r\n\r\n" + b"x" * 500
HELLO = python_hello("www.example.com")
QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01"

Talk = tuple[tuple[int, bytes], ...]


class Office:
    """An engine, and connections of many computers through it. The scanner finds nothing, at once."""

    def __init__(self) -> None:
        self.engine = Engine(Judge(Policy(), NoLists(), own_applications()))
        self.now = 100.0
        self._number = 0

    def tcp(self, port: int, talk: Talk) -> None:
        """A connection on which this is said."""
        ends, ports = self._client(port)
        numbers = [1000, 2000]
        said = [each for sender, text in talk for each in ((sender, text, ACK), (1 - sender, b"", ACK))]
        for side, data, flags in [(CLIENT, b"", SYN), (SERVER, b"", SYN | ACK), (CLIENT, b"", ACK), *said]:
            way = slice(None) if side == CLIENT else slice(None, None, -1)
            segment = packets.tcp(data, ports=ports[way], sequence=numbers[side], acknowledgement=numbers[1 - side], flags=flags)
            self._receive(packets.ipv4(segment, ends=ends[way]), side)
            numbers[side] += len(data) + bool(flags & SYN)

    def dns(self) -> None:
        ends, ports = self._client(53)
        self._receive(packets.ipv4(packets.udp(QUESTION, ports=ports), UDP, ends=ends), CLIENT)
        self._receive(packets.ipv4(packets.udp(QUESTION, ports=ports[::-1]), UDP, ends=ends[::-1]), SERVER)

    def _client(self, port: int) -> tuple[tuple[bytes, bytes], tuple[int, int]]:
        self._number += 1
        return (bytes((10, 1, 0, self._number % 100)), packets.SERVER), (1024 + self._number // 100, port)

    def _receive(self, data: bytes, side: int) -> None:
        engine = self.engine
        engine.receive(1, memoryview(data), 0, is_inside=side == CLIENT, mac=CLIENT_MAC, now=self.now)
        for command in engine.take_commands():
            if isinstance(command, FinishScan):
                engine.scanned(command.file, None, None, self.now)
                engine.take_commands()


KINDS: dict[str, tuple[Callable[[Office], None], int]] = {
    "TLS that is decided": (lambda office: office.tcp(443, ((CLIENT, HELLO), (SERVER, b"\x16\x03\x03\x00\x02xx"))), 600),
    "DNS": (Office.dns, 800),
    "TCP on which nothing was said": (lambda office: office.tcp(443, ()), 2800),
    "HTTP between two requests": (lambda office: office.tcp(80, ((CLIENT, REQUEST), (SERVER, RESPONSE))), 4300),
    "HTTP that waits for its answer": (lambda office: office.tcp(80, ((CLIENT, REQUEST),)), 5200),
}
"""What one may take, in bytes: a seventh more than it does with CPython 3.11."""


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """How much memory is in use."""

    def used_bytes() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start(1)
    yield used_bytes
    tracemalloc.stop()


@pytest.mark.parametrize(("kind", "limit_bytes"), KINDS.values(), ids=KINDS)
def test_a_connection_takes_no_more_than_stated_and_gives_all_of_it_back(
    traced: Callable[[], int], kind: Callable[[Office], None], limit_bytes: int
) -> None:
    office = Office()
    kind(office)
    before = traced()
    for _ in range(FLOWS):
        kind(office)
    assert office.engine.flows == FLOWS + 1
    used = traced() - before
    assert used / FLOWS < limit_bytes
    end(office)
    left = traced() - before
    assert left < FLOWS * TABLES_BYTES
    for _ in range(FLOWS):
        kind(office)
    end(office)
    assert traced() - before < left + FLOWS * SPARE_BYTES


TABLES_BYTES, SPARE_BYTES = 300, 40
"""Of each flow that there was at one time: Python's tables do not shrink. And tuples that it keeps for the next ones, up to
2000 of a length; the smallest object is larger."""


def end(office: Office) -> None:
    """All flows are over."""
    office.now += max(TIMEOUTS_S.values())
    office.engine.on_timer(office.now)
    office.engine.take_commands()
    assert office.engine.flows == 0


def test_a_full_table_of_an_offices_connections_leaves_room_for_the_rest() -> None:
    """Of 50,000, nine of ten are TLS; the app may use 150 MB, of which Python, code and lists take 50."""
    tls, http = KINDS["TLS that is decided"][1], KINDS["HTTP that waits for its answer"][1]
    assert 45_000 * tls + 5000 * http < 60 << 20
    assert MAX_FLOWS * KINDS["TCP on which nothing was said"][1] < 192 << 20, "and a flood does not end the process"
