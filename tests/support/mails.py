"""What a MailReader finds in a mail, in a shape that does not depend on how the mail was cut; and what Python's reader finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage, Message

from mamori.inspect.findings import OVERWRITING, AnomalySeen, Coding, FileData, FileEnded, FileStarted, FileUnseen, Finding
from mamori.inspect.mime import MailReader

BASE = 1000
"""Where the mails of the tests begin in their streams."""


@dataclass
class ReadFile:
    """A file of a mail. `ranges`: what may be written over, joined where they touch; `codings`: how."""

    start: int
    name: str
    subject: str
    data: bytes = b""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    codings: set[Coding] = field(default_factory=set)
    end: int | None = None
    is_complete: bool | None = None
    unseen: str = ""


@dataclass
class ReadMail:
    files: dict[int, ReadFile]
    anomalies: list[AnomalySeen]

    @property
    def contents(self) -> list[bytes]:
        return [file.data for file in self.files.values()]

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files.values()]

    @property
    def evasions(self) -> list[str]:
        return [anomaly.text for anomaly in self.anomalies if anomaly.is_evasion]


def digest(findings: Iterable[Finding]) -> ReadMail:
    """Checks the order of findings on its way: started once, data in ascending ranges, ended once, nothing after that."""
    mail = ReadMail({}, [])
    for finding in findings:
        if isinstance(finding, FileStarted):
            assert finding.file == 1 + len(mail.files)
            mail.files[finding.file] = ReadFile(finding.start, finding.name, finding.subject)
        elif isinstance(finding, FileData):
            file = mail.files[finding.file]
            assert file.end is None
            assert not file.unseen
            assert (file.ranges[-1][1] if file.ranges else file.start) <= finding.start <= finding.end
            file.data += finding.data
            if finding.start < finding.end:
                file.codings.add(finding.coding)
                if file.ranges and file.ranges[-1][1] == finding.start:
                    file.ranges[-1] = (file.ranges[-1][0], finding.end)
                else:
                    file.ranges.append((finding.start, finding.end))
        elif isinstance(finding, FileEnded):
            file = mail.files[finding.file]
            assert file.end is None
            assert finding.end >= (file.ranges[-1][1] if file.ranges else file.start)
            file.end, file.is_complete = finding.end, finding.is_complete
        elif isinstance(finding, FileUnseen):
            mail.files[finding.file].unseen = finding.reason
        else:
            assert isinstance(finding, AnomalySeen)
            mail.anomalies.append(finding)
    return mail


def read_segments(segments: Sequence[tuple[int, bytes]], is_complete: bool = True) -> ReadMail:
    """The mail whose bytes come in these stretches of the stream."""
    reader = MailReader(1)
    findings = [finding for start, data in segments for finding in reader.receive(start, data)]
    return digest([*findings, *reader.end(is_complete)])


def segmented(mail: bytes, step: int) -> list[tuple[int, bytes]]:
    return [(BASE + at, mail[at : at + step]) for at in range(0, len(mail), step)]


def read_whole(mail: bytes) -> ReadMail:
    return read_segments([(BASE, mail)])


def read_mail(mail: bytes) -> ReadMail:
    """Whole, byte by byte and in other cuts: always the same."""
    whole = read_whole(mail)
    for step in (1, 2, 7, 100):
        assert comparable(read_segments(segmented(mail, step))) == comparable(whole), step
    return whole


def comparable(mail: ReadMail) -> ReadMail:
    """Without what does depend on cuts: a file whose text is encoded has ranges by segments."""
    anomalies = sorted((AnomalySeen(0, 0, one.text, one.is_evasion) for one in mail.anomalies), key=lambda one: one.text)
    files = {
        number: ReadFile(**{**vars(file), "ranges": [] if is_inner(mail, number) else file.ranges, "start": 0, "end": None})
        if is_inner(mail, number)
        else file
        for number, file in mail.files.items()
    }
    return ReadMail(files, anomalies)


def is_inner(mail: ReadMail, number: int) -> bool:
    """Found inside the text of the file before it, which is itself encoded: its place is only known by segments."""
    file = mail.files[number]
    coded = file.codings & {Coding.BASE64, Coding.QUOTED_PRINTABLE}
    return bool(coded) and any(
        other.codings == file.codings and other.start <= file.start and (other.end or 0) >= (file.end or 0)
        for earlier, other in mail.files.items()
        if earlier < number
    )


def overwritten(mail: bytes, only: ReadMail, numbers: Iterable[int] | None = None) -> bytes:
    """The mail with files written over, as the box does it."""
    data = bytearray(mail)
    for number in only.files if numbers is None else numbers:
        file = only.files[number]
        for start, end in file.ranges:
            (coding,) = file.codings
            data[start - BASE : end - BASE] = data[start - BASE : end - BASE].translate(OVERWRITING[coding])
    return bytes(data)


def python_leaves(mail: bytes) -> list[tuple[str, str, bytes]]:
    """Type, name and decoded content of every leaf, by Python's email package."""
    return [
        (part.get_content_type(), part.get_filename() or "", part.get_payload(decode=True) or b"")
        for part in parsed(mail).walk()
        if not part.is_multipart()
    ]


def parsed(mail: bytes) -> Message:
    return message_from_bytes(mail, policy=policy.default)


def wire(message: EmailMessage) -> bytes:
    """As it goes over SMTP."""
    return message.as_bytes(policy=policy.SMTP)
