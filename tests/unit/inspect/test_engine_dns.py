"""DNS over TCP in the engine: what is asked is judged before a server has it."""

from __future__ import annotations

import pytest

from tests.support.conversation import CLIENT, SERVER, Network

POLICY = """
[dangerous_sites]
dns = "block"
[block]
names = ["bad.example"]
"""


def query(name: bytes) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    message = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("size", [1, 7, None], ids=lambda size: f"in pieces of {size}")
def test_a_question_that_is_to_be_refused_does_not_reach_the_server_whole(size: int | None) -> None:
    network = Network(POLICY)
    connection = network.connect(53)
    connection.client(query(b"www.bad.example"), size)
    for _ in range(5):
        connection.repeat(CLIENT)
    assert len(connection.to_server) < len(query(b"www.bad.example"))
    assert connection.is_reset[SERVER]
    assert network.told == [("dangerous-site", "blocked", "www.bad.example")]


def test_a_question_behind_a_harmless_one_is_judged_too() -> None:
    network = Network(POLICY)
    connection = network.connect(53)
    connection.client(query(b"www.good.example"))
    assert connection.to_server == query(b"www.good.example")
    connection.client(query(b"www.bad.example"))
    assert connection.to_server == query(b"www.good.example")
    assert network.told == [("dangerous-site", "blocked", "www.bad.example")]


def test_without_that_a_question_is_told_and_passes() -> None:
    network = Network(POLICY.replace('block"', 'log"'))
    connection = network.connect(53)
    connection.client(query(b"www.bad.example"))
    assert connection.to_server == query(b"www.bad.example")
    assert network.told == [("dangerous-site", "logged", "www.bad.example")]


def test_a_web_request_to_the_port_of_dns_is_a_web_request() -> None:
    network = Network(POLICY)
    connection = network.connect(53)
    request = b"GET / HTTP/1.1\r\nHost: www.bad.example\r\n\r\n"
    connection.client(request, 1)
    assert len(connection.to_server) < len(request)
    assert network.told == [("dangerous-site", "blocked", "www.bad.example/")]
