"""Addresses in networks, held against the standard library; and that many networks cost no more than one."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network

import pytest

from mamori.inspect.networks import Networks
from tests.support.packets import seeded

NETWORKS = ("192.0.2.1", "192.0.2.128/25", "10.0.0.0/8", "198.51.100.0/31", "2001:db8::/32", "fd00::1", "::/127")
ADDRESSES = {
    "192.0.2.1": True,
    "192.0.2.0": False,
    "192.0.2.127": False,
    "192.0.2.128": True,
    "192.0.2.255": True,
    "9.255.255.255": False,
    "10.255.255.255": True,
    "11.0.0.0": False,
    "198.51.100.1": True,
    "198.51.100.2": False,
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff": False,
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": True,
    "2001:db9::": False,
    "fd00::1": True,
    "fd00::2": False,
    "::1": True,
    "::2": False,
    "::ffff:10.0.0.1": False,
}


@pytest.mark.parametrize(("address", "is_in"), ADDRESSES.items())
def test_an_address_is_in_a_network_or_not(address: str, is_in: bool) -> None:
    assert (ip_address(address).packed in Networks(NETWORKS)) == is_in


def test_the_whole_internet_is_a_network_and_of_one_family_only() -> None:
    everything = Networks(["0.0.0.0/0"])
    assert bytes(4) in everything
    assert b"\xff" * 4 in everything
    assert bytes(16) not in everything


def test_nothing_is_in_no_networks() -> None:
    assert not Networks([])
    assert Networks(["::1"])
    assert bytes(4) not in Networks([])
    assert bytes(16) not in Networks([])


@pytest.mark.parametrize("size", [4, 16], ids=["IPv4", "IPv6"])
def test_random_networks_hold_what_the_standard_library_says(size: int) -> None:
    chance = seeded(7)
    texts = []
    for _ in range(200):
        length = chance.randrange(1, 8 * size + 1)
        texts.append(str(ip_network((chance.randbytes(size), length), strict=False)))
    networks, known = Networks(texts), list(map(ip_network, texts[:40]))
    some = Networks(texts[:40])
    for network in map(ip_network, texts):
        assert network.network_address.packed in networks
        assert network.broadcast_address.packed in networks
    for _ in range(500):
        address = chance.randbytes(size)
        assert (address in some) == any(ip_address(address) in network for network in known)


def test_a_look_up_costs_no_more_with_many_networks() -> None:
    """One by one it would take hours."""
    many = Networks(f"10.{number >> 8}.{number & 255}.0/24" for number in range(65_536))
    began = time.process_time()
    assert not any(bytes([11, 0, number >> 8 & 255, number & 255]) in many for number in range(50_000))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["", "example.com", "10.0.0.1/8", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        Networks([text])
