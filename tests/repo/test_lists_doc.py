"""docs/lists.md agrees with the code: its example compiles, its entries match what it says, its limits are those of the code."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from mamori.inspect import address_feeds
from mamori.inspect.http_url import DEFAULT_PORT, Url
from mamori.inspect.lists import compile as compiler
from mamori.inspect.lists import matching
from mamori.inspect.lists.compile import compile_lists
from mamori.inspect.lists.entries import parse_address
from mamori.inspect.lists.listfile import ListFile, ListKind
from mamori.inspect.lists.matcher import EntryMatcher
from mamori.inspect.scan import hashes
from mamori.inspect.suricata import ruleset, supply
from mamori.paths import Device
from tests.support.checkout import ROOT
from tests.support.lists import RULES, SUFFIXES

TEXT = (ROOT / "docs/lists.md").read_text()
ROWS = re.findall(r"^\| (`[^`|]+`) \| (`.*`) \| (`.*`) \|$", TEXT, re.MULTILINE)
EXAMPLE = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def matches(entry: str, site: str) -> bool:
    """Whether a list with this entry has the site: a name as TLS and DNS know it, or a URL of HTTP."""
    matcher, address = EntryMatcher((), (entry,), RULES), parse_address(site)
    if not address.path and address.port is None:
        return matcher.matches_name(address.host)
    return matcher.matches_url(Url(address.host, address.port or DEFAULT_PORT, address.path or "/", address.query))


@pytest.mark.parametrize(("entry", "hits", "misses"), ROWS, ids=[row[0] for row in ROWS])
def test_an_entry_matches_what_the_document_says_and_not_what_it_says_it_does_not(entry: str, hits: str, misses: str) -> None:
    def names(cell: str) -> list[str]:
        return re.findall(r"`([^`]+)`", cell)

    (text,) = names(entry)
    assert {site: matches(text, site) for site in (*names(hits), *names(misses))} == {
        **dict.fromkeys(names(hits), True),
        **dict.fromkeys(names(misses), False),
    }


def test_the_document_has_the_entries_and_an_example() -> None:
    assert (len(ROWS), len(EXAMPLE)) == (11, 1)


def test_the_example_of_a_source_compiles(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "lists.toml").write_text(EXAMPLE[0])
    (tmp_path / "public_suffix_list.dat").write_text(SUFFIXES)
    for name in ("phishing.txt", "gambling.txt", "own/gambling.txt"):
        (tmp_path / name).write_text(f"{sha256(name.encode()).hexdigest()[:8]}.example # one\n")
    compile_lists(tmp_path, tmp_path / "out.mlf")
    with ListFile.open(tmp_path / "out.mlf") as lists:
        assert [(info.key, info.kind, info.category) for info in lists.lists] == [
            ("phishing", ListKind.DANGEROUS, ""),
            ("gambling-owner", ListKind.CATEGORY, "gambling"),
        ]
        assert lists.records == 3


def test_the_example_of_a_hash_is_an_entry() -> None:
    (line,) = re.findall(r"^[0-9a-f]{64}:.*$", TEXT, re.MULTILINE)
    assert hashes.parse_hashes([line], "the example") == [(sha256(b"hello\n").digest(), 6, "Example.Hello")]


def test_the_paths_are_those_of_the_appliance() -> None:
    device = Device()
    paths = (device.lists, device.address_feeds / "*.txt", device.hash_list, device.rule_folders[1] / "*.rules")
    assert re.findall(r"^\| `(/data/feeds/[^`]+)` \|", TEXT, re.MULTILINE) == [str(path) for path in paths]


@pytest.mark.parametrize(
    "sentence",
    [
        f"more than {compiler.MAX_BAD_PERCENT} line in 100",
        f"At most {compiler.MAX_RECORDS:,} records, and {matching.MAX_LISTS:,} lists",
        f"larger than a /{address_feeds.SHORTEST_PREFIX[4]} (IPv6: /{address_feeds.SHORTEST_PREFIX[6]})",
        f"A file of more than {address_feeds.MAX_FEED_BYTES >> 20} MiB is refused",
        f"more than {address_feeds.MAX_WRONG_LINES:,} such lines",
        f"the first {address_feeds.MAX_NETWORKS:,} networks count",
        f"At most {hashes.MAX_ENTRIES:,} entries",
        f"files of at most {supply.MAX_FEED_BYTES >> 20} MiB",
        "up to a tenth" if ruleset.MAX_REFUSED_SHARE == 0.1 else "another share",
    ],
)
def test_a_number_of_the_document_is_that_of_the_code(sentence: str) -> None:
    assert sentence in " ".join(TEXT.split())
