"""A network that loses packets, so that what was sent is sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firmware.process import run

EVERY = 4
"""One packet of so many: of a few mails it is each packet of one of them."""


@contextmanager
def lossy(namespace: str, port: int) -> Iterator[Callable[[], int]]:
    """One packet of some that come in there for this port is lost: behind the bridge, so that the box has seen it before. Asked, it
    says how many were lost so far."""
    rule = ["INPUT", "-p", "tcp", "--dport", str(port), "-m", "statistic", "--mode", "nth", "--every", str(EVERY), "--packet", "0"]

    def ask(*words: str) -> str:
        return run(["ip", "netns", "exec", namespace, "iptables-nft", *words], explain="lose packets").stdout

    def lost() -> int:
        (line,) = [line for line in ask("-L", "INPUT", "-v", "-x", "-n").splitlines() if "DROP" in line and f"dpt:{port}" in line]
        return int(line.split()[0])

    ask("-A", *rule, "-j", "DROP")
    try:
        yield lost
    finally:
        ask("-D", *rule, "-j", "DROP")
