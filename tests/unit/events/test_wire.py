"""A datagram says exactly what the dataclasses say, and the reader believes nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Event, TerminalSeen
from mamori.events.wire import (
    MAX_COUNTED,
    MAX_DATAGRAM_BYTES,
    WireError,
    encode_record,
    join_records,
    parse_datagram,
    storable,
)
from tests.support.records import MAC, NOW_S, count, event

SEEN = TerminalSeen(NOW_S, MAC, "192.0.2.17", "経理のパソコン", "dhcp")


@pytest.mark.parametrize("record", [event(), count(), SEEN], ids=lambda record: type(record).__name__)
def test_a_record_arrives_as_it_was_sent(record) -> None:
    assert parse_datagram(join_records([encode_record(record)])).records == (record,)


def test_a_datagram_holds_records_of_several_kinds_in_their_order() -> None:
    records = (event(), count(), SEEN, event("http://other.example/"))
    parsed = parse_datagram(join_records(map(encode_record, records)))
    assert (parsed.records, parsed.refusals) == (records, ())


def test_an_empty_array_is_no_record_and_no_error() -> None:
    assert parse_datagram(join_records([])).records == ()


def test_long_text_is_cut_with_an_ellipsis() -> None:
    (sent,) = parse_datagram(join_records([encode_record(event("雨" * 5000))])).records
    assert isinstance(sent, Event)
    assert sent.subject == "雨" * (MAX_SUBJECT_CHARACTERS - 1) + "…"


def test_the_largest_record_leaves_room_for_others_in_a_datagram() -> None:
    worst = "\x01" * 100_000
    record = dataclasses.replace(
        event(worst), terminal=worst, peer=worst, protocol=worst, list_name=worst, category=worst, detail=worst
    )
    encoded = encode_record(record)
    assert 2 * len(encoded) < MAX_DATAGRAM_BYTES
    assert len(parse_datagram(join_records([encoded, encoded])).records) == 2


@pytest.mark.parametrize("text", ["\0", "a\ud800b", "\udfff"], ids=ascii)
def test_what_sqlite_cannot_hold_is_replaced(text: str) -> None:
    (sent,) = parse_datagram(join_records([encode_record(event(text))])).records
    assert isinstance(sent, Event)
    assert sent.subject == text.replace("\0", "\ufffd").replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")


def test_control_characters_and_japanese_stay_as_they_came() -> None:
    assert storable("\x1b[31m\r\n\u202e絵文字😀", 100) == "\x1b[31m\r\n\u202e絵文字😀"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[",
        b"[" * 60_000,
        b"\xff",
        b"[1e999999999999]"[:-1],
        b"[" + b"9" * 5000 + b"]",
        b"[" + b" " * MAX_DATAGRAM_BYTES + b"]",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_array_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_datagram(data)


BAD_FIELDS = {
    "a time that is not a number": ("at_s", "now"),
    "a time that is true": ("at_s", True),
    "no number": ("at_s", float("nan")),
    "an endless time": ("at_s", float("inf")),
    "a time before all times": ("at_s", -1),
    "a function that does not exist": ("function", "coffee"),
    "a function that cannot be a key": ("function", ["ips"]),
    "an action that is a number": ("action", 1),
    "a MAC address in capitals": ("terminal_mac", "AA:BB:CC:DD:EE:FF"),
    "a MAC address with a line end": ("terminal_mac", "aa:bb:cc:dd:ee:ff\n"),
    "an address that is too long": ("terminal", "1" * 81),
    "a port that is too high": ("peer_port", 65_536),
    "a port that is true": ("peer_port", True),
    "a port that is no integer": ("peer_port", 80.0),
    "a subject that is too long": ("subject", "x" * 1001),
    "a subject with NUL": ("subject", "\0"),
    "a subject with half a character": ("subject", "\ud800"),
    "a list that is none": ("list_name", None),
    "an unknown key": ("colour", "red"),
    "an unknown kind": ("kind", "rumour"),
    "a kind that cannot be a key": ("kind", {}),
}


@pytest.mark.parametrize(("key", "value"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_record_with_something_wrong_is_refused_and_its_neighbours_are_not(key: str, value: object) -> None:
    bad = json.loads(encode_record(event())) | {key: value}
    parsed = parse_datagram(json.dumps([bad, json.loads(encode_record(count()))]).encode())
    assert parsed.records == (count(),)
    assert len(parsed.refusals) == 1


@pytest.mark.parametrize("key", [*json.loads(encode_record(event()))])
def test_a_record_that_lacks_a_field_is_refused(key: str) -> None:
    part = json.loads(encode_record(event()))
    del part[key]
    assert parse_datagram(json.dumps([part]).encode()).records == ()


@pytest.mark.parametrize("number", [-1, MAX_COUNTED + 1, 10**30, 1.5])
def test_a_count_that_could_overflow_is_refused(number: float) -> None:
    bad = json.loads(encode_record(count())) | {"scanned": number}
    assert parse_datagram(json.dumps([bad]).encode()).records == ()


@pytest.mark.parametrize("part", [1, None, "event", [], {}], ids=repr)
def test_what_is_no_object_of_a_known_kind_is_refused(part: object) -> None:
    assert len(parse_datagram(json.dumps([part]).encode()).refusals) == 1
