"""What a request asks for, in the one spelling that lists are written in and looked up with.

A server sees the same resource behind many spellings; a list that knows one of them must know them all. So list entries
and requests both go through `normal_path` and `normal_query`, and are compared byte by byte after that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from mamori.inspect.names import host_name

DEFAULT_PORT = 80

UNKNOWN_SERVER = ("", DEFAULT_PORT)

_PATH_SAFE = "/!$&'()*+,;=:@[]|^~-._"
"""What stays as it is in a path: unreserved and sub-delimiters (RFC 3986, section 3.3), and what browsers leave alone."""

_QUERY_SAFE = _PATH_SAFE + "?%"
"""In a query the escapes mean what the application says (`%26` is no `&`), so they are kept, and only their case is evened out.
Those of unreserved characters mean these everywhere (RFC 3986, section 6.2.2.2)."""

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{2,}")
_ESCAPE = re.compile(r"%[0-9a-f]{2}", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")
_PORT = re.compile(r":(\d{0,5})$")


class Url(NamedTuple):
    """`host` is lower-case, without a final dot, IPv6 without brackets in its shortest form; the server's address when the client
    named none, and empty when that is not known either. `path` starts with a slash, or is `*`, or empty for CONNECT. `query`
    has no question mark."""

    host: str
    port: int
    path: str
    query: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"{host}{port}{self.path}" + (f"?{self.query}" if self.query else "")


def parse_authority(text: str) -> tuple[str, int | None]:
    """Host and port of `user@host:port`, of a Host field or a target; None where no port, or no number, is said.

    Everything up to the last `@` is user information, as the URL standard (WHATWG, authority state) reads it.
    """
    text = text.rpartition("@")[2].strip()
    number = _PORT.search(text)
    host = text[: number.start()] if number else text
    port = int(number[1]) if number and number[1] else None
    if host.startswith("[") and "]" in host:
        return _ipv6(host[1 : host.index("]")]), port
    if number and text.count(":") > 1:
        return _ipv6(text), None  # brackets forgotten: the last group is no port
    return host_name(host.encode("latin-1", "replace")), port


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text.partition("%")[0]))
    except AddressValueError:
        return host_name(text.encode("latin-1", "replace"))


def parse_target(method: str, target: str, host_fields: Sequence[str], server: tuple[str, int] = UNKNOWN_SERVER) -> tuple[Url, ...]:
    """Every URL that a server may read, the likeliest first: the target's own host (RFC 9112, section 3.2.2) before those of
    the Host fields, the first of these before the others. All are text in latin-1, as they came. `server` is the address and
    port of the connection, which is what a request without a host is for (RFC 9112, section 3.3)."""
    named = tuple(map(parse_authority, host_fields))
    if method == "CONNECT":
        hosts = dict.fromkeys((parse_authority(target), *named))
        return tuple(Url(*_complete(host, port, server), "", "") for host, port in hosts)
    scheme = _SCHEME.match(target)
    if scheme:
        authority, rest = _split_authority(target[scheme.end() :])
        hosts = dict.fromkeys((parse_authority(authority), *named))
    else:
        rest = target
        hosts = dict.fromkeys(named or (("", None),))
    path, _, query = rest.partition("#")[0].partition("?")
    path, query = normal_path(path), normal_query(query)
    return tuple(dict.fromkeys(Url(*_complete(host, port, server), path, query) for host, port in hosts))


def _complete(host: str, port: int | None, server: tuple[str, int]) -> tuple[str, int]:
    return (host, port or DEFAULT_PORT) if host else (server[0], port or server[1])


def _split_authority(text: str) -> tuple[str, str]:
    end = min((at for at in map(text.find, "/?#\\") if at >= 0), default=len(text))
    return text[:end], text[end:]


def normal_path(path: str) -> str:
    """A path (latin-1 text) with its escapes decoded once, dot segments resolved, runs of slashes merged, as nginx does with
    `merge_slashes`, and then escaped anew where a byte cannot stand for itself. Empty is `/`; `*` stays.

    The order matters: servers decode before they resolve, so `%2e%2e%2f` climbs. What is left of a second layer of
    escapes (`%252e`) is data to a server, and stays `%252e` here.
    """
    if path == "*":
        return path
    plain = unquote_to_bytes(path.encode("latin-1", "replace")).decode("latin-1")
    if "//" in plain:
        plain = _SLASHES.sub("/", plain)
    if "/." in plain or plain.startswith("."):
        plain = _without_dots(plain)
    if not plain.startswith("/"):
        plain = "/" + plain
    return quote(plain.encode("latin-1"), safe=_PATH_SAFE)


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, on decoded text; a climb above the root stays at the root, as in browsers."""
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    folder = segments[-1] in (".", "..") and kept
    return "/" + "/".join(kept) + ("/" if folder else "")


def normal_query(query: str) -> str:
    """A query (latin-1 text) without needless escapes, the others in upper case, and with what cannot stand for itself escaped."""
    if "%" in query:
        query = _ESCAPE.sub(_even_escape, query)
    return quote(query.encode("latin-1", "replace"), safe=_QUERY_SAFE)


def _even_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()
