"""How supervisor and worker know of each other: a pair of sockets, of which the worker's end is its standard input.

The worker says how it is, and hears by the end of the line that its supervisor is gone. A file on /run would be full when that
is; and the number of the parent says nothing to a worker whose parent was gone before it asked for the first time: it would
keep its packet queue for ever, and the next generation would never get it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from typing import Any

MAX_REPORT_BYTES = 64 << 10
"""A report is 1 KB, and longer by what is wrong with the policy: a thousand errors. Of a longer one only its coming counts."""

MAX_WAITING = 1000
"""Reports taken in one look. The kernel keeps some hundred, for a supervisor that was stopped."""


class SupervisorEnd:
    """The supervisor's end. `worker_end` is for the worker's standard input, and is closed here once that has it."""

    def __init__(self) -> None:
        self._ours, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def take_report(self) -> dict[str, Any] | None:
        """The last report since this was asked before, {} if it cannot be read; None if there was none: only then is the worker
        silent."""
        last = b""
        for _ in range(MAX_WAITING):
            try:
                datagram = self._ours.recv(MAX_REPORT_BYTES)
            except OSError:  # nothing more waits, or the worker ended with our words unread
                break
            if not datagram:
                break
            last = datagram
        if not last:
            return None
        try:
            report = json.loads(last)
        except (ValueError, RecursionError):
            return {}
        return report if isinstance(report, dict) else {}

    def close(self) -> None:
        self._ours.close()
        self.worker_end.close()


class WorkerEnd:
    """The worker's end. Readable (`fileno`) when the supervisor is gone."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, report: dict[str, Any]) -> None:
        """Never blocks, never fails: a supervisor that does not listen for a while misses what does not fit."""
        datagram = json.dumps(report).encode()
        with contextlib.suppress(OSError):
            self._socket.send(datagram if len(datagram) <= MAX_REPORT_BYTES else b"{}")

    def close(self) -> None:
        self._socket.close()


def open_worker_end() -> WorkerEnd | None:
    """That of this process; None for a worker that was started by hand."""
    try:
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            return None
        return WorkerEnd(os.dup(0))
    except OSError:
        return None
