"""What a line of a list means, and how people's names and URLs are read.

    example.com               the name and everything below it
    =example.com              only that name
    example.com/              that host as a whole, like `=example.com`: a URL names one host
    example.com/bad/          everything below that folder, by HTTP; on every host below example.com, too
    example.com/bad.html      that page, with any query or none
    example.com/page?id=7     that page with that query
    =example.com/bad/         on that host only
    example.com:8080/bad/     on that port only; without one, on any
    192.0.2.1, [2001:db8::1]  addresses are hosts without anything below them

A scheme (`https://`) is left out, with its default port. IDN may be Unicode or A-labels. Paths and queries are compared in
the spelling of http_url.normal_path and normal_query, letter case included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mamori.inspect.http_url import normal_path, normal_query, parse_authority
from mamori.inspect.lists.hosts import a_labels, address_of, ends_in_number, is_host_name

MAX_ENTRY_CHARS = 2048
"""A host, path and query. Longer ones exist, but no two requests have the same."""

MAX_FOLDER_DEPTH = 32
"""Segments of a folder entry. A lookup tries every folder of a request's path up to here."""

_SCHEME = re.compile(r"(https?|ftp|wss?)://", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443, "ftp": 21}
_PLAIN_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}")
"""Most lines of most lists, which need no further look."""

_NEVER = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HOST_END = re.compile(r"[/?#\\]")


class EntryError(ValueError):
    """A line that is no entry: what was expected, and what was there."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Entry:
    """`path` is empty for an entry of a name, which has neither port nor query. `is_exact`: not below `host`."""

    host: str
    port: int | None = None
    path: str = ""
    query: str = ""
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """What people call a site: a host, or with `path` a URL. A port is None if it is not said, or the scheme's own."""

    host: str
    port: int | None
    path: str
    query: str
    has_fragment: bool


def parse_entry(text: str) -> Entry:
    """One entry, without comment or white space around it; EntryError if it is none."""
    if len(text) <= 253 and _PLAIN_NAME.fullmatch(text):
        return Entry(text)
    address = parse_address(text.removeprefix("="))
    is_exact = text.startswith("=") or address_of(address.host) is not None
    if not address.path and address.port is None:
        return Entry(address.host, is_exact=is_exact)
    path = address.path or "/"
    if path == "/" and not address.query:
        if address.has_fragment:
            raise EntryError("a page", "a fragment of the start page, which no server is told")
        if address.port is None:
            return Entry(address.host, is_exact=True)
        is_exact = True
    if path.endswith("/") and path.count("/") > MAX_FOLDER_DEPTH:
        raise EntryError(f"a folder at most {MAX_FOLDER_DEPTH} deep", f"{path.count('/')}")
    return Entry(address.host, address.port, path, address.query, is_exact)


def parse_address(text: str) -> Address:
    """A host name or a URL as people write it; EntryError if it is none."""
    if len(text) > MAX_ENTRY_CHARS:
        raise EntryError(f"at most {MAX_ENTRY_CHARS} characters", f"{len(text)}")
    if not text or _NEVER.search(text):
        raise EntryError("a name or a URL", "nothing" if not text else "white space or a control character inside")
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    end = _HOST_END.search(rest)
    authority = rest[: end.start()] if end else rest
    host, port = _host_and_port(authority)
    if scheme and port == _DEFAULT_PORTS[scheme[1].lower()]:
        port = None
    tail, hash_sign, _ = rest[len(authority) :].partition("#")
    path, _, query = tail.encode("utf-8", "replace").decode("latin-1").partition("?")
    if tail:
        path = normal_path(path)
    return Address(host, port, path, normal_query(query), bool(hash_sign))


def _host_and_port(authority: str) -> tuple[str, int | None]:
    try:
        host, port = parse_authority(a_labels(authority))
    except ValueError as error:
        raise EntryError("a host name", str(error)) from None
    if port is not None and not 1 <= port <= 65535:
        raise EntryError("a port from 1 to 65535", f"{port}")
    address = address_of(host)
    if address is not None and (":" in host or host.count(".") == 3):  # `12345` alone is more likely damage than an address
        return address, port
    if not is_host_name(host) or ends_in_number(host):
        hint = " (a name has no wildcard: `example.com` means everything below it)" if host.startswith("*.") else ""
        raise EntryError(f"a host name or an address{hint}", repr(host[:80]))
    return host, port
