"""One worker process: a queue of the kernel in, verdicts out, and between them the engine, the scanner and the sender of events.

One thread, one loop, nothing that blocks: a file system that hangs or a scanner that is stuck must not stop the office's traffic.
What is read from disk (policy, lists) is small or mapped, and read at most every RELOAD_EVERY_S; a new one that cannot be read
leaves the old one in force.

Each worker has the queue `first_queue + number`; flows stay on one worker because the kernel chooses the queue by the two
addresses (nfqueue/rules.py).
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamori.events.record import own_event
from mamori.events.sender import EventSender
from mamori.formats.release import EarlyBridge, Release
from mamori.inspect.commands import Accept, BeginScan, CancelScan, Drop, FeedScan, FinishScan, GlanceScan, Replace, Tally, Tell
from mamori.inspect.engine import Engine
from mamori.inspect.lifeline import open_worker_end
from mamori.inspect.memory import SCANNER_LEAST_MIB, read_memory_mib
from mamori.inspect.nfqueue.messages import Verdict, encode_verdict, requeue
from mamori.inspect.nfqueue.queue import Queue, Settings, start_queue
from mamori.inspect.nfqueue.rules import DECIDED_MARK, SURICATA_DONE_MARK, SURICATA_QUEUE
from mamori.inspect.scan.scanner import FILE_BACKLOG_BYTES, Scanner, ScanSettings
from mamori.inspect.scan.verdicts import Clean, Infected, Scanned
from mamori.inspect.sources import JudgeSource
from mamori.paths import Device

RELOAD_EVERY_S = 1.0
"""How often policy and lists are looked at: a change that a person makes is in force before the next click."""

REPORT_EVERY_S = 2.0
"""How often the worker says that it is alive, and how it is."""

BUGS_EVERY_S = 60.0
"""A bug is told once in so long; all are counted."""

BEHIND_BYTES = FILE_BACKLOG_BYTES // 4
"""What clamd may have left to take of a file before its sender is stopped. What a sender has under way then still fits."""

IDLE_S = 1.0
"""The longest sleep."""

_STATM = Path("/proc/self/statm")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PACKET_ID = (1 << 32) - 1
_DONE = 1 << 32
"""Beside the packet's number in the engine's token: the signature engine wants no more of its connection."""

_ACCEPT = int(Verdict.ACCEPT)  # a member of an Enum is looked up more slowly
_GC_THRESHOLD = 50_000
"""Collections of young objects are for cycles, which the data path does not make; at the default of 700 they cost 5 % of it."""


@dataclass(frozen=True)
class WorkerSettings:
    """`inside` is the port that the office is on; `signatures` the queue of the signature engine, None without one."""

    number: int
    first_queue: int
    fail_open: bool
    inside: str
    signatures: int | None
    clamd: Path | None
    hash_list: Path | None
    events: Path


def run_device_worker(device: Device, release: Release, number: int, log: Callable[[int, str], None]) -> None:
    """The worker of an appliance."""
    settings = WorkerSettings(
        number=number,
        first_queue=0,
        fail_open=release.early_bridge is EarlyBridge.FORWARD,
        inside=release.bridge.ports[1],
        signatures=SURICATA_QUEUE,
        clamd=device.clamd_socket if read_memory_mib() >= SCANNER_LEAST_MIB else None,
        hash_list=device.hash_list,
        events=device.events_socket,
    )
    source = JudgeSource(device.policy, device.accepted_policy, device.lists, lambda text: log(4, text))
    run_worker(settings, source, log)


def run_worker(settings: WorkerSettings, source: JudgeSource, log: Callable[[int, str], None]) -> None:
    """Inspect until SIGTERM, or until the supervisor is gone. MamoriError when the queue cannot be had."""
    stop, stopped = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(stopped, warn_on_full_buffer=False)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    # The supervisor waits for its signals with them blocked, and a mask is inherited through exec (signal(7)).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    judge = source.load()
    gc.freeze()  # what is loaded lives as long as the process: no collection need look at it
    with start_queue(Settings(settings.first_queue + settings.number, settings.fail_open)) as queue:
        worker = _Worker(settings, source, queue, log)
        worker.engine = Engine(judge, wall_offset_s=time.time() - time.monotonic())
        worker.run(stop)


class _Worker:
    """The loop's parts; `engine` is set before it runs."""

    engine: Engine

    def __init__(self, settings: WorkerSettings, source: JudgeSource, queue: Queue, log: Callable[[int, str], None]) -> None:
        now = time.monotonic()
        self._settings = settings
        self._source = source
        self._queue = queue
        self._number = queue.settings.number
        self._log = log
        self._sender = EventSender(settings.events)
        self._scanner = Scanner(ScanSettings(settings.clamd, settings.hash_list), now)
        self._supervisor = open_worker_end()
        self._inside = _interface_number(settings.inside)
        self._report_at = self._reload_at = now
        self._bugs, self._bug_told_at = 0, -BUGS_EVERY_S
        self._handed_on = 0
        self._lagging: set[int] = set()  # files that have just fallen behind
        self._behind: set[int] = set()  # and those of which the engine knows it
        # Past the signature engine when it is away, whatever `fail` says: that is about us. It takes minutes to load its rules,
        # and a small box has none.
        self._to_signatures = requeue(settings.signatures, bypass=True) if settings.signatures is not None else None

    def run(self, stop: int) -> None:
        poll = select.epoll()
        ends = {stop} if self._supervisor is None else {stop, self._supervisor.fileno()}
        for descriptor in (self._queue.fileno(), self._scanner.fileno(), *ends):
            poll.register(descriptor, select.EPOLLIN)
        try:
            while True:
                now = time.monotonic()
                ready = {descriptor for descriptor, _ in poll.poll(self._timeout(now))}
                if ready & ends:
                    break
                now = time.monotonic()
                if self._scanner.fileno() in ready:
                    self._scanner.on_ready(now)
                if self._queue.fileno() in ready:
                    self._receive(now)
                self._on_timers(now)
                self._carry_out(now)
        finally:
            self.engine.close()
            self._carry_out(time.monotonic())
            self._sender.close()

    def _timeout(self, now: float) -> float:
        deadlines = (self.engine.next_deadline(), self._scanner.next_deadline(), self._sender.next_deadline(), self._report_at)
        return max(0.0, min(min((each for each in deadlines if each is not None), default=now) - now, IDLE_S))

    def _receive(self, now: float) -> None:
        receive, inside = self.engine.receive, self._inside
        for packet in self._queue.receive():
            try:
                receive(
                    packet.id | _DONE if packet.mark & SURICATA_DONE_MARK else packet.id,
                    packet.payload,
                    packet.info,
                    is_inside=packet.physindev == inside,
                    mac=packet.hw_address,
                    now=now,
                )
            except Exception:
                verdict = Verdict.ACCEPT if self._settings.fail_open else Verdict.DROP
                self._queue.send([encode_verdict(self._queue.settings.number, packet.id, verdict)])
                self._note_bug()

    def _note_bug(self) -> None:
        """Something that our own code cannot bear. To end here would let one host take down the inspection of all others, again and
        again; so the packet gets the verdict that it would have without us, and the bug is told, once a minute."""
        trace = traceback.format_exc()
        self._bugs += 1
        if time.monotonic() >= self._bug_told_at + BUGS_EVERY_S:
            self._bug_told_at = time.monotonic()
            self._log(3, trace)
            text = f"a bug of the inspection: {trace.strip().splitlines()[-1]}"
            self._sender.send(own_event(time.time(), "bug", text))

    def _on_timers(self, now: float) -> None:
        try:
            self.engine.on_timer(now)
        except Exception:  # what was due is done with; what else waits is so by the next call
            self._note_bug()
        self._scanner.on_timer(now)
        self._sender.flush(now)
        if now >= self._report_at:
            self._report_at = now + REPORT_EVERY_S
            self._inside = _interface_number(self._settings.inside)
            self.engine.set_wall_offset(time.time() - now)
            self._report(now)
        if now >= self._reload_at:
            self._reload_at = now + RELOAD_EVERY_S
            judge = self._source.reload()
            if judge is not None:
                self.engine.set_judge(judge)
                self._report(now)

    def _carry_out(self, now: float) -> None:
        """Do what the engine wants, and what follows from the scanner's answers, until there is nothing more."""
        while True:
            verdicts: list[bytes] = []
            for command in self.engine.take_commands():
                if command.__class__ is Accept:  # what nearly all are, and three times as fast as `match`
                    verdicts.append(self._accept(command))
                else:
                    self._do(command, verdicts, now)
            if verdicts:
                self._queue.send(verdicts)
            results, glances = self._scanner.take_results(), self._scanner.take_glances()
            for health in self._scanner.take_changes():
                self._tell_health(health.condition.value, health.reason)
            if not self._follow_backlogs(now) and not results and not glances:
                return
            for result in results:
                try:
                    self._scanned(result, now)
                except Exception:  # what waits for the file does so until its time is over
                    self._note_bug()
            for file in glances:  # after the results, for what was found is one of them
                self.engine.lagging(file, is_behind=False, now=now)

    def _follow_backlogs(self, now: float) -> bool:
        """Have senders stopped whose files clamd cannot take as fast, and let go again; whether the engine was told something."""
        caught_up = [file for file in self._behind if self._scanner.backlog_bytes(file) <= BEHIND_BYTES // 2]
        for file in caught_up:
            self._behind.remove(file)
            self.engine.lagging(file, is_behind=False, now=now)
        lagging, self._lagging = self._lagging, set()
        for file in lagging:
            self._behind.add(file)
            self.engine.lagging(file, is_behind=True, now=now)
        return bool(caught_up or lagging)

    def _scanned(self, result: Scanned, now: float) -> None:
        match result.verdict:
            case Clean():
                self.engine.scanned(result.file, None, None, now)
            case Infected(signature):
                self.engine.scanned(result.file, signature, None, now)
            case unscanned:
                why = f"{unscanned.why.value}: {unscanned.detail}" if unscanned.detail else unscanned.why.value
                self.engine.scanned(result.file, None, why, now)

    def _accept(self, command: Accept) -> bytes:
        token, is_decided, wants_signatures = command
        verdict = _ACCEPT
        if wants_signatures and self._to_signatures is not None and not token & _DONE and self._source.wants_signatures:
            verdict = self._to_signatures
            self._handed_on += 1
        # A mark of 0 would take back the signature engine's.
        return encode_verdict(self._number, token & _PACKET_ID, verdict, mark=DECIDED_MARK if is_decided else None)

    def _do(self, command: object, verdicts: list[bytes], now: float) -> None:
        queue = self._number
        match command:
            case Drop(token):
                verdicts.append(encode_verdict(queue, token & _PACKET_ID, Verdict.DROP))
            case Replace(token, payload):
                verdicts.append(encode_verdict(queue, token & _PACKET_ID, Verdict.ACCEPT, payload=payload))
            case FeedScan(file, data):
                self._scanner.feed(file, data, now)
                if file not in self._behind and self._scanner.backlog_bytes(file) > BEHIND_BYTES:
                    self._lagging.add(file)
            case BeginScan(file, expected_bytes):
                self._scanner.begin(file, expected_bytes)
            case FinishScan(file):
                self._scanner.finish(file, now)
            case GlanceScan(file):
                self._scanner.glance(file, now)
            case CancelScan(file):
                self._scanner.cancel(file, now)
            case Tell(record):
                self._sender.send(record)
            case Tally():
                self._sender.count(*command)

    def _tell_health(self, condition: str, reason: str) -> None:
        text = f"the virus scanner is {condition}" + (f": {reason}" if reason else "")
        self._log(5 if condition == "up" else 4, text)
        event = own_event(time.time(), f"scanner-{condition}", text)
        self._sender.send(event)
        self._report_at = 0.0  # at once: what is reported would be wrong until it is due

    def _report(self, now: float) -> None:
        """For the supervisor and `mamori status`: that we live, and how. See lifeline.py."""
        counters, health = self._queue_counters(), self._scanner.health
        report: dict[str, Any] = {
            "number": self._settings.number,
            "pid": os.getpid(),
            "at_monotonic_s": round(now, 3),
            "flows": self.engine.flows,
            "held_bytes": self.engine.held_bytes,
            "unread_bytes": self.engine.unread_bytes,
            "memory_bytes": _resident_bytes(),
            "bugs": self._bugs,
            "handed_on": self._handed_on,
            "queue": counters,
            "scanner": {"condition": health.condition.value, "reason": health.reason, "database": health.database},
            "policy": self._source.describe(),
        }
        if self._supervisor is not None:
            self._supervisor.send(report)

    def _queue_counters(self) -> dict[str, int]:
        counters = self._queue.counters()
        return {name: getattr(counters, name) for name in ("received", "overrun", "refused", "no_memory", "malformed")}


def _interface_number(name: str) -> int:
    """The kernel's number for a port; 0, which no packet has, while it is not there."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _resident_bytes() -> int:
    """Memory that this process has now: proc_pid_statm(5)."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
