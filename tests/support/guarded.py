"""A bridge in namespaces with the whole application on it, as on an appliance: `mamori inspect`, its workers, the events' writer.

`box` is where it runs; `client` is the office, `server` the outside. Files are those of an appliance below a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firmware.inspect_box import RELEASE
from firmware.inspect_lab import Lab, start_lab, write_sysctls
from firmware.netns import call_in_namespace
from firmware.process import Argument, Running, run, start
from firmware.recipe import ROOT
from mamori.formats.release import EarlyBridge, encode
from mamori.inspect.nfqueue.rules import SYSCTLS
from mamori.paths import Device
from tests.support.need import need
from tests.support.wait import check_until

_ENVIRONMENT = {"PYTHONPATH": str(ROOT / "python-app/src")}


@dataclass(frozen=True)
class Guarded:
    """The lab with the application on it; `service` is `mamori inspect`, `writer` writes the events."""

    lab: Lab
    device: Device
    service: Running
    folder: Path
    writer: Running

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        """What `mamori events --json` prints, oldest first."""
        text = self.mamori("events", "--json", *arguments)
        return [json.loads(line) for line in text.splitlines()]

    def mamori(self, *arguments: str) -> str:
        """What the command prints on the box."""
        argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", self.device.root, *arguments]
        return run(["ip", "netns", "exec", self.lab.box, *argv], explain="ask the box", env=_ENVIRONMENT).stdout

    def start(self, *arguments: Argument, explain: str, log: str) -> contextlib.AbstractContextManager[Running]:
        """A service of the box that runs beside the others, as long as the block lasts; its words go to a file of the folder."""
        argv = [*_command(self.lab, self.device, str(arguments[0])), *arguments[1:]]
        return start(argv, explain=explain, env=_ENVIRONMENT, log=self.folder / log)

    def status(self) -> dict[str, Any]:
        """What `mamori status --json` prints."""
        return json.loads(self.mamori("status", "--json"))

    def report(self) -> dict[str, Any]:
        return json.loads(self.device.inspect_report.read_bytes())

    def set_policy(self, text: str) -> None:
        """Put a policy into force, and wait until every worker has it."""
        path = self.device.policy
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name("new")
        fresh.write_text(text)
        fresh.replace(path)
        stamp = path.stat().st_mtime_ns
        check_until("the workers have the policy", lambda: self._workers_say("policy_stamp", stamp), within_s=20)

    def workers(self) -> list[dict[str, Any]]:
        """What each worker said last of itself, by its number."""
        with contextlib.suppress(FileNotFoundError):
            return list((self.report().get("packets") or {}).get("workers", []))
        return []

    def is_inspecting(self) -> bool:
        """Whether there are workers, and the rules that hand packets to them: those of IPv6 are loaded last."""
        if not self.workers():
            return False
        rules = self.lab.at(self.lab.box, "ip6tables-nft", "-S", explain="read the rules")
        return "NFQUEUE" in rules and len(self.workers()) == self.report()["packets"]["workers_wanted"]

    def _workers_say(self, key: str, value: object) -> bool:
        workers = self.workers()
        wanted = (self.report().get("packets") or {}).get("workers_wanted")
        return len(workers) == wanted and all(worker["policy"].get(key) == value for worker in workers)


@contextlib.contextmanager
def start_guarded(folder: Path, *, policy: str = "", early: EarlyBridge = EarlyBridge.FORWARD, name: str = "") -> Iterator[Guarded]:
    """Everything up and inspecting when the block is entered."""
    need(os.geteuid() == 0, "network namespaces take root")
    for tool in ("ip", "iptables-nft-restore", "nft"):
        need(tool, "lays out the bridge and loads the rules")
    need(Path("/proc/sys/net/bridge").exists(), "the kernel module br_netfilter is not loaded")
    device = Device(folder / "root")
    for path in (device.release, device.policy, device.events_socket, device.events_database, device.inspect_report):
        path.parent.mkdir(parents=True, exist_ok=True)
    device.release.write_bytes(encode(replace(RELEASE, early_bridge=early)))
    device.policy.write_text(policy)
    device.interfaces.parent.mkdir(parents=True)
    device.interfaces.symlink_to("/sys/class/net")
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(start_lab(f"mamori-{name or 'box'}-{os.getpid()}"))
        call_in_namespace(lab.box, lambda: write_sysctls(SYSCTLS))
        writer = stack.enter_context(start_writer(lab, device, folder))
        service = stack.enter_context(start_service(lab, device, folder))
        guarded = Guarded(lab, device, service, folder, writer)
        check_until("the service is up", lambda: service.check() or device.inspect_report.exists(), within_s=40)
        check_until("the box inspects", lambda: service.check() or guarded.is_inspecting(), within_s=40)
        yield guarded


@contextlib.contextmanager
def start_writer(lab: Lab, device: Device, folder: Path) -> Iterator[Running]:
    """The events' writer on the box, listening when the block is entered."""
    device.events_socket.unlink(missing_ok=True)
    with start(
        _command(lab, device, "events-writer"), explain="write events", env=_ENVIRONMENT, log=folder / "writer.log"
    ) as writer:
        check_until("the writer listens", lambda: writer.check() or device.events_socket.exists(), within_s=20)
        yield writer


@contextlib.contextmanager
def start_service(lab: Lab, device: Device, folder: Path) -> Iterator[Running]:
    """`mamori inspect` on the box. It may be started beside what a killed one has left behind."""
    with start(_command(lab, device, "inspect"), explain="inspect", env=_ENVIRONMENT, log=folder / "inspect.log") as service:
        yield service


def _command(lab: Lab, device: Device, command: str) -> list[Argument]:
    return ["ip", "netns", "exec", lab.box, sys.executable, "-m", "mamori.cli", "--root", device.root, command]
