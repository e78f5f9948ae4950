"""What a release is to an appliance: the `custom` part of a `firmware` target in the TUF repository (docs/update.md §2).

The host writes it when it releases, the appliance reads it after python-tuf has verified the metadata around it. TUF says that the
words are ours; that they make sense is checked here, on both sides.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from mamori.formats.problems import BadInputError, Problem
from mamori.formats.release import Line, Version
from mamori.formats.strict import Between, Matches, parse
from mamori.formats.version import VersionOrder

FORMAT = 1
"""Raised when an appliance of the old format would misunderstand the new one; such a one then leaves the release alone."""

MAX_WAVES = 20
MAX_NOTES_CHARACTERS = 4000

_LATEST_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z, where Python's calendar ends

Time = Annotated[int, Between(0, _LATEST_TIME)]
Notes = Annotated[str, Matches(rf"(?s)[^\x00-\x08\x0b-\x1f\x7f]{{1,{MAX_NOTES_CHARACTERS}}}", "1 to 4000 characters of text")]


class Channel(enum.Enum):
    """Who is offered a release: everyone, or those who want it early."""

    STABLE = "stable"
    BETA = "beta"


@dataclass(frozen=True)
class Wave:
    """From `after` (Unix seconds) on, `percent` of all appliances may have the release."""

    percent: Annotated[int, Between(1, 100)]
    after: Time


@dataclass(frozen=True)
class ReleaseNotes:
    """What changed, for owners, in both languages."""

    ja: Notes
    en: Notes


@dataclass(frozen=True)
class Offer:
    """Times are Unix seconds. `manifest_hash` is RAUC's: SHA-256 of the signed manifest, which names every byte of the payload.
    `minimum_version` is the oldest version that may still be installed once this one is confirmed. From `notice_at` on people
    are told; a power cycle between `activate_after` and `activate_before` activates."""

    version: Version
    compatible: Line
    manifest_hash: Annotated[str, Matches(r"[0-9a-f]{64}", "64 hex digits in lower case")]
    channel: Channel
    minimum_version: Version
    waves: tuple[Wave, ...]
    notice_at: Time
    activate_after: Time
    activate_before: Time
    notes: ReleaseNotes


def encode_offer(offer: Offer) -> dict[str, Any]:
    """The `custom` object; BadInputError if `decode_offer` would refuse it."""
    table = {"format": FORMAT, **dataclasses.asdict(offer), "channel": offer.channel.value}
    table["waves"] = [dataclasses.asdict(wave) for wave in offer.waves]
    decode_offer(table, "offer")
    return table


def decode_offer(custom: Mapping[str, Any], source: str) -> Offer:
    """The offer in a target's `custom`; BadInputError names all that is wrong. `source` is what people are shown."""
    table = dict(custom)
    written_as = table.pop("format", None)
    if type(written_as) is not int or written_as != FORMAT:
        raise BadInputError([Problem(source, "format", str(FORMAT), "something else", "a newer Mamori may have written this")])
    offer = parse(Offer, _known(table), source)
    problems = [Problem(source, *problem) for problem in _contradictions(offer)]
    if problems:
        raise BadInputError(problems)
    return offer


def _known(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without keys that a newer Mamori has added. Appliances in the field that refused them could never get the release that knows
    them; what an old one must not pass over needs another FORMAT."""
    waves, notes = table.get("waves"), table.get("notes")
    known = _only(Offer, table)
    if isinstance(waves, list):
        known["waves"] = [_only(Wave, wave) if isinstance(wave, Mapping) else wave for wave in waves]
    if isinstance(notes, Mapping):
        known["notes"] = _only(ReleaseNotes, notes)
    return known


def _only(schema: type, table: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(schema)}
    return {key: value for key, value in table.items() if key in names}


def _contradictions(offer: Offer) -> list[tuple[str, str, str]]:
    """Key, expected and got of what is well formed and makes no sense."""
    found = []
    if not 1 <= len(offer.waves) <= MAX_WAVES:
        found.append(("waves", f"1 to {MAX_WAVES} waves", str(len(offer.waves))))
    elif offer.waves[-1].percent != 100:
        found.append(("waves", "a last wave of 100 percent, or some appliances never get it", str(offer.waves[-1].percent)))
    pairs = list(zip(offer.waves, offer.waves[1:], strict=False))
    if any(later.after <= wave.after or later.percent <= wave.percent for wave, later in pairs):
        found.append(("waves", "later waves with more percent each", "another order"))
    if offer.notice_at > offer.activate_after:
        found.append(("notice_at", "a time before activate_after", str(offer.notice_at)))
    if offer.activate_after >= offer.activate_before:
        found.append(("activate_before", "a time after activate_after", str(offer.activate_before)))
    if VersionOrder(offer.minimum_version) > VersionOrder(offer.version):
        found.append(("minimum_version", f"at most {offer.version}", offer.minimum_version))
    return found


def target_path(compatible: str, channel: Channel) -> str:
    """Where a channel's present release is among the TUF targets; a new release takes the place of the old one."""
    return f"firmware/{compatible}/{channel.value}.raucb"


def may_have(offer: Offer, share: int, now: float) -> bool:
    """Whether an appliance with this `share` (0 to 99, see update.identity) is in a wave that has begun."""
    return any(share < wave.percent and now >= wave.after for wave in offer.waves)


def notes_in(offer: Offer, language: str) -> str:
    """Japanese for `ja`, else English."""
    return offer.notes.ja if language == "ja" else offer.notes.en
