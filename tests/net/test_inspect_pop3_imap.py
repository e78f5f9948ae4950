"""The test virus in mailboxes of Dovecot, fetched and put there through the whole box, from the office and from outside."""

from __future__ import annotations

import base64
import contextlib
import imaplib
import poplib
from collections.abc import Iterator
from hashlib import sha256

import pytest

from firmware.process import run
from tests.support.eicar import EICAR, MARKER
from tests.support.infected_mails import CLEAN, attachment, b64, infected_mails, mail_with, multipart, text
from tests.support.mailed import Mailed, Way, start_mailed
from tests.support.mails import parsed
from tests.support.packets import seeded
from tests.support.wait import patience_s

MAILS = {mail.subject: mail for mail in infected_mails()}
BASE64 = MAILS["base64"]
LARGE = seeded(13).randbytes(1_000_000)
ways = pytest.mark.parametrize("way", Way, ids=lambda way: way.value)


@pytest.fixture(scope="module")
def mailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailed]:
    with start_mailed(tmp_path_factory.mktemp("m"), "pop") as mailed:
        yield mailed


@pytest.fixture(autouse=True)
def _empty_boxes(mailed: Mailed) -> None:
    mailed.outside.clear()
    mailed.office.clear()


def local(mail: bytes) -> bytes:
    """As Postfix leaves it in a mailbox."""
    return mail.replace(b"\r\n", b"\n")


@contextlib.contextmanager
def pop3(mailed: Mailed, way: Way) -> Iterator[poplib.POP3]:
    servers = mailed.servers(way)
    client = mailed.at(way, lambda: poplib.POP3(servers.host, servers.pop3, timeout=patience_s(20)))
    client.user("b")
    client.pass_("b")
    try:
        yield client
    finally:
        client.quit()


@contextlib.contextmanager
def imap(mailed: Mailed, way: Way) -> Iterator[imaplib.IMAP4]:
    servers = mailed.servers(way)
    with mailed.at(way, lambda: imaplib.IMAP4(servers.host, servers.imap, timeout=patience_s(20))) as client:
        client.login("b", "b")
        client.select()
        yield client


def fetched(client: imaplib.IMAP4, items: str, number: int = 1) -> bytes:
    """The one literal of an answer."""
    status, answer = client.fetch(str(number), items)
    assert status == "OK"
    (literal,) = [each[1] for each in answer if isinstance(each, tuple)]
    assert isinstance(literal, bytes)
    return literal


@ways
def test_every_mail_that_pop3_retrieves_is_harmless(mailed: Mailed, way: Way) -> None:
    mailed.servers(way).put(*(local(mail.data) for mail in MAILS.values()))
    with pop3(mailed, way) as client:
        for number, mail in enumerate(MAILS.values(), 1):
            mailed.check_delivered(mail, b"\r\n".join([*client.retr(number)[1], b""]))
    mailed.check_told(MAILS.values(), "pop3", way)


def test_the_top_of_a_mail_is_harmless(mailed: Mailed) -> None:
    mailed.outside.put(local(BASE64.data))
    with pop3(mailed, Way.OUTWARDS) as client:
        mailed.check_delivered(BASE64, b"\r\n".join([*client.top(1, 10_000)[1], b""]))
        assert b64(EICAR).rstrip() not in b"\n".join(client.top(1, 20)[1])


@ways
def test_every_mail_that_imap_fetches_is_harmless(mailed: Mailed, way: Way) -> None:
    mailed.servers(way).put(*(local(mail.data) for mail in MAILS.values()))
    with imap(mailed, way) as client:
        for number, mail in enumerate(MAILS.values(), 1):
            mailed.check_delivered(mail, fetched(client, "(FLAGS BODY.PEEK[])" if number % 2 else "RFC822", number))
    mailed.check_told(MAILS.values(), "imap", way)


SECTIONS = {
    "a part": "BODY[2]",
    "a part that the server decodes": "BINARY[2]",
    "the text of the mail": "BODY[TEXT]",
    "more than there is": "BODY[2]<0.10000>",
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_part_that_is_fetched_by_itself_is_harmless(mailed: Mailed, section: str) -> None:
    mailed.outside.put(local(BASE64.data))
    with imap(mailed, Way.OUTWARDS) as client:
        client.fetch("1", "(BODYSTRUCTURE)")
        got = fetched(client, section)
        clean = fetched(client, "BODY[3]")
    assert base64.b64decode(clean) == CLEAN
    if section == "BODY[TEXT]":
        assert got == BASE64.data.partition(b"\r\n\r\n")[2].replace(b64(EICAR), b64(bytes(len(EICAR))))
    else:
        harmless = got if section == "BINARY[2]" else base64.b64decode(got)
        assert len(harmless) == len(EICAR)
        assert set(harmless) in ({0}, set(b"X"))


def in_pieces(mailed: Mailed, content: bytes, step: int) -> bytes:
    """An attachment as a client gets it that asks for so many bytes at a time."""
    mailed.outside.put(local(mail_with("pieces", attachment(b"base64", b64(content), "invoice.com"))))
    with imap(mailed, Way.OUTWARDS) as client:
        client.fetch("1", "(BODYSTRUCTURE)")
        pieces = [fetched(client, f"BODY.PEEK[2]<0.{step}>")]
        while len(pieces[-1]) == step:
            pieces.append(fetched(client, f"BODY.PEEK[2]<{step * len(pieces)}.{step}>"))
    return base64.b64decode(b"".join(pieces))


@pytest.mark.parametrize("step", [30, 77, 92])
def test_a_small_virus_that_is_fetched_in_pieces_is_not_whole(mailed: Mailed, step: int) -> None:
    got = in_pieces(mailed, EICAR, step)
    assert len(got) == len(EICAR)
    assert got != EICAR


def test_of_a_large_file_that_is_fetched_in_pieces_the_last_piece_is_written_over(mailed: Mailed) -> None:
    got = in_pieces(mailed, LARGE + MARKER, 65_536)
    assert len(got) == len(LARGE + MARKER)
    assert MARKER not in got


@ways
def test_what_is_appended_is_stored_harmless(mailed: Mailed, way: Way) -> None:
    with imap(mailed, way) as client:
        for mail in MAILS.values():
            assert client.append("INBOX", "", "", mail.data)[0] == "OK"
        client.noop()
    stored = [path.read_bytes() for path in mailed.servers(way).mails()]
    assert len(stored) == len(MAILS)
    for mail in stored:
        mailed.check_delivered(MAILS[str(parsed(mail)["Subject"])], mail)
    mailed.check_told(MAILS.values(), "imap", way)


@pytest.mark.parametrize(("protocol", "path"), [("pop3", "/1"), ("imap", "/INBOX;MAILINDEX=1")])
def test_what_curl_fetches_is_harmless(mailed: Mailed, protocol: str, path: str) -> None:
    mailed.outside.put(local(BASE64.data))
    url = f"{protocol}://b:b@{mailed.outside.host}:{getattr(mailed.outside, protocol)}{path}"
    argv = ["ip", "netns", "exec", mailed.namespace(Way.OUTWARDS), "curl", "-sS", url]
    got = run(argv, explain="fetch a mail", timeout_s=patience_s(20)).stdout_bytes
    mailed.check_delivered(BASE64, got)


def test_large_clean_mail_arrives_as_it_is(mailed: Mailed) -> None:
    mail = multipart(b"=_x=", text(), attachment(b"base64", b64(LARGE * 5), "plan.bin"), head=b"Subject: much")
    mailed.outside.put(local(mail))
    with imap(mailed, Way.OUTWARDS) as client:
        fetched_mail = fetched(client, "BODY[]")
    with pop3(mailed, Way.OUTWARDS) as client:
        retrieved_mail = b"\r\n".join([*client.retr(1)[1], b""])
    assert {sha256(each).digest() for each in (fetched_mail, retrieved_mail)} == {sha256(mail).digest()}
    assert not mailed.scanned.viruses("much")
