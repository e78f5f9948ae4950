"""Keeps the signature engine supplied and watched: its files, whether it lives and moves, its alerts as events.

    policy, feeds, own networks ─▶ supply.py ─▶ suricata.yaml, active.rules ─▶ reload, or a new start
    control socket ─▶ health.py ─▶ kill           eve.sock ─▶ events

A process of its own, as Suricata's user: to test 30,000 rules takes half a gigabyte, which the process that supervises the
office's packets must not be asked for, and what Suricata tells was made by strangers. It starts no Suricata: the service
manager does, once there are rules (mamori-suricata.path), and again whenever one has ended; so a new configuration and a
Suricata that hangs are a matter of ending it. Packets pass it by meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from mamori.events.record import Action, Function, own_event
from mamori.events.sender import EventSender
from mamori.formats.problems import MamoriError
from mamori.inspect.policy import Mode
from mamori.inspect.policy_file import PolicyFile
from mamori.inspect.report import read_report, write_report
from mamori.inspect.suricata.config import Facts, Network, Paths, check_command, home_networks
from mamori.inspect.suricata.control import ControlError, SuricataControl, connect, find_listener
from mamori.inspect.suricata.eve import EveReader, event_of, start_reader
from mamori.inspect.suricata.health import Condition, Health, Look, judge_look
from mamori.inspect.suricata.ruleset import reload
from mamori.inspect.suricata.supply import Supplied, Wanted, find_feeds, supply
from mamori.notify import parse_watchdog, send_notification
from mamori.paths import Device
from mamori.process import run_tool, try_tool
from mamori.sysfs import UnreadableError

TICK_S = 1.0
"""How often policy and feeds are looked at, and the report is written."""

LOOK_EVERY_S = 5.0
"""How often Suricata is asked how it is."""

NETWORKS_EVERY_S = 60.0
"""How often the bridge's addresses are looked at. A provider's prefix changes at night, or with a new router."""

TEST_WITHIN_S = 600.0
"""Of a rule set. 30,000 rules take 5 s of a desktop's processor; a small one at full load has a hundredth of that to spare."""

RETRY_S = 300.0
"""After a supply that did not come about for want of disk or memory."""

UPTIME_ERROR_S = 2.0
"""Suricata takes the difference of two times in whole seconds."""

MAX_OWN_NETWORKS = 16
"""Prefixes that the bridge had since the start: old ones count for a while, as hosts keep old addresses (RFC 4862 §5.5.4)."""


@dataclass(frozen=True)
class KeeperSettings:
    """`program` is Suricata, `bridge` the interface whose addresses are the office's, `release` what an image is known by."""

    device: Device
    bridge: str
    release: str
    program: str = "suricata"


def run_keeper(settings: KeeperSettings, log: Callable[[int, str], None]) -> None:
    """Keep until SIGTERM."""
    stop, stopped = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(stopped, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    paths = Paths.below(settings.device.root)
    for folder in (paths.config.parent, paths.eve.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with start_reader(paths.eve) as reader:
        keeper = _Keeper(settings, paths, reader, log)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        poll.register(stop, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll(TICK_S * 1000)}
                if stop in ready:
                    return
                if reader.fileno() in ready:
                    keeper.take_alerts()
                keeper.tick(time.monotonic())
        finally:
            keeper.close()


class _Keeper:
    """The loop's parts."""

    def __init__(self, settings: KeeperSettings, paths: Paths, reader: EveReader, log: Callable[[int, str], None]) -> None:
        device = settings.device
        self._settings, self._paths, self._reader, self._log = settings, paths, reader, log
        self._events = EventSender(device.events_socket)
        self._policy = PolicyFile(device.policy, device.accepted_policy, lambda text: log(4, f"policy: {text}"))
        self._policy.load()
        self._own: dict[Network, None] = {}
        self._home = home_networks()
        self._memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        self._wanted: Wanted | None = None
        self._job: _Job | None = None
        self._supplied = Supplied()
        self._health = Health()
        self._pid: int | None = None
        self._changed_at = 0.0
        self._alerts = self._kills = self._supplies = 0
        self._tick_at = self._look_at = self._networks_at = 0.0
        self._retry_at: float | None = None
        self._has_failed = False
        self._watchdog_s = parse_watchdog(os.environ, os.getpid())
        self._is_ready = False

    def take_alerts(self) -> None:
        """Tell what Suricata has said."""
        for alert in self._reader.receive():
            event = event_of(alert, self._home)
            self._alerts += 1
            self._events.send(event)
            blocked = int(event.action is Action.BLOCKED)
            self._events.count(Function.IPS, "alert", event.terminal_mac, event.terminal, event.category, 0, blocked)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._tick_at:
            return
        self._tick_at = now + TICK_S
        self._policy.reload()
        if now >= self._networks_at:
            self._networks_at = now + NETWORKS_EVERY_S
            self._learn_networks()
        self._supply(now)
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._watch(now)
        self._events.flush(now)
        self._report(now)
        self._notify()

    def close(self) -> None:
        self._events.close()
        self._settings.device.signatures_report.unlink(missing_ok=True)

    # --- supply ------------------------------------------------------------------------------------------------------------

    def _supply(self, now: float) -> None:
        """Start a job when something has changed, and hear what came of it."""
        if self._job is not None:
            if self._job.is_alive():
                return
            self._hear_job(self._job, now)
            self._job = None
        facts = Facts(self._memory_mib, self._home, self._paths)
        wanted = Wanted(self._settings.release, self._policy.policy.ips, facts, find_feeds(self._settings.device.rule_folders))
        if wanted != self._wanted or (self._retry_at is not None and now >= self._retry_at):
            self._wanted, self._retry_at = wanted, None
            self._job = _Job(wanted, self._settings.program, reload_anyway=self._has_failed)
            self._job.start()

    def _hear_job(self, job: _Job, now: float) -> None:
        self._has_failed = bool(job.failure)
        self._supplies += 1
        if job.done.new_config or job.done.new_rules:
            self._changed_at = job.changed_at
        if job.failure:
            self._retry_at = now + RETRY_S
            self._tell("rules-refused", f"the signatures could not be prepared: {job.failure}")
            return
        done = job.done
        if done.problem and done.problem != self._supplied.problem:
            self._tell("rules-refused", f"signatures were refused, the old ones stay in force: {done.problem}")
        elif done.new_rules:
            self._tell(
                "rules-taken", f"{done.rules} signatures are in force, {done.refused} that Suricata does not know left out", 6
            )
        self._supplied = done

    def _learn_networks(self) -> None:
        """The networks that the bridge is in. What cannot be asked leaves those that are known."""
        try:
            printed = run_tool(("ip", "-j", "address", "show", "dev", self._settings.bridge), explain="ask for own networks")
            interfaces = json.loads(printed)
            found = [each for interface in interfaces for each in interface.get("addr_info", ())]
            networks = [ip_interface(f"{each['local']}/{each['prefixlen']}").network for each in found]
        except (MamoriError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._log(4, str(error))
            return
        for network in networks:
            self._own.pop(network, None)  # the latest last
            self._own[network] = None
        while len(self._own) > MAX_OWN_NETWORKS:
            del self._own[next(iter(self._own))]
        self._home = home_networks(self._own)

    # --- health ------------------------------------------------------------------------------------------------------------

    def _watch(self, now: float) -> None:
        listener = find_listener(self._paths.control)
        if self._health.condition is not Condition.AWAY and listener.pid not in (None, self._pid):
            self._health = Health()
            self._tell("signatures-away", "the signature engine has ended; packets passed it by until another one ran")
        before = self._health.condition
        self._pid = listener.pid or (self._pid if listener.listens else None)
        self._health = judge_look(self._health, self._look(listener.listens, now), now)
        condition = self._health.condition
        if condition is Condition.STUCK and self._pid is not None:
            self._kills += 1
            # Nothing else of our user listens there; one that has ended meanwhile is no matter.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        if condition is before:
            return
        match condition:
            case Condition.STUCK:
                self._tell("signatures-hang", "the signature engine hangs; it is ended, packets pass it by until another one runs")
            case Condition.AWAY:
                self._tell("signatures-away", "the signature engine has ended; packets pass it by until it runs again")
            case Condition.UP:
                self._tell("signatures-up", "the signature engine runs", 6)

    def _look(self, listens: bool, now: float) -> Look:
        if not listens:
            return Look(False)
        handed_on = self._handed_on()
        try:
            with connect(self._paths.control, within_s=LOOK_EVERY_S / 2) as control:
                if self._health.condition is Condition.AWAY:
                    self._check_files(control, now)
                stats = control.traffic_stats()
        except ControlError:
            return Look(True, False, None, handed_on)
        return Look(True, True, stats.packets if stats is not None else None, handed_on)

    def _check_files(self, control: SuricataControl, now: float) -> None:
        """One that began with old files was not there yet to be told of the new ones, and is to begin again."""
        began_at = now - control.uptime_s()
        loaded = control.ruleset_stats().loaded
        if began_at + UPTIME_ERROR_S < self._changed_at or (self._job is None and loaded != self._supplied.rules):
            control.shut_down()

    def _handed_on(self) -> int:
        """Packets that the workers have handed on, as far as is known."""
        try:
            workers = read_report(self._settings.device.inspect_report)["packets"]["workers"]
            return sum(int(worker["handed_on"]) for worker in workers)
        except (UnreadableError, KeyError, TypeError, ValueError):
            return self._health.handed_on

    # --- words -------------------------------------------------------------------------------------------------------------

    def _tell(self, what: str, text: str, level: int = 4) -> None:
        self._log(level, text)
        self._events.send(own_event(time.time(), what, text))

    def _report(self, now: float) -> None:
        supplied = self._supplied
        is_off = self._policy.policy.ips.mode is Mode.OFF
        report: dict[str, Any] = {
            "at_monotonic_s": round(now, 3),
            "condition": "off" if is_off else self._health.condition.value,
            "is_preparing": self._job is not None,
            "supplies": self._supplies,
            "rules": supplied.rules,
            "refused": supplied.refused,
            "made_of": supplied.counts,
            "problem": supplied.problem,
            "alerts": self._alerts,
            "malformed": self._reader.malformed,
            "kills": self._kills,
        }
        with contextlib.suppress(OSError):  # a full /run: the watchdog's business is that we live, not that we report
            write_report(self._settings.device.signatures_report, f"{json.dumps(report)}\n".encode())

    def _notify(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET")
        message = "WATCHDOG=1" if self._is_ready and self._watchdog_s else "" if self._is_ready else "READY=1"
        self._is_ready = True
        if message:
            try:
                send_notification(address, message)
            except OSError as error:
                self._log(4, f"cannot notify the service manager: {error}")


class _Job(threading.Thread):
    """One supply, beside the loop: a test and a reload take minutes on a small box. `failure` says why it did not come about;
    `changed_at` is just before files changed."""

    def __init__(self, wanted: Wanted, program: str, *, reload_anyway: bool) -> None:
        super().__init__(name="supply", daemon=True)
        self._wanted, self._program, self._reload_anyway = wanted, program, reload_anyway
        self.done = Supplied()
        self.failure = ""
        self.changed_at = 0.0

    def run(self) -> None:
        self.changed_at = time.monotonic()
        try:
            self.done = supply(self._wanted, self._test)
            self._apply()
        except (OSError, MamoriError) as error:
            self.failure = str(error)

    def _test(self, candidate: Path) -> tuple[int, str]:
        paths = self._wanted.facts.paths
        argv = [self._program, *check_command(paths.config, candidate, paths.eve.parent)[1:]]
        answer = try_tool(argv, timeout_s=TEST_WITHIN_S, explain="test the signatures")
        self.changed_at = time.monotonic()
        return answer

    def _apply(self) -> None:
        """Have a Suricata that runs take what is new; one that starts does so by itself."""
        control_path = self._wanted.facts.paths.control
        if not find_listener(control_path).listens:
            return
        if self.done.new_config:
            with connect(control_path) as control:
                control.shut_down()
        elif self.done.new_rules or self._reload_anyway:
            with connect(control_path) as control:
                reload(control)
