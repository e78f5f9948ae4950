"""Keeping the workers alive: which are to be started, killed, or given time. Pure; times are seconds that only go forward.

A worker that ends is started again, at once the first time, later each time it ends young: one that cannot start must not
eat the processor, and must be there again soon after what stops it is gone. A worker that says nothing for SILENT_S hangs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

SILENT_S = 10.0
"""A worker reports every 2 s; a box that swaps may be late. Meanwhile its queue is full and the kernel passes or drops."""

STARTING_S = 20.0
"""Until the first report: Python starts in half a second, under emulation in five."""

YOUNG_S = 10.0
"""A worker that ends younger than this could not do its work."""

FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Worker:
    """One of them. `runs_since` is None while it waits for `start_at`."""

    number: int
    start_at: float
    runs_since: float | None = None
    heard_at: float | None = None
    pause_s: float = 0.0


@dataclass(frozen=True)
class StartWorker:
    """It is not there, and its pause is over."""

    number: int


@dataclass(frozen=True)
class KillWorker:
    """It hangs; its end is told like any other."""

    number: int


Order = StartWorker | KillWorker
Crew = Mapping[int, Worker]


def start_crew(workers: int, now: float) -> Crew:
    """All are to be started at once."""
    return {number: Worker(number, now) for number in range(workers)}


def next_orders(crew: Crew, now: float) -> tuple[Crew, tuple[Order, ...]]:
    """What is due now."""
    orders: list[Order] = []
    after = dict(crew)
    for worker in crew.values():
        if worker.runs_since is None:
            if worker.start_at <= now:
                orders.append(StartWorker(worker.number))
                after[worker.number] = replace(worker, runs_since=now, heard_at=None)
        elif now > _deadline(worker):
            orders.append(KillWorker(worker.number))
            # Once: it is asked again only if it still lives after another such time.
            after[worker.number] = replace(worker, heard_at=now)
    return after, tuple(orders)


def hear(crew: Crew, number: int, at: float) -> Crew:
    """The worker has reported at this time."""
    worker = crew[number]
    if worker.runs_since is None or at < worker.runs_since or (worker.heard_at is not None and at <= worker.heard_at):
        return crew
    return {**crew, number: replace(worker, heard_at=at)}


def lose(crew: Crew, number: int, now: float) -> Crew:
    """The worker has ended."""
    worker = crew[number]
    young = worker.runs_since is not None and now - worker.runs_since < YOUNG_S
    pause_s = min(max(worker.pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S) if young else 0.0
    return {**crew, number: Worker(number, now + pause_s, pause_s=pause_s)}


def next_deadline(crew: Crew) -> float:
    """When `next_orders` has something to do, if nothing else happens."""
    return min(worker.start_at if worker.runs_since is None else _deadline(worker) for worker in crew.values())


def _deadline(worker: Worker) -> float:
    if worker.heard_at is not None:
        return worker.heard_at + SILENT_S
    return (worker.runs_since or 0.0) + STARTING_S
