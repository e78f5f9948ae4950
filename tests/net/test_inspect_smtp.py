"""The test virus in mails to Postfix, in both directions through the whole box: the mail is delivered, parses, and is harmless."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware.process import run
from tests.support.infected_mails import infected_mails, mail_with
from tests.support.mail_servers import Line
from tests.support.mailed import Mailed, Way, start_mailed
from tests.support.mails import parsed
from tests.support.wait import patience_s

MAILS = {mail.subject: mail for mail in infected_mails()}


@pytest.fixture(scope="module")
def mailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailed]:
    with start_mailed(tmp_path_factory.mktemp("m"), "smtp") as mailed:
        yield mailed


@pytest.fixture(autouse=True)
def _empty_boxes(mailed: Mailed) -> None:
    mailed.outside.clear()
    mailed.office.clear()


def client(mailed: Mailed, way: Way) -> smtplib.SMTP:
    servers = mailed.servers(way)
    return mailed.at(way, lambda: smtplib.SMTP(servers.host, servers.smtp, "client.example", timeout=patience_s(20)))


def subject_of(mail: bytes) -> str:
    return str(parsed(mail)["Subject"])


def send(mailed: Mailed, way: Way, *mails: bytes) -> list[bytes]:
    """By DATA in one conversation; what was delivered."""
    with client(mailed, way) as connection:
        for mail in mails:
            connection.sendmail("a@example", ["b@example"], mail, mail_options=["BODY=8BITMIME"])
    return mailed.servers(way).wait_for(len(mails))


@pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
def test_every_mail_with_the_virus_arrives_harmless_and_is_told(mailed: Mailed, way: Way) -> None:
    delivered = {subject_of(mail): mail for mail in send(mailed, way, *(mail.data for mail in MAILS.values()))}
    for mail in MAILS.values():
        mailed.check_delivered(mail, delivered[mail.subject])
    mailed.check_told(MAILS.values(), "smtp", way)


def line(mailed: Mailed, way: Way) -> Line:
    servers = mailed.servers(way)
    return mailed.at(way, lambda: Line(servers.smtp, servers.host))


def by_swaks(mailed: Mailed, folder: Path, mail: bytes) -> None:
    (folder / "mail").write_bytes(mail.replace(b"\r\n", b"\n").removesuffix(b"\n"))  # it makes CRLF of line ends, and adds one
    who = ["--from", "a@example", "--to", "b@example", "--pipeline", "--data", f"@{folder / 'mail'}"]
    to = ["--server", mailed.outside.host, "--port", str(mailed.outside.smtp)]
    run(["ip", "netns", "exec", mailed.namespace(Way.OUTWARDS), "swaks", *to, *who], explain="send", timeout_s=patience_s(20))


def by_curl(mailed: Mailed, folder: Path, mail: bytes) -> None:
    (folder / "mail").write_bytes(mail)
    url = f"smtp://{mailed.outside.host}:{mailed.outside.smtp}/client.example"
    who = ["--mail-from", "a@example", "--mail-rcpt", "b@example", "-T", folder / "mail"]
    run(["ip", "netns", "exec", mailed.namespace(Way.OUTWARDS), "curl", "-sS", url, *who], explain="send", timeout_s=patience_s(20))


def by_chunks(mailed: Mailed, folder: Path, mail: bytes) -> None:
    """RFC 3030, commands and chunks in one go; a chunk may end within a line."""
    middle = len(mail) // 3 + 1
    peer = line(mailed, Way.OUTWARDS)
    peer.replies()
    peer.send(b"EHLO client.example\r\n")
    peer.replies()
    peer.send(b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nBDAT %d\r\n" % middle + mail[:middle])
    peer.send(b"BDAT %d LAST\r\n" % (len(mail) - middle) + mail[middle:] + b"QUIT\r\n")
    assert [reply[:1] for reply in peer.replies(5)] == [b"2"] * 5
    peer.close()


def by_crumbs(mailed: Mailed, folder: Path, mail: bytes) -> None:
    """In small segments, with a pause longer than the window in the middle of the virus."""
    peer = line(mailed, Way.OUTWARDS)
    peer.replies()
    for command in (b"HELO client.example\r\n", b"MAIL FROM:<a@example>\r\n", b"RCPT TO:<b@example>\r\n", b"DATA\r\n"):
        peer.send(command)
        peer.replies()
    stuffed = mail.replace(b"\r\n.", b"\r\n..")
    virus = stuffed.index(b"invoice.com")
    for at in range(0, virus, 700):
        peer.send(stuffed[at : min(at + 700, virus)])
    for at in range(virus, virus + 400, 20):
        peer.send(stuffed[at : at + 20])
        time.sleep(0.01)
    peer.send(stuffed[virus + 400 :] + b".\r\nQUIT\r\n")
    peer.replies(2)
    peer.close()


def by_pauses(mailed: Mailed, folder: Path, mail: bytes) -> None:
    """With a pause in the virus, and one longer than the window right behind it, before its part ends."""
    peer = line(mailed, Way.OUTWARDS)
    peer.replies()
    for command in (b"HELO client.example\r\n", b"MAIL FROM:<a@example>\r\n", b"RCPT TO:<b@example>\r\n", b"DATA\r\n"):
        peer.send(command)
        peer.replies()
    stuffed = mail.replace(b"\r\n.", b"\r\n..")
    middle = stuffed.index(b"\r\n\r\n", stuffed.index(b"invoice.com")) + 20
    end = stuffed.index(b"\r\n--=_outer=", middle) + 2
    for piece in (stuffed[:middle], stuffed[middle:end], stuffed[end:] + b".\r\nQUIT\r\n"):
        peer.send(piece)
        time.sleep(0.2)
    peer.replies(2)
    peer.close()


WAYS = {"swaks with pipelining": by_swaks, "curl": by_curl, "BDAT": by_chunks, "small segments": by_crumbs, "pauses": by_pauses}


@pytest.mark.parametrize("send_by", WAYS.values(), ids=WAYS)
def test_however_a_mail_is_sent_it_arrives_harmless(mailed: Mailed, tmp_path: Path, send_by: Callable[..., None]) -> None:
    mail = MAILS["base64"]
    send_by(mailed, tmp_path, mail.data)
    (delivered,) = mailed.outside.wait_for(1)
    mailed.check_delivered(mail, delivered)


def test_mails_of_one_conversation_are_judged_by_themselves(mailed: Mailed) -> None:
    clean = mail_with("clean")
    delivered = send(mailed, Way.OUTWARDS, clean, MAILS["base64"].data, clean, MAILS["seven bits"].data, clean)
    bodies = [mail.partition(b"\n\n")[2] for mail in delivered]
    assert bodies.count(clean.replace(b"\r\n", b"\n").partition(b"\n\n")[2]) == 3
    for subject in ("base64", "seven bits"):
        (mail,) = [mail for mail in delivered if subject_of(mail) == subject]
        mailed.check_delivered(MAILS[subject], mail)
