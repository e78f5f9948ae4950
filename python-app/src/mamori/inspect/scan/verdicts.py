"""What scanning says about a file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Why(Enum):
    """Why a file was not scanned, or not to its end. The text is for people."""

    TOO_LARGE = "too large"
    ENCRYPTED = "encrypted archive"
    TOO_DEEP = "archive beyond the scanner's limits"
    OVERLOADED = "scanner overloaded"
    TIMED_OUT = "scanner did not answer in time"
    UNAVAILABLE = "scanner not available"
    FAILED = "scanner failed"


@dataclass(frozen=True, slots=True)
class Clean:
    """Looked at as a whole, and nothing was found."""


@dataclass(frozen=True, slots=True)
class Infected:
    """`signature` is the virus's name, as the database or the hash list calls it."""

    signature: str


@dataclass(frozen=True, slots=True)
class Unscanned:
    """Nobody knows. `detail` is one line for whoever looks closely, "" if there is no more to say."""

    why: Why
    detail: str = ""


Verdict = Clean | Infected | Unscanned


@dataclass(frozen=True, slots=True)
class Scanned:
    """The one verdict on a file; `file` is the number that the caller gave it."""

    file: int
    verdict: Verdict
