"""IMAP: any bytes of both sides give findings or the one error, the same in any segmentation, in bounded memory."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.imap import ImapError, ImapReader
from tests.support.mail_fuzz import CUTS, DIRECTIONS, NOISE, Dialect
from tests.support.mail_transcript import Talk, Transcript, join

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

IMAP = Dialect(ImapReader, ImapError, GREETING, FILLERS, STARTS, max_held_bytes=600 << 10)
TALKS = IMAP.talks(CLIENT, SERVER)


@given(TALKS, CUTS)
def test_any_talk_says_the_same_in_any_segments(said: Talk, at: list[int]) -> None:
    def without_ranges(found: Transcript) -> object:
        return found.messages, found.evasions, found.oddities, found.opaque, found.error

    is_deflated = any(b"COMPRESS" in data for _, data in join(said))  # ranges are then those of the segments
    IMAP.check_segments(said, at, without_ranges if is_deflated else None)


@given(TALKS | NOISE)
def test_any_talk_passes_the_reader_of_mails(said: Talk) -> None:
    IMAP.check_mails(said)


@settings(max_examples=10)
@given(TALKS, st.sampled_from(FILLERS), DIRECTIONS)
@example([(RESPONDER, GREETING)], FILLERS[0], ORIGINATOR)
def test_what_is_held_is_bounded(said: Talk, filler: bytes, direction: int) -> None:
    IMAP.check_held(said, filler, direction)


def test_what_is_held_is_bounded_whatever_is_repeated() -> None:
    IMAP.check_held_by_each()


def test_no_filler_takes_long() -> None:
    IMAP.check_time()
