"""Whether clamd can be used, decided from what happens to it: a circuit breaker with a probe.

A probe has two steps. VERSION is answered by clamd's main thread at once, so silence means that it is stuck. Then a stream is
scanned, which waits its turn behind other scans: it shows that scanning works, and which database does it. Both are asked when a
minute has passed, and as soon as somebody waits for long.

While clamd is down nobody is sent to it but the probe. One that has ended refuses the connection, which costs nothing, so it is
tried again at once every second: each second more would be one in which viruses pass. One that hangs keeps the connection, and
answers on it as soon as it goes on; another would only wait behind that in its queue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from mamori.inspect.scan.clamd import Version

PROBE_EVERY_S = 60.0
SUSPECT_AFTER_S = 2.0
"""Nearly every file is scanned in a tenth of this, and packets are held for 5 s: time for a probe to tell why it takes so long."""
RETRY_S = 1.0
"""After a failure. clamd listens as soon as it has loaded its databases, 10 to 30 s after a start."""
HUNG_S = 30.0
"""How long a question to a clamd that hangs is left open, before it is taken for lost and asked again."""
VERSION_TIMEOUT_S = 2.0
STREAM_TIMEOUT_S = 15.0
"""Longer than MaxScanTime in clamd.conf: all threads may be at work on archives without being stuck."""

_NEVER = float("inf")


class Condition(Enum):
    """STARTING: not asked yet; used as if it were up."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Health:
    """`since` is a time of the caller's clock. `reason` says why it is down, "" otherwise. `version` and `database` are what was
    last heard: clamd's own words, and the name that the database gave itself ("" if none)."""

    condition: Condition
    since: float
    reason: str = ""
    version: Version | None = None
    database: str = ""

    @property
    def is_usable(self) -> bool:
        return self.condition in (Condition.STARTING, Condition.UP)


@dataclass(frozen=True, slots=True)
class Breaker:
    """`generation` goes up with each database that is another one, and with each time that clamd comes back."""

    health: Health
    probe_at: float
    generation: int = 0
    probed_at: float = float("-inf")


def start(now: float) -> Breaker:
    """Nothing is known; the first probe is due at once."""
    return Breaker(Health(Condition.STARTING, now), now)


def absent(now: float) -> Breaker:
    """A box without clamd (mamori.inspect.memory): nothing is ever probed."""
    return Breaker(Health(Condition.ABSENT, now, "this box has too little memory for it"), _NEVER)


def begin_probe(breaker: Breaker, now: float) -> Breaker:
    """A probe is on its way; the next is not due while it is."""
    return replace(breaker, probe_at=_NEVER, probed_at=now)


def probe_answered(breaker: Breaker, version: Version, database: str, now: float) -> Breaker:
    """Both steps went well."""
    old = breaker.health
    is_same = old.condition is Condition.UP and (old.version, old.database) == (version, database)
    since = old.since if old.condition is Condition.UP else now
    return replace(
        breaker,
        health=Health(Condition.UP, since, "", version, database),
        probe_at=now + PROBE_EVERY_S,
        generation=breaker.generation + (not is_same),
    )


def failed(breaker: Breaker, reason: str, now: float) -> Breaker:
    """Connecting or a probe failed: down, and the next probe is due soon."""
    return replace(_down(breaker, reason, now), probe_at=now + RETRY_S)


def hung(breaker: Breaker, now: float) -> Breaker:
    """A probe was not answered in time: down, and the probe goes on waiting."""
    return _down(breaker, "clamd does not answer", now)


def _down(breaker: Breaker, reason: str, now: float) -> Breaker:
    old = breaker.health
    since = old.since if old.condition is Condition.DOWN else now
    return replace(breaker, health=Health(Condition.DOWN, since, reason, old.version, old.database))


def suspect_at(breaker: Breaker, waits_since: float) -> float:
    """When somebody who waits makes clamd suspect; never while a probe is on its way or clamd is down."""
    if not breaker.health.is_usable or breaker.probe_at == _NEVER:
        return _NEVER
    return max(waits_since, breaker.probed_at) + SUSPECT_AFTER_S


def suspect(breaker: Breaker, now: float) -> Breaker:
    """Somebody has waited for SUSPECT_AFTER_S: probe now, unless that was just done or is on its way."""
    if not breaker.health.is_usable or breaker.probe_at == _NEVER or now - breaker.probed_at < SUSPECT_AFTER_S:
        return breaker
    return replace(breaker, probe_at=min(breaker.probe_at, now))
