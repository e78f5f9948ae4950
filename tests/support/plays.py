"""What two hosts say to each other in every protocol that is read, and what must come of it: harmless, blocked, infected.

A play is a list of lines: who speaks, and what. The same play is given on any network (rough.py), whole or byte by byte.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from enum import Enum

from tests.support.conversation import CLIENT, MARKER, SERVER
from tests.support.hellos import python_hello

BLOCKED = '[block]\nnames = ["example.com"]\n'
CLEAN = b"harmless " * 40
EVIL = CLEAN[:100] + MARKER + CLEAN[100:]


class Fate(Enum):
    """What becomes of a play."""

    PASSES = "each side reads what the other one said"
    BLOCKED = "the server never has the whole request, the client nothing of its answer"
    CUT = "the receiver never has the whole file"
    OVERWRITTEN = "all arrives at its length, and the marker does not"


@dataclass(frozen=True)
class Play:
    """`port` is the server's; the last line of each side ends with FIN where `ends`. `marker` is what must not be read, as it lies
    in the stream. `data` is the file that an FTP server then sends on the connection that was agreed on; it counts."""

    name: str
    port: int
    lines: tuple[tuple[int, bytes], ...]
    fate: Fate = Fate.PASSES
    policy: str = ""
    ends: bool = False
    marker: bytes = MARKER
    data: bytes = b""


def get(host: bytes = b"www.example.org", path: bytes = b"/file", more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + more + b"\r\n"


def ok(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


def chunked(body: bytes, step: int = 50, more: bytes = b"") -> bytes:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + step]), body[at : at + step]) for at in range(0, len(body), step))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + more + b"\r\n" + pieces + b"0\r\n\r\n"


def form(content: bytes) -> bytes:
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.exe"\r\n\r\n' + content + b"\r\n--b--\r\n"
    head = b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def mail(content: bytes) -> bytes:
    return (
        b"From: a@example.org\r\nSubject: Offer\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="sep"\r\n\r\n'
        b"--sep\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n"
        b'--sep\r\nContent-Type: application/octet-stream; name="offer.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        + b"--sep--\r\n"
    )


EVIL_MAIL = mail(b"\0" * 57 + MARKER * 3 + b"\0" * 57)
ENCODED_MARKER = base64.b64encode(MARKER * 3)[4:-4]
"""The marker as it lies in EVIL_MAIL: 57 bytes are a line of base64, so the marker has one for itself."""
assert ENCODED_MARKER in EVIL_MAIL


def smtp(content: bytes) -> tuple[tuple[int, bytes], ...]:
    return (
        (SERVER, b"220 mail.example ESMTP\r\n"),
        (CLIENT, b"EHLO me\r\n"),
        (SERVER, b"250-mail.example\r\n250 PIPELINING\r\n"),
        (CLIENT, b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"),
        (SERVER, b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (CLIENT, content + b".\r\n"),
        (SERVER, b"250 queued\r\n"),
        (CLIENT, b"QUIT\r\n"),
        (SERVER, b"221 bye\r\n"),
    )


def bdat(content: bytes) -> tuple[tuple[int, bytes], ...]:
    half = len(content) // 2
    return (
        (SERVER, b"220 mail.example ESMTP\r\n"),
        (CLIENT, b"EHLO me\r\n"),
        (SERVER, b"250-mail.example\r\n250 CHUNKING\r\n"),
        (CLIENT, b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"),
        (SERVER, b"250 ok\r\n250 ok\r\n"),
        (CLIENT, b"BDAT %d\r\n%s" % (half, content[:half])),
        (SERVER, b"250 more\r\n"),
        (CLIENT, b"BDAT %d LAST\r\n%s" % (len(content) - half, content[half:])),
        (SERVER, b"250 queued\r\n"),
    )


def pop3(content: bytes) -> tuple[tuple[int, bytes], ...]:
    return (
        (SERVER, b"+OK ready\r\n"),
        (CLIENT, b"USER a\r\n"),
        (SERVER, b"+OK\r\n"),
        (CLIENT, b"PASS b\r\n"),
        (SERVER, b"+OK\r\n"),
        (CLIENT, b"RETR 1\r\n"),
        (SERVER, b"+OK %d octets\r\n%s.\r\n" % (len(content), content)),
        (CLIENT, b"QUIT\r\n"),
        (SERVER, b"+OK bye\r\n"),
    )


def imap(content: bytes) -> tuple[tuple[int, bytes], ...]:
    return (
        (SERVER, b"* OK IMAP4rev1\r\n"),
        (CLIENT, b"a LOGIN u p\r\n"),
        (SERVER, b"a OK in\r\n"),
        (CLIENT, b"b SELECT INBOX\r\n"),
        (SERVER, b"* 1 EXISTS\r\nb OK [READ-WRITE] in\r\n"),
        (CLIENT, b"c FETCH 1 BODY[]\r\n"),
        (SERVER, b"* 1 FETCH (BODY[] {%d}\r\n%s)\r\nc OK done\r\n" % (len(content), content)),
    )


def append(content: bytes) -> tuple[tuple[int, bytes], ...]:
    return (
        (SERVER, b"* OK IMAP4rev1\r\n"),
        (CLIENT, b"a LOGIN u p\r\n"),
        (SERVER, b"a OK in\r\n"),
        (CLIENT, b"b APPEND Sent {%d}\r\n" % len(content)),
        (SERVER, b"+ go\r\n"),
        (CLIENT, content + b"\r\n"),
        (SERVER, b"b OK done\r\n"),
    )


def dns_question(name: str) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    message = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    return len(message).to_bytes(2, "big") + message


FTP = (
    (SERVER, b"220 (vsFTPd 3.0.3)\r\n"),
    (CLIENT, b"USER anonymous\r\n"),
    (SERVER, b"331 password\r\n"),
    (CLIENT, b"PASS x\r\n"),
    (SERVER, b"230 in\r\n"),
    (CLIENT, b"EPSV\r\n"),
    (SERVER, b"229 Entering Extended Passive Mode (|||50123|)\r\n"),
    (CLIENT, b"RETR some.exe\r\n"),
    (SERVER, b"150 here it comes\r\n"),
)
"""Up to the data connection, to port 50123."""


def _page(name: str, answer: bytes, **more: object) -> Play:
    return Play(name, 80, ((CLIENT, get()), (SERVER, answer)), **more)  # type: ignore[arg-type]


HARMLESS = (
    _page("a page", ok(CLEAN)),
    _page("a page in chunks", chunked(CLEAN)),
    _page("a page in gzip and chunks", chunked(gzip.compress(CLEAN), more=b"Content-Encoding: gzip\r\n")),
    _page("a page that ends with the connection", b"HTTP/1.0 200 OK\r\n\r\n" + CLEAN, ends=True),
    Play("three pages", 8080, ((CLIENT, get()), (SERVER, ok(CLEAN))) * 3),
    Play("two requests at once", 80, ((CLIENT, get() * 2), (SERVER, ok(CLEAN) + chunked(CLEAN)))),
    Play("a form", 80, ((CLIENT, form(CLEAN)), (SERVER, ok(b"")))),
    Play(
        "a web socket",
        80,
        (
            (CLIENT, get(more=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")),
            (SERVER, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"),
            (CLIENT, b"\x81\x82\0\0\0\0hi"),
        ),
    ),
    Play(
        "TLS", 443, ((CLIENT, python_hello("www.example.org")), (SERVER, b"\x16\x03\x03\0\4serv"), (CLIENT, b"\x17\x03\x03\0\1x"))
    ),
    Play(
        "TLS in a tunnel",
        3128,
        (
            (CLIENT, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            (SERVER, b"HTTP/1.1 200 Connection established\r\n\r\n"),
            (CLIENT, python_hello("www.example.org")),
            (SERVER, b"\x16\x03\x03\0\4serv"),
        ),
    ),
    Play("SMTP", 25, smtp(mail(CLEAN))),
    Play("SMTP in pieces of its own", 587, bdat(mail(CLEAN))),
    Play("POP3", 110, pop3(mail(CLEAN))),
    Play("IMAP", 143, imap(mail(CLEAN))),
    Play("IMAP, the other way", 143, append(mail(CLEAN))),
    Play("FTP", 21, FTP),
    Play("a file over FTP", 21, FTP, data=CLEAN),
    Play("DNS", 53, ((CLIENT, dns_question("www.example.org")), (SERVER, b"\0\3abc"))),
    Play("SSH", 22, ((SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"), (CLIENT, b"SSH-2.0-x\r\n"), (SERVER, bytes(300)))),
    Play("something unknown", 40404, ((CLIENT, b"\x00\x01\x02hello"), (SERVER, bytes(range(256))), (CLIENT, CLEAN))),
    Play(
        "RTSP",
        554,
        (
            (CLIENT, b"OPTIONS rtsp://a.example/x RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
            (SERVER, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"),
            (CLIENT, CLEAN),
        ),
    ),
)

_BAD = b"www.example.com"
FORBIDDEN = (
    Play("a blocked page", 80, ((CLIENT, get(_BAD)), (SERVER, ok(CLEAN))), Fate.BLOCKED, BLOCKED),
    Play("a blocked form", 80, ((CLIENT, form(CLEAN).replace(b"a.example", _BAD)), (SERVER, ok(CLEAN))), Fate.BLOCKED, BLOCKED),
    Play(
        "a blocked name", 443, ((CLIENT, python_hello("www.example.com")), (SERVER, b"\x16\x03\x03\0\4serv")), Fate.BLOCKED, BLOCKED
    ),
    Play("a blocked page on the port of DNS", 53, ((CLIENT, get(_BAD)), (SERVER, ok(CLEAN))), Fate.BLOCKED, BLOCKED),
)

INFECTED = (
    _page("a download", ok(EVIL), fate=Fate.CUT),
    _page("a download in chunks", chunked(EVIL), fate=Fate.CUT),
    _page("a download in gzip", ok(gzip.compress(EVIL), b"Content-Encoding: gzip\r\n"), fate=Fate.CUT),
    _page("a download that ends with the connection", b"HTTP/1.0 200 OK\r\n\r\n" + EVIL, ends=True, fate=Fate.CUT),
    Play("an upload", 80, ((CLIENT, form(EVIL)), (SERVER, ok(b""))), Fate.CUT),
    Play("a mail over SMTP", 25, smtp(EVIL_MAIL), Fate.OVERWRITTEN, marker=ENCODED_MARKER),
    Play("a mail in pieces over SMTP", 25, bdat(EVIL_MAIL), Fate.OVERWRITTEN, marker=ENCODED_MARKER),
    Play("a mail over POP3", 110, pop3(EVIL_MAIL), Fate.OVERWRITTEN, marker=ENCODED_MARKER),
    Play("a mail over IMAP", 143, imap(EVIL_MAIL), Fate.OVERWRITTEN, marker=ENCODED_MARKER),
    Play("an infected file over FTP", 21, FTP, Fate.OVERWRITTEN, data=EVIL),
    Play("a mail into IMAP", 143, append(EVIL_MAIL), Fate.OVERWRITTEN, marker=ENCODED_MARKER),
)
