"""The targets of the inspection's benchmark: what counts as met, by value."""

from __future__ import annotations

import pytest

from firmware.bench_inspect import tables
from firmware.inspect_box import nice_of
from firmware.inspect_loads import LOADS
from firmware.inspect_memory import Memory
from firmware.inspect_targets import OURS, Target, judge

WAYS = ("bare", *OURS, "suricata, queue")


def figures(**changed: float) -> dict[str, dict[str, dict[str, float]]]:
    """Every way with figures that just meet all targets; `changed` are those of ours."""
    same = {
        "large": {"gbit_per_s": 0.7},
        "middle": {"gbit_per_s": 0.7},
        "mail": {"mails_per_s": 1.0},
        "web-latency": {"p50_ms": 0.1, "p99_ms": 0.5},
        "echo-latency": {"p50_ms": 0.1, "p99_ms": 0.5},
    }
    bare = {**same, "tls": {"gbit_per_s": 5.0}, "mix": {"requests_per_s": 9000.0, "p50_ms": 0.1, "p99_ms": 0.2}}
    suricata = {**bare, "mix": {"requests_per_s": 1000.0, "p50_ms": 0.1, "p99_ms": 0.2}}
    ours = {**bare, "tls": {"gbit_per_s": 4.0}, "mix": {"requests_per_s": 3000.0, "p50_ms": 0.1, "p99_ms": 0.2}}
    for name, value in changed.items():
        load, _, figure = name.partition("__")
        load = load.replace("_", "-")
        ours[load] = {**ours[load], figure: value}
    return {"bare": bare, **dict.fromkeys(OURS, ours), "suricata, queue": suricata}


def missed(changed: dict[str, float], memory_mb: float = 150.0) -> set[str]:
    found = judge(figures(**changed), Memory(60.0, memory_mb, 50_000))
    return {target.name.partition(" (")[0] for target in found if not target.is_met}


def test_figures_that_just_reach_the_targets_meet_them() -> None:
    assert missed({"web_latency__p99_ms": 2.5, "echo_latency__p99_ms": 2.5}) == set()


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        pytest.param({"large__gbit_per_s": 0.69}, "HTTP, large files", id="large files too slowly"),
        pytest.param({"middle__gbit_per_s": 0.69}, "HTTP, middle files", id="documents too slowly"),
        pytest.param({"tls__gbit_per_s": 3.99}, "TLS, to the bare bridge", id="TLS slowed down"),
        pytest.param({"mix__requests_per_s": 2999.0}, "small requests, to Suricata on a queue", id="small requests too slowly"),
        pytest.param({"web_latency__p99_ms": 2.51}, "added web-latency, p99", id="answers late"),
        pytest.param({"echo_latency__p99_ms": 2.51}, "added echo-latency, p99", id="echoes late"),
    ],
)
def test_a_figure_below_its_target_misses_that_one_only(changed: dict[str, float], target: str) -> None:
    assert missed(changed) == {target}


def test_too_much_memory_misses() -> None:
    assert missed({}, memory_mb=150.1) == {"memory of the application"}


def test_a_target_says_what_was_wanted_and_got() -> None:
    found = judge(figures(tls__gbit_per_s=2.5), Memory(60.0, 70.0, 50_000))
    assert Target("TLS, to the bare bridge (ours, on)", "≥ 0.8", "0.50", False) in found
    assert Target("memory of the application", "≤ 150 MB", "70.00 MB", True) in found


def test_people_get_a_table_for_each_load_and_one_of_the_targets() -> None:
    ways, memory = figures(), Memory(60.0, 70.0, 50_000)
    measured = {"ways": ways, "memory": vars(memory), "targets": [vars(target) for target in judge(ways, memory)]}
    shown = list(tables(measured))
    assert [columns[0] for columns, _ in shown] == [*LOADS, "memory", "target"]
    mix = dict(zip(LOADS, shown, strict=False))["mix"]
    assert mix == (
        ("mix", "requests_per_s", "p50_ms", "p99_ms"),
        [(way, f"{ways[way]['mix']['requests_per_s']:,.0f}", "0.10", "0.20") for way in ways],
    )
    assert {row[-1] for row in shown[-1][1]} == {"met"}


@pytest.mark.parametrize(("weight", "nice"), [(100, 0), (500, -7), (50, 3), (20, 7), (1, 19), (10_000, -20)])
def test_a_weight_of_systemd_is_the_priority_that_shares_alike(weight: int, nice: int) -> None:
    assert nice_of(weight) == nice
