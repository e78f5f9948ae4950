"""What a connection speaks, from its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.sniff import MAX_SNIFF_BYTES, Application, sniff

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize(
    ("client", "server", "application"),
    [
        pytest.param(GET, b"", Application.HTTP, id="a request"),
        pytest.param(b"\r\n\r\n" + GET, b"", Application.HTTP, id="blank lines first"),
        pytest.param(b"GET /", b"", Application.HTTP, id="a known method is enough"),
        pytest.param(b"FOO /x HTTP/1.1\r\n", b"", Application.HTTP, id="a method that nobody knows, with its version"),
        pytest.param(b"FOO /x\r\n", b"HTTP/1.1 200 OK\r\n", Application.HTTP, id="a request that only the server explains"),
        pytest.param(b"hello\r\n", b"xHTTP/1.1 200 OK", Application.HTTP, id="a status line behind junk"),
        pytest.param(b"hello\r\n", b"ICY 200 OK", Application.HTTP, id="Shoutcast"),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\n", b"", Application.HTTP, id="CONNECT"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", Application.HTTP2, id="HTTP/2 without TLS"),
        pytest.param(HELLO, b"", Application.TLS, id="TLS"),
        pytest.param(b"\x16\x09\x00", b"", Application.TLS, id="TLS with a version that some servers take"),
        pytest.param(b"\x80\x2e\x01\x03\x01", b"", Application.TLS, id="an SSLv2 hello"),
        pytest.param(b"EHLO me\r\n", b"220 mail.example ESMTP\r\n", Application.SMTP, id="SMTP"),
        pytest.param(b"helo me\r\n", b"220 ready\r\n", Application.SMTP, id="SMTP that does not say so"),
        pytest.param(b"NOOP\r\n", b"220 mail.example ESMTP\r\n", Application.SMTP, id="SMTP by its greeting"),
        pytest.param(b"USER me\r\n", b"220 (vsFTPd 3.0.3)\r\n", Application.FTP, id="FTP"),
        pytest.param(b"AUTH TLS\r\n", b"220-Welcome\r\n220 ready\r\n", Application.FTP, id="FTP that does not say so"),
        pytest.param(b"USER me\r\n", b"+OK ready\r\n", Application.POP3, id="POP3"),
        pytest.param(b"CAPA\r\n", b"", Application.POP3, id="POP3 by its client"),
        pytest.param(b"a1 NOOP\r\n", b"* OK IMAP4rev1\r\n", Application.IMAP, id="IMAP"),
        pytest.param(b"x1 NOOP\r\n", b"* PREAUTH hello\r\n", Application.IMAP, id="IMAP without a login"),
        pytest.param(b"a CAPABILITY\r\n", b"", Application.IMAP, id="IMAP by its client"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", b"", Application.SSH, id="SSH"),
        pytest.param(b"\x03\x00\x00\x13\x0e\xe0\0\0\0\0\0", b"", Application.RDP, id="RDP"),
        pytest.param(b"\x00\x00\x00\xa4\xfeSMB@\0", b"", Application.SMB, id="SMB 2"),
        pytest.param(b"\x00\x00\x00\xa4\xffSMBr\0", b"", Application.SMB, id="SMB 1"),
        pytest.param(b"RFB 003.008\n", b"RFB 003.008\n", Application.VNC, id="VNC"),
        pytest.param(b"\x13BitTorrent protocol\0\0", b"", Application.BITTORRENT, id="BitTorrent"),
        pytest.param(b"\x05\x01\x00", b"\x05\x00" + b"\0" * 6, Application.UNKNOWN, id="SOCKS"),
        pytest.param(b"\x01", b"\x4a\x00\x00\x00\x0a8.0.36", Application.UNKNOWN, id="MySQL"),
        pytest.param(b"USER me\r\n", b"hello there", Application.UNKNOWN, id="no one we know"),
        pytest.param(GET, b"220 mail.example ESMTP\r\n", Application.HTTP, id="a browser at a server that greets like mail"),
        pytest.param(GET, b"+OK hello\r\n", Application.HTTP, id="a browser at a server that greets like POP3"),
        pytest.param(HELLO, b"* OK\r\n", Application.TLS, id="TLS at a server that greets like IMAP"),
    ],
)
def test_the_first_bytes_tell_and_no_shorter_ones_tell_otherwise(client: bytes, server: bytes, application: Application) -> None:
    assert sniff(client, server) is application
    for length in range(len(client)):
        assert sniff(client[:length], server) in (None, application)
    for length in range(len(server)):
        assert sniff(client, server[:length]) in (None, application)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param(b"", b"", id="silence"),
        pytest.param(b"", b"220 mail.example ESMTP\r\n", id="a greeting: the client has the first word"),
        pytest.param(b"", b"\x4a\x00\x00\x00\x0a8.0.36", id="a strange greeting"),
        pytest.param(b"G", b"", id="a letter"),
        pytest.param(b"FOO /x HTTP", b"", id="a line that may become a request"),
        pytest.param(b"\x16\x03", b"", id="two bytes of TLS"),
        pytest.param(b"USER me\r\n", b"", id="USER, before the server greets"),
        pytest.param(b"USER me\r\n", b"2", id="a digit"),
    ],
)
def test_more_is_asked_for_while_more_may_tell(client: bytes, server: bytes) -> None:
    assert sniff(client, server) is None


@pytest.mark.parametrize("filler", [b"A", b"\n", b"\r", b" ", b"\0", b"A ", b"\x16", b"+", b"2", b"220-x\r\n", b"GET"])
def test_enough_bytes_always_tell(filler: bytes) -> None:
    start = (filler * MAX_SNIFF_BYTES)[:MAX_SNIFF_BYTES]
    assert sniff(start, b"") is not None
    assert sniff(b"", start) is not None


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20), st.binary(max_size=20))
def test_a_clear_word_of_the_client_stays_what_it_is(client: bytes, server: bytes, more: bytes, answer: bytes) -> None:
    found = sniff(client, server)
    if found not in (None, Application.UNKNOWN) and client and sniff(client, b"") is found:
        assert sniff(client + more, server + answer) is found
