"""The whole application on the lab's bridge, as on an appliance: `mamori inspect`, its workers, the events' writer; and clamd."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.inspect_lab import Lab, wait_until, write_sysctls
from firmware.netns import call_in_namespace
from firmware.process import Argument, Running, start
from firmware.recipe import ROOT
from mamori.formats.problems import MamoriError
from mamori.formats.release import Anchor, Base, Bridge, EarlyBridge, Release, Update, Variant, encode
from mamori.inspect.nfqueue.rules import SYSCTLS
from mamori.paths import Device

RELEASE = Release(
    product="Mamori",
    version="2026.11.0",
    recipe="lab",
    board="qemu-x86_64",
    base=Base.DEBIAN,
    variant=Variant.LAB,
    build_time=1_700_000_000,
    source_commit="0" * 40,
    features=(),
    update=Update(compatible="mamori-lab"),
    early_bridge=EarlyBridge.FORWARD,
    bridge=Bridge("br0", ("server", "client")),
    anchors=(Anchor("db", "CN=db", "ab" * 32),),
)
"""What an image says of itself, as far as the inspection reads it: the lab's bridge and its ports."""

UNITS = ROOT / "overlay/common/usr/lib/systemd/system"
CLAMD_CONFIG = ROOT / "overlay/common/usr/lib/mamori/clamd.conf"

DEFAULT_WEIGHT = 100
"""Of a unit that says nothing (systemd.resource-control(5))."""

_ENVIRONMENT = {"PYTHONPATH": str(ROOT / "python-app/src")}
_MOVED = {"LocalSocket": "socket", "DatabaseDirectory": "database", "TemporaryDirectory": "tmp"}


@dataclass(frozen=True)
class Box:
    """The application at work: `service` is `mamori inspect` with its workers, `writer` writes the events."""

    lab: Lab
    device: Device
    service: Running
    writer: Running

    def report(self) -> dict[str, Any]:
        """What `mamori status` reads; empty before the first one."""
        try:
            report: dict[str, Any] = json.loads(self.device.inspect_report.read_bytes())
        except FileNotFoundError:
            return {}
        return report

    def workers(self) -> list[dict[str, Any]]:
        """What the workers say of themselves, once all are there."""
        packets = self.report().get("packets") or {}
        workers: list[dict[str, Any]] = packets.get("workers", [])
        return workers if len(workers) == packets.get("workers_wanted") else []

    def is_inspecting(self, *, with_scanner: bool) -> bool:
        """Whether every worker is there, sees its scanner, and gets the packets: the rules of IPv6 are loaded last."""
        workers = self.workers()
        if not workers or (with_scanner and any(worker["scanner"]["condition"] != "up" for worker in workers)):
            return False
        return "NFQUEUE" in self.lab.at(self.lab.box, "ip6tables-nft", "-S", explain="read the rules")


@contextlib.contextmanager
def start_box(lab: Lab, folder: Path, *, policy: str, lists: Path | None = None, clamd: Path | None = None) -> Iterator[Box]:
    """Everything up and inspecting when the block is entered. `lists` is a compiled file, `clamd` the socket of one that runs."""
    device = Device(folder / "root")
    for path in (device.release, device.policy, device.events_socket, device.events_database, device.inspect_report, device.lists):
        path.parent.mkdir(parents=True, exist_ok=True)
    device.release.write_bytes(encode(RELEASE))
    device.policy.write_text(policy)
    device.interfaces.parent.mkdir(parents=True, exist_ok=True)
    for link, target in ((device.interfaces, Path("/sys/class/net")), (device.lists, lists), (device.clamd_socket, clamd)):
        if target is not None:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    call_in_namespace(lab.box, lambda: write_sysctls(SYSCTLS))
    base: list[Argument] = ["ip", "netns", "exec", lab.box, sys.executable, "-m", "mamori.cli", "--root", device.root]
    with contextlib.ExitStack() as stack:
        write = start([*base, "events-writer"], explain="write events", env=_ENVIRONMENT, log=folder / "writer.log")
        writer = stack.enter_context(write)
        weigh(writer, "mamori-events")
        wait_until(writer, device.events_socket.exists)
        inspect = start([*base, "inspect"], explain="inspect", env=_ENVIRONMENT, log=folder / "inspect.log")
        box = Box(lab, device, stack.enter_context(inspect), writer)
        weigh(box.service, "mamori-inspect")
        wait_until(box.service, lambda: box.is_inspecting(with_scanner=clamd is not None))
        yield box


@contextlib.contextmanager
def start_clamd(folder: Path, signatures: str) -> Iterator[Running]:
    """clamd with the image's configuration and this database (.ndb); its socket is `folder / "socket"`."""
    for name in ("database", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "database/bench.ndb").write_text(signatures)
    (folder / "clamd.conf").write_text(render_clamd_config(folder))
    argv: list[Argument] = ["/usr/sbin/clamd", "-c", folder / "clamd.conf"]
    with start(argv, explain="run clamd", log=folder / "log") as running:
        weigh(running, "mamori-clamd")
        wait_until(running, (folder / "socket").exists)
        yield running


def render_clamd_config(folder: Path, **changes: str) -> str:
    """The image's configuration, its three places moved into the folder; `changes` replace other lines."""
    text = CLAMD_CONFIG.read_text()
    for key, value in {**{key: str(folder / name) for key, name in _MOVED.items()}, **changes}.items():
        text, count = re.subn(rf"^{key} .*$", f"{key} {value}", text, flags=re.MULTILINE)
        if count != 1:
            raise MamoriError(f"{CLAMD_CONFIG}: expected {key} once, found it {count} times")
    return text


def weigh(running: Running, unit: str) -> None:
    """Give a program that has just started the share of the processors that its unit has on an appliance.

    Where the kernel groups processes by session, a session has a priority of its own beside (sched(7), autogroup).
    """
    found = re.search(r"^CPUWeight=(\d+)$", (UNITS / f"{unit}.service").read_text(), re.MULTILINE)
    nice = nice_of(int(found[1]) if found else DEFAULT_WEIGHT)
    os.setpriority(os.PRIO_PROCESS, running.pid, nice)
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/{running.pid}/autogroup").write_text(f"{nice}\n")


def nice_of(weight: int) -> int:
    """The priority that shares processors as a CPUWeight does: each step is a factor of 1.25 (sched(7), sched_prio_to_weight)."""
    return max(-20, min(19, round(-math.log(weight / DEFAULT_WEIGHT, 1.25))))
