"""SMTP: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

import contextlib
import re
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.smtp import SmtpError, SmtpReader
from tests.support.mail_transcript import Recorder, Talk, byte_by_byte, cut, join, read
from tests.support.wait import patience_s

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
MAX_HELD_BYTES = (64 << 10) + 3 * 2048 + 100

TALKS = st.lists(
    st.tuples(st.just(ORIGINATOR), st.lists(CLIENT, max_size=8).map(b"".join))
    | st.tuples(st.just(RESPONDER), st.lists(SERVER, max_size=8).map(b"".join)),
    max_size=12,
).map(lambda talk: [(RESPONDER, GREETING), *talk])


@given(TALKS, st.lists(st.integers(0, 500), max_size=10))
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    def heard(talk: Talk) -> object:
        return read(lambda: SmtpReader(mail=Recorder), talk, SmtpError)

    whole = heard(join(said))
    assert heard(byte_by_byte(said)) == whole
    assert heard(cut(said, at)) == whole


@given(TALKS | st.lists(st.tuples(st.sampled_from([ORIGINATOR, RESPONDER]), st.binary(max_size=100))))
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    assert read(SmtpReader, said, SmtpError) == read(SmtpReader, said, SmtpError)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), st.sampled_from([ORIGINATOR, RESPONDER]))
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    reader = SmtpReader(mail=Recorder)
    with contextlib.suppress(SmtpError):
        for side, data in [*said, *[(direction, filler * (20_000 // len(filler)))] * 10]:
            reader.receive(side, data)
            assert reader.held_bytes <= MAX_HELD_BYTES


def test_no_filler_takes_long() -> None:
    """Quadratic work would show: a segment of GSO size takes less than a second at its slowest, and would take a minute."""
    for filler in FILLERS:
        for direction in (ORIGINATOR, RESPONDER):
            for before in STARTS:
                reader = SmtpReader(mail=Recorder)
                begun = time.monotonic()
                with contextlib.suppress(SmtpError):
                    for side, data in [(RESPONDER, GREETING), *before, (direction, filler * (65_000 // len(filler)))]:
                        reader.receive(side, data)
                assert time.monotonic() - begun < patience_s(5), (filler, direction)
