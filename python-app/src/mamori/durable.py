"""Files that a power cut leaves old or new, whole in either case: written beside, synced, renamed, and the folder synced.

The rename may reach the disk before the bytes do, and an empty file would then stand where a good one was; so the bytes are synced
first. A rename that is only in memory may be lost, so whoever is told that it is done must know the folder synced as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` when the block ends, and is gone when it raises. Others may be its readers
    by default: compiled lists are read by users other than the one that compiles them.

    OSError as for any file; BlockingIOError while another process replaces a file in the same folder. What a power cut leaves of an
    attempt is taken away by the next one.
    """
    with _locked(path.parent) as folder:
        fresh = path.with_name(f".{path.name}.new")
        try:
            with fresh.open("w+b") as file:
                os.fchmod(file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        os.fsync(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Replace the whole file. OSError as for `replacing`."""
    with replacing(path) as file:
        file.write(content)


def put_in_place(fresh: Path, path: Path) -> None:
    """Let a file that is written already, in the same folder, take the place of `path`. OSError as for `replacing`."""
    with _locked(path.parent) as folder:
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
        os.fsync(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The folder, opened to be synced. Two writers of one fresh file would put a mixture in place; a lock goes with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)
