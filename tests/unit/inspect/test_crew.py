"""Which workers are started, killed, or given time."""

from __future__ import annotations

from mamori.inspect.crew import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    SILENT_S,
    STARTING_S,
    YOUNG_S,
    KillWorker,
    StartWorker,
    hear,
    lose,
    next_deadline,
    next_orders,
    start_crew,
)


def test_all_workers_are_started_at_once_and_only_once() -> None:
    crew, orders = next_orders(start_crew(2, 10.0), 10.0)
    assert orders == (StartWorker(0), StartWorker(1))
    assert next_orders(crew, 10.1)[1] == ()


def test_a_worker_that_ends_after_a_while_is_started_again_at_once() -> None:
    crew, _ = next_orders(start_crew(1, 0.0), 0.0)
    crew = lose(crew, 0, YOUNG_S + 1)
    assert next_orders(crew, YOUNG_S + 1)[1] == (StartWorker(0),)


def test_a_worker_that_cannot_start_is_tried_less_and_less_often_but_for_ever() -> None:
    crew, now, pauses = start_crew(1, 0.0), 0.0, []
    for _ in range(10):
        crew, orders = next_orders(crew, now)
        assert orders == (StartWorker(0),)
        crew = lose(crew, 0, now)
        pauses.append(next_deadline(crew) - now)
        assert next_orders(crew, now + pauses[-1] - 0.01)[1] == ()
        now += pauses[-1]
    assert pauses[0] == FIRST_PAUSE_S
    assert pauses[-1] == LAST_PAUSE_S
    assert pauses == sorted(pauses)


def test_a_worker_that_lives_long_enough_is_forgiven() -> None:
    crew, _ = next_orders(start_crew(1, 0.0), 0.0)
    crew = lose(crew, 0, 1.0)
    crew, _ = next_orders(crew, 2.0)
    crew = lose(crew, 0, 2.0 + YOUNG_S)
    assert next_deadline(crew) == 2.0 + YOUNG_S


def test_a_worker_that_says_nothing_is_killed_and_asked_again_only_after_another_such_time() -> None:
    crew, _ = next_orders(start_crew(1, 0.0), 0.0)
    assert next_orders(crew, STARTING_S)[1] == ()
    crew = hear(crew, 0, 5.0)
    assert next_orders(crew, 5.0 + SILENT_S)[1] == ()
    crew, orders = next_orders(crew, 5.0 + SILENT_S + 0.1)
    assert orders == (KillWorker(0),)
    assert next_orders(crew, 5.0 + SILENT_S + 0.2)[1] == ()
    assert next_orders(crew, 5.0 + 3 * SILENT_S)[1] == (KillWorker(0),)


def test_a_report_of_the_worker_before_counts_for_nothing() -> None:
    crew, _ = next_orders(start_crew(1, 100.0), 100.0)
    assert hear(crew, 0, 99.0) == crew
