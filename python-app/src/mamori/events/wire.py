"""Records on their way from whoever inspects to the writer: a datagram is a JSON array of objects, one per record.

    [{"kind": "event", "at_s": 1795000000.5, "function": "virus", …}, {"kind": "count", …}, {"kind": "terminal", …}]

`kind` says which dataclass of `record` it is, the other keys are its fields. Workers read hostile traffic, so the writer takes
nothing on trust: every key, type, length and range is checked. A record with anything wrong in it is refused, the others of its
datagram are not: they may be of another part of the sender.

Text is made storable when it is encoded: what is too long is cut, and NUL and lone surrogates, which SQLite cannot hold or
search, become U+FFFD. All other characters stay as they came; whoever shows them escapes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Count, Event, Function, Heading, Record, TerminalSeen

MAX_DATAGRAM_BYTES = 65_536
"""Some two hundred records. Larger ones would need large buffers at both ends, and save no more system calls."""

MAX_WORD_CHARACTERS = 200
"""Of a list's or category's name, a terminal's name, a protocol: the lists that ship with the box use a tenth."""

MAX_ADDRESS_CHARACTERS = 80
"""IPv6 is 45 with an embedded IPv4 address, and a scope's name follows a `%`."""

MAX_COUNTED = 2**40
"""Of one count. Sums of so few bits stay integers in SQLite for ever."""

MAX_TIME_S = 2.0**40
"""The year 36,000: what a time can be without its arithmetic overflowing anywhere."""

_ELLIPSIS = "…"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_MAC = re.compile(r"(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5})?")
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

_T = TypeVar("_T")


class WireError(Exception):
    """A datagram that is no JSON array."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a datagram holds. `refusals` has a reason for each record that is none."""

    records: tuple[Record, ...]
    refusals: tuple[str, ...] = ()


def encode_record(record: Record) -> bytes:
    """One record as JSON. At most 30 KB: 1000 characters of subject, as many of detail, at most 6 bytes each."""
    return _encode_json(_fields(record)).encode()


def join_records(records: Iterable[bytes]) -> bytes:
    """The datagram that holds these encoded records."""
    return b"[%b]" % b",".join(records)


def parse_datagram(data: bytes) -> Parsed:
    """The records of a datagram; WireError if it is no array."""
    if len(data) > MAX_DATAGRAM_BYTES:
        raise WireError(f"more than {MAX_DATAGRAM_BYTES} bytes")
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON: {error}") from None
    if not isinstance(parts, list):
        raise WireError("no array")
    records: list[Record] = []
    refusals = []
    for part in parts:
        try:
            records.append(_record(part))
        except WireError as error:
            refusals.append(str(error))
    return Parsed(tuple(records), tuple(refusals))


def storable(text: str, limit: int) -> str:
    """At most `limit` characters, without those that SQLite cannot hold."""
    if len(text) > limit:
        text = text[: limit - 1] + _ELLIPSIS
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\ufffd", text)


def _fields(record: Record) -> dict[str, Any]:
    match record:
        case Event():
            return {
                "kind": "event",
                "at_s": record.at_s,
                "function": record.function.value,
                "action": record.action.value,
                "heading": record.heading.value,
                "terminal_mac": record.terminal_mac,
                "terminal": storable(record.terminal, MAX_ADDRESS_CHARACTERS),
                "peer": storable(record.peer, MAX_ADDRESS_CHARACTERS),
                "peer_port": record.peer_port,
                "protocol": storable(record.protocol, MAX_WORD_CHARACTERS),
                "subject": storable(record.subject, MAX_SUBJECT_CHARACTERS),
                "list_name": storable(record.list_name, MAX_WORD_CHARACTERS),
                "category": storable(record.category, MAX_WORD_CHARACTERS),
                "detail": storable(record.detail, MAX_SUBJECT_CHARACTERS),
            }
        case Count():
            return {
                "kind": "count",
                "at_s": record.at_s,
                "function": record.function.value,
                "unit": storable(record.unit, MAX_WORD_CHARACTERS),
                "terminal_mac": record.terminal_mac,
                "terminal": storable(record.terminal, MAX_ADDRESS_CHARACTERS),
                "category": storable(record.category, MAX_WORD_CHARACTERS),
                "scanned": record.scanned,
                "blocked": record.blocked,
            }
        case TerminalSeen():
            return {
                "kind": "terminal",
                "at_s": record.at_s,
                "mac": record.mac,
                "address": storable(record.address, MAX_ADDRESS_CHARACTERS),
                "name": storable(record.name, MAX_WORD_CHARACTERS),
                "source": storable(record.source, MAX_WORD_CHARACTERS),
            }


def _choice(choices: type[_T]) -> Callable[[Any], _T]:
    by_value: Mapping[str, _T] = {choice.value: choice for choice in choices}  # type: ignore[attr-defined]

    def read(value: Any) -> _T:
        if not isinstance(value, str) or value not in by_value:
            raise WireError(f"{value!r:.50} is no {choices.__name__.lower()}")
        return by_value[value]

    return read


def _text(limit: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit or _UNSTORABLE.search(value):
            raise WireError(f"{value!r:.50} is no text of at most {limit} characters")
        return value

    return read


def _mac(value: Any) -> str:
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise WireError(f"{value!r:.50} is no MAC address")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME_S:
        raise WireError(f"{value!r:.50} is no time")
    return float(value)


def _number(highest: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            raise WireError(f"{value!r:.50} is no number up to {highest}")
        return value

    return read


_WORD, _ADDRESS, _LINE = _text(MAX_WORD_CHARACTERS), _text(MAX_ADDRESS_CHARACTERS), _text(MAX_SUBJECT_CHARACTERS)

_READERS: Mapping[str, tuple[Callable[..., Record], Mapping[str, Callable[[Any], Any]]]] = {
    "event": (
        Event,
        {
            "at_s": _time,
            "function": _choice(Function),
            "action": _choice(Action),
            "heading": _choice(Heading),
            "terminal_mac": _mac,
            "terminal": _ADDRESS,
            "peer": _ADDRESS,
            "peer_port": _number(65_535),
            "protocol": _WORD,
            "subject": _LINE,
            "list_name": _WORD,
            "category": _WORD,
            "detail": _LINE,
        },
    ),
    "count": (
        Count,
        {
            "at_s": _time,
            "function": _choice(Function),
            "unit": _WORD,
            "terminal_mac": _mac,
            "terminal": _ADDRESS,
            "category": _WORD,
            "scanned": _number(MAX_COUNTED),
            "blocked": _number(MAX_COUNTED),
        },
    ),
    "terminal": (TerminalSeen, {"at_s": _time, "mac": _mac, "address": _ADDRESS, "name": _WORD, "source": _WORD}),
}


def _record(part: Any) -> Record:
    kind = part.get("kind") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _READERS:
        raise WireError("no record")
    make, fields = _READERS[kind]
    if len(part) != len(fields) + 1 or not fields.keys() <= part.keys():
        raise WireError(f"not the fields of `{kind}`")
    # The order of a reader's fields is that of its dataclass.
    return make(*[read(part[name]) for name, read in fields.items()])
