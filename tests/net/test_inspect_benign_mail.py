"""Nothing that is harmless is touched: mails of many shapes and sizes, sent, fetched and stored, with every function on."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.mime.text import MIMEText
from hashlib import sha256
from itertools import product

import pytest

from tests.support.archives import locked, zipped
from tests.support.infected_mails import addressed, attachment, b64, clean_attachment, mail_with, multipart, part, quoted, text
from tests.support.infected_mails import uuencoded as uu
from tests.support.mailed import Mailed, Way, start_mailed
from tests.support.mails import wire
from tests.support.packets import seeded
from tests.support.wait import patience_s

NOISE = seeded(23).randbytes(15_000_000)
"""As base64 it is 20 MB."""
SIZES = (0, 1, 2, 3, 57, 58, 1000, 4096, 65_535, 65_536, 300_000)
ENCODINGS = ("base64", "quoted-printable", "8bit", "7bit")
CHARSETS = ("utf-8", "iso-2022-jp", "shift_jis", "euc-jp", "us-ascii")
NAMES = ("報告書.pdf", "a name with blanks.docx", 'quotes " and \\ in it.xlsx', "x" * 200 + ".bin")


def _plain(charset: str) -> bytes:
    body = "Hello\n.\n..\nFrom here\n" if charset == "us-ascii" else "お世話になっております。\n.\n議事録を送ります。\n" * 50
    message = MIMEText(body, "plain", charset)
    message["From"], message["To"], message["Subject"] = "a@example", "b@example", f"text in {charset}"
    return message.as_bytes().replace(b"\n", b"\r\n")


def _made(name: str) -> bytes:
    """As Python's email package writes it, with HTML, a picture in it, and an attachment with this name."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "佐藤 <a@example>", "b@example", "見積書の件"
    message.set_content("本文です。\n")
    message.add_alternative("<p>本文です。<img src='cid:a'></p>", subtype="html")
    message.get_payload()[1].add_related(NOISE[:5000], "image", "png", cid="<a>")  # type: ignore[union-attr, index]
    message.add_attachment(NOISE[5000:9000], maintype="application", subtype="octet-stream", filename=name)
    return wire(message)


def _encoded(encoding: str, content: bytes) -> bytes:
    return {"base64": b64, "quoted-printable": quoted}.get(encoding, lambda data: data.hex("\n", 30).encode())(content)


def benign_mails() -> list[bytes]:
    sized = [
        mail_with(
            f"{size} bytes in {encoding}", attachment(encoding.encode(), _encoded(encoding, NOISE[:size]).replace(b"\r", b""))
        )
        for size, encoding in product(SIZES, ENCODINGS)
    ]
    odd = [
        part(addressed("no body"), b""),
        part(addressed("dots"), b".\r\n..\r\n...\r\n.a\r\n"),
        part(addressed("looks like a boundary") + b'\nContent-Type: multipart/mixed; boundary="x"', b"--y\r\n\r\n--x--y\r\n"),
        multipart(b"=_o=", text(), multipart(b"=_i=", text(), clean_attachment()), head=addressed("nested")),
        mail_with("a mail in a mail", part(b"Content-Type: message/rfc822", mail_with("inner", clean_attachment()))),
        mail_with("archives", *(attachment(b"base64", b64(data)) for data in (zipped(NOISE[:999]), zipped(zipped(b"x"))))),
        mail_with("an archive with a password", attachment(b"base64", b64(locked(NOISE[:999])), "a.zip")),
        part(addressed("uuencode"), b"See below\r\n" + uu(NOISE[:3000]) + b"\r\nRegards\r\n"),
        part(addressed("begin of something"), b"begin 644 the day\r\nwith a smile\r\nend\r\n"),
        part(addressed("a certificate"), b"-----BEGIN CERTIFICATE-----\r\n" + b64(NOISE[:900]) + b"-----END CERTIFICATE-----\r\n"),
        mail_with("mislabelled base64", attachment(b"base64", b"This is no base64 at all!\r\n")),
        mail_with("an encoding nobody knows", attachment(b"x-nobody", NOISE[:1000].hex("\n", 30).encode() + b"\r\n")),
        multipart(b"=_u=", text(), clean_attachment(), head=addressed("never closed")).removesuffix(b"\r\n--=_u=--\r\n") + b"\r\n",
    ]
    mails = [*map(_plain, CHARSETS), *map(_made, NAMES), *sized, *odd]
    # Each says which it is; lines end as they do over SMTP.
    crlf = [mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for mail in mails]
    return [
        b"X-Number: %d\r\n%b" % (number, mail if mail.endswith(b"\r\n") else mail + b"\r\n") for number, mail in enumerate(crlf)
    ]


MAILS = benign_mails()
LARGE = mail_with("large", attachment(b"base64", b64(NOISE), "large.bin"))


@pytest.fixture(scope="module")
def mailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailed]:
    with start_mailed(tmp_path_factory.mktemp("m"), "bmail") as mailed:
        yield mailed


@pytest.fixture(autouse=True)
def _nothing_is_blocked(mailed: Mailed) -> Iterator[None]:
    mailed.outside.clear()
    mailed.office.clear()
    yield
    time.sleep(patience_s(1.5))  # until the writer has them
    assert [event for event in mailed.scanned.box.events() if event["action"] == "blocked"] == []


def local(mail: bytes) -> bytes:
    return mail.replace(b"\r\n", b"\n")


def number_of(mail: bytes) -> int:
    return int(mail.partition(b"X-Number: ")[2].split(maxsplit=1)[0])


def differing(sent: list[bytes], got: list[bytes]) -> list[int]:
    """The numbers of those that did not arrive as they were, but for fields on top. Reports on how would take minutes."""
    by_number = {number_of(mail): local(mail) for mail in got}
    wanted = {number_of(mail): local(mail) for mail in sent}
    return [number for number, mail in wanted.items() if not by_number.get(number, b"").endswith(mail)]


@pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
def test_mails_that_are_sent_arrive_as_they_are(mailed: Mailed, way: Way) -> None:
    servers = mailed.servers(way)
    with mailed.at(way, lambda: smtplib.SMTP(servers.host, servers.smtp, "client.example", timeout=patience_s(30))) as client:
        for mail in MAILS:
            client.sendmail("a@example", ["b@example"], mail, mail_options=["BODY=8BITMIME"])
    assert len(MAILS) >= 50
    assert differing(MAILS, servers.wait_for(len(MAILS))) == []


@pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
def test_mails_that_are_fetched_and_stored_arrive_as_they_are(mailed: Mailed, way: Way) -> None:
    servers = mailed.servers(way)
    servers.put(*map(local, MAILS))
    with mailed.at(way, lambda: imaplib.IMAP4(servers.host, servers.imap, timeout=patience_s(20))) as client:
        client.login("b", "b")
        client.select()
        answers = [client.fetch(str(number), "(FLAGS BODY.PEEK[])")[1][0] for number in range(1, len(MAILS) + 1)]
        assert differing(MAILS, [answer[1] for answer in answers if isinstance(answer, tuple)]) == []
        together = client.fetch("1:*", "(RFC822.SIZE BODY.PEEK[])")[1]
        assert differing(MAILS, [answer[1] for answer in together if isinstance(answer, tuple)]) == []
    pop3 = mailed.at(way, lambda: poplib.POP3(servers.host, servers.pop3, timeout=patience_s(20)))
    pop3.user("b")
    pop3.pass_("b")
    assert differing(MAILS, [b"\r\n".join([*pop3.retr(number)[1], b""]) for number in range(1, len(MAILS) + 1)]) == []
    pop3.quit()
    servers.clear()
    with mailed.at(way, lambda: imaplib.IMAP4(servers.host, servers.imap, timeout=patience_s(20))) as client:
        client.login("b", "b")
        for mail in MAILS:
            assert client.append("INBOX", "", "", mail)[0] == "OK"
    assert differing(MAILS, servers.wait_for(len(MAILS))) == []


def test_a_mail_of_twenty_megabytes_arrives_as_it_is(mailed: Mailed) -> None:
    servers = mailed.outside
    with mailed.at(Way.OUTWARDS, lambda: smtplib.SMTP(servers.host, servers.smtp, "c.example", timeout=patience_s(60))) as client:
        client.sendmail("a@example", ["b@example"], LARGE, mail_options=["BODY=8BITMIME"])
    (delivered,) = servers.wait_for(1)
    assert sha256(delivered[-len(local(LARGE)) :]).digest() == sha256(local(LARGE)).digest()
    with mailed.at(Way.OUTWARDS, lambda: imaplib.IMAP4(servers.host, servers.imap, timeout=patience_s(60))) as client:
        client.login("b", "b")
        client.select()
        answer = client.fetch("*", "(BODY.PEEK[])")[1][0]  # Dovecot may still list those that are gone
    assert isinstance(answer, tuple)
    assert sha256(local(answer[1])).digest() == sha256(delivered).digest()
