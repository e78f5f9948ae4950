"""The journal on the data partition: one JSON file, replaced whole, read strictly, but for what a newer image adds.

A journal that cannot be read is no reason to stop: what would be lost is which release is on its way, and that is found again; and
which versions were refused, which is told. It is kept beside under another name for whoever looks into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mamori.durable import write_durably
from mamori.formats.bootstate import Slot
from mamori.formats.offer import decode_offer, encode_offer
from mamori.formats.problems import MamoriError
from mamori.formats.release import Version
from mamori.formats.strict import Between, Matches, parse
from mamori.sysfs import UnreadableError, read_bytes
from mamori.update.words import Journal, NoticeKind, Outcome, Phase, Result

FORMAT = 1
MAX_FILE_BYTES = 256 * 1024
"""An offer has at most 30 KB, a full history 20."""

_Text = Annotated[str, Matches(r"(?s).{0,2000}", "at most 2000 characters")]
_Count = Annotated[int, Between(0, 1 << 62)]


class JournalError(MamoriError):
    """The file is no journal of ours."""


@dataclass(frozen=True)
class _StoredOutcome:
    version: Version
    result: Result
    at: _Count
    reason: _Text


@dataclass(frozen=True)
class _Stored:
    """The file's own shape, without the offer."""

    phase: Phase
    length: _Count
    since: _Count
    attempts: _Count
    retry_at: _Count
    problem: _Text
    is_armed: bool
    told: tuple[NoticeKind, ...]
    refused: tuple[Version, ...]
    minimum_version: Version
    history: tuple[_StoredOutcome, ...]
    source: _Text = ""
    slot: Slot | None = None


def encode_journal(journal: Journal) -> bytes:
    """The file's content; `decode_journal` gives the journal back."""
    table: dict[str, Any] = {field.name: getattr(journal, field.name) for field in dataclasses.fields(journal)}
    table["offer"] = encode_offer(journal.offer) if journal.offer is not None else None
    table["phase"] = journal.phase.value
    table["slot"] = journal.slot.value if journal.slot is not None else None
    table["told"] = [kind.value for kind in journal.told]
    table["history"] = [{**dataclasses.asdict(outcome), "result": outcome.result.value} for outcome in journal.history]
    present = {key: value for key, value in table.items() if value is not None}
    return f"{json.dumps({'format': FORMAT, **present}, ensure_ascii=False, indent=1)}\n".encode(errors="replace")


def decode_journal(content: bytes, source: str) -> Journal:
    """JournalError, or BadInputError with all that is wrong."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        raise JournalError(f"{source}: no JSON") from None
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise JournalError(f"{source}: no journal of format {FORMAT}")
    custom = table.pop("offer", None)
    if custom is not None and not isinstance(custom, dict):
        raise JournalError(f"{source}: offer: expected an object")
    offer = decode_offer(custom, f"{source}: offer") if custom is not None else None
    stored: _Stored = parse(_Stored, _known(table), source)
    has_slot = stored.phase in (Phase.STAGING, Phase.STAGED, Phase.ARMED, Phase.TRIAL)
    if (offer is None) != (stored.phase is Phase.IDLE) or (has_slot and stored.slot is None):
        raise JournalError(f"{source}: phase {stored.phase.value} without what belongs to it")
    history = tuple(Outcome(one.version, one.result, one.at, one.reason) for one in stored.history)
    fields = {field.name: getattr(stored, field.name) for field in dataclasses.fields(stored)}
    return Journal(**{**fields, "offer": offer, "history": history})


def _known(table: dict[str, Any]) -> dict[str, Any]:
    """Without what a newer image has added: its trial failed, and what must not be forgotten above all is which version that was.
    What is not of the shape that is looked for is left for the strict reader."""
    known = {key: value for key, value in table.items() if key in _names(_Stored)}
    told, history = known.get("told"), known.get("history")
    if isinstance(told, list):
        known["told"] = [kind for kind in told if kind in {kind.value for kind in NoticeKind}]
    if isinstance(history, list):
        outcomes = [one for one in history if not isinstance(one, dict) or one.get("result") in {result.value for result in Result}]
        known["history"] = [
            {key: value for key, value in one.items() if key in _names(_StoredOutcome)} if isinstance(one, dict) else one
            for one in outcomes
        ]
    return known


def _names(schema: type) -> set[str]:
    return {field.name for field in dataclasses.fields(schema)}


def read_journal(path: Path) -> Journal:
    """The journal; a new one where there is none. JournalError, BadInputError or UnreadableError for one that cannot be read."""
    if not path.exists():
        return Journal()
    return decode_journal(read_bytes(path, MAX_FILE_BYTES), str(path))


def load_journal(path: Path) -> tuple[Journal, str]:
    """The journal, and what was wrong with it: "" if nothing was. A bad one is set aside."""
    try:
        return read_journal(path), ""
    except (MamoriError, UnreadableError) as error:
        with contextlib.suppress(OSError):  # a disk that can only be read: what is on it stays
            path.replace(path.with_suffix(".bad"))
        return Journal(), str(error)


def save_journal(path: Path, journal: Journal) -> None:
    """Durably. OSError leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, encode_journal(journal))
