"""`./inv doctor`: what this machine can do, found out by doing it, and which test levels that is enough for."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware import kvm
from firmware.console import Console
from firmware.host_tools import Purpose, install_command, missing, which
from firmware.process import run
from firmware.testing import LEVELS, ROOT, Level, Need
from mamori.formats.problems import MamoriError

BUILD_DISK_BYTES = 10 * 1000**3
"""Tools tree, base, two slots, disk image and bundle of one recipe, and the same again while a new version is made."""

_PROBE_TIMEOUT_S = 20.0
_MAKE_A_NETWORK = "ip link add name br0 type bridge && ip link add name veth0 type veth peer name veth1"


@dataclass(frozen=True)
class Finding:
    """One ability: whether the machine has it, and the fact or the reason behind."""

    name: str
    is_good: bool
    detail: str


def doctor(json: bool = False) -> None:
    """Print the findings, or one JSON document with the keys `machine` and `levels`."""
    console = Console()
    machine = examine()
    levels = [judge(level, machine) for level in LEVELS]
    if json:
        console.json({"machine": [asdict(finding) for finding in machine], "levels": [asdict(finding) for finding in levels]})
        return
    for title, findings in (("this machine", machine), ("test level", levels)):
        console.table((title, "", ""), [(finding.name, "yes" if finding.is_good else "NO", finding.detail) for finding in findings])
        console.say("")


def examine() -> list[Finding]:
    """Everything that decides about building and testing, each probed with the real thing."""
    return [
        Finding("python", True, sys.version.split()[0]),  # an older one does not get here: ./inv refuses it
        *(_tools(purpose) for purpose in Purpose),
        Finding("root", os.geteuid() == 0, "" if os.geteuid() == 0 else "not needed, but taps and missing packages need it"),
        _user_ids(),
        _probe(Need.SANDBOX.value, ["bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/", "true"]),
        _probe(Need.NETWORK.value, [*_in_namespace(), "sh", "-c", _MAKE_A_NETWORK]),
        _probe(Need.TAP.value, [*_in_namespace(), "ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]),
        _kvm(),
        _loop(),
        _disk(),
    ]


def judge(level: Level, machine: Sequence[Finding]) -> Finding:
    """Whether the level can run on a machine with these findings, and if not, everything that stands in its way."""
    lacks = [f"{tool.package} ({tool.needed_for})" for tool in missing(level.purposes)]
    needs = {need.value for need in level.needs}
    lacks += [f"{finding.name}: {finding.detail}" for finding in machine if finding.name in needs and not finding.is_good]
    return Finding(level.name, not lacks, "; ".join(lacks))


def _tools(purpose: Purpose) -> Finding:
    lacking = missing([purpose])
    return Finding(purpose.value, not lacking, install_command(lacking) if lacking else "")


def _user_ids() -> Finding:
    """mmdebstrap without root needs a range of user ids of its own: subuid(5)."""
    name = "subordinate user ids"
    if os.geteuid() == 0:
        return Finding(name, True, "not needed by root")
    user = pwd.getpwuid(os.geteuid()).pw_name
    ranges = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else []
    has_range = any(line.partition(":")[0] in (user, str(os.geteuid())) for line in ranges)
    return Finding(name, has_range, "" if has_range else f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}")


def _in_namespace() -> list[str]:
    """A network namespace that is gone with its process, also for users."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_user, "--net"]


def _probe(name: str, argv: list[str]) -> Finding:
    try:
        run(argv, explain=name, timeout_s=_PROBE_TIMEOUT_S)
    except MamoriError as error:
        reason = " ".join(getattr(error, "tail", ())) or error.message
        return Finding(name, False, reason)
    return Finding(name, True, "")


def _kvm() -> Finding:
    """A /dev/kvm that opens may still not run a guest (nested virtualisation): firmware.kvm tries one."""
    name = "KVM"
    if which("qemu-system-x86_64") is None:
        return Finding(name, False, "cannot be tried without QEMU")
    reason = kvm.probe()
    return Finding(name, not reason, f"{reason}; QEMU emulates, slowly" if reason else "")


def _loop() -> Finding:
    control = Path("/dev/loop-control")
    return Finding(
        "loop devices", control.exists(), "not needed to build, handy to look into an image" if not control.exists() else ""
    )


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(ROOT).free
    detail = f"{free_bytes / 1000**3:.0f} GB free, a build wants {BUILD_DISK_BYTES / 1000**3:.0f}"
    return Finding(Need.DISK.value, free_bytes >= BUILD_DISK_BYTES, detail)
