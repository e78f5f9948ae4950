"""The kernel's list of packet queues, and what two looks at it tell. The real one is read in tests/net."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mamori.inspect.nfqueue.table import QueueState, TableError, is_stuck, parse_table

TEXT = """\
    0  31621     0 2 65531     0     0       12  1
   16 -12345     7 2 65535     1     2     4711  1
"""
STATE = QueueState(number=16, listener=31621, waiting=7, dropped=1, lost=2, last_id=4711)


def test_a_list_is_its_queues() -> None:
    text = TEXT.replace("-12345", "31621")
    assert parse_table(text) == (QueueState(0, 31621, 0, 0, 0, 12), STATE)
    assert parse_table("") == ()


@pytest.mark.parametrize(
    "text", [TEXT, "1 2 3\n", "a b c d e f g h i\n", "\x00\n", "1 2 3 4 5 6 7 8 9 10\n", "² 2 3 4 5 6 7 8 9\n"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(TableError):
        parse_table(text)


@pytest.mark.parametrize(
    ("changes", "stuck"),
    [
        ({}, True),
        ({"waiting": 9, "last_id": 4713}, True),
        ({"waiting": 7, "last_id": 4712}, False),
        ({"waiting": 6}, False),
        ({"waiting": 0}, False),
        ({"waiting": 7, "listener": 5}, False),
        ({"waiting": 2, "last_id": 0}, False),
    ],
    ids=[
        "nothing moved",
        "more came, none went",
        "one came, one went",
        "one went",
        "all went",
        "a new listener",
        "numbers wrapped",
    ],
)
def test_a_queue_is_stuck_when_packets_wait_and_none_is_answered(changes: dict[str, int], stuck: bool) -> None:
    assert is_stuck(STATE, replace(STATE, **changes)) == stuck


def test_the_numbers_of_packets_wrap_around() -> None:
    before = replace(STATE, waiting=2, last_id=2**32 - 1)
    assert is_stuck(before, replace(STATE, waiting=4, last_id=1))
    assert not is_stuck(before, replace(STATE, waiting=3, last_id=1))
