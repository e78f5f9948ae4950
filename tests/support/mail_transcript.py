"""What the readers of mail protocols find, in a form that does not depend on how the streams were cut into segments."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    FileData,
    FileEnded,
    FileStarted,
    FileUnseen,
    Finding,
    OpaqueBegins,
    Reader,
    TlsBegins,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER

Talk = Sequence[tuple[int, bytes]]
"""Segments of both sides in the order in which they pass."""


class Recorder:
    """In a MailReader's place: one file that is the message as it was handed in."""

    def __init__(self, first_file: int, subject_prefix: str = "mail") -> None:
        self._file, self._subject = first_file, subject_prefix
        self._begun = False
        self._end = -(1 << 62)  # a header that was made up lies before the stream

    def receive(self, start: int, data: bytes) -> list[Finding]:
        assert data, "no call without data"
        begins: list[Finding] = [] if self._begun else [FileStarted(self._file, start, "", self._subject)]
        assert start >= self._end, "bytes come in order"
        self._begun, self._end = True, start + len(data)
        return [*begins, FileData(self._file, start, self._end, Coding.TEXT, data)]

    def end(self, is_complete: bool = True) -> list[Finding]:
        return [FileEnded(self._file, self._end, is_complete)] if self._begun else []

    @property
    def held_bytes(self) -> int:
        return 0


@dataclass
class File:
    subject: str
    name: str = ""
    data: bytes = b""
    is_complete: bool | None = None  # None: it was not ended
    spans: list[tuple[int, int]] = field(default_factory=list)
    codings: set[Coding] = field(default_factory=set)
    unseen: str | None = None


@dataclass
class Transcript:
    files: list[File] = field(default_factory=list)
    anomalies: list[AnomalySeen] = field(default_factory=list)
    tls: TlsBegins | None = None
    opaque: str | None = None
    error: str | None = None

    @property
    def messages(self) -> list[bytes]:
        return [file.data for file in self.files]

    @property
    def evasions(self) -> list[str]:
        return [anomaly.text for anomaly in self.anomalies if anomaly.is_evasion]

    @property
    def oddities(self) -> list[str]:
        return [anomaly.text for anomaly in self.anomalies if not anomaly.is_evasion]


def transcribe(findings: Iterable[Finding]) -> Transcript:
    said, by_number, last = Transcript(), dict[int, File](), 0
    for finding in findings:
        match finding:
            case FileStarted():
                assert finding.file > last, "numbers are unique and ascend"
                last = finding.file
                by_number[last] = File(finding.subject, finding.name)
                said.files.append(by_number[last])
            case FileData():
                file = by_number[finding.file]
                assert file.is_complete is None, "nothing comes after the end"
                file.data += bytes(finding.data)
                file.codings.add(finding.coding)
                if file.spans and file.spans[-1][1] == finding.start:
                    file.spans[-1] = (file.spans[-1][0], finding.end)
                else:
                    file.spans.append((finding.start, finding.end))
            case FileEnded():
                assert by_number[finding.file].is_complete is None, "ended once"
                by_number[finding.file].is_complete = finding.is_complete
            case FileUnseen():
                by_number[finding.file].unseen = finding.reason
            case AnomalySeen():
                said.anomalies.append(finding)
            case TlsBegins():
                assert said.tls is None
                said.tls = finding
            case OpaqueBegins():
                said.opaque = finding.protocol
    return said


def read(make: Callable[[], Reader], talk: Talk, error: type[Exception]) -> Transcript:
    """All that a reader finds; its error is raised once more at every later call."""
    reader, found, failed = make(), list[Finding](), None
    for direction, data in [*talk, (ORIGINATOR, b"")]:
        try:
            got = reader.receive(direction, data)
        except error as raised:
            assert failed in (None, str(raised))
            failed = str(raised)
        else:
            assert failed is None
            found += got
    for direction in (ORIGINATOR, RESPONDER):
        found += reader.end(direction)
    return replace(transcribe(found), error=failed)


def hear(make: Callable[[], Reader], said: Talk, error: type[Exception], cuttings: int = 20) -> Transcript:
    """All that a reader finds, the same in one piece, byte by byte and in this many random segmentations."""
    whole = read(make, join(said), error)
    assert read(make, byte_by_byte(said), error) == whole
    dice = random.Random(len(said))  # noqa: S311 - cuts
    for _ in range(cuttings):
        assert read(make, cut(said, [dice.randrange(10_000) for _ in range(8)]), error) == whole
    return whole


def join(talk: Talk) -> list[tuple[int, bytes]]:
    """Segments of one side that follow one another as one."""
    joined: list[tuple[int, bytes]] = []
    for direction, data in talk:
        if joined and joined[-1][0] == direction:
            joined[-1] = (direction, joined[-1][1] + data)
        else:
            joined.append((direction, data))
    return joined


def byte_by_byte(talk: Talk) -> list[tuple[int, bytes]]:
    return [(direction, bytes([byte])) for direction, data in talk for byte in data]


def cut(talk: Talk, cuts: Sequence[int]) -> list[tuple[int, bytes]]:
    """Every stretch cut at these places, which count modulo its length."""
    pieces: list[tuple[int, bytes]] = []
    for direction, data in join(talk):
        places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
        pieces += [(direction, data[a:b]) for a, b in pairwise(places)]
    return pieces


def talk(text: bytes) -> list[tuple[int, bytes]]:
    r"""A dialogue written as `C: …` and `S: …`; a line ends in CRLF, and `\` escapes work as in Python. A part that is not to end
    in CRLF ends in `\c`."""
    segments: list[tuple[int, bytes]] = []
    for line in filter(None, map(bytes.strip, text.splitlines())):
        side, _, said = line.partition(b": ")
        assert side in (b"C", b"S"), line
        is_open = said.endswith(b"\\c")
        plain = (said[:-2] if is_open else said).decode().encode("latin-1").decode("unicode_escape").encode("latin-1")
        segments.append((ORIGINATOR if side == b"C" else RESPONDER, plain if is_open else plain + b"\r\n"))
    return segments
