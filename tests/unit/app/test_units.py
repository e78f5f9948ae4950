"""The units agree with the code and with systemd."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mamori.formats.release import Release, encode
from mamori.inspect.core import PUBLISH_EVERY_S
from mamori.inspect.memory import SCANNER_LEAST_MIB, read_memory_mib
from mamori.inspect.nfqueue.rules import SYSCTLS
from mamori.inspect.suricata.config import Paths
from mamori.paths import Device
from mamori.update.gate import GATE_WITHIN_S

SYSTEM = Path(__file__).parents[3] / "overlay/common/usr/lib"
UNITS = SYSTEM / "systemd/system"

NEEDED = {
    "mamori-clamd.service": 1.0,
    "mamori-clock.service": 3.0,
    "mamori-data.service": 3.0,
    "mamori-events.service": 1.0,
    "mamori-inspect.service": 2.0,
    "mamori-leave-trial.service": 3.0,
    "mamori-ready.service": 3.0,
    "mamori-reset.service": 3.0,
    "mamori-signatures.service": 2.0,
    "mamori-suricata.service": 3.0,
    "mamori-trial.service": 3.0,
    "mamori-update.service": 3.0,
    "mamori-usb@.service": 4.0,
}
"""Highest exposure of each service by `systemd-analyze security`, 0 to 10. `ready` is root, because /dev/kmsg is root's; `data` is
systemd's own program for a moment, and gives folders away; those with a packet queue have CAP_NET_ADMIN and the box's network;
`clock`, `trial`, `leave-trial` and `reset` are root for one thing each, and the updater has the network and block devices. `usb@`
mounts for everyone, so it has no view of the files of its own."""

PATHS = {"mamori-suricata.path", "mamori-leave-trial.path"}

LINKED = sorted({*NEEDED, *PATHS} - {"mamori-suricata.service", "mamori-leave-trial.service", "mamori-usb@.service"})
"""Units that start by themselves."""


def value(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return found


@pytest.fixture
def analyze(tmp_path: Path) -> Callable[..., str]:
    """`systemd-analyze` over a root folder that holds our units and stand-ins for the programs that they start."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here (Debian package systemd): it checks the units")
    root = tmp_path / "root"
    shutil.copytree(SYSTEM, root / "usr/lib", symlinks=True)
    programs = (
        "bin/rm",
        "bin/sh",
        "usr/bin/install",
        "usr/bin/mamori",
        "usr/bin/suricata",
        "usr/bin/systemctl",
        "usr/bin/systemd-tmpfiles",
    )
    for program in (*programs, "usr/sbin/clamd"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/true\n")
        (root / program).chmod(0o755)
    for target in ("multi-user", "sysinit", "basic", "shutdown", "paths"):
        (root / f"usr/lib/systemd/system/{target}.target").write_text(f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")
    # fstab's, on a box.
    (root / "usr/lib/systemd/system/data.mount").write_text("[Mount]\nWhat=/dev/data\nWhere=/data\n")

    def analyze(*arguments: str) -> str:
        done = subprocess.run([tool, *arguments, f"--root={root}"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return analyze


def test_every_unit_is_looked_at() -> None:
    assert {path.name for path in UNITS.glob("mamori-*.*") if path.is_file()} == {*NEEDED, *LINKED}


@pytest.mark.parametrize("unit", [*NEEDED, *sorted(PATHS)])
def test_systemd_finds_nothing_wrong_with_a_unit(analyze, unit: str) -> None:
    said = [line for line in analyze("verify", "--man=no", unit).splitlines() if unit.partition("@")[0] in line]
    # Older than version 257, a systemd ignores the value `disconnected`; the images have a newer one.
    assert [line for line in said if not line.endswith("ignoring: disconnected")] == []


@pytest.mark.parametrize(("unit", "highest"), NEEDED.items())
def test_a_unit_is_sandboxed(analyze, unit: str, highest: float) -> None:
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", analyze("security", "--offline=yes", unit))
    assert exposure is not None
    assert float(exposure[1]) < highest


@pytest.mark.parametrize("unit", LINKED)
def test_a_unit_is_enabled_by_the_link_that_its_install_section_asks_for(unit: str) -> None:
    link = UNITS / f"{value(unit, 'WantedBy')}.wants" / unit
    assert str(link.readlink()) == f"../{unit}"
    assert link.exists()


def test_everybody_who_uses_the_data_partition_waits_for_a_factory_reset() -> None:
    before = " ".join(re.findall(r"^Before=(.*)$", (UNITS / "mamori-reset.service").read_text(), re.MULTILINE)).split()
    users = {path.name for path in UNITS.glob("mamori-*") if path.is_file() and "/data" in path.read_text()}
    # usb@ puts the mark there, and says itself that it comes afterwards; the updater writes what `value` does not see.
    assert users - {"mamori-reset.service", "mamori-usb@.service"} <= set(before)
    assert {"rauc.service", "mamori-update.service", "mamori-data.service"} <= set(before)
    assert "After=data.mount mamori-reset.service\n" in (UNITS / "mamori-usb@.service").read_text()
    assert value("mamori-reset.service", "ConditionPathExists") == str(Device().reset_mark)


def test_the_unit_of_a_stick_has_no_view_of_the_files_of_its_own() -> None:
    """Else nobody but itself would see what it mounts (systemd.exec(5))."""
    text = (UNITS / "mamori-usb@.service").read_text()
    assert not re.findall(
        r"^(Protect\w+|Private\w+|Read\w+Paths|\w+Directory|TemporaryFileSystem|Bind\w*Paths)=", text, re.MULTILINE
    )
    (rule,) = [line for line in (SYSTEM / "udev/rules.d/71-mamori-usb.rules").read_text().splitlines() if not line.startswith("#")]
    assert 'ENV{SYSTEMD_WANTS}+="mamori-usb@$kernel.service"' in rule
    assert '"vfat|exfat|ext4"' in rule


def test_the_service_may_write_where_the_code_publishes_and_nowhere_above() -> None:
    folder = Device().inspect_report.parent
    assert folder == Path("/run") / value("mamori-inspect.service", "RuntimeDirectory")
    tmpfiles = [line.split() for line in (SYSTEM / "tmpfiles.d/mamori.conf").read_text().splitlines() if not line.startswith("#")]
    assert tmpfiles == [
        ["d", str(folder.parent), "0755", "root", "root"],
        ["L", "/run/mamori/inspect.json", "-", "-", "-", "-", str(Device().inspect_report.relative_to(folder.parent))],
    ]


def test_the_service_runs_as_a_user_with_a_fixed_number() -> None:
    users = re.findall(r"^u (\S+) (\d+) ", (SYSTEM / "sysusers.d/mamori.conf").read_text(), re.MULTILINE)
    assert value("mamori-inspect.service", "User") in [name for name, _ in users]
    assert all(900 <= int(number) < 950 for _, number in users)


def test_the_events_writer_owns_the_folders_that_the_code_uses_and_inspectors_may_send() -> None:
    unit = "mamori-events.service"
    assert Device().events_socket.parent == Path("/run") / value(unit, "RuntimeDirectory")
    assert str(Device().events_database.parent) == value(unit, "ReadWritePaths").removeprefix("-")
    made = value(unit, "ExecStartPre").split()
    assert (made[-1], made[made.index("-o") + 1]) == (str(Device().events_database.parent), value(unit, "User"))
    users = re.findall(r"^u (\S+) (\d+) ", (SYSTEM / "sysusers.d/mamori.conf").read_text(), re.MULTILINE)
    assert value(unit, "User") in [name for name, _ in users]
    assert len({number for _, number in users}) == len(users)
    assert value(unit, "Group") == value("mamori-inspect.service", "User"), "a system user's group has its name"


def test_the_units_ask_for_the_memory_that_the_code_says() -> None:
    for unit in ("mamori-clamd.service", "mamori-suricata.service", "mamori-suricata.path"):
        assert value(unit, "ConditionMemory") == f">={SCANNER_LEAST_MIB}M"
    kib = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert kib is not None
    assert read_memory_mib() == int(kib[1]) >> 10


def test_folders_on_the_data_partition_are_made_for_those_who_write_there() -> None:
    lines = [line.split() for line in (SYSTEM / "mamori/data.conf").read_text().splitlines() if not line.startswith("#")]
    owners = {path: owner for _, path, _, owner, _ in lines}
    assert owners[str(Device().accepted_policy.parent)] == value("mamori-inspect.service", "User")
    assert owners[str(Paths().config.parent)] == value("mamori-suricata.service", "User")
    read = (Device().policy, Device().lists, Device().hash_list, Device().address_feeds / "x")
    assert {owners[str(path.parent)] for path in read} == {"root"}


def test_the_kernel_is_set_as_the_rules_need_it_once_the_modules_are_there() -> None:
    text = (SYSTEM / "sysctl.d/50-mamori.conf").read_text()
    found = dict(line.split(" = ") for line in text.splitlines() if line and not line.startswith("#"))
    assert SYSCTLS.items() <= found.items()
    assert int(found["net.netfilter.nf_conntrack_max"]) >= 2 * 50_000
    # Keys of a module that is loaded later are passed over (systemd-sysctl.service(8)).
    modules = (SYSTEM / "modules-load.d/mamori.conf").read_text().splitlines()
    assert {"br_netfilter", "nf_conntrack"} <= set(modules)


def test_the_updater_owns_what_it_writes_and_asks_to_leave_where_it_is_looked_for() -> None:
    unit = "mamori-update.service"
    lines = [line.split() for line in (SYSTEM / "mamori/data.conf").read_text().splitlines() if not line.startswith("#")]
    owners = {path: owner for _, path, _, owner, _ in lines}
    assert {owners[str(path)] for path in (Device().update, Device().identity.parent)} == {value(unit, "User")}
    # What the health gate looks at, in this service's own view of the files.
    assert value(unit, "ReadWritePaths") == f"-{Device().data}"
    assert value("mamori-events.service", "User") in value(unit, "SupplementaryGroups").split()
    assert Device().update_runtime == Path("/run") / value(unit, "RuntimeDirectory")
    assert value("mamori-leave-trial.path", "PathExists") == str(Device().update_runtime / "leave-trial")


def test_the_updater_may_open_the_boot_state_and_the_slots_by_the_names_that_the_code_uses() -> None:
    rules = (SYSTEM / "udev/rules.d/70-mamori.rules").read_text()
    named = re.search(r'^ENV\{PARTNAME\}=="([a-z|-]+)", SYMLINK\+="mamori/\$env\{PARTNAME\}"$', rules, re.MULTILINE)
    assert named is not None
    device = Device()
    used = [device.bootstate, *(place(slot) for slot in "ab" for place in (device.boot_partition, device.root_partition))]
    assert {str(path) for path in used} <= {f"/dev/mamori/{name}" for name in named[1].split("|")}
    modes = dict(re.findall(r'^ENV\{PARTNAME\}=="([^"]+)", GROUP="mamori-update", MODE="(\d+)"$', rules, re.MULTILINE))
    assert modes == {"bootstate": "0660", "boot-a|boot-b|root-a|root-b": "0640"}


def test_the_dead_mans_handle_gives_the_gate_its_time() -> None:
    script = (SYSTEM / "mamori/trial-guard").read_text()
    within = re.search(r"MAMORI_TRIAL_WITHIN_S:-(\d+)", script)
    assert within is not None
    assert int(within[1]) >= 2 * GATE_WITHIN_S


def test_the_watchdog_is_patient_for_several_reports() -> None:
    assert int(value("mamori-inspect.service", "WatchdogSec")) >= 5 * PUBLISH_EVERY_S


def unquoted_shell_script(unit: str) -> str:
    """The script of `ExecStart=/bin/sh -euc '…'` as systemd hands it to the shell (systemd.service(5), COMMAND LINES)."""
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    (quoted,) = re.findall(r"^ExecStart=/bin/sh -euc '(.*)'$", text, re.MULTILINE)
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", quoted), "a single $ would be systemd's"
    return quoted.replace("$$", "$").replace("%%", "%").encode().decode("unicode_escape")


def test_the_ready_line_is_written_once_to_each_place(release: Release, tmp_path: Path) -> None:
    """The unit's own script under a real shell; only its three paths are elsewhere."""
    places = {"/usr/lib/mamori/release.json": "release.json", "/dev/console": "console", "/dev/kmsg": "kmsg"}
    script = unquoted_shell_script("mamori-ready.service")
    for path, name in places.items():
        assert script.count(path) >= 1
        script = script.replace(path, str(tmp_path / name))
    (tmp_path / "release.json").write_bytes(encode(release))
    subprocess.run(["/bin/sh", "-euc", script], check=True, timeout=60)
    assert (tmp_path / "console").read_text() == "mamori: ready 2026.11.0\n"
    assert (tmp_path / "kmsg").read_text() == "<7>mamori: ready 2026.11.0\n"

    (tmp_path / "release.json").write_text("{}")
    assert subprocess.run(["/bin/sh", "-euc", script], check=False, timeout=60).returncode != 0
