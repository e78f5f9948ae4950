"""The benchmark of the inspection can measure: its ways are in force, and its loads arrive. How fast, is not asked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.bench_inspect import Kit, start_way
from firmware.inspect_loads import LOADS, write_files
from firmware.peers import Peers
from tests.support.need import need


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    need(os.geteuid() == 0, "network namespaces take root")
    for tool in ("ip", "iptables-nft-restore", "nginx", "curl", "wrk", "socat", "openssl"):
        need(tool, "the benchmark's bridge, servers and clients")
    need("smtp-source", "mails by the hundred")
    folder = tmp_path_factory.mktemp("kit")
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)  # the web server's worker is root, but the mail sink is not
    write_files(folder)
    nothing = folder / "not needed"
    return Kit(folder, nothing, nothing, 0, Peers(nothing), "")


def test_every_load_arrives_over_a_bare_bridge(kit: Kit) -> None:
    with start_way(kit, "bare") as measure:
        figures = {load: measure(load, 0.1) for load in LOADS}
    for load in ("large", "middle", "tls"):
        assert figures[load]["bytes"] >= 16 << 20
        assert figures[load]["gbit_per_s"] > 0
    assert figures["mix"]["requests"] > 100
    assert figures["mix"]["bytes"] > 1024 * figures["mix"]["requests"]
    assert figures["mail"]["mails_per_s"] > 0
    for load in ("web-latency", "echo-latency"):
        assert 0 < figures[load]["p50_ms"] <= figures[load]["p99_ms"]


def test_our_way_is_inspected_and_its_processor_time_is_counted(kit: Kit, tmp_path: Path) -> None:
    with start_way(replace(kit, lists=tmp_path / "none"), "ours, off") as measure:
        figures = measure("mix", 1)
    assert figures["requests"] > 100
    assert figures["workers_cpu_s_per_gb"] > 0, "the workers had the packets"
