"""The repository's files: read strictly, written so that whoever downloads at any moment, or after a power cut, sees old or new.

    metadata/N.root.json …  N.targets.json  N.firmware.json  N.feeds.json  N.snapshot.json  timestamp.json
    targets/firmware/COMPATIBLE/HASH.CHANNEL.raucb
    staged/ROLE.json                       waits for signatures

No file but `timestamp.json` is written over once a client may have it (TUF, "Consistent Snapshots"): new ones are put beside
old ones, and the timestamp, written last, makes them the present. So what is published is what it leads to; a newer file that it
does not lead to is left of an operation that was cut off, and the next one writes it anew. Only the root is looked for by number.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from mamori.formats.problems import MamoriError

TIMESTAMP = "timestamp"
_VERSIONED = re.compile(r"([1-9][0-9]{0,9})\.([a-z]+)\.json")
_SERIALIZER = JSONSerializer(compact=False)


class RepositoryFilesError(MamoriError):
    """A file of the repository is missing, or is not what its name says."""


class Store:
    """The files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata, self._staged = folder / "metadata", folder / "staged"

    def exists(self) -> bool:
        """Whether anything was published: the timestamp is the last file."""
        return self._path(TIMESTAMP, 0).exists()

    def read(self, role: str) -> Metadata[Any]:
        """The published metadata of a role."""
        return _read(self._path(role, self._version(role)))

    def read_staged(self, role: str) -> Metadata[Any] | None:
        """What waits for signatures."""
        path = self._staged / f"{role}.json"
        return _read(path) if path.exists() else None

    def root(self) -> bytes:
        """The first root metadata: what an image carries as its anchor."""
        return (self._metadata / "1.root.json").read_bytes()

    def stage(self, role: str, metadata: Metadata[Any]) -> None:
        """Keep it until there are enough signatures."""
        self._staged.mkdir(parents=True, exist_ok=True)
        _replace(self._staged / f"{role}.json", metadata.to_bytes(_SERIALIZER))

    def unstage(self, role: str) -> None:
        (self._staged / f"{role}.json").unlink(missing_ok=True)

    def publish(self, changed: Mapping[str, Metadata[Any]]) -> None:
        """Write the roles, the timestamp last."""
        self._metadata.mkdir(parents=True, exist_ok=True)
        for role in sorted(changed, key=lambda role: role == TIMESTAMP):
            metadata = changed[role]
            _replace(self._path(role, metadata.signed.version), metadata.to_bytes(_SERIALIZER))

    def add_target(self, name: str, digest: str, file: Path) -> None:
        """A copy of the file where clients look for the target, unless it is there."""
        place = self.target(name, digest)
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.new")
        try:
            shutil.copyfile(file, fresh)
            _put(fresh, place)
        finally:
            fresh.unlink(missing_ok=True)

    def target(self, name: str, digest: str) -> Path:
        """Its path: the hash stands before the last part of the name."""
        folder, _, last = name.rpartition("/")
        return self.folder / "targets" / folder / f"{digest}.{last}"

    def past(self, role: str) -> Iterator[Metadata[Any]]:
        """All that was ever published of a role, the newest first."""
        for version in range(self._version(role), 0, -1):
            path = self._path(role, version)
            if path.exists():
                yield _read(path)

    def _version(self, role: str) -> int:
        if role == "root":
            found = (_VERSIONED.fullmatch(path.name) for path in self._metadata.glob("*.root.json"))
            return max((int(match[1]) for match in found if match), default=1)
        timestamp = _read(self._path(TIMESTAMP, 0)).signed
        if role == TIMESTAMP:
            return int(timestamp.version)
        snapshot = int(timestamp.snapshot_meta.version)
        if role == "snapshot":
            return snapshot
        return int(_read(self._path("snapshot", snapshot)).signed.meta[f"{role}.json"].version)

    def _path(self, role: str, version: int) -> Path:
        return self._metadata / ("timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json")


def _read(path: Path) -> Metadata[Any]:
    try:
        return Metadata.from_bytes(path.read_bytes())
    except OSError as error:
        raise RepositoryFilesError(f"{path}: {error.strerror}", "`./inv repo init` makes a repository") from None
    except RepositoryError as error:
        raise RepositoryFilesError(f"{path}: no TUF metadata: {error}") from None


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(content)
        _put(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _put(fresh: Path, path: Path) -> None:
    """The content is on the disk before it has its name, and the name before we go on."""
    _sync(fresh, os.O_RDONLY)
    fresh.replace(path)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
