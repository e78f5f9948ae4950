"""FTP's data connections: a file from the first byte to FIN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.findings import AnomalySeen, Coding, DataConnectionExpected, FileData, FileEnded, FileStarted, FileUnseen
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.ftp_data import FtpDataReader, data_sender
from tests.support.hellos import cut

FILE = bytes(range(256))


@pytest.mark.parametrize(
    ("listener", "sender", "expected"),
    [
        pytest.param(RESPONDER, RESPONDER, RESPONDER, id="passive download: the server is connected to, and sends"),
        pytest.param(RESPONDER, ORIGINATOR, ORIGINATOR, id="passive upload: the client connects, and sends"),
        pytest.param(ORIGINATOR, RESPONDER, ORIGINATOR, id="active download: the server connects, and sends"),
        pytest.param(ORIGINATOR, ORIGINATOR, RESPONDER, id="active upload: the client is connected to, and sends"),
        pytest.param(RESPONDER, None, None, id="not known"),
    ],
)
def test_the_sender_is_told_in_directions_of_the_data_connection(listener: int, sender: int | None, expected: int | None) -> None:
    assert data_sender(DataConnectionExpected(listener, "", 1, sender, "")) == expected


@given(st.lists(st.integers(0)), st.sampled_from([None, ORIGINATOR]), st.sampled_from([Coding.BINARY, Coding.TEXT]))
def test_a_file_is_read_however_it_is_cut(cuts: list[int], sender: int | None, coding: Coding) -> None:
    reader = FtpDataReader("/pub/a.bin", sender, (7, 9), coding)
    started, *data = [finding for piece in cut(FILE, cuts) for finding in reader.receive(ORIGINATOR, piece)]
    assert started == FileStarted(1, 7, "a.bin", "/pub/a.bin")
    assert b"".join(bytes(one.data) for one in data if isinstance(one, FileData)) == FILE
    assert [(one.file, one.coding, one.end - one.start == len(one.data)) for one in data if isinstance(one, FileData)] == [
        (1, coding, True)
    ] * len(data)
    assert (reader.end(ORIGINATOR), reader.end(ORIGINATOR), reader.held_bytes) == ([FileEnded(1, 7 + 256, is_complete=True)], [], 0)
    assert reader.end(RESPONDER) == []


def test_an_empty_file_is_a_file_of_its_sender() -> None:
    reader = FtpDataReader("a", RESPONDER)
    assert reader.end(ORIGINATOR) == []
    assert reader.end(RESPONDER) == [FileStarted(1, 0, "a", "a"), FileEnded(1, 0, is_complete=True)]


def test_nothing_from_nobody_is_no_file() -> None:
    reader = FtpDataReader()
    assert [reader.receive(0, b""), reader.end(0), reader.end(1)] == [[], [], []]


def test_what_the_receiver_sends_is_odd_and_read_all_the_same() -> None:
    reader = FtpDataReader("a", RESPONDER)
    first, started, data = reader.receive(ORIGINATOR, b"x")
    assert isinstance(first, AnomalySeen)
    assert (started, data) == (FileStarted(1, 0, "a", "a"), FileData(1, 0, 1, Coding.BINARY, b"x"))
    assert reader.receive(RESPONDER, b"y") == [FileStarted(2, 0, "a", "a"), FileData(2, 0, 1, Coding.BINARY, b"y")]


def test_what_the_control_connection_says_late_counts_until_the_file_begins() -> None:
    reader = FtpDataReader()
    reader.expect("/a", RESPONDER, Coding.TEXT)
    assert reader.receive(RESPONDER, b"x") == [FileStarted(1, 0, "a", "/a"), FileData(1, 0, 1, Coding.TEXT, b"x")]


def test_a_file_that_is_compressed_is_unseen() -> None:
    reader = FtpDataReader("a", RESPONDER, coding=Coding.COMPRESSED)
    started, unseen = reader.receive(RESPONDER, b"x\x9c")
    assert (started, isinstance(unseen, FileUnseen)) == (FileStarted(1, 0, "a", "a"), True)
    assert (reader.receive(RESPONDER, b"y"), reader.end(RESPONDER)) == ([], [FileEnded(1, 3, is_complete=True)])
