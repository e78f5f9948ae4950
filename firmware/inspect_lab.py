"""A bridge in network namespaces: a computer on either side, the box between them, and the rules of the packet queue.

Tests and benchmarks share it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware.netns import call_in_namespace, start_namespace
from firmware.process import Argument, Running, run, start
from firmware.recipe import ROOT
from mamori.formats.problems import MamoriError
from mamori.inspect.nfqueue.rules import SYSCTLS, Family, QueueRules, render_no_rules, render_queue_rules

ADDRESSES = {"client": ("10.79.0.1", "fd79::1"), "server": ("10.79.0.2", "fd79::2")}
WITHIN_S = 20.0

_QUEUE = 0
_WORKER = """\
import select, sys
from mamori.inspect.nfqueue.messages import Verdict, encode_verdict
from mamori.inspect.nfqueue.queue import Settings, start_queue
from mamori.inspect.nfqueue.rules import DECIDED_MARK

number, fail_open, max_length, decided_after = map(int, sys.argv[1:])
seen = {}
with start_queue(Settings(number, bool(fail_open), max_length)) as queue:
    while select.select([queue], [], []):
        verdicts = []
        for packet in queue.receive():
            flow = bytes(packet.payload[12:24])
            count = seen[flow] = seen.get(flow, 0) + 1
            mark = DECIDED_MARK if 0 < decided_after <= count else None
            verdicts.append(encode_verdict(number, packet.id, Verdict.ACCEPT, mark=mark))
        queue.send(verdicts)
"""
"""A process as the appliance will have one: it accepts, and decides a connection after so many of its packets (0: never)."""


@dataclass(frozen=True)
class Lab:
    """Three namespaces: `client` and `server`, with `ADDRESSES` on their eth0, and between them `box` with the bridge."""

    client: str
    box: str
    server: str

    def at(self, namespace: str, *argv: Argument, explain: str, input: str = "", accept: tuple[int, ...] = (0,)) -> str:
        """What a program prints in one of the namespaces."""
        command = ["ip", "netns", "exec", namespace, *argv]
        return run(command, explain=explain, input=input.encode(), accept=accept, timeout_s=WITHIN_S).stdout

    def load(self, rules: QueueRules | None) -> None:
        """The rules of both families; None is a bare bridge, which does not even call netfilter."""
        for family in Family:
            text = render_queue_rules(rules, family) if rules else render_no_rules()
            self.at(self.box, *family.command, input=text, explain=f"load the rules of {family.name}")
        settings = SYSCTLS if rules else {**SYSCTLS, **{key: "0" for key in SYSCTLS if "call" in key}}
        call_in_namespace(self.box, lambda: write_sysctls(settings))

    def queued(self, number: int = _QUEUE) -> int | None:
        """How many packets the queue has had; None when nobody has it. proc: nfnetlink_queue.c, seq_show."""
        table = call_in_namespace(self.box, Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text)
        rows = [[int(word) for word in line.split()] for line in table.splitlines()]
        return next((row[7] for row in rows if row[0] == number), None)


@contextlib.contextmanager
def start_lab(name: str) -> Iterator[Lab]:
    """The namespaces NAME-client, NAME-box and NAME-server, gone with everything in them when the block is left."""
    with contextlib.ExitStack() as stack:
        lab = Lab(*(stack.enter_context(start_namespace(f"{name}-{part}")) for part in ("client", "box", "server")))
        _ip(lab.box, "link", "add", "br0", "type", "bridge")
        _ip(lab.box, "link", "set", "br0", "up")
        for side, namespace in (("client", lab.client), ("server", lab.server)):
            _ip(lab.box, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip(lab.box, "link", "set", side, "master", "br0", "up")
            _ip(namespace, "link", "set", "eth0", "up")
            for address, prefix in zip(ADDRESSES[side], ("24", "64"), strict=True):
                _ip(namespace, "address", "add", f"{address}/{prefix}", "dev", "eth0", *(["nodad"] if ":" in address else []))
        yield lab


def write_sysctls(settings: dict[str, str]) -> None:
    """Set them in the namespace of the calling thread."""
    for key, value in settings.items():
        try:
            Path("/proc/sys", key.replace(".", "/")).write_text(value)
        except FileNotFoundError:
            raise MamoriError(f"the kernel has no {key}", "`modprobe br_netfilter` brings it") from None


@contextlib.contextmanager
def start_worker(lab: Lab, *, fail_open: bool = True, max_length: int = 2048, decided_after: int = 0) -> Iterator[Running]:
    """A process that accepts the packets of queue 0, and has the queue when the block is entered."""
    arguments = [str(int(value)) for value in (_QUEUE, fail_open, max_length, decided_after)]
    argv = ["ip", "netns", "exec", lab.box, sys.executable, "-c", _WORKER, *arguments]
    with start(argv, explain="accept packets", env={"PYTHONPATH": str(ROOT / "python-app/src")}) as worker:
        wait_until(worker, lambda: lab.queued() is not None)
        yield worker


def _ip(namespace: str, *argv: str) -> None:
    run(["ip", "-n", namespace, *argv], explain="lay out a bridge in namespaces")


def wait_until(running: Running, condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """MamoriError when it takes too long; ToolError when the program has ended."""
    deadline = time.monotonic() + within_s
    while not condition():
        running.check()
        if time.monotonic() > deadline:
            raise MamoriError(f"a program was not ready within {within_s:g} s")
        time.sleep(0.02)
