"""The rules in the kernel, kept as policy and feeds want them, and what their counters tell.

Everything is loaded whole or not at all (nfqueue/rules.py, nfqueue/limits.py) and changed in place. What cannot be loaded leaves
what was there, and is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from pathlib import Path

from mamori.events.record import Action, Event, Function, Heading, own_event
from mamori.formats.problems import MamoriError
from mamori.inspect.address_feeds import MAX_NETWORKS, Network, read_networks
from mamori.inspect.errors import ParseError
from mamori.inspect.nfqueue.limits import COUNTERS, NOTES, TABLE, parse_counters, parse_noted, render_limits
from mamori.inspect.nfqueue.rules import SETS_TABLE, Family, QueueRules, render_known_bad, render_queue_rules
from mamori.inspect.overflow import parse_offered
from mamori.inspect.policy import Mode, Policy
from mamori.inspect.policy_file import Identity, file_identity
from mamori.process import run_tool

COUNTERS_EVERY_S = 60.0
"""A flood is one piece of news in a minute, with its packets counted."""

LOAD_AGAIN_S = 10.0
"""What cannot be loaded is tried again so often: what stands in the way may be gone, and reading large feeds takes a second."""

MAX_NAMED = 10
"""Sources that one event names."""

_FLOODS = {"syn_flood": "flooding", "udp_flood": "flooding", "icmp_flood": "flooding", "port_scan": "scanning", "sweep": "scanning"}

_SETS = ("from_bad", "to_bad", "from_noted", "to_noted")


def load_queue_rules(rules: QueueRules) -> None:
    """Both families; MamoriError with nft's words."""
    for family in Family:
        run_tool(family.command, input=render_queue_rules(rules, family).encode(), explain=f"load the rules of {family.name}")


def read_offered() -> int:
    """How many packets the rules of both families have handed to queues; MamoriError."""
    tools = ("iptables-nft-save", "ip6tables-nft-save")
    return sum(parse_offered(run_tool((tool, "-c", "-t", "filter"), explain="read the counters").decode()) for tool in tools)


class Netfilter:
    """What depends on policy and feeds, and the counters. `tell` takes events, `log` a syslog level and a line."""

    def __init__(self, feeds: Path, tell: Callable[[Event], None], log: Callable[[int, str], None]) -> None:
        self._feeds = feeds
        self._tell = tell
        self._log = log
        self._seen: object = None
        self._again_at = math.inf  # what was seen could not be loaded
        self._counters: dict[str, int] = {}
        self._counters_at = 0.0
        self._logs_only = False

    def apply(self, policy: Policy) -> None:
        """Load what has changed; cheap when nothing has."""
        mode = policy.addresses.mode
        feeds = _find_feeds(self._feeds) if mode is not Mode.OFF else ()
        wanted = (policy.ips.floods, mode, policy.block.addresses, policy.allow.addresses, feeds)
        if wanted == self._seen and time.monotonic() < self._again_at:
            return
        self._seen = wanted
        self._logs_only = policy.ips.floods is Mode.LOG
        own, listed = list(map(ip_network, policy.block.addresses)), self._read(path for path, _ in feeds)
        bad, noted = ([*own, *listed], []) if mode is Mode.BLOCK else (own, listed)
        allowed = list(map(ip_network, policy.allow.addresses))
        has_networks = self._load("known-bad addresses", render_known_bad(bad, allowed, noted))
        has_limits = self._load("limits on floods and scans", render_limits(policy.ips.floods, allowed))
        self._again_at = math.inf if has_networks and has_limits else time.monotonic() + LOAD_AGAIN_S

    def _read(self, feeds: Iterable[Path]) -> list[Network]:
        networks: list[Network] = []
        for path in feeds:
            try:
                found, wrong = read_networks(path)
            except OSError as error:
                self._complain(f"{path}: cannot be read: {error.strerror}")
            except MamoriError as error:
                self._complain(str(error))
            else:
                room = MAX_NETWORKS - len(networks)
                networks += found[:room]
                if len(found) > room:
                    self._complain(f"{path}: more than {MAX_NETWORKS} networks in all feeds; the rest is not blocked")
                if wrong:
                    self._complain(f"{path}: {wrong} lines are no networks that may be blocked")
        return networks

    def tick(self, now: float) -> None:
        """Tell what the counters say, once a minute."""
        if now < self._counters_at:
            return
        self._counters_at = now + COUNTERS_EVERY_S
        for table, names in ((TABLE, COUNTERS), (SETS_TABLE, _SETS)):
            try:
                text = run_tool(("nft", "-j", "list", "counters", "table", "inet", table), explain="read the counters").decode()
                counters = parse_counters(text)
            except (MamoriError, ParseError) as error:
                self._log(4, str(error))
                continue
            for name in names:
                packets = counters[name].packets if name in counters else 0
                # A table that was loaded anew counts from 0 again.
                grown = packets - self._counters.get(name, 0) if packets >= self._counters.get(name, 0) else packets
                self._counters[name] = packets
                if grown:
                    self._tell_counted(name, grown)

    def _tell_counted(self, name: str, packets: int) -> None:
        function = Function.ADDRESS if name in _SETS else Function.IPS
        sources = self._sources(_FLOODS[name]) if name in _FLOODS else ""
        what = name.replace("_", " ")
        text = f"{what}: {packets} packets"
        has_passed = self._logs_only if name in COUNTERS else name.endswith("_noted")
        action = Action.LOGGED if has_passed else Action.BLOCKED
        self._tell(
            Event(time.time(), function, action, Heading.NONE, "", "", "", 0, "", text, what, name.replace("_", "-"), sources)
        )

    def _sources(self, kind: str) -> str:
        found: list[str] = []
        for name in NOTES:
            if name.startswith(kind):
                try:
                    text = run_tool(("nft", "-j", "list", "set", "inet", TABLE, name), explain="read the sources").decode()
                    found += [str(noted.source) for noted in parse_noted(text)]
                except (MamoriError, ParseError) as error:
                    self._log(4, str(error))
        more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
        return f"from {', '.join(found[:MAX_NAMED])}{more}" if found else ""

    def _complain(self, text: str) -> None:
        self._log(4, text)
        self._tell(own_event(time.time(), "feed-refused", text))

    def _load(self, what: str, text: str) -> bool:
        try:
            run_tool(("nft", "-f", "-"), input=text.encode(), explain=f"load the {what}")
        except MamoriError as error:
            self._complain(str(error))
            return False
        return True


def _find_feeds(folder: Path) -> tuple[tuple[Path, Identity], ...]:
    """The feeds that are there, with what shows a change. A pipe would wait for ever for somebody to write."""
    found = []
    for path in sorted(folder.glob("*.txt")):
        identity = file_identity(path)
        if identity is not None and (identity[1] == 0 or path.is_file()):
            found.append((path, identity))
    return tuple(found)
