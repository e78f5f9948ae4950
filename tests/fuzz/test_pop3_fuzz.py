"""POP3: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.pop3 import Pop3Error, Pop3Reader
from tests.support.mail_fuzz import CUTS, DIRECTIONS, NOISE, Dialect
from tests.support.mail_transcript import Talk

GREETING = b"+OK\r\n"
CLIENT_SAYS = rb"""RETR 1|TOP 1 2|LIST|LIST 1|UIDL|CAPA|AUTH|AUTH X|STLS|PASS|QUIT|XYZ|x"""
SERVER_SAYS = [b"+OK\r\n", b"-ERR\r\n", b"+ \r\n", b".\r\n", b"..\r\n", b"text\r\n", b"x", b"+OK\n"]
LOOSE = [b"\n", b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r.\r"]
CLIENT = st.sampled_from(CLIENT_SAYS.split(b"|")) | st.sampled_from([*[b"\r\n"] * 6, b"\n", b"\r"]) | st.binary(max_size=5)
SERVER = st.sampled_from([*SERVER_SAYS, *LOOSE]) | st.binary(max_size=5)
FILLERS = [b"x", b"\n", b"\n.\n", b"RETR 1\r\n", b"..\r\n", b"\0", b"+OK\r\n", b"+ \r\n", b"x\r\n.\r\n", b"\n.\n+\n", b"STLS\r\n"]
STARTS: list[list[tuple[int, bytes]]] = [[], [(ORIGINATOR, b"RETR 1\r\n"), (RESPONDER, b"+OK\r\n")], [(ORIGINATOR, b"STLS\r\n")]]

POP3 = Dialect(Pop3Reader, Pop3Error, GREETING, FILLERS, STARTS, max_held_bytes=(64 << 10) + 3 * 2048 + 100)
TALKS = POP3.talks(CLIENT, SERVER)


@given(TALKS, CUTS)
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    POP3.check_segments(said, at)


@given(TALKS | NOISE)
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    POP3.check_mails(said)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), DIRECTIONS)
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    POP3.check_held(said, filler, direction)


def test_what_is_held_is_bounded_whatever_is_repeated() -> None:
    POP3.check_held_by_each()


def test_no_filler_takes_long() -> None:
    POP3.check_time()
