"""Uuencoded files in texts; binascii is the peer that writes them."""

from __future__ import annotations

import base64
import binascii
import random

import pytest

from mamori.inspect.findings import Coding
from mamori.inspect.uuencode import MAX_LINE_BYTES
from tests.support.mails import BASE, overwritten, read_mail, read_segments, read_whole, segmented

DATA = random.Random(6).randbytes(500)  # noqa: S311 - data without structure
HEAD = b"Subject: x\r\n\r\n"


def lines(data: bytes = DATA, backtick: bool = True) -> bytes:
    return b"".join(
        binascii.b2a_uu(data[at : at + 45], backtick=backtick).rstrip(b"\n") + b"\r\n" for at in range(0, len(data), 45)
    )


END = b"`\r\nend\r\n"
# `f` is 6 bytes by its low bits, of the eight characters behind it.
RAGGED = binascii.a2b_uu(bytes([ord("f") - 64]) + bytes(32 + (byte - 32 & 63) for byte in b"ilename*"))
FOUND = {
    "by the book": (b"hello\r\nbegin 644 a.exe\r\n" + lines() + END + b"bye\r\n", [("a.exe", DATA, True)]),
    "with blanks for zeros": (b"begin 644 a.exe\r\n" + lines(backtick=False) + b" \r\nend\r\n", [("a.exe", DATA, True)]),
    "blanks at line ends gone": (
        b"begin 644 a\r\n" + lines(b"\0" * 100, backtick=False).replace(b" ", b"") + END,
        [("a", b"\0" * 100, True)],
    ),
    "LF only": ((b"hello\nbegin 644 a.exe\r\n" + lines() + END).replace(b"\r\n", b"\n"), [("a.exe", DATA, True)]),
    "the first line of the text": (b"begin 644 a.exe\r\n" + lines() + END, [("a.exe", DATA, True)]),
    "a mode of four digits": (b"begin 0644 a b.exe\r\n" + lines() + END, [("a b.exe", DATA, True)]),
    "no mode, as Outlook takes it": (b"begin  a.exe\r\n" + lines() + END, [("a.exe", DATA, True)]),
    "no end": (b"begin 644 a\r\n" + lines(), [("a", DATA, False)]),
    "no line end at the end": (b"begin 644 a\r\n" + lines()[:-2], [("a", DATA, False)]),
    "an end without its line end": (b"begin 644 a\r\n" + lines() + b"`\r\nend", [("a", DATA, True)]),
    "two files": (
        b"begin 644 a\r\n" + lines() + END + b"begin 644 b\r\n" + lines(b"xyz") + END,
        [("a", DATA, True), ("b", b"xyz", True)],
    ),
    "a file in a file": (
        b"begin 644 a\r\n" + lines() + b"begin 644 b\r\n" + lines(b"xyz") + END,
        [("a", DATA, False), ("b", b"xyz", True)],
    ),
    "a checksum at line ends": (b"begin 644 a\r\n" + lines().replace(b"\r\n", b"X\r\n") + END, [("a", DATA, True)]),
    "empty lines between": (b"begin 644 a\r\n\r\n" + lines().replace(b"\r\n", b"\r\n\r\n") + END, [("a", DATA, True)]),
    "a name in Japanese": ("begin 644 見積.exe\r\n".encode("cp932") + lines() + END, [("見積.exe", DATA, True)]),
    "base64": (
        b"begin-base64 644 a\r\n" + base64.encodebytes(DATA).replace(b"\n", b"\r\n") + b"====\r\nrest\r\n",
        [("a", DATA, True)],
    ),
    "an empty file": (b"begin 644 a\r\n" + END, [("a", b"", True)]),
    "lines above the alphabet": (
        b"begin 644 a\r\n" + b"#" + b"\xc1\xc1\xc1\xc1\r\n" + END,
        [("a", binascii.a2b_uu(b"#AAAA"), True)],
    ),
    "more than its length": (
        b"begin 644 a\r\n!8TXYZ\r\nfilename*0*=utf-8''%41\r\n" + END,
        [("a", binascii.a2b_uu(b"!8T") + RAGGED, True)],
    ),
    "a sentence": (b"begin the day\r\nwith a song\r\n", []),
    "a sentence in capitals": (b"begin the day\r\nWITH A SONG\r\n", []),
    "in the middle of a line": (b"x begin 644 a\r\n" + lines() + END, []),
}


@pytest.mark.parametrize(("text", "files"), FOUND.values(), ids=FOUND)
def test_what_is_uuencoded_is_a_file_beside_its_text(text: bytes, files: list[tuple[str, bytes, bool]]) -> None:
    read = read_mail(HEAD + text)
    first, *inner = read.files.values()
    assert first.data == text
    assert [(file.name, file.data, file.is_complete) for file in inner] == files


def test_length_characters_are_in_no_range() -> None:
    mail = HEAD + b"begin 644 a\r\n" + lines() + END
    file = read_mail(mail).files[2]
    assert file.codings == {Coding.UUENCODE}
    covered = [mail[start - BASE : end - BASE] for start, end in file.ranges if start < end]
    # The line of no bytes has no range.
    assert covered == [line[1:] for line in lines().split(b"\r\n") if line]


@pytest.mark.parametrize("transfer", ["quoted-printable", "base64"])
def test_what_is_uuencoded_in_an_encoded_text_is_found(transfer: str) -> None:
    text = b"hello\r\nbegin 644 a\r\n" + lines() + END + b"bye\r\nbegin 600 b\r\n" + lines(b"xyz") + END
    coded = base64.encodebytes(text) if transfer == "base64" else text.replace(b"=", b"=3D")
    mail = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: " + transfer.encode() + b"\r\n\r\n" + coded
    for step in (1, 10, 100, 10_000):
        read = read_segments(segmented(mail, step))
        assert [(file.name, file.data) for file in read.files.values()] == [("", text), ("a", DATA), ("b", b"xyz")]
    written = overwritten(mail, read_whole(mail), [2])
    assert len(written) == len(mail)
    assert read_whole(written).files[1].data.strip(b"0\r\n=\0") != text
    assert len(read_whole(written).files) == 1


def test_a_file_with_the_header_for_it_is_found_whatever_its_type() -> None:
    mail = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n" + lines() + END
    assert read_mail(mail).contents == [mail.partition(b"\r\n\r\n")[2], DATA]


def test_what_is_written_over_decodes_to_nothing_but_zeros() -> None:
    mail = HEAD + b"hi\r\nbegin 644 a\r\n" + lines() + END + b"bye\r\n"
    read = read_whole(mail)
    again = read_whole(overwritten(mail, read, [2]))
    assert again.files[2].data == bytes(len(DATA))
    assert again.files[2].ranges == read.files[2].ranges
    assert again.files[2].is_complete


def test_a_line_without_end_is_not_kept() -> None:
    mail = HEAD + b"begin 644 a\r\n" + lines() + b"M" * MAX_LINE_BYTES * 10 + b"\r\n" + END
    for step in (1, 7, 1448, 100_000):
        read = read_segments(segmented(mail, step))
        assert read.files[2].data.startswith(DATA)
        assert read.files[2].is_complete


def test_a_line_that_an_encoded_text_ends_in_has_a_place_in_the_stream() -> None:
    mail = b"Content-Transfer-Encoding: quoted-printable\r\n\r\nbegin 644 a\r\n#86)C"
    for step in (1, 10, 1000):
        file = read_segments(segmented(mail, step)).files[2]
        assert file.data == b"abc"
        assert BASE + mail.index(b"begin") <= file.start <= BASE + len(mail)
        assert all(start >= BASE + mail.index(b"begin") for start, _ in file.ranges)


def test_a_line_without_any_end_costs_no_more_than_its_bytes() -> None:
    """A search that began anew at every byte of it took minutes."""
    assert read_whole(HEAD + b"begin 644 a\r\n" + b"M" * 1_000_000).files[2].data
