"""POP3: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

import contextlib
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.pop3 import Pop3Error, Pop3Reader
from tests.support.mail_transcript import Recorder, Talk, byte_by_byte, cut, join, read
from tests.support.wait import patience_s

GREETING = b"+OK\r\n"
CLIENT_SAYS = rb"""RETR 1|TOP 1 2|LIST|LIST 1|UIDL|CAPA|AUTH|AUTH X|STLS|PASS|QUIT|XYZ|x"""
SERVER_SAYS = [b"+OK\r\n", b"-ERR\r\n", b"+ \r\n", b".\r\n", b"..\r\n", b"text\r\n", b"x", b"+OK\n"]
LOOSE = [b"\n", b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r.\r"]
CLIENT = st.sampled_from(CLIENT_SAYS.split(b"|")) | st.sampled_from([*[b"\r\n"] * 6, b"\n", b"\r"]) | st.binary(max_size=5)
SERVER = st.sampled_from([*SERVER_SAYS, *LOOSE]) | st.binary(max_size=5)
FILLERS = [b"x", b"\n", b"\n.\n", b"RETR 1\r\n", b"..\r\n", b"\0", b"+OK\r\n", b"+ \r\n", b"x\r\n.\r\n", b"\n.\n+\n", b"STLS\r\n"]
STARTS: list[list[tuple[int, bytes]]] = [[], [(ORIGINATOR, b"RETR 1\r\n"), (RESPONDER, b"+OK\r\n")], [(ORIGINATOR, b"STLS\r\n")]]
MAX_HELD_BYTES = (64 << 10) + 3 * 2048 + 100

TALKS = st.lists(
    st.tuples(st.just(ORIGINATOR), st.lists(CLIENT, max_size=8).map(b"".join))
    | st.tuples(st.just(RESPONDER), st.lists(SERVER, max_size=8).map(b"".join)),
    max_size=12,
).map(lambda talk: [(RESPONDER, GREETING), *talk])


@given(TALKS, st.lists(st.integers(0, 500), max_size=10))
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    def heard(talk: Talk) -> object:
        return read(lambda: Pop3Reader(mail=Recorder), talk, Pop3Error)

    whole = heard(join(said))
    assert heard(byte_by_byte(said)) == whole
    assert heard(cut(said, at)) == whole


@given(TALKS | st.lists(st.tuples(st.sampled_from([ORIGINATOR, RESPONDER]), st.binary(max_size=100))))
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    assert read(Pop3Reader, said, Pop3Error) == read(Pop3Reader, said, Pop3Error)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), st.sampled_from([ORIGINATOR, RESPONDER]))
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    reader = Pop3Reader(mail=Recorder)
    with contextlib.suppress(Pop3Error):
        for side, data in [*said, *[(direction, filler * (20_000 // len(filler)))] * 10]:
            reader.receive(side, data)
            assert reader.held_bytes <= MAX_HELD_BYTES


def test_no_filler_takes_long() -> None:
    """Quadratic work would show: a segment of GSO size takes less than a second at its slowest, and would take a minute."""
    for filler in FILLERS:
        for direction in (ORIGINATOR, RESPONDER):
            for before in STARTS:
                reader = Pop3Reader(mail=Recorder)
                begun = time.monotonic()
                with contextlib.suppress(Pop3Error):
                    for side, data in [(RESPONDER, GREETING), *before, (direction, filler * (65_000 // len(filler)))]:
                        reader.receive(side, data)
                assert time.monotonic() - begun < patience_s(5), (filler, direction)
