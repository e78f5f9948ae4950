"""Mails as readers of mail see them: parts, boundaries, headers, and where those readers disagree."""

from __future__ import annotations

import base64

import pytest

from mamori.inspect.findings import Coding
from mamori.inspect.mime import MAX_DELIMITER_BYTES, MAX_FILES, MAX_HEAD_BYTES, MAX_NESTING, MailReader
from tests.support.mails import BASE, digest, read_mail, read_segments, read_whole, segmented

VIRUS = bytes(range(0, 256, 3))
CODED = base64.encodebytes(VIRUS).replace(b"\n", b"\r\n")


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def multipart(*parts: bytes, boundary: bytes = b"b", head: bytes | None = None, end: bytes | None = None) -> bytes:
    head = b'Content-Type: multipart/mixed; boundary="%s"\r\n' % boundary if head is None else head
    return (
        head
        + b"\r\n"
        + b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
        + (b"--%s--\r\n" % boundary if end is None else end)
    )


ATTACHED = b'Content-Type: application/zip; name="v.zip"\r\nContent-Transfer-Encoding: base64\r\n\r\n' + CODED


def test_a_mail_gives_its_parts_with_their_places() -> None:
    mail = crlf('From: "A" <a@b.example>\nTo: c@d.example, e@f.example\nSubject: =?utf-8?B?6KuL5rGC?=\n') + multipart(
        b"\r\nhello", ATTACHED
    )
    read = read_mail(mail)
    text, file = read.files.values()
    assert text.subject == file.subject == 'mail from a@b.example to c@d.example "請求"'
    assert (text.name, text.data, text.codings, text.is_complete) == ("", b"hello", {Coding.TEXT}, True)
    assert (file.name, file.data, file.codings, file.is_complete) == ("v.zip", VIRUS, {Coding.BASE64}, True)
    assert mail[text.start - BASE : (text.end or 0) - BASE] == b"hello"
    assert [mail[start - BASE : end - BASE] for start, end in file.ranges] == [CODED]
    assert read.anomalies == []


def test_gaps_in_the_stream_are_in_no_range() -> None:
    mail = multipart(ATTACHED)
    for step in (1, 5, 64, 300):
        pieces = [(at * 2 + BASE, mail[at : at + step]) for at in range(0, len(mail), step)]
        read = read_segments(pieces)
        assert read.contents == [VIRUS]
        places = {start + at: data[at] for start, data in pieces for at in range(len(data))}
        ranges = read.files[1].ranges
        assert bytes(places[at] for start, end in ranges for at in range(start, end)) == CODED
        assert read.files[1].end == ranges[-1][1]


MULTIPART = b"Content-Type: multipart/mixed; boundary="
# Of each: the mail, the files that are seen, the evasions that are told.
LENIENT = {
    "no MIME at all": (b"Subject: x\r\n\r\nhello\r\n", [b"hello\r\n"], []),
    "no header at all": (b"\r\nhello\r\n", [b"hello\r\n"], []),
    "no header and no empty line": (b"hello world\r\nsecond\r\n", [b"hello world\r\nsecond\r\n"], []),
    "nothing": (b"\r\n", [b""], []),
    "an mbox line first": (b"From a@b Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n\r\nhello", [b"hello"], []),
    "LF only": (multipart(ATTACHED).replace(b"\r\n", b"\n"), [VIRUS], []),
    "CR only": (multipart(ATTACHED).replace(b"\r\n", b"\r"), [VIRUS], ["a CR without LF where a line ends"]),
    "CR CR LF": (multipart(ATTACHED).replace(b"\r\n", b"\r\r\n"), [VIRUS], []),
    "no quotes": (multipart(ATTACHED, head=MULTIPART + b"b\r\n"), [VIRUS], []),
    "capitals": (
        multipart(ATTACHED.upper().replace(CODED.upper(), CODED), head=b"CONTENT-TYPE: MULTIPART/Mixed; BOUNDARY=b\r\n"),
        [VIRUS],
        [],
    ),
    "a folded header": (multipart(ATTACHED, head=b"Content-Type:\r\n multipart/mixed;\r\n\tboundary=b\r\n"), [VIRUS], []),
    "blanks around everything": (
        multipart(ATTACHED, head=b'Content-Type : multipart / mixed ; boundary = "b" \r\n', end=b"--b-- \t\r\n"),
        [VIRUS],
        [],
    ),
    "a comment": (multipart(ATTACHED, head=b"Content-Type: (x;) multipart/mixed (y); (z) boundary=b (w)\r\n"), [VIRUS], []),
    "comments in a comment": (
        multipart(ATTACHED, head=b"Content-Type: (x (y) z) multipart/mixed; boundary=b\r\n"),
        [VIRUS],
        [],
    ),
    "text behind a boundary that begins like the outer one": (
        multipart(
            multipart(b"\r\nx", boundary=b"bb", end=b"--bb!\r\n\r\ny\r\n--bb--\r\nepilogue"),
            b"\r\nz",
        ),
        [b"x", b"y", b"z"],
        ["text behind a boundary"],
    ),
    "two multiparts with one boundary, which is the outer one's": (
        multipart(b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nbody"),
        [b"Subject: x\r\n\r\nbody"],
        ["a boundary used twice"],
    ),
    "a missing semicolon": (multipart(ATTACHED, head=b"Content-Type: multipart/mixed boundary=b\r\n"), [VIRUS], []),
    "a missing quote": (multipart(ATTACHED, head=MULTIPART + b'"b\r\n'), [VIRUS], []),
    "multipart without a subtype": (multipart(ATTACHED, head=b"Content-Type: multipart; boundary=b\r\n"), [VIRUS], []),
    "a boundary in pieces": (
        multipart(ATTACHED, boundary=b"xy", head=b"Content-Type: multipart/mixed; boundary*0=x; boundary*1=y\r\n"),
        [VIRUS],
        [],
    ),
    "a percent-encoded boundary": (
        multipart(ATTACHED, boundary=b"xy", head=b"Content-Type: multipart/mixed; boundary*=us-ascii''x%79\r\n"),
        [VIRUS],
        [],
    ),
    "a backslash that escapes": (multipart(ATTACHED, boundary=b"xy", head=MULTIPART + b'"x\\y"\r\n'), [VIRUS], []),
    "a backslash that does not": (multipart(ATTACHED, boundary=b"x\\y", head=MULTIPART + b'"x\\y"\r\n'), [VIRUS], []),
    "an unquoted boundary with a blank": (multipart(ATTACHED, boundary=b"x y", head=MULTIPART + b"x y\r\n"), [VIRUS], []),
    "an unquoted boundary with a comment": (multipart(ATTACHED, boundary=b"x(y)", head=MULTIPART + b"x(y)\r\n"), [VIRUS], []),
    "a leading blank": (multipart(ATTACHED, boundary=b"x", head=MULTIPART + b'" x"\r\n'), [VIRUS], []),
    "without MIME-Version": (multipart(ATTACHED), [VIRUS], []),
    "text before the first boundary": (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\nThis is MIME.\r\n" + multipart(ATTACHED, head=b"")[2:],
        [VIRUS],
        [],
    ),
    "no closing delimiter": (multipart(ATTACHED, end=b""), [VIRUS], []),
    "closed, but without a line end": (multipart(ATTACHED, end=b"--b--"), [VIRUS], []),
    "text after the closing delimiter": (multipart(ATTACHED, end=b"--b--\r\ntext\r\n"), [VIRUS], []),
    "a part after the closing delimiter": (multipart(ATTACHED, end=b"--b--\r\n\r\n--b\r\n\r\nmore\r\n"), [VIRUS, b"more\r\n"], []),
    "a part without anything": (multipart(b"", ATTACHED), [b"", VIRUS], []),
    "a part of a header only": (multipart(b"Content-Type: text/plain", ATTACHED), [b"", VIRUS], []),
    "a part without a header": (multipart(b"hello\r\nworld", ATTACHED), [b"hello\r\nworld", VIRUS], []),
    "a part without a header, base64": (multipart(CODED[:-2]), [CODED[:-2]], []),
    "a line in the header that is none": (
        multipart(b"garbage\r\n" + ATTACHED, b"X: y\r\ngarbage\r\n" + ATTACHED),
        [VIRUS, VIRUS],
        ["a line in a header that is no field"],
    ),
    "no empty line after the header": (
        multipart(ATTACHED.replace(b"\r\n\r\n", b"\r\n")),
        [VIRUS],
        ["a line in a header that is no field"],
    ),
    "a type that makes no sense": (multipart(ATTACHED.replace(b"application/zip", b";;=")), [VIRUS], []),
    "an unknown encoding": (multipart(b"Content-Transfer-Encoding: rot13\r\n\r\nhello"), [b"hello"], []),
    "an encoding in a comment": (multipart(ATTACHED.replace(b"base64", b' (7bit) "BASE64" ; x')), [VIRUS], []),
    "lines that are nearly boundaries": (
        multipart(b"\r\n-b\r\n --b\r\n-- b\r\n--\r\n--c"),
        [b"-b\r\n --b\r\n-- b\r\n--\r\n--c"],
        [],
    ),
    "a boundary that begins another one": (
        multipart(multipart(ATTACHED, boundary=b"bb"), b"\r\nlast"),
        [VIRUS, b"last"],
        [],
    ),
    "a boundary with the other one's end": (
        multipart(multipart(ATTACHED, boundary=b"b--"), b"\r\nlast"),
        [VIRUS, b"last"],
        [],
    ),
    "an inner multipart that is not closed": (multipart(multipart(ATTACHED, boundary=b"c", end=b""), ATTACHED), [VIRUS, VIRUS], []),
    "text behind a boundary": (
        multipart(ATTACHED, b"\r\nx").replace(b"\r\n--b\r\n\r\nx", b"\r\n--b!\r\n\r\nx"),
        [VIRUS, b"x"],
        ["text behind a boundary"],
    ),
    "a multipart without a boundary": (
        multipart(b"\r\nx", ATTACHED, head=b"Content-Type: multipart/mixed\r\n"),
        [b"x", VIRUS],
        ["a multipart whose boundary is missing"],
    ),
    "an empty boundary": (
        multipart(b"\r\nx", ATTACHED, head=MULTIPART + b'""\r\n'),
        [b"x", VIRUS],
        ["a multipart whose boundary is missing"],
    ),
    "a boundary that never comes": (multipart(ATTACHED, head=MULTIPART + b"z\r\n"), [], ["a multipart whose boundary is missing"]),
    "a multipart of nothing": (MULTIPART + b"z\r\n\r\n \r\n", [], []),
    "two boundaries of which one is used": (multipart(ATTACHED, head=MULTIPART + b"a; boundary=b\r\n"), [VIRUS], []),
    "two boundaries that are both used": (
        multipart(b"\r\nx", end=b"--a\r\n" + ATTACHED + b"\r\n--b--", head=MULTIPART + b"a; boundary=b\r\n"),
        [b"x", VIRUS],
        ["two boundaries for one multipart"],
    ),
    "two types that agree": (multipart(ATTACHED, head=MULTIPART + b"b\r\n" + MULTIPART + b"b\r\n"), [VIRUS], []),
    "two types": (
        multipart(ATTACHED, head=b"Content-Type: text/plain\r\n" + MULTIPART + b"b\r\n"),
        [VIRUS],
        ["two types or encodings for one part"],
    ),
    "two encodings": (
        multipart(b"Content-Transfer-Encoding: 7bit\r\n" + ATTACHED),
        [VIRUS],
        ["two types or encodings for one part"],
    ),
    "two multiparts with one boundary": (
        multipart(multipart(ATTACHED)),
        [VIRUS],
        ["a boundary used twice"],
    ),
    "base64 that goes on": (
        multipart(ATTACHED.replace(CODED, b"QQ==\r\nQg==")),
        [b"AB"],
        ["base64 that goes on after its padding"],
    ),
    "base64 text with a footer": (
        multipart(b"Content-Transfer-Encoding: base64\r\n\r\nQQ==\r\nfooter\r\n"),
        [b"A" + base64.b64decode("footer==")],
        [],
    ),
    "a piece of a mail": (b"Content-Type: message/partial; id=x; number=1; total=2\r\n\r\nhello", [b"hello"], ["a mail in pieces"]),
    "a mail in a mail": (
        multipart(b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n" + multipart(ATTACHED, boundary=b"c")),
        [VIRUS],
        [],
    ),
    "a mail in a mail, encoded": (
        multipart(
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(b"Subject: x\r\n\r\ny")
        ),
        [b"Subject: x\r\n\r\ny"],
        [],
    ),
    "a digest": (
        multipart(b"\r\nSubject: one\r\n\r\nfirst", head=b"Content-Type: multipart/digest; boundary=b\r\n"),
        [b"first"],
        [],
    ),
    "a file that is called a mail": (
        multipart(b"Content-Type: message/rfc822\r\n\r\nMZ\x90\0\r\nbinary"),
        [b"MZ\x90\0\r\nbinary"],
        [],
    ),
}


@pytest.mark.parametrize(("mail", "contents", "evasions"), LENIENT.values(), ids=LENIENT)
def test_a_mail_is_read_as_readers_do(mail: bytes, contents: list[bytes], evasions: list[str]) -> None:
    read = read_mail(mail)
    assert read.contents == contents
    assert read.evasions == evasions
    assert all(file.is_complete and not file.unseen for file in read.files.values())


def test_a_mail_that_broke_off_has_a_file_that_is_not_complete() -> None:
    mail = multipart(b"\r\ntext", ATTACHED)[:-60]
    first, second = read_segments([(BASE, mail)], is_complete=False).files.values()
    assert (first.is_complete, second.is_complete) == (True, False)
    assert VIRUS.startswith(second.data[:10])


def test_what_is_too_deep_is_unseen() -> None:
    def nested(levels: int) -> bytes:
        mail = b"\r\ninnermost"
        for level in range(levels):
            mail = multipart(mail, boundary=b"n%d" % level)
        return mail

    assert read_whole(nested(MAX_NESTING)).contents == [b"innermost"]
    read = read_whole(nested(MAX_NESTING + 1))
    assert [(file.data, file.unseen) for file in read.files.values()] == [(b"", "too deep inside other mails or parts")]
    mails = b"Content-Type: message/rfc822\r\n\r\n" * (MAX_NESTING + 1) + b"\r\nx"
    assert read_whole(mails).files[1].unseen
    assert read_whole(mails[len(mails) - len(b"Content-Type: message/rfc822\r\n\r\n") * MAX_NESTING - 3 :]).contents == [b"x"]


def test_a_part_behind_one_that_is_too_deep_is_seen() -> None:
    inner = multipart(b"\r\ndeep", boundary=b"deep")
    for level in range(MAX_NESTING - 1):
        inner = multipart(inner, boundary=b"n%d" % level, end=b"")
    read = read_whole(multipart(inner, ATTACHED))
    assert [file.data for file in read.files.values()] == [b"", VIRUS]


def test_a_file_ends_before_the_gap_that_follows_it() -> None:
    mail = multipart(b"\r\ntext")
    end = mail.index(b"\r\n--b--")
    for first in range(end - 4, end + 1):
        read = read_segments([(BASE, mail[:first]), (BASE + first, mail[first:end]), (BASE + end + 50, mail[end:])])
        assert read.files[1].end == BASE + end


def test_depth_is_of_what_is_open() -> None:
    inner = [multipart(b"\r\nx", boundary=b"n%d" % number) for number in range(MAX_NESTING * 2)]
    assert read_whole(multipart(*inner)).contents == [b"x"] * len(inner)


@pytest.mark.parametrize("part", [b"\r\nx", b"\r\nbegin 644 x\r\n!00``\r\nend"], ids=["parts", "uuencoded files"])
def test_what_is_too_much_is_unseen(part: bytes) -> None:
    mail = multipart(*[part] * (MAX_FILES + 5))
    for read in (read_whole(mail), read_segments(segmented(mail, 1448))):
        assert len(read.files) == MAX_FILES + 1
        assert read.files[MAX_FILES + 1].unseen == "too many parts in one mail"
    reader = MailReader(1)
    digest(reader.receive(0, mail))
    assert reader.receive(len(mail), mail) == reader.end() == []
    assert reader.held_bytes == 0


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X", b"\r"], ids=["fields", "one line", "line ends"])
def test_a_header_block_is_bounded(line: bytes) -> None:
    reader = MailReader(1)
    data = b"X: y" + line * (2 * MAX_HEAD_BYTES // len(line))
    most = 0
    for at in range(0, len(data), 1000):
        reader.receive(at, data[at : at + 1000])
        most = max(most, reader.held_bytes)
    assert most <= MAX_HEAD_BYTES + 1000


def test_a_header_block_that_is_too_long_counts_as_far_as_it_was_read() -> None:
    mail = b"Content-Type: multipart/mixed; boundary=b\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES + multipart(ATTACHED, head=b"")
    for read in (read_whole(mail), read_segments(segmented(mail, 4096))):
        assert read.contents == [VIRUS]
        assert read.evasions == ["a header block that is too long"]


def test_a_line_that_may_be_a_delimiter_is_held_only_so_long() -> None:
    mail = multipart(b"\r\nx", boundary=b"bc") + b"\r\n--b" + b"x" * MAX_DELIMITER_BYTES * 3
    reader = MailReader(1)
    for at in range(len(mail)):
        reader.receive(at, mail[at : at + 1])
        assert reader.held_bytes <= MAX_DELIMITER_BYTES + 8
