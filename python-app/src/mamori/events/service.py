"""Runs the writer against its socket, the service manager and the journal."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mamori.events.wire import MAX_DATAGRAM_BYTES
from mamori.events.writer import WARNING, Clocks, Writer
from mamori.notify import parse_watchdog, send_notification

MAX_BURST = 64
"""Datagrams taken in before the clock is looked at again."""

MAX_LAST_BURSTS = 64
"""Bursts taken in after SIGTERM: more than any queue of the kernel holds."""

SOCKET_MODE = 0o660
"""The unit's group is that of the inspection: who inspects may send."""


def run_writer(socket_path: Path, database: Path, build_s: float, log: Callable[[int, str], None]) -> None:
    """Write what comes until SIGTERM. `build_s` is when this release was built, `log` takes a syslog level and a line."""
    with _wakeups(signal.SIGTERM) as stop, _bound(socket_path) as receiver:
        writer = Writer(database, build_s, log, _clocks())
        manager = _Manager(log)
        manager.tell("READY=1")
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        poll.register(stop, select.POLLIN)
        try:
            while True:
                deadline = min(writer.next_deadline(), manager.next_deadline())
                ready = [fd for fd, _ in poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))]
                if stop.fileno() in ready:
                    break
                if ready:
                    _take_in(receiver, writer)
                writer.on_timer(_clocks())
                manager.on_timer(time.monotonic(), writer.is_writing)
            # What was sent before the end; senders that go on do not keep the writer alive.
            for _ in range(MAX_LAST_BURSTS):
                if not _take_in(receiver, writer):
                    break
        finally:
            # What was taken in is not lost to a Ctrl-C or a bug.
            writer.close(_clocks())
        manager.tell("STOPPING=1")


def _clocks() -> Clocks:
    return Clocks(time.monotonic(), time.time())


def _take_in(receiver: socket.socket, writer: Writer) -> bool:
    """Take in one burst. Whether there may be more."""
    clocks = _clocks()
    for _ in range(MAX_BURST):
        try:
            # One byte more, so that a datagram that is too large is seen to be so.
            datagram = receiver.recv(MAX_DATAGRAM_BYTES + 1)
        except BlockingIOError:
            return False
        writer.receive(datagram, clocks)
    return True


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """The socket, in the place of one that a killed writer left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(path))
        path.chmod(SOCKET_MODE)
        try:
            yield receiver
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _wakeups(number: signal.Signals) -> Iterator[socket.socket]:
    """A socket that becomes readable when the signal comes, so that one `poll` waits for everything."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.signal(number, lambda *_: None)
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            signal.signal(number, before)


class _Manager:
    """The service manager, which hears each half of its patience that the writer is alive."""

    def __init__(self, log: Callable[[int, str], None]) -> None:
        self._log = log
        self._address = os.environ.get("NOTIFY_SOCKET")
        patience_s = parse_watchdog(os.environ, os.getpid())
        self._every_s = patience_s / 2 if patience_s else math.inf
        self._at = time.monotonic() + self._every_s
        self._was_writing = True

    def next_deadline(self) -> float:
        return self._at

    def on_timer(self, now: float, is_writing: bool) -> None:
        if is_writing != self._was_writing:
            self._was_writing = is_writing
            self.tell("STATUS=" if is_writing else "STATUS=the disk cannot be written, events are kept in memory")
        if now >= self._at:
            self._at = now + self._every_s
            self.tell("WATCHDOG=1")

    def tell(self, message: str) -> None:
        try:
            send_notification(self._address, message)
        except OSError as error:
            self._log(WARNING, f"cannot notify the service manager: {error}")
