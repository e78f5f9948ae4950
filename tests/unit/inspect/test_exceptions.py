"""What the owner exempts passes in every function: a computer, whom it talks to, a site. Captures through the engine (replay.py).

Netfilter's part is in tests/net/test_floods.py and test_nfqueue_rules.py, the signatures' in test_suricata_rules.py.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import dns.message
import pytest

from mamori.inspect.replay import replay_capture
from mamori.inspect.scan.hashes import compile_hashes
from tests.support.hellos import python_hello, quic_client, sent_by
from tests.support.lists import compiled
from tests.support.talks import Talk

OFFICE, OUTSIDE = ("192.168.1.10", "fd00::10"), ("203.0.113.5", "2001:db8::5")
SITE = "www.listed.com"
GET = f"GET /x HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ALL_BLOCK = """
[dangerous_sites]
dns = "block"
[categories]
mode = "block"
[applications]
mode = "block"
"""


def with_length(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


QUESTION = dns.message.make_query(SITE, "A").to_wire()
MAIL = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n.\r\n"

FUNCTIONS = {
    "a dangerous site over HTTP": ("dangerous-site", [("tcp", 80, [("c", GET)])], ""),
    "a dangerous site over TLS": ("dangerous-site", [("tcp", 443, [("c", python_hello(SITE))])], ""),
    "a dangerous site over QUIC": ("dangerous-site", [("udp", 443, sent_by(quic_client(SITE)))], ""),
    "a dangerous site in DNS": ("dangerous-site", [("udp", 53, [QUESTION])], ""),
    "a dangerous site in DNS over TCP": ("dangerous-site", [("tcp", 53, [("c", with_length(QUESTION))])], ""),
    "the owner's own list": (
        "dangerous-site",
        [("tcp", 80, [("c", GET.replace(b"listed", b"own"))])],
        '[block]\nnames = ["own.com"]',
    ),
    "a category": ("category", [("tcp", 443, [("c", python_hello("casino.com"))])], ""),
    "an application by its name": ("application", [("tcp", 443, [("c", python_hello("www.dropbox.com"))])], ""),
    "an application by its bytes": ("application", [("tcp", 6881, [("c", b"\x13BitTorrent protocol" + bytes(48))])], ""),
    "a virus over HTTP": ("virus", [("tcp", 80, [("c", GET.replace(b"listed", b"clean")), ("s", OK)])], ""),
    "a virus in a mail": (
        "virus",
        [
            (
                "tcp",
                25,
                [
                    ("s", b"220 mx\r\n"),
                    ("c", b"EHLO pc\r\n"),
                    ("s", b"250 mx\r\n"),
                    ("c", b"MAIL FROM:<a@b.com>\r\n"),
                    ("s", b"250 ok\r\n"),
                    ("c", b"RCPT TO:<c@d.com>\r\n"),
                    ("s", b"250 ok\r\n"),
                    ("c", b"DATA\r\n"),
                    ("s", b"354 go on\r\n"),
                    ("c", MAIL),
                ],
            )
        ],
        "",
    ),
    "smuggling": ("evasion", [("tcp", 80, [("c", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n")])], ""),
    "a blocked network": (
        "address",
        [("tcp", 80, [("c", GET)])],
        '[block]\naddresses = ["203.0.113.0/24", "2001:db8::/32"]',
    ),
}

ADDRESSES = {
    "the computer": OFFICE,
    "the computer's network": ("192.168.0.0/16", "fd00::/8"),
    "whom it talks to": OUTSIDE,
    "everybody outside": ("203.0.113.0/24", "2001:db8::/32"),
}

SITES = {
    "a dangerous site over HTTP": ["names = ['listed.com']", f"names = ['{SITE}']", f"urls = ['{SITE}/x']", f"urls = ['{SITE}/']"],
    "a dangerous site over TLS": ["names = ['listed.com']", f"names = ['{SITE.upper()}']"],
    "a dangerous site over QUIC": ["names = ['listed.com']"],
    "a dangerous site in DNS": ["names = ['listed.com']"],
    "a dangerous site in DNS over TCP": ["names = ['listed.com']"],
    "the owner's own list": ["names = ['www.own.com']", "urls = ['own.com/x']"],
    "a category": ["names = ['casino.com']"],
    "an application by its name": ["names = ['dropbox.com']"],
}


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("feeds")
    compile_hashes([f"{hashlib.sha256(b'hello').hexdigest()}:5:Test.Hello"], folder / "hashes", "test")
    return compiled(folder, {"phishing": ["listed.com"], "category-gambling": ["casino.com"]}), folder / "hashes"


def blocked(folder: Path, feeds: tuple[Path, Path], case: str, family: int, allow: str) -> set[str]:
    """The functions that block something of the case's traffic, when the policy allows this."""
    _, flows, policy = FUNCTIONS[case]
    talk, ends = Talk(office=OFFICE[family]), (OFFICE[family], OUTSIDE[family])
    for protocol, port, said in flows:
        if protocol == "tcp":
            talk.tcp(port, *said, ends=ends)  # type: ignore[arg-type]
        else:
            for datagram in said:
                talk.udp((50_000, port), datagram, ends)  # type: ignore[arg-type]
    (folder / "capture").write_bytes(talk.pcap())
    (folder / "policy").write_text(f"{ALL_BLOCK}{policy}\n[allow]\n{allow}\n")
    lines = map(json.loads, replay_capture(folder / "capture", folder / "policy", *feeds))
    return {line["function"] for line in lines if line.get("action") == "blocked"}


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_every_function_blocks_and_leaves_exempted_addresses_alone(
    tmp_path: Path, feeds: tuple[Path, Path], case: str, family: int
) -> None:
    function = FUNCTIONS[case][0]
    assert function in blocked(tmp_path, feeds, case, family, "")
    for addresses in ADDRESSES.values():
        assert blocked(tmp_path, feeds, case, family, f'addresses = ["{addresses[family]}"]') == set()
    assert function in blocked(tmp_path, feeds, case, family, 'addresses = ["198.51.100.1", "2001:db9::/127"]')


@pytest.mark.parametrize(("case", "allow"), [(case, allow) for case, allows in SITES.items() for allow in allows])
def test_an_allowed_site_beats_every_list(tmp_path: Path, feeds: tuple[Path, Path], case: str, allow: str) -> None:
    assert blocked(tmp_path, feeds, case, 0, allow) == set()


@pytest.mark.parametrize("case", SITES)
def test_another_allowed_site_changes_nothing(tmp_path: Path, feeds: tuple[Path, Path], case: str) -> None:
    allow = "names = ['example.com', 'isted.com', 'ww.own.com']\nurls = ['example.com/', 'www.own.com/y', 'www.listed.com/y/']"
    assert blocked(tmp_path, feeds, case, 0, allow) == {FUNCTIONS[case][0]}


def test_files_of_an_allowed_site_are_scanned_all_the_same(tmp_path: Path, feeds: tuple[Path, Path]) -> None:
    """To allow a site is to say that it is no dangerous one, and not that nobody has broken into it."""
    assert blocked(tmp_path, feeds, "a virus over HTTP", 0, "names = ['clean.com']") == {"virus"}
