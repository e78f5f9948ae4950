"""Whether an address is in one of many networks: asked for each packet, so it costs a look-up for each length of prefix, however
many networks there are."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network


class Networks:
    """Networks as people write them (`192.0.2.1`, `2001:db8::/32`); ValueError for what is none."""

    __slots__ = ("_ipv4", "_ipv6")

    def __init__(self, networks: Iterable[str]) -> None:
        kinds: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for text in networks:
            network = ip_network(text)
            shift = network.max_prefixlen - network.prefixlen
            kinds[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)
        # How many bits of an address are not the network's, and what the other bits may be.
        self._ipv4, self._ipv6 = (tuple(kind.items()) for kind in kinds.values())

    def __bool__(self) -> bool:
        return bool(self._ipv4 or self._ipv6)

    def __contains__(self, address: bytes) -> bool:
        """An address is 4 or 16 bytes, as in a packet."""
        prefixes = self._ipv4 if len(address) == 4 else self._ipv6
        if not prefixes:
            return False
        number = int.from_bytes(address, "big")
        return any(number >> shift in starts for shift, starts in prefixes)
