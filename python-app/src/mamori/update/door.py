"""The updater's socket: a line of JSON in, a line of JSON out, for several clients at once, none of whom can hold up the loop."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mamori.formats.problems import MamoriError

MAX_COMMAND_BYTES = 4096

MAX_CLIENTS = 8
"""The portal, a person, and a few that have hung. Who comes then has to wait in the listener's queue."""

CLIENT_WITHIN_S = 5.0
"""For a client to ask and to take the answer; both ends are on this box."""

_SEND_BYTES = 64 * 1024


@dataclass
class _Client:
    socket: socket.socket
    until: float
    asked: bytearray = field(default_factory=bytearray)
    answer: bytes = b""


class Door:
    """`obey` gets a command's name and gives the answer, or raises MamoriError with words for whoever asked."""

    def __init__(self, listener: socket.socket, obey: Callable[[str], Mapping[str, Any]]) -> None:
        self._listener, self._obey = listener, obey
        self._clients: dict[int, _Client] = {}
        listener.setblocking(False)

    def wanted(self) -> list[tuple[int, int]]:
        """Descriptors and what poll(2) should look for."""
        wanted = [(number, select.POLLOUT if client.answer else select.POLLIN) for number, client in self._clients.items()]
        return wanted if len(wanted) >= MAX_CLIENTS else [(self._listener.fileno(), select.POLLIN), *wanted]

    def serve(self, ready: set[int], now: float) -> None:
        """What can be done at once for those who are `ready`; whoever took too long is sent away."""
        for number, client in list(self._clients.items()):
            if (number in ready and self._is_done(client)) or now >= client.until:
                client.socket.close()
                del self._clients[number]
        if self._listener.fileno() in ready:
            with contextlib.suppress(OSError):  # gone before we came
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                self._clients[accepted.fileno()] = _Client(accepted, now + CLIENT_WITHIN_S)

    def close(self) -> None:
        """Nobody is answered any more."""
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()

    def _is_done(self, client: _Client) -> bool:
        """Go on with this client; whether that was all."""
        try:
            if not client.answer:
                more = client.socket.recv(MAX_COMMAND_BYTES)
                client.asked += more
                answer = self._answer(bytes(client.asked), is_all=not more or len(client.asked) >= MAX_COMMAND_BYTES)
                if answer is None:
                    return False
                client.answer = answer
            client.answer = client.answer[client.socket.send(client.answer[:_SEND_BYTES]) :]
        except BlockingIOError:
            return False
        except OSError:
            return True
        return not client.answer

    def _answer(self, asked: bytes, *, is_all: bool) -> bytes | None:
        """None while more of the question may come."""
        try:
            table = json.loads(asked)
        except (ValueError, RecursionError):
            return _encode({"ok": False, "problem": "not a command in JSON"}) if is_all or asked.endswith(b"\n") else None
        command = table.get("command") if isinstance(table, dict) else None
        try:
            return _encode({"ok": True, **self._obey(str(command))})
        except MamoriError as error:
            return _encode({"ok": False, "problem": str(error)})


def _encode(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode(errors="replace") + b"\n"


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """The socket in the file system: its owner and group may ask."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(8)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
