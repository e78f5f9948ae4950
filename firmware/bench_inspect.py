"""How fast the packet queue is: a bridge in network namespaces with iperf3 at both ends, measured side by side.

Everything runs on this machine, iperf3 included, and shares its processors; so the figures compare ways through the bridge
with each other, in one run, and say little about a box of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from pathlib import Path
from typing import Any

from firmware.inspect_lab import ADDRESSES, Lab, start_lab, start_worker, wait_until
from firmware.process import Running, start
from firmware.workspace import Workspace
from mamori.inspect.nfqueue.rules import QueueRules

SECONDS = 4
"""Of each measurement: slow start is over in 0.1 s, and the whole must not take longer than anyone waits."""
ROUNDS = 3
"""The ways take turns, so that a busy moment of the machine does not fall on one of them."""
DECIDED_AFTER = 50
"""Packets of a connection that are inspected before it is decided: a TLS handshake takes fewer."""

_GB = 1e9


def bench_inspect(workspace: Workspace) -> dict[str, Any]:
    """Throughput in Gbit/s, and processor seconds per gigabyte: of both ends and the worker, and of the worker alone; medians.

    Kernel work in soft interrupts that fall on other processes is missing in them: a lower bound, comparable between ways.
    The machine's own count would have it, and everybody else's work too.

    Ways: `bare` bridge; `accept`, every super-packet through a worker of plain Python; `bypass`, decided in the kernel
    after DECIDED_AFTER packets. It takes root and iperf3.
    """
    ways: dict[str, int | None] = {"bare": None, "accept": 0, "bypass": DECIDED_AFTER}
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    load = os.getloadavg()
    with start_lab(f"mamori-bench-{os.getpid()}") as lab:
        for number in range(ROUNDS):
            for way, decided_after in ways.items():
                with workspace.console.step(f"measure {way}, round {number + 1} of {ROUNDS}"):
                    figures[way].append(_measure(lab, decided_after))
    return {
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "processors": os.cpu_count(),
        "load_before": [round(value, 2) for value in load],
        "load_after": [round(value, 2) for value in os.getloadavg()],
        "ways": {way: _medians(rows) for way, rows in figures.items()},
    }


def _measure(lab: Lab, decided_after: int | None) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        lab.load(None if decided_after is None else QueueRules(workers=1, fail_open=False))
        worker = None if decided_after is None else stack.enter_context(start_worker(lab, decided_after=decided_after))
        server = ["ip", "netns", "exec", lab.server, "iperf3", "--server", "--one-off"]
        listening = stack.enter_context(start(server, explain="receive packets"))
        wait_until(listening, lambda: ":5201" in lab.at(lab.server, "ss", "-Hltn", explain="wait for iperf3"))
        before_s = _process_busy_s(worker)
        client = ["iperf3", "--client", ADDRESSES["server"][0], "--time", str(SECONDS), "--json"]
        report = json.loads(lab.at(lab.client, *client, explain="send packets"))
        worker_s = _process_busy_s(worker) - before_s
        queued = lab.queued() or 0
    received, percent = report["end"]["sum_received"], report["end"]["cpu_utilization_percent"]
    ends_s = (percent["host_total"] + percent["remote_total"]) / 100 * received["seconds"]
    gigabytes = received["bytes"] / _GB
    return {
        "gbit_per_s": received["bits_per_second"] / 1e9,
        "cpu_s_per_gb": (ends_s + worker_s) / gigabytes,
        "worker_cpu_s_per_gb": worker_s / gigabytes,
        "queued_packets": queued,
    }


def _process_busy_s(process: Running | None) -> float:
    """Processor seconds of a process in user and system mode: proc_pid_stat(5), counted behind the name."""
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
