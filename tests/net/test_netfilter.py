"""Known-bad networks and the policy's word on them, in a real kernel: blocked, told of, or left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.inspect_lab import Lab, start_lab, write_sysctls
from firmware.netns import call_in_namespace
from mamori.events.record import Event
from mamori.inspect.netfilter import COUNTERS_EVERY_S, Netfilter
from mamori.inspect.nfqueue.rules import SYSCTLS
from mamori.inspect.policy import Addresses, Entries, Ips, Mode, Policy
from tests.support.need import need

SERVER = "203.0.113.9"
"""Outside, beside the lab's own addresses: those are private ones, which no feed may have."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need(os.geteuid() == 0, "network namespaces take root")
    for tool in ("ip", "nft", "ping"):
        need(tool, "lays out the bridge and loads the sets")
    need(Path("/proc/sys/net/bridge").exists(), "the kernel module br_netfilter is not loaded")
    with start_lab(f"mamori-nf-{os.getpid()}") as lab:
        call_in_namespace(lab.box, lambda: write_sysctls(SYSCTLS))
        lab.at(lab.server, "ip", "address", "add", f"{SERVER}/32", "dev", "eth0", explain="add an address")
        lab.at(lab.client, "ip", "route", "add", SERVER, "dev", "eth0", explain="add a route")
        yield lab


class Box:
    """The rules of one box, and what they tell. `now` goes on by as much as lies between two looks at the counters."""

    def __init__(self, lab: Lab, feeds: Path) -> None:
        self._lab = lab
        self._events: list[Event] = []
        self.said: list[str] = []
        self._netfilter = Netfilter(feeds, self._events.append, lambda _, text: self.said.append(text))
        self._now = 0.0

    def apply(self, policy: Policy) -> None:
        call_in_namespace(self._lab.box, lambda: self._netfilter.apply(policy))
        self.told()

    def told(self) -> set[tuple[str, str, str]]:
        """Function, action and category of what was told since the last look."""
        self._now += COUNTERS_EVERY_S
        call_in_namespace(self._lab.box, lambda: self._netfilter.tick(self._now))
        events, self._events[:] = list(self._events), []
        return {(event.function.value, event.action.value, event.category) for event in events}

    def reaches(self) -> bool:
        """Whether the server answers the client."""
        said = self._lab.at(self._lab.client, "ping", "-c", "1", "-W", "1", SERVER, explain="ask for an answer", accept=(0, 1))
        return " 0% packet loss" in said


@pytest.fixture
def box(lab: Lab, tmp_path: Path) -> Box:
    (tmp_path / "bad.txt").write_text(f"{SERVER} # a server\n0.0.0.0/0\n")
    return Box(lab, tmp_path)


def policy(mode: Mode, **entries: Entries) -> Policy:
    return replace(Policy(addresses=Addresses(mode)), **entries)  # type: ignore[arg-type]


def test_a_listed_network_passes_when_it_is_off_is_told_when_it_is_logged_and_stopped_when_it_is_blocked(box: Box) -> None:
    box.apply(policy(Mode.OFF))
    assert box.reaches()
    assert box.told() == set()
    box.apply(policy(Mode.LOG))
    assert box.reaches()
    assert box.told() == {("address", "logged", "to-noted"), ("address", "logged", "from-noted")}
    box.apply(policy(Mode.BLOCK))
    assert not box.reaches()
    assert box.told() == {("address", "blocked", "to-bad")}
    assert "1 lines are no networks that may be blocked" in "".join(box.said), "0.0.0.0/0 is not taken"
    box.apply(policy(Mode.OFF))
    assert box.reaches()


def test_the_owners_own_networks_are_stopped_whatever_the_feeds_mode_is_and_allowed_ones_never(box: Box) -> None:
    box.apply(policy(Mode.LOG, block=Entries(addresses=(SERVER,))))
    assert not box.reaches()
    assert box.told() == {("address", "blocked", "to-bad")}
    box.apply(policy(Mode.BLOCK, block=Entries(addresses=(SERVER,)), allow=Entries(addresses=(SERVER,))))
    assert box.reaches()
    assert box.told() == set()


@pytest.mark.parametrize(("mode", "action"), [(Mode.LOG, "logged"), (Mode.BLOCK, "blocked")])
def test_a_malformed_packet_that_passes_is_not_told_as_blocked(box: Box, lab: Lab, mode: Mode, action: str) -> None:
    box.apply(replace(Policy(ips=Ips(floods=mode)), addresses=Addresses(Mode.OFF)))
    null_scan = (
        "import socket, struct; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP);"
        f"s.sendto(struct.pack('!HHIIBBHHH', 40000, 80, 1, 0, 0x50, 0, 1024, 0, 0), ('{SERVER}', 0))"
    )
    lab.at(lab.client, "python3", "-c", null_scan, explain="send a segment without a flag")
    assert box.told() == {("ips", action, "malformed")}
