"""Factory reset: the data partition becomes as empty as a new box's, but for its identity (docs/update.md §9.1).

    mark_reset        a person asks: the mark is on the disk, and nothing else has happened
    clear_data        at the next start, before anybody uses the partition: all goes, the mark last
    take_record       afterwards the updater tells that it was done

The power may go at any point. Until the mark is gone the next start begins again, and what is gone by then stays gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamori.durable import write_durably
from mamori.formats.problems import MamoriError
from mamori.paths import Device
from mamori.sysfs import UnreadableError, read_bytes

_MAX_RECORD_BYTES = 4096
_MAX_WHY = 100


@dataclass(frozen=True)
class Record:
    """When it was asked for (Unix seconds, 0 if nobody knows) and how, and what could not be deleted."""

    at: int
    why: str
    left: int = 0


def mark_reset(device: Device, why: str, now: int) -> None:
    """Have the next start clear the data. MamoriError when that cannot be written down: then nothing will happen."""
    try:
        write_durably(device.reset_mark, _encode(Record(now, why[:_MAX_WHY])))
    except OSError as error:
        raise MamoriError(f"{device.reset_mark}: {error.strerror}: nothing will be cleared") from None


def clear_data(device: Device) -> Iterator[Path]:
    """Delete everything but what stays; each path as it has gone. Without a mark there is nothing to do.

    What cannot be deleted is counted and left: a disk with a bad spot must not clear itself at every start from now on.
    """
    mark = device.reset_mark
    if not os.path.lexists(mark):
        return
    asked, left = _read(mark), 0
    for path in _doomed(device):
        try:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:
            left += 1
        else:
            yield path
    os.sync()  # all of it is gone on the disk, too, before the disk forgets that it had to go
    device.identity.parent.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # a full disk of folders that cannot be deleted
        write_durably(_record(device), _encode(Record(asked.at, asked.why, left)))
    yield _record(device)
    mark.unlink()
    _sync(mark.parent)
    yield mark


def take_record(device: Device) -> str:
    """What to tell people of a reset that nobody has told yet, "" if there is nothing."""
    path = _record(device)
    if not path.exists():
        return ""
    record = _read(path)
    with contextlib.suppress(OSError):
        path.unlink()
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.at)) if record.at else "a time that nobody knows"
    rest = f"; {record.left} files could not be deleted" if record.left else ""
    return f"工場出荷時の設定に戻しました。\nThe box was reset to factory settings, as asked for at {when} ({record.why}){rest}."


def _doomed(device: Device) -> Iterator[Path]:
    """What a folder holds comes before the folder. The file system's own folder stays, but not what it has found."""
    stays = {device.identity.parent, device.reset_mark}
    for path in sorted(device.data.iterdir()):
        if path in stays:
            continue
        yield from (one for one in _inside(path) if one != device.data / "lost+found")


def _inside(path: Path) -> Iterator[Path]:
    """The path after all that is below it; links are not followed."""
    for folder, folders, files in os.walk(path, topdown=False) if not path.is_symlink() else ():
        yield from (Path(folder, name) for name in sorted([*files, *folders]))
    yield path


def _record(device: Device) -> Path:
    return device.identity.parent / "reset.json"


def _encode(record: Record) -> bytes:
    return json.dumps({"at": record.at, "why": record.why, "left": record.left}).encode() + b"\n"


def _read(path: Path) -> Record:
    """A mark that a person has made by hand is empty, and as good."""
    try:
        table: Any = json.loads(read_bytes(path, _MAX_RECORD_BYTES))
    except (UnreadableError, ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        return Record(0, "by hand")
    at, why, left = table.get("at"), table.get("why"), table.get("left")
    return Record(_count(at), str(why)[:_MAX_WHY], _count(left))


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
