"""Tricks on a real cable: whatever a client does to its segments, no server has a request to a blocked site from it.

The client is a socket of Linux where that can do the trick, and else one whose packets are written by hand; the victim is Linux.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from mamori.inspect.packet import ACK, FIN, PSH, RST, SYN, URG
from tests.support.guarded import start_guarded
from tests.support.packets import seeded
from tests.support.raw_client import RawClient, start_raw_client
from tests.support.scanned import serve
from tests.support.wait import check_until, patience_s
from tests.support.web import Phase, Sink, Web, hear, say, start_web

POLICY = """
[block]
names = ["bad.example"]
"""
PORT, ANSWER_PORT = 8082, 8083
BAD = b"GET /secret HTTP/1.1\r\nHost: www.bad.example\r\nAccept: */*\r\n\r\n"
GOOD = BAD.replace(b"bad", b"fin")
SIZE = len(BAD)
_ports = itertools.count(20_000)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("evasion")
    with start_guarded(folder, name="evas") as box, start_web(box, folder) as web:
        yield web


@pytest.fixture(scope="module")
def sink(web: Web) -> Iterator[Sink]:
    sink = Sink()
    with serve(web.listen("server", PORT), sink.talk):
        yield sink


@pytest.fixture(scope="module", params=Phase, ids=lambda phase: phase.value)
def phase(web: Web, request: pytest.FixtureRequest) -> Phase:
    phase: Phase = request.param
    web.box.set_policy(POLICY if phase is Phase.BLOCKED else "")
    return phase


def random_pieces(seed: int) -> list[bytes]:
    chance = seeded(seed)
    places = sorted({0, SIZE, *(chance.randrange(SIZE) for _ in range(12))})
    return [BAD[start:end] for start, end in itertools.pairwise(places)]


PIECES = {
    "byte by byte": [BAD[at : at + 1] for at in range(SIZE)],
    "cut in the name": [BAD[:30], BAD[30:]],
    "all but the last byte": [BAD[:-1], BAD[-1:]],
    "empty lines first": [b"\r\n", b"\r\n", BAD],
    "in random pieces": random_pieces(1),
    "in other random pieces": random_pieces(2),
    "behind a harmless one": [GOOD, BAD],
    "behind a form": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=", b"b", BAD],
    "behind a form in chunks": [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n", BAD],
    "behind a cookie of 100 KB": [BAD.replace(b"Accept", b"Cookie: " + 100_000 * b"c" + b"\r\nAccept")],
}


@pytest.mark.parametrize("case", PIECES)
def test_a_request_in_pieces_of_a_kernels_making(web: Web, sink: Sink, phase: Phase, case: str) -> None:
    pieces = PIECES[case]
    with web.connect(PORT) as client:
        say(client, pieces)
        if phase is Phase.BLOCKED:
            answer = hear(client)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 403 "), "the connection ends in any case"
            assert not sink.of(client).endswith(BAD[-20:]) or b"bad" not in sink.of(client)
        else:
            check_until("the server has it", lambda: sink.of(client) == b"".join(pieces), within_s=5)


@dataclass(frozen=True)
class Part:
    """A segment: bytes `start` to `end` of a request."""

    start: int
    end: int = SIZE
    of: bytes = BAD
    flags: int = ACK | PSH
    has_checksum: bool = True


def fragments(client: RawClient, order: list[int], of: bytes = BAD) -> None:
    """One segment in IPv4 fragments of 16 bytes."""
    content = client.segment(0, of)
    places = list(range(0, len(content), 16))
    for number in order:
        at = places[number]
        client.send(content[at : at + 16], offset=at, more=at != places[-1])


COUNT = -(-(20 + SIZE) // 16)
HONEST: dict[str, list[Part]] = {
    "in order": [Part(0, 20), Part(20, 40), Part(40)],
    "backwards": [Part(at, at + 5) for at in range(0, SIZE, 5)][::-1],
    "the middle last": [Part(0, 25), Part(45), Part(25, 45)],
    "everything twice": [part for at in range(0, SIZE, 10) for part in (Part(at, at + 10), Part(at, at + 10))],
    "overlapping": [Part(0, 30), Part(10, 40), Part(5, 50), Part(30)],
    "overlapping backwards": [Part(30), Part(20, 50), Part(10, 40), Part(0, 20)],
}
"""What lossy networks make of an honest client's segments."""

TRICKS: dict[str, list[Part]] = {
    "a harmless copy in front": [Part(20, of=GOOD), Part(20), Part(0, 20)],
    "a harmless copy behind": [Part(20), Part(20, of=GOOD), Part(0, 20)],
    "a harmless copy of another size": [Part(30, 50, GOOD), Part(20), Part(0, 20), Part(20)],
    "a harmless copy after it was read": [Part(0, 40), Part(0, 40, GOOD), Part(40)],
    "the name again after it was read": [Part(0, 50, GOOD), Part(20, 50), Part(50), Part(20)],
    "a harmless copy with a wrong checksum": [Part(0, of=GOOD, has_checksum=False), Part(0)],
    "a harmless head with a wrong checksum": [Part(0, 40, GOOD, has_checksum=False), Part(0, 40), Part(40)],
    "a harmless copy without ACK": [Part(0, of=GOOD, flags=0), Part(0)],
    "a harmless copy with SYN": [Part(0, of=GOOD, flags=SYN), Part(0)],
    "a harmless copy with FIN and a wrong checksum": [Part(0, of=GOOD, flags=ACK | FIN, has_checksum=False), Part(0)],
    "a reset with a wrong checksum": [Part(0, 20), Part(20, 20, flags=RST, has_checksum=False), Part(20)],
    "a reset out of the window": [Part(0, 20), Part(9_000_000, 9_000_000, flags=RST), Part(20)],
    "a reset inside the window": [Part(0, 20), Part(500, 500, flags=RST), Part(20)],
    "a SYN in the middle": [Part(0, 20), Part(-1, -1, flags=SYN), Part(20)],
    "an end that comes early": [Part(0, 20), Part(SIZE, flags=ACK | FIN), Part(20)],
}


def run_parts(client: RawClient, parts: list[Part]) -> None:
    for part in parts:
        content = client.segment(part.start, part.of[part.start : part.end] if part.start >= 0 else b"", part.flags)
        if not part.has_checksum:
            content = content[:16] + bytes([content[16] ^ 0x55]) + content[17:]
        client.send(content)
        time.sleep(0.002)
    client.hear(0.05)


ENDS: dict[str, Callable[[RawClient], None]] = {
    "fragments in order": lambda client: fragments(client, list(range(COUNT))),
    "fragments backwards": lambda client: fragments(client, list(range(COUNT))[::-1]),
    "fragments twice": lambda client: fragments(client, [*range(COUNT - 1), *range(COUNT)]),
}


@pytest.mark.parametrize("case", [*HONEST, *ENDS])
def test_segments_in_any_order_arrive_and_none_is_too_much_for_the_filter(web: Web, sink: Sink, phase: Phase, case: str) -> None:
    with start_raw_client(web.box, next(_ports), PORT) as client:
        if case in HONEST:
            run_parts(client, HONEST[case])
        else:
            ENDS[case](client)
        if phase is Phase.BLOCKED:
            client.hear(0.1)
            assert len(sink.heard(client.name)) < SIZE
        else:
            check_until("the server has it", lambda: sink.heard(client.name) == BAD, within_s=5)


@pytest.mark.parametrize("case", TRICKS)
def test_no_trick_gets_a_request_to_a_blocked_site_through(web: Web, sink: Sink, phase: Phase, case: str) -> None:
    with start_raw_client(web.box, next(_ports), PORT) as client:
        for _ in range(2):  # what was dropped is sent again
            run_parts(client, TRICKS[case])
        heard = sink.heard(client.name)
        assert phase is not Phase.BLOCKED or not (b"www.bad.example" in heard and heard.endswith(b"\r\n\r\n"))
        assert BAD.startswith(heard) or GOOD.startswith(heard), "no mixture of both, whatever the policy"


def test_urgent_bytes_that_a_program_does_not_read_do_not_hide_a_name(web: Web, sink: Sink, phase: Phase) -> None:
    # The victim's kernel takes the urgent byte out of the stream, the one before the pointer (RFC 6093, 2.1): without the box it
    # reads "bad". The box takes the pointer away, so that all read the same.
    middle = BAD.index(b"bad") + 1
    hidden = BAD[:middle] + b"X" + BAD[middle:]
    with start_raw_client(web.box, next(_ports), PORT) as client:
        client.say(0, hidden, ACK | PSH | URG, urgent=middle + 1)
        client.hear(0.1)
        assert sink.heard(client.name) == hidden, phase


ANSWERS = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\n" + bytes(50),
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    "chunks of an odd size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n",
}


def test_an_answer_that_is_read_in_two_ways_ends_at_once_for_a_client_that_only_waits(web: Web) -> None:
    answers: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(answers[-1])
        hear(peer)

    log = '[evasion]\nmode = "log"\n'
    with serve(web.listen("server", ANSWER_PORT), talk):
        for policy in (log, "", log):
            web.box.set_policy(policy)
            for answer in ANSWERS.values():
                answers.append(answer)
                with web.connect(ANSWER_PORT) as client:
                    client.sendall(GOOD)
                    started = time.monotonic()
                    heard = hear(client, len(answer))
                    assert (heard == answer) == (policy == log)
                    assert time.monotonic() - started < patience_s(3)
    web.box.set_policy("")
