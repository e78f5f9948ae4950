"""Captures through the engine: JSON lines, whatever the file is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest

import mamori
from mamori.inspect.replay import replay_capture
from mamori.inspect.scan.hashes import compile_hashes
from tests.support.captures import pcap
from tests.support.checkout import ROOT
from tests.support.hellos import python_hello
from tests.support.lists import compiled
from tests.support.talks import OFFICE, OFFICE_MAC, OUTSIDE, START_S, Talk

GET = b"GET /x HTTP/1.1\r\nHost: www.bad.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BLOCK = '[block]\nnames = ["bad.example"]\n'
HELLO_HASH = hashlib.sha256(b"hello").hexdigest()

BLOCKED_LINES = [
    f'{{"kind":"event","at_s":{START_S}.03,"function":"dangerous-site","action":"blocked","heading":"outbound",'
    f'"terminal_mac":"{OFFICE_MAC.hex(":")}","terminal":"{OFFICE}","peer":"{OUTSIDE}","peer_port":80,"protocol":"http",'
    '"subject":"www.bad.example/x","list_name":"own","category":"own","detail":""}',
    '{"kind":"count","function":"dangerous-site","unit":"flow","category":"own","scanned":1,"blocked":1}',
    '{"kind":"count","function":"dangerous-site","unit":"url","category":"","scanned":1,"blocked":0}',
    '{"kind":"summary","packets":7,"events":1,"problem":""}',
]


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The lines that a capture gives, parsed."""

    def replay(capture: bytes, policy: str = "", lists: Path | None = None, hashes: Path | None = None) -> list[dict[str, Any]]:
        (tmp_path / "capture").write_bytes(capture)
        (tmp_path / "policy.toml").write_text(policy)
        return [json.loads(line) for line in replay_capture(tmp_path / "capture", tmp_path / "policy.toml", lists, hashes)]

    return replay


Replay = Callable[..., list[dict[str, Any]]]


def kinds(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


def told(lines: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [(line["function"], line["action"], line["protocol"], line["subject"]) for line in kinds(lines, "event")]


def mamori_(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(mamori.__file__).parents[1])}
    argv = [sys.executable, "-m", "mamori.cli", "inspect", *map(str, arguments)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


VISIT = Talk().tcp(80, ("c", GET), ("s", OK))
CONTAINERS = {
    "pcap": VISIT.pcap(),
    "pcapng": VISIT.pcapng(),
    "pcapng with a VLAN": Talk(((0x8100, 7),)).tcp(80, ("c", GET), ("s", OK)).pcapng(),
    "pcap with two tags": Talk(((0x88A8, 7), (0x8100, 8))).tcp(80, ("c", GET), ("s", OK)).pcap(),
}


@pytest.mark.parametrize("capture", CONTAINERS.values(), ids=CONTAINERS)
def test_a_blocked_visit_is_the_same_lines_in_every_kind_of_capture(tmp_path: Path, capture: bytes) -> None:
    (tmp_path / "capture").write_bytes(capture)
    (tmp_path / "policy.toml").write_text(BLOCK)
    assert list(replay_capture(tmp_path / "capture", tmp_path / "policy.toml")) == BLOCKED_LINES


def test_the_command_prints_these_lines(tmp_path: Path) -> None:
    (tmp_path / "capture").write_bytes(VISIT.pcap())
    (tmp_path / "policy.toml").write_text(BLOCK)
    done = mamori_("--pcap", tmp_path / "capture", "--policy", tmp_path / "policy.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == BLOCKED_LINES


MAIL = (
    ("s", b"220 mx ESMTP\r\n"),
    ("c", b"EHLO pc\r\n"),
    ("s", b"250 mx\r\n"),
    ("c", b"MAIL FROM:<a@example.com>\r\n"),
    ("s", b"250 ok\r\n"),
    ("c", b"RCPT TO:<b@example.com>\r\n"),
    ("s", b"250 ok\r\n"),
    ("c", b"DATA\r\n"),
    ("s", b"354 go on\r\n"),
    (
        "c",
        b"Subject: Offer\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment; filename="offer.bin"\r\n\r\naGVsbG8=\r\n.\r\n',
    ),
    ("s", b"250 ok\r\n"),
)
LISTED = "www.listed.com"
QUESTION = dns.message.make_query(LISTED, "A").to_wire()
TORRENT = b"\x13BitTorrent protocol" + bytes(48)
FUNCTIONS = {
    "a listed name over TLS": (
        Talk().tcp(443, ("c", python_hello(LISTED))),
        "",
        ("dangerous-site", "blocked", "tls", LISTED),
    ),
    "a listed name in DNS": (Talk().udp((5353, 53), QUESTION), "", ("dangerous-site", "logged", "dns", LISTED)),
    "a category": (Talk().tcp(443, ("c", python_hello("casino.com"))), "", ("category", "logged", "tls", "casino.com")),
    "an application": (Talk().tcp(6881, ("c", TORRENT)), "", ("application", "logged", "bittorrent", f"{OUTSIDE}:6881")),
    "a harmful file over HTTP": (VISIT, "", ("virus", "blocked", "http", "www.bad.example/x")),
    "a harmful file in a mail": (
        Talk().tcp(25, *MAIL),
        "",
        ("virus", "blocked", "smtp", 'mail "Offer" offer.bin'),
    ),
    "a request in two readings": (
        Talk().tcp(80, ("c", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n")),
        "",
        ("evasion", "blocked", "http", f"{OUTSIDE}:80"),
    ),
    "a blocked network": (
        Talk().tcp(80, ("c", GET)),
        '[block]\naddresses = ["203.0.113.0/24"]\n',
        ("address", "blocked", "", OUTSIDE),
    ),
}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("lists"), {"phishing": ["listed.com"], "category-gambling": ["casino.com"]})


@pytest.fixture(scope="module")
def hashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hashes") / "hashes"
    compile_hashes([f"{HELLO_HASH}:5:Test.Hello"], path, "test")
    return path


@pytest.mark.parametrize(("talk", "policy", "event"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_function_of_the_service_works_on_a_capture(
    replay: Replay, lists: Path, hashes: Path, talk: Talk, policy: str, event: tuple[str, str, str, str]
) -> None:
    assert event in told(replay(talk.pcap(), policy, lists, hashes))
    assert told(replay_harmless(replay, lists, hashes)) == []


def replay_harmless(replay: Replay, lists: Path, hashes: Path) -> list[dict[str, Any]]:
    harmless = (
        Talk()
        .tcp(80, ("c", GET), ("s", OK.replace(b"hello", b"world")))
        .tcp(443, ("c", python_hello("www.example.com")), source_port=40001)
    )
    return replay(harmless.pcap(), "", lists, hashes)


def test_a_file_is_told_with_its_hash(replay: Replay) -> None:
    (file,) = kinds(replay(VISIT.pcap()), "file")
    assert (file["size_bytes"], file["sha256"], file["signature"]) == (5, HELLO_HASH, "")


def test_a_computer_that_says_its_name_is_told(replay: Replay) -> None:
    request = bytes.fromhex((ROOT / "tests/vectors/terminals/nmbd-registration.hex").read_text())
    talk = Talk().udp((137, 137), request, (OFFICE, "192.168.1.255")).udp((137, 137), request, (OUTSIDE, OFFICE))
    assert kinds(replay(talk.pcap()), "terminal") == [
        {
            "kind": "terminal",
            "at_s": START_S,
            "mac": OFFICE_MAC.hex(":"),
            "address": "192.0.2.17",
            "name": "SATO-PC",
            "source": "netbios",
        }
    ]


def test_who_begins_is_told(replay: Replay) -> None:
    inbound = Talk().tcp(80, ("c", GET), ends=(OUTSIDE, OFFICE))
    (event,) = kinds(replay(inbound.pcap(), BLOCK), "event")
    assert (event["heading"], event["terminal"], event["peer"]) == ("inbound", OFFICE, OUTSIDE)


def test_nothing_off_the_wire_can_break_a_line_or_a_terminal(tmp_path: Path) -> None:
    said = dns.message.Message(id=0)
    said.flags = dns.flags.QR | dns.flags.AA
    said.answer.append(
        dns.rrset.from_text(dns.name.Name(["\u202e\u2028\x9b31m\x1b[2J".encode(), b"local", b""]), 9, "IN", "A", OFFICE)
    )
    (tmp_path / "capture").write_bytes(Talk().udp((5353, 5353), said.to_wire(), (OFFICE, "224.0.0.251")).pcap())
    lines = list(replay_capture(tmp_path / "capture"))
    assert json.loads(lines[0])["name"] == "\u202e\u2028\x9b31m\x1b[2j"
    assert all(character.isprintable() for line in lines for character in line)


def test_packets_that_were_captured_in_part_are_told_as_unseen_and_nothing_else(replay: Replay) -> None:
    long = Talk().tcp(80, ("c", GET), ("s", OK.replace(b"5", b"5000").replace(b"hello", b"x" * 5000)))
    lines = replay(long.pcap(snap_bytes=96))
    assert [event[:2] for event in told(lines)] in ([], [("evasion", "unseen")])
    assert lines[-1]["packets"] == len(long.frames)


def test_a_capture_that_is_cut_off_gives_what_came_before(replay: Replay) -> None:
    lines = replay(VISIT.pcap()[:-100], BLOCK)
    assert told(lines) == [("dangerous-site", "blocked", "http", "www.bad.example/x")]
    assert lines[-1]["problem"] == "a packet that is cut off"


def test_a_clock_that_runs_backwards_stops_nothing(replay: Replay) -> None:
    frames = [(START_S - 1000 * at, 0, frame) for at, frame in enumerate(VISIT.frames)]
    (event,) = kinds(replay(pcap(*frames), BLOCK), "event")
    assert event["at_s"] == START_S


BAD = {
    "garbage": (b"GARBAGE" * 100, "no capture file, neither pcap nor pcapng"),
    "an empty file": (b"", "no capture file, neither pcap nor pcapng"),
    "a header alone": (b"\xa1\xb2\xc3\xd4", "a header that is cut off"),
    "another link type": (pcap(link_type=189), "link type 189, which is not read here"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_what_is_no_capture_is_refused_in_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "capture"
    path.write_bytes(content)
    done = mamori_("--pcap", path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mamori: {path}: {words}\n")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    capture, missing, bad = tmp_path / "capture", tmp_path / "missing", tmp_path / "bad"
    capture.write_bytes(VISIT.pcap())
    bad.write_text('[virus]\nmode = "blok"\nhold = 1\n')
    for arguments, words in (
        (["--pcap", missing], f"mamori: {missing}: cannot be read: No such file or directory\n"),
        (["--pcap", tmp_path], f"mamori: {tmp_path}: cannot be read: Is a directory\n"),
        (["--pcap", capture, "--policy", missing], f"mamori: {missing}: No such file or directory\n"),
        (["--pcap", capture, "--lists", missing], f"mamori: {missing}: cannot be read: No such file or directory\n"),
        (["--pcap", capture, "--hashes", missing], f"mamori: {missing}: No such file or directory\n"),
    ):
        done = mamori_(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", words)
    done = mamori_("--pcap", capture, "--policy", bad)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(": expected")[0] for line in done.stderr.splitlines() if "expected" in line] == [
        f"mamori: {bad}: virus.hold",
        f"{bad}: virus.mode",
    ]


def test_options_of_captures_are_refused_without_one(tmp_path: Path) -> None:
    for arguments in (["--policy", tmp_path], ["--lists", tmp_path], ["--hashes", tmp_path], ["--watch-only", "--pcap", tmp_path]):
        done = mamori_(*arguments)
        assert done.returncode == 2
        assert "--pcap" in done.stderr.splitlines()[-1]


def test_the_help_names_the_options_of_captures() -> None:
    done = mamori_("--help")
    assert done.returncode == 0
    for words in ("--pcap FILE", "with --pcap:", "--policy FILE", "--lists FILE", "--hashes FILE", "mamori lists compile"):
        assert words in done.stdout
