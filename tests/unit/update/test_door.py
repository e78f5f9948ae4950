"""The updater's socket: those who ask are answered, and those who only connect hold nobody up."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mamori.formats.problems import MamoriError
from mamori.update.door import CLIENT_WITHIN_S, MAX_CLIENTS, MAX_COMMAND_BYTES, Door, bound

LONG = "x" * 2_000_000


class Box:
    """A door with a loop that is turned by hand; `now` is its clock."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self.door, self.path, self.now = Door(listener, self._obey), path, 100.0
        self.obeyed: list[str] = []

    def _obey(self, command: str) -> Mapping[str, Any]:
        self.obeyed.append(command)
        if command == "no":
            raise MamoriError("it cannot be")
        return {"text": LONG} if command == "long" else {"heard": command}

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            poll = select.poll()
            for descriptor, events in self.door.wanted():
                poll.register(descriptor, events)
            self.door.serve({descriptor for descriptor, _ in poll.poll(20)}, self.now)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(2)
        client.connect(str(self.path))
        return client

    def ask(self, said: bytes) -> dict[str, Any]:
        with self.connect() as client:
            client.sendall(said)
            self.turn()
            return read(client)


def read(client: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        more = client.recv(65536)
        if not more:
            break
        data += more
    answer: dict[str, Any] = json.loads(data)
    return answer


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with bound(tmp_path / "socket") as listener:
        box = Box(listener, tmp_path / "socket")
        with contextlib.closing(box.door):
            yield box
    assert not (tmp_path / "socket").exists()


def test_who_asks_is_answered(box: Box) -> None:
    assert box.ask(b'{"command": "status"}') == {"ok": True, "heard": "status"}
    assert box.ask(b'{"command": "no"}\n') == {"ok": False, "problem": "it cannot be"}


GARBAGE = {
    "no JSON": b"status\n",
    "no end": b'{"command": ' + b'"' + b"x" * MAX_COMMAND_BYTES,
    "nested": b"[" * 4000 + b"\n",
    "no text": b"\xff\xfe\n",
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_answered_too(box: Box, said: bytes) -> None:
    assert box.ask(said) == {"ok": False, "problem": "not a command in JSON"}
    assert box.obeyed == []


@pytest.mark.parametrize("said", [b"[]", b"7", b"{}", b"null"])
def test_json_without_a_command_is_none(box: Box, said: bytes) -> None:
    assert box.ask(said) == {"ok": True, "heard": "None"}


def test_a_question_may_come_in_pieces(box: Box) -> None:
    with box.connect() as client:
        for piece in (b'{"comm', b'and": "st', b'atus"}'):
            client.sendall(piece)
            box.turn()
        assert read(client)["heard"] == "status"
    assert box.obeyed == ["status"], "once"


def test_those_who_say_nothing_hold_nobody_up_and_are_sent_away(box: Box) -> None:
    silent = [box.connect() for _ in range(MAX_CLIENTS - 1)]
    box.turn()
    started = time.monotonic()
    assert box.ask(b'{"command": "status"}')["ok"]
    assert time.monotonic() - started < 1
    box.now += CLIENT_WITHIN_S
    box.turn()
    for client in silent:
        assert client.recv(1) == b""
        client.close()


def test_who_comes_when_all_places_are_taken_waits_for_one(box: Box) -> None:
    silent = [box.connect() for _ in range(MAX_CLIENTS)]
    box.turn(MAX_CLIENTS + 1)
    with box.connect() as late:
        late.sendall(b'{"command": "status"}')
        box.turn()
        assert box.obeyed == []
        box.now += CLIENT_WITHIN_S
        box.turn()
        assert read(late)["ok"]
    for client in silent:
        client.close()


def test_who_does_not_take_the_answer_holds_nobody_up(box: Box) -> None:
    with box.connect() as lazy:
        lazy.sendall(b'{"command": "long"}')
        box.turn()
        assert box.ask(b'{"command": "status"}')["ok"]
        box.now += CLIENT_WITHIN_S
        box.turn()
        assert len(box.door.wanted()) == 1, "only the listener is left"


def test_a_long_answer_comes_whole(box: Box) -> None:
    with box.connect() as client:
        client.sendall(b'{"command": "long"}')
        data = b""
        while not data.endswith(b"\n"):
            box.turn(1)
            with contextlib.suppress(TimeoutError):
                client.settimeout(0.05)
                data += client.recv(1 << 20)
        assert json.loads(data)["text"] == LONG


def test_who_leaves_early_is_forgotten(box: Box) -> None:
    for said in (b"", b'{"command": "long"}'):
        client = box.connect()
        client.sendall(said)
        client.close()
    box.turn()
    box.turn()
    assert len(box.door.wanted()) == 1
