"""What is being built: the changelog's top entry, the commit, and the time that both stand for."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from firmware.process import run
from mamori.formats.problems import BadInputError, Problem

CHANGELOG = "CHANGELOG.md"

_ENTRY = re.compile(r"^## (.+)$", re.MULTILINE)
_CALENDAR = re.compile(r"20\d\d\.(?:[1-9]|1[0-2])\.(?:0|[1-9]\d*)", re.ASCII)

_NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Source:
    """The state of the checkout: `commit` is 40 hex digits, `epoch` its committer time in Unix seconds."""

    version: str
    commit: str
    dirty: bool
    epoch: int


def parse_release(changelog: str, file: str = CHANGELOG) -> str:
    """The version of the changelog's top entry: calendar version YYYY.M.N, which is also a valid semver."""
    entry = _ENTRY.search(changelog)
    title = entry.group(1).strip() if entry else "no entry"
    if not _CALENDAR.fullmatch(title):
        raise BadInputError([Problem(file, "top entry", "a calendar version YYYY.M.N, like 2026.11.0", repr(title))])
    return title


def read_source(root: Path) -> Source:
    """Version and commit of the checkout at `root`.

    Only the commit that carries the tag `vYYYY.M.N`, without local changes, is that release. Any other build appends
    the commit as semver build metadata, and local changes as a digest of them, so two different trees never share a name.
    """
    release = parse_release((root / CHANGELOG).read_text())
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip() or _NO_COMMIT
    changes = _local_changes(root)
    if not changes and f"v{release}" in _git(root, "tag", "--points-at", "HEAD").split():
        version = release
    else:
        version = f"{release}+g{commit[:10]}" + (f".d{changes}" if changes else "")
    epoch = int(_git(root, "show", "--no-patch", "--format=%ct", commit).strip())
    return Source(version, commit, bool(changes), epoch)


def _local_changes(root: Path) -> str:
    """Eight hex digits that stand for every change not in HEAD, or nothing for a clean tree."""
    if not _git(root, "status", "--porcelain").strip():
        return ""
    digest = hashlib.sha256(_git(root, "diff", "HEAD", "--binary", "--no-ext-diff").encode())
    for name in sorted(_git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")):
        if name:
            digest.update(name.encode() + b"\0" + _content(root / name))
    return digest.hexdigest()[:8]


def _content(path: Path) -> bytes:
    """What git would keep of an untracked file; nothing of a folder with a repository of its own, a pipe or a socket."""
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def _git(root: Path, *arguments: str) -> str:
    return run(["git", "-C", root, *arguments], explain="read the state of the checkout").stdout
