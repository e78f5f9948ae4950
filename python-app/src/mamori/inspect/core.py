"""What the inspection service does next: events and the time in, commands and a new state out. Knows no file and no socket.

    state, commands = start(settings, now)
    state, commands = receive(state, event, now)      # again and again; the next timer is due at `next_deadline(state)`

Times are seconds of a clock that only goes forward. The service must not fail because the bridge does: an office
switch that is off at night is normal, so trouble is reported and never a reason to end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mamori.bridge import BridgeCondition, Judgement, Sample, judge

PUBLISH_EVERY_S = 2.0
"""How often the bridge is looked at. `mamori status` and the health gate wait no longer than this for news."""


@dataclass(frozen=True)
class Settings:
    """`watchdog_s` is how long the service manager waits for a sign of life; None if it does not."""

    bridge: str
    ports: tuple[str, ...]
    watchdog_s: float | None = None


@dataclass(frozen=True)
class TimerExpired:
    """`next_deadline` has passed."""


@dataclass(frozen=True)
class BridgeSampled:
    """The answer to SampleBridge."""

    sample: Sample


@dataclass(frozen=True)
class StopRequested:
    """The service manager, or a person, wants the service to end."""


Event = TimerExpired | BridgeSampled | StopRequested


@dataclass(frozen=True)
class SampleBridge:
    """Read the bridge now, and answer with BridgeSampled."""


@dataclass(frozen=True)
class Publish:
    """Replace the report: this sample means this, and has meant it since `since`."""

    sample: Sample
    judgement: Judgement
    since: float


@dataclass(frozen=True)
class Notify:
    """Tell the service manager (sd_notify(3)): lines of NAME=value."""

    message: str


@dataclass(frozen=True)
class Log:
    """One line for the journal; `level` is that of syslog(3): 4 warning, 5 notice."""

    level: int
    text: str


@dataclass(frozen=True)
class Stop:
    """End the service."""


Command = SampleBridge | Publish | Notify | Log | Stop


@dataclass(frozen=True)
class State:
    """`watchdog_at` is when the next sign of life is due; None without a watchdog."""

    settings: Settings
    sample_at: float
    watchdog_at: float | None
    judgement: Judgement | None = None
    since: float = 0.0


def start(settings: Settings, now: float) -> tuple[State, tuple[Command, ...]]:
    """The first state; the first look at the bridge is at once."""
    return State(settings, now + PUBLISH_EVERY_S, _next_watchdog(settings, now)), (SampleBridge(),)


def next_deadline(state: State) -> float:
    """When TimerExpired is due."""
    return state.sample_at if state.watchdog_at is None else min(state.sample_at, state.watchdog_at)


def receive(state: State, event: Event, now: float) -> tuple[State, tuple[Command, ...]]:
    """One event at the time `now`."""
    match event:
        case TimerExpired():
            return _on_timer(state, now)
        case BridgeSampled(sample):
            return _on_sample(state, sample, now)
        case StopRequested():
            return state, (Notify("STOPPING=1"), Stop())


def _on_timer(state: State, now: float) -> tuple[State, tuple[Command, ...]]:
    commands: list[Command] = []
    if state.watchdog_at is not None and now >= state.watchdog_at:
        commands.append(Notify("WATCHDOG=1"))
        state = replace(state, watchdog_at=_next_watchdog(state.settings, now))
    if now >= state.sample_at:
        commands.append(SampleBridge())
        # Counted from now: after a long pause one look is enough, there is nothing to catch up on.
        state = replace(state, sample_at=now + PUBLISH_EVERY_S)
    return state, tuple(commands)


def _on_sample(state: State, sample: Sample, now: float) -> tuple[State, tuple[Command, ...]]:
    first = state.judgement is None
    judgement = judge(sample, state.settings.bridge, state.settings.ports)
    changed = judgement != state.judgement
    if changed:
        state = replace(state, judgement=judgement, since=now)
    commands: list[Command] = [Publish(sample, judgement, state.since)]
    if changed:
        commands.append(Log(4 if judgement.condition is BridgeCondition.BROKEN else 5, judgement.text))
        commands.append(Notify(f"READY=1\nSTATUS={judgement.text}" if first else f"STATUS={judgement.text}"))
    return state, tuple(commands)


def _next_watchdog(settings: Settings, now: float) -> float | None:
    # Half, as sd_watchdog_enabled(3) recommends.
    return None if settings.watchdog_s is None else now + settings.watchdog_s / 2
