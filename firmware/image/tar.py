"""Layers: tar archives put over each other, the later one winning, in an order that keeps deltas small."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

MOUNT_POINTS = ("dev", "proc", "run", "sys")
"""What the initramfs hands over. The root cannot be written to later, and a base may have left them out."""


@contextmanager
def new_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A new archive in the pax format, which keeps long names, large numbers and extended attributes."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        yield tar


def add_tree(tar: tarfile.TarFile, tree: Path, *, mtime: int, prefix: str = "") -> None:
    """Everything below `tree`, owned by root, at one time; sorted, so the same tree gives the same bytes."""
    for path in sorted(tree.rglob("*")):
        if "__pycache__" in path.parts and path.is_dir() and not any(path.iterdir()):
            continue
        info = tar.gettarinfo(path, prefix + path.relative_to(tree).as_posix())
        if info.islnk():  # two names of one file in our sources are a coincidence of the checkout
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = mtime
        # git knows one permission bit; the umask of whoever cloned must not reach the image.
        info.mode = 0o777 if info.issym() else (0o755 if info.isdir() or info.mode & 0o111 else 0o644)
        if info.isreg():
            with path.open("rb") as content:
                tar.addfile(info, content)
        else:
            tar.addfile(info)


def add_text(tar: tarfile.TarFile, name: str, content: str | bytes, *, mtime: int, mode: int = 0o644) -> None:
    """One regular file, owned by root."""
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), mtime, mode
    tar.addfile(info, io.BytesIO(data))


def read_members(path: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The content of the named regular files of an archive; names as `normal_name` gives them. Missing ones are left out."""
    names = set(wanted)
    found = {}
    with tarfile.open(path) as tar:
        for info in tar:
            if normal_name(info.name) in names and info.isreg():
                found[normal_name(info.name)] = _content(tar, info).read()
    return found


def merge(layers: Iterable[Path], target: Path) -> None:
    """One archive of all layers. A name of a later layer replaces that of an earlier one where it stands *later*:
    what changes often (app, version) goes last, so everything before it keeps its place from release to release."""
    paths = list(layers)
    winner: dict[str, int] = {}
    for number, layer in enumerate(paths):
        with tarfile.open(layer) as tar:
            for info in tar:
                name = normal_name(info.name)
                # A folder that an upper layer only passes through keeps the owner and mode that the lower one gave it.
                if not (info.isdir() and name in winner):
                    winner[name] = number
    with new_tar(target) as merged:
        # mkfs.erofs makes a root folder that is not in the archive writable for everyone, and sshd then refuses all keys.
        for name in ("./", *(point for point in MOUNT_POINTS if point not in winner)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            merged.addfile(folder)
        for number, layer in enumerate(paths):
            with tarfile.open(layer) as tar:
                for info in tar:
                    name = normal_name(info.name)
                    if winner[name] != number or not name:
                        continue
                    info.name = name
                    if info.islnk():
                        info.linkname = normal_name(info.linkname)
                    merged.addfile(info, _content(tar, info) if info.isreg() else None)


def normal_name(name: str) -> str:
    """`./usr/bin/` and `/usr/bin` are `usr/bin`; the root itself is the empty string."""
    return (name[1:] if name == "." or name.startswith("./") else name).strip("/")


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(info))
