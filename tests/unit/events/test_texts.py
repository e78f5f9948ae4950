"""The small decisions: times that people write, text that is shown, what is kept how long."""

from __future__ import annotations

import datetime

import pytest

from mamori.events.escape import padded, printable, printable_json, width
from mamori.events.retention import (
    MAX_CLOCK_AGE_S,
    MAX_DATABASE_BYTES,
    MIN_DATABASE_BYTES,
    SETTLE_S,
    STEADY_S,
    ClockWatch,
    expired_up_to,
    plan_cutoffs,
    plan_size,
)
from mamori.events.times import format_time, japan, parse_time, week_of
from mamori.formats.problems import BadInputError
from tests.support.records import BUILD_S, NOW_S

FIXED = datetime.timezone(datetime.timedelta(hours=9), "JST")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", NOW_S - 1800),
        ("1h", NOW_S - 3600),
        ("2d", NOW_S - 172_800),
        ("1w", NOW_S - 604_800),
        ("999999w", 0.0),
        ("2026-11-23", 1_795_359_600.0),
        ("2026-11-23T18:30", 1_795_426_200.0),
        ("2026-11-23 18:30:05", 1_795_426_205.0),
        ("2026-11-23T09:30Z", 1_795_426_200.0),
        ("1960-01-01", 0.0),
    ],
)
@pytest.mark.parametrize("zone", [japan(), FIXED], ids=["tzdata", "fixed"])
def test_a_time_is_an_age_or_a_date_in_japan(text: str, seconds: float, zone: datetime.tzinfo) -> None:
    assert parse_time(text, "--since", NOW_S, zone) == seconds


@pytest.mark.parametrize("text", ["", "1y", "h", "-1h", "１h", "1.5h", "9" * 30 + "h", "yesterday", "2026-02-30", "24:00"])
def test_what_is_no_time_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(BadInputError, match="command line: --until: expected an age"):
        parse_time(text, "--until", NOW_S, FIXED)


@pytest.mark.parametrize(
    ("at_s", "text"), [(0, "1970-01-01 09:00:00"), (NOW_S, "2026-11-23 11:13:20"), (2.0**40, "@1099511627776")]
)
def test_any_time_that_can_be_stored_can_be_shown(at_s: float, text: str) -> None:
    assert format_time(at_s, FIXED) == text


def test_weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday() -> None:
    assert [week_of(datetime.date(2026, 11, 22)), week_of(datetime.date(2026, 11, 23))] == ["2026-W47", "2026-W48"]
    assert week_of(datetime.date(2027, 1, 1)) == "2026-W53"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 日本語", "plain 日本語"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc", r"a\x0ab\x09c"),
        ("\x9b", r"\x9b"),
        ("\u202e\u2066", r"\u202e\u2066"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
    ],
    ids=ascii,
)
def test_what_could_do_something_to_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_json_keeps_its_meaning_when_it_is_made_printable() -> None:
    import json

    text = "".join(map(chr, range(0x3000))) + "\ufeff\ufffb\U0001f600"
    shown = printable_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == text
    assert not set(shown) & set(
        map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
    )


def test_japanese_takes_two_columns_and_combining_marks_none() -> None:
    assert [width("abc"), width("日本"), width("ｱ"), width("が"), width("か\u3099")] == [3, 4, 1, 2, 2]
    assert padded("日本", 6) == "日本  "


def test_the_size_is_a_share_of_the_partition_between_two_limits() -> None:
    assert plan_size(1024**4) == MAX_DATABASE_BYTES
    assert plan_size(1024**3) == 107_374_182
    assert plan_size(0) == MIN_DATABASE_BYTES


def test_a_clock_is_trusted_after_it_went_steadily_for_an_hour() -> None:
    watch = ClockWatch(NOW_S, 0.0)
    for now in range(0, 4000, 60):
        watch = watch.look(NOW_S + now + now / 100, float(now))  # slewed by NTP
        assert watch.is_settled(NOW_S + now, float(now), BUILD_S) is (now >= SETTLE_S)
    jumped = watch.look(NOW_S + 4000 + 2 * STEADY_S + 60, 4000.0)
    assert not jumped.is_settled(NOW_S + 4000, 4000.0, BUILD_S)
    assert jumped.is_settled(NOW_S, 4000.0 + SETTLE_S, BUILD_S)


@pytest.mark.parametrize("wall_s", [0.0, BUILD_S - 1, BUILD_S + MAX_CLOCK_AGE_S + 1])
def test_a_time_that_cannot_be_is_not_trusted_however_steady(wall_s: float) -> None:
    assert not ClockWatch(wall_s, 0.0).is_settled(wall_s, 1e6, BUILD_S)


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([(1, 5.0, True), (2, 15.0, True)], 1, id="up to the first that is young"),
        pytest.param([(1, 15.0, True), (2, 5.0, True)], None, id="not past a young one"),
        pytest.param([(1, 0.0, False), (2, 0.0, False)], None, id="without a time nobody knows"),
        pytest.param([(1, 0.0, False), (2, 5.0, True), (3, 0.0, False), (4, 15.0, True)], 2, id="with the next that has a time"),
        pytest.param([(1, 5.0, True), (2, 1e9, False), (3, 6.0, True)], 3, id="all of them"),
    ],
)
def test_old_rows_go_in_the_order_in_which_they_came(rows: list[tuple[int, float, bool]], last: int | None) -> None:
    assert expired_up_to(rows, 10.0) == last


def test_finer_sums_are_kept_for_a_shorter_time() -> None:
    cutoffs = plan_cutoffs(NOW_S)
    assert NOW_S > cutoffs.minutes_s > cutoffs.hours_s > cutoffs.events_s > cutoffs.days_s
