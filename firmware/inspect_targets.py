"""What the inspection has to reach, and whether it did. Pure: figures in, targets out.

All are about 2 processors that the servers and clients of the loads share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from firmware.inspect_memory import Memory

MIN_DOWNLOAD_GBIT_PER_S = 0.7
"""Of HTTP with every function on: the reference hardware's figure."""
MIN_DECIDED_TO_BARE = 0.8
"""TLS under an allowed name, to the bare bridge."""
MIN_MIX_TO_SURICATA = 3.0
"""Small requests a second, to Suricata alone on a packet queue."""
MAX_ADDED_LATENCY_MS = 2.0
"""Of a small request, 99 of 100, to the bare bridge."""
MAX_MEMORY_MB = 150.0
"""Of all processes of the application with a million names and 50,000 connections."""

OURS = ("ours, on", "ours, on, signatures")
_QUEUE = "suricata, queue"

Ways = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Figures by way and load."""


@dataclass(frozen=True)
class Target:
    """One target: what was wanted, and what was got, as people read it."""

    name: str
    wanted: str
    got: str
    is_met: bool


def judge(ways: Ways, memory: Memory) -> tuple[Target, ...]:
    """All targets, in the order of the issue."""
    found = []
    for way in OURS:
        ours, bare = ways[way], ways["bare"]
        for load in ("large", "middle"):
            found.append(_at_least(f"HTTP, {load} files ({way})", MIN_DOWNLOAD_GBIT_PER_S, ours[load]["gbit_per_s"], " Gbit/s"))
        decided = ours["tls"]["gbit_per_s"] / bare["tls"]["gbit_per_s"]
        found.append(_at_least(f"TLS, to the bare bridge ({way})", MIN_DECIDED_TO_BARE, decided, ""))
        mix = ours["mix"]["requests_per_s"] / ways[_QUEUE]["mix"]["requests_per_s"]
        found.append(_at_least(f"small requests, to Suricata on a queue ({way})", MIN_MIX_TO_SURICATA, mix, ""))
        for load in ("web-latency", "echo-latency"):
            added = ours[load]["p99_ms"] - bare[load]["p99_ms"]
            found.append(_at_most(f"added {load}, p99 ({way})", MAX_ADDED_LATENCY_MS, added, " ms"))
    found.append(_at_most("memory of the application", MAX_MEMORY_MB, memory.with_connections_mb, " MB"))
    return tuple(found)


def _at_least(name: str, wanted: float, got: float, unit: str) -> Target:
    return Target(name, f"≥ {wanted:g}{unit}", f"{got:.2f}{unit}", got >= wanted)


def _at_most(name: str, wanted: float, got: float, unit: str) -> Target:
    return Target(name, f"≤ {wanted:g}{unit}", f"{got:.2f}{unit}", got <= wanted)
