"""The files of one connection by value: what the scanner gets, who waits, and which bytes may still be written over."""

from __future__ import annotations

import pytest

from mamori.inspect.applications import own_applications
from mamori.inspect.commands import BeginScan, CancelScan, FeedScan, FinishScan
from mamori.inspect.desk import Desk
from mamori.inspect.files import MAX_FILES, CarriedFile, Files, can_overwrite
from mamori.inspect.findings import Coding, FileData, FileStarted
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.judge import Judge
from mamori.inspect.policy import Policy
from mamori.inspect.sources import NoLists


class Nobody:
    def scanned(self, file: int, signature: str | None, unseen: str | None) -> None:  # noqa: ARG002
        raise AssertionError("the files do not answer themselves")


@pytest.fixture
def desk() -> Desk:
    return Desk(Judge(Policy(), NoLists(), own_applications()))


@pytest.fixture
def files(desk: Desk) -> Files:
    return Files(desk, Nobody())


def begin(files: Files, number: int = 1, direction: int = RESPONDER) -> CarriedFile:
    return files.begin(direction, FileStarted(number, 0, "a.exe", "http://a.example/"))


def feed(files: Files, start: int, end: int, coding: Coding = Coding.BINARY, *, keeps: bool = True, file: int = 1) -> None:
    assert files.feed(FileData(file, start, end, coding, b"x" * (end - start)), keeps) is not None


def ranges(carried: CarriedFile) -> list[tuple[int, int, Coding]]:
    return [tuple(each) for each in carried.ranges]  # type: ignore[misc]


def test_a_file_is_begun_fed_and_finished_once(desk: Desk, files: Files) -> None:
    carried = begin(files)
    feed(files, 0, 3)
    files.feed(FileData(1, 3, 5, Coding.BINARY, b""), keeps_ranges=True)
    assert files.end(1) is carried
    assert carried.is_waiting
    assert files.end(1) is None
    assert desk.out == [BeginScan(carried.scan, None), FeedScan(carried.scan, b"xxx"), FinishScan(carried.scan)]
    assert files.judge(1, None, None) is carried
    assert files.judge(1, None, None) is None, "it is done with"
    assert desk.scans == {}


def test_ranges_that_touch_are_one_and_others_are_not(files: Files) -> None:
    carried = begin(files)
    feed(files, 0, 10)
    feed(files, 10, 20)
    feed(files, 25, 30)
    feed(files, 30, 40, Coding.TEXT)
    assert ranges(carried) == [(0, 20, Coding.BINARY), (25, 30, Coding.BINARY), (30, 40, Coding.TEXT)]


def test_where_nothing_will_be_written_over_no_range_is_kept(files: Files) -> None:
    carried = begin(files)
    for start in range(0, 1000, 20):
        feed(files, start, start + 10, keeps=False)
    files.feed(FileData(1, 5, 5, Coding.BINARY, b"decoded from what came before"), keeps_ranges=True)
    assert carried.ranges == []


LET_OUT = {
    "all of it": ((0, 100), []),
    "more than it": ((-5, 200), []),
    "its front": ((0, 40), [(40, 60), (70, 100)]),
    "its end": ((70, 100), [(0, 60)]),
    "a piece inside": ((10, 20), [(0, 10), (20, 60), (70, 100)]),
    "over the hole": ((50, 80), [(0, 50), (80, 100)]),
    "only the hole": ((60, 70), [(0, 60), (70, 100)]),
    "what is before": ((-10, 0), [(0, 60), (70, 100)]),
    "what is behind": ((100, 110), [(0, 60), (70, 100)]),
}


@pytest.mark.parametrize(("out", "left"), LET_OUT.values(), ids=LET_OUT)
def test_what_is_out_cannot_be_written_over_any_more(files: Files, out: tuple[int, int], left: list[tuple[int, int]]) -> None:
    carried, other = begin(files), begin(files, 2, ORIGINATOR)
    feed(files, 0, 60)
    feed(files, 70, 100)
    feed(files, 0, 100, file=2)
    files.let_out(RESPONDER, *out)
    assert [each[:2] for each in ranges(carried)] == left
    assert ranges(other) == [(0, 100, Coding.BINARY)], "the other direction has offsets of its own"


def test_whether_bytes_belong_to_a_file_is_asked_by_direction_and_place(files: Files) -> None:
    begin(files)
    feed(files, 10, 20)
    asked = {(5, 10): False, (5, 11): True, (19, 25): True, (20, 25): False, (12, 15): True}
    assert {place: files.keeps(RESPONDER, *place) for place in asked} == asked
    assert not files.keeps(ORIGINATOR, 12, 15)


def test_a_connection_that_ends_cancels_what_nobody_waits_for(desk: Desk, files: Files) -> None:
    first, second = begin(files, 1), begin(files, 2)
    files.lose(1, "cannot be read")
    files.close()
    files.close()
    assert desk.out[2:] == [CancelScan(first.scan), CancelScan(second.scan)]
    assert desk.scans == {}
    assert files.all_open() == []


def test_beyond_the_limit_a_file_is_unseen_and_the_scanner_hears_nothing_of_it(desk: Desk, files: Files) -> None:
    for number in range(MAX_FILES):
        assert begin(files, number).unseen is None
    desk.out.clear()
    one_more = begin(files, MAX_FILES)
    assert one_more.unseen == "too many files at once"
    feed(files, 0, 10, file=MAX_FILES)
    files.end(MAX_FILES)
    assert desk.out == []


def test_what_is_compressed_as_a_stream_cannot_be_made_harmless_in_place(files: Files) -> None:
    carried = begin(files)
    feed(files, 0, 10)
    assert can_overwrite(carried)
    feed(files, 10, 20, Coding.COMPRESSED)
    assert not can_overwrite(carried)


def test_a_file_that_cannot_be_read_further_is_cancelled_once(desk: Desk, files: Files) -> None:
    carried = begin(files)
    assert files.lose(1, "too deep") is carried
    assert files.lose(1, "again") is None
    assert carried.unseen == "too deep"
    assert desk.out[1:] == [CancelScan(carried.scan)]
    infected = begin(files, 2)
    files.judge(2, "Virus", None)
    assert files.lose(2, "too late") is None
    assert (infected.signature, infected.unseen) == ("Virus", None)


def test_a_direction_waits_for_what_is_finished_and_for_a_scanner_that_is_behind(files: Files) -> None:
    begin(files)
    assert files.open_in(RESPONDER)
    assert not files.open_in(ORIGINATOR)
    assert not files.waiting(RESPONDER)
    files.lag(1, is_behind=True)
    assert files.overdue(RESPONDER) == [1]
    assert files.overdue(ORIGINATOR) == []
    files.lag(1, is_behind=False)
    assert not files.waiting(RESPONDER)
    files.end(1)
    assert not files.open_in(RESPONDER)
    assert files.waiting(RESPONDER)
    assert files.lag(1, is_behind=True) is None, "what is finished only waits for its verdict"


@pytest.mark.parametrize(("signature", "unseen"), [("Virus", None), (None, "encrypted")], ids=["infected", "unseen"])
def test_a_file_with_a_verdict_is_not_fed_and_does_not_lag(
    desk: Desk, files: Files, signature: str | None, unseen: str | None
) -> None:
    begin(files)
    files.judge(1, signature, unseen)
    desk.out.clear()
    feed(files, 0, 10)
    assert files.lag(1, is_behind=True) is None
    assert desk.out == []


def test_only_what_is_open_is_cancelled_by_name(desk: Desk, files: Files) -> None:
    first = begin(files, 1)
    begin(files, 2)
    files.end(2)
    desk.out.clear()
    for number in (1, 2, 3):
        files.cancel(number)
    assert desk.out == [CancelScan(first.scan)]
