"""The workers and the rules around them, kept as they ought to be: starts, restarts, loads, and says how it is.

What happens to traffic meanwhile is in the rules (nfqueue/rules.py): with `fail_open` a queue that nobody has lets packets pass. So
workers come and go without the rules being touched, and rules are loaded only when they change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from mamori.durable import write_durably
from mamori.events.record import own_event
from mamori.events.sender import EventSender
from mamori.formats.problems import MamoriError
from mamori.inspect import crew as crews
from mamori.inspect.hearing import Hearing
from mamori.inspect.lifeline import SupervisorEnd
from mamori.inspect.netfilter import Netfilter, load_queue_rules, read_offered
from mamori.inspect.nfqueue.rules import QueueRules
from mamori.inspect.overflow import OverflowWatch, Received
from mamori.inspect.policy_file import PolicyFile, file_identity
from mamori.paths import Device
from mamori.process import Child

MAX_WORKERS = 4
"""More cores than that are for the signature engine and the scanner; a 700 Mbit/s line is one worker's work."""

TICK_S = 0.5
"""How often children and files are looked at."""

UP_WITHIN_S = 15.0
"""How long the rules wait for the workers. After that they are loaded without those that are not there, which go on trying."""

STOP_WITHIN_S = 5.0
"""A worker lets go of what waits in milliseconds."""


KEEP_AGAIN_S = 5.0
"""How often a copy of the policy is tried on a disk that is full."""


COUNT_EVERY_S = 10.0
"""How often it is counted what went past the workers: two calls of a tool, a hundredth of a second."""


class Guard:
    """See the module."""

    def __init__(self, device: Device, *, fail_open: bool, inside: str, log: Callable[[int, str], None]) -> None:
        self._device = device
        self._rules = QueueRules(max(1, min(os.cpu_count() or 1, MAX_WORKERS)), fail_open)
        self._inside = inside
        self._log = log
        self._events = EventSender(device.events_socket)
        self._crew: crews.Crew = {}
        self._children: dict[int, Child] = {}
        self._lines: dict[int, SupervisorEnd] = {}
        self._reports: dict[int, dict[str, Any]] = {}
        self._tick_at = 0.0
        self._netfilter = Netfilter(device.address_feeds, self._events.send, log)
        self._hearing = Hearing(inside, self._events.send, log)
        self._policy = PolicyFile(device.policy, device.accepted_policy, self._refuse_policy)
        self._policy.load()
        self._is_open = False
        self._open_at = 0.0
        self._is_kept = self._is_told_not_kept = False  # the copy of the policy in force
        self._keep_at = 0.0
        self._list_problems: set[str] = set()
        self._overflow = OverflowWatch()
        self._count_at = 0.0
        self._alive: Callable[[], None] = lambda: None

    def start(self, alive: Callable[[], None]) -> None:
        """Workers first, rules after them, so that no packet waits for somebody who is not there yet. A box that lets packets pass
        without us does not wait for that, one that does not comes up closed and is ready with its workers. MamoriError if the
        rules cannot be loaded: then nothing is inspected, and the service manager tries again. `alive` is called between programs
        that load rules: on slow hardware all of them together take longer than the service manager waits for a sign of life."""
        self._alive = alive
        now = time.monotonic()
        if self._device.inspect_report.exists():
            self._tell("inspection-killed", "the inspection starts again: the one before did not end in order")
        else:
            self._tell("inspection-started", "the inspection starts", level=6)
        self._check_policy()
        self._crew = crews.start_crew(self._rules.workers, now)
        self._open_at = now + UP_WITHIN_S
        self.tick(now)
        if self._rules.fail_open:
            return
        load_queue_rules(self._rules)
        while not self._is_open:
            time.sleep(0.02)
            self.tick(time.monotonic())

    def tick(self, now: float) -> bool:
        """Look at the workers and at the policy; do what is due. Whether there is news for the report."""
        self._tick_at = now + TICK_S
        has_news = False
        for number, child in list(self._children.items()):
            code = child.exit_code()
            if code is not None:
                del self._children[number]
                self._lines.pop(number).close()
                self._reports.pop(number, None)
                has_news = True
                self._crew = crews.lose(self._crew, number, now)
                self._tell("worker-ended", f"worker {number} ended with {code}; it is started again")
        for number, line in self._lines.items():
            report = line.take_report()
            if report is not None:
                self._crew = crews.hear(self._crew, number, now)
            if report:
                self._reports[number] = report
                self._tell_list_problems()
                self._tell_overflow(self._overflow.hear(self._received()))
                has_news = True
        self._crew, orders = crews.next_orders(self._crew, now)
        for order in orders:
            match order:
                case crews.StartWorker(number):
                    self._start_worker(number)
                case crews.KillWorker(number):
                    self._tell("worker-hangs", f"worker {number} does not answer; it is killed")
                    if number in self._children:
                        self._children[number].kill()
        self._check_policy()
        if not self._is_open and (len(self._reports) == self._rules.workers or now >= self._open_at):
            load_queue_rules(self._rules)
            self._is_open = True
            self._alive()
        if self._is_open:
            self._netfilter.apply(self._policy.policy)
            self._alive()
            self._netfilter.tick(now)
            self._alive()
            self._count_offered(now)
            self._hearing.tick(now, time.time())
            self._alive()
        self._events.flush(now)
        return has_news

    def next_deadline(self) -> float:
        return self._tick_at

    def stop(self, *, in_order: bool) -> None:
        """End the workers; what they hold they let go. The rules stay, and say what happens without them."""
        for child in self._children.values():
            child.stop()
        for child in self._children.values():
            if not child.wait(STOP_WITHIN_S):
                child.kill()
        for line in self._lines.values():
            line.close()
        self._children.clear()
        self._lines.clear()
        if in_order:
            self._tell("inspection-stopped", "the inspection stops, as it was told to", level=6)
        self._hearing.close()
        self._events.close()

    def describe(self) -> dict[str, Any]:
        """For the report."""
        return {
            "workers": [self._reports[number] for number in sorted(self._reports)],
            "workers_wanted": self._rules.workers,
            "fail_open": self._rules.fail_open,
            "policy_problem": self._policy.problem,
        }

    def _start_worker(self, number: int) -> None:
        root = str(self._device.root)
        argv = [sys.executable, "-m", "mamori.cli", "--root", root, "inspect-worker", "--number", str(number)]
        line = SupervisorEnd()
        self._lines[number] = line
        self._children[number] = Child(argv, stdin=line.worker_end.fileno())
        line.worker_end.close()

    def _check_policy(self) -> None:
        """Keep a copy of each policy that is sound, for a start after one that is not."""
        was_bad = bool(self._policy.problem)
        if self._policy.reload():
            self._is_kept = False
            if was_bad:
                self._tell("policy-accepted", "the policy is sound again")
        if self._is_kept or self._policy.problem or self._policy.stamp is None or time.monotonic() < self._keep_at:
            return
        try:
            content = self._device.policy.read_bytes()
            if file_identity(self._device.policy) == self._policy.identity:  # else it has changed, and is looked at again
                self._device.accepted_policy.parent.mkdir(parents=True, exist_ok=True)
                write_durably(self._device.accepted_policy, content)
        except OSError as error:
            if not self._is_told_not_kept:
                self._tell("policy-not-kept", f"no copy of the policy can be kept, it is tried again: {error}")
            self._is_told_not_kept = True
            self._keep_at = time.monotonic() + KEEP_AGAIN_S
            return
        self._is_kept, self._is_told_not_kept = True, False

    def _tell_list_problems(self) -> None:
        """What the workers cannot read; of the policy we know ourselves."""
        problems = {report["policy"]["problems"].get("lists", "") for report in self._reports.values()} - {""}
        for problem in problems - self._list_problems:
            self._tell("lists-refused", f"lists are refused, the old ones stay in force: {problem}")
        self._list_problems = problems

    def _received(self) -> list[Received]:
        return [Received(each["pid"], each["queue"]["received"], each["at_monotonic_s"]) for each in self._reports.values()]

    def _count_offered(self, now: float) -> None:
        if now < self._count_at:
            return
        self._count_at = now + COUNT_EVERY_S
        try:
            self._overflow.count(read_offered(), self._received(), time.monotonic())
        except MamoriError as error:
            self._log(4, str(error))

    def _tell_overflow(self, packets: int) -> None:
        if packets:
            fate = "passed unseen" if self._rules.fail_open else "were dropped"
            self._tell("queue-overflow", f"{packets} packets {fate}: the workers did not keep up")

    def _refuse_policy(self, problem: str) -> None:
        self._tell("policy-refused", f"the policy is refused, the old one stays in force: {problem}")

    def _tell(self, what: str, text: str, level: int = 4) -> None:
        self._log(level, text)
        self._events.send(own_event(time.time(), what, text))
