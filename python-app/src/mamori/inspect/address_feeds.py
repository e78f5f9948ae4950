"""Feeds of known-bad networks: text files with an address or a network on a line; `#` and `;` begin a comment.

What a feed says is believed but for what would take the office offline. Public feeds do hold such lines: some have all networks
that nobody on the internet may use, private ones among them, and a stray `0.0.0.0/0` happens. The owner's own
`block.addresses` do not come through here.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from mamori.formats.problems import MamoriError

Network = IPv4Network | IPv6Network

MAX_NETWORKS = 100_000
"""Of all feeds. nft takes 160 MB for them while it loads them, and the supervisor does nothing else for some seconds; of half a
million it is 760 MB, and both would be ended for it, again and again. The large public lists have 20,000."""

MAX_FEED_BYTES = 4 << 20
"""So many lines of the longest kind."""

MAX_WRONG_LINES = 10_000
"""A file with more of them is no feed, and not worth the time."""

SHORTEST_PREFIX = {4: 8, 6: 16}
"""Of a network that is blocked, by IP version. Larger ones are registries', not somebody's: a feed that has one is mistaken."""

_OURS = tuple(
    map(
        ip_network,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
            *("100.64.0.0/10", "169.254.0.0/16"),  # RFC 6598: the provider's side of a router; RFC 3927
            *("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"),  # RFC 1122: a PC that has no address yet asks for one from 0.0.0.0
            *("::/16", "fc00::/7", "fe80::/10", "ff00::/8"),  # RFC 4291, 4193
        ),
    )
)
"""What no feed may block: the office's own, and what is no host on the internet."""

_RANGES = {
    version: tuple((int(each.network_address), int(each.broadcast_address)) for each in _OURS if each.version == version)
    for version in (4, 6)
}


def parse_networks(text: str) -> tuple[list[Network], int]:
    """The networks of a feed, and how many lines are none that may be blocked; MamoriError if those are too many."""
    networks, bad = [], 0
    for line in text.splitlines():
        word = line.partition("#")[0].partition(";")[0].strip()
        if not word:
            continue
        network = _network(word)
        if network is None:
            bad += 1
            if bad > MAX_WRONG_LINES:
                raise MamoriError(f"expected a network on each line, got {bad} other lines")
        else:
            networks.append(network)
    return networks, bad


def read_networks(path: Path) -> tuple[list[Network], int]:
    """The same of a file. OSError as for any file; MamoriError for one beyond MAX_FEED_BYTES: its last line, cut off, could be a
    network a thousand times as large."""
    with path.open("rb") as file:
        content = file.read(MAX_FEED_BYTES + 1)
    if len(content) > MAX_FEED_BYTES:
        raise MamoriError(f"{path}: expected at most {MAX_FEED_BYTES} bytes, got more; nothing of it is blocked")
    try:
        return parse_networks(content.decode(errors="replace"))
    except MamoriError as error:
        raise MamoriError(f"{path}: {error}; nothing of it is blocked") from None


def _network(word: str) -> Network | None:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        return None
    # Not its broadcast_address, which it would remember: half a kilobyte.
    first = int(network.network_address)
    last = first | (1 << network.max_prefixlen - network.prefixlen) - 1
    is_ours = any(low <= last and first <= high for low, high in _RANGES[network.version])
    return None if is_ours or network.prefixlen < SHORTEST_PREFIX[network.version] else network
