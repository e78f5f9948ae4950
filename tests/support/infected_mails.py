"""Mails that carry the test virus in every encoding and nesting, beside a text and an attachment that are clean.

Written as bytes, not by the email package: encodings are what attackers make of them.
"""

from __future__ import annotations

import base64
import binascii
import gzip
from dataclasses import dataclass

from tests.support.archives import tarred, zipped
from tests.support.eicar import EICAR, MARKER
from tests.support.mails import python_leaves
from tests.support.packets import seeded

CLEAN = seeded(11).randbytes(30_000)
TEXT = "ご確認ください。\r\n.\r\n..two dots\r\nFrom here on\r\n".encode()
SECRET_NAME = "=?utf-8?B?" + base64.b64encode("見積書.exe".encode()).decode() + "?="


@dataclass(frozen=True)
class InfectedMail:
    """`data` as it goes over SMTP; `leaves` are the numbers of the parts, as Python's email package counts them, with the virus."""

    subject: str
    data: bytes
    leaves: tuple[int, ...] = (1,)


def b64(data: bytes, width: int = 57) -> bytes:
    return b"".join(base64.b64encode(data[at : at + width]) + b"\r\n" for at in range(0, len(data), width))


def quoted(data: bytes, width: int = 24) -> bytes:
    """Every byte as a number, in soft lines."""
    lines = (data[at : at + width] for at in range(0, len(data), width))
    return b"=\r\n".join(b"".join(b"=%02X" % byte for byte in line) for line in lines) + b"\r\n"


def uuencoded(data: bytes, name: bytes = b"invoice.com") -> bytes:
    lines = (binascii.b2a_uu(data[at : at + 45]).rstrip(b"\n") + b"\r\n" for at in range(0, len(data), 45))
    return b"begin 644 " + name + b"\r\n" + b"".join(lines) + b"`\r\nend\r\n"


def part(head: bytes, body: bytes) -> bytes:
    return head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body


def attachment(encoding: bytes, body: bytes, name: str = "invoice.com") -> bytes:
    disposition = b'Content-Disposition: attachment; filename="%b"' % name.encode()
    return part(b"Content-Type: application/octet-stream\n%b\nContent-Transfer-Encoding: %b" % (disposition, encoding), body)


def text(body: bytes = TEXT) -> bytes:
    return part(b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit", body)


def multipart(boundary: bytes, *parts: bytes, head: bytes = b"MIME-Version: 1.0", kind: bytes = b"mixed") -> bytes:
    inner = b"".join(b"\r\n--%b\r\n%b" % (boundary, each) for each in parts)
    return part(b'%b\nContent-Type: multipart/%b; boundary="%b"' % (head, kind, boundary), inner + b"\r\n--%b--\r\n" % boundary)


def addressed(subject: str) -> bytes:
    return b"From: Sato <a@example>\nTo: b@example\nSubject: %b\nMIME-Version: 1.0" % subject.encode()


def clean_attachment() -> bytes:
    return attachment(b"base64", b64(CLEAN), "plan.pdf")


def mail_with(subject: str, *parts: bytes) -> bytes:
    """A text, these parts, and a clean attachment behind them."""
    return multipart(b"=_outer=", text(), *parts, clean_attachment(), head=addressed(subject))


def _around(subject: str, *parts: bytes, leaves: tuple[int, ...] = (1,)) -> InfectedMail:
    return InfectedMail(subject, mail_with(subject, *parts), leaves)


def infected_mails() -> tuple[InfectedMail, ...]:
    inner = multipart(b"=_inner=", text(), attachment(b"base64", b64(EICAR)), head=addressed("inner"))
    deep = attachment(b"base64", b64(EICAR))
    for number in range(5):
        deep = multipart(b"=_%d=" % number, deep, head=b"X-Level: %d" % number, kind=b"related")
    return (
        _around("base64", attachment(b"base64", b64(EICAR))),
        _around("base64 in lines of four", attachment(b"base64", b64(EICAR, 3))),
        _around("base64 named in capitals", attachment(b"BASE64", b64(EICAR), SECRET_NAME)),
        _around("quoted-printable", attachment(b"quoted-printable", EICAR.replace(b"=", b"=3D") + b"\r\n")),
        _around("quoted-printable as numbers", attachment(b"quoted-printable", quoted(EICAR))),
        _around("seven bits", attachment(b"7bit", EICAR + b"\r\n")),
        _around("no encoding said", part(b'Content-Type: application/x-msdownload; name="a.com"', EICAR + b"\r\n")),
        _around("in the middle of a text", text(b"one line\r\n" + MARKER + b"\r\nanother\r\n")),
        _around("uuencode behind a text", text(b"See below.\r\n\r\n" + uuencoded(EICAR) + b"\r\nRegards\r\n")),
        _around("a part that is uuencode", attachment(b"x-uuencode", uuencoded(EICAR))),
        _around("zip", attachment(b"base64", b64(zipped(EICAR)), "invoice.zip")),
        _around("zip in zip", attachment(b"base64", b64(zipped(CLEAN, zipped(EICAR))), "invoice.zip")),
        _around("tar.gz", attachment(b"base64", b64(gzip.compress(tarred(EICAR))), "invoice.tar.gz")),
        _around("zip as numbers", attachment(b"quoted-printable", quoted(zipped(EICAR)), "invoice.zip")),
        _around("mail in a mail", part(b"Content-Type: message/rfc822", inner), leaves=(2,)),
        _around("mail in base64 in a mail", attachment(b"base64", b64(inner), "forwarded.eml")),
        _around("five multiparts deep", deep),
        _around("twice", attachment(b"base64", b64(EICAR)), attachment(b"7bit", EICAR + b"\r\n"), leaves=(1, 2)),
        InfectedMail(
            "the mail is the virus",
            part(addressed("the mail is the virus") + b"\nContent-Transfer-Encoding: base64", b64(EICAR)),
            (0,),
        ),
        InfectedMail(
            "no MIME at all",
            part(b"From: a@example\nTo: b@example\nSubject: no MIME at all", b"Hi!\r\n\r\n" + uuencoded(EICAR)),
            (0,),
        ),
    )


def check_harmless(sent: InfectedMail, got: bytes) -> None:
    """The same mail, line by line as long, whose other parts are what they were and whose infected ones are not. Line ends may be
    those of a mailbox, and fields may have been put on top."""
    whole = sent.data.replace(b"\r\n", b"\n")
    body = got.replace(b"\r\n", b"\n")
    before, after = python_leaves(whole), python_leaves(body)
    assert [leaf[:2] for leaf in after] == [leaf[:2] for leaf in before], "the same structure"
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        assert (old[2] != new[2]) == (number in sent.leaves), f"part {number}: {new[2][:100]!r}"
    lengths = [list(map(len, mail.partition(b"\n\n")[2].splitlines())) for mail in (whole, body)]
    assert lengths[0] == lengths[1], "every line as long as it was"
