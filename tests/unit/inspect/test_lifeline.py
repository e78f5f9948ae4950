"""The line between supervisor and worker: what is said on it, and what its ends mean."""

from __future__ import annotations

import os
import select
import sys

from mamori.inspect.lifeline import MAX_REPORT_BYTES, SupervisorEnd, WorkerEnd
from mamori.process import Child


def make_line() -> tuple[SupervisorEnd, WorkerEnd]:
    line = SupervisorEnd()
    worker = WorkerEnd(os.dup(line.worker_end.fileno()))
    line.worker_end.close()
    return line, worker


def test_the_last_report_counts_and_is_taken_once() -> None:
    line, worker = make_line()
    assert line.take_report() is None
    worker.send({"number": 1})
    worker.send({"number": 2})
    assert line.take_report() == {"number": 2}
    assert line.take_report() is None


def test_a_supervisor_that_does_not_listen_costs_the_worker_nothing_and_has_news_when_it_does() -> None:
    line, worker = make_line()
    for number in range(5000):
        worker.send({"number": number, "text": "x" * 1000})
    report = line.take_report()
    assert report is not None
    assert line.take_report() is None
    worker.send({"number": 5000})
    assert line.take_report() == {"number": 5000}


def test_the_end_of_the_supervisor_shows_at_the_worker() -> None:
    line, worker = make_line()
    assert select.select([worker], [], [], 0)[0] == []
    line.close()
    assert select.select([worker], [], [], 0)[0] == [worker]
    worker.send({})


def test_the_end_of_the_worker_leaves_what_it_said_last() -> None:
    line, worker = make_line()
    worker.send({"number": 1})
    worker.close()
    assert line.take_report() == {"number": 1}
    assert line.take_report() is None


def test_a_report_that_cannot_be_read_is_a_sign_of_life() -> None:
    line = SupervisorEnd()
    for nonsense in (b"{", b"7", b"\xff", b"[" * 60_000):
        line.worker_end.send(nonsense)
        assert line.take_report() == {}


def test_a_report_that_is_too_long_is_a_sign_of_life() -> None:
    line, worker = make_line()
    for size in (MAX_REPORT_BYTES, 10 * MAX_REPORT_BYTES):
        worker.send({"problem": "x" * size})
        assert line.take_report() == {}


def test_a_worker_that_was_started_by_hand_has_no_line() -> None:
    code = "import sys; from mamori.inspect.lifeline import open_worker_end; sys.exit(open_worker_end() is not None)"
    child = Child([sys.executable, "-c", code])
    assert child.wait(20)
    assert child.exit_code() == 0


def test_a_child_has_the_line_as_its_standard_input_and_nobody_else() -> None:
    code = (
        "from mamori.inspect.lifeline import open_worker_end\n"
        "import os, select\n"
        "line = open_worker_end()\n"
        "line.send({'pid': os.getpid()})\n"
        "select.select([line], [], [])\n"
    )
    lines, children = [], []
    for _ in range(2):
        line = SupervisorEnd()
        children.append(Child([sys.executable, "-c", code], stdin=line.worker_end.fileno()))
        line.worker_end.close()
        lines.append(line)
    for line, child in zip(lines, children, strict=True):
        report = None
        while report is None:
            report = line.take_report()
            assert child.exit_code() is None
        assert report == {"pid": child.pid}
        line.close()
        assert child.wait(20)
        assert child.exit_code() == 0
