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

MAX_FEED_BYTES = 16 << 20
"""A feed of half a million networks; nft takes a minute for more, and a box of 2 GiB has other use for the memory."""

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
    """The networks of a feed, and how many lines are none that may be blocked."""
    networks, bad = [], 0
    for line in text.splitlines():
        word = line.partition("#")[0].partition(";")[0].strip()
        if not word:
            continue
        network = _network(word)
        if network is None:
            bad += 1
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
    return parse_networks(content.decode(errors="replace"))


def _network(word: str) -> Network | None:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        return None
    first, last = int(network.network_address), int(network.broadcast_address)
    is_ours = any(low <= last and first <= high for low, high in _RANGES[network.version])
    return None if is_ours or network.prefixlen < SHORTEST_PREFIX[network.version] else network
