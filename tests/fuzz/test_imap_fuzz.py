"""IMAP: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

import contextlib
import re
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.imap import ImapError, ImapReader
from tests.support.mail_transcript import Recorder, Talk, byte_by_byte, cut, join, read
from tests.support.wait import patience_s

GREETING = b"* OK\r\n"
CLIENT_SAYS = rb"""a APPEND x {5}|a APPEND x {5+}|b APPEND {1+}|a REPLACE 1 x {3}|a LOGIN {3}|a STARTTLS|a COMPRESS DEFLATE|a NOOP
a SELECT x|f FETCH 1 BODY[]<0.5>|f FETCH 1 BODY[]<5.5>|x|{5}"""
SERVER_SAYS = rb"""* 1 FETCH (|BODY[] {5}|BODY[]<0> {5}|BODY[]<5> {5}|BODY[1] {9}|BODY[TEXT] {40}|BODY[2.MIME] {9}|BINARY[1] ~{5}
RFC822 {5}|BODY[] "a\"b"|BODY[1]<3> "x"|FLAGS ({1}|)|RFC822.SIZE 10|* OK {5}|+ go|a OK|a NO|f OK|* 1 EXPUNGE| |content-type: x/y
BODYSTRUCTURE (("a" "b" ("c" "d") NIL NIL "BASE64" 1)("e" "f" NIL NIL NIL "7BIT" 1) "MIXED" ("BOUNDARY" "x"))"""
ENDS = st.sampled_from([*[b"\r\n"] * 6, b"\n", b"\r"]) | st.binary(max_size=5)
CLIENT = st.sampled_from(re.split(rb"[|\n]", CLIENT_SAYS)) | ENDS
SERVER = st.sampled_from(re.split(rb"[|\n]", SERVER_SAYS)) | ENDS
FILLERS = [
    *[b"x", b"\n", b"(", b" ", b'"', b"a\r\n", b"BODY[", b" BODY (", b' BODY[1] "x"'],
    *[b"{0}\r\n", b"{1}\r\nx", b" BODY[] {0}\r\n", b" BODY[1]<7> {1}\r\nx", b" BODY[2.MIME] {15}\r\ncontent-type:x\n"],
    *[b"a APPEND x {0+}\r\n", b"a APPEND x {1}\r\n", b"* 1 FETCH (BODY[] {1}\r\nx)\r\n"],
]
STARTS: list[list[tuple[int, bytes]]] = [
    [],
    [(RESPONDER, b"* 1 FETCH (")],
    [(ORIGINATOR, b"a COMPRESS DEFLATE\r\n"), (RESPONDER, b"a OK\r\n")],
    [(RESPONDER, b"* 1 FETCH (" + b"BODY (" * 9000)],
]
MAX_HELD_BYTES = 600 << 10

TALKS = st.lists(
    st.tuples(st.just(ORIGINATOR), st.lists(CLIENT, max_size=8).map(b"".join))
    | st.tuples(st.just(RESPONDER), st.lists(SERVER, max_size=8).map(b"".join)),
    max_size=12,
).map(lambda talk: [(RESPONDER, GREETING), *talk])


@given(TALKS, st.lists(st.integers(0, 500), max_size=10))
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    def heard(talk: Talk) -> object:
        found = read(lambda: ImapReader(mail=Recorder), talk, ImapError)
        if any(b"COMPRESS" in data for _, data in join(said)):  # ranges are then those of the segments
            return found.messages, found.evasions, found.oddities, found.opaque, found.error
        return found

    whole = heard(join(said))
    assert heard(byte_by_byte(said)) == whole
    assert heard(cut(said, at)) == whole


@given(TALKS | st.lists(st.tuples(st.sampled_from([ORIGINATOR, RESPONDER]), st.binary(max_size=100))))
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    assert read(ImapReader, said, ImapError) == read(ImapReader, said, ImapError)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), st.sampled_from([ORIGINATOR, RESPONDER]))
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    reader = ImapReader(mail=Recorder)
    with contextlib.suppress(ImapError):
        for side, data in [*said, *[(direction, filler * (20_000 // len(filler)))] * 10]:
            reader.receive(side, data)
            assert reader.held_bytes <= MAX_HELD_BYTES


def test_no_filler_takes_long() -> None:
    """Quadratic work would show: a segment of GSO size takes less than a second at its slowest, and would take a minute."""
    for filler in FILLERS:
        for direction in (ORIGINATOR, RESPONDER):
            for before in STARTS:
                reader = ImapReader(mail=Recorder)
                begun = time.monotonic()
                with contextlib.suppress(ImapError):
                    for side, data in [(RESPONDER, GREETING), *before, (direction, filler * (65_000 // len(filler)))]:
                        reader.receive(side, data)
                assert time.monotonic() - begun < patience_s(5), (filler, direction)
