"""How fast the packet queue is: a bridge in network namespaces with iperf3 at both ends, measured side by side.

Everything runs on this machine, iperf3 included, and shares its processors; so the figures compare ways through the bridge
with each other, in one run, and say little about a box of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.netns import call_in_namespace, start_namespace
from firmware.process import Argument, Running, run, start
from firmware.recipe import ROOT
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError
from mamori.inspect.nfqueue.rules import SYSCTLS, Family, QueueRules, render_no_rules, render_queue_rules

SECONDS = 4
"""Of each measurement: slow start is over in 0.1 s, and the whole must not take longer than anyone waits."""
ROUNDS = 3
"""The ways take turns, so that a busy moment of the machine does not fall on one of them."""
DECIDED_AFTER = 50
"""Packets of a connection that are inspected before it is decided: a TLS handshake takes fewer."""

ADDRESSES = {"client": ("10.79.0.1", "fd79::1"), "server": ("10.79.0.2", "fd79::2")}
WITHIN_S = 20.0

_QUEUE = 0
_GB = 1e9
_WORKER = """\
import select, sys
from mamori.inspect.nfqueue.messages import Verdict, encode_verdict
from mamori.inspect.nfqueue.queue import Settings, start_queue
from mamori.inspect.nfqueue.rules import DECIDED_MARK

number, fail_open, max_length, decided_after = map(int, sys.argv[1:])
seen = {}
with start_queue(Settings(number, bool(fail_open), max_length)) as queue:
    while select.select([queue], [], []):
        verdicts = []
        for packet in queue.receive():
            flow = bytes(packet.payload[12:24])
            count = seen[flow] = seen.get(flow, 0) + 1
            mark = DECIDED_MARK if 0 < decided_after <= count else None
            verdicts.append(encode_verdict(number, packet.id, Verdict.ACCEPT, mark=mark))
        queue.send(verdicts)
"""
"""A process as the appliance will have one: it accepts, and decides a connection after so many of its packets (0: never)."""


@dataclass(frozen=True)
class Lab:
    """Three namespaces: `client` and `server`, with `ADDRESSES` on their eth0, and between them `box` with the bridge."""

    client: str
    box: str
    server: str

    def at(self, namespace: str, *argv: Argument, explain: str, input: str = "", accept: tuple[int, ...] = (0,)) -> str:
        """What a program prints in one of the namespaces."""
        command = ["ip", "netns", "exec", namespace, *argv]
        return run(command, explain=explain, input=input.encode(), accept=accept, timeout_s=WITHIN_S).stdout

    def load(self, rules: QueueRules | None) -> None:
        """The rules of both families; None is a bare bridge, which does not even call netfilter."""
        for family in Family:
            text = render_queue_rules(rules, family) if rules else render_no_rules()
            self.at(self.box, *family.command, input=text, explain=f"load the rules of {family.name}")
        settings = SYSCTLS if rules else {**SYSCTLS, **{key: "0" for key in SYSCTLS if "call" in key}}
        call_in_namespace(self.box, lambda: write_sysctls(settings))

    def queued(self, number: int = _QUEUE) -> int | None:
        """How many packets the queue has had; None when nobody has it. proc: nfnetlink_queue.c, seq_show."""
        table = call_in_namespace(self.box, Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text)
        rows = [[int(word) for word in line.split()] for line in table.splitlines()]
        return next((row[7] for row in rows if row[0] == number), None)


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


@contextlib.contextmanager
def start_lab(name: str) -> Iterator[Lab]:
    """The namespaces NAME-client, NAME-box and NAME-server, gone with everything in them when the block is left."""
    with contextlib.ExitStack() as stack:
        lab = Lab(*(stack.enter_context(start_namespace(f"{name}-{part}")) for part in ("client", "box", "server")))
        _ip(lab.box, "link", "add", "br0", "type", "bridge")
        _ip(lab.box, "link", "set", "br0", "up")
        for side, namespace in (("client", lab.client), ("server", lab.server)):
            _ip(lab.box, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip(lab.box, "link", "set", side, "master", "br0", "up")
            _ip(namespace, "link", "set", "eth0", "up")
            for address, prefix in zip(ADDRESSES[side], ("24", "64"), strict=True):
                _ip(namespace, "address", "add", f"{address}/{prefix}", "dev", "eth0", *(["nodad"] if ":" in address else []))
        yield lab


def write_sysctls(settings: dict[str, str]) -> None:
    """Set them in the namespace of the calling thread."""
    for key, value in settings.items():
        try:
            Path("/proc/sys", key.replace(".", "/")).write_text(value)
        except FileNotFoundError:
            raise MamoriError(f"the kernel has no {key}", "`modprobe br_netfilter` brings it") from None


@contextlib.contextmanager
def start_worker(lab: Lab, *, fail_open: bool = True, max_length: int = 2048, decided_after: int = 0) -> Iterator[Running]:
    """A process that accepts the packets of queue 0, and has the queue when the block is entered."""
    arguments = [str(int(value)) for value in (_QUEUE, fail_open, max_length, decided_after)]
    argv = ["ip", "netns", "exec", lab.box, sys.executable, "-c", _WORKER, *arguments]
    with start(argv, explain="accept packets", env={"PYTHONPATH": str(ROOT / "python-app/src")}) as worker:
        _wait_until(worker, lambda: lab.queued() is not None)
        yield worker


def _ip(namespace: str, *argv: str) -> None:
    run(["ip", "-n", namespace, *argv], explain="lay out a bridge in namespaces")


def _measure(lab: Lab, decided_after: int | None) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        lab.load(None if decided_after is None else QueueRules(workers=1, fail_open=False))
        worker = None if decided_after is None else stack.enter_context(start_worker(lab, decided_after=decided_after))
        server = ["ip", "netns", "exec", lab.server, "iperf3", "--server", "--one-off"]
        listening = stack.enter_context(start(server, explain="receive packets"))
        _wait_until(listening, lambda: ":5201" in lab.at(lab.server, "ss", "-Hltn", explain="wait for iperf3"))
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


def _wait_until(running: Running, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        running.check()
        if time.monotonic() > deadline:
            raise MamoriError(f"bench: a program was not ready within {WITHIN_S:g} s")
        time.sleep(0.02)


def _process_busy_s(process: Running | None) -> float:
    """Processor seconds of a process in user and system mode: proc_pid_stat(5), counted behind the name."""
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
