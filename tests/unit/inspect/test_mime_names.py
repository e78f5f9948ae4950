"""File names, subjects and addresses in header fields, as mail programs write them."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from mamori.events.record import MAX_SUBJECT_CHARACTERS
from mamori.inspect.mime_head import MAX_BOUNDARIES, MAX_BOUNDARY_BYTES, Content, carrier_of, parse_head
from mamori.inspect.mime_names import address_of, decode_bytes, decode_words
from mamori.inspect.transfer import Transfer
from tests.support.mails import wire

NAME = "見積書（最終版）.zip"
LONG = "とても長い名前の添付ファイル" * 6 + ".xlsx"

DISPOSITIONS = {
    "plain": (b"attachment; filename=a.zip", "a.zip"),
    "quoted": (b'attachment; filename="a b.zip"', "a b.zip"),
    "capitals and blanks": (b"ATTACHMENT ;FILENAME = a.zip ", "a.zip"),
    "inline": (b"inline; filename=a.zip", "a.zip"),
    "without a disposition": (b"; filename=a.zip", "a.zip"),
    "semicolons in quotes": (b'attachment; filename="a;b=c.zip"; size=3', "a;b=c.zip"),
    "escaped quotes": (rb'attachment; filename="a\"b.zip"', 'a"b.zip'),
    "a Windows path": (rb'attachment; filename="C:\temp\a.zip"', r"C:\temp\a.zip"),
    "unquoted with blanks": (b"attachment; filename=a b (1).zip", "a b (1).zip"),
    "a quote that is not closed": (b'attachment; filename="a.zip', "a.zip"),
    "two": (b"attachment; filename=a.zip; filename=b.zip", "a.zip"),
    "RFC 2231": (b"attachment; filename*=UTF-8''%E8%A6%8B%E7%A9%8D.zip", "見積.zip"),
    "RFC 2231 in quotes": (b"attachment; filename*=\"utf-8'ja'%E8%A6%8B.zip\"", "見.zip"),
    "RFC 2231 beats plain": (b"attachment; filename=x.zip; filename*=utf-8''y.zip", "y.zip"),
    "RFC 2231 in pieces, out of order": (b"attachment; filename*1=b.zip; filename*0=\"a \"", "a b.zip"),
    "RFC 2231 in coded pieces": (
        b"attachment; filename*0*=iso-2022-jp''%1B$B8+; filename*1*=%1B%28B; filename*2=.zip", "見.zip",
    ),
    "a character over two pieces": (b"attachment; filename*0*=utf-8''%E8%A6; filename*1*=%8B.zip", "見.zip"),
    "a piece missing": (b"attachment; filename*0=a; filename*2=c", "a"),
    "no first piece": (b"attachment; filename*1=b; filename=x", "x"),
    "percent signs that are none": (b"attachment; filename*=utf-8''100%.zip", "100%.zip"),
    "an unknown charset": (b"attachment; filename*=x-unknown''%E8%A6%8B", "見"),
    "a codec that is no charset": (b"attachment; filename*=hex''%E8%A6%8B", "見"),
    "an encoded word in quotes": (b'attachment; filename="=?UTF-8?B?6KaL56mNLnppcA==?="', "見積.zip"),
    "an encoded word without quotes": (b"attachment; filename==?UTF-8?Q?=E8=A6=8B_.zip?=", "見 .zip"),
    "encoded words in lines": (
        b'attachment;\r\n filename="=?ISO-2022-JP?B?GyRCOCsbKEI=?=\r\n =?ISO-2022-JP?B?GyRCQFEbKEIuemlw?="', "見積.zip",
    ),
    "Shift_JIS": (b'attachment; filename="=?Shift_JIS?B?' + b"jKmQzw==" + b'?="', "見積"),
    "Shift_JIS, Q": (b'attachment; filename="=?SHIFT_JIS?q?=8C=A9=90=CF.zip?="', "見積.zip"),
    "a character over two words": (b'attachment; filename="=?utf-8?Q?=E8=A6?= =?utf-8?Q?=8B.zip?="', "見.zip"),
    "a word with a language": (b'attachment; filename="=?utf-8*ja?Q?=E8=A6=8B?="', "見"),
    "raw UTF-8": ('attachment; filename="見積.zip"'.encode(), "見積.zip"),
    "raw Shift_JIS": ('attachment; filename="表示.zip"'.encode("cp932"), "表示.zip"),
    "raw ISO-2022-JP": ('attachment; filename="見積.zip"'.encode("iso-2022-jp"), "見積.zip"),
    "a broken word": (b'attachment; filename="=?UTF-8?B?6KaL"', "=?UTF-8?B?6KaL"),
    "base64 without its padding": (b'attachment; filename="=?UTF-8?B?YQ?="', "a"),
    "nothing": (b"attachment", ""),
    "an empty name": (b'attachment; filename=""', ""),
}  # fmt: skip


@pytest.mark.parametrize(("value", "name"), DISPOSITIONS.values(), ids=DISPOSITIONS)
def test_a_file_has_the_name_that_readers_show(value: bytes, name: str) -> None:
    assert parse_head(b"Content-Disposition: " + value + b"\r\n").name == name
    assert parse_head(b"Content-Type: application/zip; name=y\r\nContent-Disposition: " + value).name == (name or "y")
    as_type = (
        b"application/zip" + value[value.find(b";") :].replace(b"filename", b"name").replace(b"FILENAME", b"NAME")
        if b";" in value
        else b"a/b"
    )
    assert parse_head(b"Content-Type: " + as_type).name == name


@pytest.mark.parametrize("name", ["a.zip", "a b.zip", 'a"b.zip', NAME, LONG, "emoji 🎁.zip", "x" * 300])
def test_names_that_python_writes_are_read(name: str) -> None:
    message = EmailMessage()
    message.set_content(b"x", "application", "zip", filename=name)
    assert parse_head(wire(message).partition(b"\r\n\r\n")[0]).name == name


SUBJECTS = {
    "plain": (b"hello  world", "hello  world"),
    "a word": (b"=?utf-8?B?6KuL5rGC?=", "請求"),
    "words and text": (b"Re: =?utf-8?Q?a_b?= c =?utf-8?Q?d?=\r\n =?utf-8?Q?e?=", "Re: a b c de"),
    "different charsets": (b"=?utf-8?B?6KuL?= =?iso-2022-jp?B?GyRCNWEbKEI=?=", "請求"),
    "Latin": (b"=?iso-8859-1?Q?caf=E9?= =?windows-1252?Q?=80?=", "café€"),
    "underscores outside": (b"a_b =?utf-8?Q?=5F?=", "a_b _"),
    "invalid base64": (b"=?utf-8?B?%%%?=x", "x"),
    "question marks": (b"=?=?=? what?=", "=?=?=? what?="),
    "half-width kana": (b"=?iso-2022-jp?B?GyhJMTIbKEI=?=", "ｱｲ"),
}


@pytest.mark.parametrize(("raw", "text"), SUBJECTS.values(), ids=SUBJECTS)
def test_encoded_words_are_decoded(raw: bytes, text: str) -> None:
    assert parse_head(b"Subject: " + raw + b"\r\n").subject == text


def test_bytes_of_no_charset_are_some_text() -> None:
    assert decode_bytes(b"caf\xe9") == "café"
    assert decode_bytes(b"a\xff", "us-ascii").startswith("a")
    assert decode_bytes(b"a\xffb", "utf-8").startswith("a")
    assert decode_words(b"=?utf-8?B?/////w==?=").encode()


ADDRESSES = {
    "bare": (b"a@b.example", "a@b.example"),
    "with a name": (b'"B, A" <a@b.example>', "a@b.example"),
    "with an encoded name": (b"=?utf-8?B?6KuL?= <a@b.example>", "a@b.example"),
    "with a comment": (b"a@b.example (A)", "a@b.example"),
    "the first of some": (b"A <a@b.example>, C <c@d.example>", "a@b.example"),
    "none": (b"undisclosed-recipients:;", "undisclosed-recipients:;"),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize(("raw", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_first_address_is_told(raw: bytes, address: str) -> None:
    assert address_of(raw) == address


def test_a_subject_is_bounded() -> None:
    head = parse_head(b"From: a@b\r\nSubject: " + b"x" * 5000)
    carrier = carrier_of(head, "mail")
    assert carrier.startswith('mail from a@b "xxx')
    assert carrier.endswith("x…")
    assert len(carrier) == MAX_SUBJECT_CHARACTERS
    assert carrier_of(parse_head(b""), "mail over POP3") == "mail over POP3"
    assert len(parse_head(b"Content-Disposition: a; filename=" + b"x" * 5000).name) == MAX_SUBJECT_CHARACTERS


def test_boundaries_are_bounded() -> None:
    many = b"; ".join(b"boundary=b%d" % number for number in range(50))
    assert len(parse_head(b"Content-Type: multipart/mixed; " + many).boundaries) == MAX_BOUNDARIES
    long = parse_head(b"Content-Type: multipart/mixed; boundary=" + b"b" * 5000).boundaries
    assert long == (b"b" * MAX_BOUNDARY_BYTES,)


def test_a_header_says_what_its_content_is() -> None:
    head = parse_head(b"")
    assert (head.content, head.kind, head.transfer, head.name) == (Content.LEAF, "text/plain", Transfer.IDENTITY, "")
    head = parse_head(b"Content-Type: Message/RFC822\nContent-Transfer-Encoding: 8BIT")
    assert (head.content, head.transfer) == (Content.MESSAGE, Transfer.IDENTITY)
    head = parse_head(b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64")
    assert (head.content, head.transfer) == (Content.LEAF, Transfer.BASE64)
