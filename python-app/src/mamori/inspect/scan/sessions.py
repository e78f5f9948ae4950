"""Sockets to clamd: one connection for each stream, never waited for."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from mamori.inspect.scan.clamd import MAX_ANSWER_BYTES, VERSION, Framing, Version, parse_answer, parse_version, stream_frame
from mamori.inspect.scan.files import Backlog, FileScan
from mamori.inspect.scan.verdicts import Verdict


class Connection:
    """A connection with what came back on it."""

    __slots__ = ("answer", "socket")

    def __init__(self, path: Path) -> None:
        """OSError if nobody listens, or so many wait to be accepted that there is no room (EAGAIN, unix(7))."""
        self.answer = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.connect(os.fspath(path))
        except OSError:
            self.socket.close()
            raise

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> bool:
        """Take what came; whether the answer is complete, or no more of it will come."""
        try:
            while data := self.socket.recv(MAX_ANSWER_BYTES):
                self.answer += data
                if len(self.answer) >= MAX_ANSWER_BYTES or data.endswith((b"\0", b"\n")):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    @property
    def is_closed(self) -> bool:
        return self.socket.fileno() < 0

    def close(self) -> None:
        self.socket.close()


class StreamSession(Connection):
    """One INSTREAM of a file up to `end`; None: to the file's own end, or as far as files are scanned. `is_glance`: it ends there
    whatever comes, and somebody waits for it."""

    __slots__ = ("end", "file", "framing", "is_blocked", "is_glance")

    def __init__(self, path: Path, file: FileScan, end: int | None) -> None:
        super().__init__(path)
        self.file = file
        self.end = end
        self.framing = Framing()
        self.is_blocked = self.is_glance = False

    @property
    def needs(self) -> int:
        """The first byte of the file that it still has to send; beyond all of them if there is none."""
        return self.framing.offset if self.end is None or self.framing.offset < self.end else sys.maxsize

    def send(self, backlog: Backlog, is_last: bool) -> int:
        """As much as the socket takes; how many of the file's bytes those were. OSError if clamd closed."""
        before = self.framing.offset
        self.is_blocked = False
        available = backlog.end if self.end is None else min(self.end, backlog.end)
        while True:
            head, start, end = self.framing.next(available, is_last)
            if not head and start == end:
                break
            with backlog.view(start, end) as data:
                try:
                    sent = self.socket.sendmsg([head, data])
                except BlockingIOError:
                    self.is_blocked = True
                    break
            self.framing.sent(sent)
        return self.framing.offset - before

    def verdict(self) -> Verdict:
        return parse_answer(self.answer)


class ProbeConnection(Connection):
    """One step of a probe. Its question is so short that an empty socket takes it whole."""

    __slots__ = ("deadline", "version")

    def __init__(self, path: Path, content: bytes | None, version: Version | None, deadline: float) -> None:
        """`content` is what to scan; None asks for the version."""
        super().__init__(path)
        self.version = version
        self.deadline = deadline
        try:
            self.socket.sendall(VERSION if content is None else stream_frame(content))
        except OSError:
            self.socket.close()
            raise

    def heard_version(self) -> Version | None:
        return parse_version(self.answer)

    def heard_verdict(self) -> Verdict:
        return parse_answer(self.answer)
