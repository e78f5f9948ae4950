"""Which entries match a name or a URL. A table answers with the tags that a text has: a compiled file, or a dict.

Names match with everything below them, so a lookup asks for the name and each of those above it. An entry that is a public
suffix is made an exact one before it is stored, so that the walk up needs no public suffix list and no end but that
of the name: it stops in effect at the registrable domain.

A table holds a host with URLs as a name, too (`HOST_OF_URLS`), so that a request to any other host costs no more than its
name. The texts asked for are `host` and `host:port/path?query`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from mamori.inspect.http_url import Url
from mamori.inspect.lists.entries import MAX_ENTRY_CHARS, Entry
from mamori.inspect.lists.hosts import MAX_NAME_CHARS, address_of, parents
from mamori.inspect.lists.suffixes import Suffixes


class EntryKind(Enum):
    """What matched."""

    NAME = "a name with everything below it"
    EXACT_NAME = "a name alone"
    FOLDER = "everything below a folder"
    PAGE = "a page"
    PAGE_WITH_QUERY = "a page with one query"


class Mark(IntEnum):
    """The lower KIND_BITS of a tag."""

    NAME = 1
    EXACT_NAME = 2
    URL = 3
    EXACT_URL = 4
    HOST_OF_URLS = 5
    HOST_OF_URLS_WITH_PORT = 6


KIND_BITS = 4
MAX_LISTS = 1 << 16 - KIND_BITS
"""A tag has 16 bits: a list's number above a kind."""

Table = Callable[[str], Sequence[int]]
"""The tags of a text; empty if it has none."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """No name entry has more labels, and no folder more segments: where a walk may stop."""

    labels: int = 0
    folders: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of list number `list` that matches; `entry` is its text."""

    list: int
    kind: EntryKind
    entry: str


def narrowed(entry: Entry, suffixes: Suffixes) -> Entry:
    """The entry as it is to be compiled: one whose host is a public suffix means that host alone."""
    if entry.is_exact or entry.host not in suffixes:
        return entry
    return replace(entry, is_exact=True)


def tagged_texts(entry: Entry) -> list[tuple[str, Mark]]:
    """What a table holds for an entry."""
    if not entry.path:
        return [(entry.host, Mark.EXACT_NAME if entry.is_exact else Mark.NAME)]
    text = _authority(entry.host, entry.port) + entry.path + (f"?{entry.query}" if entry.query else "")
    return [
        (text, Mark.EXACT_URL if entry.is_exact else Mark.URL),
        (entry.host, Mark.HOST_OF_URLS if entry.port is None else Mark.HOST_OF_URLS_WITH_PORT),
    ]


def widened(bounds: Bounds, entry: Entry) -> Bounds:
    """The bounds with one more entry."""
    labels = entry.host.count(".") + 1
    folders = entry.path.count("/") if entry.path.endswith("/") and not entry.query else 0
    if labels <= bounds.labels and folders <= bounds.folders:
        return bounds
    return Bounds(max(bounds.labels, labels), max(bounds.folders, folders))


def is_listed(table: Table, bounds: Bounds, host: str) -> bool:
    """Whether the table has the host or one above it: if not, no name and no URL of it can match."""
    return next(_hosts(table, bounds, host), None) is not None


def find_name(table: Table, bounds: Bounds, name: str) -> Iterator[Found]:
    """Entries of names, the most specific first. `name` is as names.host_name writes it."""
    for host, is_itself, tags in _hosts(table, bounds, name):
        yield from _names(host, is_itself, tags)


def find_url(table: Table, bounds: Bounds, url: Url) -> Iterator[Found]:
    """Entries of names and of URLs, the most specific host first."""
    for host, is_itself, tags in _hosts(table, bounds, url.host):
        kinds = {tag & (1 << KIND_BITS) - 1 for tag in tags}
        if Mark.HOST_OF_URLS in kinds:
            yield from _urls(table, bounds, _authority(host, None), is_itself, url)
        if Mark.HOST_OF_URLS_WITH_PORT in kinds:
            yield from _urls(table, bounds, _authority(host, url.port), is_itself, url)
        yield from _names(host, is_itself, tags)


def _hosts(table: Table, bounds: Bounds, name: str) -> Iterator[tuple[str, bool, Sequence[int]]]:
    """The name and those above it, as far as the table has them."""
    name = name.rstrip(".")  # host_name takes one dot away; no resolver minds which
    address = address_of(name)
    if address is not None:
        name = address
    if name and len(name) <= MAX_NAME_CHARS and (tags := table(name)):
        yield name, True, tags
    if address is None:
        for parent in parents(name, bounds.labels):
            if tags := table(parent):
                yield parent, False, tags


def _names(host: str, is_itself: bool, tags: Sequence[int]) -> Iterator[Found]:
    for tag in tags:
        kind = tag & (1 << KIND_BITS) - 1
        if kind == Mark.NAME:
            yield Found(tag >> KIND_BITS, EntryKind.NAME, host)
        elif kind == Mark.EXACT_NAME and is_itself:
            yield Found(tag >> KIND_BITS, EntryKind.EXACT_NAME, host)


def _urls(table: Table, bounds: Bounds, authority: str, is_itself: bool, url: Url) -> Iterator[Found]:
    for path, entry_kind in _paths(url, bounds.folders):
        if len(authority) + len(path) > MAX_ENTRY_CHARS + MAX_NAME_CHARS:
            continue
        for tag in table(authority + path):
            kind = tag & (1 << KIND_BITS) - 1
            if kind == Mark.URL or (kind == Mark.EXACT_URL and is_itself):
                yield Found(tag >> KIND_BITS, entry_kind, authority + path)


def _paths(url: Url, max_folders: int) -> Iterator[tuple[str, EntryKind]]:
    """What an entry may say to match this path and query, the most specific first. CONNECT and `*` name no path: the
    host as a whole is all that can match."""
    path = url.path if url.path.startswith("/") else "/"
    if url.query:
        yield f"{path}?{url.query}", EntryKind.PAGE_WITH_QUERY
    if not path.endswith("/"):
        yield path, EntryKind.PAGE
    ends: list[int] = []
    at = path.find("/")
    while at >= 0 and len(ends) < max_folders:
        ends.append(at + 1)
        at = path.find("/", at + 1)
    for end in reversed(ends):
        yield path[:end], EntryKind.FOLDER


def _authority(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
