"""The kernel's own list of packet queues, /proc/net/netfilter/nfnetlink_queue: who has one, what waits, and whether it moves.

A process that listens and never answers is the one failure that no bypass catches until its queue is full: thousands of
packets later, or never, because the connections that fill it stand still. The list shows it (nfnetlink_queue.c, seq_show).
"""

from __future__ import annotations

from dataclasses import dataclass

from mamori.inspect.errors import ParseError

_COLUMNS = 9
_ID_BITS = 32


class TableError(ParseError):
    """This is not the list as the kernel writes it."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue that somebody has. `waiting`: packets without a verdict; `dropped`: packets that did not fit in it; `lost`: that
    did not fit in the listener's socket; `last_id`: the number of the last packet, from 1 on, 32 bits."""

    number: int
    listener: int
    waiting: int
    dropped: int
    lost: int
    last_id: int


def parse_table(text: str) -> tuple[QueueState, ...]:
    """The queues in the list's order. Columns: number, port, waiting, copy mode, copy range, dropped, lost, last number, 1."""
    queues = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != _COLUMNS or not all(word.isascii() and word.isdigit() for word in words):
            raise TableError(f"not a queue: {line[:100]!r}")
        number, listener, waiting, _, _, dropped, lost, last_id, _ = map(int, words)
        queues.append(QueueState(number, listener, waiting, dropped, lost, last_id))
    return tuple(queues)


def is_stuck(before: QueueState, after: QueueState) -> bool:
    """Whether packets waited at both looks and none got a verdict between them: the listener hangs, or was too slow for one packet.

    Look at an interval of seconds, for a verdict takes milliseconds. A new listener is never stuck.
    """
    answered = (after.last_id - after.waiting) - (before.last_id - before.waiting)
    return before.listener == after.listener and before.waiting > 0 < after.waiting and answered % (1 << _ID_BITS) == 0
