"""The netfilter rules around the queue, as the text that iptables-restore and nft take whole or not at all. Starts nothing.

One path on every kernel: the bridge hands its packets to the IP hooks (br_netfilter), which sees through VLAN and PPPoE
tags and has connection tracking; iptables' NFQUEUE target is there where nft's `queue` expression is not.

    known-bad sets (nft, before connection tracking) ─▶ FORWARD: what must not wait, and decided connections, pass │
    the rest ─▶ NFQUEUE ─▶ POSTROUTING: a packet that the verdict marked decides its connection

What must not wait: the kernel drops a queued packet whose connection is not confirmed yet while a clone of it exists
(nfnetlink_queue.c, nf_ct_drop_unconfirmed), and a bridge makes clones of what it floods. Hence broadcast and multicast
pass, and so does the first packet of a TCP connection. ARP never comes here (`bridge-nf-call-arptables` is off); of
ICMPv6 only neighbour discovery passes.

A table that is loaded again is changed in place, never deleted: with a table go its hooks, and with any hook that goes
the kernel drops all packets that wait in queues (nfnetlink_queue.c, nfqnl_nf_hook_drop).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from mamori.inspect.nfqueue.messages import MAX_QUEUE

DECIDED_MARK = 0x4D000000
"""A packet's mark that says: this connection's verdict is final. The top byte is ours, the rest Suricata's and routing's."""
MARK_MASK = 0xFF000000
SURICATA_DONE_MARK = 0x00010000
"""A packet's mark that Suricata sets (nfq.bypass-mark) when it wants no more of the connection. It says nothing about ours: the
worker goes on, sees the mark on each packet of such a connection, and accepts where it would have handed on."""
SURICATA_QUEUE = 16
"""Behind the queues of all workers that a box has: one for each processor."""

Network = IPv4Network | IPv6Network

CHAIN = "MAMORI"
SETS_TABLE = "mamori_known_bad"

TCP_FAST_OPEN = 34
"""RFC 7413: a SYN with this option may carry data, and data does not pass uninspected."""
SYN_BYTES = {4: 64, 6: 84}
"""The longest SYN that passes, by IP version: macOS sends 24 bytes of options, Linux 20, Windows 12. Two ends that agree need no
option to send data in a SYN (ip-sysctl, tcp_fastopen 0x204); 24 bytes of it could still hide behind a header without
options. A longer one is no worse off: it waits in the queue, like what follows it."""

SYSCTLS = {
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.bridge.bridge-nf-call-arptables": "0",
    "net.bridge.bridge-nf-filter-vlan-tagged": "1",
    "net.bridge.bridge-nf-filter-pppoe-tagged": "1",
}
"""What the rules need of the kernel; the keys exist once br_netfilter is loaded."""

_NEIGHBOUR_DISCOVERY = (133, 134, 135, 136, 137)  # RFC 4861 §4
_BLOCK_ELEMENTS = 64  # per line, so that an error names a place


class Family(Enum):
    """Each has its own rules, and a restore command that takes them."""

    IPV4 = "iptables-nft-restore"
    IPV6 = "ip6tables-nft-restore"

    @property
    def command(self) -> tuple[str, str]:
        """What the rules are to be piped into; without `--noflush` it deletes the table first."""
        return self.value, "--noflush"


@dataclass(frozen=True)
class QueueRules:
    """`first_queue` and the next ones, one for each of the `workers`; with `fail_open` packets pass when nobody listens."""

    workers: int
    fail_open: bool
    first_queue: int = 0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.first_queue < 0 or self.first_queue + self.workers - 1 > MAX_QUEUE:
            raise ValueError(f"{self.workers} queues from {self.first_queue} on do not exist")


def render_queue_rules(rules: QueueRules, family: Family) -> str:
    """Input of the family's command. The chains are replaced table by table, each at once; connections and waiting packets stay."""
    version = 4 if family is Family.IPV4 else 6
    decided = f"{DECIDED_MARK:#x}/{MARK_MASK:#x}"
    done = f"{SURICATA_DONE_MARK:#x}/{SURICATA_DONE_MARK:#x}"
    accept = [
        *(f"-m pkttype --pkt-type {kind}" for kind in ("broadcast", "multicast")),
        *(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind}" for kind in _NEIGHBOUR_DISCOVERY if version == 6),
        f"-m connmark --mark {decided}",
        f"-p tcp -m tcp --syn ! --tcp-option {TCP_FAST_OPEN} -m length --length 0:{SYN_BYTES[version]}",
    ]
    lines = [
        "*mangle",
        ":POSTROUTING ACCEPT",
        "-F POSTROUTING",
        # Only our bits, and only when they are set: a packet that passed without a verdict must not take a decision back.
        f"-A POSTROUTING -m physdev --physdev-is-bridged -m mark --mark {decided}"
        f" -j CONNMARK --save-mark --nfmask {MARK_MASK:#x} --ctmask {MARK_MASK:#x}",
        f"-A POSTROUTING -m physdev --physdev-is-bridged -m mark --mark {done} -j CONNMARK --set-xmark {done}",
        "COMMIT",
        "*filter",
        ":FORWARD ACCEPT",
        f":{CHAIN} -",
        "-F FORWARD",
        f"-A FORWARD -m physdev --physdev-is-bridged -j {CHAIN}",
        *(f"-A {CHAIN} {match} -j ACCEPT" for match in accept),
        f"-A {CHAIN} -m connmark --mark {done} -j MARK --set-xmark {done}",
        f"-A {CHAIN} -j NFQUEUE {_queues(rules)}",
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def render_no_rules() -> str:
    """Input of either family's command that lets everything pass: inspection is off."""
    return f"*filter\n:FORWARD ACCEPT\n:{CHAIN} -\n-F FORWARD\nCOMMIT\n*mangle\n:POSTROUTING ACCEPT\n-F POSTROUTING\nCOMMIT\n"


def render_known_bad(bad: Iterable[Network], allowed: Iterable[Network] = (), noted: Iterable[Network] = ()) -> str:
    """Input of `nft -f`: drop what comes from or goes to a bad address, unless either end is allowed; count what comes from or goes
    to a noted one, and let it pass.

    The new addresses take the place of the old ones in one transaction. Packets are counted in the named counters `from_bad`,
    `to_bad`, `from_noted`, `to_noted`, which go on. It is done before connection tracking, so that a flood from a bad address
    costs no memory.
    """
    named = (("bad", tuple(bad)), ("allowed", tuple(allowed)), ("noted", tuple(noted)))
    lines = [f"table inet {SETS_TABLE} {{"]
    for name, _ in named:
        lines += [f"  set {name}{digit} {{ type {kind}; flags interval; }}" for digit, kind in ((4, "ipv4_addr"), (6, "ipv6_addr"))]
    lines += [f"  counter {end}_{name} {{ }}" for name in ("bad", "noted") for end in ("from", "to")]
    lines += ["  chain prerouting { type filter hook prerouting priority raw - 10; policy accept; }", "}"]
    lines += [f"flush chain inet {SETS_TABLE} prerouting"]
    ends, families = (("saddr", "from"), ("daddr", "to")), (("ip", 4), ("ip6", 6))
    rule = f"add rule inet {SETS_TABLE} prerouting"
    lines += [f"{rule} {ip} {end} @allowed{digit} accept" for ip, digit in families for end, _ in ends]
    for name, verdict in (("bad", " drop"), ("noted", "")):
        lines += [
            f"{rule} {ip} {end} @{name}{digit} counter name {word}_{name}{verdict}" for ip, digit in families for end, word in ends
        ]
    for name, networks in named:
        lines += [
            *_render_elements(f"{name}4", _without_overlap(network for network in networks if network.version == 4)),
            *_render_elements(f"{name}6", _without_overlap(network for network in networks if network.version == 6)),
        ]
    return "\n".join(lines) + "\n"


def _queues(rules: QueueRules) -> str:
    last = rules.first_queue + rules.workers - 1
    # The balance hashes the two addresses in either order: both directions of a flow, and all flows of a pair, on one worker.
    numbers = f"--queue-balance {rules.first_queue}:{last}" if rules.workers > 1 else f"--queue-num {last}"
    return f"{numbers} --queue-bypass" if rules.fail_open else numbers


def _without_overlap(networks: Iterable[Network]) -> Iterator[Network]:
    """Those that lie in no other one, of one family: nft refuses intervals that overlap. `collapse_addresses` joins neighbours
    besides, and takes ten times as long for it."""
    end = -1
    for network in sorted(networks, key=lambda network: (int(network.network_address), network.prefixlen)):
        last = int(network.network_address) | (1 << network.max_prefixlen - network.prefixlen) - 1
        if last > end:
            yield network
            end = last


def _render_elements(name: str, networks: Iterable[Network]) -> list[str]:
    elements = [str(network) for network in networks]
    blocks = [", ".join(elements[at : at + _BLOCK_ELEMENTS]) for at in range(0, len(elements), _BLOCK_ELEMENTS)]
    add = [f"add element inet {SETS_TABLE} {name} {{", *(f"  {block}," for block in blocks), "}"] if elements else []
    return [f"flush set inet {SETS_TABLE} {name}", *add]
