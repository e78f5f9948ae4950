"""Encrypted key files, lent to the tools that sign as plain copies in memory, for as long as they sign."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from mamori.formats.problems import MamoriError
from signing.keyset import Certified, Keyset
from signing.private import read_private_key
from signing.uri import FileKey

MEMORY = Path("/dev/shm")  # noqa: S108, not a shared temporary name: mkdtemp makes a private folder in it
"""Where POSIX shared memory lives on Linux: a tmpfs, so that a key never reaches a disk unless the machine swaps."""

_PREFIX = "mamori-keys-"
_ABANDONED_AFTER_S = 60
"""A younger folder may belong to a process that has not locked it yet."""


@contextlib.contextmanager
def start_unlocked(keyset: Keyset, environment: Mapping[str, str] = os.environ, memory: Path = MEMORY) -> Iterator[Keyset]:
    """The keyset with db and the bundle signer readable by tools: their encrypted files stand decrypted in memory meanwhile.

    The copies are removed on the way out, whatever happens; those of a killed process by the next one. The passphrase
    comes from MAMORI_KEY_PASSPHRASE. BadInputError as `read_private_key`; MamoriError when `memory` is not memory.
    """
    _remove_abandoned(memory)
    with contextlib.ExitStack() as stack:
        lent: list[Path] = []

        def lend(certified: Certified) -> Certified:
            if not isinstance(certified.key, FileKey):
                return certified
            private = read_private_key(certified.key.path, environment, str(keyset.path), f"{certified.name}.key")
            if not private.encrypted:
                return certified
            if not lent:
                lent.append(stack.enter_context(_start_folder(memory)))
            copy = lent[0] / f"{certified.name}.key"
            with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(private.plain_pem())
            return dataclasses.replace(certified, key=FileKey(copy))

        authority = keyset.authorities[keyset.signs_with]
        signing = dataclasses.replace(authority, signer=lend(authority.signer))
        authorities = MappingProxyType({**keyset.authorities, keyset.signs_with: signing})
        yield dataclasses.replace(keyset, db=lend(keyset.db), authorities=authorities)


@contextlib.contextmanager
def _start_folder(memory: Path) -> Iterator[Path]:
    """A new private folder, locked by this process for as long as it lives."""
    if not _is_memory(memory):
        raise MamoriError(f"{memory} is not in memory, so an encrypted key cannot be lent to a tool", "mount a tmpfs there")
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=memory.resolve()))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(descriptor)


def _remove_abandoned(memory: Path) -> None:
    """Remove the folders of processes that were killed: nobody holds their lock any more."""
    for folder in memory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid() or time.time() - folder.stat().st_mtime < _ABANDONED_AFTER_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _is_memory(folder: Path) -> bool:
    """Whether `folder` lies on a tmpfs or a ramfs (proc(5), mountinfo: the mount point is field 5, the type follows `-`)."""
    best, memory = Path("/"), False
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        point, kind = Path(fields[4]), fields[fields.index("-") + 1]
        if folder.resolve().is_relative_to(point) and point.is_relative_to(best):
            best, memory = point, kind in ("tmpfs", "ramfs")
    return memory
