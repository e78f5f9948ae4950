"""Requests and hellos that name no host: what is known of them is the server's address, which lists may have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mamori.inspect.blocking import TLS_ACCESS_DENIED
from mamori.inspect.findings import RequestSeen
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.http_url import Url
from mamori.inspect.replay import replay_capture
from mamori.inspect.web_reader import HttpReader
from tests.support.conversation import MARKER, Network
from tests.support.hellos import python_hello, quic_client, sent_by
from tests.support.talks import OFFICE, OUTSIDE, Talk

SERVER = "198.51.100.2"
"""Of tests.support.packets."""

WITHOUT_HOST = {
    "HTTP/1.0": b"GET /bad/x HTTP/1.0\r\n\r\n",
    "HTTP/1.1": b"GET /bad/x HTTP/1.1\r\nUser-Agent: bot\r\n\r\n",
    "an empty Host": b"GET /bad/x HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host of white space": b"GET /bad/x HTTP/1.1\r\nHost: \t \r\n\r\n",
    "a Host that is only a port": b"GET /bad/x HTTP/1.1\r\nHost: :80\r\n\r\n",
    "HTTP/0.9": b"GET /bad/x\r\n",
}

POLICIES = {
    "the address": f'[block]\nnames = ["{SERVER}"]\n',
    "a folder of the address": f'[block]\nurls = ["{SERVER}/bad/"]\n',
    "a page of the address at its port": f'[block]\nurls = ["{SERVER}:80/bad/x"]\n',
}


@pytest.mark.parametrize("request_", WITHOUT_HOST.values(), ids=WITHOUT_HOST)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_request_without_a_host_is_judged_by_the_servers_address(policy: str, request_: bytes) -> None:
    network = Network(policy)
    connection = network.connect()
    connection.client(request_)
    assert connection.to_server == b""
    assert network.told == [("dangerous-site", "blocked", f"{SERVER}/bad/x")]


def test_another_address_than_the_listed_one_is_let_through() -> None:
    network = Network('[block]\nnames = ["198.51.100.3"]\nurls = ["198.51.100.2/good/"]\n')
    connection = network.connect()
    connection.client(WITHOUT_HOST["HTTP/1.0"])
    assert connection.to_server == WITHOUT_HOST["HTTP/1.0"]
    assert network.told == []


def test_an_allowed_address_beats_a_blocked_one() -> None:
    network = Network(f'[block]\nnames = ["{SERVER}"]\n[allow]\nurls = ["{SERVER}/bad/"]\n')
    connection = network.connect()
    connection.client(WITHOUT_HOST["HTTP/1.0"])
    assert connection.to_server == WITHOUT_HOST["HTTP/1.0"]
    assert network.told == [("dangerous-site", "allowed", f"{SERVER}/bad/x")]


def urls_of(request: bytes, server: tuple[str, int]) -> Sequence[Url]:
    (seen,) = (found for found in HttpReader(server=server).receive(ORIGINATOR, request) if isinstance(found, RequestSeen))
    return seen.request.urls


IPV6 = "2001:db8::2"
OF_A_SERVER = {
    "IPv6": (b"GET /x HTTP/1.0\r\n\r\n", (IPV6, 80), "[2001:db8::2]/x"),
    "IPv6 at another port": (b"GET /x HTTP/1.0\r\n\r\n", (IPV6, 8080), "[2001:db8::2]:8080/x"),
    "a port that the client says": (b"GET /x HTTP/1.1\r\nHost: :81\r\n\r\n", (IPV6, 8080), "[2001:db8::2]:81/x"),
    "a tunnel to nowhere": (b"CONNECT : HTTP/1.1\r\n\r\n", (SERVER, 3128), f"{SERVER}:3128"),
    "a host at the default port of another server": (b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", (SERVER, 8080), "a.example/x"),
}


@pytest.mark.parametrize(("request_", "server", "shown"), OF_A_SERVER.values(), ids=OF_A_SERVER)
def test_the_servers_address_stands_for_the_host_that_is_missing(request_: bytes, server: tuple[str, int], shown: str) -> None:
    assert [str(url) for url in urls_of(request_, server)] == [shown]


def test_an_infected_file_without_a_host_is_remembered_for_its_server_alone() -> None:
    network = Network()
    request = b"GET /file HTTP/1.0\r\n\r\n"
    connection = network.connect()
    connection.client(request)
    connection.server(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MARKER), MARKER))
    assert ("virus", "blocked", f"{SERVER}/file") in network.told
    again = network.connect()
    again.client(request)
    assert again.to_client.startswith(b"HTTP/1.1 403 ")
    elsewhere = network.connect(8080)
    elsewhere.client(request)
    assert elsewhere.to_server == request


def test_a_hello_without_a_name_is_judged_by_the_servers_address() -> None:
    hello = python_hello(None)
    network = Network(POLICIES["the address"])
    connection = network.connect(443)
    connection.client(hello)
    assert connection.to_client == TLS_ACCESS_DENIED
    assert network.told == [("dangerous-site", "blocked", f"{SERVER}:443")]
    other = Network('[block]\nnames = ["198.51.100.3"]\n')
    connection = other.connect(443)
    connection.client(hello)
    assert connection.to_server == hello
    assert other.decided


def test_a_quic_hello_without_a_name_is_judged_by_the_servers_address(tmp_path: Path) -> None:
    talk = Talk()
    for datagram in sent_by(quic_client("")):
        talk.udp((50_000, 443), datagram, (OFFICE, OUTSIDE))
    (tmp_path / "capture").write_bytes(talk.pcap())
    for address, blocked in ((OUTSIDE, [f"{OUTSIDE}:443"]), ("203.0.113.6", [])):
        (tmp_path / "policy").write_text(f'[block]\nnames = ["{address}"]\n')
        lines = map(json.loads, replay_capture(tmp_path / "capture", tmp_path / "policy"))
        assert [line["subject"] for line in lines if line.get("action") == "blocked"] == blocked


def test_a_hello_with_a_name_is_judged_by_that_alone() -> None:
    network = Network(POLICIES["the address"])
    connection = network.connect(443)
    connection.client(python_hello("www.example.com"))
    assert network.told == []
    assert network.decided
