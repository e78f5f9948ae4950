"""Floods, scans and malformed packets, stopped in netfilter before anything remembers them. Text for nft; starts nothing.

    prerouting (before connection tracking): malformed ─▶ SYNs by source, by destination, to many ports, to many machines
    established (behind it): UDP packets that nobody answered yet, ICMP, by source and by destination

A limit is a token bucket for each address in a set of the kernel. What is over it is dropped, and only that: a source that once
went too far is not banned, because its address may be somebody else's, forged. Behind each limit is a chain of its own that
notes the source, counts, and drops; the note may fail (its set is full, as in a flood with forged sources), the drop may not.

The limits are for what no office does. 100 PCs that are switched on at nine restore 20 tabs each, and a tab opens 50 connections:
100,000 SYNs in a minute or two, most of them to different machines, 1000 a second at worst, 50 from one PC.

One thing is missing: whether a packet's two addresses are the same ("land") cannot be asked here, since nft compares with constants
only. Every system drops those by itself since about 2005.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

from mamori.inspect.errors import ParseError
from mamori.inspect.policy import Mode

TABLE = "mamori_limits"


@dataclass(frozen=True)
class Limit:
    """`rate` per `unit` go on for ever, `burst` at once."""

    rate: int
    burst: int
    unit: str = "second"


SYN_SOURCE = Limit(500, 2000)
"""From one address: a PC needs 50 a second and 1000 at once; behind a Wi-Fi router with its own NAT may be thirty."""
SYN_DESTINATION = Limit(3000, 10_000)
"""To one address, for floods with forged sources: all PCs of an office that go through one proxy need 1000 a second."""
UDP_SOURCE = Limit(2000, 5000)
"""Packets that begin a flow, or that nobody answered yet. Answered ones are not limited: a download over QUIC has 60,000 a second
from one address. Unanswered are logs and telemetry, and what a resolver of the office sends before the answer: some hundred."""
UDP_DESTINATION = Limit(10_000, 20_000)
"""The office's resolver, or the provider's, gets the questions of all: some thousand at once."""
ICMP_SOURCE = Limit(500, 1000)
"""A monitor that pings each address of its network at once sends 254."""
ICMP_DESTINATION = Limit(2000, 4000)

SCAN_PORTS = Limit(10, 30, "minute")
"""Ports below 1024 of *one* machine that one source tries for the first time in a minute. A domain controller has eight of them.
Ports from 1024 on do not count: a passive FTP transfer of a thousand files opens a thousand."""
SWEEP_MACHINES = Limit(100, 2000)
"""New pairs of machine and port that one source tries. A browser finds some hundred in a minute; a worm thousands in a second."""

REMEMBERED = 65_536
"""Addresses, or tried ports, of each kind: 8 MB when all sets are full. Beyond that a limit no longer matches, and packets pass."""
FORGET_S = 60
NOTED, NOTED_S = 1024, 600
"""Sources that went too far, and for how long they can be read."""

_CHAINS = ("prerouting", "established", "first4", "first6")
COUNTERS = ("malformed", "syn_flood", "udp_flood", "icmp_flood", "port_scan", "sweep")
NOTES = ("flooding4", "flooding6", "scanning4", "scanning6")

# Segments that no state of TCP accepts, so that dropping them loses nothing. Without SYN, RST and ACK (null, FIN and Xmas scans):
# RFC 9293, 3.10.7.4, fifth step. SYN with FIN or RST; port 0 (RFC 6335, section 6).
_MALFORMED = (
    "tcp flags & (syn | rst | ack) == 0",
    "tcp flags & (syn | fin) == (syn | fin)",
    "tcp flags & (syn | rst) == (syn | rst)",
    "tcp sport 0",
    "tcp dport 0",
    "udp dport 0",
    # Sources that no packet on a wire has: RFC 6890; and RFC 4291, 2.5.3 and 2.7.
    "ip saddr { 127.0.0.0/8, 224.0.0.0/4, 255.255.255.255 }",
    "ip6 saddr { ::1, ff00::/8 }",
)
# Neighbour discovery and multicast listeners stay out of it (RFC 4861, RFC 2710): without them there is no IPv6.
_ICMP = {
    4: "meta l4proto icmp",
    6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply }",
}
_TYPES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}


class NftError(ParseError):
    """This is not what nft prints as JSON for counters or sets."""


@dataclass(frozen=True, slots=True)
class Counter:
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A source that went over a limit within the last NOTED_S seconds; `protocol` is "" for scans."""

    source: IPv4Address | IPv6Address
    protocol: str


def render_limits(mode: Mode, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> str:
    """Input of `nft -f`. The rules are changed in place, in one transaction; counters and what is known of sources stay.

    With `log` the same is counted and noted, and passes. With `off` the chains are empty. What comes from or goes to an `allowed`
    network is not even counted.
    """
    lines = [f"table inet {TABLE} {{"]
    for version, (_, kind) in _TYPES.items():
        lines += [_set(f"{name}{version}", kind) for name in ("syn_from", "syn_to", "udp_from", "udp_to", "icmp_from", "icmp_to")]
        lines += [_set(f"tried{version}", f"{kind} . {kind} . inet_service"), _set(f"ports{version}", f"{kind} . {kind}")]
        lines += [_set(f"sweep{version}", kind)]
        lines += [
            _set(f"flooding{version}", f"{kind} . inet_proto", NOTED, NOTED_S),
            _set(f"scanning{version}", kind, NOTED, NOTED_S),
        ]
    lines += [f"  counter {name} {{ }}" for name in COUNTERS]
    lines += [f"  chain {name} {{ }}" for name in (*COUNTERS, "first4", "first6")]
    lines += [
        "  chain prerouting { type filter hook prerouting priority raw - 5; policy accept; }",
        "  chain established { type filter hook prerouting priority mangle - 5; policy accept; }",
        "}",
        *(f"flush chain inet {TABLE} {name}" for name in (*_CHAINS, *COUNTERS)),
    ]
    if mode is not Mode.OFF:
        passes = tuple(_allowances(tuple(allowed)))
        early, late = ([(chain, rule) for rule in passes] for chain in ("prerouting", "established"))
        lines += [_rule(*rule) for rule in (*_consequences(mode), *early, *_early_rules(), *late, *_late_rules())]
    return "\n".join(lines) + "\n"


def _allowances(allowed: Sequence[IPv4Network | IPv6Network]) -> Iterable[str]:
    for version, (ip, _) in _TYPES.items():
        # Collapsed, because nft refuses intervals that overlap.
        networks = collapse_addresses(network for network in allowed if network.version == version)  # type: ignore[type-var]
        if names := ", ".join(map(str, networks)):
            yield from (f"{ip} {end} {{ {names} }} accept" for end in ("saddr", "daddr"))


def _consequences(mode: Mode) -> Iterable[tuple[str, str]]:
    """What happens behind a limit: the source is noted, if there is room, and the packet counted and dropped."""
    for name in COUNTERS:
        for version, (ip, _) in _TYPES.items():
            if name in ("port_scan", "sweep"):
                yield name, f"update @scanning{version} {{ {ip} saddr }}"
            elif name != "malformed":
                yield name, f"update @flooding{version} {{ {ip} saddr . meta l4proto }}"
        yield name, f"counter name {name}" + (" drop" if mode is Mode.BLOCK else "")


def _early_rules() -> Iterable[tuple[str, str]]:
    yield "prerouting", 'iifname "lo" accept'
    for match in _MALFORMED:
        yield "prerouting", f"{match} jump malformed"
    yield "prerouting", "meta l4proto != tcp accept"
    yield "prerouting", "tcp flags & (fin | syn | rst | ack) != syn accept"
    for version, (ip, _) in _TYPES.items():
        tried = f"{ip} saddr . {ip} daddr . tcp dport"
        yield "prerouting", _over(f"syn_from{version}", f"{ip} saddr", SYN_SOURCE, "syn_flood")
        yield "prerouting", _over(f"syn_to{version}", f"{ip} daddr", SYN_DESTINATION, "syn_flood")
        # Remembered first: what cannot be remembered must not count as new again and again.
        yield "prerouting", f"{tried} != @tried{version} update @tried{version} {{ {tried} }} jump first{version}"
        ends = f"{ip} saddr . {ip} daddr"
        yield f"first{version}", "tcp dport < 1024 " + _over(f"ports{version}", ends, SCAN_PORTS, "port_scan")
        yield f"first{version}", _over(f"sweep{version}", f"{ip} saddr", SWEEP_MACHINES, "sweep")


def _late_rules() -> Iterable[tuple[str, str]]:
    yield "established", 'iifname "lo" accept'
    # A new flow to a group is the office's own chatter, and the switch's business.
    yield "established", "meta pkttype { broadcast, multicast } accept"
    for version, (ip, _) in _TYPES.items():
        for kind, match, source, destination in (
            ("udp", "ct state new meta l4proto udp", UDP_SOURCE, UDP_DESTINATION),
            ("icmp", _ICMP[version], ICMP_SOURCE, ICMP_DESTINATION),
        ):
            yield "established", f"{match} " + _over(f"{kind}_from{version}", f"{ip} saddr", source, f"{kind}_flood")
            yield "established", f"{match} " + _over(f"{kind}_to{version}", f"{ip} daddr", destination, f"{kind}_flood")


def parse_counters(text: str) -> dict[str, Counter]:
    """The counters of a table by name, from what `nft -j list counters table inet TABLE` prints."""
    counters = {}
    for item in _items(text, "counter"):
        name, packets, size = (item.get(key) for key in ("name", "packets", "bytes"))
        if not isinstance(name, str) or not isinstance(packets, int) or not isinstance(size, int):
            raise NftError("a counter without name, packets and bytes")
        counters[name] = Counter(packets, size)
    return counters


def parse_noted(text: str) -> list[Noted]:
    """The sources in one of the sets of NOTES, from what `nft -j list set inet TABLE NAME` prints."""
    noted = []
    for item in _items(text, "set"):
        elements = item.get("elem", [])
        for element in elements if isinstance(elements, list) else []:
            inner = element.get("elem") if isinstance(element, dict) else None
            value = inner.get("val") if isinstance(inner, dict) else element
            parts = value.get("concat") if isinstance(value, dict) else [value]
            if not isinstance(parts, list) or not 1 <= len(parts) <= 2 or not all(isinstance(part, str | int) for part in parts):
                raise NftError("a set with elements of another shape")
            try:
                noted.append(Noted(ip_address(str(parts[0])), str(parts[1]) if len(parts) > 1 else ""))
            except ValueError:
                raise NftError(f"not an address: {str(parts[0])[:40]!r}") from None
    return noted


def _items(text: str, kind: str) -> Iterable[dict[str, object]]:
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        raise NftError("no JSON") from None
    items = listed.get("nftables") if isinstance(listed, dict) else None
    if not isinstance(items, list):
        raise NftError("no list `nftables`")
    return [item[kind] for item in items if isinstance(item, dict) and isinstance(item.get(kind), dict)]


def _set(name: str, kind: str, size: int = REMEMBERED, timeout_s: int = FORGET_S) -> str:
    return f"  set {name} {{ type {kind}; size {size}; flags dynamic,timeout; timeout {timeout_s}s; }}"


def _over(name: str, key: str, limit: Limit, chain: str) -> str:
    return f"update @{name} {{ {key} limit rate over {limit.rate}/{limit.unit} burst {limit.burst} packets }} jump {chain}"


def _rule(chain: str, rule: str) -> str:
    return f"add rule inet {TABLE} {chain} {rule}"
