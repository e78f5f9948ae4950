"""Suricata's records as events. The records are ones that Suricata 7.0.10 wrote, with other addresses."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Event, Function, Heading
from mamori.inspect.suricata.config import home_networks
from mamori.inspect.suricata.eve import MAX_RECORD_BYTES, EveError, event_of, parse_record

RECORD = {
    "timestamp": "2026-11-23T18:20:18.482113+0900",
    "flow_id": 662780673290541,
    "event_type": "alert",
    "src_ip": "198.51.100.2",
    "src_port": 80,
    "dest_ip": "10.79.0.1",
    "dest_port": 39010,
    "proto": "TCP",
    "pkt_src": "wire/pcap",
    "tx_id": 0,
    "alert": {
        "action": "blocked",
        "gid": 1,
        "signature_id": 9000002,
        "rev": 3,
        "signature": "own drop",
        "category": "A Network Trojan was detected",
        "severity": 1,
        "metadata": {"signature_severity": ["Major"]},
    },
    "http": {"hostname": "www.example.com", "url": "/bad?x=1", "http_method": "GET", "protocol": "HTTP/1.1", "length": 0},
    "app_proto": "http",
    "direction": "to_client",
    "flow": {
        "pkts_toserver": 2,
        "start": "2026-11-23T18:20:18.481995+0900",
        "src_ip": "10.79.0.1",
        "dest_ip": "198.51.100.2",
        "src_port": 39010,
        "dest_port": 80,
    },
}
HOME = home_networks([ip_network("2001:db8:1::/64")])


def event(**changes: object) -> Event:
    alert = parse_record(json.dumps({**RECORD, **changes}).encode())
    assert alert is not None
    return event_of(alert, HOME)


def ends(client: str, server: str) -> dict[str, object]:
    return {"src_ip": client, "src_port": 1000, "dest_ip": server, "dest_port": 25}


def test_an_alert_on_an_answer_is_told_from_the_view_of_the_pc_that_asked() -> None:
    assert event() == Event(
        at_s=1795425618.482113,
        function=Function.IPS,
        action=Action.BLOCKED,
        heading=Heading.OUTBOUND,
        terminal_mac="",
        terminal="10.79.0.1",
        peer="198.51.100.2",
        peer_port=80,
        protocol="http",
        subject="http://www.example.com/bad?x=1",
        list_name="signature 9000002:3",
        category="A Network Trojan was detected",
        detail="own drop (severity 1)",
    )


@pytest.mark.parametrize(
    ("client", "server", "heading", "terminal", "peer", "peer_port"),
    [
        ("198.51.100.2", "192.168.1.5", Heading.INBOUND, "192.168.1.5", "198.51.100.2", 1000),
        ("192.168.1.5", "198.51.100.2", Heading.OUTBOUND, "192.168.1.5", "198.51.100.2", 25),
        ("2001:db8:1::5", "2001:db8:2::1", Heading.OUTBOUND, "2001:db8:1::5", "2001:db8:2::1", 25),
        ("2001:db8:2::1", "2001:db8:1::5", Heading.INBOUND, "2001:db8:1::5", "2001:db8:2::1", 1000),
        ("192.168.1.5", "10.0.0.1", Heading.NONE, "192.168.1.5", "10.0.0.1", 25),
        ("198.51.100.2", "203.0.113.1", Heading.NONE, "198.51.100.2", "203.0.113.1", 25),
    ],
    ids=["from outside", "from a PC", "from a PC, public IPv6", "from outside, public IPv6", "within the office", "both unknown"],
)
def test_who_began_tells_the_heading(client: str, server: str, heading: Heading, terminal: str, peer: str, peer_port: int) -> None:
    got = event(flow=ends(client, server))
    assert (got.heading, got.terminal, got.peer, got.peer_port) == (heading, terminal, peer, peer_port)


def test_without_a_flow_the_packets_ends_count() -> None:
    got = event(flow=None)
    assert (got.heading, got.terminal, got.peer, got.peer_port) == (Heading.INBOUND, "10.79.0.1", "198.51.100.2", 80)


def test_an_alert_that_is_not_blocked_is_logged() -> None:
    assert event(alert={**RECORD["alert"], "action": "allowed"}).action is Action.LOGGED  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "protocol", "subject"),
    [
        ({"http": {"hostname": "h", "url": "http://h/x"}}, "http", "http://h/x"),
        ({"http": {"url": "/x"}}, "http", "/x"),
        ({"http": None, "tls": {"sni": "a.example"}, "app_proto": "tls"}, "tls", "a.example"),
        ({"http": None, "quic": {"sni": "q.example"}, "app_proto": "quic"}, "quic", "q.example"),
        ({"http": None, "dns": {"query": [{"type": "query", "rrname": "d.example"}]}, "app_proto": "dns"}, "dns", "d.example"),
        ({"http": None, "dns": {"query": {"rrname": "d.example"}}, "app_proto": "dns"}, "dns", "d.example"),
        ({"http": None, "dns": {"query": []}, "app_proto": "dns"}, "dns", ""),
        ({"http": None, "fileinfo": {"filename": "a.exe"}, "app_proto": "smb"}, "smb", "a.exe"),
        ({"http": None, "app_proto": "failed"}, "tcp", ""),
        ({"http": None, "app_proto": None, "proto": "IPv6-ICMP"}, "ipv6-icmp", ""),
        ({"http": ["x"], "app_proto": 5}, "tcp", ""),
    ],
    ids=["absolute URL", "no host", "TLS", "QUIC", "DNS", "DNS of version 8", "DNS, empty", "file", "unknown", "ICMP", "odd types"],
)
def test_the_subject_is_what_the_connection_was_about(changes: dict[str, object], protocol: str, subject: str) -> None:
    got = event(**changes)
    assert (got.protocol, got.subject) == (protocol, subject)


def test_what_is_long_is_cut_and_half_a_surrogate_can_be_stored() -> None:
    long = event(http={"hostname": "h", "url": "/" + "x" * 5000})
    assert len(long.subject) == MAX_SUBJECT_CHARACTERS
    assert long.subject.endswith("…")
    assert event(http={"url": "/\ud800"}).subject == "/?"


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "yesterday"},
        {"timestamp": 5},
        {"timestamp": "2026-11-23T18:20:18.482113"},
        {"flow": {"src_ip": "x", "dest_ip": "10.0.0.1"}},
        {"flow": None, "src_ip": 7},
        {"flow": {**ends("10.0.0.1", "10.0.0.2"), "dest_port": 65536}},
        {"flow": {**ends("10.0.0.1", "10.0.0.2"), "src_port": "80"}},
        {"alert": {"signature_id": -1}},
        {"alert": {"signature_id": True}},
        {"alert": {"severity": [[]]}},
        {"flow_id": 1e300},
    ],
)
def test_a_record_with_a_wrong_value_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(EveError):
        parse_record(json.dumps({**RECORD, **changes}).encode())


@pytest.mark.parametrize("type_", ["flow", "anomaly", "stats", "drop", ""])
def test_a_record_of_another_type_is_nothing_and_no_error(type_: str) -> None:
    assert parse_record(json.dumps({"event_type": type_}).encode()) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b'{"event_type":1}',
        b'{"event_type":"alert"}',
        b"\xff",
        b"[" * 60_000,
        b'{"event_type":"alert","alert":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b'{"a":' + b"9" * 5000 + b"}",
        b" " * (MAX_RECORD_BYTES + 1),
    ],
    ids=["nothing", "a list", "a number", "odd type", "empty", "no UTF-8", "deep", "deep objects", "a long number", "too long"],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(EveError):
        parse_record(line)
