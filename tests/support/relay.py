"""A TCP relay on loopback that records both directions of every connection: what an onlooker on the bridge sees."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.support.wait import check_until, patience_s

_SEGMENT_BYTES = 64 << 10


class Side(Enum):
    CLIENT = "client"
    SERVER = "server"


@dataclass
class Recording:
    """One connection: segments in the order in which they passed, and the sides that have ended."""

    segments: list[tuple[Side, bytes]] = field(default_factory=list)
    ended: set[Side] = field(default_factory=set)

    def stream(self, side: Side) -> bytes:
        """All that this side sent."""
        return b"".join(data for sender, data in self.segments if sender is side)


@dataclass
class Relay:
    port: int
    recordings: list[Recording] = field(default_factory=list)

    def take(self) -> list[Recording]:
        """The connections so far, once all of them are over; the relay forgets them."""
        check_until("every connection through the relay has ended", lambda: all(len(one.ended) == 2 for one in self.recordings), 10)
        taken, self.recordings[:] = list(self.recordings), []
        return taken


@contextmanager
def start_relay(server_port: int) -> Iterator[Relay]:
    """Relay from a free port to `server_port`, both on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, server_port, relay), daemon=True).start()
        try:
            yield relay
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server_port: int, relay: Relay) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", server_port), timeout=patience_s(10))
            recording = Recording()
            relay.recordings.append(recording)
            for side, source, target in ((Side.CLIENT, client, server), (Side.SERVER, server, client)):
                threading.Thread(target=_pump, args=(side, source, target, recording), daemon=True).start()


def _pump(side: Side, source: socket.socket, target: socket.socket, recording: Recording) -> None:
    with suppress(OSError):
        while data := source.recv(_SEGMENT_BYTES):
            recording.segments.append((side, data))
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    recording.ended.add(side)
    if len(recording.ended) == 2:
        source.close()
        target.close()
