"""One spelling for what lists and requests name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.http_url import Url, normal_path, normal_query, parse_authority, parse_target


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("example.com", "example.com", None),
        ("EXAMPLE.Com.", "example.com", None),
        ("example.com:8080", "example.com", 8080),
        ("example.com.:80", "example.com", 80),
        ("example.com:", "example.com", None),
        ("example.com:http", "example.com:http", None),
        ("user:word@example.com:81", "example.com", 81),
        ("a@b@example.com", "example.com", None),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("[2001:DB8:0:0::1]:8080", "2001:db8::1", 8080),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("2001:db8::1", "2001:db8::1", None),
        ("[fe80::1%25eth0]", "fe80::1", None),
        ("[nonsense]:80", "nonsense", 80),
        ("", "", None),
        (" example.com ", "example.com", None),
        ("a b\0", "a\\032b\\000", None),
        ("\xe3\x81\x82.example", "\\227\\129\\130.example", None),
    ],
)
def test_an_authority_is_host_and_port(authority: str, host: str, port: int | None) -> None:
    assert parse_authority(authority) == (host, port)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("", "/"),
        ("*", "*"),
        ("/a", "/a"),
        ("a", "/a"),
        ("/%61%2Fb", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2e/%2E/c", "/c"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/...", "/a/..."),
        ("/.a/..b", "/.a/..b"),
        ("//a///b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/a b\x01", "/a%20b%01"),
        ("/\xe3\x81\x82", "/%E3%81%82"),
        ("/%e3%81%82", "/%E3%81%82"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a%3fb%23c", "/a%3Fb%23c"),
        ("/100%", "/100%25"),
        ("/%zz", "/%25zz"),
    ],
)
def test_a_path_has_one_spelling(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("a=%2f%2F", "a=%2F%2F"),
        ("q=a b", "q=a%20b"),
        ("a=1&b=%26", "a=1&b=%26"),
        ("", ""),
        ("x?y", "x?y"),
        ("\xff", "%FF"),
        ("%71=%62%61%64%2D%7e", "q=bad-~"),
        ("q=%2562", "q=%2562"),
        ("q=%6", "q=%6"),
    ],
)
def test_a_query_keeps_its_meaning(query: str, normal: str) -> None:
    assert normal_query(query) == normal


@pytest.mark.parametrize(
    ("method", "target", "hosts", "shown"),
    [
        pytest.param("GET", "/a?b#c", ["example.com"], ["example.com/a?b"], id="origin form"),
        pytest.param("GET", "/", ["example.com:80"], ["example.com/"], id="the default port is not shown"),
        pytest.param("GET", "/", ["example.com:81"], ["example.com:81/"], id="another port"),
        pytest.param("GET", "/", ["[2001:DB8::1]:81"], ["[2001:db8::1]:81/"], id="IPv6"),
        pytest.param("GET", "http://a.example", ["a.example"], ["a.example/"], id="absolute form without a path"),
        pytest.param("GET", "HTTP://u:p@A.example:80?q", [], ["a.example/?q"], id="absolute form, all of it"),
        pytest.param("GET", "http:///a.example/x", [], ["a.example/x"], id="three slashes, as browsers read them"),
        pytest.param("GET", "http://a.example/x", ["b.example"], ["a.example/x", "b.example/x"], id="two hosts"),
        pytest.param("GET", "/http://a.example/x", ["b.example"], ["b.example/http:/a.example/x"], id="a URL in a path"),
        pytest.param("GET", "/x", [], ["/x"], id="no host"),
        pytest.param("CONNECT", "a.example:443", [], ["a.example:443"], id="CONNECT"),
        pytest.param("OPTIONS", "*", ["a.example"], ["a.example*"], id="asterisk"),
    ],
)
def test_a_target_and_its_hosts_are_urls(method: str, target: str, hosts: list[str], shown: list[str]) -> None:
    assert [str(url) for url in parse_target(method, target, hosts)] == shown


LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
TRICKY = st.lists(st.sampled_from(["/", ".", "..", "%2e", "%2F", "%25", "a", "%", "//", "\xff", "?", " "]), max_size=12).map(
    "".join
)


@given(LATIN | TRICKY)
def test_a_normal_path_is_a_fixed_point_but_for_its_second_layer_of_escapes(path: str) -> None:
    normal = normal_path(path)
    assert normal.isascii()
    assert normal == "*" or normal.startswith("/")
    assert not {"", ".", ".."} & set(normal.split("/")[1:-1])
    if "%25" not in normal:
        assert normal_path(normal) == normal


@given(LATIN, LATIN, st.lists(LATIN, max_size=3))
def test_any_text_is_a_url(method: str, target: str, hosts: list[str]) -> None:
    urls = parse_target(method, target, hosts)
    assert urls
    assert all(isinstance(url, Url) and str(url).isascii() for url in urls)
