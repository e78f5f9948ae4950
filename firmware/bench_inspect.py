"""How fast the inspection is: the same loads through a bare bridge, through ours, and through Suricata, side by side in one run.

Everything runs on this machine, servers and clients included, and shares its processors; so the figures compare ways through the
bridge with each other, and say little about a box of its own. It takes root and the tools of the tests.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from firmware.inspect_box import start_box, start_clamd, weigh
from firmware.inspect_lab import Lab, start_lab, start_worker
from firmware.inspect_loads import LOADS, Figures, start_office, write_files
from firmware.inspect_memory import measure_memory, write_names
from firmware.inspect_suricata import render_queue_alone, render_rules, start_suricata
from firmware.inspect_targets import judge
from firmware.lock import read_lock
from firmware.peers import Peers, prepare_peers
from firmware.workspace import Workspace
from mamori.inspect.lists.compile import compile_lists
from mamori.inspect.nfqueue.rules import QueueRules
from mamori.inspect.scan.clamd import DATABASE_PROBE

SECONDS, ROUNDS = 4.0, 3
"""Of each measurement: slow start is over in 0.1 s. The ways take turns, so that a busy moment does not fall on one of them."""
QUICK_SECONDS, QUICK_ROUNDS = 1.0, 1
"""To see whether a change was worth it; not for the record."""

_MARKER = b"mamori-bench-marker-7c1e55"
_SIGNATURES = f"Mamori.Bench.Marker:0:*:{_MARKER.hex()}\nMamori.Bench.Database:0:0:{DATABASE_PROBE.hex()}\n"
_ALL_OFF = "".join(
    f'[{function}]\nmode = "off"\n'
    for function in ("virus", "dangerous_sites", "categories", "applications", "evasion", "addresses", "ips")
)
_ALL_ON = '[virus]\nmode = "block"\n[dangerous_sites]\nmode = "block"\n[categories]\nmode = "log"\n[applications]\nmode = "log"\n'


@dataclass(frozen=True)
class Kit:
    """What all measurements share: `files` for the servers, compiled `lists`, the socket of a `clamd` that runs, Suricata."""

    files: Path
    lists: Path
    clamd: Path
    clamd_pid: int
    peers: Peers
    rules: str


Processes = Mapping[str, Callable[[], Sequence[int]]]
"""Whose processor time is counted: the processes of each part at this moment."""
Way = Callable[[Kit, Lab, Path, contextlib.ExitStack], Processes]
"""Makes the lab's bridge one of the ways, as long as the stack lasts."""


def bench_inspect(workspace: Workspace, *, quick: bool = False) -> dict[str, Any]:
    """Medians of all rounds by way and load, memory, and the targets. Units are in the names; `cpu_s_per_gb` is by part of the way.

    Kernel work in soft interrupts that fall on other processes is missing in processor times: a lower bound, comparable between
    ways. The machine's own count would have it, and everybody else's work too.
    """
    seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if quick else (SECONDS, ROUNDS)
    figures: dict[str, dict[str, list[Figures]]] = {way: {load: [] for load in LOADS} for way in WAYS}
    load_before = os.getloadavg()
    with start_kit(workspace) as kit:
        for number in range(rounds):
            for way in WAYS:
                with workspace.console.step(f"{way}, round {number + 1} of {rounds}") as step, start_way(kit, way) as measure:
                    for load in LOADS:
                        step.note(load)
                        figures[way][load].append(measure(load, seconds))
        with workspace.console.step("memory"):
            memory = measure_memory(kit.lists, f"mamori-bench-{os.getpid()}")
    ways = {way: {load: _medians(rows) for load, rows in by_load.items()} for way, by_load in figures.items()}
    return {
        "seconds": seconds,
        "rounds": rounds,
        "processors": os.cpu_count(),
        "load_before": [round(value, 2) for value in load_before],
        "load_after": [round(value, 2) for value in os.getloadavg()],
        "ways": ways,
        "memory": vars(memory),
        "targets": [vars(target) for target in judge(ways, memory)],
    }


def tables(figures: Mapping[str, Any]) -> Iterator[tuple[Sequence[str], Sequence[Sequence[object]]]]:
    """What people read of the figures: columns and rows of one table for each load, and of the targets."""
    for load in LOADS:
        rows = {way: by_load[load] for way, by_load in figures["ways"].items()}
        names = [name for name in rows["bare"] if name not in ("bytes", "requests")]
        yield (load, *names), [(way, *(_shown(row.get(name)) for name in names)) for way, row in rows.items()]
    yield ("memory", "MB"), [(name, f"{value:.0f}") for name, value in figures["memory"].items()]
    yield (
        ("target", "wanted", "got", ""),
        [
            (target["name"], target["wanted"], target["got"], "met" if target["is_met"] else "MISSED")
            for target in figures["targets"]
        ],
    )


# --- ways ------------------------------------------------------------------------------------------------------------------


def _bare(kit: Kit, lab: Lab, folder: Path, stack: contextlib.ExitStack) -> Processes:  # noqa: ARG001
    lab.load(None)
    return {}


def _accept(kit: Kit, lab: Lab, folder: Path, stack: contextlib.ExitStack) -> Processes:  # noqa: ARG001
    """Every packet through one process of plain Python that accepts it: what the queue itself costs."""
    lab.load(QueueRules(workers=1, fail_open=False))
    worker = stack.enter_context(start_worker(lab))
    weigh(worker, "mamori-inspect")
    return {"workers": lambda: [worker.pid]}


def _ours(policy: str, signatures: bool, kit: Kit, lab: Lab, folder: Path, stack: contextlib.ExitStack) -> Processes:
    """The whole application; with `signatures` Suricata behind it."""
    is_scanning = policy != _ALL_OFF
    processes: dict[str, Callable[[], Sequence[int]]] = {}
    if signatures:
        (folder / "suricata").mkdir()
        suricata = stack.enter_context(start_suricata(lab, kit.peers, folder / "suricata", kit.rules, "mamori-suricata"))
        processes["suricata"] = lambda: [suricata]
    box = stack.enter_context(start_box(lab, folder, policy=policy, lists=kit.lists, clamd=kit.clamd if is_scanning else None))
    processes["workers"] = lambda: [worker["pid"] for worker in box.workers()]
    if is_scanning:
        processes["clamd"] = lambda: [kit.clamd_pid]
    return processes


def _suricata(inline: bool, kit: Kit, lab: Lab, folder: Path, stack: contextlib.ExitStack) -> Processes:
    """Suricata and nothing of ours, but with our share of the processors: on its packet queue, or inline between the ports."""
    lab.load(None)
    pid = stack.enter_context(start_suricata(lab, kit.peers, folder, kit.rules, "mamori-inspect", inline=inline))
    if not inline:
        lab.load(QueueRules(workers=1, fail_open=True))  # for the settings of br_netfilter; its rules are replaced
        for family in ("iptables-nft", "ip6tables-nft"):
            lab.at(lab.box, family, "-F", "FORWARD", explain="take our rules out")
            lab.at(lab.box, *render_queue_alone(family), explain="send all packets to Suricata")
    return {"suricata": lambda: [pid]}


WAYS: Mapping[str, Way] = {
    "bare": _bare,
    "accept": _accept,
    "ours, off": partial(_ours, _ALL_OFF, False),
    "ours, on": partial(_ours, _ALL_ON, False),
    "ours, on, signatures": partial(_ours, _ALL_ON, True),
    "suricata, queue": partial(_suricata, False),
    "suricata, inline": partial(_suricata, True),
}


@contextlib.contextmanager
def start_kit(workspace: Workspace) -> Iterator[Kit]:
    peers = prepare_peers(workspace, read_lock(workspace.root))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mamori-bench-")))
        folder.chmod(0o755)  # servers have users of their own
        with workspace.console.step("files to serve, a list of names"):
            write_files(folder)
            compile_lists(write_names(folder / "names"), folder / "lists.mlf")
        clamd = stack.enter_context(start_clamd(folder / "clamd", _SIGNATURES))
        yield Kit(folder, folder / "lists.mlf", folder / "clamd/socket", clamd.pid, peers, render_rules())


@contextlib.contextmanager
def start_way(kit: Kit, way: str) -> Iterator[Callable[[str, float], Figures]]:
    """A fresh lab with servers, where the way is in force; what is given measures one load for so many seconds."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(start_lab(f"mamori-bench-{os.getpid()}"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mamori-bench-")))
        folder.chmod(0o777)
        processes = WAYS[way](kit, lab, folder, stack)
        office = stack.enter_context(start_office(lab, kit.files))

        def measure(load: str, seconds: float) -> Figures:
            before = {part: _busy_s(pids()) for part, pids in processes.items()}
            found = dict(LOADS[load](office, seconds))
            spent = {part: _busy_s(pids()) - before[part] for part, pids in processes.items()}
            unit, amount = ("gb", found["bytes"] / 1e9) if "bytes" in found else ("1000", found["requests"] / 1e3)
            return found | {f"{part}_cpu_s_per_{unit}": spent_s / amount for part, spent_s in spent.items()}

        yield measure


def _busy_s(pids: Sequence[int]) -> float:
    """Processor seconds of processes in user and system mode: proc_pid_stat(5), counted behind the name."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _medians(rows: Sequence[Figures]) -> Figures:
    return {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
