"""Lines of lists, host names as people write them, and the public suffix list."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.lists.entries import MAX_ENTRY_CHARS, MAX_FOLDER_DEPTH, Entry, EntryError, parse_entry
from mamori.inspect.lists.hosts import a_labels, address_of, parents
from mamori.inspect.lists.source import SYSTEM_SUFFIXES
from mamori.inspect.lists.suffixes import Suffixes, parse_public_suffix_list, parse_rules
from mamori.inspect.names import domain_name
from tests.support.lists import RULES, SUFFIXES
from tests.support.need import need

ENTRIES = {
    "a name": ("example.com", Entry("example.com")),
    "capitals and a final dot": ("WWW.Example.COM.", Entry("www.example.com")),
    "a name alone": ("=example.com", Entry("example.com", is_exact=True)),
    "a single label": ("localhost", Entry("localhost")),
    "underscores and hyphens anywhere": ("_my-.-host_.example", Entry("_my-.-host_.example")),
    "a URL of a start page is that host": ("https://example.com/", Entry("example.com", is_exact=True)),
    "a URL without a path is a name": ("https://example.com", Entry("example.com")),
    "a folder": ("example.com/bad/", Entry("example.com", path="/bad/")),
    "a page": ("example.com/bad.html", Entry("example.com", path="/bad.html")),
    "a page with a query": ("example.com/p?id=%2f", Entry("example.com", path="/p", query="id=%2F")),
    "a start page with a query": ("example.com/?id=7", Entry("example.com", path="/", query="id=7")),
    "a query without a slash": ("example.com?id=7", Entry("example.com", path="/", query="id=7")),
    "an empty query says nothing": ("example.com/p?", Entry("example.com", path="/p")),
    "a page's fragment says nothing": ("example.com/p#top", Entry("example.com", path="/p")),
    "a folder on one host": ("=example.com/bad/", Entry("example.com", path="/bad/", is_exact=True)),
    "dots and escapes in a path": ("example.com/%61/../b//c", Entry("example.com", path="/b/c")),
    "letter case in a path": ("example.com/Bad", Entry("example.com", path="/Bad")),
    "Unicode in a path": ("example.com/あ", Entry("example.com", path="/%E3%81%82")),
    "user information": ("http://bank.example@example.com/bad", Entry("example.com", path="/bad")),
    "a port": ("example.com:8080", Entry("example.com", 8080, "/", is_exact=True)),
    "a port and a folder": ("example.com:8080/bad/", Entry("example.com", 8080, "/bad/")),
    "a port that its scheme has anyway": ("http://example.com:80/bad/", Entry("example.com", path="/bad/")),
    "a port that its scheme has not": ("http://example.com:443/bad/", Entry("example.com", 443, "/bad/")),
    "IPv4": ("192.0.2.1", Entry("192.0.2.1", is_exact=True)),
    "IPv4 in odd numbers": ("0300.0.0x2.1", Entry("192.0.2.1", is_exact=True)),
    "IPv4 in a URL": ("http://192.0.2.1/bad.exe", Entry("192.0.2.1", path="/bad.exe", is_exact=True)),
    "IPv6": ("2001:DB8:0:0::1", Entry("2001:db8::1", is_exact=True)),
    "IPv6 in brackets": ("[2001:db8::1]", Entry("2001:db8::1", is_exact=True)),
    "IPv6 with port and page": ("[2001:db8::1]:81/p", Entry("2001:db8::1", 81, "/p", is_exact=True)),
    "IPv4 inside IPv6": ("[::ffff:192.0.2.1]", Entry("192.0.2.1", is_exact=True)),
    "IDN in Unicode": ("日本語.jp", Entry("xn--wgv71a119e.jp")),
    "IDN as an A-label": ("XN--wgv71a119e.JP", Entry("xn--wgv71a119e.jp")),
    "IDN with other dots and widths": ("ＥＸＡＭＰＬＥ。日本語．jp", Entry("example.xn--wgv71a119e.jp")),
}


@pytest.mark.parametrize(("text", "entry"), ENTRIES.values(), ids=ENTRIES)
def test_a_line_is_an_entry(text: str, entry: Entry) -> None:
    assert parse_entry(text) == entry


NO_ENTRIES = {
    "nothing": "",
    "an equals sign": "=",
    "a wildcard": "*.example.com",
    "white space": "0.0.0.0 example.com",
    "a control character": "exam\0ple.com",
    "an empty label": "a..example.com",
    "a leading dot": ".example.com",
    "a long label": "a" * 64 + ".example",
    "a long name": "a." * 126 + "ab",
    "a long IDN label": "あ" * 60 + ".example",
    "a slash of another width": "example.com／bad",
    "punctuation": "||example.com^",
    "a page of an error": "<html>",
    "a name that ends in a number": "example.123",
    "a number": "12345",
    "no IPv4 address": "256.0.2.1",
    "no IPv6 address": "[2001:db8:::1]",
    "port 0": "example.com:0/",
    "a port too high": "example.com:65536/",
    "a port that is none": "example.com:http/",
    "only a path": "/bad/",
    "a fragment of a start page": "https://example.com/#/bad",
    "too long": "example.com/" + "a" * MAX_ENTRY_CHARS,
    "a folder too deep": "example.com" + "/a" * MAX_FOLDER_DEPTH + "/",
}


@pytest.mark.parametrize("text", NO_ENTRIES.values(), ids=NO_ENTRIES)
def test_a_line_that_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(EntryError):
        parse_entry(text)


@pytest.mark.parametrize(
    "name",
    [
        "日本語.jp",
        "Bücher.example",
        "faß.de",
        "ΣΊΣΥΦΟΣ.gr",
        "ПРИМЕР.рф",
        "ｶﾞｷﾞ.jp",
        "カタカナ・ひらがな.jp",
        "nic\u00ad.あ.jp",
        "한국.kr",
    ],
)
def test_an_idn_is_what_browsers_make_of_it(name: str) -> None:
    assert a_labels(name) == idna.encode(name, uts46=True, transitional=False).decode()


ADDRESSES = {
    "four numbers": ("192.0.2.1", "192.0.2.1"),
    "one number": ("3221225985", "192.0.2.1"),
    "two numbers": ("192.513", "192.0.2.1"),
    "octal and hexadecimal": ("0300.0x0.02.0x1", "192.0.2.1"),
    "nothing after 0x": ("192.0x.2.1", "192.0.2.1"),
    "IPv6": ("2001:db8:0::0:1", "2001:db8::1"),
    "IPv4 inside IPv6": ("::ffff:c000:201", "192.0.2.1"),
    "five numbers": ("1.2.3.4.5", None),
    "a number too high": ("192.0.2.256", None),
    "no octal digit": ("08.0.0.1", None),
    "a name": ("example.com", None),
    "a name that begins with numbers": ("192.0.2.example", None),
    "a reverse name": ("1.2.0.192.in-addr.arpa", None),
    "colons": ("a:b", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("host", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_is_known_however_it_is_written(host: str, address: str | None) -> None:
    assert address_of(host) == address


@given(st.integers(0, 2**32 - 1))
def test_any_ipv4_address_is_itself_and_its_number(number: int) -> None:
    address = str(IPv4Address(number))
    assert address_of(address) == address_of(str(number)) == address_of(hex(number)) == address


PARENTS = {
    "below a name": ("a.b.example.com", 9, ["b.example.com", "example.com"]),
    "as many labels as asked for": ("a.b.c.example.com", 3, ["c.example.com", "example.com"]),
    "two labels": ("example.com", 9, []),
    "nothing": ("", 9, []),
    "an escaped dot is no border": (domain_name((b"a.example", b"com")), 9, []),
    "an escaped backslash before a dot is none of its business": (domain_name((b"a\\", b"example", b"com")), 9, ["example.com"]),
    "an escaped byte": (domain_name((b"\0", b"example", b"com")), 9, ["example.com"]),
    "longer than a name can be": ("a" * 300 + ".b.com", 9, ["b.com"]),
    "a label longer than a name can be": ("a." + "b" * 300 + ".com", 9, []),
}


@pytest.mark.parametrize(("name", "labels", "above"), PARENTS.values(), ids=PARENTS)
def test_the_names_above_a_name_go_up_to_two_labels(name: str, labels: int, above: list[str]) -> None:
    assert list(parents(name, labels)) == above


REGISTRABLE = {
    "com": None,
    "example.com": "example.com",
    "a.b.example.com": "example.com",
    "co.jp": None,
    "example.co.jp": "example.co.jp",
    "www.example.co.jp": "example.co.jp",
    "example.jp": "example.jp",
    "kobe.jp": None,
    "c.kobe.jp": None,
    "b.c.kobe.jp": "b.c.kobe.jp",
    "a.b.c.kobe.jp": "b.c.kobe.jp",
    "city.kobe.jp": "city.kobe.jp",
    "www.city.kobe.jp": "city.kobe.jp",
    "ck": None,
    "test.ck": None,
    "b.test.ck": "b.test.ck",
    "www.ck": "www.ck",
    "www.www.ck": "www.ck",
    "xn--55qx5d.cn": None,
    "a.xn--55qx5d.cn": "a.xn--55qx5d.cn",
    "github.io": None,
    "someone.github.io": "someone.github.io",
    "blogspot.com": None,
    "unknown": None,
    "a.b.unknown": "b.unknown",
    "192.0.2.1": None,
    "2001:db8::1": None,
}


@pytest.mark.parametrize(("name", "registrable"), REGISTRABLE.items(), ids=REGISTRABLE)
def test_a_name_below_a_public_suffix_can_be_registered(name: str, registrable: str | None) -> None:
    assert RULES.registrable(name) == registrable


def test_rules_are_read_back_as_they_are_written() -> None:
    assert parse_rules(RULES.rules()) == RULES
    assert "!city.kobe.jp" in RULES.rules()
    assert "*.kobe.jp" in RULES.rules()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("com\njp\n", id="rules alone"),
        pytest.param(SUFFIXES[: SUFFIXES.index("github.io")], id="cut short"),
        pytest.param(SUFFIXES.replace("co.jp", "co.*.jp"), id="a wildcard inside"),
        pytest.param(SUFFIXES.replace("co.jp", "!"), id="an exception from nothing"),
    ],
)
def test_half_a_public_suffix_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"public suffix list|rule"):
        parse_public_suffix_list(text)


def test_the_whole_public_suffix_list_can_be_read() -> None:
    need(Path(SYSTEM_SUFFIXES).is_file(), "the package publicsuffix is missing")
    rules = parse_public_suffix_list(Path(SYSTEM_SUFFIXES).read_text())
    assert len(rules.rules()) > 9000
    assert all(name in rules for name in ("com", "co.jp", "tokyo.jp", "github.io", "blogspot.com", "bd", "x.bd"))
    assert rules.registrable("www.city.kawasaki.jp") == "city.kawasaki.jp"
    assert "example.com" not in rules


def test_without_rules_a_single_label_is_a_suffix() -> None:
    assert "com" in Suffixes()
    assert "co.jp" not in Suffixes()
