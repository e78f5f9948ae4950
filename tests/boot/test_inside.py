"""The box from inside, as the lab's key lets us see it."""

from __future__ import annotations

from firmware.build import Built
from firmware.layout import MIB
from tests.boot.conftest import GROWN_BYTES
from tests.support.machine import Box

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

PORTS = {("tcp", "22"), ("udp", "68")}
"""SSH of the lab, and the DHCP client."""

LOGIN_SHELLS = {"root"}

SET_USER_ID = {
    *("chage", "chfn", "chsh", "expiry", "gpasswd", "mount", "newgrp", "passwd", "ssh-agent", "su", "umount"),
    *("dbus-daemon-launch-helper", "ssh-keysign", "unix_chkpwd"),
}
"""Debian's own; a new one is looked at before it is added here."""


def test_secure_boot_is_on_and_the_firmware_is_out_of_setup_mode(box: Box) -> None:
    variable = "tail -c1 {} | od -An -tu1"
    assert box.host.check_output(variable.format(SECURE_BOOT)).strip() == "1"
    assert box.host.check_output(variable.format(SECURE_BOOT.replace("SecureBoot", "SetupMode"))).strip() == "0"


def test_the_kernel_is_locked_down_and_not_tainted(box: Box) -> None:
    assert "[integrity]" in box.host.file("/sys/kernel/security/lockdown").content_string
    assert box.host.file("/proc/sys/kernel/tainted").content_string.strip() == "0"


def test_the_status_says_all_is_well(box: Box, built: Built) -> None:
    status = box.status()
    assert status["unreadable"] == {}
    assert status["release"]["version"] == built.image.version
    assert status["slot"] == "a"
    assert status["root"] == {"hash": built.root.root_hash, "verified": True, "read_only": True}
    assert status["secure_boot"] is True
    assert status["bridge"]["condition"] == "forwarding"
    assert [port["condition"] for port in status["bridge"]["ports"]] == ["forwarding", "forwarding"]
    assert status["inspect"]["running"] is True
    assert status["data"]["read_only"] is False
    assert status["clock"]["sane"] is True


def test_the_root_is_read_only_and_stays_so(box: Box) -> None:
    assert "Read-only file system" in box.host.run("touch /usr/new").stderr
    assert box.host.run("mount -o remount,rw /").failed
    assert box.host.run("touch /usr/new").failed
    assert box.host.check_output("cat /sys/dev/block/$(stat -c %Hd:%Ld /)/dm/uuid").startswith("CRYPT-VERITY-")


def test_no_unit_has_failed_and_none_had_to_be_restarted(box: Box) -> None:
    assert box.host.check_output("systemctl --failed --no-legend --plain") == ""
    assert "FAILED" not in box.machine.console
    restarts = box.host.check_output("systemctl show '*.service' --property=NRestarts --value | sort -u").split()
    assert restarts == ["0"]


def test_only_expected_ports_listen(box: Box) -> None:
    listening = [line.split() for line in box.host.check_output("ss -Hlntu").splitlines()]
    assert {(words[0], words[4].rpartition(":")[2]) for words in listening} == PORTS


def test_only_root_can_log_in_and_only_by_key(box: Box) -> None:
    entries = [line.split(":") for line in box.host.file("/etc/passwd").content_string.splitlines()]
    assert {entry[0] for entry in entries if not entry[6].endswith(("nologin", "/sync", "/false"))} == LOGIN_SHELLS
    assert [entry[0] for entry in entries if entry[2] == "0"] == ["root"]
    shadow = [line.split(":") for line in box.host.file("/etc/shadow").content_string.splitlines()]
    assert [entry[0] for entry in shadow if not entry[1].startswith(("*", "!"))] == []
    effective = box.host.check_output("sshd -T").splitlines()
    assert {"passwordauthentication no", "kbdinteractiveauthentication no"} <= set(effective)


def test_no_program_gives_rights_away_but_the_known_ones(box: Box) -> None:
    found = box.host.check_output("find / -xdev -type f -perm /6000").splitlines()
    assert {path.rpartition("/")[2] for path in found} <= SET_USER_ID
    assert box.host.run("find / -xdev ! -type l -perm -0002 ! -perm -1000 ! -type c -print -quit").stdout == ""


def test_systemd_feeds_the_watchdog_that_the_initramfs_armed(box: Box, built: Built) -> None:
    assert "mamori: watchdog armed" in box.host.check_output("dmesg")
    shown = box.host.check_output("systemctl show -p RuntimeWatchdogUSec -p WatchdogDevice --value").split()
    assert "/dev/watchdog0" in shown
    assert f"{built.image.board.watchdog.timeout_s // 60}min" in shown
    state = box.host.file("/sys/class/watchdog/watchdog0/state").content_string.strip()
    assert state == "active"


def test_the_data_partition_has_grown_to_the_end_of_the_disk(box: Box, built: Built) -> None:
    size = int(box.host.check_output("lsblk --bytes --noheadings --output SIZE /dev/disk/by-partlabel/data"))
    assert size >= built.image.layout["data"].size_bytes + GROWN_BYTES
    assert box.status()["data"]["size_bytes"] > size * 0.9 - 64 * MIB


def test_the_initramfs_made_the_bridge_and_networkd_took_it_over(box: Box) -> None:
    assert "mamori: bridge forwards" in box.host.check_output("dmesg")
    assert box.host.check_output("cat /sys/class/net/br0/ifindex").strip() == "4"  # made before anything else could be
    assert box.host.check_output("networkctl --json=short status br0 | tr , '\\n' | grep AdministrativeState").endswith(
        '"configured"'
    )
