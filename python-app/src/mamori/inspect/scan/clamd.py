"""clamd's protocol, without a socket: what to send, and what an answer means. Source: clamd(8), and clamd 1.4 itself.

    zINSTREAM\\0  (length of 4 bytes, big-endian; so many bytes) …  length 0       -> stream: OK\\0
                                                                                      stream: NAME FOUND\\0
                                                                                      … ERROR\\0
    zVERSION\\0                                                                 -> ClamAV 1.4.6/27456/Mon Nov 17 09:12:33 2025\\0

Only ClamAV's own databases have a number and a date in VERSION; others change without a trace. So a database can say which it
is: it holds a signature for `DATABASE_PROBE`, which nothing else contains, and the signature's name tells.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from mamori.inspect.scan.verdicts import Clean, Infected, Unscanned, Verdict, Why

INSTREAM = b"zINSTREAM\0"
VERSION = b"zVERSION\0"
LENGTH = struct.Struct(">I")
END_OF_STREAM = LENGTH.pack(0)

DATABASE_PROBE = b"mamori-database-probe-7b1f4c52"
"""Scanned at every probe. A database that wants to be told from the one before has `NAME:0:0:<these bytes in hexadecimal>` in an
.ndb file, with another NAME each time."""

MAX_ANSWER_BYTES = 4096
"""A virus's name has some 60 characters. Whoever sends more is not clamd."""
MAX_SIGNATURE_CHARACTERS = 200
"""Names are shown to people and kept in memory."""
MAX_FRAME_BYTES = 256 * 1024
"""One chunk of INSTREAM. clamd takes any that is not over StreamMaxLength; no socket takes more than this at once."""

_UNOFFICIAL = ".UNOFFICIAL"
_TOO_DEEP = "Heuristics.Limits.Exceeded"
_ENCRYPTED = "Heuristics.Encrypted"


def stream_frame(data: bytes) -> bytes:
    """A whole INSTREAM session with this content; for what is short."""
    return INSTREAM + (LENGTH.pack(len(data)) + data if data else b"") + END_OF_STREAM


class Framing:
    """What one INSTREAM session still has to send of a stream that goes on elsewhere: offsets in, parts out.

        head, start, end = framing.next(available, is_last)      # send head, and then the stream's bytes [start, end)
        framing.sent(n)                                          # so many bytes of these went

    A chunk's length goes before its bytes, so a chunk that was begun is sent to its end.
    """

    __slots__ = ("_chunk_end", "_head", "_is_ended", "offset")

    def __init__(self) -> None:
        self.offset = 0
        self._head = INSTREAM
        self._chunk_end = 0
        self._is_ended = False

    @property
    def is_done(self) -> bool:
        """The end of the stream was sent."""
        return self._is_ended and not self._head

    def next(self, available: int, is_last: bool) -> tuple[bytes, int, int]:
        """What to send when the stream is known up to `available`; nothing if it waits for more. `is_last`: no more will come."""
        if self.offset == self._chunk_end and not self._is_ended:
            length = min(available - self.offset, MAX_FRAME_BYTES)
            if length > 0:
                self._head += LENGTH.pack(length)
                self._chunk_end += length
            elif is_last:
                self._head += END_OF_STREAM
                self._is_ended = True
        return self._head, self.offset, self._chunk_end

    def sent(self, count: int) -> None:
        of_head = min(count, len(self._head))
        self._head = self._head[of_head:]
        self.offset += count - of_head


def parse_answer(answer: bytes) -> Verdict:
    """What clamd says of a stream. An answer that broke off is no verdict, unless what is there says FOUND: a name may begin with
    `OK`, so only the end of the line makes it one."""
    text = answer.decode("utf-8", "replace").strip(" \r\n\0")
    is_whole = answer.endswith((b"\0", b"\n"))
    if text.endswith(" FOUND"):
        return _found(_line(text.removesuffix(" FOUND").partition(": ")[2] or text))
    if is_whole and text.endswith(": OK"):
        return Clean()
    if "size limit exceeded" in text:
        return Unscanned(Why.TOO_LARGE, _line(text))
    return Unscanned(Why.FAILED, _line(text) or "closed without an answer")


def _found(name: str) -> Verdict:
    # With HeuristicScanPrecedence off these come only when nothing worse was found in what could be read.
    if name.startswith(_ENCRYPTED):
        return Unscanned(Why.ENCRYPTED, name)
    if name.startswith(_TOO_DEEP):
        return Unscanned(Why.TOO_DEEP, name)
    return Infected(name.removesuffix(_UNOFFICIAL) or "unnamed")


def is_of_any_length(verdict: Verdict) -> bool:
    """Whether what was found in the beginning of a file is there in the whole, too. A heuristic may mean that it is cut short."""
    return isinstance(verdict, Infected) and not verdict.signature.startswith("Heuristics.")


def _line(text: str) -> str:
    """One line of bounded length, whatever came."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_SIGNATURE_CHARACTERS])


@dataclass(frozen=True, slots=True)
class Version:
    """`engine` is the program; `database` the number of ClamAV's daily database, "" if there is none; `made_s` when that was
    made, in Unix seconds, None if it does not say or not so that we could read it."""

    engine: str
    database: str = ""
    made_s: float | None = None


def parse_version(answer: bytes) -> Version | None:
    """The answer to VERSION; None if it is not one."""
    text = _line(answer.decode("utf-8", "replace").strip(" \r\n\0"))
    if not answer.endswith((b"\0", b"\n")) or not text.startswith("ClamAV"):
        return None
    engine, _, rest = text.partition("/")
    database, _, made = rest.partition("/")
    return Version(engine, database, _parse_time(made))


def _parse_time(text: str) -> float | None:
    # ctime(3) of clamd's time zone, which its unit sets to UTC.
    try:
        return datetime.strptime(" ".join(text.split()), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
