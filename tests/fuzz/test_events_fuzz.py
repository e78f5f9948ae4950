"""Any datagram is records or the one error; any record survives the way to the disk and to a terminal."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from mamori.events.batch import Merger
from mamori.events.escape import printable, printable_json, width
from mamori.events.query import EventQuery, open_database, read_events
from mamori.events.record import Action, Count, Event, Function, Heading, Record, TerminalSeen
from mamori.events.render import render_events, render_events_json
from mamori.events.store import Store
from mamori.events.times import japan, parse_time
from mamori.events.wire import MAX_COUNTED, MAX_DATAGRAM_BYTES, MAX_TIME_S, WireError, encode_record, join_records, parse_datagram
from mamori.formats.problems import BadInputError

TEXTS = st.text(st.characters(), max_size=30) | st.sampled_from(["\0", "\ud800", "x" * 5000, "\x1b[31m", "%_\\'\"", "絵文字" * 500])
TIMES = st.floats(0, MAX_TIME_S) | st.floats(1_795_000_000, 1_795_500_000)
MACS = st.sampled_from(["", "02:00:00:00:00:11", "02:00:00:00:00:22"])
COUNTED = st.integers(0, MAX_COUNTED)
EVENTS = st.builds(
    Event,
    *(TIMES, st.sampled_from(Function), st.sampled_from(Action), st.sampled_from(Heading), MACS, TEXTS),
    *(TEXTS, st.integers(0, 65_535), TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
)
COUNTS = st.builds(Count, TIMES, st.sampled_from(Function), TEXTS, MACS, TEXTS, TEXTS, COUNTED, COUNTED)
RECORDS = EVENTS | COUNTS | st.builds(TerminalSeen, TIMES, MACS, TEXTS, TEXTS, st.sampled_from(["dhcp", "mdns", "rumour"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_datagram_is_records_or_the_one_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        parsed = parse_datagram(data)
        assert all(isinstance(record, Event | Count | TerminalSeen) for record in parsed.records)


@given(RECORDS, st.sampled_from(["kind", "at_s", "function", "action", "terminal_mac", "subject", "scanned", "mac"]), JSON)
def test_a_record_with_any_value_in_a_field_is_a_record_or_refused(record: Record, key: str, value: object) -> None:
    part = json.loads(encode_record(record)) | {key: value}
    data = json.dumps([part]).encode()
    if len(data) <= MAX_DATAGRAM_BYTES:
        parsed = parse_datagram(data)
        assert len(parsed.records) + len(parsed.refusals) == 1


@given(RECORDS)
def test_what_was_made_storable_survives_being_sent_again(record: Record) -> None:
    encoded = encode_record(record)
    (arrived,) = parse_datagram(join_records([encoded])).records
    assert encode_record(arrived) == encoded


@settings(max_examples=30)
@given(st.lists(RECORDS, max_size=20))
def test_any_records_are_stored_and_shown(records: list[Record]) -> None:
    merger = Merger(1_795_000_000.0)
    for record in parse_datagram(join_records(map(encode_record, records))).records:
        merger.add(record, 1_795_400_000.0)
    batch = merger.take()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events/events.db"
        store = Store(path, check=False)
        store.write(batch)
        with open_database(path) as database:
            events = read_events(database, EventQuery(), 100)
        sums = [sqlite3.connect(path).execute(f"SELECT total(scanned) FROM {name}").fetchone() for name in ("minutes", "days")]  # noqa: S608
        store.close()
    assert sum(event.times for event in events) == sum(isinstance(record, Event) for record in records)
    expected = math.fsum(record.scanned for record in records if isinstance(record, Count))
    assert sums == [(expected,), (expected,)]
    shown = render_events(events, japan(), colour=False)
    assert shown.count("\n") == len(events)
    assert shown.replace("\n", "").isprintable()
    assert [json.loads(line)["id"] for line in render_events_json(events, japan()).splitlines()] == [event.id for event in events]


@given(TEXTS)
def test_any_text_is_printable_and_has_a_width(text: str) -> None:
    assert printable(text).isprintable()
    assert 0 <= width(printable(text)) <= 2 * len(printable(text))
    assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,8}[mhdw]|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:+.]{0,12})?", fullmatch=True))
def test_any_text_is_a_time_or_bad_input(text: str) -> None:
    with contextlib.suppress(BadInputError):
        assert parse_time(text, "--since", 1_795_400_000.0, japan()) >= 0


@settings(max_examples=30)
@given(TEXTS, TEXTS)
def test_any_question_has_an_answer(terminal: str, search: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events/events.db"
        Store(path, check=False).close()
        with open_database(path) as database:
            assert read_events(database, EventQuery(terminal=terminal, search=search), 10) == []
