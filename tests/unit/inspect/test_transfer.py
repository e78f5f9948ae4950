"""Content-Transfer-Encodings, decoded as mail readers decode them. Python's codecs are the peers."""

from __future__ import annotations

import base64
import binascii
import quopri
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.transfer import MAX_HELD_BLANKS, Base64, Decoder, QuotedPrintable, Transfer, decoder_of

NOISE = random.Random(5).randbytes(1000)  # noqa: S311 - data without structure


def decoded(decoder: Decoder, text: bytes, step: int) -> tuple[bytes, bool]:
    data = b"".join(decoder.receive(text[at : at + step]) for at in range(0, len(text), step)) + decoder.end()
    assert not decoder.held_bytes
    return data, decoder.is_odd


def read(transfer: Transfer, text: bytes) -> tuple[bytes, bool]:
    whole = decoded(decoder_of(transfer), text, max(1, len(text)))
    for step in (1, 2, 3, 5, 77):
        assert decoded(decoder_of(transfer), text, step) == whole, step
    return whole


BASE64 = {
    "by the book": (base64.encodebytes(NOISE), NOISE, False),
    "in lines of CRLF": (base64.encodebytes(NOISE).replace(b"\n", b"\r\n"), NOISE, False),
    "in one line": (base64.b64encode(NOISE), NOISE, False),
    "nothing": (b"", b"", False),
    "without its padding": (b"QQ", b"A", False),
    "without its padding, two bytes": (b"QUI", b"AB", False),
    "a lone character at the end": (b"QUJDR", b"ABC", False),
    "garbage between": (b"Q*U-J\x80\0D", b"ABC", False),
    "blanks in its padding": (b"QQ= =\r\n", b"A", False),
    "too much padding": (b"QQ======", b"A", False),
    "too little padding": (b"QQ=\r\n", b"A", False),
    "padding before anything": (b"==QUJD", b"ABC", False),
    "padding after one character": (b"Q=UJD", b"ABC", False),
    "padded twice": (b"QQ==QUI=", b"AAB", True),
    "padded in each line": (b"QQ==\r\nQg==\r\n", b"AB", True),
    "garbage after its padding": (b"QQ==\r\n-- \r\n", b"A", False),
    "text after its padding": (b"QQ==\r\nUnsubscribe", b"A" + base64.b64decode(b"Unsubscribe="), True),
}


@pytest.mark.parametrize(("text", "data", "is_odd"), BASE64.values(), ids=BASE64)
def test_base64_is_decoded_as_readers_do(text: bytes, data: bytes, is_odd: bool) -> None:
    assert read(Transfer.BASE64, text) == (data, is_odd)


QUOTED = {
    "by the book": (quopri.encodestring(NOISE), NOISE),
    "plain text": (b"plain\r\ntext\r\n", b"plain\r\ntext\r\n"),
    "a sign": (b"1+1=3D2", b"1+1=2"),
    "lower case": (b"=e3=81=82", "あ".encode()),
    "a soft break": (b"so=\r\nft", b"soft"),
    "a soft break with LF": (b"so=\nft", b"soft"),
    "a soft break with CR": (b"so=\rft\r\n", b"soft\r\n"),
    "a soft break with blanks": (b"so= \t \r\nft", b"soft"),
    "a soft break with blanks and CR": (b"so= \rft\n", b"soft\n"),
    "a soft break at the end": (b"soft=\r\n", b"soft"),
    "a sign at the end": (b"soft=", b"soft"),
    "a sign and half a number": (b"soft=4", b"soft=4"),
    "no number": (b"=XY=4X", b"=XY=4X"),
    "two signs": (b"a==41b", b"a=Ab"),
    "three signs": (b"a===41b", b"a==Ab"),
    "two signs and a break": (b"a==\r\nb", b"a=b"),
    "a number over a soft break": (b"=4=\r\n1", b"=41"),
    "eight bits": ("=E3あ".encode(), b"\xe3" + "あ".encode()),
    "underscores": (b"a_b", b"a_b"),
    "many blanks after a sign": (b"=" + b" " * MAX_HELD_BLANKS * 2 + b"x", b"=" + b" " * MAX_HELD_BLANKS * 2 + b"x"),
}


@pytest.mark.parametrize(("text", "data"), QUOTED.values(), ids=QUOTED)
def test_quoted_printable_is_decoded_as_readers_do(text: bytes, data: bytes) -> None:
    assert read(Transfer.QUOTED_PRINTABLE, text) == (data, False)


@pytest.mark.parametrize("transfer", [Transfer.IDENTITY, Transfer.UUENCODE])
def test_what_has_no_coding_of_its_own_comes_as_it_is(transfer: Transfer) -> None:
    assert read(transfer, NOISE) == (NOISE, False)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=4)))
def test_garbage_in_base64_changes_nothing(data: bytes, garbage: list[bytes]) -> None:
    text = base64.b64encode(data).rstrip(b"=")
    junk = [bytes(byte for byte in piece if byte in b" \r\n*.-_\x80\xff") for piece in garbage]
    mixed = b"".join(text[at : at + 3] + (junk[at % len(junk)] if junk else b"") for at in range(0, len(text), 3))
    assert read(Transfer.BASE64, mixed) == (data, False)


@given(st.binary(max_size=200))
def test_what_is_quoted_comes_back(data: bytes) -> None:
    assert read(Transfer.QUOTED_PRINTABLE, binascii.b2a_qp(data, quotetabs=True, istext=False)) == (data, False)


def test_no_more_than_crumbs_wait() -> None:
    for decoder in (Base64(), QuotedPrintable()):
        for _ in range(1000):
            decoder.receive(b"A" * 10 + b"=" + b" " * 40)
            assert decoder.held_bytes <= MAX_HELD_BLANKS + 50
