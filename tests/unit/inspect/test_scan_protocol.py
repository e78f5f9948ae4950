"""What clamd is told, and what its answers mean."""

from __future__ import annotations

import pytest

from mamori.inspect.scan.clamd import (
    END_OF_STREAM,
    INSTREAM,
    MAX_FRAME_BYTES,
    MAX_SIGNATURE_CHARACTERS,
    Framing,
    Version,
    is_of_any_length,
    parse_answer,
    parse_version,
    stream_frame,
)
from mamori.inspect.scan.verdicts import Clean, Infected, Unscanned, Verdict, Why


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        pytest.param(b"stream: OK\0", Clean(), id="clean"),
        pytest.param(b"stream: OK\n", Clean(), id="a line"),
        pytest.param(b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Infected("Win.Test.EICAR_HDB-1"), id="infected"),
        pytest.param(b"stream: Mamori.Test.UNOFFICIAL FOUND\0", Infected("Mamori.Test"), id="by a database that is not ClamAV's"),
        pytest.param(b"stream: PUA.Win.Packer.Upx-1 FOUND\0", Infected("PUA.Win.Packer.Upx-1"), id="unwanted, if somebody asked"),
        pytest.param(b"stream: Heuristics.Phishing.X FOUND\0", Infected("Heuristics.Phishing.X"), id="another heuristic"),
        pytest.param(b"stream: a: b FOUND\0", Infected("a: b"), id="a colon in the name"),
        pytest.param(b"stream: OK FOUND\0", Infected("OK"), id="a virus called OK"),
        pytest.param(b"stream: A FOUND", Infected("A"), id="infected, cut behind the word"),
        pytest.param(b"stream: x\x1b[1m\xff FOUND\0", Infected("x?[1m\ufffd"), id="not for a terminal"),
        pytest.param(b"stream: .UNOFFICIAL FOUND\0", Infected("unnamed"), id="no name"),
        pytest.param(
            b"stream: Heuristics.Encrypted.Zip FOUND\0", Unscanned(Why.ENCRYPTED, "Heuristics.Encrypted.Zip"), id="encrypted"
        ),
        pytest.param(
            b"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\0",
            Unscanned(Why.TOO_DEEP, "Heuristics.Limits.Exceeded.MaxFiles"),
            id="a bomb",
        ),
        pytest.param(
            b"INSTREAM size limit exceeded. ERROR\0",
            Unscanned(Why.TOO_LARGE, "INSTREAM size limit exceeded. ERROR"),
            id="larger than StreamMaxLength",
        ),
        pytest.param(
            b"stream: Can't allocate memory ERROR\0", Unscanned(Why.FAILED, "stream: Can't allocate memory ERROR"), id="an error"
        ),
        pytest.param(b"", Unscanned(Why.FAILED, "closed without an answer"), id="nothing"),
        pytest.param(b"\0", Unscanned(Why.FAILED, "closed without an answer"), id="an empty answer"),
        pytest.param(b"stream: OK", Unscanned(Why.FAILED, "stream: OK"), id="the name may go on behind OK"),
        pytest.param(b"stream: Mal", Unscanned(Why.FAILED, "stream: Mal"), id="half a name"),
        pytest.param(b"UNKNOWN COMMAND\0", Unscanned(Why.FAILED, "UNKNOWN COMMAND"), id="not understood"),
        pytest.param(b"OK\0", Unscanned(Why.FAILED, "OK"), id="OK of nothing"),
    ],
)
def test_an_answer_is_a_verdict(answer: bytes, verdict: Verdict) -> None:
    assert parse_answer(answer) == verdict


def test_no_part_of_an_answer_is_clean() -> None:
    for answer in (b"stream: OK\0", b"stream: OKish.Virus FOUND\0", b"stream: Heuristics.Encrypted.Zip FOUND\0"):
        assert all(parse_answer(answer[:length]) != Clean() for length in range(len(answer)))


def test_what_is_found_in_a_beginning_counts_unless_it_is_a_guess() -> None:
    assert is_of_any_length(Infected("Win.Test.EICAR_HDB-1"))
    for verdict in (Infected("Heuristics.Broken.Executable"), Clean(), Unscanned(Why.ENCRYPTED)):
        assert not is_of_any_length(verdict)


def test_a_signature_is_of_bounded_length() -> None:
    verdict = parse_answer(b"stream: " + b"x" * 4000 + b" FOUND\0")
    assert isinstance(verdict, Infected)
    assert len(verdict.signature) == MAX_SIGNATURE_CHARACTERS


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        pytest.param(b"ClamAV 1.4.6\0", Version("ClamAV 1.4.6"), id="no database of ClamAV's"),
        pytest.param(
            b"ClamAV 1.4.6/27456/Mon Nov 17 09:12:33 2025\0", Version("ClamAV 1.4.6", "27456", 1763370753.0), id="with a database"
        ),
        pytest.param(
            b"ClamAV 1.4.6/27456/Sat Nov  1 00:00:00 2025\n", Version("ClamAV 1.4.6", "27456", 1761955200.0), id="one digit"
        ),
        pytest.param(b"ClamAV 2.0/1/yesterday\0", Version("ClamAV 2.0", "1"), id="another date"),
        pytest.param(b"ClamAV 1.4.6", None, id="broken off"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"stream: OK\0", None, id="something else"),
    ],
)
def test_a_version_is_read_as_far_as_it_tells(answer: bytes, version: Version | None) -> None:
    assert parse_version(answer) == version


def sent(content: bytes, pieces: list[int], socket_takes: int) -> bytes:
    """What goes over a socket that takes so many bytes at a time, when the content comes in these pieces."""
    framing, out, available = Framing(), bytearray(), 0
    for piece in [*pieces, 0]:
        available += piece
        while True:
            head, start, end = framing.next(available, available == len(content) and piece == 0)
            parts = head + content[start:end]
            if not parts:
                break
            out += parts[:socket_takes]
            framing.sent(min(socket_takes, len(parts)))
    assert framing.is_done
    assert framing.offset == len(content)
    return bytes(out)


def unframed(stream: bytes) -> bytes:
    assert stream.startswith(INSTREAM)
    content, at = bytearray(), len(INSTREAM)
    while length := int.from_bytes(stream[at : at + 4], "big"):
        assert length <= MAX_FRAME_BYTES
        content += stream[at + 4 : at + 4 + length]
        at += 4 + length
    assert stream[at:] == END_OF_STREAM
    return bytes(content)


@pytest.mark.parametrize("socket_takes", [1, 3, 17, 1_000_000])
@pytest.mark.parametrize("pieces", [[], [1], [1] * 40, [5, 30, 5], [40]])
def test_a_stream_arrives_whole_however_it_comes_and_goes(pieces: list[int], socket_takes: int) -> None:
    content = bytes(range(sum(pieces)))
    assert unframed(sent(content, pieces, socket_takes)) == content


def test_a_long_stream_is_cut_into_frames() -> None:
    content = bytes(MAX_FRAME_BYTES + 1)
    assert unframed(sent(content, [len(content)], 100_000)) == content
    assert unframed(stream_frame(b"hello")) == b"hello"
    assert unframed(stream_frame(b"")) == b""
