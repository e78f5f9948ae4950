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
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

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
from mamori.update.door import Door, bound
from mamori.update.fetcher import Fetcher
from mamori.update.gate import count_bugs, find_faults, find_write_fault, gate_within_s, watch
from mamori.update.notices import notice_text, phase_text, queue_notice
from mamori.update.reset import take_record
from mamori.update.runner import Runner
from mamori.update.settings import Settings, load_identity, read_settings, seconds_of_day, seconds_until, share_of
from mamori.update.staging import Staging
from mamori.update.upstream import Limiter
from mamori.update.usb import Plug, Sticks, has_repository
from mamori.update.words import Facts, GateFailed, GatePassed, NothingOffered, Offered, Outcome, Phase, Stage, StagingFailed, Tell

FIRST_CHECK_S = 120.0
"""After the start: the office comes first, and the clock has been set by then."""

QUIET_START_S = 120.0
"""After the box's start no stick is looked at: staging takes a processor, and everything else is still coming up."""

CHECK_EVERY_S = 24 * 3600.0
RETRY_S = (300.0, 900.0, 3600.0, 4 * 3600.0)
"""After a repository that could not be asked, each with up to a third more by chance."""

TICK_S = 1.0
STATUS_EVERY_S = 2.0
ANYWAY_EVERY_S = 60.0
"""The machine is asked what is due even before its deadline: after a clock that was set back, that may be years away."""

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
        self._sticks = Sticks(device.sticks)
        self._found: Found | None = None
        self._found_on: Plug | None = None
        self._stick_problem = ""
        self._is_checking = False
        self._check_problem = ""
        self._checked_at = 0
        self._failures = 0
        self._check_at = time.monotonic() + FIRST_CHECK_S
        self._status_at = 0.0
        self._stop = threading.Event()
        self._bugs = 0
        self._history: tuple[Outcome, ...] | None = None
        self._anyway_at = 0.0
        with contextlib.suppress(OSError):  # a disk that takes nothing is told wherever something has to be written
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
        self._staging = Staging(command, found.url, Limiter(self._settings.bytes_per_s), partitions, sha256=found.sha256)
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

    def _begin_check(self, plug: Plug | None = None) -> None:
        """Of the stick, or of the repository that the settings name."""
        if self._is_checking or (plug is None and not self._settings.url):
            return
        self._is_checking = True
        threading.Thread(target=self._check, args=(plug, self._settings), name="check", daemon=True).start()

    def _check(self, plug: Plug | None, settings: Settings) -> None:
        """In its thread: ask, and hand what was heard to the loop."""
        folder = self._sticks.repository(plug) if plug is not None else None
        if folder is not None and not has_repository(folder):
            self._ends.put(lambda: self._hear_of_no_repository())
            return
        source = Source(folder.absolute().as_uri() if folder is not None else settings.url)
        try:
            found = self._find(source, settings)
        except MamoriError as error:
            caught = error
            self._ends.put(lambda: self._hear_trouble(caught, plug))
            return
        except Exception as error:  # a mistake of ours must not end all checks for ever
            mistake = MamoriError(f"the check ended by a mistake of ours: {error!r}")
            self._ends.put(lambda: self._hear_trouble(mistake, plug))
            return
        self._ends.put(lambda: self._hear(found, plug))

    def _find(self, source: Source, settings: Settings) -> Found | None:
        device, compatible = self._device, self._release.update.compatible
        trusted = device.update / "tuf"
        return find_offer(source, compatible, settings.channel, trusted=trusted, anchor=device.tuf_anchor, fetcher=Fetcher())

    def _hear_of_no_repository(self) -> None:
        """A stick with photographs."""
        self._is_checking = False

    def _hear(self, found: Found | None, plug: Plug | None) -> None:
        now = time.time()
        self._is_checking = False
        if plug is None:
            self._failures, self._check_problem, self._checked_at = 0, "", int(now)
            self._check_at = time.monotonic() + seconds_until(seconds_of_day(self._identity), now)
        self._stick_problem = ""
        hindrance = self._hindrance(found, now)
        if hindrance:
            found = None
            if plug is None:
                self._check_at = min(self._check_at, time.monotonic() + RETRY_S[2])  # its wave may begin soon
        if plug is not None:
            self._stick_problem = hindrance
            self._log(5, f"stick {plug.name}: {hindrance or 'its repository is sound'}")
        self._found, self._found_on = found, plug
        self._runner.receive(Offered(found.offer, found.length, _origin(found.url)) if found is not None else NothingOffered())
        if plug is not None and found is not None:
            self._runner.hurry_staging()  # somebody stands there and waits

    def _hindrance(self, found: Found | None, now: float) -> str:
        """Why what the repository has is not for this box now; "" if it is."""
        if found is None:
            return "there is no release for this kind of box"
        version = found.offer.version
        if self._settings.pin not in (None, version):
            return f"version {version} is there, but the settings want {self._settings.pin} and no other"
        if not may_have(found.offer, share_of(self._identity, version), now):
            return f"version {version} is there, but its turn for this box has not come yet"
        return ""

    def _hear_trouble(self, error: MamoriError, plug: Plug | None) -> None:
        self._is_checking = False
        words = f"stick {plug.name}: {error}" if plug is not None else str(error)
        if words not in (self._check_problem, self._stick_problem):
            self._log(4, words)
            if isinstance(error, CheckError) and error.trouble is Trouble.REFUSED:
                self._event("update-refused", words)
        if plug is not None:
            self._stick_problem = words
            return
        self._check_problem = words
        pause_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._check_at = time.monotonic() + pause_s * (1 + random.random() / 3)  # noqa: S311 (no secret)

    def _tend_sticks(self) -> None:
        """New ones are looked at, one after the other; what was found on one that is gone cannot be had any more."""
        self._sticks.look()
        if self._found_on is not None and not self._sticks.has(self._found_on):
            self._log(5, f"stick {self._found_on.name}: pulled out")
            self._found = self._found_on = None
            self._stick_problem = ""
            self._check_at = time.monotonic()
        is_quiet = time.monotonic() < QUIET_START_S  # since the box's start, clock_gettime(2)
        if not self._is_checking and not is_quiet and (plug := self._sticks.next()) is not None:
            self._read_settings()
            self._begin_check(plug)

    def _watch_trial(self) -> None:
        """In its thread."""
        faults = watch(self._look_at_trial, self._stop, gate_within_s(os.environ))
        if faults == []:
            self._ends.put(lambda: self._runner.receive(GatePassed()))
        elif faults:
            reason = "; ".join(faults)[:500]
            self._ends.put(lambda: self._runner.receive(GateFailed(reason)))

    def _look_at_trial(self) -> list[str]:
        inspects = not self._release.features or INSPECTION in self._release.features
        status = read_status(self._device, time.time(), time.monotonic())
        faults = find_faults(status, inspects=inspects, bugs_before=self._bugs)
        self._bugs = count_bugs(status)
        fault = find_write_fault(self._device.update) if not faults else ""
        return [fault] if fault else faults

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def run(self, stop: int, listener: socket.socket) -> None:
        """Until something can be read from `stop`."""
        door = Door(listener, self._obey)
        if text := take_record(self._device):
            self._log(4, text.rpartition("\n")[2])
            self._event("factory-reset", text)
        self._runner.start()
        self._migrate()
        if self._runner.journal.phase is Phase.AVAILABLE:
            self._check_at = time.monotonic()
        watchdog_s = parse_watchdog(os.environ, os.getpid())
        self._publish()
        self._notify("READY=1")
        while True:
            ready = _wait([(stop, select.POLLIN), *door.wanted()])
            if stop in ready:
                break
            door.serve(ready, time.monotonic())
            self._turn()
            if watchdog_s:
                self._notify("WATCHDOG=1")
        self._stop.set()
        door.close()
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
        self._tend_sticks()
        if now >= self._check_at and not self._is_checking:
            self._read_settings()
            self._check_at = now + (CHECK_EVERY_S if self._settings.url else RETRY_S[0])
            self._begin_check()
        self._runner.resume()
        deadline = self._runner.next_deadline()
        # What the journal remembers says where nothing is: the repository is asked first.
        is_known = self._found is not None or self._runner.journal.phase is not Phase.AVAILABLE
        if deadline is not None and (time.time() >= deadline or now >= self._anyway_at) and is_known:
            self._anyway_at = now + ANYWAY_EVERY_S
            self._runner.tick()
        self._events.flush(now)
        if self._runner.journal.history != self._history:
            self._migrate()
        if now >= self._status_at:
            self._status_at = now + STATUS_EVERY_S
            self._publish()
            self._save_time()

    # --- commands ----------------------------------------------------------------------------------------------------------

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
            case "stage" if journal.phase is Phase.AVAILABLE and self._found is None:
                self._begin_check()
                raise MamoriError("nobody has it now: plug the stick in again, or wait until the repository has been asked")
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
            "source": journal.source or None,
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
            "stick_problem": self._stick_problem,
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


def _wait(wanted: list[tuple[int, int]]) -> set[int]:
    """Which descriptors are ready; nobody after TICK_S."""
    poll = select.poll()
    for descriptor, events in wanted:
        poll.register(descriptor, events)
    return {descriptor for descriptor, _ in poll.poll(TICK_S * 1000)}


def _origin(url: str) -> str:
    """Where a bundle comes from, in a word for people: `usb`, or the server."""
    parts = urlsplit(url)
    return "usb" if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}"[:200]


def run_service(device: Device, release: Release, log: Callable[[int, str], None]) -> None:
    """Update until SIGTERM."""
    stop, stopped = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(stopped, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    device.update_runtime.mkdir(parents=True, exist_ok=True)
    service = Service(device, release, log)
    with bound(device.update_runtime / "socket") as listener:
        service.run(stop, listener)
