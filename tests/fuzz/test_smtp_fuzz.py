"""SMTP: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.smtp import SmtpError, SmtpReader
from tests.support.mail_fuzz import CUTS, DIRECTIONS, NOISE, Dialect
from tests.support.mail_transcript import Talk

GREETING = b"220 mx ESMTP\r\n"
CLIENT_SAYS = rb"""EHLO a|LHLO a|HELO a|MAIL FROM:<a@a>|RCPT TO:<b@b>|DATA|data |BDAT 5|BDAT 0 LAST|BDAT 9 last|BDAT -1
RSET|QUIT|STARTTLS|AUTH X|NOOP|x|.|.."""
SERVER_SAYS = rb"""250 ok|250 CHUNKING|250-CHUNKING|354 go|503 no|500 what|334 x|220 go|421 bye|25|x"""
ENDS = st.sampled_from([*[b"\r\n"] * 6, b"\n", b"\r", b"\0", b"\n.\n", b"\r\n.\r\n", b"\n.\r\n", b"\r.\r", b"\r\n\0.\r\n"])
CLIENT = st.sampled_from(re.split(rb"[|\n]", CLIENT_SAYS)) | ENDS | st.binary(max_size=5)
SERVER = st.sampled_from([line + b"\r\n" for line in SERVER_SAYS.split(b"|")]) | st.binary(max_size=5)
FILLERS = [
    *[b"x", b"\n", b"\r", b"\0", b"\0.", b"\n.\n", b"..\r\n", b"\r\n.x", b"\n.\nDATA\n"],
    *[b"DATA\r\n", b"BDAT 1 LAST\r\nx", b"250-a\r\n", b"250 a\r\n"],
]
STARTS: list[list[tuple[int, bytes]]] = [[], [(ORIGINATOR, b"DATA\r\n"), (RESPONDER, b"354\r\n")], [(ORIGINATOR, b"DATA\r\n")]]

SMTP = Dialect(SmtpReader, SmtpError, GREETING, FILLERS, STARTS, max_held_bytes=(64 << 10) + 3 * 2048 + 100)
TALKS = SMTP.talks(CLIENT, SERVER)


@given(TALKS, CUTS)
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    SMTP.check_segments(said, at)


@given(TALKS | NOISE)
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    SMTP.check_mails(said)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), DIRECTIONS)
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    SMTP.check_held(said, filler, direction)


def test_what_is_held_is_bounded_whatever_is_repeated() -> None:
    SMTP.check_held_by_each()


def test_no_filler_takes_long() -> None:
    SMTP.check_time()
