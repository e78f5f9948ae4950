"""The health gate by value: what an office would miss is a fault, what lies outside of the box is none."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mamori.update.gate import GATE_WITHIN_S, STEADY_LOOKS, count_bugs, find_faults, find_write_fault, gate_within_s, watch

WELL: dict[str, Any] = {
    "release": {},
    "slot": "b",
    "root": {"verified": True},
    "secure_boot": True,
    "bridge": {"condition": "forwarding", "text": "br0 forwards"},
    "inspect": {"running": True, "packets": {"workers": 2, "workers_wanted": 2, "bugs": 0}},
    "signatures": {"condition": "absent"},
    "lists": {"age_s": None},
    "events": {"size_bytes": 0},
    "update": {"phase": "trial"},
    "data": {"read_only": False},
    "uptime_s": 60.0,
    "clock": {"sane": True},
    "unreadable": {},
}

Harm = Callable[[dict[str, Any]], None]


def put(*keys: str, value: Any) -> Harm:
    def harm(status: dict[str, Any]) -> None:
        for key in keys[:-1]:
            status = status[key]
        status[keys[-1]] = value

    return harm


def lose(part: str) -> Harm:
    def harm(status: dict[str, Any]) -> None:
        status[part] = None
        status["unreadable"][part] = "away"

    return harm


FAULTS = {
    "the bridge is down": (put("bridge", "condition", value="down"), "the bridge does not forward"),
    "nobody can say how the bridge is": (lose("bridge"), "bridge: away"),
    "the inspection does not run": (lose("inspect"), "inspect: away"),
    "the inspection is silent": (put("inspect", "running", value=False), "does not answer"),
    "packets are left alone": (put("inspect", "packets", value=None), "leaves packets alone"),
    "a worker is missing": (put("inspect", "packets", "workers", value=1), "1 of 2 workers"),
    "a bug in each of many connections": (put("inspect", "packets", "bugs", value=3), "3 bugs since the last look"),
    "nobody writes events": (lose("events"), "events: away"),
    "the data partition is not mounted": (lose("data"), "data: away"),
    "the data partition can only be read": (put("data", "read_only", value=True), "cannot be written"),
    "the clock forgot the time": (put("clock", "sane", value=False), "behind the build time"),
    "the root is not verified": (put("root", "verified", value=False), "not verified"),
}


@pytest.mark.parametrize(("harm", "says"), FAULTS.values(), ids=FAULTS)
def test_what_an_office_would_miss_is_a_fault(harm: Harm, says: str) -> None:
    status = copy.deepcopy(WELL)
    harm(status)
    (fault,) = find_faults(status, inspects=True)
    assert says in fault


NO_FAULTS = {
    "all is well": put("uptime_s", value=1.0),
    "no cable is in": put("bridge", "condition", value="waiting"),
    "no signature engine, as on a box of 1 GiB": lose("signatures"),
    "no lists have come": lose("lists"),
    "Secure Boot is off": put("secure_boot", value=False),
    "the updater's own part is not there yet": lose("update"),
}


@pytest.mark.parametrize("harm", NO_FAULTS.values(), ids=NO_FAULTS)
def test_the_rest_is_none(harm: Harm) -> None:
    status = copy.deepcopy(WELL)
    harm(status)
    assert find_faults(status, inspects=True) == []


def test_one_odd_packet_is_no_reason_to_go_back() -> None:
    """Else whoever knows one could keep every release away from an office."""
    status = copy.deepcopy(WELL)
    status["inspect"]["packets"]["bugs"] = 3
    assert find_faults(status, inspects=True, bugs_before=count_bugs(status)) == []
    assert count_bugs({"inspect": None}) == 0


def test_an_image_that_does_not_inspect_needs_no_workers() -> None:
    status = copy.deepcopy(WELL)
    status["inspect"]["packets"] = None
    assert find_faults(status, inspects=False) == []


def looks(*faults: list[str] | Exception) -> Callable[[], list[str]]:
    """One after the other, the last one for ever."""
    left = list(faults)

    def look() -> list[str]:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, Exception):
            raise now
        return now

    return look


def test_a_box_must_be_well_for_a_while() -> None:
    seen: list[list[str]] = []
    look = looks([], [], ["down"], *([[]] * STEADY_LOOKS))

    def noted() -> list[str]:
        seen.append(look())
        return seen[-1]

    assert watch(noted, threading.Event(), 20, 0.001) == []
    assert len(seen) == 3 + STEADY_LOOKS


@pytest.mark.parametrize(
    ("look", "says"),
    [(looks(["down"]), "down"), (looks(KeyError("packets")), "the gate itself failed: KeyError('packets')")],
    ids=["a fault that stays", "a mistake of ours"],
)
def test_what_does_not_pass_in_time_is_the_reason(look: Callable[[], list[str]], says: str) -> None:
    assert watch(look, threading.Event(), 0.05, 0.001) == [says]


def test_who_is_told_to_stop_says_nothing() -> None:
    stop = threading.Event()
    stop.set()
    assert watch(looks([]), stop, 20, 0.001) is None


def test_the_disk_must_give_back_what_it_took(tmp_path: Path) -> None:
    assert find_write_fault(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".gate.new").symlink_to("/dev/full")
    assert "No space left" in find_write_fault(tmp_path)
    assert "cannot be written" in find_write_fault(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("asked", "within_s"), [("", GATE_WITHIN_S), ("4", 4), ("9999", GATE_WITHIN_S), ("-1", GATE_WITHIN_S), ("²", GATE_WITHIN_S)]
)
def test_its_time_can_be_cut_short_and_not_made_longer(asked: str, within_s: float) -> None:
    assert gate_within_s({"MAMORI_GATE_WITHIN_S": asked}) == within_s
