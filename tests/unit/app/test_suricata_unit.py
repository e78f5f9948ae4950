"""Suricata's unit agrees with the code and with systemd; the rules of the image's own are rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mamori.inspect.policy import Ips
from mamori.inspect.suricata.config import Paths, command
from mamori.inspect.suricata.rules import Tally, prepare_rules

SHARE = Path(__file__).parents[3] / "overlay/common/usr"
UNITS = SHARE / "lib/systemd/system"
SERVICE, WATCHER = "mamori-suricata.service", "mamori-suricata.path"
HIGHEST_EXPOSURE = 3.0
"""By `systemd-analyze security`, 0 to 10: a packet queue costs CAP_NET_ADMIN and the network's namespace."""


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def test_the_unit_starts_the_command_that_the_code_says() -> None:
    assert values(SERVICE, "ExecStart") == ["/usr/bin/" + " ".join(command(Paths().config))]


def test_the_unit_waits_for_the_rules_and_owns_the_folder_of_the_socket() -> None:
    assert values(SERVICE, "ConditionPathExists") == values(WATCHER, "PathExists") == [str(Paths().rules)]
    assert values(SERVICE, "ConditionMemory") == values(WATCHER, "ConditionMemory")
    assert Path("/run") / values(SERVICE, "RuntimeDirectory")[0] == Paths().control.parent == Paths().log_folder


def test_the_watcher_is_enabled() -> None:
    link = UNITS / f"{values(WATCHER, 'WantedBy')[0]}.wants" / WATCHER
    assert str(link.readlink()) == f"../{WATCHER}"
    assert link.exists()


def test_suricata_has_one_capability_and_a_sandbox(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here (Debian package systemd): it checks the units")
    shutil.copytree(UNITS, tmp_path / "usr/lib/systemd/system", symlinks=True)
    for target in ("multi-user", "sysinit", "basic", "shutdown", "paths"):
        unit = f"[Unit]\nDescription={target}\nDefaultDependencies=no\n"
        (tmp_path / f"usr/lib/systemd/system/{target}.target").write_text(unit)
    program = tmp_path / "usr/bin/suricata"
    program.parent.mkdir()
    program.write_text("#!/bin/true\n")
    program.chmod(0o755)

    def analyze(*arguments: str) -> str:
        done = subprocess.run([tool, *arguments, f"--root={tmp_path}"], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    said = [line for line in analyze("verify", "--man=no", SERVICE, WATCHER).splitlines() if "mamori-suricata" in line]
    # Older than version 257, a systemd ignores the value `disconnected`; the images have a newer one.
    assert [line for line in said if not line.endswith("ignoring: disconnected")] == []
    exposure = re.search(rf"exposure level for {SERVICE}: ([0-9.]+)", analyze("security", "--offline=yes", SERVICE))
    assert exposure is not None
    assert float(exposure[1]) < HIGHEST_EXPOSURE
    assert values(SERVICE, "CapabilityBoundingSet") == values(SERVICE, "AmbientCapabilities") == ["CAP_NET_ADMIN"]


def test_the_images_own_rules_are_all_taken_and_block() -> None:
    text = (SHARE / "share/mamori/ips/mamori.rules").read_text()
    tally = Tally()
    prepared = list(prepare_rules(text.splitlines(), Ips(), tally))
    assert tally == Tally(dropping=len(prepared))
    assert len(prepared) >= 3
