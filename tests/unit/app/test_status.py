"""`mamori status` over a device that is a real folder: each part well, and each part unwell without hiding the others."""

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mamori.inspect.report import STALE_AFTER_S
from mamori.paths import Device
from mamori.status import read_status
from mamori.status_text import FALLBACK_DATABASE, render_status

NOW = 1_795_000_100.0
MONOTONIC = 500.0

Write = Callable[[str, str], None]


def status(device: Device) -> dict:
    return read_status(device, NOW, MONOTONIC)


@pytest.fixture
def report(device: Device) -> Callable[[float], None]:
    device.inspect_report.parent.mkdir(parents=True)

    def report(age_s: float, packets: object = None) -> None:
        content = {"at_monotonic_s": MONOTONIC - age_s, "condition": "forwarding", "text": "br0 forwards", "packets": packets}
        device.inspect_report.write_text(json.dumps(content))

    report(1.5)
    write_updater(device)
    return report


UPDATER = {
    "at_monotonic_s": MONOTONIC - 1,
    "phase": "idle",
    "version": "2026.11.0",
    "offered": None,
    "source": None,
    "next_ja": "最新の状態です。",
    "next_en": "Up to date. Nothing needs to be done.",
    "progress_percent": None,
    "problem": "",
    "check_problem": "",
}
"""Some of what the updater publishes."""


def write_updater(device: Device, **changed: object) -> None:
    device.update_runtime.mkdir(parents=True, exist_ok=True)
    (device.update_runtime / "status.json").write_text(json.dumps(UPDATER | changed))


def test_a_healthy_appliance_says_all_of_this(device: Device, report) -> None:
    found = status(device)
    data = found.pop("data")
    assert data["read_only"] is False
    assert 0 <= data["free_bytes"] <= data["size_bytes"]
    port = {"condition": "forwarding", "carrier": True, "state": 3, "rx_bytes": 2048, "tx_bytes": 3145728}
    assert found == {
        "release": {
            "product": "Mamori",
            "version": "2026.11.0",
            "recipe": "lab",
            "board": "qemu-x86_64",
            "base": "debian",
            "variant": "lab",
            "source_commit": "0" * 40,
            "build_time": 1_795_000_000,
            "compatible": "mamori-qemu-x86_64-lab",
            "features": ["inspect"],
        },
        "slot": "b",
        "root": {"hash": "5a" * 32, "verified": True, "read_only": True},
        "secure_boot": True,
        "bridge": {
            "name": "br0",
            "mac": "02:00:00:00:00:00",
            "condition": "forwarding",
            "text": "br0 forwards between wan and lan",
            "ports": [{"name": "wan", "mac": "02:00:00:00:00:01", **port}, {"name": "lan", "mac": "02:00:00:00:00:02", **port}],
        },
        "inspect": {"running": True, "age_s": 1.5, "condition": "forwarding", "text": "br0 forwards", "packets": None},
        "signatures": {"condition": "absent"},
        "lists": {"age_s": None},
        "events": {"size_bytes": 0},
        "update": {
            "phase": "idle",
            "offered": "",
            "source": "",
            "next_ja": "最新の状態です。",
            "next_en": "Up to date. Nothing needs to be done.",
            "progress_percent": None,
            "problem": "",
        },
        "uptime_s": 93784.51,
        "clock": {"now": 1_795_000_100, "build_time": 1_795_000_000, "sane": True},
        "unreadable": {},
    }


@pytest.mark.parametrize(
    ("part", "broken", "reason"),
    [
        ("slot", "run/mamori/slot", "run/mamori/slot: No such file or directory"),
        ("root", "run/mamori/verity", "run/mamori/verity: No such file or directory"),
        ("secure_boot", "sys/firmware/efi/efivars", "No such file or directory"),
        ("uptime_s", "proc/uptime", "proc/uptime: No such file or directory"),
        ("inspect", "run/mamori/inspect/report.json", "not running ("),
        ("update", "run/mamori/update/status.json", "the updater does not run ("),
    ],
)
def test_a_part_that_cannot_be_read_says_why_and_hides_no_other(
    device: Device, report, part: str, broken: str, reason: str
) -> None:
    well = status(device)
    (device.root / broken).rename(device.root / "away")
    found = status(device)
    assert found[part] is None
    assert reason in found["unreadable"][part]
    assert list(found["unreadable"]) == [part]
    assert {name for name in well if found[name] != well[name]} <= {part, "unreadable", "data"}


def test_without_a_release_file_three_parts_miss_it_and_say_so(device: Device, report) -> None:
    device.release.write_text("{}")
    found = status(device)
    assert sorted(found["unreadable"]) == ["bridge", "clock", "release"]
    assert "format: expected 1" in found["unreadable"]["release"]
    assert found["slot"] == "b"


@pytest.mark.parametrize(
    ("part", "name", "text", "reason"),
    [
        ("slot", "run/mamori/slot", "c\n", "'c' is not a slot"),
        ("slot", "run/mamori/slot", "", "'' is not a slot"),
        ("root", "run/mamori/verity", "5A" * 32, "is not a root hash"),
        ("secure_boot", "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\x06\0\0\0", "4 bytes, not 5"),
        ("data", "proc/self/mountinfo", "22 21 254:1 / / ro - erofs /dev/mapper/root ro\n", "/data: not mounted"),
        ("uptime_s", "proc/uptime", "\n", "not a time"),
        ("uptime_s", "proc/uptime", "nan 1\n", "not a time"),
        ("inspect", "run/mamori/inspect/report.json", "{", "not running (.*not a report)"),
    ],
)
def test_a_file_that_says_nonsense_is_unreadable(device: Device, report, write: Write, part, name, text, reason) -> None:
    write(name, text)
    found = status(device)
    assert found[part] is None
    assert reason.split("(")[0] in found["unreadable"][part]
    assert list(found["unreadable"]) == [part]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("sys/block/dm-1/dm/uuid", "LVM-0123\n", id="the device is not verity"),
        pytest.param("sys/block/dm-1/dm/name", "other\n", id="no device of that name"),
        pytest.param("sys/block/dm-1/dev", "254:9\n", id="the root comes from another device"),
        pytest.param("proc/self/mountinfo", "", id="no root is mounted"),
        pytest.param("proc/self/mountinfo", "22 21 259:3 / / ro - erofs /dev/vda4 ro\n", id="the root is the bare partition"),
    ],
)
def test_a_root_that_only_has_a_hash_is_not_verified(device: Device, write: Write, name: str, text: str) -> None:
    write(name, text)
    assert status(device)["root"]["verified"] is False


@pytest.mark.parametrize("uuid", ["", "\n", "CRYPT-VERITY-0123-root\n"], ids=repr)
def test_a_root_that_dmsetup_or_veritysetup_opened_is_verified(device: Device, write: Write, uuid: str) -> None:
    write("sys/block/dm-1/dm/uuid", uuid)
    assert status(device)["root"]["verified"] is True


def test_a_writable_root_and_a_read_only_data_partition_are_seen(device: Device, write: Write) -> None:
    write("proc/self/mountinfo", "22 21 254:1 / / rw - erofs x rw\n23 22 259:7 / /data ro,nosuid - ext4 x rw\n")
    found = status(device)
    assert (found["root"]["read_only"], found["data"]["read_only"]) == (False, True)


def test_secure_boot_off_is_an_answer(device: Device) -> None:
    device.secure_boot.write_bytes(b"\x06\0\0\0\0")
    assert status(device)["secure_boot"] is False


def test_a_silent_service_is_not_running_although_its_report_is_there(device: Device, report) -> None:
    report(STALE_AFTER_S)
    assert status(device)["inspect"]["running"] is True
    report(STALE_AFTER_S + 0.1)
    assert status(device)["inspect"]["running"] is False
    report(-STALE_AFTER_S - 0.1)
    assert status(device)["inspect"]["running"] is False, "from before a reboot, or of another clock"


def test_a_report_that_comes_while_the_status_is_read_is_new(device: Device, report) -> None:
    report(-1)
    assert status(device)["inspect"]["running"] is True
    assert status(device)["inspect"]["age_s"] == 0


@pytest.mark.parametrize(("now", "sane"), [(1_795_000_000, True), (1_794_999_999, False), (0, False)])
def test_a_clock_before_the_build_is_not_sane(device: Device, now: float, sane: bool) -> None:
    assert read_status(device, now, MONOTONIC)["clock"]["sane"] is sane


def test_an_interface_that_is_down_has_no_carrier_to_tell(device: Device) -> None:
    (device.interfaces / "lan/carrier").unlink()
    assert [port["condition"] for port in status(device)["bridge"]["ports"]] == ["forwarding", "down"]


def test_people_see_short_aligned_lines(device: Device, report, write: Write) -> None:
    write("sys/class/net/lan/carrier", "0")
    lines = render_status(status(device), colour=False).splitlines()
    data = lines.pop(10)
    assert data.startswith("data        ")
    assert " free of " in data
    assert lines == [
        "release     Mamori 2026.11.0 (lab, qemu-x86_64, debian)",
        "slot        b",
        "root        verified, read-only, 5a5a5a5a5a5a",
        "secure boot on",
        "bridge      lan: no carrier",
        "inspection  running: br0 forwards",
        "signatures  no signature engine on this box",
        "lists       none: no feed has come",
        "events      written, 0 B",
        "update      Up to date. Nothing needs to be done.",
        "uptime      1 d 02:03:04",
        "clock       after the build time",
        "  wan       forwarding, 02:00:00:00:00:01, in 2.0 KiB, out 3.0 MiB",
        "  lan       no carrier, 02:00:00:00:00:02, in 2.0 KiB, out 3.0 MiB",
    ]


def test_trouble_is_red_and_only_where_colour_is_wanted(device: Device, report, write: Write) -> None:
    device.secure_boot.write_bytes(b"\x06\0\0\0\0")
    report(60)
    write("run/mamori/slot", "c")
    (device.interfaces / "wan").rename(device.root / "away")
    found = status(device) | {
        "clock": {"sane": False},
        "data": {"read_only": True},
        "root": {"hash": "0", "verified": False, "read_only": False},
    }
    red = [
        line.split("\x1b[31m")[1].removesuffix("\x1b[0m")
        for line in render_status(found, colour=True).splitlines()
        if "\x1b[31m" in line
    ]
    assert red == [
        f"{device.slot}: 'c' is not a slot",
        "NOT verified, WRITABLE, 0",
        "OFF",
        "wan: missing",
        "no news for 60 s; last: br0 forwards",
        "mounted READ-ONLY",
        "BEFORE the build time: the clock forgot the time",
        "missing",
    ]
    assert "\x1b" not in render_status(found, colour=False)


def test_nothing_readable_is_still_a_status(tmp_path) -> None:
    found = read_status(Device(tmp_path), NOW, MONOTONIC)
    assert set(found["unreadable"]) == set(found) - {"unreadable", "signatures", "lists"}
    assert found["signatures"] == {"condition": "absent"}
    assert found["lists"] == {"age_s": None}
    assert len(render_status(found, colour=False).splitlines()) == len(found) - 1


KEPT = {
    "at_monotonic_s": MONOTONIC - 1,
    "condition": "up",
    "is_preparing": False,
    "supplies": 2,
    "rules": 30_000,
    "refused": 3,
    "alerts": 4,
    "kills": 0,
    "problem": "",
}


@pytest.mark.parametrize(
    ("changed", "says", "is_red"),
    [
        ({}, "the engine is up, 30000 rules, 4 alerts", False),
        ({"is_preparing": True}, "the engine is up, 30000 rules, 4 alerts, new rules are being tested", False),
        ({"condition": "away"}, "the engine is away, 30000 rules, 4 alerts", True),
        ({"condition": "off"}, "off, as the policy says", False),
        ({"problem": "line 1\nis bad"}, "the engine is up, 30000 rules, 4 alerts; the new rules were refused: line 1 is bad", True),
        ({"at_monotonic_s": MONOTONIC - STALE_AFTER_S - 1}, "its keeper does not run", True),
        ({"rules": "many", "alerts": None}, "the engine is up, 0 rules, 0 alerts", False),
        ({"at_monotonic_s": None}, "/run/mamori/signatures/report.json: not a report", True),
    ],
)
def test_what_the_keeper_of_signatures_says_is_one_line(device: Device, changed: dict, says: str, is_red: bool) -> None:
    device.signatures_report.parent.mkdir(parents=True)
    device.signatures_report.write_text(json.dumps(KEPT | changed))
    (line,) = (line for line in render_status(status(device), colour=True).splitlines() if line.startswith("signatures"))
    assert says in line
    assert ("\x1b[31m" in line) == is_red


WORKER = {
    "number": 0,
    "flows": 7,
    "bugs": 0,
    "queue": {"received": 100, "overrun": 2},
    "scanner": {"condition": "down", "database": "Mamori.1"},
    "policy": {"list_records": 5},
}


def test_the_workers_are_told_in_sum(device: Device, report) -> None:
    report(1.5, {"workers": [WORKER, WORKER], "workers_wanted": 2, "fail_open": True, "policy_problem": "policy.toml: bad"})
    packets = status(device)["inspect"]["packets"]
    assert packets == {
        "workers": 2,
        "workers_wanted": 2,
        "fail_open": True,
        "received": 200,
        "overrun": 4,
        "flows": 14,
        "bugs": 0,
        "scanner": "down",
        "scanner_database": "Mamori.1",
        "list_records": 5,
        "policy_problem": "policy.toml: bad",
    }
    lines = render_status(status(device), colour=False).splitlines()
    assert "  workers   2 of 2, 14 connections, 200 packets, 5 names and URLs, 4 passed unseen for want of time" in lines
    assert "  viruses   only known hashes: the scanner is down" in lines
    assert "  policy    policy.toml: bad" in lines


def test_what_is_wrong_with_the_policy_has_a_line_each_and_leaves_room_for_the_rest(device: Device, report) -> None:
    problems = "\n".join(f"p: key{number}: expected \x1b[2J" for number in range(100)) + "\n    hint: did you mean `x`?"
    report(1.5, {"workers": [WORKER], "workers_wanted": 1, "fail_open": True, "policy_problem": problems})
    lines = render_status(status(device), colour=False).splitlines()
    at = lines.index("  policy    p: key0: expected \\x1b[2J")
    assert lines[at + 1 : at + 9] == [
        *(f"            p: key{number}: expected \\x1b[2J" for number in range(1, 8)),
        "            and 93 lines more",
    ]


@pytest.mark.parametrize(
    ("scanner", "says"),
    [
        ({"condition": "up", "database": "Mamori.1"}, "scanned"),
        ({"condition": "up", "database": FALLBACK_DATABASE}, "only known hashes and the test virus: no feed has come"),
        ({"condition": "absent"}, "only known hashes: the scanner is absent"),
    ],
)
def test_what_the_scanner_finds_is_said_as_it_is(device: Device, report, scanner: dict, says: str) -> None:
    report(1.5, {"workers": [{**WORKER, "scanner": scanner}], "workers_wanted": 1, "fail_open": True, "policy_problem": ""})
    assert f"  viruses   {says}" in render_status(status(device), colour=False).splitlines()


GREEN, YELLOW, RED = "32", "33", "31"


@pytest.mark.parametrize(
    ("changed", "says", "colour"),
    [
        pytest.param({}, "Up to date. Nothing needs to be done.", GREEN, id="nothing to do"),
        pytest.param(
            {"phase": "staging", "next_en": "Version 2026.12.0 is being fetched.", "progress_percent": 40},
            "Version 2026.12.0 is being fetched. (40 %)",
            GREEN,
            id="on its way",
        ),
        pytest.param(
            {"phase": "armed", "next_en": "Unplug\nthe box."}, "Unplug the box.", YELLOW, id="the owner should do something"
        ),
        pytest.param(
            {"check_problem": "no answer\nin time", "stick_problem": "x"},
            "Up to date. Nothing needs to be done. Trouble: no answer in time",
            YELLOW,
            id="the first of several troubles",
        ),
        pytest.param({"problem": "\x1b[2J"}, r"Trouble: \x1b[2J", YELLOW, id="words of a server that would clear the screen"),
        pytest.param({"at_monotonic_s": MONOTONIC - 61}, "silent for a minute", RED, id="it hangs"),
        pytest.param({"at_monotonic_s": MONOTONIC + 61}, "silent for a minute", RED, id="its report is of another start"),
        pytest.param({"at_monotonic_s": "now"}, "status.json: not a report", RED, id="no report"),
        pytest.param({"phase": 7, "problem": [], "progress_percent": {}, "next_en": None}, "", GREEN, id="another shape"),
    ],
)
def test_an_update_is_one_line_with_what_to_do(device: Device, changed: dict, says: str, colour: str) -> None:
    write_updater(device, **changed)
    (line,) = (line for line in render_status(status(device), colour=True).splitlines() if line.startswith("update"))
    assert says in line
    assert f"\x1b[{colour}m" in line


def test_the_name_of_the_fallback_is_that_in_the_image() -> None:
    signatures = Path(__file__).parents[3] / "overlay/common/usr/lib/mamori/clamd-fallback/mamori.ndb"
    assert f"\n{FALLBACK_DATABASE}:" in signatures.read_text()


@pytest.mark.parametrize(
    ("age_s", "says"),
    [(60, "of the last day"), (2 * 86400, "2 days old"), (40 * 86400, "40 days old"), (-60, "of the last day")],
)
def test_the_age_of_the_lists_is_told(device: Device, age_s: int, says: str) -> None:
    device.lists.parent.mkdir(parents=True)
    device.lists.write_bytes(b"")
    os.utime(device.lists, (NOW - age_s, NOW - age_s))
    assert f"lists       {says}" in render_status(status(device), colour=False).splitlines()


def test_events_that_nobody_writes_are_told(device: Device) -> None:
    device.events_database.parent.mkdir(parents=True)
    device.events_database.write_bytes(bytes(3000))
    device.events_database.with_name(f"{device.events_database.name}-wal").write_bytes(bytes(72))
    assert status(device)["events"] == {"size_bytes": 3072}
    device.events_socket.unlink()
    assert status(device)["unreadable"]["events"].endswith("No such file or directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone, contextlib.chdir(device.events_socket.parent):
        gone.bind(device.events_socket.name)
    assert status(device)["unreadable"]["events"] == "nobody writes them"


@pytest.mark.parametrize("packets", [{}, {"workers": None}, {"workers": [None, {"queue": 1}]}, {"workers": "x"}], ids=str)
def test_a_report_of_another_shape_is_no_traceback(device: Device, report, packets: object) -> None:
    report(1.5, packets)
    told = status(device)["inspect"]["packets"]
    assert told["received"] == 0
