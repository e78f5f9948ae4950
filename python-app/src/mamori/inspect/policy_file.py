"""The policy file on disk: which policy is in force when it changes, breaks and comes back. The same for all that obey it.

In force is the last one that was sound. At the start that may be the copy that the supervisor keeps of each sound one, so a box
that loses power with a bad policy on its disk does not forget what its owner wanted.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from mamori.formats.problems import MamoriError
from mamori.formats.strict import parse, read_toml
from mamori.inspect.policy import MAX_POLICY_BYTES, Policy

Identity = tuple[int, int, int, int]


def file_identity(path: Path) -> Identity | None:
    """What changes when a file is replaced or edited: device, inode, size, time in nanoseconds. None without the file; something
    else where there is one that cannot be looked at."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return 0, 0, 0, -(error.errno or 1)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_policy(path: Path) -> Policy:
    """The policy in a file; the defaults if there is none. BadInputError or MamoriError names what is wrong with it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Policy()
    except OSError as error:  # a link to itself, a folder that is not ours to read
        raise MamoriError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):  # to open a pipe would wait for ever for somebody to write
        raise MamoriError(f"{path}: not a file")
    return parse(Policy, read_toml(path, max_bytes=MAX_POLICY_BYTES), str(path))


class PolicyFile:
    """The policy in force. `problem` is what is wrong with the file, "" when it is in force; `complain` is told it once.
    `identity` is that of the file that was last looked at."""

    def __init__(self, path: Path, accepted: Path, complain: Callable[[str], None]) -> None:
        self._path, self._accepted, self._complain = path, accepted, complain
        self.identity: Identity | None = None
        self.policy = Policy()
        self.problem = ""

    @property
    def stamp(self) -> int | None:
        """When the file that was last looked at was written, in nanoseconds."""
        return self.identity[-1] if self.identity is not None else None

    def load(self) -> None:
        """Read the file, or the copy of the last sound one; without either the defaults are in force."""
        self.identity = file_identity(self._path)
        if self._read(self._path):
            return
        try:
            self.policy = read_policy(self._accepted)
        except MamoriError as error:
            self._complain(str(error))

    def reload(self) -> bool:
        """Whether the file has changed and is in force now."""
        seen = file_identity(self._path)
        if seen == self.identity:
            return False
        self.identity = seen
        return self._read(self._path)

    def _read(self, path: Path) -> bool:
        try:
            self.policy = read_policy(path)
        except MamoriError as error:
            if self.problem != str(error):
                self.problem = str(error)
                self._complain(str(error))
            return False
        self.problem = ""
        return True
