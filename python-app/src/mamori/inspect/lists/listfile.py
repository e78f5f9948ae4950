"""A compiled list file, mapped into memory: all processes that read it share its pages.

A file is replaced (rename), never edited: who shortens a file that is mapped kills its readers with SIGBUS. compile.py keeps to
that, and whoever else brings a file must.

`open` checks header, sizes, and the digests of what it reads; a block is checked when it is first touched. So damage anywhere
gives a ListError or does not matter, and opening does not read the whole file. `check` does.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

from mamori.formats.problems import BadInputError
from mamori.formats.strict import parse
from mamori.inspect.http_url import Url
from mamori.inspect.lists.fileformat import (
    BLOCK_BYTES,
    BLOCK_RECORDS,
    HEADER_BYTES,
    TAGS_AT,
    ListError,
    Section,
    block_count,
    digest_of,
    hash_of,
    is_block_sound,
    parse_header,
)
from mamori.inspect.lists.hosts import MAX_NAME_CHARS
from mamori.inspect.lists.matching import Bounds, EntryKind, Found, find_name, find_url, is_listed
from mamori.inspect.lists.suffixes import Suffixes, parse_rules


class ListKind(Enum):
    """What the policy has to say about a list: `dangerous_sites`, or `categories`."""

    DANGEROUS = "dangerous"
    CATEGORY = "category"


MAX_UNLISTED = 4096
"""Hosts that are remembered as being in no list: a working day of an office has so many, and they take half a megabyte."""


@dataclass(frozen=True, slots=True)
class ListInfo:
    """One list. `category` is the policy's key of it; "" for dangerous sites without one."""

    key: str
    kind: ListKind
    category: str
    label_ja: str
    label_en: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A list has what was looked up; `entry` is the text of its most specific entry that matches."""

    list: ListInfo
    entry_kind: EntryKind
    entry: str


@dataclass(frozen=True)
class _Info:
    lists: tuple[ListInfo, ...]


def encode_info(lists: Sequence[ListInfo]) -> bytes:
    """The INFO section."""
    rows = [{**{name: getattr(info, name) for name in ListInfo.__slots__}, "kind": info.kind.value} for info in lists]
    return json.dumps({"lists": rows}, ensure_ascii=False).encode()


def _parse_info(content: bytes) -> tuple[ListInfo, ...]:
    try:
        return parse(_Info, json.loads(content), "the lists").lists
    except (ValueError, RecursionError, BadInputError, AttributeError) as error:
        raise ListError(f"damaged: its table of lists: {error}") from None


class ListFile:
    """Use as a context manager, or close(). Not to be shared between threads without a lock."""

    def __init__(self, path: Path, content: mmap.mmap, identity: tuple[int, ...]) -> None:
        self.path = path
        self._identity = identity
        self._content = content
        view = memoryview(content)
        self._header = header = parse_header(bytes(view[:HEADER_BYTES]), len(view))
        self._view = view
        self._key = header.key
        self.records = header.records
        self.lists = _parse_info(self._section(header.info))
        self._section(header.index)
        blocks = view[header.blocks.offset : header.blocks.end]
        self._index = view[header.index.offset : header.index.end].cast("Q")
        self._hashes, self._tags_of = blocks.cast("Q"), blocks.cast("H")
        self._is_sound = bytearray(block_count(header.records))
        self._bounds = Bounds(header.max_labels, header.max_folders)
        self._unlisted: set[str] = set()

    @classmethod
    def open(cls, path: Path) -> ListFile:
        """ListError if there is no such file, or it is damaged."""
        if sys.byteorder != "little":
            raise ListError(f"{path}: list files are read on little-endian machines only")
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                identity = _identity(os.fstat(file.fileno()))
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            raise ListError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        try:
            return cls(path, content, identity)
        except ListError as error:
            raise ListError(f"{path}: {error.message}") from None

    def close(self) -> None:
        for view in (self._index, self._hashes, self._tags_of, self._view):
            view.release()
        self._content.close()

    def __enter__(self) -> ListFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        return len(self._view)

    def is_stale(self) -> bool:
        """Whether another file lies at the path by now. One stat: to be asked every few seconds. A file that is gone is
        no reason to forget what it said."""
        try:
            return _identity(self.path.stat()) != self._identity
        except OSError:
            return False

    def lookup_name(self, name: str) -> tuple[Hit, ...]:
        """All lists that have the name (as names.host_name writes it) or one above it; ListError if a block is damaged."""
        if self._is_unlisted(name):
            return ()
        return self._hits(find_name(self._tags, self._bounds, name))

    def lookup_url(self, url: Url) -> tuple[Hit, ...]:
        """All lists that have the URL or its host; ListError if a block is damaged."""
        if self._is_unlisted(url.host):
            return ()
        return self._hits(find_url(self._tags, self._bounds, url))

    def suffixes(self) -> Suffixes:
        """The public suffix list that the file was compiled with, parsed anew: keep it or let it go."""
        try:
            return parse_rules(self._section(self._header.suffixes).decode().splitlines())
        except ValueError as error:
            raise ListError(f"{self.path}: damaged: {error}") from None

    def check(self) -> None:
        """Read all of it: ListError at the first damage."""
        for section in self._header.sections:
            self._section(section)
        previous = (-1, -1)
        for position in range(self.records):
            block, place = divmod(position, BLOCK_RECORDS)
            if place == 0:
                self._touch(block)
            record = self._record(position)
            if record <= previous or (place == 0 and self._index[block] != record[0]):
                raise ListError(f"{self.path}: damaged: record {position} is out of order")
            if record[1] >> 4 >= len(self.lists):
                raise ListError(f"{self.path}: damaged: record {position} is of an unknown list")
            previous = record

    def _is_unlisted(self, host: str) -> bool:
        """Whether neither the host nor one above it is in any list, which is said of nearly all, and of the same ones again and
        again: on a connection, by every request."""
        if host in self._unlisted:
            return True
        if is_listed(self._tags, self._bounds, host):
            return False
        if len(self._unlisted) >= MAX_UNLISTED:
            self._unlisted.clear()
        if len(host) <= MAX_NAME_CHARS:
            self._unlisted.add(host)
        return True

    def _hits(self, all_found: Iterable[Found]) -> tuple[Hit, ...]:
        hits: dict[int, Hit] = {}
        for found in all_found:
            if found.list >= len(self.lists):
                raise ListError(f"{self.path}: damaged: an entry of an unknown list")
            if found.list not in hits:
                hits[found.list] = Hit(self.lists[found.list], found.kind, found.entry)
        return tuple(hits.values())

    def _tags(self, text: str) -> Sequence[int]:
        wanted = int.from_bytes(hash_of(text, self._key), "big")
        # Blocks from `following` on begin with the hash or a later one; those before can only end with it.
        following = bisect_left(self._index, wanted)
        block = max(following - 1, 0)
        if block >= len(self._is_sound):
            return ()
        if not self._is_sound[block]:
            self._touch(block)
        start = block * (BLOCK_BYTES // 8)
        end = start + min(BLOCK_RECORDS, self.records - block * BLOCK_RECORDS)
        place = bisect_left(self._hashes, wanted, start, end)
        in_block = place < end and self._hashes[place] == wanted
        if not in_block and not (block < following < len(self._index) and self._index[following] == wanted):
            return ()
        return self._tags_from(block * BLOCK_RECORDS + place - start, wanted)

    def _tags_from(self, position: int, wanted: int) -> Sequence[int]:
        tags = []
        while position < self.records:
            if position % BLOCK_RECORDS == 0:
                self._touch(position // BLOCK_RECORDS)
            found, tag = self._record(position)
            if found != wanted:
                break
            tags.append(tag)
            position += 1
        return tags

    def _record(self, position: int) -> tuple[int, int]:
        block, place = divmod(position, BLOCK_RECORDS)
        return self._hashes[block * (BLOCK_BYTES // 8) + place], self._tags_of[(block * BLOCK_BYTES + TAGS_AT) // 2 + place]

    def _touch(self, block: int) -> None:
        if not self._is_sound[block]:
            offset = self._header.blocks.offset + block * BLOCK_BYTES
            if not is_block_sound(self._view[offset : offset + BLOCK_BYTES]):
                raise ListError(f"{self.path}: damaged: block {block}")
            self._is_sound[block] = True

    def _section(self, section: Section) -> bytes:
        """A section's bytes; ListError if they are not those that were written. BLOCKS are looked at, not copied."""
        view = self._view[section.offset : section.end]
        if digest_of(view) != section.digest:
            raise ListError(f"{self.path}: damaged: a section's digest is wrong")
        return b"" if section is self._header.blocks else bytes(view)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
