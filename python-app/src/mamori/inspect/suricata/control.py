"""Suricata's control socket: a command and its answer, each one line of JSON over a Unix stream (user guide, "Unix Socket").

    {"version": "0.2"}                      ─▶  {"return": "OK"}
    {"command": "ruleset-stats"}            ─▶  {"return": "OK", "message": …}
    {"command": …, "arguments": {…}}        ─▶  {"return": "NOK", "message": "why"}

Suricata answers when it gets to it: while it loads rules, that is a matter of seconds, and when it hangs, never. So every call has
a deadline, and what goes wrong is one error.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mamori.formats.problems import MamoriError

PROTOCOL_VERSION = "0.2"
ANSWER_WITHIN_S = 5.0
"""Commands are answered between two looks at the socket, which are 0.2 s apart (unix-manager.c), by a thread without other work."""
MAX_ANSWER_BYTES = 1024 * 1024
"""The longest answers are counters, 50 KB, and rules that failed, of which a set that passed its test has none."""

_CHUNK_BYTES = 64 * 1024
_CREDENTIALS = struct.Struct("=iII")  # unix(7), struct ucred


class ControlError(MamoriError):
    """Suricata is not there, does not answer in time, or says no."""


@dataclass(frozen=True)
class RulesetStats:
    """What the rules that are in use came from: loaded, refused, and left out because a requirement is not met."""

    loaded: int
    failed: int
    skipped: int


@dataclass(frozen=True)
class TrafficStats:
    """Since Suricata started: packets that it saw, packets that it dropped, alerts, packets of connections that it wanted no more
    of and yet got, and packets that it could not follow for want of memory, which passed."""

    packets: int
    dropped: int
    alerts: int
    bypassed: int
    unfollowed: int


@dataclass(frozen=True)
class Listener:
    """Whether a process listens, and its number; None while others wait for its answer and nobody gets in: it has room for one."""

    listens: bool
    pid: int | None


class SuricataControl:
    """An open control socket."""

    def __init__(self, connection: socket.socket, within_s: float) -> None:
        self._connection, self._within_s = connection, within_s

    def command(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """The message of Suricata's answer."""
        question: dict[str, object] = {"command": name}
        if arguments:
            question["arguments"] = dict(arguments)
        return self._ask(question, name)

    def version(self) -> str:
        return str(self.command("version"))

    def uptime_s(self) -> int:
        return _number(self.command("uptime"))

    def shut_down(self) -> None:
        """Have Suricata end, in order."""
        self.command("shutdown")

    def reload_rules(self) -> None:
        """Start to load the rules again, and return at once. Traffic goes on with the old ones until the new ones are there."""
        self.command("ruleset-reload-nonblocking")

    def reloaded_at(self) -> str:
        """When rules were last loaded, as Suricata writes it: text that changes when a reload is done, and not before."""
        return json.dumps(self.command("ruleset-reload-time"))

    def ruleset_stats(self) -> RulesetStats:
        """How many rules are in force. ControlError as for `command`."""
        engines = self.command("ruleset-stats")
        engine = engines[0] if isinstance(engines, list) and engines else None
        if not isinstance(engine, dict):
            raise ControlError(f"suricata: ruleset-stats: expected a list with one engine, got {_shown(engines)}")
        return RulesetStats(*(_number(engine.get(f"rules_{name}")) for name in ("loaded", "failed", "skipped")))

    def failed_rules(self) -> list[str]:
        """The rules that were refused, each with the reason; a few are enough for people."""
        failed = self.command("ruleset-failed-rules")
        return [json.dumps(one, ensure_ascii=False)[:500] for one in failed[:20]] if isinstance(failed, list) else []

    def traffic_stats(self) -> TrafficStats | None:
        """The counters, which are renewed every few seconds (stats.interval); None before they are there for the first time."""
        try:
            counters = self.command("dump-counters")
        except ControlError as error:
            if "not yet synchronized" in str(error):
                return None
            raise
        return TrafficStats(
            packets=_counter(counters, "decoder", "pkts"),
            dropped=_counter(counters, "ips", "blocked"),
            alerts=_counter(counters, "detect", "alert"),
            bypassed=_counter(counters, "flow_bypassed", "local_capture_pkts"),
            unfollowed=sum(
                _counter(counters, *path)
                for path in (("flow", "memcap"), ("tcp", "ssn_memcap_drop"), ("tcp", "segment_memcap_drop"))
            ),
        )

    def _ask(self, question: Mapping[str, object], name: str) -> object:
        deadline = time.monotonic() + self._within_s
        try:
            self._connection.settimeout(self._within_s)
            self._connection.sendall(json.dumps(question).encode() + b"\n")
            answer = self._receive(deadline, name)
        except TimeoutError:
            raise ControlError(f"suricata: {name}: no answer within {self._within_s:g} s") from None
        except OSError as error:
            raise ControlError(f"suricata: {name}: {error.strerror}") from None
        if not isinstance(answer, dict) or answer.get("return") != "OK":
            said = answer.get("message") if isinstance(answer, dict) else answer
            raise ControlError(f"suricata: {name}: it says no: {_shown(said)}")
        return answer.get("message")

    def _receive(self, deadline: float, name: str) -> object:
        """One answer; it ends with its line."""
        data = bytearray()
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._connection.settimeout(left_s)
            more = self._connection.recv(_CHUNK_BYTES)
            data += more
            if len(data) > MAX_ANSWER_BYTES:
                raise ControlError(f"suricata: {name}: the answer is longer than {MAX_ANSWER_BYTES} bytes")
            if data.endswith(b"\n") or not more:
                break
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise ControlError(f"suricata: {name}: expected JSON, got {_shown(bytes(data[:100]))}") from None


@contextlib.contextmanager
def connect(path: Path, within_s: float = ANSWER_WITHIN_S) -> Iterator[SuricataControl]:
    """The control socket, greeted, as long as the block lasts. Each command may take `within_s`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(within_s)
        try:
            connection.connect(str(path))
        except (OSError, ValueError) as error:
            raise ControlError(f"suricata: {path}: {getattr(error, 'strerror', None) or error}", "is it running?") from None
        control = SuricataControl(connection, within_s)
        control._ask({"version": PROTOCOL_VERSION}, "greeting")
        yield control


def find_listener(path: Path) -> Listener:
    """Who listens on the socket, also if it hangs. Nothing is said to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(str(path))
        except BlockingIOError:
            return Listener(True, None)
        except (OSError, ValueError):
            return Listener(False, None)
        pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Listener(True, int(pid))


def _counter(counters: object, *path: str) -> int:
    """0 where it is missing: Suricata counts some things only once they happened."""
    for key in path:
        counters = counters.get(key) if isinstance(counters, dict) else None
    return counters if isinstance(counters, int) else 0


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise ControlError(f"suricata: expected a number, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return repr(value)[:200]
