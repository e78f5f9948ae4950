"""Mails that real programs write, read by us and by Python's email package: the same parts, names and contents; and what is left of
them when files were written over."""

from __future__ import annotations

import random
import subprocess
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from mamori.inspect.findings import OVERWRITING, Coding
from tests.support.mails import BASE, ReadMail, overwritten, parsed, python_leaves, read_mail, read_whole, wire
from tests.support.need import need

RANDOM = random.Random(7)  # noqa: S311 - data without structure
VIRUS = RANDOM.randbytes(3000)


def office_mail() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "山田 太郎 <taro@a.example>", "b@c.example", "請求書の件（再送）"
    message.set_content("お世話になっております。\n\n-- \n山田\n", cte="base64")
    message.add_alternative("<p>お世話になっております。=</p>\n" * 20, subtype="html", cte="quoted-printable")
    message.add_attachment(VIRUS, "application", "zip", filename="請求書 2024.zip")
    message.add_attachment("comma,separated\r\n" * 30, filename="list.csv", subtype="csv")
    message.add_attachment(VIRUS[:300], "application", "octet-stream", filename="q.bin", cte="quoted-printable")
    return message


def forwarded() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Fwd"
    message.set_content("see below")
    message.add_attachment(office_mail())
    return message


def related() -> EmailMessage:
    message = EmailMessage()
    message.set_content("text")
    message.add_alternative("<img src='cid:x'>", subtype="html")
    message.get_payload(1).add_related(VIRUS[:99], "image", "png", cid="<x>")  # type: ignore[union-attr]
    return message


def plain() -> EmailMessage:
    message = EmailMessage()
    message.set_content("only text\n")
    return message


def one_file() -> EmailMessage:
    message = EmailMessage()
    message.set_content(VIRUS, "application", "pdf", filename="a.pdf")
    return message


def eight_bits() -> EmailMessage:
    message = EmailMessage()
    message.set_content("テスト\n" * 50, cte="8bit")
    message.make_mixed()
    message.add_attachment(bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") * 2, "a", "b", filename="x", cte="8bit")
    return message


WRITTEN = {made.__name__: made for made in (office_mail, forwarded, related, plain, one_file, eight_bits)}


def assert_read_alike(mail: bytes, read: ReadMail) -> None:
    theirs = [(name, content) for kind, name, content in python_leaves(mail)]
    assert [(file.name, file.data) for file in read.files.values()] == theirs
    assert all(file.is_complete for file in read.files.values())
    assert read.anomalies == []


@pytest.mark.parametrize("made", WRITTEN.values(), ids=WRITTEN)
def test_what_python_writes_is_read_as_python_reads_it(made: type[EmailMessage]) -> None:
    mail = wire(made())
    assert_read_alike(mail, read_mail(mail))


@pytest.mark.parametrize("made", WRITTEN.values(), ids=WRITTEN)
def test_a_mail_that_was_written_over_keeps_its_parts_and_loses_their_content(made: type[EmailMessage]) -> None:
    mail = wire(made())
    read = read_whole(mail)
    written = overwritten(mail, read)
    assert len(written) == len(mail)
    before, after = python_leaves(mail), python_leaves(written)
    assert [(kind, name) for kind, name, _ in before] == [(kind, name) for kind, name, _ in after]
    assert parsed(written).items() == parsed(mail).items()
    for (_, _, old), (_, _, new) in zip(before, after, strict=True):
        # Padding, signs and line ends stay; no two other bytes of the old content do.
        assert not set(new) - set(b"\0X\r\n0=")
        assert old != new
    again = read_whole(written)
    assert [(file.start, file.end, file.ranges) for file in again.files.values()] == [
        (file.start, file.end, file.ranges) for file in read.files.values()
    ]


def test_one_file_that_is_written_over_leaves_the_others() -> None:
    mail = wire(office_mail())
    read = read_whole(mail)
    infected = next(number for number, file in read.files.items() if file.data == VIRUS)
    before, after = python_leaves(mail), python_leaves(overwritten(mail, read, [infected]))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, True, True]
    assert after[2][2] == bytes(len(VIRUS))


def test_what_is_written_does_not_depend_on_how_it_came() -> None:
    """A retransmission is cut in another way; its bytes must be the same."""
    mail = wire(office_mail())
    file = next(file for file in read_whole(mail).files.values() if file.codings == {Coding.BASE64} and file.data == VIRUS)
    ((start, end),) = file.ranges
    table = OVERWRITING[Coding.BASE64]
    raw = mail[start - BASE : end - BASE]
    assert b"".join(raw[at : at + 7].translate(table) for at in range(0, len(raw), 7)) == raw.translate(table)


def test_mutt_writes_what_we_read(tmp_path: Path) -> None:
    need("mutt", "writes a mail")
    attached = tmp_path / "見積 書.bin"
    attached.write_bytes(VIRUS)
    (tmp_path / "sendmail").write_text(f'#!/bin/sh\ncat > "{tmp_path}/sent"\n')
    (tmp_path / "sendmail").chmod(0o700)
    settings = {
        "sendmail": tmp_path / "sendmail",
        "copy": "no",
        "from": "a@b.example",
        "charset": "utf-8",
        "rfc2047_parameters": "yes",
    }
    options = [option for key, value in settings.items() for option in ("-e", f'set {key}="{value}"')]
    subprocess.run(
        ["mutt", "-n", "-F", "/dev/null", *options, "-s", "請求書", "-a", str(attached), "--", "c@d.example"],  # noqa: S607
        input="本文\n".encode(),
        check=True,
        timeout=60,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    mail = (tmp_path / "sent").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    read = read_mail(mail)
    assert_read_alike(mail, read)
    assert (read.names[-1], read.contents[-1]) == ("見積 書.bin", VIRUS)
    assert read.files[1].subject == 'mail from a@b.example to c@d.example "請求書"'


def test_swaks_writes_what_we_read(tmp_path: Path) -> None:
    need("swaks", "writes a mail")
    attached = tmp_path / "v.bin"
    attached.write_bytes(VIRUS)
    shown = subprocess.run(
        [  # noqa: S607
            "swaks", "--dump-mail", "--to", "c@d.example", "--from", "a@b.example", "--header", "Subject: x", "--body", "text",
         "--attach-type", "application/zip", "--attach-name", "v.zip", "--attach", f"@{attached}"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout  # fmt: skip
    mail = shown.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    read = read_mail(mail)
    assert_read_alike(mail, read)
    assert (read.names[-1], read.contents[-1]) == ("v.zip", VIRUS)


def test_uuencode_writes_what_we_read(tmp_path: Path) -> None:
    need("uuencode", "writes a file into a mail's text")
    coded = subprocess.run(["uuencode", "a.exe"], input=VIRUS, stdout=subprocess.PIPE, check=True, timeout=60).stdout  # noqa: S607
    read = read_mail(b"Subject: x\r\n\r\nhello\r\n" + coded.replace(b"\n", b"\r\n") + b"bye\r\n")
    assert [(file.name, file.data) for file in list(read.files.values())[1:]] == [("a.exe", VIRUS)]


def test_a_mail_that_python_generates_from_random_trees_is_read_alike() -> None:
    for seed in range(30):
        mail = random_tree(random.Random(seed), depth=4).as_bytes(policy=SMTP)  # noqa: S311
        assert_read_alike(mail, read_whole(mail))


def random_tree(choose: random.Random, depth: int) -> EmailMessage:
    message = EmailMessage()
    kind = choose.choice(["text", "file", "mixed", "message"]) if depth else "text"
    if kind == "text":
        message.set_content(
            "line\n" * choose.randrange(1, 50) + choose.choice(["", "日本語\n"]), subtype=choose.choice(["plain", "html"])
        )
    elif kind == "file":
        message.set_content(
            choose.randbytes(choose.randrange(2000)), "application", "x", filename=choose.choice(["a", "見積.zip", "a b"])
        )
    elif kind == "message":
        message.set_content(random_tree(choose, depth - 1))
    else:
        message.make_mixed()
        for _ in range(choose.randrange(1, 5)):
            message.attach(random_tree(choose, depth - 1))
    return message
