"""Whether the signature engine works, from looks at it: pure. Times are seconds that only go forward.

It is away when nobody listens on its control socket: it has ended, loads its rules, or never was. It is stuck when it listens and
does not answer, or answers and does not move while workers hand packets on to it; then it is to be killed, because packets wait
in its queue meanwhile, and no bypass helps before that is full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

STUCK_AFTER_S = 20.0
"""Its counters are renewed every 8 s (stats.interval), and it answers within 5 s or so while it loads rules."""


class Condition(Enum):
    """AWAY: nobody listens. STUCK: it listens, and does not answer or does not move."""

    AWAY = "away"
    UP = "up"
    STUCK = "stuck"


@dataclass(frozen=True)
class Look:
    """What was seen: whether it `listens` and `answers`, how many packets it has had (None: it does not say yet), and how many
    the workers have handed on."""

    listens: bool
    answers: bool = False
    packets: int | None = None
    handed_on: int = 0


@dataclass(frozen=True)
class Health:
    """What the looks so far say. `well_at` is when it last answered and moved, or had no reason to."""

    condition: Condition = Condition.AWAY
    well_at: float = 0.0
    packets: int = 0
    handed_on: int = 0


def judge_look(health: Health, look: Look, now: float) -> Health:
    """The health after another look."""
    if not look.listens:
        return Health(Condition.AWAY, now, 0, look.handed_on)
    if health.condition is Condition.AWAY:
        health = Health(Condition.UP, now, 0, look.handed_on)
    if look.answers and _moves(health, look):
        packets = health.packets if look.packets is None else look.packets
        return Health(Condition.UP, now, packets, look.handed_on)
    return replace(health, condition=Condition.STUCK) if now - health.well_at >= STUCK_AFTER_S else health


def _moves(health: Health, look: Look) -> bool:
    """The workers' sum falls when one of them begins anew."""
    has_work = look.handed_on > health.handed_on
    return look.packets is None or look.packets != health.packets or not has_work
