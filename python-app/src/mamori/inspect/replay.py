"""A capture file through the engine, as if its packets came by now: what would have been told, as JSON lines.

    event      what `mamori events` would show, with the fields of events/record.py
    terminal   a computer of the office said its name
    file       a file went by: its length, its SHA-256, and the signature if `hashes` has it
    count      at the end: how much was looked at and blocked, as in `mamori statistics`
    summary    the last line; `problem` says where a damaged capture ends

`mamori inspect --pcap FILE` makes any capture a test. Time is the capture's own, and goes forward only. Nothing can be held or cut
any more, so what a blocked sender did afterwards is what it did in the capture. There is no clamd: files are looked up by their
hash. What the kernel does is missing but for `block.addresses`: feeds of addresses, limits on floods, and Suricata.

Which side is the office, a capture does not say: an address of a private network is inside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO

from mamori.events.escape import printable_json
from mamori.events.record import Action, Event, Function, Heading, Record, TerminalSeen
from mamori.events.wire import encode_record
from mamori.formats.problems import MamoriError
from mamori.inspect.applications import own_applications
from mamori.inspect.capture import Captured, CaptureError, read_capture
from mamori.inspect.commands import BeginScan, CancelScan, Command, FeedScan, FinishScan, GlanceScan, Tally, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.hearing import Names, read_name
from mamori.inspect.judge import Judge
from mamori.inspect.lists.listfile import ListFile
from mamori.inspect.packet import Packet, PacketError, parse_packet
from mamori.inspect.policy import Policy
from mamori.inspect.policy_file import read_policy
from mamori.inspect.scan.hashes import HashList, open_hashes
from mamori.inspect.sources import CarefulLists, NoLists

MAX_TOLD_PAIRS = 10_000
"""Pairs of addresses whose drops are told once each."""

_INSIDE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")))
"""RFC 1918, 3927, 4193, and RFC 4291, section 2.5.6."""


def replay_capture(path: Path, policy: Path | None = None, lists: Path | None = None, hashes: Path | None = None) -> Iterator[str]:
    """JSON lines without their ends; see the module. MamoriError if a file cannot be read; a capture that is damaged in its middle
    gives what came before."""
    if policy is not None and not policy.exists():
        raise MamoriError(f"{policy}: No such file or directory")
    complaints: list[str] = []
    found = NoLists() if lists is None else CarefulLists(ListFile.open(lists), complaints.append)
    judge = Judge(read_policy(policy) if policy is not None else Policy(), found, own_applications())
    known = open_hashes(hashes) if hashes is not None else None
    try:
        with path.open("rb") as file:
            yield from _Replay(judge, known, complaints).run(file, str(path))
    except OSError as error:
        raise MamoriError(f"{path}: cannot be read: {error.strerror}") from None


class _Replay:
    def __init__(self, judge: Judge, hashes: HashList | None, complaints: list[str]) -> None:
        self._judge = judge
        self._engine = Engine(judge)
        self._hashes = hashes
        self._complaints = complaints
        self._names = Names()
        self._files: dict[int, tuple[Any, int]] = {}
        self._sums: dict[tuple[str, str, str], list[int]] = {}
        self._told_pairs: set[tuple[bytes, bytes]] = set()
        self._packets = self._events = 0

    def run(self, file: BinaryIO, name: str) -> Iterator[str]:
        now, problem = 0.0, ""
        try:
            for captured in read_capture(file):
                # The engine's clock only goes forward; captures of several interfaces are out of order by a little.
                now = max(now, captured.at_s)
                self._packets += 1
                yield from self._receive(captured, now)
        except CaptureError as error:
            if not self._packets:
                raise MamoriError(f"{name}: {error}") from None
            problem = str(error)
        self._engine.close()
        yield from self._take(now)
        for (function, unit, category), (scanned, blocked) in sorted(self._sums.items()):
            yield _line(
                {"kind": "count", "function": function, "unit": unit, "category": category, "scanned": scanned, "blocked": blocked}
            )
        problem = "; ".join(filter(None, (problem, *self._complaints)))
        yield _line({"kind": "summary", "packets": self._packets, "events": self._events, "problem": problem})

    def _receive(self, captured: Captured, now: float) -> Iterator[str]:
        engine, data = self._engine, memoryview(captured.data)
        deadline = engine.next_deadline()
        if deadline is not None and deadline <= now:
            engine.on_timer(now)
            yield from self._take(now)
        try:
            packet = parse_packet(data)
        except PacketError:
            packet = None
        inside = packet is not None and _is_inside(packet.source)
        if inside:
            yield from self._hear(data, captured.source_mac, now)
        if packet is not None and self._is_dropped(packet):
            yield from self._tell_drop(packet, captured.source_mac if inside else b"", now)
            return
        engine.receive(self._packets, data, 0, is_inside=inside, mac=captured.source_mac, now=now)
        yield from self._take(now)

    def _hear(self, data: memoryview, mac: bytes, now: float) -> Iterator[str]:
        said = read_name(data, mac)
        if said is not None:
            self._names.hear(said, now)
        for name in self._names.take(now):
            yield _record_line(TerminalSeen(now, name.mac, name.address, name.name, name.source))

    def _is_dropped(self, packet: Packet) -> bool:
        """Whether the kernel would not have let it come to the engine: see nfqueue/rules.py, render_known_bad."""
        judge, ends = self._judge, (packet.source, packet.destination)
        return any(map(judge.blocks_address, ends)) and not any(map(judge.allows_address, ends))

    def _tell_drop(self, packet: Packet, mac: bytes, now: float) -> Iterator[str]:
        """Online it is a number of packets in a minute."""
        pair = packet.source, packet.destination
        if pair in self._told_pairs or len(self._told_pairs) >= MAX_TOLD_PAIRS:
            return
        self._told_pairs.add(pair)
        self._events += 1
        is_bad_source = self._judge.blocks_address(packet.source)
        bad, other = (str(ip_address(end)) for end in (pair if is_bad_source else pair[::-1]))
        heading, what = (Heading.INBOUND, "from bad") if is_bad_source else (Heading.OUTBOUND, "to bad")
        port = packet.source_port if is_bad_source else packet.destination_port
        yield _record_line(
            Event(
                now,
                Function.ADDRESS,
                Action.BLOCKED,
                heading,
                mac.hex(":"),
                other,
                bad,
                port,
                "",
                bad,
                what,
                what.replace(" ", "-"),
            )
        )

    def _take(self, now: float) -> Iterator[str]:
        while commands := self._engine.take_commands():
            for command in commands:
                yield from self._carry_out(command, now)

    def _carry_out(self, command: Command, now: float) -> Iterator[str]:
        match command:
            case Tell(record):
                self._events += isinstance(record, Event)
                yield _record_line(record)
            case Tally(function=function, unit=unit, category=category, scanned=scanned, blocked=blocked):
                total = self._sums.setdefault((function.value, unit, category), [0, 0])
                total[0] += scanned
                total[1] += blocked
            case BeginScan(file=number):
                self._files[number] = hashlib.sha256(), 0
            case FeedScan(number, data):
                digest, size = self._files[number]
                digest.update(data)
                self._files[number] = digest, size + len(data)
            case FinishScan(number):
                digest, size = self._files.pop(number)
                signature = self._hashes.find(digest.digest(), size) if self._hashes is not None else None
                fields = {"at_s": now, "size_bytes": size, "sha256": digest.hexdigest(), "signature": signature or ""}
                yield _line({"kind": "file", **fields})
                self._engine.scanned(number, signature, None, now)
            case GlanceScan(number):
                self._engine.lagging(number, is_behind=False, now=now)
            case CancelScan(number):
                self._files.pop(number, None)


def _record_line(record: Record) -> str:
    """As it would have been sent to the writer, so that no text off the wire can break a line or a terminal."""
    return printable_json(encode_record(record).decode())


def _line(value: dict[str, object]) -> str:
    return printable_json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _is_inside(address: bytes) -> bool:
    """Whether the address is one that only an office has."""
    parsed = ip_address(address)
    return any(parsed in network for network in _INSIDE)
