"""The updater: a loop around the machine, a thread for what takes long, a socket for people's commands.

    timer, job's end, command ─▶ runner ─▶ journal ─▶ commands: stage, arm, confirm, tell, start again

Jobs are one at a time: to ask the repository, to stage, to look at the trial's health. Their ends come back through one queue, so
the machine is only ever touched by the loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mamori.events.record import Action, Event, Function, Heading
from mamori.events.sender import EventSender
from mamori.formats.bootstate import Slot
from mamori.formats.offer import may_have
from mamori.formats.problems import MamoriError
from mamori.formats.release import Release
from mamori.inspect.report import write_report
from mamori.notify import parse_watchdog, send_notification
from mamori.paths import Device
from mamori.status import read_status
from mamori.sysfs import read_line
from mamori.update.bootdisk import BootDisk, Change
from mamori.update.client import CheckError, Found, Source, Trouble, find_offer
from mamori.update.clockfloor import is_save_due, save_time
from mamori.update.dataformat import forget_kept, migrate
from mamori.update.fetcher import Fetcher
from mamori.update.gate import LOOK_EVERY_S, STEADY_LOOKS, find_faults, find_write_fault, gate_within_s
from mamori.update.notices import notice_text, phase_text, queue_notice
from mamori.update.runner import Runner
from mamori.update.settings import Settings, load_identity, read_settings, seconds_of_day, share_of
from mamori.update.staging import Staging
from mamori.update.upstream import Limiter
from mamori.update.words import Facts, GateFailed, GatePassed, NothingOffered, Offered, Outcome, Phase, Stage, StagingFailed, Tell

FIRST_CHECK_S = 120.0
"""After the start: the office comes first, and the clock has been set by then."""

CHECK_EVERY_S = 24 * 3600.0
RETRY_S = (300.0, 900.0, 3600.0, 4 * 3600.0)
"""After a repository that could not be asked, each with up to a third more by chance."""

TICK_S = 1.0
STATUS_EVERY_S = 2.0
MAX_COMMAND_BYTES = 4096
CLIENT_WITHIN_S = 5.0

INSPECTION = "inspect"
"""The feature of an image that looks at packets; every image without features named has it too."""


class Service:
    """The hands of the machine, and its loop. `now` is the wall clock in Unix seconds, monotonic times are for pauses."""

    def __init__(self, device: Device, release: Release, log: Callable[[int, str], None]) -> None:
        self._device, self._release, self._log = device, release, log
        self._events = EventSender(device.events_socket)
        self._settings = Settings()
        self._settings_problem = ""
        self._identity = load_identity(device.identity)
        self._ends: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._staging: Staging | None = None
        self._found: Found | None = None
        self._is_checking = False
        self._check_problem = ""
        self._checked_at = 0
        self._failures = 0
        self._check_at = time.monotonic() + FIRST_CHECK_S
        self._status_at = 0.0
        self._stop = threading.Event()
        self._history: tuple[Outcome, ...] | None = None
        device.update.mkdir(parents=True, exist_ok=True)
        self._read_settings()
        self._runner = Runner(device.journal, self, log)

    # --- the machine's hands -----------------------------------------------------------------------------------------------

    def facts(self) -> Facts:
        try:
            boot = BootDisk(self._device.bootstate).read().state
        except MamoriError as error:
            self._log(4, str(error))
            boot = None
        running = Slot(read_line(self._device.slot))
        return Facts(int(time.time()), running, self._release.version, self._release.update.compatible, boot)

    def begin_staging(self, command: Stage) -> None:
        found, slot = self._found, command.slot.value
        if found is None or found.offer.manifest_hash != command.offer.manifest_hash:
            self._ends.put(lambda: self._runner.receive(StagingFailed("the repository has to be asked again")))
            self._check_at = time.monotonic()
            return
        partitions = {"rootfs": self._device.root_partition(slot), "boot": self._device.boot_partition(slot)}
        self._staging = Staging(command, found.url, Limiter(self._settings.bytes_per_s), partitions)
        self._staging.start()

    def cancel_staging(self) -> None:
        if self._staging is not None:
            self._staging.cancel()
            self._staging = None

    def begin_gate(self) -> None:
        threading.Thread(target=self._watch_trial, name="gate", daemon=True).start()

    def change_boot_state(self, change: Change, slot: Slot) -> None:
        state = BootDisk(self._device.bootstate).change(change, slot)
        self._log(5, f"boot state: {change.value}: confirmed {state.confirmed.value}, tries {state.tries}")

    def start_again(self) -> None:
        """The service manager does it, when it sees the file (mamori-leave-trial.path)."""
        self._log(2, "the trial is left: the box starts again")
        (self._device.update_runtime / "leave-trial").touch()

    def tell(self, notice: Tell) -> None:
        queue_notice(self._device.update / "notices", notice, int(time.time()))
        text = notice_text(notice)
        self._event(f"update-{notice.kind.value}", f"{text.ja}\n{text.en}")

    # --- jobs --------------------------------------------------------------------------------------------------------------

    def _begin_check(self) -> None:
        if not self._is_checking and self._settings.url:
            self._is_checking = True
            source = Source(self._settings.url)
            threading.Thread(target=self._check, args=(source,), name="check", daemon=True).start()

    def _check(self, source: Source) -> None:
        """In its thread: ask, and hand what was heard to the loop."""
        device = self._device
        try:
            found = find_offer(
                source,
                self._release.update.compatible,
                self._settings.channel,
                trusted=device.update / "tuf",
                anchor=device.tuf_anchor,
                fetcher=Fetcher(),
            )
        except MamoriError as error:
            caught = error
            self._ends.put(lambda: self._hear_trouble(caught))
            return
        self._ends.put(lambda: self._hear(found))

    def _hear(self, found: Found | None) -> None:
        self._is_checking, self._failures, self._check_problem = False, 0, ""
        self._checked_at = int(time.time())
        self._check_at = time.monotonic() + CHECK_EVERY_S
        if found is not None and self._settings.pin not in (None, found.offer.version):
            found = None
        if found is not None and not may_have(found.offer, share_of(self._identity, found.offer.version), time.time()):
            found = None
            self._check_at = time.monotonic() + RETRY_S[2]  # its wave may begin soon
        self._found = found
        self._runner.receive(Offered(found.offer, found.length) if found is not None else NothingOffered())

    def _hear_trouble(self, error: MamoriError) -> None:
        self._is_checking = False
        if str(error) != self._check_problem:
            self._log(4, str(error))
            if isinstance(error, CheckError) and error.trouble is Trouble.REFUSED:
                self._event("update-refused", str(error))
        self._check_problem = str(error)
        pause_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._check_at = time.monotonic() + pause_s * (1 + random.random() / 3)  # noqa: S311 (no secret)

    def _watch_trial(self) -> None:
        """In its thread: look until all is well for a while, or the time is over."""
        deadline, steady, faults = time.monotonic() + gate_within_s(os.environ), 0, ["it was not looked at"]
        inspects = not self._release.features or INSPECTION in self._release.features
        while time.monotonic() < deadline and not self._stop.wait(LOOK_EVERY_S):
            faults = find_faults(read_status(self._device, time.time(), time.monotonic()), inspects=inspects)
            if not faults and (fault := find_write_fault(self._device.update)):
                faults = [fault]
            steady = 0 if faults else steady + 1
            if steady >= STEADY_LOOKS:
                self._ends.put(lambda: self._runner.receive(GatePassed()))
                return
        if not self._stop.is_set():
            reason = "; ".join(faults)[:500]
            self._ends.put(lambda: self._runner.receive(GateFailed(reason)))

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def run(self, stop: int, listener: socket.socket) -> None:
        """Until something can be read from `stop`."""
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        poll.register(listener, select.POLLIN)
        self._runner.start()
        self._migrate()
        if self._runner.journal.phase is Phase.AVAILABLE:
            self._check_at = time.monotonic()
        watchdog_s = parse_watchdog(os.environ, os.getpid())
        self._notify("READY=1")
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(TICK_S * 1000)}
            if stop in ready:
                break
            if listener.fileno() in ready:
                self._answer(listener)
            self._turn()
            if watchdog_s:
                self._notify("WATCHDOG=1")
        self._stop.set()
        self.cancel_staging()
        self._events.close()

    def _turn(self) -> None:
        """What has ended, what is due."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._ends.get_nowait()()
        staging = self._staging
        if staging is not None and staging.result is not None:
            self._staging = None
            if isinstance(staging.result, StagingFailed):
                self._log(4, f"staging: {staging.result.problem}")
            self._runner.receive(staging.result)
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_EVERY_S
            self._read_settings()
            self._begin_check()
        deadline = self._runner.next_deadline()
        # What the journal remembers says where nothing is: the repository is asked first.
        is_known = self._found is not None or self._runner.journal.phase is not Phase.AVAILABLE
        if deadline is not None and time.time() >= deadline and is_known:
            self._runner.tick()
        self._events.flush(now)
        if self._runner.journal.history != self._history:
            self._migrate()
        if now >= self._status_at:
            self._status_at = now + STATUS_EVERY_S
            self._publish()
            self._save_time()

    # --- commands ----------------------------------------------------------------------------------------------------------

    def _answer(self, listener: socket.socket) -> None:
        """One command of one client: a line of JSON in, a line of JSON out. Who may connect is the socket's mode."""
        with contextlib.suppress(OSError, ValueError):
            client, _ = listener.accept()
            with client:
                client.settimeout(CLIENT_WITHIN_S)
                asked = json.loads(client.recv(MAX_COMMAND_BYTES))
                try:
                    answer = {"ok": True, **self._obey(str(asked.get("command")))}
                except MamoriError as error:
                    answer = {"ok": False, "problem": str(error)}
                client.sendall(json.dumps(answer, ensure_ascii=False).encode() + b"\n")

    def _obey(self, command: str) -> dict[str, Any]:
        journal = self._runner.journal
        match command:
            case "status":
                return {"status": self.describe()}
            case "check":
                self._read_settings()
                if not self._settings.url:
                    raise MamoriError("there is no `url` in the settings", f"write it into {self._device.update / 'settings.toml'}")
                self._begin_check()
                return {}
            case "stage" if journal.phase is Phase.AVAILABLE:
                self._runner.hurry_staging()
                return {}
            case "arm" if journal.phase is Phase.STAGED:
                self._runner.hurry_arming()
                return {}
            case "confirm" if journal.phase is Phase.TRIAL:
                self._runner.receive(GatePassed())
                return {}
            case "stage" | "arm" | "confirm":
                raise MamoriError(f"nothing to {command}: the update is {journal.phase.value}")
            case _:
                raise MamoriError(f"no command {command[:40]!r}")

    def describe(self) -> dict[str, Any]:
        """For `mamori update status`, the portal and the console."""
        journal, staging = self._runner.journal, self._staging
        text = phase_text(journal)
        return {
            "phase": journal.phase.value,
            "version": self._release.version,
            "offered": journal.offer.version if journal.offer is not None else None,
            "next_ja": text.ja,
            "next_en": text.en,
            "is_armed": journal.is_armed,
            "activate_after": journal.offer.activate_after if journal.offer is not None else None,
            "activate_before": journal.offer.activate_before if journal.offer is not None else None,
            "progress_percent": staging.progress if staging is not None else None,
            "fetched_bytes": staging.fetched_bytes if staging is not None else None,
            "attempts": journal.attempts,
            "problem": journal.problem,
            "check_problem": self._check_problem,
            "settings_problem": self._settings_problem,
            "checked_at": self._checked_at or None,
            "is_checking": self._is_checking,
            "channel": self._settings.channel.value,
            "url": self._settings.url,
            "share_now": share_of(self._identity, journal.offer.version) if journal.offer is not None else None,
            "asks_at_second_of_day": seconds_of_day(self._identity),
            "history": [{**asdict(outcome), "result": outcome.result.value} for outcome in journal.history],
        }

    # --- data --------------------------------------------------------------------------------------------------------------

    def _migrate(self) -> None:
        """Bring the data forward, now that this slot is confirmed; what the release before this one needs is kept."""
        before, self._history = self._history, self._runner.journal.history
        facts = self.facts()
        if self._runner.journal.phase is Phase.TRIAL or facts.boot is None or facts.boot.confirmed is not facts.running:
            return
        try:
            if before != self._history and before is not None:
                forget_kept(self._device.data)
            for number in migrate(self._device.data):
                self._log(5, f"the data is in format {number} now")
        except (MamoriError, OSError) as error:
            self._log(3, f"the data stays in its format: {error}")

    def _save_time(self) -> None:
        path, now = self._device.update / "clock", int(time.time())
        if is_save_due(path, now):
            with contextlib.suppress(OSError):
                save_time(path, now)

    # --- small things ------------------------------------------------------------------------------------------------------

    def _read_settings(self) -> None:
        try:
            self._settings, self._settings_problem = read_settings(self._device.update / "settings.toml"), ""
        except MamoriError as error:
            if str(error) != self._settings_problem:
                self._log(4, f"the settings are refused, the old ones stay in force: {error}")
            self._settings_problem = str(error)

    def _publish(self) -> None:
        status = {"at_monotonic_s": round(time.monotonic(), 3), **self.describe()}
        with contextlib.suppress(OSError):
            write_report(self._device.update_runtime / "status.json", f"{json.dumps(status, ensure_ascii=False)}\n".encode())

    def _event(self, what: str, text: str) -> None:
        self._events.send(
            Event(time.time(), Function.SYSTEM, Action.REPORTED, Heading.NONE, "", "", "", 0, "", text[:500], category=what)
        )

    def _notify(self, message: str) -> None:
        try:
            send_notification(os.environ.get("NOTIFY_SOCKET"), message)
        except OSError as error:
            self._log(4, f"cannot notify the service manager: {error}")


def run_service(device: Device, release: Release, log: Callable[[int, str], None]) -> None:
    """Update until SIGTERM."""
    stop, stopped = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(stopped, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    device.update_runtime.mkdir(parents=True, exist_ok=True)
    service = Service(device, release, log)
    with bound(device.update_runtime / "socket") as listener:
        service.run(stop, listener)


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """The command socket: its owner and group may ask."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(8)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
