"""A file whose time is over when a packet comes, before the timer: it gets what the policy says, not what waits with it."""

from __future__ import annotations

import pytest

from tests.support.conversation import CLIENT, SERVER, Network

FILE = b"x" * 3000
PUT = b"PUT /file HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 3000\r\n\r\n"


@pytest.mark.parametrize("unseen", ["block", "pass"])
def test_a_repetition_after_the_time_is_over_does_not_let_the_end_of_a_file_out_unjudged(unseen: str) -> None:
    network = Network(f'[virus]\nhold_ms = 100\nunseen = "{unseen}"\n', scan=None)
    connection = network.connect()
    connection.client(PUT + FILE, 1000)
    assert network.held, "the end waits for the scanner"
    network.clock += 0.2
    connection.repeat(CLIENT)
    network.wait(1.0)
    assert (connection.to_server == PUT + FILE) == (unseen == "pass")
    assert connection.is_reset[SERVER] == (unseen == "block")
    assert network.told == [("virus", "blocked" if unseen == "block" else "unseen", "www.example.com/file")]
