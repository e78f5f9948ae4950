"""What an appliance says of itself: `mamori status`. Each part is read alone, so one that fails hides no other."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mamori.bridge import judge
from mamori.formats import release as release_format
from mamori.formats.bootstate import Slot
from mamori.formats.problems import MamoriError
from mamori.formats.release import Release
from mamori.inspect.report import STALE_AFTER_S, read_report
from mamori.paths import Device
from mamori.sysfs import UnreadableError, read_bridge, read_bytes, read_line

ROOT_NAME = "root"
"""Name of the device-mapper device that the initramfs opens the root file system as."""

_VERITY_UUIDS = re.compile(r"(CRYPT-VERITY-.*)?")
"""sysfs does not tell a target's type, but most tools label their devices: libcryptsetup its verity devices so, LVM and
LUKS theirs otherwise. The initramfs uses dmsetup, which labels nothing."""

_EFI_ATTRIBUTE_BYTES = 4

UPDATER_STALE_AFTER_S = 60.0
"""It speaks every two seconds, and waits for a slow disk when it has something to remember."""


def read_status(device: Device, now_s: float, monotonic_s: float) -> dict[str, Any]:
    """All parts, fit for JSON: a part that cannot be read is None, and `unreadable` says why.

    `now_s` is the wall clock in Unix seconds, `monotonic_s` CLOCK_MONOTONIC.
    """
    unreadable: dict[str, str] = {}

    def read(name: str, reader: Callable[[], Any]) -> Any:
        try:
            return reader()
        except MamoriError as error:
            unreadable[name] = str(error)
        except OSError as error:
            unreadable[name] = f"{error.filename or name}: {error.strerror}"
        return None

    release = read("release", lambda: read_release(device))
    return {
        "release": _release_part(release) if release else None,
        "slot": read("slot", lambda: _read_slot(device)),
        "root": read("root", lambda: _read_root(device)),
        "secure_boot": read("secure_boot", lambda: _read_secure_boot(device)),
        "bridge": read("bridge", lambda: _read_bridge(device, release)),
        "inspect": read("inspect", lambda: _read_inspect(device, monotonic_s)),
        "signatures": read("signatures", lambda: _read_signatures(device, monotonic_s)),
        "lists": read("lists", lambda: _read_lists(device, now_s)),
        "events": read("events", lambda: _read_events(device)),
        "update": read("update", lambda: _read_update(device, monotonic_s)),
        "data": read("data", lambda: _read_data(device)),
        "uptime_s": read("uptime_s", lambda: _read_uptime(device)),
        "clock": read("clock", lambda: _clock_part(release, now_s)),
        "unreadable": unreadable,
    }


def read_release(device: Device) -> Release:
    """The image's release file; MamoriError says what is wrong with it."""
    content = read_bytes(device.release, release_format.MAX_FILE_BYTES)
    return release_format.decode(content, str(device.release))


def _release_part(release: Release) -> dict[str, Any]:
    return {
        "product": release.product,
        "version": release.version,
        "recipe": release.recipe,
        "board": release.board,
        "base": release.base.value,
        "variant": release.variant.value,
        "source_commit": release.source_commit,
        "build_time": release.build_time,
        "compatible": release.update.compatible,
        "features": list(release.features),
    }


def _read_slot(device: Device) -> str:
    text = read_line(device.slot)
    if text not in {slot.value for slot in Slot}:
        raise UnreadableError(f"{device.slot}: {text[:40]!r} is not a slot")
    return text


def _read_root(device: Device) -> dict[str, Any]:
    """`hash` is what the initramfs was told to open; `verified` whether the root that is mounted comes through dm-verity."""
    text = read_line(device.verity)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UnreadableError(f"{device.verity}: {text[:40]!r} is not a root hash")
    mount = _read_mounts(device).get("/")
    mapped = _find_mapped(device, ROOT_NAME)
    verified = (
        mount is not None
        and mapped is not None
        and mount["device"] == read_line(mapped / "dev")
        and _VERITY_UUIDS.fullmatch(read_line(mapped / "dm/uuid")) is not None
    )
    return {"hash": text, "verified": verified, "read_only": mount is not None and mount["read_only"]}


def _find_mapped(device: Device, name: str) -> Path | None:
    """The sysfs folder of the device-mapper device of that name."""
    return next((path.parent.parent for path in sorted(device.blocks.glob("dm-*/dm/name")) if read_line(path) == name), None)


def _read_mounts(device: Device) -> Mapping[str, Mapping[str, Any]]:
    """Mount point to device number and mode; of mounts over each other the last one is what is seen (proc_pid_mountinfo(5))."""
    lines = (line.split() for line in read_line(device.mounts).splitlines())
    return {words[4]: {"device": words[2], "read_only": "ro" in words[5].split(",")} for words in lines if len(words) > 5}


def _read_secure_boot(device: Device) -> bool:
    content = read_bytes(device.secure_boot)
    if len(content) != _EFI_ATTRIBUTE_BYTES + 1:
        raise UnreadableError(f"{device.secure_boot}: {len(content)} bytes, not {_EFI_ATTRIBUTE_BYTES + 1}")
    return content[_EFI_ATTRIBUTE_BYTES] == 1


def _read_bridge(device: Device, release: Release | None) -> dict[str, Any]:
    if release is None:
        raise UnreadableError("the release file would say which bridge to look at")
    sample = read_bridge(device, release.bridge.name, release.bridge.ports)
    judgement = judge(sample, release.bridge.name, release.bridge.ports)
    found = {port.name: port for port in sample.ports}
    return {
        "name": release.bridge.name,
        "mac": sample.bridge.mac if sample.bridge else None,
        "condition": judgement.condition.value,
        "text": judgement.text,
        "ports": [
            {"condition": condition.value, **(asdict(found[name]) if name in found else {"name": name})}
            for name, condition in judgement.ports.items()
        ],
    }


def _read_inspect(device: Device, monotonic_s: float) -> dict[str, Any]:
    """The service's last words and their age; `running` is whether they are fresh."""
    try:
        report = read_report(device.inspect_report)
    except UnreadableError as error:
        raise UnreadableError(f"not running ({error})") from None
    age_s = _age_s(report, monotonic_s)
    return {
        "running": 0 <= age_s <= STALE_AFTER_S,
        "age_s": round(age_s, 1),
        "condition": report.get("condition"),
        "text": report.get("text"),
        "packets": _packets_part(report.get("packets")),
    }


def _age_s(report: Mapping[str, Any], monotonic_s: float) -> float:
    """How old a report is; one that came while we were reading others is new. Below zero it is of another clock."""
    age_s = monotonic_s - float(report["at_monotonic_s"])
    return 0.0 if -STALE_AFTER_S <= age_s <= 0 else age_s


def _packets_part(packets: Any) -> dict[str, Any] | None:
    """What the workers say, in sum; None when packets are left alone."""
    if not isinstance(packets, dict):
        return None
    told = packets.get("workers")
    workers = [worker for worker in told if isinstance(worker, dict)] if isinstance(told, list) else []

    def total(*keys: str) -> int:
        return sum(_number(worker, *keys) for worker in workers)

    databases = {str(worker["scanner"].get("database")) for worker in workers if isinstance(worker.get("scanner"), dict)}
    scanners = {str(worker["scanner"].get("condition")) for worker in workers if isinstance(worker.get("scanner"), dict)}
    return {
        "workers": len(workers),
        "workers_wanted": packets.get("workers_wanted"),
        "fail_open": packets.get("fail_open"),
        "received": total("queue", "received"),
        "overrun": total("queue", "overrun"),
        "flows": total("flows"),
        "bugs": total("bugs"),
        "scanner": scanners.pop() if len(scanners) == 1 else "mixed" if scanners else "unknown",
        "scanner_database": databases.pop() if len(databases) == 1 else "",
        "list_records": max((_number(worker, "policy", "list_records") for worker in workers), default=0),
        "policy_problem": str(packets.get("policy_problem") or ""),
    }


def _read_signatures(device: Device, monotonic_s: float) -> dict[str, Any]:
    """What the keeper of the signature engine says; "absent" on a box that has none."""
    if not device.signatures_report.exists():
        return {"condition": "absent"}
    report = read_report(device.signatures_report)
    if not 0 <= _age_s(report, monotonic_s) <= STALE_AFTER_S:
        raise UnreadableError("its keeper does not run")
    return {
        "condition": str(report.get("condition")),
        "is_preparing": bool(report.get("is_preparing")),
        **{key: _number(report, key) for key in ("supplies", "rules", "refused", "alerts", "kills")},
        "problem": str(report.get("problem") or ""),
    }


def _read_update(device: Device, monotonic_s: float) -> dict[str, Any]:
    """How far an update is, and what the owner should do; `problem` is the first of what the updater complains about."""
    try:
        report = read_report(device.update_runtime / "status.json")
    except UnreadableError as error:
        raise UnreadableError(f"the updater does not run ({error})") from None
    age_s = monotonic_s - float(report["at_monotonic_s"])
    if not -UPDATER_STALE_AFTER_S <= age_s <= UPDATER_STALE_AFTER_S:
        raise UnreadableError("the updater does not run: it has been silent for a minute")
    words = {key: str(report.get(key) or "") for key in ("phase", "offered", "source", "next_ja", "next_en")}
    problems = (report.get(key) for key in ("problem", "check_problem", "stick_problem", "settings_problem"))
    progress = report.get("progress_percent")
    return {
        **words,
        "progress_percent": progress if isinstance(progress, int) else None,
        "problem": next((str(problem) for problem in problems if problem), ""),
    }


def _read_lists(device: Device, now_s: float) -> dict[str, Any]:
    """The file of names and URLs; how many of them the workers have is in their part. No feed has come yet: no age."""
    try:
        return {"age_s": max(0, int(now_s - device.lists.stat().st_mtime))}
    except FileNotFoundError:
        return {"age_s": None}


def _read_events(device: Device) -> dict[str, Any]:
    """Whether somebody takes events, and how much room those that were written take."""
    folder = os.open(device.events_socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(f"/proc/self/fd/{folder}/{device.events_socket.name}")  # however long the path is
    except ConnectionRefusedError:
        raise UnreadableError("nobody writes them") from None
    finally:
        os.close(folder)
    files = (device.events_database.with_name(device.events_database.name + end) for end in ("", "-wal"))
    return {"size_bytes": sum(file.stat().st_size for file in files if file.exists())}


def _number(part: Any, *keys: str) -> int:
    """A number somewhere in a report; 0 where it is not."""
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, int) else 0


def _read_data(device: Device) -> dict[str, Any]:
    """The data partition. Space is that for ordinary users, in bytes."""
    mount = _read_mounts(device).get("/data")
    if mount is None:
        raise UnreadableError(f"{device.data}: not mounted")
    space = os.statvfs(device.data)
    return {
        "read_only": mount["read_only"],
        "free_bytes": space.f_bavail * space.f_frsize,
        "size_bytes": space.f_blocks * space.f_frsize,
    }


def _read_uptime(device: Device) -> float:
    try:
        uptime_s = float(read_line(device.uptime).split()[0])
    except (ValueError, IndexError):
        raise UnreadableError(f"{device.uptime}: not a time") from None
    if not math.isfinite(uptime_s):
        raise UnreadableError(f"{device.uptime}: not a time")
    return uptime_s


def _clock_part(release: Release | None, now_s: float) -> dict[str, Any]:
    """A clock before the build time is one that forgot the time: a dead battery."""
    if release is None:
        raise UnreadableError("the release file would say the earliest time that can be")
    return {"now": int(now_s), "build_time": release.build_time, "sane": now_s >= release.build_time}
