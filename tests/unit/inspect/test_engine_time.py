"""When the engine lets go of flows that are over: not before, and not later than it said that it would look."""

from __future__ import annotations

from mamori.inspect.flow import TIMEOUTS_S, State
from tests.support.conversation import Network


def test_a_flow_is_gone_when_its_time_is_over_and_not_before() -> None:
    network = Network()
    connection = network.connect()
    connection.client(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    connection.server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    network.wait(1)
    assert network.engine.flows == 1
    network.wait(TIMEOUTS_S[State.OPEN] - 3)
    assert network.engine.flows == 1
    network.wait(5)
    assert network.engine.flows == 0


def test_a_flow_that_closes_after_the_last_look_is_gone_in_its_shorter_time() -> None:
    network = Network()
    network.connect().client(b"hello")
    brief = network.connect()
    network.wait(1)
    brief.client(b"hello", fin=True)
    brief.server(b"bye", fin=True)
    network.wait(TIMEOUTS_S[State.CLOSED] - 1)
    assert network.engine.flows == 2
    network.wait(2)
    assert network.engine.flows == 1


def test_the_engine_says_when_it_looks_and_never_that_it_should_have() -> None:
    network = Network()
    assert network.engine.next_deadline() is None
    network.connect().client(b"hello")
    network.engine.on_timer(network.clock)
    deadline = network.engine.next_deadline()
    assert deadline is not None
    assert network.clock < deadline <= network.clock + min(TIMEOUTS_S.values())
