"""Whatever clamd answers and whenever it closes, each file gets one verdict, and nothing is left over."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.formats.problems import BadInputError
from mamori.inspect.scan.clamd import MAX_SIGNATURE_CHARACTERS, Version, parse_answer, parse_version
from mamori.inspect.scan.hashes import MAX_NAME_BYTES, HashList, encode_hashes, parse_hashes
from mamori.inspect.scan.health import Condition
from mamori.inspect.scan.scanner import ANSWER_TIMEOUT_S, Scanner, ScanSettings
from mamori.inspect.scan.verdicts import Clean, Infected, Unscanned

ANSWERS = st.sampled_from(
    [b"stream: OK\0", b"stream: Virus FOUND\0", b"ClamAV 1.4.6/1/x\0", b"stream: OK", b"stre", b"x ERROR\0", b"\0", b"x" * 5000]
)
DIGESTS = st.binary(min_size=32, max_size=32)


@given(st.binary() | st.lists(ANSWERS | st.sampled_from([b" ", b": ", b"FOUND", b"Heuristics.Encrypted"])).map(b"".join))
def test_any_answer_is_a_verdict(answer: bytes) -> None:
    verdict = parse_answer(answer)
    text = verdict.signature if isinstance(verdict, Infected) else verdict.detail if isinstance(verdict, Unscanned) else ""
    assert len(text) <= MAX_SIGNATURE_CHARACTERS
    assert text.isprintable()
    assert not isinstance(verdict, Clean) or answer.rstrip(b"\r\n\0 ").endswith(b": OK")


@given(st.binary() | st.builds(lambda rest: b"ClamAV" + rest + b"\0", st.binary()))
def test_any_answer_is_a_version_or_none(answer: bytes) -> None:
    assert isinstance(parse_version(answer), Version | None)


@given(st.lists(st.text() | st.builds(lambda digest, rest: digest.hex() + rest, DIGESTS, st.text()), max_size=5))
def test_any_lines_are_a_list_or_the_one_error(lines: list[str]) -> None:
    with contextlib.suppress(BadInputError):
        entries = parse_hashes(lines, "test")
        hashes = HashList(encode_hashes(entries), "test")
        assert all(hashes.find(digest, length) is not None for digest, length, _ in entries)


@given(
    st.lists(st.tuples(DIGESTS, st.integers(0, 2**64 - 1), st.text(min_size=1, max_size=20)), max_size=5),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6),
    st.binary(max_size=60),
    DIGESTS,
)
def test_a_damaged_list_is_refused_or_gives_some_name(
    entries: list[tuple[bytes, int, str]], damage: list[tuple[int, int]], tail: bytes, digest: bytes
) -> None:
    content = bytearray(encode_hashes(entries) + tail)
    for at, byte in damage:
        content[at % len(content)] = byte
    with contextlib.suppress(BadInputError):
        hashes = HashList(bytes(content), "test")
        for wanted in (digest, *[entry[0] for entry in entries]):
            for length in (0, 2**64 - 1):
                name = hashes.find(wanted, length)
                assert name is None or 0 < len(name) <= MAX_NAME_BYTES


class Peer:
    """Something at clamd's socket that does what it is told to, and not what clamd would."""

    def __init__(self, path: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listening.bind(str(path))
        self._listening.listen(4)
        self._open: list[socket.socket] = []

    def act(self, which: int, action: bytes | str) -> None:
        with contextlib.suppress(OSError):
            if action == "accept":
                connection = self._listening.accept()[0]
                connection.setblocking(False)
                self._open.append(connection)
            elif self._open:
                connection = self._open[which % len(self._open)]
                if action == "read":
                    connection.recv(1 << 20)
                elif action == "close":
                    self._open.remove(connection)
                    connection.close()
                elif isinstance(action, bytes):
                    connection.send(action)

    def close(self) -> None:
        for connection in (self._listening, *self._open):
            connection.close()


@pytest.mark.parametrize("answer", [b"UNKNOWN COMMAND\0", b"HTTP/1.1 400 Bad Request\r\n", b"\0", b"stream: OK\0"])
def test_something_else_at_the_socket_is_not_taken_for_clamd(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "socket"
    with contextlib.closing(Peer(path)) as peer, contextlib.closing(Scanner(ScanSettings(path), 0.0)) as scanner:
        peer.act(0, "accept")
        peer.act(0, answer)
        scanner.on_ready(0.0)
        assert scanner.health.condition is Condition.DOWN
        assert scanner.health.reason == f"clamd answers {answer!r}"


FILES = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["begin", "finish", "cancel"]), FILES),
    st.tuples(st.just("feed"), FILES, st.sampled_from([b"", b"x", b"y" * 1000, b"z" * 70_000, b"z" * 400_000])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 2.1, 16.0, 61.0])),
    st.tuples(st.just("peer"), st.integers(0, 5), ANSWERS | st.binary(max_size=20)),
    st.tuples(st.just("peer"), st.integers(0, 5), st.sampled_from(["accept", "accept", "read", "close"])),
)


@pytest.fixture(scope="module")
def paths() -> Iterator[Iterator[Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield (Path(folder, str(number)) for number in itertools.count())


@given(steps=st.lists(STEPS, max_size=60), does_listen=st.booleans())
def test_every_file_gets_one_verdict_whatever_the_peer_does(
    paths: Iterator[Path], steps: list[tuple[object, ...]], does_listen: bool
) -> None:
    path = next(paths)
    settings = ScanSettings(path, max_sessions=5, file_backlog_bytes=500_000, total_backlog_bytes=800_000, max_scan_bytes=900_000)
    with contextlib.ExitStack() as stack:
        if does_listen:
            peer = stack.enter_context(contextlib.closing(Peer(path)))
        scanner = stack.enter_context(contextlib.closing(Scanner(settings, 0.0)))
        now, open_files, told = 0.0, set[int](), list[int]()
        numbers = dict.fromkeys(range(4), -1)
        for count, step in enumerate(steps):
            match step:
                case ("begin", int(slot)) if numbers[slot] not in open_files:
                    numbers[slot] = count
                    open_files.add(count)
                    scanner.begin(count)
                case ("feed", int(slot), bytes(data)):
                    scanner.feed(numbers[slot], data, now)
                case ("finish", int(slot)):
                    scanner.finish(numbers[slot], now)
                case ("cancel", int(slot)):
                    scanner.cancel(numbers[slot], now)
                    open_files.discard(numbers[slot])
                case ("wait", float(seconds)):
                    now += seconds
                case ("peer", int(which), action) if does_listen:
                    peer.act(which, action)  # type: ignore[arg-type]
            scanner.on_ready(now)
            if now >= scanner.next_deadline():
                scanner.on_timer(now)
            assert scanner.usage().held_bytes <= 800_000 + 400_000
            assert scanner.usage().open_sessions <= 5
            for scanned in scanner.take_results():
                told.append(scanned.file)
                open_files.discard(scanned.file)
        for file in open_files:
            scanner.finish(file, now)
        scanner.on_timer(now + ANSWER_TIMEOUT_S)
        told += [scanned.file for scanned in scanner.take_results()]
        usage = scanner.usage()
    assert len(told) == len(set(told))
    assert open_files <= set(told)
    assert (usage.open_files, usage.open_sessions, usage.held_bytes, usage.streamed_bytes) == (0, 0, 0, 0)


@given(st.binary(max_size=300), st.lists(st.integers(0)))
def test_a_file_is_the_same_however_it_is_cut(content: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(content), *[cut % (len(content) + 1) for cut in cuts]})
    entry = (hashlib.sha256(content).digest(), len(content), "Virus")
    with tempfile.NamedTemporaryFile() as file:
        file.write(encode_hashes([entry]))
        file.flush()
        with contextlib.closing(Scanner(ScanSettings(None, Path(file.name)), 0.0)) as scanner:
            scanner.begin(1)
            for start, end in itertools.pairwise(places):
                scanner.feed(1, content[start:end], 0.0)
            scanner.finish(1, 0.0)
            assert [scanned.verdict for scanned in scanner.take_results()] == [Infected("Virus")]
