"""A capture file through the engine, as if its packets came by now: what would have been told, as JSON lines.

`mamori inspect --pcap FILE` makes any capture a test. Time is the capture's own. Nothing can be held or cut any more, so what a
blocked sender did afterwards is what it did in the capture. Files are not sent to a scanner: each is told with its length and its
SHA-256, so that it can be looked up.

Which side is the office, a capture does not say: a private address (RFC 1918, RFC 4193) is inside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mamori.events.record import Event
from mamori.formats.problems import MamoriError
from mamori.inspect.applications import own_applications
from mamori.inspect.capture import CaptureError, read_capture
from mamori.inspect.commands import BeginScan, CancelScan, FeedScan, FinishScan, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.judge import Judge, Lists
from mamori.inspect.lists.listfile import ListFile
from mamori.inspect.packet import PacketError, parse_packet
from mamori.inspect.policy import Policy
from mamori.inspect.policy_file import read_policy
from mamori.inspect.sources import NoLists


def replay_capture(path: Path, policy: Path | None, lists: Path | None) -> Iterator[str]:
    """JSON lines: each event, each whole file, and at the end a summary. MamoriError if a file cannot be read; a capture that is
    damaged in its middle gives what came before."""
    if policy is not None and not policy.exists():
        raise MamoriError(f"{policy}: there is no such file")
    found: Lists = NoLists() if lists is None else ListFile.open(lists)

    judge = Judge(read_policy(policy) if policy is not None else Policy(), found, own_applications())
    try:
        with path.open("rb") as file:
            yield from _Replay(Engine(judge)).run(file, str(path))
    except OSError as error:
        raise MamoriError(f"{path}: cannot be read: {error.strerror}") from None


class _Replay:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._files: dict[int, tuple[Any, int]] = {}
        self._packets = self._events = 0

    def run(self, file: Any, name: str) -> Iterator[str]:
        problem = ""
        try:
            for captured in read_capture(file):
                self._packets += 1
                now = captured.at_s
                deadline = self._engine.next_deadline()
                if deadline is not None and deadline <= now:
                    self._engine.on_timer(now)
                    yield from self._take(now)
                inside = _is_inside(captured.data)
                self._engine.receive(
                    self._packets, memoryview(captured.data), 0, is_inside=inside, mac=captured.source_mac, now=now
                )
                yield from self._take(now)
        except CaptureError as error:
            if not self._packets:
                raise MamoriError(f"{name}: {error}") from None
            problem = str(error)
        self._engine.close()
        yield from self._take(0.0)
        yield json.dumps({"kind": "summary", "packets": self._packets, "events": self._events, "problem": problem})

    def _take(self, now: float) -> Iterator[str]:
        while commands := self._engine.take_commands():
            for command in commands:
                match command:
                    case Tell(record):
                        self._events += isinstance(record, Event)
                        kind = "event" if isinstance(record, Event) else "terminal"
                        yield json.dumps({"kind": kind, **_plain(asdict(record))}, ensure_ascii=False)
                    case BeginScan(number):
                        self._files[number] = hashlib.sha256(), 0
                    case FeedScan(number, data):
                        digest, size = self._files[number]
                        digest.update(data)
                        self._files[number] = digest, size + len(data)
                    case FinishScan(number):
                        digest, size = self._files.pop(number)
                        yield json.dumps({"kind": "file", "at_s": now, "size_bytes": size, "sha256": digest.hexdigest()})
                        self._engine.scanned(number, None, None, now)
                    case CancelScan(number):
                        self._files.pop(number, None)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in fields.items()}


def _is_inside(data: bytes) -> bool:
    """Whether the sender's address is one that only an office has."""
    try:
        return ip_address(parse_packet(data).source).is_private
    except PacketError:
        return False
