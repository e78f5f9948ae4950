"""Any bytes are a mail: findings in order, nothing raised, little held, and the same however the mail is cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.findings import OVERWRITING, Coding, FileData, Finding
from mamori.inspect.mime import MAX_DELIMITER_BYTES, MAX_HEAD_BYTES, MailReader
from mamori.inspect.mime_head import is_field, parse_head
from mamori.inspect.mime_names import address_of, decode_words, parameter_text, parameters, segments, without_comments
from mamori.inspect.mime_window import Window
from tests.support.mails import BASE, ReadFile, ReadMail, comparable, digest, is_inner, overwritten, read_segments, read_whole

LINES = [
    b"",
    b" ",
    b"--b",
    b"--b--",
    b"--b ",
    b"--bb",
    b"--bb--",
    b"--b!",
    b"--",
    b"-",
    b"--c",
    b"--c--",
    b"b",
    b"QUJD",
    b"QQ==",
    b"=",
    b"==",
    b"=41=",
    b"a= ",
    b"a=\t",
    b"=E3=81=82",
    b"begin 644 x",
    b"begin  x",
    b"begin-base64 644 x",
    b"begin",
    b"be",
    b"end",
    b"en",
    b"`",
    b"====",
    b"#86)C",
    b"%86)C9&4",
    b"M86)C",
    b"X: y",
    b"From a",
    b"garbage",
    b"Subject: =?utf-8?B?QQ==?=",
    b" folded",
    b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: multipart/mixed; boundary=bb",
    b"Content-Type: multipart/mixed",
    b'Content-Type: multipart/digest; boundary="c"',
    b"Content-Type: multipart/x; boundary=b; boundary=c",
    b"Content-Type: message/rfc822",
    b"Content-Type: text/html",
    b"Content-Type: application/zip; name=x",
    b"Content-Disposition: attachment; filename*0*=utf-8''%41",
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable",
    b"Content-Transfer-Encoding: x-uuencode",
]
ENDS = st.sampled_from([b"\r\n"] * 8 + [b"\n"] * 4 + [b"\r", b"\r\r\n", b"\r" * 9 + b"\n", b""])
START = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
STARTS = st.sampled_from([b"", START, START + b"--b\r\n", b"\r\n", b"Content-Transfer-Encoding: base64\r\n\r\n"])
MAILS = st.builds(
    lambda start, lines: start + b"".join(line + end for line, end in lines),
    STARTS,
    st.lists(st.tuples(st.sampled_from(LINES) | st.binary(max_size=8), ENDS), max_size=25),
)


def cut(mail: bytes, places: list[int], gaps: list[int]) -> list[tuple[int, bytes]]:
    """The mail in segments, with gaps in the stream between them."""
    edges = sorted({0, len(mail), *(place % (len(mail) + 1) for place in places)})
    segments: list[tuple[int, bytes]] = []
    moved = BASE
    for number, (start, end) in enumerate(pairwise(edges)):
        moved += gaps[number % len(gaps)] if gaps and number else 0
        segments.append((moved + start, mail[start:end]))
    return segments


@given(MAILS | st.binary(max_size=100), st.lists(st.integers(0), max_size=30))
def test_any_mail_is_the_same_however_it_is_cut(mail: bytes, places: list[int]) -> None:
    assert comparable(read_segments(cut(mail, places, []))) == comparable(read_whole(mail))


@given(MAILS | st.binary(max_size=100))
def test_any_mail_is_the_same_byte_by_byte(mail: bytes) -> None:
    assert comparable(read_segments([(BASE + at, mail[at : at + 1]) for at in range(len(mail))])) == comparable(read_whole(mail))


@given(MAILS, st.lists(st.integers(0), max_size=30), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_every_range_is_of_bytes_that_came(mail: bytes, places: list[int], gaps: list[int]) -> None:
    segments = cut(mail, places, gaps)
    came = {start + at for start, data in segments for at in range(len(data))}
    reader = MailReader(1)
    findings: list[Finding] = []
    for start, data in segments:
        findings += reader.receive(start, data)
        assert reader.held_bytes <= min(MAX_HEAD_BYTES + MAX_DELIMITER_BYTES, 3 * len(mail) + 10)
    findings += reader.end()
    exact = [one for one in findings if isinstance(one, FileData) and one.start < one.end]
    assert all(set(range(one.start, one.end)) <= came for one in exact)
    assert [file.data for file in digest(findings).files.values()] == read_whole(mail).contents


@given(MAILS)
def test_text_as_it_is_comes_from_where_its_range_says(mail: bytes) -> None:
    reader = MailReader(1)
    for finding in (*reader.receive(BASE, mail), *reader.end()):
        if isinstance(finding, FileData) and finding.coding is Coding.TEXT:
            assert finding.data == mail[finding.start - BASE : finding.end - BASE]


def is_inside(file: ReadFile, mail: ReadMail) -> bool:
    return any(
        other is not file and other.start <= file.start and (file.end or 0) <= (other.end or 0) for other in mail.files.values()
    )


@given(MAILS)
def test_any_mail_that_is_written_over_keeps_its_structure(mail: bytes) -> None:
    """Of single files with exact ranges. Where a text lies under a uuencoded file it takes that file's `begin` with it."""
    before = read_whole(mail)
    texts = [number for number, file in before.files.items() if len(file.codings) == 1 and not is_inner(before, number)]
    for number in texts[:3]:
        written = overwritten(mail, before, [number])
        after = read_whole(written)
        assert len(written) == len(mail)
        assert [file.name for file in after.files.values() if file.start == before.files[number].start][:1] == [
            before.files[number].name
        ]
        kept = {(file.start, file.end) for file in after.files.values()}
        outer = {
            (file.start, file.end)
            for file in before.files.values()
            if not any(
                file is not other and other.start <= file.start and (file.end or 0) <= (other.end or 0)
                for other in before.files.values()
            )
        }
        assert outer <= kept
        assert not set(after.files[number].data) - set(b"\0X\r\n0=`") or Coding.BASE64 in before.files[number].codings


@given(
    st.lists(
        st.sampled_from(
            [
                b"=?",
                b"?=",
                b"?",
                b"utf-8",
                b"hex",
                b"B",
                b"Q",
                b"=",
                b"\x1b$B",
                b"\xff",
                b"'",
                b"*",
                b"%",
                b"%41",
                b";",
                b'"',
                b"\\",
                b"(",
                b")",
                b" ",
                b"\r\n ",
                b"boundary=",
                b"filename*0*=",
                b"filename*1=",
                b"name=",
                b"x",
                b"/",
                b"<",
                b">",
                b"@",
            ]
        )
        | st.binary(max_size=4),
        max_size=30,
    ).map(b"".join)
)
def test_any_header_field_is_some_text(value: bytes) -> None:
    for text in (decode_words(value), address_of(value), parameter_text(parameters(value), b"filename")):
        text.encode()
    assert len(b"".join(segments(value))) <= len(value) >= len(without_comments(value))
    is_field(value)
    for name in (b"Content-Type: multipart/mixed; ", b"Content-Disposition: attachment; ", b"Subject: ", b""):
        parse_head(name + value)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=5), st.integers(0, 6)), max_size=20))
def test_a_window_knows_where_every_byte_lies(steps: list[tuple[int, bytes, int]]) -> None:
    window, at, came = Window(), 10, []
    for gap, data, consumed in steps:
        at += gap
        window.append(at, data)
        came += [(at + number, byte) for number, byte in enumerate(data)]
        at += len(data)
        pieces = [
            (start + number, byte) for start, _, piece in window.pieces(len(window.data)) for number, byte in enumerate(piece)
        ]
        assert pieces == came
        consumed = min(consumed, len(came))
        before = came[consumed - 1][0] + 1 if consumed else None
        window.consume(consumed)
        del came[:consumed]
        assert before is None or window.offset_after(0) == before
        assert [window.offset(number) for number in range(len(came))] == [offset for offset, _ in came]


def test_every_table_that_writes_over_leaves_what_may_be_a_delimiter_alone() -> None:
    """What is written must not become `--`: no table turns another byte into a hyphen."""
    for table in OVERWRITING.values():
        assert [byte for byte in range(256) if table[byte] == ord("-")] in ([], [ord("-")])
