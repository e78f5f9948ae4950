"""FTP's data connections: one file from the first byte to FIN (RFC 959, section 3.4.1, mode S)."""

from __future__ import annotations

from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    DataConnectionExpected,
    FileData,
    FileEnded,
    FileStarted,
    FileUnseen,
    Finding,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER


def data_sender(expected: DataConnectionExpected) -> int | None:
    """Who sends the file, in directions of the data connection: its originator is whoever does not listen."""
    if expected.sender is None:
        return None
    return RESPONDER if expected.sender == expected.listener else ORIGINATOR


class FtpDataReader:
    """Reads a data connection; see `findings.Reader`. Directions are those of this connection, not of the control connection.

    The file is the sender's. What the other side sends is told as an anomaly, and as a file all the same: the control connection
    may have been misread, and then it is the one that counts. Without a sender either side's bytes are the file.
    """

    __slots__ = ("_at", "_coding", "_ended", "_files", "_name", "_sender", "_started")

    def __init__(
        self, name: str = "", sender: int | None = None, starts: tuple[int, int] = (0, 0), coding: Coding = Coding.BINARY
    ) -> None:
        """`name` is the path; `sender` see `data_sender`; `coding` that of FtpReader at this time."""
        self._name, self._sender, self._coding = name, sender, coding
        self._at = list(starts)
        self._files: list[int | None] = [None, None]
        self._ended = [False, False]
        self._started = 0

    @property
    def held_bytes(self) -> int:
        return 0

    def expect(self, name: str, sender: int | None, coding: Coding) -> None:
        """The control connection has said more. It counts for a file that has not begun."""
        self._name, self._sender, self._coding = name, sender, coding

    def receive(self, direction: int, data: bytes | memoryview) -> list[Finding]:
        """The next bytes of a direction. Raises nothing."""
        if not data:
            return []
        findings: list[Finding] = []
        start = self._at[direction]
        self._at[direction] = end = start + len(data)
        file = self._files[direction]
        if file is None:
            if self._sender not in (None, direction):
                text = "the receiver of a file sends on its data connection"
                findings.append(AnomalySeen(start, end, text, is_evasion=False))
            file = self._begin(direction, start, findings)
        if self._coding is not Coding.COMPRESSED:
            findings.append(FileData(file, start, end, self._coding, data))
        return findings

    def end(self, direction: int) -> list[Finding]:
        """FIN is the file's end; whether it broke off only the control connection knows (426 instead of 226)."""
        if self._ended[direction]:
            return []
        self._ended[direction] = True
        findings: list[Finding] = []
        file = self._files[direction]
        if file is None and self._sender == direction:
            file = self._begin(direction, self._at[direction], findings)
        if file is not None:
            findings.append(FileEnded(file, self._at[direction], is_complete=True))
        return findings

    def _begin(self, direction: int, start: int, findings: list[Finding]) -> int:
        self._started += 1
        self._files[direction] = self._started
        findings.append(FileStarted(self._started, start, self._name.rstrip("/").rpartition("/")[2], self._name))
        if self._coding is Coding.COMPRESSED:
            findings.append(FileUnseen(self._started, start, "FTP carries it compressed or in blocks"))
        return self._started
