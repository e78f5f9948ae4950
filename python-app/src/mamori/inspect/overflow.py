"""How many packets went past workers that were there and did not keep up. Pure.

Nobody counts them: with fail-open the kernel lets a packet pass for which a queue has no room, and says so neither in the queue's
own counters (nfnetlink_queue.c, __nfqnl_enqueue_packet: `failopen`) nor to the socket. But the rule in front counts what it
hands over, and each worker what it gets; the difference went past them, or is still on its way.

    watch.count(offered, reports, now)      # what the rules have handed over by now
    lost = watch.hear(reports)              # whenever there are reports of the workers

Both ways of being late are allowed for: it is never said of a packet that it was lost when it was not.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_RULE = re.compile(r"^\[(\d+):\d+\] -A \S+ .*-j NFQUEUE\b", re.MULTILINE)


def parse_offered(text: str) -> int:
    """The packets that were handed to queues, of what `iptables-nft-save -c` prints."""
    return sum(map(int, _RULE.findall(text)))


@dataclass(frozen=True)
class Received:
    """What a worker says: its process, how many packets it has got, and when it said so."""

    pid: int
    packets: int
    at: float


class OverflowWatch:
    """See the module. Another worker or rules that were loaded anew begin the count anew."""

    def __init__(self) -> None:
        self._pids: frozenset[int] = frozenset()
        self._offered = 0
        self._passed = 0  # of which it was said, or which were before our time
        self._counted_at: float | None = None

    def count(self, offered: int, reports: Collection[Received], now: float) -> None:
        """Now the rules have handed over so many."""
        pids = frozenset(report.pid for report in reports)
        if pids != self._pids or offered < self._offered:
            # At least all that was received until now is not lost.
            self._pids, self._passed = pids, offered - sum(report.packets for report in reports)
        self._offered, self._counted_at = offered, now

    def hear(self, reports: Collection[Received]) -> int:
        """How many more went past the workers until the last count; 0 as well while that cannot be said."""
        if self._counted_at is None or any(report.at < self._counted_at for report in reports):
            return 0
        if frozenset(report.pid for report in reports) != self._pids:
            return 0
        self._counted_at = None
        lost = self._offered - sum(report.packets for report in reports) - self._passed
        self._passed += max(0, lost)
        return max(0, lost)
