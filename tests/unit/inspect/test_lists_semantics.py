"""What an entry matches: the same from a compiled file and from memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from mamori.inspect.http_url import Url, parse_target
from mamori.inspect.lists.entries import parse_entry
from mamori.inspect.lists.listfile import ListFile
from mamori.inspect.lists.matcher import EntryMatcher
from mamori.inspect.lists.matching import Bounds, EntryKind, Mark, find_url, widened
from mamori.inspect.names import domain_name, host_name
from tests.support.lists import RULES, compiled

Matches = Callable[[str], bool]


def url_of(text: str, method: str = "GET") -> Url:
    """What a client that is given `text` asks for."""
    host, slash, path = text.partition("/")
    return parse_target(method, slash + path or "/", [host])[0]


NAMES = {
    "itself": ("example.com", "example.com", True),
    "below": ("example.com", "a.b.example.com", True),
    "above": ("www.example.com", "example.com", False),
    "beside": ("www.example.com", "mail.example.com", False),
    "a name that only ends alike": ("example.com", "badexample.com", False),
    "a name that only begins alike": ("example.com", "example.com.net", False),
    "exact, itself": ("=example.com", "example.com", True),
    "exact, below": ("=example.com", "www.example.com", False),
    "a public suffix itself": ("github.io", "github.io", True),
    "a public suffix takes nobody along": ("github.io", "someone.github.io", False),
    "a top-level domain takes nobody along": ("jp", "example.jp", False),
    "a second-level suffix takes nobody along": ("co.jp", "example.co.jp", False),
    "below a wildcard rule": ("test.ck", "a.test.ck", False),
    "above a wildcard rule": ("kobe.jp", "b.c.kobe.jp", False),
    "an exception to a wildcard rule": ("www.ck", "a.www.ck", True),
    "a user of a public suffix": ("someone.github.io", "www.someone.github.io", True),
    "below an unknown top-level domain": ("example.unknown", "www.example.unknown", True),
    "an address": ("192.0.2.1", "192.0.2.1", True),
    "an address written otherwise": ("192.0.2.1", "0xc0000201", True),
    "nothing is below an address": ("192.0.2.1", "a.192.0.2.1", False),
    "an IPv6 address": ("2001:db8::1", "2001:db8::1", True),
    "a start page's URL is that host": ("http://example.com/", "example.com", True),
    "a start page's URL is only that host": ("http://example.com/", "www.example.com", False),
    "a page says nothing of its host": ("example.com/bad", "example.com", False),
    "a port says nothing of its host": ("example.com:8080", "example.com", False),
    "too many final dots": ("example.com", "example.com..", True),
    "only dots": ("example.com", "...", False),
    "nothing": ("example.com", "", False),
    "escaped bytes below": ("example.com", host_name(b"\0\xff.example.com"), True),
    "a dot inside a label is no border": ("example.com", domain_name((b"www.example", b"com")), False),
    "IDN": ("日本語.jp", "www.xn--wgv71a119e.jp", True),
    "deeper than any entry": ("example.com", "a." * 120 + "example.com", True),
    "a long name below": ("example.com", "a" * 60_000 + ".example.com", True),
    "what a URL's text is": ("example.com/bad/", "example.com/bad/", False),
}


def from_file(tmp_path: Path, entry: str) -> ListFile:
    return ListFile.open(compiled(tmp_path, {"one": [entry]}))


@pytest.mark.parametrize(("entry", "name", "is_match"), NAMES.values(), ids=NAMES)
def test_an_entry_matches_names(tmp_path: Path, entry: str, name: str, is_match: bool) -> None:
    with from_file(tmp_path, entry) as lists:
        assert bool(lists.lookup_name(name)) is is_match
        assert bool(lists.lookup_url(Url(name, 80, "/", ""))) >= is_match
    assert EntryMatcher([entry], [], RULES).matches_name(name) is is_match


URLS = {
    "a name matches its URLs": ("example.com", "www.example.com/any?q", True),
    "a folder itself": ("example.com/bad/", "example.com/bad/", True),
    "below a folder": ("example.com/bad/", "example.com/bad/worse/page?q", True),
    "a folder's name without its slash": ("example.com/bad/", "example.com/bad", False),
    "a folder that only begins alike": ("example.com/bad/", "example.com/badder/", False),
    "a folder with a query": ("example.com/bad/", "example.com/bad/?q", True),
    "another host's folder": ("example.com/bad/", "example.net/bad/", False),
    "a folder of a host below": ("example.com/bad/", "www.example.com/bad/x", True),
    "a folder of a host above": ("www.example.com/bad/", "example.com/bad/x", False),
    "a folder on one host, below": ("=example.com/bad/", "www.example.com/bad/x", False),
    "a folder on one host, itself": ("=example.com/bad/", "example.com/bad/x", True),
    "a folder below a public suffix": ("github.io/bad/", "someone.github.io/bad/", False),
    "a folder of a public suffix": ("github.io/bad/", "github.io/bad/", True),
    "a page": ("example.com/bad.html", "example.com/bad.html", True),
    "a page with a query added": ("example.com/bad.html", "example.com/bad.html?utm=1", True),
    "a page's name as a folder": ("example.com/bad.html", "example.com/bad.html/x", False),
    "a page that only begins alike": ("example.com/bad", "example.com/bad.html", False),
    "a query": ("example.com/p?id=7", "example.com/p?id=7", True),
    "another query": ("example.com/p?id=7", "example.com/p?id=8", False),
    "a query with more behind it": ("example.com/p?id=7", "example.com/p?id=7&x", False),
    "no query": ("example.com/p?id=7", "example.com/p", False),
    "the start page's query": ("example.com/?id=7", "example.com/?id=7", True),
    "the start page without its query": ("example.com/?id=7", "example.com/", False),
    "a folder's query": ("example.com/bad/?id=7", "example.com/bad/?id=7", True),
    "a folder's query is no folder": ("example.com/bad/?id=7", "example.com/bad/x", False),
    "escapes in the request": ("example.com/bad/", "example.com/%62%61d/x", True),
    "escapes in the entry": ("example.com/%62ad/", "example.com/bad/x", True),
    "dot segments in the request": ("example.com/bad/", "example.com/good/../bad/x", True),
    "climbing out of a folder": ("example.com/bad/", "example.com/bad/../good", False),
    "runs of slashes": ("example.com/bad/", "example.com//bad//x", True),
    "letter case of a path": ("example.com/bad/", "example.com/BAD/", False),
    "letter case of a host": ("example.com/bad/", "EXAMPLE.com./bad/", True),
    "any port": ("example.com/bad/", "example.com:8080/bad/", True),
    "its port": ("example.com:8080/bad/", "example.com:8080/bad/", True),
    "another port": ("example.com:8080/bad/", "example.com:8081/bad/", False),
    "no port": ("example.com:8080/bad/", "example.com/bad/", False),
    "the default port": ("example.com:80/bad/", "example.com/bad/", True),
    "all of a port": ("example.com:8080", "example.com:8080/any", True),
    "all of a port, below": ("example.com:8080", "www.example.com:8080/any", False),
    "a URL with an address": ("192.0.2.1/bad.exe", "192.0.2.1/bad.exe", True),
    "a URL with an IPv6 address": ("[2001:db8::1]:81/p", "[2001:DB8:0::1]:81/p", True),
    "a start page's URL is all of that host": ("http://example.com/", "example.com/any", True),
    "user information in the entry": ("http://a@example.com/bad", "example.com/bad", True),
    "no host": ("example.com/bad/", "/bad/", False),
    "a deep path": ("example.com/bad/", "example.com/bad" + "/a" * 20_000, True),
    "a long segment": ("example.com/bad/", "example.com/bad/" + "a" * 60_000, True),
}


@pytest.mark.parametrize(("entry", "url", "is_match"), URLS.values(), ids=URLS)
def test_an_entry_matches_urls(tmp_path: Path, entry: str, url: str, is_match: bool) -> None:
    with from_file(tmp_path, entry) as lists:
        assert bool(lists.lookup_url(url_of(url))) is is_match
    assert EntryMatcher([], [entry], RULES).matches_url(url_of(url)) is is_match


def test_connect_names_no_path_so_only_its_host_and_port_can_match(tmp_path: Path) -> None:
    for lists in (from_file(tmp_path, "example.com:8443"), EntryMatcher([], ["example.com:8443"], RULES)):
        matches = lists.matches_url if isinstance(lists, EntryMatcher) else lists.lookup_url
        assert matches(parse_target("CONNECT", "example.com:8443", [])[0])
        assert not matches(parse_target("CONNECT", "example.com:443", [])[0])
        assert matches(parse_target("OPTIONS", "*", ["example.com:8443"])[0])


def test_all_lists_that_have_it_answer_once_with_their_most_specific_entry(tmp_path: Path) -> None:
    file = compiled(
        tmp_path,
        {
            "phishing": ["example.com", "www.example.com", "www.example.com/bad/", "www.example.com/bad/page"],
            "category-games": ["=www.example.com"],
            "malware": ["elsewhere.com"],
        },
    )
    with ListFile.open(file) as lists:
        hits = lists.lookup_url(url_of("www.example.com/bad/page?q"))
        names = lists.lookup_name("www.example.com")
    assert [(hit.list.key, hit.entry_kind, hit.entry) for hit in hits] == [
        ("phishing", EntryKind.PAGE, "www.example.com/bad/page"),
        ("category-games", EntryKind.EXACT_NAME, "www.example.com"),
    ]
    assert [(hit.list.key, hit.entry_kind) for hit in names] == [
        ("phishing", EntryKind.NAME),
        ("category-games", EntryKind.EXACT_NAME),
    ]
    assert (names[1].list.category, names[1].list.kind.value) == ("games", "category")
    assert (names[0].list.label_ja, names[0].list.label_en) == ("表示 phishing", "Label phishing")


KINDS = {
    "example.com/bad/": ("example.com/bad/", EntryKind.FOLDER),
    "example.com/bad/page?q": ("example.com/bad/page?q", EntryKind.PAGE_WITH_QUERY),
    "example.com/bad/page": ("example.com/bad/page", EntryKind.PAGE),
    "example.com/bad/other": ("example.com/bad/", EntryKind.FOLDER),
    "example.com/other": ("example.com", EntryKind.NAME),
    "[2001:DB8::1]:81/p": ("[2001:db8::1]:81/p", EntryKind.PAGE),
}


@pytest.mark.parametrize(("url", "told"), KINDS.items(), ids=KINDS)
def test_a_hit_tells_the_entry_and_its_kind(tmp_path: Path, url: str, told: tuple[str, EntryKind]) -> None:
    with ListFile.open(compiled(tmp_path, {"one": [entry for entry, _ in KINDS.values()]})) as lists:
        assert [(hit.entry, hit.entry_kind) for hit in lists.lookup_url(url_of(url))] == [told]


HOSTILE = {
    "dots": Url("a." * 30_000 + "example.com", 80, "/", ""),
    "only dots": Url("." * 60_000, 80, "/", ""),
    "backslashes": Url("\\" * 60_000 + ".\\.example.com", 80, "/", ""),
    "digits": Url("1" * 60_000, 80, "/", ""),
    "colons": Url(":" * 60_000, 80, "/", ""),
    "folders": Url("example.com", 80, "/a" * 30_000, "q"),
    "slashes": Url("example.com", 80, "/" * 60_000, "q"),
    "a query": Url("example.com", 80, "/", "q" * 60_000),
}


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_url_asks_no_more_of_a_table_than_another(url: Url) -> None:
    asked: list[str] = []

    def table(text: str) -> tuple[int, ...]:
        asked.append(text)
        return (Mark.HOST_OF_URLS, Mark.HOST_OF_URLS_WITH_PORT) if text.endswith("example.com") else ()

    bounds = widened(widened(Bounds(), parse_entry("a.b.example.com")), parse_entry("example.com/a/b/"))
    assert bounds == Bounds(4, 3)
    assert list(find_url(table, bounds, url)) == []
    assert len(asked) <= 4 + 3 * 2 * 5
    assert sum(map(len, asked)) < 20_000


def test_the_owner_s_entries_take_users_of_a_suffix_along_unless_the_suffixes_are_given() -> None:
    assert EntryMatcher(["github.io"], []).matches_name("someone.github.io")
    assert not EntryMatcher(["github.io"], [], RULES).matches_name("someone.github.io")
    assert not EntryMatcher(["io"], []).matches_name("github.io")


def test_no_entries_match_nothing() -> None:
    matcher = EntryMatcher([], [])
    assert not matcher.matches_name("example.com")
    assert not matcher.matches_url(url_of("example.com/"))


def test_every_entry_of_an_owner_that_is_none_is_told() -> None:
    with pytest.raises(BadInputError) as caught:
        EntryMatcher(["example.com", "*.example.com"], ["example.com:0/x"], source="policy.toml")
    assert [(problem.source, problem.key) for problem in caught.value.problems] == [
        ("policy.toml", "names[1]"),
        ("policy.toml", "urls[0]"),
    ]
