"""clamd as the scanner sees it: whether it can be used, asked again and again; health.py decides, this connects."""

from __future__ import annotations

import os
import select
from pathlib import Path

from mamori.inspect.scan import health
from mamori.inspect.scan.clamd import DATABASE_PROBE
from mamori.inspect.scan.files import FileScan
from mamori.inspect.scan.health import Breaker, Health
from mamori.inspect.scan.sessions import ProbeConnection, StreamSession
from mamori.inspect.scan.verdicts import Infected, Unscanned


class ClamdLink:
    """`path` of clamd's socket; None on a box without it. Its connections are registered with `epoll`."""

    def __init__(self, path: Path | None, epoll: select.epoll, now: float) -> None:
        self._path = path
        self._epoll = epoll
        self._breaker = health.start(now) if path else health.absent(now)
        self._probe: ProbeConnection | None = None
        # That it is absent is told; that it is about to be asked is no news.
        self._changes: list[Health] = [] if path else [self._breaker.health]

    @property
    def health(self) -> Health:
        return self._breaker.health

    @property
    def generation(self) -> int:
        """Another number with each other database."""
        return self._breaker.generation

    def take_changes(self) -> list[Health]:
        changes, self._changes = self._changes, []
        return changes

    def open_session(self, file: FileScan, end: int | None, now: float) -> StreamSession | None:
        """A session that has sent nothing yet; None if clamd turned out to be away."""
        if self._path is None or not self.health.is_usable:
            return None
        try:
            session = StreamSession(self._path, file, end)
        except OSError as error:
            self._go_down(error, now)
            return None
        self._epoll.register(session.fileno(), select.EPOLLIN)
        return session

    def suspect(self, now: float) -> None:
        """Something went wrong; a probe will tell."""
        self._breaker = health.suspect(self._breaker, now)

    def next_deadline(self, waits_since: float | None) -> float:
        """When `on_timer` is due, if somebody has waited for an answer since then."""
        deadline = self._breaker.probe_at if self._probe is None else self._probe.deadline
        return deadline if waits_since is None else min(deadline, health.suspect_at(self._breaker, waits_since))

    def on_timer(self, waits_since: float | None, now: float) -> None:
        if self._probe is not None and now >= self._probe.deadline:
            if self.health.is_usable:
                self._probe.deadline = now + health.HUNG_S
                self._update(health.hung(self._breaker, now))
            else:
                self._go_down("clamd does not answer", now)
        if waits_since is not None and now >= health.suspect_at(self._breaker, waits_since):
            self.suspect(now)
        if now >= self._breaker.probe_at:
            self._breaker = health.begin_probe(self._breaker, now)
            self._start_probe(None, now)

    def on_ready(self, descriptor: int, now: float) -> bool:
        """Whether the descriptor is the probe's; if so, what came on it was dealt with."""
        probe = self._probe
        if probe is None or descriptor != probe.fileno():
            return False
        if probe.read():
            self._probe = None
            probe.close()
            self._on_probe_answer(probe, now)
        return True

    def _start_probe(self, heard: ProbeConnection | None, now: float) -> None:
        """The first step, or the second after what was `heard`."""
        if self._path is None:
            return
        version = heard.heard_version() if heard else None
        content = DATABASE_PROBE if heard else None
        answer_s = health.STREAM_TIMEOUT_S if heard else health.VERSION_TIMEOUT_S
        deadline = now + (answer_s if self.health.is_usable else health.HUNG_S)
        try:
            self._probe = ProbeConnection(self._path, content, version, deadline)
        except OSError as error:
            self._go_down(error, now)
            return
        self._epoll.register(self._probe.fileno(), select.EPOLLIN)

    def _on_probe_answer(self, probe: ProbeConnection, now: float) -> None:
        if probe.version is None and probe.heard_version() is not None:
            self._start_probe(probe, now)
            return
        verdict = probe.heard_verdict()
        if probe.version is None or isinstance(verdict, Unscanned):
            self._go_down(f"clamd answers {probe.answer[:100]!r}", now)
        else:
            database = verdict.signature if isinstance(verdict, Infected) else ""
            self._update(health.probe_answered(self._breaker, probe.version, database, now))

    def _go_down(self, reason: str | OSError, now: float) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        if isinstance(reason, BlockingIOError):
            reason = "clamd does not accept connections"
        elif isinstance(reason, OSError):
            reason = f"clamd: {os.strerror(reason.errno or 0)}"
        self._update(health.failed(self._breaker, reason, now))

    def _update(self, breaker: Breaker) -> None:
        if breaker.health.condition is not self._breaker.health.condition:
            self._changes.append(breaker.health)
        self._breaker = breaker

    def close(self) -> None:
        if self._probe is not None:
            self._probe.close()
