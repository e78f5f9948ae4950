"""What the owner changes while the box runs, and what the service does with its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.guarded import Guarded, start_guarded
from tests.support.wait import check_until


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with start_guarded(tmp_path_factory.mktemp("policy"), name="pol") as box:
        yield box


def test_a_worker_that_is_asked_to_end_does_and_another_takes_its_place(box: Guarded) -> None:
    pids = {worker["number"]: worker["pid"] for worker in box.workers()}
    os.kill(pids[0], signal.SIGTERM)
    check_until("its end is told", lambda: "worker 0 ended with 0; it is started again" in subjects(box), within_s=10)

    def another() -> bool:
        workers = {worker["number"]: worker["pid"] for worker in box.workers()}
        return workers.keys() == pids.keys() and workers[0] != pids[0]

    check_until("another one is there", another, within_s=20)


def subjects(box: Guarded) -> list[str]:
    return [event["subject"] for event in box.events("--function", "system")]
