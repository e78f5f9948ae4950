"""The updater's settings: one TOML file on the data partition, strict, and what an appliance has that is its own: its identity.

url = "https://updates.example.com/mamori"
channel = "stable"
pin = "2026.12.0"            # this version and no other
rate_kbit_s = 8000           # how much of the office's line staging may take; 0: all of it
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mamori.durable import write_durably
from mamori.formats.offer import Channel
from mamori.formats.problems import MamoriError
from mamori.formats.release import Version
from mamori.formats.strict import Between, Matches, parse, read_toml

DEFAULT_RATE_KBIT_S = 8000
"""A slow office has 20 Mbit/s. A release of 20 MB of changed blocks takes 20 s at this rate, a whole one four minutes."""

DAY_S = 86_400
LEAST_PAUSE_S = 3600

_ID = r"[0-9a-f]{32}"


@dataclass(frozen=True)
class Settings:
    """Without `url` nothing is asked for; a stick still works. `pin`: no other version is wanted."""

    url: Annotated[str, Matches(r"(https?://[!-~]{1,500}[^/])?", "an http or https URL without a last slash")] = ""
    channel: Channel = Channel.STABLE
    pin: Version | None = None
    rate_kbit_s: Annotated[int, Between(0, 10_000_000)] = DEFAULT_RATE_KBIT_S

    @property
    def bytes_per_s(self) -> int | None:
        """None without a limit."""
        return self.rate_kbit_s * 1000 // 8 if self.rate_kbit_s else None


def read_settings(path: Path) -> Settings:
    """The defaults without a file; BadInputError names all that is wrong with one."""
    if not path.exists():
        return Settings()
    if not path.is_file():
        raise MamoriError(f"{path}: not a file")
    return parse(Settings, read_toml(path), str(path))


def load_identity(path: Path) -> str:
    """The appliance's own number, 32 hex digits, made once. Where it cannot be kept it lasts until the next start."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if Matches(_ID, "").accepts(text):
        return text
    fresh = secrets.token_hex(16)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, f"{fresh}\n".encode())
    return fresh


def share_of(identity: str, version: str) -> int:
    """0 to 99: which part of all appliances this one is in for a release; another one for each, so nobody is always the first."""
    return int.from_bytes(hashlib.sha256(f"{identity} {version}".encode()).digest()[:8]) % 100


def seconds_of_day(identity: str) -> int:
    """When this appliance asks, so that not all do at once."""
    return int.from_bytes(hashlib.sha256(f"{identity} asks".encode()).digest()[:8]) % DAY_S


def seconds_until(second_of_day: int, now: float) -> float:
    """How long until it is that second of a day (UTC) again, but never less than an hour: who has just asked need not ask again."""
    pause_s = (second_of_day - now) % DAY_S
    return pause_s if pause_s >= LEAST_PAUSE_S else pause_s + DAY_S
