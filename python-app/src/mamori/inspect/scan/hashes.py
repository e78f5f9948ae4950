"""Known-bad files by the SHA-256 of the whole: one sorted file, mapped into memory, shared by all processes that read it.

Lines of a list are those of ClamAV's .hsb files, so that its tools (`sigtool --sha256`) and feeds make them:

    <sha256 in hexadecimal>:<length in bytes, or * for any>:<name>           # a comment; empty lines are left out

The compiled file, numbers little-endian:

    header      magic `MHSH0001`, number of entries (8), length of the names (8)
    entries     44 bytes each, ascending: SHA-256 (32), length (8, all ones for any), where its name starts (4)
    names       each: length (1), UTF-8

It is replaced by a rename. Whoever cuts it short in place kills its readers with SIGBUS, as with every mapped file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from mamori.durable import write_durably
from mamori.formats.problems import BadInputError, MamoriError, Problem

MAX_ENTRIES = 4_000_000
"""176 MB on disk. In memory are only the pages that are looked at."""
MAX_NAME_BYTES = 255
MAX_PROBLEMS = 20
"""Told of one list. Who has more has the wrong file."""
ANY_LENGTH = 0xFFFF_FFFF_FFFF_FFFF

_MAGIC = b"MHSH0001"
_HEADER = struct.Struct("<8sQQ")
_ENTRY = struct.Struct("<32sQI")
_LINE = re.compile(r"([0-9A-Fa-f]{64}):(\*|[0-9]{1,18}):([^\x00-\x1f\x7f]+)")

Entry = tuple[bytes, int, str]


def parse_hashes(lines: Iterable[str], source: str) -> list[Entry]:
    """The entries of a list; BadInputError names the lines that are none."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None or len(found[3].encode()) > MAX_NAME_BYTES:
            problems.append(Problem(source, f"line {number}", "SHA-256:length or *:name", repr(text[:100])))
            if len(problems) == MAX_PROBLEMS:
                break
            continue
        entries.append((bytes.fromhex(found[1]), ANY_LENGTH if found[2] == "*" else int(found[2]), found[3]))
        if len(entries) > MAX_ENTRIES:
            problems.append(Problem(source, f"line {number}", f"at most {MAX_ENTRIES} entries", "more"))
            break
    if problems:
        raise BadInputError(problems)
    return entries


def encode_hashes(entries: Iterable[Entry]) -> bytes:
    """The compiled file. Of entries that are the same but for their names, the first in order of names stays."""
    names: dict[str, int] = {}
    packed_names = bytearray()
    packed = bytearray()
    count, last = 0, None
    for digest, length, name in sorted(set(entries)):
        if (digest, length) == last:
            continue
        if name not in names:
            names[name] = len(packed_names)
            encoded = name.encode()
            packed_names += bytes([len(encoded)]) + encoded
        packed += _ENTRY.pack(digest, length, names[name])
        count, last = count + 1, (digest, length)
    return _HEADER.pack(_MAGIC, count, len(packed_names)) + packed + packed_names


def compile_hashes(lines: Iterable[str], out: Path, source: str) -> int:
    """Write the compiled list to `out`, durably and as a whole; how many entries it has. `source` is what errors call the lines."""
    content = encode_hashes(parse_hashes(lines, source))
    write_durably(out, content)
    return int(_HEADER.unpack_from(content)[1])


class HashList:
    """A compiled list. What it says of its own size is checked when it is opened, and every offset when it is used."""

    def __init__(self, content: bytes | mmap.mmap, source: str) -> None:
        self._content = content
        size = len(content)
        if size < _HEADER.size:
            raise _damaged(source, f"{size} bytes")
        magic, self._count, names_bytes = _HEADER.unpack_from(content)
        if magic != _MAGIC:
            raise _damaged(source, repr(magic))
        self._names = _HEADER.size + self._count * _ENTRY.size
        if self._names + names_bytes != size:
            raise _damaged(source, f"{size} bytes for {self._count} entries and {names_bytes} bytes of names")

    def __len__(self) -> int:
        return int(self._count)

    def find(self, digest: bytes, length: int) -> str | None:
        """The name of the file with this SHA-256 and length; None if it is not in the list."""
        at = self._first(digest)
        while at < self._count:
            found, wanted_length, name = _ENTRY.unpack_from(self._content, _HEADER.size + at * _ENTRY.size)
            if found != digest:
                return None
            if wanted_length in (length, ANY_LENGTH):
                return self._name(name)
            at += 1
        return None

    def _first(self, digest: bytes) -> int:
        """The first entry that is not below the digest."""
        content, low, high = self._content, 0, self._count
        while low < high:
            middle = (low + high) // 2
            start = _HEADER.size + middle * _ENTRY.size
            if content[start : start + 32] < digest:
                low = middle + 1
            else:
                high = middle
        return low

    def _name(self, offset: int) -> str:
        start = self._names + offset
        if start >= len(self._content):
            return "unnamed"
        return self._content[start + 1 : start + 1 + self._content[start]].decode("utf-8", "replace") or "unnamed"

    def close(self) -> None:
        if isinstance(self._content, mmap.mmap):
            self._content.close()


def open_hashes(path: Path) -> HashList:
    """The list in a file; MamoriError if it is not there, cannot be read or is not one."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer, and the office's packets with it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise MamoriError(f"{path}: not a file")
            # An empty file cannot be mapped.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if status.st_size else b""
    except OSError as error:
        raise MamoriError(f"{path}: {error.strerror}") from error
    try:
        return HashList(content, str(path))
    except BadInputError:
        if isinstance(content, mmap.mmap):
            with contextlib.suppress(BufferError):
                content.close()
        raise


def _damaged(source: str, got: str) -> BadInputError:
    return BadInputError([Problem(source, "content", "a compiled list of hashes", got, "compile the list again")])


class HashSource:
    """The list at a path, taken anew when the file there is another one. `problem` says why it could not be; the old one stays."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._list: HashList | None = None
        self.problem = ""

    def refresh(self) -> None:
        """Look whether the file was replaced."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            fresh = open_hashes(self._path)
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
        except MamoriError as error:
            self.problem = error.message
        else:
            self.close()
            self._list, self._seen, self.problem = fresh, seen, ""

    def find(self, digest: bytes, length: int) -> str | None:
        return None if self._list is None else self._list.find(digest, length)

    def close(self) -> None:
        if self._list is not None:
            self._list.close()
            self._list = None
