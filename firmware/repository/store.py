"""The repository's files: read strictly, written so that whoever downloads at any moment, or after a power cut, sees old or new.

    metadata/N.root.json …  N.targets.json  N.firmware.json  N.feeds.json  N.snapshot.json  timestamp.json
    targets/firmware/COMPATIBLE/HASH.CHANNEL.raucb
    staged/ROLE.json                       waits for signatures

No file but `timestamp.json` is written over once a client may have it (TUF, "Consistent Snapshots"): new ones are put beside
old ones, and the timestamp, written last, makes them the present. So what is published is what it leads to; a newer file that it
does not lead to is left of an operation that was cut off, and the next one writes it anew. Only the root is looked for by number.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from mamori.formats.problems import MamoriError

TIMESTAMP = "timestamp"
SERIALIZER = JSONSerializer(compact=False)

LOCK_WITHIN_S = 60.0
"""The daily refresh may meet a release that copies its bundle; longer than this, something is wrong."""

_LOCK_POLL_S = 0.1
_CHUNK_BYTES = 1024 * 1024
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755  # a web server reads them, whatever the umask of who releases
_ROOT_NAME = re.compile(r"([1-9][0-9]{0,9})\.root\.json", re.ASCII)


class RepositoryFilesError(MamoriError):
    """A file of the repository is missing, is not what its name says, or is being worked on."""


class Store:
    """The files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata, self._staged = folder / "metadata", folder / "staged"

    @contextlib.contextmanager
    def locked(self, *, is_new: bool = False) -> Iterator[None]:
        """One operation at a time; another one waits a while. Only where `is_new`, a folder that is not there is made."""
        if is_new:
            _make_folder(self.folder)
        with self._open_lock() as lock:
            give_up_at = time.monotonic() + LOCK_WITHIN_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up_at:
                        raise RepositoryFilesError(f"{self.folder}: another `./inv` has been at work on it for long") from None
                time.sleep(_LOCK_POLL_S)
            yield

    def _open_lock(self) -> TextIO:
        try:
            return (self.folder / ".lock").open("w")
        except FileNotFoundError:
            raise RepositoryFilesError(f"{self.folder}: no repository", "`./inv repo init` makes one") from None
        except OSError as error:
            raise RepositoryFilesError(f"{self.folder}: cannot be written: {error.strerror}") from None

    # --- what is published ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything was published: of a new repository, the timestamp is the last file."""
        return self._path(TIMESTAMP, 0).exists()

    def read(self, role: str) -> Metadata[Any]:
        """The published metadata of a role."""
        return self._read(role, self._version(role))

    def root(self) -> bytes:
        """The first root metadata that this repository has."""
        return self._path("root", min(self._roots(), default=1)).read_bytes()

    def past(self, role: str) -> Iterator[Metadata[Any]]:
        """All that was ever published of a role, the newest first."""
        for version in range(self._version(role), 0, -1):
            if self._path(role, version).exists():
                yield self._read(role, version)

    def publish(self, changed: Iterable[tuple[str, Metadata[Any]]]) -> None:
        """Write the roles in this order, each for good before the next."""
        _make_folder(self._metadata)
        for role, metadata in changed:
            write_whole(self._path(role, metadata.signed.version), metadata.to_bytes(SERIALIZER))

    # --- what waits ----------------------------------------------------------------------------------------------------------

    def read_staged(self, role: str) -> Metadata[Any] | None:
        """What waits for signatures. What was published since, and not removed here because of a power cut, does not wait."""
        path = self._staged / f"{role}.json"
        if not path.exists():
            return None
        staged = _read(path, role)
        is_old = self.exists() and staged.signed.version <= self.read(role).signed.version
        return None if is_old else staged

    def stage(self, role: str, metadata: Metadata[Any]) -> None:
        """Keep it until there are enough signatures."""
        _make_folder(self._staged)
        write_whole(self._staged / f"{role}.json", metadata.to_bytes(SERIALIZER))

    def unstage(self, role: str) -> None:
        (self._staged / f"{role}.json").unlink(missing_ok=True)

    # --- bundles -------------------------------------------------------------------------------------------------------------

    def add_target(self, name: str, file: Path) -> tuple[str, int]:
        """A copy of the file where clients look for the target. The hash and the length of just the bytes that were copied."""
        folder = self.target(name, "").parent
        _make_folder(folder)
        fresh = folder / f".{file.name}.{os.getpid()}.new"
        try:
            digest, length = _copy(file, fresh)
            _put(fresh, self.target(name, digest))
        except OSError as error:
            raise RepositoryFilesError(f"{error.filename or file}: {error.strerror}") from None
        finally:
            fresh.unlink(missing_ok=True)
        return digest, length

    def target(self, name: str, digest: str) -> Path:
        """Its path: the hash stands before the last part of the name."""
        folder, _, last = name.rpartition("/")
        return self.folder / "targets" / folder / f"{digest}.{last}"

    def _version(self, role: str) -> int:
        if role == "root":
            return max(self._roots(), default=1)
        timestamp = self._read(TIMESTAMP, 0).signed
        if role == TIMESTAMP:
            return int(timestamp.version)
        snapshot = int(timestamp.snapshot_meta.version)
        if role == "snapshot":
            return snapshot
        meta = self._read("snapshot", snapshot).signed.meta.get(f"{role}.json")
        if meta is None:
            raise RepositoryFilesError(f"{self._path('snapshot', snapshot)}: it does not name {role}")
        return int(meta.version)

    def _read(self, role: str, version: int) -> Metadata[Any]:
        path = self._path(role, version)
        found = _read(path, role)
        if version and found.signed.version != version:
            raise RepositoryFilesError(f"{path}: expected version {version}, got {found.signed.version}")
        return found

    def _roots(self) -> list[int]:
        found = (_ROOT_NAME.fullmatch(path.name) for path in self._metadata.glob("*.root.json"))
        return [int(match[1]) for match in found if match]

    def _path(self, role: str, version: int) -> Path:
        return self._metadata / ("timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json")


def read_root(content: bytes, source: str) -> Metadata[Root]:
    """Root metadata that is signed by a threshold of its own keys."""
    try:
        root: Metadata[Any] = Metadata.from_bytes(content)
        if not isinstance(root.signed, Root):
            raise RepositoryFilesError(f"{source}: expected TUF root metadata, got that of {root.signed.type}")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (RepositoryError, ValueError) as error:
        raise RepositoryFilesError(f"{source}: no TUF root metadata: {error}") from None
    return root


def write_whole(path: Path, content: bytes) -> None:
    """The old content or the new one, whatever happens."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(content)
        _put(fresh, path)
    except OSError as error:
        raise RepositoryFilesError(f"{path}: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)


def _read(path: Path, role: str) -> Metadata[Any]:
    try:
        found: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    except OSError as error:
        raise RepositoryFilesError(f"{path}: {error.strerror}", "`./inv repo init` makes a repository") from None
    except RepositoryError as error:
        raise RepositoryFilesError(f"{path}: no TUF metadata: {error}") from None
    kind = role if role in ("root", "snapshot", TIMESTAMP) else "targets"
    if found.signed.type != kind:
        raise RepositoryFilesError(f"{path}: expected {kind}, got {found.signed.type}")
    return found


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with source.open("rb") as original, target.open("wb") as copy:
        while piece := original.read(_CHUNK_BYTES):
            copy.write(piece)
            digest.update(piece)
            length += len(piece)
    return digest.hexdigest(), length


def _put(fresh: Path, path: Path) -> None:
    """The content is on the disk before it has its name, and the name before we go on."""
    fresh.chmod(_FILE_MODE)
    _sync(fresh, os.O_RDONLY)
    fresh.replace(path)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _make_folder(folder: Path) -> None:
    """The folder, its name on the disk, readable for a web server."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        folder.chmod(_FOLDER_MODE)
        _sync(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RepositoryFilesError(f"{folder}: cannot be made: {error.strerror}") from None


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
