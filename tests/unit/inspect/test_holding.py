"""How much may wait for the scanner, of all connections together."""

from __future__ import annotations

from mamori.inspect.desk import MAX_HELD_BYTES, MAX_HELD_PACKETS
from mamori.inspect.nfqueue.queue import MAX_LENGTH
from tests.support.conversation import CLIENT, Connection, Network

UPLOAD = b"PUT /x HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\n\r\nhello"

NEXT = b"PUT /y HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 1000000\r\n\r\n"


def wait_for_the_scanner(network: Network) -> Connection:
    """A connection with a file that no scanner has judged."""
    network.is_prompt = False
    connection, before = network.connect(), network.held
    connection.client(UPLOAD)
    assert network.held == before + 1
    return connection


def test_tiny_packets_that_wait_do_not_fill_the_queue_of_all_others() -> None:
    network = Network()
    connection = wait_for_the_scanner(network)
    for number in range(2 * MAX_HELD_PACKETS):
        connection.segment(CLIENT, len(UPLOAD) + number, b"x")
        assert network.held <= MAX_HELD_PACKETS + 1
    assert [(event.function.value, event.action.value) for event in network.events] == [("virus", "unseen")]
    assert connection.to_server.startswith(UPLOAD)


def test_half_of_the_queue_is_left() -> None:
    assert MAX_HELD_PACKETS <= MAX_LENGTH // 2


def test_large_packets_that_wait_fill_no_more_memory_than_stated() -> None:
    network = Network()
    connections = [wait_for_the_scanner(network) for _ in range(MAX_HELD_BYTES // 600_000 + 5)]
    for connection in connections:
        connection.client(NEXT)
        for _ in range(10):
            connection.client(b"x" * 60_000)
            assert network.engine.held_bytes <= MAX_HELD_BYTES + 65_535
    assert {event.action.value for event in network.events} == {"unseen"}


def test_what_does_not_wait_any_more_is_not_counted() -> None:
    network = Network()
    for _ in range(3):
        wait_for_the_scanner(network)
    assert network.engine.held_bytes > 3 * len(UPLOAD)
    network.answer_scans()
    assert network.held == 0
    assert network.engine.held_bytes == 0


def test_the_wall_clock_may_jump_while_a_file_waits() -> None:
    """Waiting is by the clock that only goes forward; events are told with the time of the wall."""
    network = Network()
    connection = wait_for_the_scanner(network)
    network.engine.set_wall_offset(-50.0)
    network.wait(4.9)
    assert connection.to_server != UPLOAD
    network.wait(0.2)
    assert connection.to_server == UPLOAD
    assert [event.at_s for event in network.events] == [100.0 + 5.0 - 50.0]
    network.engine.set_wall_offset(4e9)
    wait_for_the_scanner(network)
    network.wait(5.1)
    assert network.held == 0
