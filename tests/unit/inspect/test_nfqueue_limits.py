"""The limits as text, and what nft prints about them. That the kernel takes them, and whom they stop, is shown in tests/net."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from mamori.inspect.nfqueue.limits import (
    COUNTERS,
    NOTES,
    SCAN_PORTS,
    SWEEP_MACHINES,
    SYN_DESTINATION,
    SYN_SOURCE,
    UDP_DESTINATION,
    UDP_SOURCE,
    Counter,
    NftError,
    Noted,
    parse_counters,
    parse_noted,
    render_limits,
)
from mamori.inspect.policy import Mode

BUSY_PC_SYNS_PER_S, BUSY_PC_SYNS_AT_ONCE, PCS = 50, 1000, 100
PRINTED = {
    "nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"counter": {"family": "inet", "name": "syn_flood", "table": "mamori_limits", "handle": 10, "packets": 7, "bytes": 420}},
        {"counter": {"family": "inet", "name": "sweep", "table": "mamori_limits", "handle": 11, "packets": 0, "bytes": 0}},
    ]
}


def noted(*elements: object) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, {"set": {"name": "flooding4", "elem": list(elements)}}]})


def rules(mode: Mode) -> list[str]:
    return [line for line in render_limits(mode).splitlines() if line.startswith("add rule")]


def test_block_drops_behind_its_counters_and_log_does_everything_but_drop() -> None:
    assert [line.removesuffix(" drop") for line in rules(Mode.BLOCK)] == rules(Mode.LOG)
    dropping = [line for line in rules(Mode.BLOCK) if "drop" in line]
    assert dropping == [f"add rule inet mamori_limits {name} counter name {name} drop" for name in COUNTERS]


def test_off_is_empty_chains_that_keep_their_counters() -> None:
    assert rules(Mode.OFF) == []
    assert render_limits(Mode.OFF) == render_limits(Mode.BLOCK)[: len(render_limits(Mode.OFF))]
    assert all(f"  counter {name} {{ }}\n" in render_limits(Mode.OFF) for name in COUNTERS)


def test_allowed_networks_pass_before_anything_is_counted() -> None:
    allowed = list(map(ip_network, ("10.0.0.0/9", "10.128.0.0/9", "192.0.2.1", "2001:db8::1")))
    text = [line for line in render_limits(Mode.BLOCK, allowed).splitlines() if line.startswith("add rule")]
    passes = [
        "ip saddr { 10.0.0.0/8, 192.0.2.1/32 } accept",
        "ip daddr { 10.0.0.0/8, 192.0.2.1/32 } accept",
        "ip6 saddr { 2001:db8::1/128 } accept",
        "ip6 daddr { 2001:db8::1/128 } accept",
    ]
    for chain in ("prerouting", "established"):
        first = f"add rule inet mamori_limits {chain} "
        assert [line.removeprefix(first) for line in text if line.startswith(first)][:4] == passes
    assert render_limits(Mode.OFF, allowed) == render_limits(Mode.OFF)


def test_a_table_is_never_deleted_because_waiting_packets_would_go_with_its_hooks() -> None:
    assert all("delete" not in render_limits(mode) and "flush table" not in render_limits(mode) for mode in Mode)


def test_every_set_that_a_rule_uses_is_there_and_every_set_is_used() -> None:
    text = render_limits(Mode.BLOCK)
    declared = {line.split()[1] for line in text.splitlines() if line.startswith("  set ")}
    used = {word.lstrip("@") for line in rules(Mode.BLOCK) for word in line.split() if word.startswith("@")}
    assert declared == used
    assert set(NOTES) <= declared


def test_what_cannot_be_remembered_as_tried_counts_for_no_scan() -> None:
    """Else a flood that fills the set would make every connection of a browser a new port."""
    assert all(
        "@tried" in line and line.index("update @tried") < line.index("jump first")
        for line in rules(Mode.BLOCK)
        if "first4" in line.split()[-1]
    )
    assert not any("@ports" in line or "@sweep" in line for line in rules(Mode.BLOCK) if " prerouting " in line)


def test_a_busy_office_is_far_from_every_limit() -> None:
    assert SYN_SOURCE.rate >= 10 * BUSY_PC_SYNS_PER_S
    assert SYN_SOURCE.burst >= 2 * BUSY_PC_SYNS_AT_ONCE <= SWEEP_MACHINES.burst
    assert SYN_DESTINATION.rate >= PCS * BUSY_PC_SYNS_PER_S / 5
    assert SYN_DESTINATION.burst >= PCS * 100
    assert UDP_DESTINATION.burst > UDP_SOURCE.burst >= 1000
    assert SCAN_PORTS.burst >= 3 * 8, "a domain controller has eight services below 1024"


def test_counters_are_read_by_name() -> None:
    assert parse_counters(json.dumps(PRINTED)) == {"syn_flood": Counter(7, 420), "sweep": Counter(0, 0)}
    assert parse_counters('{"nftables": []}') == {}


def test_noted_sources_are_read_with_their_protocol() -> None:
    text = noted(
        {"elem": {"val": {"concat": ["192.0.2.1", "tcp"]}, "expires": 5}},
        {"elem": {"val": "2001:db8::1", "expires": 5}},
        "10.0.0.1",
    )
    assert parse_noted(text) == [
        Noted(IPv4Address("192.0.2.1"), "tcp"),
        Noted(IPv6Address("2001:db8::1"), ""),
        Noted(IPv4Address("10.0.0.1"), ""),
    ]
    assert parse_noted(noted()) == []
    assert parse_noted('{"nftables": [{"set": {"name": "flooding4"}}]}') == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        '{"nftables": {}}',
        '{"nftables": [{"counter": {"name": 1}}]}',
        '{"nftables": [{"counter": {}}]}',
        "[" * 100_000,
    ],
)
def test_other_words_are_no_counters(text: str) -> None:
    with pytest.raises(NftError):
        parse_counters(text)


@pytest.mark.parametrize(
    "element",
    [7.5, None, "x", {"val": 1}, {"elem": {}}, {"elem": {"val": {"concat": []}}}, {"elem": {"val": {"concat": [[], []]}}}],
)
def test_other_elements_are_no_sources(element: object) -> None:
    with pytest.raises(NftError):
        parse_noted(noted(element))
