"""Runs the inspection core against the kernel, the report file, the service manager and the journal."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mamori.formats.release import Bridge
from mamori.inspect import core
from mamori.inspect.guard import Guard
from mamori.inspect.report import encode_report, write_report
from mamori.notify import parse_watchdog, send_notification
from mamori.paths import Device
from mamori.sysfs import read_bridge

ALIVE_EVERY_S = 5.0
"""The unit's WatchdogSec is 90."""

_STOP_SIGNALS = (signal.SIGTERM,)
"""SIGINT stays what it is to Python, so Ctrl-C ends a run by hand like that of every other command."""


@dataclass
class _World:
    """`published` is what the report said last of the bridge."""

    device: Device
    bridge: Bridge
    notify_socket: str | None
    log: Callable[[int, str], None]
    guard: Guard | None
    published: core.Publish | None = None


def run_inspection(device: Device, bridge: Bridge, log: Callable[[int, str], None], guard: Guard | None) -> None:
    """Watch the bridge, and keep the guard's workers alive, until SIGTERM. Without a guard packets are left alone. `log` takes a
    syslog level and a line; the report is gone when this returns."""
    world = _World(device, bridge, os.environ.get("NOTIFY_SOCKET"), log, guard)
    settings = core.Settings(bridge.name, bridge.ports, parse_watchdog(os.environ, os.getpid()))
    # Blocked, a signal waits until `sigtimedwait` asks for it: none is lost, none interrupts a write.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    device.inspect_report.parent.mkdir(parents=True, exist_ok=True)
    is_told_to_stop = False
    try:
        if guard is not None:
            guard.start(_sign_of_life(world) if settings.watchdog_s else lambda: None)
        state, commands = core.start(settings, time.monotonic())
        while True:
            state, running = _carry_out(world, state, commands)
            if not running:
                is_told_to_stop = True
                return
            if guard is not None and guard.tick(time.monotonic()) and world.published is not None:
                _publish(world, world.published)
            deadline = min(core.next_deadline(state), guard.next_deadline() if guard is not None else math.inf)
            timeout_s = max(0.0, deadline - time.monotonic())
            stops = _is_stopped_within(timeout_s)
            now = time.monotonic()
            if stops or now >= core.next_deadline(state):
                state, commands = core.receive(state, core.StopRequested() if stops else core.TimerExpired(), now)
            else:
                commands = ()
    finally:
        if guard is not None:
            guard.stop(in_order=is_told_to_stop)
        device.inspect_report.unlink(missing_ok=True)


def _sign_of_life(world: _World) -> Callable[[], None]:
    """For whoever is at work for long. Not more often than is of use: it is asked for several times a second."""
    last = -ALIVE_EVERY_S

    def alive() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= ALIVE_EVERY_S:
            last = now
            _notify(world, "WATCHDOG=1")

    return alive


def _is_stopped_within(timeout_s: float) -> bool:
    """Whether a signal asks for the end. When SIGCONT interrupts the wait and the time is over, Python gives a record that nobody
    has filled in (signalmodule.c, signal_sigtimedwait_impl), so the number counts."""
    told = signal.sigtimedwait(_STOP_SIGNALS, timeout_s)
    return told is not None and told.si_signo in _STOP_SIGNALS


def _carry_out(world: _World, state: core.State, commands: tuple[core.Command, ...]) -> tuple[core.State, bool]:
    """Do the commands and those that follow from them; the new state, and whether the service goes on."""
    queue = deque(commands)
    while queue:
        match queue.popleft():
            case core.SampleBridge():
                sample = read_bridge(world.device, world.bridge.name, world.bridge.ports)
                state, more = core.receive(state, core.BridgeSampled(sample), time.monotonic())
                queue.extend(more)
            case core.Publish() as command:
                _publish(world, command)
            case core.Notify(message):
                _notify(world, message)
            case core.Log(level, text):
                world.log(level, text)
            case core.Stop():
                return state, False
    return state, True


def _publish(world: _World, command: core.Publish) -> None:
    world.published = command
    try:
        details = world.guard.describe() if world.guard is not None else None
        write_report(world.device.inspect_report, encode_report(command, time.monotonic(), details))
    except OSError as error:
        world.log(4, f"cannot publish: {error}")


def _notify(world: _World, message: str) -> None:
    try:
        send_notification(world.notify_socket, message)
    except OSError as error:
        world.log(4, f"cannot notify the service manager: {error}")
