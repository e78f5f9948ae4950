"""What the inspection engine wants done: verdicts on packets, files to scan, things to tell.

On the data path, so NamedTuples (see nfqueue/messages.py). A token is whatever the caller gave with the packet; each token gets
exactly one verdict, at once or later: a packet without one is held.
"""

from __future__ import annotations

from typing import NamedTuple

from mamori.events.record import Event, Function, TerminalSeen


class Accept(NamedTuple):
    """Let it pass. `is_decided`: the whole connection is, so the kernel need not ask again. `wants_signatures`: the signature
    engine is to see it first, if there is one."""

    token: int
    is_decided: bool
    wants_signatures: bool


class Drop(NamedTuple):
    """Nobody gets it."""

    token: int


class Replace(NamedTuple):
    """Let this packet pass in its place: IP header first, checksums as nfqueue/checksum.py wants them."""

    token: int
    payload: bytes


class BeginScan(NamedTuple):
    """A file begins; `file` is a number that no other file of this engine has. `expected_bytes` is what its sender says of its
    length, None if nothing."""

    file: int
    expected_bytes: int | None


class FeedScan(NamedTuple):
    """Its next bytes. A memoryview lives as long as the packet that was given to the engine: copy or send it at once."""

    file: int
    data: bytes | memoryview


class FinishScan(NamedTuple):
    """It is complete: the engine waits for `Engine.scanned`."""

    file: int


class GlanceScan(NamedTuple):
    """It pauses: what came of it is to be looked at by itself, as far as that can be done. The engine waits for `Engine.scanned` if
    something is found, else for `Engine.lagging` with False."""

    file: int


class CancelScan(NamedTuple):
    """Nobody waits for it any more."""

    file: int


class Tell(NamedTuple):
    """Something happened."""

    record: Event | TerminalSeen


class Tally(NamedTuple):
    """So much was looked at and stopped, for the statistics."""

    function: Function
    unit: str
    terminal_mac: str
    terminal: str
    category: str
    scanned: int
    blocked: int


Command = Accept | Drop | Replace | BeginScan | FeedScan | FinishScan | GlanceScan | CancelScan | Tell | Tally
