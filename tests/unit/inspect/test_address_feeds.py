"""Feeds of known-bad networks: what they may say, and that none of them takes the office offline."""

from __future__ import annotations

import time
import tracemalloc
from ipaddress import ip_network
from pathlib import Path

import pytest

from mamori.formats.problems import MamoriError
from mamori.inspect.address_feeds import MAX_FEED_BYTES, MAX_NETWORKS, MAX_WRONG_LINES, parse_networks, read_networks
from mamori.inspect.nfqueue.rules import render_known_bad


def test_a_feed_of_networks_is_read_line_by_line() -> None:
    networks, bad = parse_networks("192.0.2.0/24 # test\r\n\n; comment\n198.51.100.7/24\n2001:db8::/32\nnonsense\n203.0.113.5")
    assert list(map(str, networks)) == ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32", "203.0.113.5/32"]
    assert bad == 1


OUTAGES = {
    "everything": ("0.0.0.0/0", "::/0"),
    "half of everything": ("128.0.0.0/1",),
    "more than anybody has": ("8.0.0.0/7", "2400::/12"),
    "the office": ("192.168.1.0/24", "10.1.2.3", "172.16.0.0/12", "fd00:1::/32", "fe80::1"),
    "a network around the office's": ("172.0.0.0/8", "192.0.0.0/8", "192.128.0.0/9"),
    "the provider's side of the router": ("100.64.0.1",),
    "who has no address yet": ("0.0.0.0/32", "::"),
    "broadcast and groups": ("255.255.255.255", "224.0.0.251", "ff02::fb"),
    "the box itself": ("127.0.0.1", "::1"),
}


@pytest.mark.parametrize("lines", OUTAGES.values(), ids=OUTAGES)
def test_what_would_take_the_office_offline_is_left_out_and_counted(lines: tuple[str, ...]) -> None:
    networks, bad = parse_networks("\n".join((*lines, "203.0.113.0/24")))
    assert list(map(str, networks)) == ["203.0.113.0/24"]
    assert bad == len(lines)


def test_the_largest_and_the_smallest_networks_that_somebody_has_are_taken() -> None:
    said = ["44.0.0.0/8", "100.128.0.0/9", "172.32.0.0/11", "203.0.113.255/32", "2a00::/16", "2001:db8::1/128"]
    assert parse_networks("\n".join(said)) == ([*map(ip_network, said)], 0)


def test_a_feed_that_is_too_long_is_refused_whole(tmp_path: Path) -> None:
    path, line = tmp_path / "feed.txt", b"\n203.0.113.128/25"
    path.write_bytes(b"#" * (MAX_FEED_BYTES - len(line)) + line)
    networks, bad = read_networks(path)
    assert (list(map(str, networks)), bad) == (["203.0.113.128/25"], 0)
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(MamoriError, match=r"feed.txt: expected at most 4194304 bytes"):
        read_networks(path)


def test_bytes_that_are_no_text_are_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "feed.txt"
    path.write_bytes(b"\xff\xfe\n203.0.113.1\n\0\n")
    networks, bad = read_networks(path)
    assert (list(map(str, networks)), bad) == (["203.0.113.1/32"], 2)


def test_a_file_that_is_no_feed_is_refused_before_it_has_taken_long(tmp_path: Path) -> None:
    path = tmp_path / "feed.txt"
    path.write_bytes(b"203.0.113.1\n" + b"x\n" * MAX_WRONG_LINES)
    assert read_networks(path)[1] == MAX_WRONG_LINES
    path.write_bytes(b"x\n" * (MAX_FEED_BYTES // 2))
    began = time.process_time()
    with pytest.raises(MamoriError, match=r"feed.txt: expected a network on each line, got 10001 other lines"):
        read_networks(path)
    assert time.process_time() - began < 5


def test_as_many_networks_as_may_be_take_no_more_memory_than_the_box_has() -> None:
    """The supervisor shares 512 MB with its workers and with nft, which takes 160 MB for as many."""
    tenth, first = MAX_NETWORKS // 10, 11 << 16
    text = "\n".join(f"{number >> 16}.{number >> 8 & 255}.{number & 255}.1" for number in range(first, first + tenth))
    tracemalloc.start(1)
    networks, _ = parse_networks(text)
    rules = render_known_bad(networks)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rules.count("/32") == tenth
    assert 10 * peak_bytes < 100 << 20
