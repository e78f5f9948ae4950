"""The release file: what an image says of itself. The host writes it into the root file system, the device reads it.

JSON in UTF-8, one object, strict: unknown keys, missing keys and doubled keys are errors.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mamori.formats.problems import BadInputError, Problem
from mamori.formats.strict import Between, Matches, parse

FORMAT = 1
"""Raised when a reader of the old format would misunderstand the new one."""

MAX_FILE_BYTES = 64 * 1024
"""A release file has about 2 KiB; the rest is room for anchors."""

_EARLIEST_BUILD = 1_600_000_000
_LATEST_BUILD = 253_402_300_799
"""From September 2020, before Mamori, to the last second of the year 9999, where Python's calendar ends."""

Word = Annotated[str, Matches(r"[a-z0-9][a-z0-9_-]{0,63}", "a name of lower-case letters, digits, `-` and `_`")]
Line = Annotated[str, Matches(r"[ -~]{1,256}", "one line of 1 to 256 ASCII characters")]
InterfaceName = Annotated[str, Matches(r"[a-z][a-z0-9]{0,14}", "an interface name of at most 15 characters")]
Version = Annotated[
    str,
    Matches(r"\d{4}\.\d{1,2}\.\d{1,6}(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?", "a version like 2026.11.0+g0123456789"),
]


class Variant(enum.Enum):
    """Who may log in: `lab` images have SSH by key and a serial login, `release` images have neither."""

    LAB = "lab"
    RELEASE = "release"


class Base(enum.Enum):
    """Where the kernel and the root file system come from."""

    BUILDROOT = "buildroot"
    DEBIAN = "debian"


class EarlyBridge(enum.Enum):
    """What the bridge does while user space is not up."""

    FORWARD = "forward"
    CLOSED = "closed"


@dataclass(frozen=True)
class Bridge:
    """The bridge and the interfaces that it joins."""

    name: InterfaceName
    ports: tuple[InterfaceName, ...]


@dataclass(frozen=True)
class Update:
    """`compatible` is what a bundle must say to be installed here (RAUC manual, `compatible`)."""

    compatible: Line


@dataclass(frozen=True)
class Anchor:
    """One certificate that this image trusts: what for, its subject, and the SHA-256 of its DER form."""

    role: Word
    subject: Annotated[str, Matches(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}", "one line of 1 to 256 characters")]
    sha256: Annotated[str, Matches(r"[0-9a-f]{64}", "64 hex digits in lower case")]


@dataclass(frozen=True)
class Release:
    """`build_time` is in Unix seconds and the earliest time that the device's clock may show."""

    product: Line
    version: Version
    recipe: Word
    board: Word
    base: Base
    variant: Variant
    build_time: Annotated[int, Between(_EARLIEST_BUILD, _LATEST_BUILD)]
    source_commit: Annotated[str, Matches(r"[0-9a-f]{40}(-dirty)?", "40 hex digits, with `-dirty` after local changes")]
    features: tuple[Word, ...]
    update: Update
    early_bridge: EarlyBridge
    bridge: Bridge
    anchors: tuple[Anchor, ...]


def encode(release: Release, source: str = "release.json") -> bytes:
    """The file's content, the same bytes for the same value; BadInputError if `decode` would refuse it."""
    table = {"format": FORMAT, **_fields(release)}
    content = f"{json.dumps(table, indent=2, ensure_ascii=False)}\n".encode(errors="surrogatepass")
    decode(content, source)
    return content


def decode(content: bytes, source: str) -> Release:
    """The release in a file's content; BadInputError names all that is wrong. `source` is the file name shown to people."""
    table = _parse_json(content, source)
    # First, and alone: to call a newer format's keys unknown would only mislead.
    written_as = table.pop("format", None)
    if type(written_as) is not int or written_as != FORMAT:
        raise BadInputError([Problem(source, "format", str(FORMAT), "something else", "a newer Mamori may have written this file")])
    release = parse(Release, table, source)
    if len(release.bridge.ports) != 2 or len({release.bridge.name, *release.bridge.ports}) != 3:
        got = ", ".join((release.bridge.name, *release.bridge.ports))
        raise BadInputError([Problem(source, "bridge.ports", "two names beside the bridge's, all different", got)])
    return release


def _parse_json(content: bytes, source: str) -> dict[str, Any]:
    if len(content) > MAX_FILE_BYTES:
        raise BadInputError([Problem(source, "(size)", f"at most {MAX_FILE_BYTES} bytes", str(len(content)))])
    try:
        table = json.loads(content.decode(), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise BadInputError([Problem(source, "(syntax)", "JSON", str(error) or "objects nested too deeply")]) from None
    if not isinstance(table, dict):
        raise BadInputError([Problem(source, "(top level)", "an object", type(table).__name__)])
    return table


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return table


def _fields(value: Any) -> dict[str, object]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, enum.Enum):
        return value.value
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
