"""What is merged before it is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mamori.events.batch import CLOCK_TOLERANCE_S, MAX_RECENT, MAX_ROWS, Merger, Sum, is_better
from mamori.events.record import Action, Event, Function, Heading, TerminalSeen
from tests.support.records import BUILD_S, MAC, NOW_S, count, event


def rows(merger: Merger) -> list[tuple[str, float, float, int, bool]]:
    return [
        (row.event.subject, row.event.at_s - NOW_S, row.last_s - NOW_S, row.times, row.is_clock_good)
        for row in merger.batch.rows.values()
    ]


def test_the_same_event_within_a_minute_is_one_row() -> None:
    merger = Merger(BUILD_S)
    for second in (0.0, 1.0, 59.9, 60.0, 61.0):
        merger.add(event("a", NOW_S + second), NOW_S)
    assert rows(merger) == [("a", 0.0, pytest.approx(59.9, abs=0.01), 3, True), ("a", 60.0, 61.0, 2, True)]


def test_a_repetition_is_found_across_batches_and_written_again() -> None:
    merger = Merger(BUILD_S)
    merger.add(event("a"), NOW_S)
    (row,) = merger.take().rows.values()
    row.rowid = 7
    merger.add(event("b", NOW_S + 1), NOW_S)
    merger.add(event("a", NOW_S + 2), NOW_S)
    assert [(row.event.subject, row.times, row.rowid) for row in merger.batch.rows.values()] == [("b", 1, None), ("a", 2, 7)]


DIFFERENT = {
    "function": event(function=Function.VIRUS),
    "action": event(action=Action.LOGGED),
    "terminal": event(mac="02:00:00:00:00:99"),
    "heading": replace(event(), heading=Heading.INBOUND),
    "protocol": replace(event(), protocol="imap"),
    "subject": event("another"),
    "list": event(list_name="another"),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_an_event_that_differs_in_what_matters_is_a_row_of_its_own(other: Event) -> None:
    merger = Merger(BUILD_S)
    merger.add(event(), NOW_S)
    merger.add(other, NOW_S)
    assert len(rows(merger)) == 2


def test_the_same_terminal_with_another_address_is_the_same_terminal() -> None:
    merger = Merger(BUILD_S)
    merger.add(event(terminal="192.0.2.17"), NOW_S)
    merger.add(event(terminal="2001:db8::17"), NOW_S)
    assert len(rows(merger)) == 1


@pytest.mark.parametrize(
    ("at_s", "is_good"),
    [
        pytest.param(0.0, False, id="1970"),
        pytest.param(BUILD_S - 1, False, id="before the build"),
        pytest.param(BUILD_S, True, id="at the build"),
        pytest.param(NOW_S + CLOCK_TOLERANCE_S, True, id="a day ahead"),
        pytest.param(NOW_S + CLOCK_TOLERANCE_S + 1, False, id="more than a day ahead"),
        pytest.param(2.0**40, False, id="the end of time"),
    ],
)
def test_a_clock_that_cannot_be_right_is_marked_and_its_counts_have_no_time(at_s: float, is_good: bool) -> None:
    merger = Merger(BUILD_S)
    merger.add(event(at_s=at_s), NOW_S)
    merger.add(count(at_s=at_s), NOW_S)
    assert [row.is_clock_good for row in merger.batch.rows.values()] == [is_good]
    ((*_, minute),) = merger.batch.sums
    assert minute == (int(at_s // 60 * 60) if is_good else 0)


def test_counts_of_a_minute_are_one_sum() -> None:
    merger = Merger(BUILD_S)
    minute = NOW_S // 60 * 60
    for second in (0, 30, 59, 60):
        merger.add(count(10, 1, minute + second), NOW_S)
    assert list(merger.batch.sums.values()) == [Sum(30, 3), Sum(10, 1)]


def test_a_full_batch_drops_events_and_counts_them_and_goes_on_summing_up() -> None:
    merger = Merger(BUILD_S)
    for number in range(MAX_ROWS + 100):
        merger.add(event(f"{number}"), NOW_S)
    assert (len(merger.batch.rows), merger.lost) == (MAX_ROWS, 100)
    for number in range(5 * MAX_ROWS):
        merger.add(count(mac="", terminal=f"{number}", at_s=NOW_S + number), NOW_S)
    assert sum(total.scanned for total in merger.batch.sums.values()) == 5 * MAX_ROWS
    assert len(merger.batch.sums) < MAX_ROWS
    assert merger.lost == 100


def test_what_may_be_repeated_is_remembered_with_a_limit() -> None:
    merger = Merger(BUILD_S)
    for number in range(MAX_RECENT + 1):
        merger.add(event(f"{number}"), NOW_S)
    merger.add(event("0"), NOW_S)
    merger.add(event(f"{MAX_RECENT}"), NOW_S)
    assert len(merger.batch.rows) == MAX_RECENT + 2, "the oldest was forgotten, the newest was not"


def test_a_new_database_holds_no_row_that_could_be_repeated() -> None:
    merger = Merger(BUILD_S)
    merger.add(event("old"), NOW_S)
    (row,) = merger.take().rows.values()
    row.rowid = 7
    merger.forget()
    merger.add(event("old"), NOW_S)
    assert [row.rowid for row in merger.batch.rows.values()] == [None]


def test_a_row_that_waits_when_the_database_is_replaced_is_inserted() -> None:
    merger = Merger(BUILD_S)
    merger.add(event("old"), NOW_S)
    (row,) = merger.take().rows.values()
    row.rowid = 7
    merger.add(event("old"), NOW_S)
    merger.forget()
    assert [(row.rowid, row.times) for row in merger.batch.rows.values()] == [(None, 2)]


@pytest.mark.parametrize(
    ("sources", "best"),
    [
        (("netbios", "dhcp", "mdns"), "dhcp"),
        (("mdns", "netbios"), "mdns"),
        (("dhcp", "dhcp"), "dhcp"),
        (("rumour", "netbios"), "netbios"),
    ],
)
def test_of_several_names_the_best_source_is_believed_and_of_equals_the_last(sources: tuple[str, ...], best: str) -> None:
    merger = Merger(BUILD_S)
    for number, source in enumerate(sources):
        merger.add(TerminalSeen(NOW_S, MAC, "", f"{source}-{number}", source), NOW_S)
    (seen,) = merger.batch.names.values()
    assert seen.source == best
    assert seen.name == f"{best}-{max(number for number, source in enumerate(sources) if source == best)}"
    assert is_better("dhcp", "rumour")
