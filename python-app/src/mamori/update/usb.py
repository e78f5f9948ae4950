"""USB sticks as repositories (docs/update.md §10): which ones are plugged in, and how a file on one is opened.

mamori-usb@.service mounts the file systems of sticks; nobody knows who wrote them. What is on one may be a link that leads
elsewhere, a pipe that never ends, or a folder where a file should be, and the stick may be gone in the middle of a read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = "mamori-update"
"""The folder on a stick that is a repository: it has `metadata/` and `targets/`."""

MOUNTED = ".mounted"
"""What the mount's name ends with in the file that says that it is complete; overlay, usb-stick."""

MAX_WAITING = 8
"""Sticks that wait to be looked at. A box has four ports; a partition table may name a hundred partitions."""


@dataclass(frozen=True)
class Plug:
    """One plugging in of one file system; `number` tells it from the next one of the same name."""

    name: str
    number: int


def list_plugs(folder: Path) -> tuple[Plug, ...]:
    """What is plugged in now. Reads nothing on any stick: one that hangs must not hang whoever asks."""
    plugs = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(MOUNTED):
                    plugs.append(Plug(entry.name.removesuffix(MOUNTED), entry.stat(follow_symlinks=False).st_mtime_ns))
    except OSError:  # no stick has been here since the start, or one went away just now
        return ()
    return tuple(sorted(plugs, key=lambda plug: plug.name))


class Sticks:
    """Says of each plugging in once that it is new. `look` is called now and then, `next` whenever there is time for one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._present: tuple[Plug, ...] = ()
        self._waiting: deque[Plug] = deque(maxlen=MAX_WAITING)

    def look(self) -> None:
        present = list_plugs(self._folder)
        self._waiting.extend(plug for plug in present if plug not in self._present)
        self._present = present

    def next(self) -> Plug | None:
        """One that nobody has looked at yet, and that is still here."""
        while self._waiting:
            plug = self._waiting.popleft()
            if plug in self._present:
                return plug
        return None

    def has(self, plug: Plug) -> bool:
        return plug in self._present

    def repository(self, plug: Plug) -> Path:
        """Where it would be on this stick."""
        return self._folder / plug.name / REPOSITORY


def has_repository(folder: Path) -> bool:
    """Whether there is a folder with that name, and no link to one. Reads from the stick."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode)
    except OSError:
        return False


def open_plain(path: Path) -> IO[bytes]:
    """A file that is one, reached through folders that are. OSError for everything else.

    A link may lead to what only the updater can read; opening a pipe waits for its other end, which is what O_NONBLOCK is for
    (open(2)). A device cannot be opened on a stick: it is mounted with `nodev`.
    """
    *folders, name = path.absolute().parts[1:]
    if ".." in (*folders, name):
        raise OSError(errno.EINVAL, "a way back", str(path))
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(descriptor, "rb")
