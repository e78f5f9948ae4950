"""The benchmarks behind `./inv bench`: each gives figures with their targets, and none is a test that can fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from firmware.process import run as run_tool
from firmware.version import read_source
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError

NAMES = ("build", "boot", "inspect", "power-cut")


def run(name: str, workspace: Workspace, *, quick: bool = False, count: int = 0) -> dict[str, Any]:
    """Measure `name` and write the figures to out/bench/NAME.json; MamoriError when there is no such benchmark. `quick` takes less
    time where it can; `count` is how often something is done where that can be chosen, 0 for the usual number."""
    if name not in NAMES:
        raise MamoriError(f"no such benchmark: {name}", f"there are {', '.join(NAMES)}")
    measured = {
        "benchmark": name,
        "version": read_source(workspace.root).version,
        "machine": _machine(),
        "figures": _measure(name, workspace, quick, count),
    }
    _write(workspace.out / "bench" / f"{name}.json", measured)
    return measured


def tables(measured: dict[str, Any]) -> Iterable[tuple[Sequence[str], Sequence[Sequence[object]]]]:
    """Columns and rows of each table that people read; none for benchmarks that have only a few figures."""
    if measured["benchmark"] != "inspect":
        return ()
    from firmware.bench_inspect import tables

    return tables(measured["figures"])


def _measure(name: str, workspace: Workspace, quick: bool, count: int) -> dict[str, Any]:
    if name == "build":
        from firmware.bench_build import bench_build

        return bench_build(workspace)
    if name == "inspect":
        from firmware.bench_inspect import bench_inspect

        return bench_inspect(workspace, quick=quick)
    if name == "power-cut":
        from firmware.bench_power_cut import bench_power_cut

        return bench_power_cut(workspace, count, quick)
    from firmware.bench_boot import bench_boot
    from firmware.build import build_image

    return bench_boot(workspace, build_image(workspace, "lab"))


def _machine() -> dict[str, Any]:
    """What the figures depend on and a reader cannot see: processors, memory, and how busy they were with other work."""
    kernel = run_tool(["uname", "-r"], explain="read the kernel's version").stdout.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_mib": memory >> 20, "kernel": kernel, "load": round(os.getloadavg()[0], 2)}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
