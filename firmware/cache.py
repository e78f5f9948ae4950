"""Steps that are done once: outputs live in a folder named by the hash of everything that went in.

A step's key covers its name, its inputs (texts, and the content digests of files and of other artifacts) and the
source of the code that makes it. Outputs are made in a temporary folder and renamed, so a half-made artifact never has
a valid name; they are digested once, when they are made, so an unchanged build reads no large file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KEEP_PER_STEP = 4
"""Artifacts of one step that survive: today's, and a few to switch between boards, recipes and branches."""

_RECORD = "artifact.json"

_CHUNK_BYTES = 64 * 1024
_SPARSE_FROM_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Artifact:
    """The finished output of a step. `digest` stands for the content of its files, `key` for what went in."""

    step: str
    folder: Path
    key: str
    digest: str
    files: Mapping[str, str]
    seconds: float
    inputs: Mapping[str, str]

    def __truediv__(self, name: str) -> Path:
        if name not in self.files:
            raise KeyError(f"{self.step} makes {', '.join(self.files)}, not {name}")
        return self.folder / name


@dataclass(frozen=True)
class Cache:
    """All artifacts of a checkout below `folder`."""

    folder: Path

    def step(
        self,
        name: str,
        inputs: Mapping[str, str],
        make: Callable[[Path], None],
        *,
        code: tuple[str, ...] = (),
        on_hit: Callable[[], None] = lambda: None,
    ) -> Artifact:
        """The artifact of `make(folder)` for `inputs`; `code` are source files whose change must redo the step."""
        key = _key(name, inputs, code)
        place = self.folder / name / key
        found = _read(name, place)
        if found:
            os.utime(place)  # marks it as used for _prune()
            on_hit()
            return found
        started = time.monotonic()
        with _fresh_folder(place) as fresh:
            make(fresh)
            paths = [path for path in sorted(fresh.rglob("*")) if path.is_file()]
            files = {path.relative_to(fresh).as_posix(): content_digest(path) for path in paths}
            record = {"inputs": dict(inputs), "files": files, "seconds": round(time.monotonic() - started, 2)}
            (fresh / _RECORD).write_text(json.dumps(record, indent=1))
        self._prune(name)
        made = _read(name, place)
        assert made is not None  # noqa: S101 - it was renamed into place two lines ago
        return made

    def _prune(self, name: str) -> None:
        kept = sorted((p for p in (self.folder / name).iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
        for old in kept[:-KEEP_PER_STEP]:
            shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One build at a time in one checkout; a second one waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """The SHA-256 of a file; of a sparse one, which nobody compares with `sha256sum`, a digest of what is not zero:
    `sparse:` and the SHA-256 over every non-zero chunk behind its offset. The same content gives the same digest however
    its holes lie, and a disk image of gigabytes costs what is really in it."""
    stat = path.stat()
    if stat.st_blocks * 512 >= stat.st_size // 2 or stat.st_size < _SPARSE_FROM_BYTES:
        return file_sha256(path)
    digest = hashlib.sha256(f"{stat.st_size}\n".encode())
    with path.open("rb") as file:
        offset = 0
        while offset < stat.st_size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // _CHUNK_BYTES * _CHUNK_BYTES
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    break
                raise
            chunk = os.pread(file.fileno(), _CHUNK_BYTES, offset)
            if chunk.strip(b"\0"):
                digest.update(f"{offset}\n".encode() + chunk)
            offset += len(chunk)
    return f"sparse:{digest.hexdigest()}"


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tree_sha256(folder: Path) -> str:
    """A digest over the names, modes, link targets and contents below `folder`, without times and owners."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        kind = "l" + str(path.readlink()) if path.is_symlink() else ("d" if path.is_dir() else "f" + file_sha256(path))
        mode = path.lstat().st_mode & 0o111
        digest.update(f"{path.relative_to(folder).as_posix()}\0{mode:o}\0{kind}\n".encode())
    return digest.hexdigest()


def _key(name: str, inputs: Mapping[str, str], code: tuple[str, ...]) -> str:
    sources = {f"code:{Path(file).name}": file_sha256(Path(file)) for file in code}
    return text_sha256(json.dumps([name, sorted({**inputs, **sources}.items())]))[:24]


def _read(step: str, place: Path) -> Artifact | None:
    try:
        record = json.loads((place / _RECORD).read_text())
        files, inputs, seconds = record["files"], record["inputs"], record["seconds"]
    except (OSError, ValueError, KeyError):
        return None
    if not all((place / name).is_file() for name in files):
        return None
    digest = text_sha256(json.dumps(sorted(files.items())))
    return Artifact(step, place, place.name, digest, files, seconds, inputs)


@contextlib.contextmanager
def _fresh_folder(place: Path) -> Iterator[Path]:
    """A folder beside `place` that becomes `place` if the block succeeds and vanishes if it does not."""
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
