"""Real peers: smtplib, swaks, curl, poplib, imaplib and bare sockets with Postfix and Dovecot, recorded by a relay and read back.

What the readers find is compared with what was sent, with what Postfix delivered and with what the clients got.
"""

from __future__ import annotations

import imaplib
import poplib
import random
import re
import shutil
import smtplib
import ssl
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.imap import ImapError, ImapReader
from mamori.inspect.mime import MailReader
from mamori.inspect.pop3 import Pop3Error, Pop3Reader
from mamori.inspect.smtp import SmtpError, SmtpReader
from tests.support.mail_servers import Line, MailServers, start_mail_servers
from tests.support.mail_transcript import Recorder, Talk, Transcript, byte_by_byte, cut, join, read
from tests.support.need import need
from tests.support.relay import Recording, Relay, Side, start_relay
from tests.support.wait import patience_s

NOISE = random.Random(5).randbytes(150_000)  # noqa: S311 - an attachment without structure
READERS = {"smtp": (SmtpReader, SmtpError), "pop3": (Pop3Reader, Pop3Error), "imap": (ImapReader, ImapError)}
LOOSE = "a line with a dot that ends the message for some receivers, and more after it"


def mail(text: str = "Hello\n.\n..dots\n.end\n") -> bytes:
    """With CRLF, an attachment and lines that need stuffing."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example", "b@example", "見積書"
    message.set_content(text)
    message.add_attachment(NOISE, maintype="application", subtype="octet-stream", filename="見積.exe")
    message.set_boundary("=_b_=")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.fixture(scope="module")
def servers() -> Iterator[MailServers]:
    for name in ("postfix", "dovecot", "openssl", "swaks", "curl"):
        need(name, "real mail servers and clients")
    with start_mail_servers() as servers:
        yield servers


@pytest.fixture(autouse=True)
def empty_box(servers: MailServers) -> None:
    servers.clear()


def tool(name: str) -> str:
    return shutil.which(name) or name


def conversation(recording: Recording) -> Talk:
    return [(ORIGINATOR if side is Side.CLIENT else RESPONDER, data) for side, data in recording.segments]


def heard(relay: Relay, protocol: str, mail_reader: Callable[..., object] = Recorder) -> Transcript:
    """What the reader finds in the one conversation that passed, as it was cut, in other cuts and byte by byte."""
    (recording,) = relay.take()
    make, error = READERS[protocol]
    said = conversation(recording)

    def once(segments: Talk) -> Transcript:
        return read(lambda: make(mail=mail_reader), segments, error)

    whole = once(said)
    if mail_reader is Recorder:
        # Files are compared, ranges with them. The real reader of mails passes the same bytes on in other stretches.
        assert once(join(said)) == once(cut(said, range(0, 9000, 37))) == whole
        short = [(direction, data[:3000]) for direction, data in join(said)]
        assert once(byte_by_byte(short)) == once(join(short))
    assert whole.error is None
    return whole


def check_mail(said: Transcript, count: int = 1) -> None:
    """The attachment was found, by name, decoded, in each of so many mails."""
    attachments = [file for file in said.files if file.name == "見積.exe"]
    assert [(file.data == NOISE, file.is_complete) for file in attachments] == [(True, True)] * count
    assert all("見積書" in file.subject for file in attachments)


# ---- SMTP


def test_smtplib_sends_two_mails_by_data(servers: MailServers) -> None:
    with start_relay(servers.smtp) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=patience_s(20)) as client:
            for text in ("one\n.\n", "two\n..\n"):
                client.sendmail("a@example", ["b@example"], mail(text))
        said = heard(relay, "smtp")
        delivered = servers.wait_for(2)
    assert said.messages == [mail("one\n.\n"), mail("two\n..\n")]
    assert (said.anomalies, [file.is_complete for file in said.files]) == ([], [True, True])
    for sent in said.messages:  # Postfix keeps the body with LF, below a header with more fields
        body = sent.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
        assert sum(stored.endswith(body) for stored in delivered) == 1


def test_swaks_sends_an_attachment_with_pipelining(servers: MailServers, tmp_path: Path) -> None:
    (tmp_path / "noise.bin").write_bytes(NOISE)
    with start_relay(servers.smtp) as relay:
        to = ["--server", "127.0.0.1", "--port", str(relay.port), "--from", "a@example", "--to", "b@example", "--pipeline"]
        subprocess.run([tool("swaks"), *to, "--attach", f"@{tmp_path / 'noise.bin'}"], check=True, capture_output=True)
        said = heard(relay, "smtp", MailReader)
        servers.wait_for(1)
    assert [file.data == NOISE for file in said.files if file.name == "noise.bin"] == [True]
    assert said.anomalies == []


def test_curl_sends_a_mail_and_its_attachment_is_found(servers: MailServers, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(mail())
    with start_relay(servers.smtp) as relay:
        who = ["--mail-from", "a@example", "--mail-rcpt", "b@example", "-T", str(tmp_path / "mail")]
        subprocess.run([tool("curl"), "-sS", f"smtp://127.0.0.1:{relay.port}/x", *who], check=True, capture_output=True)
        check_mail(heard(relay, "smtp", MailReader))
        servers.wait_for(1)


def test_postfix_takes_chunks_as_we_read_them(servers: MailServers) -> None:
    content = mail()
    middle = len(content) // 3
    with start_relay(servers.smtp) as relay:
        line = Line(relay.port)
        line.replies()
        line.send(b"EHLO a\r\n")
        line.replies()
        line.send(b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nBDAT %d\r\n" % middle + content[:middle])
        line.send(b"BDAT %d\r\n" % (len(content) - middle) + content[middle:] + b"BDAT 0 LAST\r\nQUIT\r\n")
        assert [reply[:3] for reply in line.replies(6)] == [b"250"] * 5 + [b"221"]
        line.close()
        said = heard(relay, "smtp")
        (delivered,) = servers.wait_for(1)
    assert (said.messages, said.anomalies) == ([content], [])
    assert delivered.endswith(content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"))


def test_a_refused_data_is_followed_by_commands(servers: MailServers) -> None:
    with start_relay(servers.smtp) as relay:
        line = Line(relay.port)
        line.replies()
        line.send(b"EHLO a\r\n")
        line.replies()
        line.send(b"MAIL FROM:<a@example>\r\nNOOP\r\nDATA\r\n")
        assert line.replies(3)[2].startswith(b"5")
        line.send(b"RSET\r\nMAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nDATA\r\n")
        assert line.replies(4)[3].startswith(b"354")
        line.send(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        line.replies(2)
        line.close()
        said = heard(relay, "smtp")
    assert (said.messages, said.anomalies) == ([b"Subject: x\r\n\r\nx\r\n"], [])


def test_a_mail_that_postfix_takes_for_two_is_read_as_two(servers: MailServers) -> None:
    smuggled = b"MAIL FROM:<x@example>\r\nRCPT TO:<b@example>\r\nDATA\r\nSubject: two\r\n\r\nsmuggled\r\n.\r\n"
    with start_relay(servers.smtp) as relay:
        line = Line(relay.port)
        line.replies()
        line.send(b"EHLO a\r\n")
        line.replies()
        line.send(b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nDATA\r\n")
        line.replies(3)
        line.send(b"Subject: one\r\n\r\nfirst\n.\n" + smuggled)
        line.replies(5)
        line.send(b"QUIT\r\n")
        line.replies()
        line.close()
        said = heard(relay, "smtp")
        delivered = servers.wait_for(2)  # this Postfix ends a mail there, as by default before 3.9
    assert sum(b"smuggled" in stored for stored in delivered) == 1
    assert b"Subject: two\r\n\r\nsmuggled\r\n" in said.messages
    assert LOOSE in said.evasions


def test_a_mail_in_bare_lf_is_delivered_and_is_no_evasion(servers: MailServers) -> None:
    with start_relay(servers.smtp) as relay:
        line = Line(relay.port)
        line.replies()
        for command in (
            b"HELO a\n",
            b"MAIL FROM:<a@example>\n",
            b"RCPT TO:<b@example>\n",
            b"DATA\n",
            b"Subject: x\n\nx\n.\n",
            b"QUIT\n",
        ):
            line.send(command)
            line.replies()
        line.close()
        said = heard(relay, "smtp")
        servers.wait_for(1)
    assert (len(said.messages), said.evasions, [file.is_complete for file in said.files]) == (1, [], [True])


# ---- TLS


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def smtp_with_tls(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=patience_s(20)) as client:
        client.starttls(context=unverified())
        client.sendmail("a@example", ["b@example"], b"secret")


def pop3_with_tls(port: int) -> None:
    client = poplib.POP3("127.0.0.1", port, timeout=patience_s(20))
    client.stls(unverified())
    client.quit()


def imap_with_tls(port: int) -> None:
    with imaplib.IMAP4("127.0.0.1", port, timeout=patience_s(20)) as client:
        client.starttls(unverified())
        client.login("x", "y")


@pytest.mark.parametrize(("protocol", "talk"), [("smtp", smtp_with_tls), ("pop3", pop3_with_tls), ("imap", imap_with_tls)])
def test_tls_begins_where_it_does(servers: MailServers, protocol: str, talk: Callable[[int], None]) -> None:
    with start_relay(getattr(servers, protocol)) as relay:
        talk(relay.port)
        (recording,) = relay.recordings
        said = heard(relay, protocol)
    assert said.tls
    for side, start in zip((Side.CLIENT, Side.SERVER), said.tls.starts, strict=True):
        assert recording.stream(side)[start : start + 2] == b"\x16\x03"
        assert b"\x16\x03" not in recording.stream(side)[:start]
    assert (said.files, said.anomalies) == ([], [])


# ---- POP3


def test_poplib_gets_what_the_reader_finds(servers: MailServers) -> None:
    servers.put(mail("one\n.\n"), mail("two\n..\n"))
    with start_relay(servers.pop3) as relay:
        client = poplib.POP3("127.0.0.1", relay.port, timeout=patience_s(20))
        client.user("x")
        client.pass_("y")
        assert client.capa()
        client.list()
        client.uidl()
        got = [b"\r\n".join(client.retr(number)[1]) + b"\r\n" for number in (1, 2)]
        top = b"\r\n".join(client.top(1, 3)[1]) + b"\r\n"
        client.quit()
        said = heard(relay, "pop3")
    assert said.messages == [*got, top]
    assert got == [mail("one\n.\n"), mail("two\n..\n")]
    assert ([file.is_complete for file in said.files], said.anomalies) == ([True, True, False], [])


def test_a_pipelining_client_gets_what_the_reader_finds(servers: MailServers) -> None:
    servers.put(mail("one\n.\n"), mail("two\n..\n"))
    with start_relay(servers.pop3) as relay:
        line = Line(relay.port)
        line.send(b"USER x\r\nPASS y\r\n")
        for _ in range(3):
            line.file.readline()
        line.send(b"STAT\r\nLIST\r\nRETR 1\r\nUIDL\r\nRETR 2\r\nRETR 9\r\nNOOP\r\nQUIT\r\n")
        line.file.read()
        line.close()
        said = heard(relay, "pop3")
    assert (said.messages, said.anomalies) == ([mail("one\n.\n"), mail("two\n..\n")], [])


@pytest.mark.parametrize(("protocol", "path"), [("pop3", "1"), ("imap", "INBOX;MAILINDEX=1")])
def test_curl_gets_a_mail_and_its_attachment_is_found(servers: MailServers, protocol: str, path: str) -> None:
    servers.put(mail())
    with start_relay(getattr(servers, protocol)) as relay:
        url = f"{protocol}://x:y@127.0.0.1:{relay.port}/{path}"
        got = subprocess.run([tool("curl"), "-sS", url], check=True, capture_output=True).stdout
        check_mail(heard(relay, protocol, MailReader))
    assert got == mail()


# ---- IMAP


@contextmanager
def imap_client(relay: Relay) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4("127.0.0.1", relay.port, timeout=patience_s(20)) as client:
        client.login("x", "y")
        client.select()
        yield client


def fetched(client: imaplib.IMAP4, items: str, number: str = "1") -> list[bytes]:
    _, answer = client.fetch(number, items)
    return [part[1] for part in answer if isinstance(part, tuple)]


def test_imaplib_gets_what_the_reader_finds(servers: MailServers) -> None:
    servers.put(mail("one\n"), mail("two\n"))
    with start_relay(servers.imap) as relay:
        with imap_client(relay) as client:
            got = [*fetched(client, "(UID FLAGS BODY.PEEK[])", "1:2"), *fetched(client, "(RFC822)")]
            fetched(client, "(ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])")
            client.noop()
        said = heard(relay, "imap")
    assert said.messages == got == [mail("one\n"), mail("two\n"), mail("one\n")]
    assert (said.anomalies, all(file.is_complete for file in said.files)) == ([], True)


@pytest.mark.parametrize(
    "items",
    [
        ["(BODY.PEEK[])"],
        ["(BODYSTRUCTURE)", "(BODY.PEEK[2])"],
        ["(BODYSTRUCTURE BODY.PEEK[2])"],
        ["(BODY.PEEK[2.MIME])", "(BODY.PEEK[2])"],
        ["(BODY.PEEK[HEADER])", "(BODY.PEEK[TEXT])"],
        ["(BODYSTRUCTURE)", "(BODY.PEEK[TEXT])"],
        ["(BODY.PEEK[2])"],
        ["(BODY.PEEK[TEXT])"],
        ["(BODYSTRUCTURE)", "(BINARY.PEEK[2])"],
        ["(BINARY.PEEK[2])"],
    ],
    ids=" ".join,
)
def test_an_attachment_is_decoded_however_it_is_fetched(servers: MailServers, items: list[str]) -> None:
    servers.put(mail())
    with start_relay(servers.imap) as relay:
        with imap_client(relay) as client:
            for one in items:
                fetched(client, one)
        said = heard(relay, "imap", MailReader)
    assert [(file.data == NOISE, file.is_complete) for file in said.files if len(file.data) > 1000] == [(True, True)]
    assert said.anomalies == []


@pytest.mark.parametrize("section", ["", "2"])
def test_pieces_are_one_file(servers: MailServers, section: str) -> None:
    servers.put(mail())
    with start_relay(servers.imap) as relay:
        with imap_client(relay) as client:
            if section:
                fetched(client, "(BODYSTRUCTURE)")
            at, size = 0, 65_536
            while len(piece := fetched(client, f"(UID BODY.PEEK[{section}]<{at}.{size}>)")[0]) == size:
                at += len(piece)
        said = heard(relay, "imap", MailReader)
    assert [(file.data == NOISE, file.is_complete) for file in said.files if len(file.data) > 1000] == [(True, True)]


def test_a_piece_from_the_middle_is_decoded_from_its_second_line_on(servers: MailServers) -> None:
    servers.put(mail())
    with start_relay(servers.imap) as relay:
        with imap_client(relay) as client:
            fetched(client, "(BODY.PEEK[2]<50001.20000>)")
        (file,) = heard(relay, "imap", MailReader).files
    assert file.data in NOISE
    assert len(file.data) > 14_000
    assert not file.is_complete


def test_an_upload_is_found(servers: MailServers) -> None:
    with start_relay(servers.imap) as relay:
        with imap_client(relay) as client:
            status, _ = client.append("INBOX", "", None, mail())
            assert status == "OK"
        check_mail(heard(relay, "imap", MailReader))
        (stored,) = servers.wait_for(1)
    assert stored.replace(b"\r\n", b"\n") == mail().replace(b"\r\n", b"\n")


def test_an_upload_without_waiting_and_a_refused_one(servers: MailServers) -> None:
    with start_relay(servers.imap) as relay:
        line = Line(relay.port)
        line.send(b"a LOGIN x y\r\n")
        line.until(b"a ")
        line.send(b"b APPEND nowhere {9}\r\n")
        answer = line.file.readline()
        if answer.startswith(b"+"):
            line.send(b"123456789\r\n")
            line.until(b"b NO")
        line.send(b"c APPEND INBOX {%d+}\r\n" % len(mail()) + mail() + b"\r\nd LOGOUT\r\n")
        line.until(b"d OK")
        line.close()
        said = heard(relay, "imap")
        servers.wait_for(1)
    assert said.messages[-1] == mail()
    assert said.anomalies == []


def test_dovecots_compression_is_undone(servers: MailServers) -> None:
    servers.put(mail())
    with start_relay(servers.imap) as relay:
        line = Line(relay.port)
        line.send(b"a LOGIN x y\r\n")
        line.until(b"a OK")
        line.send(b"b COMPRESS DEFLATE\r\n")
        line.until(b"b OK")
        deflate, inflate = zlib.compressobj(6, zlib.DEFLATED, -15), zlib.decompressobj(-15)
        commands = (b"c SELECT INBOX\r\n", b"d FETCH 1 BODY.PEEK[]\r\n", b"e APPEND x2 {3+}\r\nabc\r\n", b"f LOGOUT\r\n")
        plain = b""
        for command in commands:
            line.send(deflate.compress(command) + deflate.flush(zlib.Z_SYNC_FLUSH))
            while not re.search(rb"(?m)^%c (?:OK|NO|BAD)" % command[0], plain):
                data = line.file.read1(65_536)
                assert data, "the server is gone"
                plain += inflate.decompress(data)
        line.close()
        (recording,) = relay.take()
    said = read(ImapReader, conversation(recording), ImapError)
    check_mail(said)
    assert (said.anomalies, said.error) == ([], None)
    assert mail() in plain
