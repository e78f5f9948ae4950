"""How whoever inspects tells: never waits, never fails, and says how much of it was lost.

    sender = EventSender(device.events_socket)      # one for each process, made after the fork
    sender.send(event)                              # now, or soon if the writer is busy
    sender.count(Function.VIRUS, "file", mac, address, "", scanned=1, blocked=0)
    sender.flush(now)                               # when next_deadline() has come; monotonic seconds

Linux never drops a datagram between two Unix sockets: a full queue (net.unix.max_dgram_qlen, 10 unless the init raises it) or a
writer that is away is an error of this end, so nothing is lost that is not counted here. What could not be sent waits in a
bounded buffer. What does not fit is dropped, and the number goes out before the next record that gets through, as an event of
Function.SYSTEM with the category LOST_RECORDS. Counts are sums and cannot overflow: they wait until they can be sent.

A datagram is sent to the path, not through a connection, so a writer that has restarted gets the next one.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections import deque
from pathlib import Path

from mamori.events.record import Count, Event, Function, Record, own_event
from mamori.events.wire import MAX_COUNTED, MAX_DATAGRAM_BYTES, encode_record, join_records

MAX_WAITING_BYTES = 512 * 1024
"""Encoded records that wait for the writer, in one process: a thousand, some seconds of an outbreak."""

MAX_COUNTERS = 4096
"""Sums kept between two flushes. Forged addresses can make any number; the rest is counted without terminal and category."""

FLUSH_EVERY_S = 1.0
"""Counts are sent at most so often."""

RETRY_EVERY_S = 0.1
"""Records that wait are tried again so often: a busy writer takes in all that its queue holds in a few milliseconds."""

RETRY_EVERY_RECORDS = 32
"""And after so many more, between two flushes: a burst must not find the buffer full while the writer is idle again."""

LOST_RECORDS = "lost-records"
"""The category of the event that says how many records were lost."""

_SEND_BUFFER_BYTES = 1024 * 1024
"""Between Unix sockets the sender's buffer is what limits the bytes on their way; SO_RCVBUF has no effect (unix(7))."""

_Counter = tuple[Function, str, str, str, str]


def lost_records(at_s: float, number: int, where: str) -> Event:
    """The event that says that `number` records were lost; `where` is one line."""
    return own_event(at_s, LOST_RECORDS, f"{number} records were lost", where)


class EventSender:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_held_up = False
        self._counters: dict[_Counter, list[int]] = {}
        self._counts_at = 0.0
        self._retry_at = 0.0
        self.lost = 0
        """Records dropped and not yet reported."""

    def send(self, record: Record) -> None:
        """Send a record, or keep it for a moment. Never blocks, never raises."""
        self._keep(encode_record(record))
        if not self._is_held_up or len(self._waiting) % RETRY_EVERY_RECORDS == 0:
            self._send_waiting()

    def count(
        self, function: Function, unit: str, terminal_mac: str, terminal: str, category: str, scanned: int, blocked: int
    ) -> None:
        """Add to a sum that the next flush sends."""
        key = function, unit, terminal_mac, terminal, category
        sums = self._counters.get(key)
        if sums is None:
            if len(self._counters) >= MAX_COUNTERS:
                key = function, unit, "", "", ""
            sums = self._counters.setdefault(key, [0, 0])
        sums[0] += scanned
        sums[1] += blocked

    def next_deadline(self) -> float:
        """When `flush` has something to do, in monotonic seconds; infinity if nothing waits."""
        counts_at = self._counts_at if self._counters and not self._waiting else math.inf
        retry_at = self._retry_at if self._waiting or self.lost else math.inf
        return min(counts_at, retry_at)

    def flush(self, now: float) -> None:
        """Send what waits, and the counts if they are due. May be called at any time."""
        if (self._waiting or self.lost) and now >= self._retry_at:
            self._retry_at = now + RETRY_EVERY_S
            self._send_waiting()
        if self._counters and not self._waiting and now >= self._counts_at:
            self._counts_at = now + FLUSH_EVERY_S
            self._send_counts()

    def close(self) -> None:
        """Send what can be sent at once, and let go of the socket."""
        self._send_waiting()
        self._send_counts()
        if self._socket:
            self._socket.close()
            self._socket = None

    def _send_counts(self) -> None:
        """In as many datagrams as they fill; those that cannot go stay sums."""
        at_s = time.time()
        while self._counters and not self._waiting:
            taken, parts, size = [], [], 2
            for key, (scanned, blocked) in self._counters.items():
                part = encode_record(Count(at_s, *key, min(scanned, MAX_COUNTED), min(blocked, MAX_COUNTED)))
                size += len(part) + 1
                if size > MAX_DATAGRAM_BYTES:
                    break
                taken.append(key)
                parts.append(part)
            if not self._send(join_records(parts)):
                return
            for key in taken:
                del self._counters[key]

    def _keep(self, part: bytes) -> None:
        if self._waiting_bytes + len(part) > MAX_WAITING_BYTES:
            self.lost += 1
            return
        self._waiting.append(part)
        self._waiting_bytes += len(part)

    def _send_waiting(self) -> None:
        while self._waiting or self.lost:
            # Room is left for the array's brackets; what was lost comes first, for it was lost before what is sent now.
            parts, size = [], 2
            if self.lost:
                parts.append(encode_record(lost_records(time.time(), self.lost, f"process {os.getpid()} could not send them")))
                size += len(parts[0]) + 1
            taken = 0
            for part in self._waiting:
                size += len(part) + 1
                if size > MAX_DATAGRAM_BYTES:
                    break
                parts.append(part)
                taken += 1
            if not self._send(join_records(parts)):
                return
            self.lost = 0
            for _ in range(taken):
                self._waiting_bytes -= len(self._waiting.popleft())

    def _send(self, datagram: bytes) -> bool:
        """Whether it went. Only a datagram that could never go is given up: it would stop all others for ever."""
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                self._is_held_up = True
                return False
            self.lost += datagram.count(b'{"kind":')
        self._is_held_up = False
        return True
