"""Listens to what the computers of the office call themselves, and tells the events' writer.

    nft: DHCP, mDNS, NetBIOS from each computer, so many a second ─▶ log group ─▶ Hearing ─▶ Names ─▶ TerminalSeen

The packets are copies: nothing waits for a name. Anyone can say any name, for any computer, as often as they like; so the kernel
takes few packets of each, and of those Names tells few. A name decides nothing (terminals.py).
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from mamori.events.record import TerminalSeen
from mamori.formats.problems import MamoriError
from mamori.inspect.nflog import Copy, LogGroup
from mamori.inspect.packet import UDP, PacketError, parse_packet
from mamori.inspect.terminals import TerminalName, names_from_dhcp, names_from_dhcp6, names_from_mdns, names_from_netbios
from mamori.process import run_tool

GROUP = 7
"""Of netfilter's log groups; the service's, and nobody else's on the box."""

TABLE = "mamori_hearing"

DHCP, DHCP6, MDNS, NETBIOS = 67, 547, 5353, 137
MAC_BYTES = 6

EACH_S, EACH_BURST = 2, 20
"""Packets of one MAC address. A PC that starts says a dozen in its first seconds, then some in an hour."""

ALL_S, ALL_BURST = 100, 400
"""Of all together, forged addresses among them: 100 PCs that are switched on at nine."""

TALKERS = 2048
"""MAC addresses that have a limit of their own; when there are more, nothing is heard of the rest for a minute."""

RENAME_EVERY_S = 60.0
"""A computer's new name is told at most so often; of those in between only the last."""

AGAIN_EVERY_S = 3600.0
"""A name that stays is told again, for a writer that had to begin a new database."""

MAX_NAMES = 4096
"""Computers and sources that are remembered: twice what the writer keeps. The one told longest ago is forgotten first."""

MAX_TOLD = 100
"""Names of one look; the rest comes with the next."""

TRY_EVERY_S = 60.0
"""A kernel or an nft that cannot do this is asked again so often."""


def render_hearing() -> str:
    """Input of `nft -f`, which changes the table in place; with nobody who listens the packets are copied nowhere.

    Before connection tracking, and in the IP hooks that the bridge hands its packets to, like all our rules. Of mDNS only answers
    (RFC 6762, 18.2): questions are ten times as many, and say no name.
    """
    each = f"update @talkers {{ ether saddr limit rate {EACH_S}/second burst {EACH_BURST} packets }}"
    log = f"{each} limit rate {ALL_S}/second burst {ALL_BURST} packets log group {GROUP}"
    return "\n".join(
        [
            f"table inet {TABLE} {{",
            f"  set talkers {{ type ether_addr; size {TALKERS}; flags dynamic,timeout; timeout 60s; }}",
            "  chain prerouting { type filter hook prerouting priority raw; policy accept; }",
            "}",
            f"flush chain inet {TABLE} prerouting",
            f"add rule inet {TABLE} prerouting udp dport {{ {DHCP}, {NETBIOS}, {DHCP6} }} {log}",
            # The first bit behind the identifier, which stands behind UDP's 8 bytes.
            f"add rule inet {TABLE} prerouting udp dport {MDNS} @th,80,1 1 {log}",
            "",
        ]
    )


def read_name(data: memoryview, mac: bytes) -> TerminalName | None:
    """The name that a packet of an office's computer says, with `mac` and `address` completed from the frame and the IP header."""
    try:
        packet = parse_packet(data)
    except PacketError:
        return None
    if packet.protocol != UDP or packet.fragment is not None:
        return None
    payload, sender = bytes(packet.payload), ip_address(packet.source)
    found = None
    if packet.destination_port == DHCP:
        found = names_from_dhcp(payload)
    elif packet.destination_port == DHCP6:
        found = names_from_dhcp6(payload)
    elif packet.destination_port == MDNS:
        found = names_from_mdns(payload, str(sender))
    elif packet.destination_port == NETBIOS:
        found = names_from_netbios(payload)
    if found is None:
        return None
    said_mac = bytes.fromhex(found.mac.replace(":", ""))
    return TerminalName(
        found.name,
        (said_mac if _is_one_machine(said_mac) else mac if _is_one_machine(mac) else b"").hex(":"),
        _known_by(found.address) or _known_by(str(sender)),
        found.source,
    )


def _is_one_machine(mac: bytes) -> bool:
    """Not missing, not zero, and no group (IEEE 802, the first byte's lowest bit)."""
    return len(mac) == MAC_BYTES and any(mac) and not mac[0] & 1


def _known_by(address: str) -> str:
    """The address, if people know a computer by it: everyone has a link-local one, and 0.0.0.0 before DHCP has given another."""
    parsed = ip_address(address or "0.0.0.0")  # noqa: S104 - no socket is bound to it
    return "" if parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast or parsed.is_loopback else str(parsed)


@dataclass(slots=True)
class _Known:
    """`told` is the name that the writer has, told at `told_at`; `waiting` the last one since, which it has not."""

    told: TerminalName | None
    told_at: float
    waiting: TerminalName | None


class Names:
    """Which of the names that are heard are news. Pure, and bounded. Each source of a computer's name has its own, for the writer
    chooses between them."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._waiting: dict[tuple[str, str], _Known] = {}

    def hear(self, name: TerminalName, now: float) -> None:
        """A computer said this."""
        if not name.mac:
            return
        key = name.mac, name.source
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(None, now, None)
            if len(self._known) > MAX_NAMES:
                forgotten, _ = self._known.popitem(last=False)
                self._waiting.pop(forgotten, None)
        if name == known.told and now < known.told_at + AGAIN_EVERY_S:
            known.waiting = None
            self._waiting.pop(key, None)
        else:
            known.waiting = name
            self._waiting[key] = known

    def take(self, now: float) -> list[TerminalName]:
        """What is to be told now."""
        due = [(key, known) for key, known in self._waiting.items() if known.told is None or now >= known.told_at + RENAME_EVERY_S][
            :MAX_TOLD
        ]
        told = []
        for key, known in due:
            del self._waiting[key]
            if known.waiting is not None:
                told.append(known.waiting)
                known.told, known.told_at, known.waiting = known.waiting, now, None
                self._known.move_to_end(key)
        return told


class Hearing:
    """See the module. `inside` is the port that the office is on; `tell` takes what is for the writer, `log` a syslog level and a
    line. A kernel that cannot do it costs names, and nothing else."""

    def __init__(self, inside: str, tell: Callable[[TerminalSeen], None], log: Callable[[int, str], None]) -> None:
        self._inside = inside
        self._tell = tell
        self._log = log
        self._names = Names()
        self._group: LogGroup | None = None
        self._try_at = 0.0
        self._problem = ""

    def tick(self, now: float, wall_s: float) -> None:
        """Listen, and tell what was said since the last time."""
        if self._group is None:
            if now < self._try_at:
                return
            self._try_at = now + TRY_EVERY_S
            self._start()
        if self._group is not None:
            for copy in self._receive(self._group):
                name = read_name(copy.payload, copy.hw_address)
                if name is not None:
                    self._names.hear(name, now)
            for name in self._names.take(now):
                self._tell(TerminalSeen(wall_s, name.mac, name.address, name.name, name.source))

    def close(self) -> None:
        """Hear nothing more. The rule stays: with a table its hooks would go, and what waits in queues (nfqueue/rules.py)."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def _start(self) -> None:
        try:
            run_tool(("nft", "-f", "-"), input=render_hearing().encode(), explain="load the rules that hear names")
            self._group = LogGroup(GROUP)
        except (MamoriError, OSError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._log(4, f"the names of terminals are not heard: {error}")

    def _receive(self, group: LogGroup) -> list[Copy]:
        """Those that came in by the office's port: what is said outside is no name of an office's computer."""
        try:
            inside = socket.if_nametoindex(self._inside)
            return [copy for copy in group.receive() if copy.physindev == inside]
        except OSError:
            return []
