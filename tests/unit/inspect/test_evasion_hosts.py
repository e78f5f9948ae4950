"""Evasions by name, of a host that plays with TCP, mail, FTP and datagrams; see test_evasion_table.py for HTTP and TLS."""

from __future__ import annotations

import base64
import quopri
from binascii import a2b_uu, b2a_uu

import pytest

from tests.support import packets
from tests.support.conversation import CLIENT, MARKER, SERVER, Connection, Network
from tests.support.hellos import crypto, initial, python_hello, quic_client, sent_by
from tests.support.plays import BLOCKED, CLEAN, ENCODED_MARKER, EVIL, EVIL_MAIL, FTP, get, imap, ok, pop3, smtp

FIN, SYN, RST, ACK, URG = 1, 2, 4, 16, 32
HALF = len(ok(EVIL)) // 2


def functions(network: Network, action: str = "blocked") -> set[str]:
    return {function for function, done, _ in network.told if done == action}


def play(network: Network, connection: Connection, lines: tuple[tuple[int, bytes], ...], size: int | None = None) -> None:
    for side, text in lines:
        (connection.client if side == CLIENT else connection.server)(text, size)
        network.wait(0.1)


def forged_acknowledgement(connection: Connection) -> None:
    """Of bytes that the client has not sent: it ignores that, and a careless observer waits for what never comes."""
    server = connection.hosts[SERVER]
    honest, server.expects = server.expects, server.expects + 5000
    connection.segment(SERVER, HALF, b"")
    server.expects = honest


FORGERIES = {
    "an acknowledgement of nothing": forged_acknowledgement,
    "a reset that the client does not believe": lambda connection: connection.segment(SERVER, HALF + 900, b"", flags=RST),
    "a reset in the past": lambda connection: connection.segment(SERVER, 1, b"", flags=RST),
    "an answer to no SYN": lambda connection: connection.segment(SERVER, 70_000, b"", flags=SYN | ACK),
    "a SYN": lambda connection: connection.segment(SERVER, 70_000, b"", flags=SYN),
    "a FIN in the past": lambda connection: connection.segment(SERVER, 5, b"", flags=ACK | FIN),
    "bytes far ahead": lambda connection: connection.segment(SERVER, 1 << 30, b"x"),
    "bytes behind a hole": lambda connection: connection.segment(SERVER, HALF + 40, ok(EVIL)[HALF + 40 : HALF + 50]),
    "other bytes for old ones": lambda connection: connection.segment(SERVER, HALF - 10, b"otherbytes"),
    "other bytes, and new ones": lambda connection: connection.segment(SERVER, HALF - 10, b"otherbytes" + ok(EVIL)[HALF:]),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_a_server_forges_amid_a_download_does_not_bring_it_through(forge) -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    connection.server(ok(EVIL)[:HALF])
    forge(connection)
    connection.hosts[SERVER].next = 5001 + HALF
    connection.server(ok(EVIL)[HALF:], 50)
    for _ in range(4):
        connection.repeat(SERVER)
    network.wait(6)
    assert len(connection.to_client) < len(ok(EVIL))
    assert functions(network) & {"virus", "evasion"}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_a_server_forges_amid_a_mail_does_not_bring_it_through(forge) -> None:
    network = Network()
    connection = network.connect(110)
    lines = pop3(EVIL_MAIL)
    play(network, connection, lines[:6])
    start, answer = len(connection.to_client), lines[6][1]
    network.is_prompt = False
    connection.segment(SERVER, start, answer[:HALF])
    connection.hosts[SERVER].next = 5001 + start
    forge(connection)
    connection.server(answer, 300)
    network.is_prompt = True
    network.wait(0.01)
    for _ in range(4):
        connection.repeat(SERVER)
    network.wait(1)
    assert ENCODED_MARKER not in connection.to_client
    assert not connection.hosts[CLIENT].is_mixed


def test_a_reset_behind_the_last_byte_waits_for_the_verdict_like_it() -> None:
    network = Network()
    network.is_prompt = False
    connection = network.connect()
    connection.client(get())
    connection.server(ok(EVIL))
    connection.segment(SERVER, len(ok(EVIL)), b"", flags=RST)
    assert connection.to_client == b""
    network.is_prompt = True
    network.wait(1)
    network.answer_scans()
    assert MARKER not in connection.to_client
    assert functions(network) == {"virus"}


def test_bytes_behind_a_reset_do_not_pass() -> None:
    network = Network()
    data = ftp_data(network, FTP)
    data.server(CLEAN)
    data.hosts[CLIENT].is_away = True  # as if the reset had too few hops to live
    data.segment(SERVER, len(CLEAN), b"", flags=RST)
    network.wait(1)
    data.hosts[CLIENT].is_away = False
    data.repeat(SERVER)
    data.server(EVIL)
    network.wait(1)
    assert MARKER not in data.to_client


def test_what_was_let_out_stays_the_same_though_the_file_was_infected() -> None:
    network = Network()
    connection = network.connect(110)
    lines = pop3(EVIL_MAIL)
    play(network, connection, lines[:6])
    start, answer = len(connection.to_client), lines[6][1]
    middle = answer.index(ENCODED_MARKER[:6]) + 6
    connection.hosts[CLIENT].is_away = True
    connection.segment(SERVER, start, answer[:10])
    network.wait(0.1)
    connection.hosts[CLIENT].is_away = False
    connection.segment(SERVER, start + 10, answer[10:middle])
    network.wait(0.1)
    assert connection.hosts[CLIENT].early, "it is out, and not read"
    connection.segment(SERVER, start + middle, answer[middle:])
    network.wait(0.1)
    assert functions(network) == {"virus"}
    connection.segment(SERVER, start, answer[: middle + 20])
    assert connection.to_client[start:].startswith(answer[:middle])
    assert len(connection.to_client) - start == len(answer)
    assert not connection.hosts[CLIENT].is_mixed


def test_what_was_read_of_a_packet_that_was_dropped_waits_when_it_comes_again() -> None:
    network = Network()
    data = ftp_data(network, FTP)
    data.segment(SERVER, 0, CLEAN[:50])
    network.wait(0.1)
    data.hosts[CLIENT].is_silent = True
    data.segment(SERVER, 50, CLEAN[50:60])
    network.wait(0.1)
    dropped = data.segment(SERVER, 50, b"otherbytes" + MARKER)
    assert network.fates[dropped] == "dropped"
    data.segment(SERVER, 60, MARKER)
    data.segment(SERVER, 60 + len(MARKER), b"", flags=ACK | FIN)
    network.wait(1)
    assert data.to_client == CLEAN[:60] + b"X" * len(MARKER)


@pytest.mark.parametrize(("mss", "longest"), [(600, 560), (1460, 1180)])
def test_a_page_comes_in_segments_as_short_as_the_answer_to_the_syn_asks_for(mss: int, longest: int) -> None:
    network = Network(BLOCKED)
    connection = network.connect(is_established=False)
    connection.establish(b"\2\4" + mss.to_bytes(2, "big"))
    connection.client(get(b"www.example.com"))
    for _ in range(10):
        connection.repeat(CLIENT)
    assert connection.to_client.endswith(b"</html>\n")
    assert connection.hosts[CLIENT].longest_bytes in range(longest, mss + 1)


def test_bytes_that_passed_unseen_stop_nothing_and_are_told() -> None:
    network = Network()
    connection = network.connect()
    connection.client(get())
    answer = ok(CLEAN)
    connection.segment(SERVER, 0, answer[:100])
    connection.pass_unseen(SERVER, 100, answer[100:200])
    connection.segment(SERVER, 200, answer[200:])
    network.wait(0.1)
    assert connection.to_client == answer
    assert functions(network, "unseen") == {"evasion"}
    connection.client(get())
    assert connection.to_server == get() * 2


def test_bytes_that_run_ahead_wait_like_the_rest() -> None:
    network = Network()
    data = ftp_data(network, FTP)
    data.segment(SERVER, 10, MARKER)
    data.segment(SERVER, 0, CLEAN[:10])
    data.segment(SERVER, 10 + len(MARKER), b"", flags=ACK | FIN)
    network.wait(1)
    assert data.to_client == b"X" * (10 + len(MARKER))


def test_bytes_before_the_place_where_a_stream_was_taken_up_pass() -> None:
    network = Network()
    connection = network.connect(22, is_established=False)
    connection.segment(CLIENT, 10, b" the box")
    connection.segment(CLIENT, 0, b"before was")
    assert connection.to_server == b"before was the box"


def test_a_connection_that_begins_anew_is_read_anew() -> None:
    network = Network(BLOCKED)
    connection = network.connect(is_established=False)
    connection.segment(CLIENT, -1, b"GET / HTTP/1.1\r\nHost: www.example.org\r\nX: ", flags=SYN)
    connection.segment(CLIENT, 70_000, get(b"www.example.com"), flags=SYN)
    assert functions(network) == {"dangerous-site"}


def test_a_full_table_brings_nothing_through_that_waits() -> None:
    network = Network('[virus]\nunseen = "block"\n', scan=None)
    connection = network.connect()
    connection.client(get())
    connection.server(ok(EVIL))
    network.engine.close()
    network.carry_out()
    assert network.held == 0
    assert connection.to_client == b""


@pytest.mark.parametrize("port", [80, 443], ids=["read", "decided"])
def test_ports_that_are_used_again_are_another_connection(port: int) -> None:
    network = Network(BLOCKED)
    first = network.connect(port)
    first.client(get() if port == 80 else python_hello("www.example.org"))
    first.server(ok(CLEAN) if port == 80 else b"\x16\x03\x03\0\1x" + bytes(300_000), 60_000, fin=True)
    first.client(b"", fin=True)
    again = network.connect(port, numbers=(3_000_000_000, 77), ports=first.ports[0])
    request = get(b"www.example.com") if port == 80 else python_hello("www.example.com")
    again.client(request)
    for _ in range(10):
        again.repeat(CLIENT)
    assert again.to_server == b""
    assert again.to_client.startswith(b"HTTP/1.1 403" if port == 80 else b"\x15")
    assert functions(network) == {"dangerous-site"}


def test_an_urgent_byte_is_read_by_all_alike() -> None:
    network = Network()
    connection = network.connect(110)
    lines = pop3(EVIL_MAIL)
    play(network, connection, lines[:6])
    start = len(connection.to_client)
    token = connection.segment(SERVER, start, lines[6][1], flags=ACK | URG, urgent=30)
    network.wait(1)
    assert network.fates[token] == "replaced"
    assert ENCODED_MARKER not in connection.to_client


def encoded(coding: bytes, content: bytes, head: bytes = b"") -> bytes:
    part = b'Content-Type: application/x; name="x"\r\nContent-Transfer-Encoding: ' + coding + b"\r\n" + head + b"\r\n" + content
    return b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=s\r\n\r\n--s\r\n" + part + b"\r\n--s--\r\n"


def lines_of(content: bytes) -> bytes:
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


MAILS = {
    "base64": EVIL_MAIL,
    "base64 with junk": encoded(b"base64", lines_of(MARKER * 3).replace(b"R", b"R!*-_ \t")),
    "base64 with padding inside": encoded(b"base64", base64.b64encode(MARKER[:4]) + base64.b64encode(MARKER[4:]) + b"\r\n"),
    "base64 in lines of one": encoded(b"base64", b"\r\n".join(bytes((byte,)) for byte in base64.b64encode(MARKER))),
    "base64 by another case": encoded(b"BaSe64", lines_of(MARKER)),
    "quoted-printable": encoded(b"quoted-printable", b"".join(b"=%02X" % byte for byte in MARKER)),
    "quoted-printable with soft breaks": encoded(b"quoted-printable", b"=\r\n".join(bytes((byte,)) for byte in MARKER)),
    "quoted-printable in small letters": encoded(b"quoted-printable", quopri.encodestring(b"\0" + MARKER).lower() + MARKER),
    "8bit": encoded(b"8bit", MARKER),
    "a coding that nobody knows": encoded(b"x-none", MARKER),
    "a message in a message": b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n" + EVIL_MAIL,
    "a message in a message in a message": (b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n" * 2) + EVIL_MAIL,
    "no end of the parts": EVIL_MAIL.replace(b"--sep--\r\n", b""),
    "a boundary in quotes of the other kind": EVIL_MAIL.replace(b'boundary="sep"', b"boundary=sep; x=y"),
    "all in the mail's own body": b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines_of(MARKER),
    "uuencode": b"Subject: x\r\n\r\nbegin 644 x\r\n" + b2a_uu(MARKER).strip() + b"\r\n`\r\nend\r\n",
    "lines that end with LF": EVIL_MAIL.replace(b"\r\n", b"\n") + b"\r\n",
    "dots at the beginning of lines": encoded(b"8bit", b"..\r\n" + MARKER),
}


def readings(stream: bytes) -> list[bytes]:
    """The stream as careless readers have it: its text, its base64 without all that is none, its quoted-printable."""
    text = bytes(byte for byte in stream if chr(byte).isalnum() or byte in b"+/")
    groups = [base64.b64decode(text[at : at + (len(text) - at) // 4 * 4]) for at in range(4)]
    coded = [a2b_uu(line) for line in stream.split(b"\r\n") if line[:1] == b2a_uu(MARKER)[:1] and len(line) == 16]
    return [stream, *coded, quopri.decodestring(stream.replace(b"\r", b"")), *groups]


CARRIERS = {"SMTP": (25, smtp, SERVER), "POP3": (110, pop3, CLIENT), "IMAP": (143, imap, CLIENT)}


@pytest.mark.parametrize("size", [None, 30], ids=["whole", "in pieces"])
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("content", MAILS.values(), ids=MAILS.keys())
def test_an_infected_mail_arrives_at_its_length_and_without_what_infected_it(
    content: bytes, carrier: str, size: int | None
) -> None:
    port, say, receiver = CARRIERS[carrier]
    network = Network()
    connection = network.connect(port)
    lines = say(content)
    play(network, connection, lines, size)
    heard = (connection.to_client, connection.to_server)[receiver]
    said = b"".join(text for side, text in lines if side != receiver)
    assert len(heard) == len(said)
    assert heard != said
    assert [reading for reading in readings(heard) if MARKER in reading] == []
    assert functions(network) == {"virus"}


def test_a_mail_that_ends_twice_is_told_and_read_in_both_ways() -> None:
    # RFC 5321 4.1.1.4: only CRLF.CRLF ends a mail; servers that take LF.CRLF read commands where others read text.
    network = Network()
    connection = network.connect(25)
    smuggled = b"Subject: a\r\n\r\nhi\n.\r\nMAIL FROM:<x@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n" + EVIL_MAIL
    play(network, connection, smtp(smuggled))
    assert ENCODED_MARKER not in connection.to_server
    assert functions(network, "logged") == {"evasion"}


def test_commands_behind_starttls_are_told() -> None:
    network = Network()
    connection = network.connect(25)
    play(network, connection, smtp(b"")[:3])
    connection.client(b"STARTTLS\r\nMAIL FROM:<a@b>\r\n")
    connection.server(b"220 go\r\n")
    connection.client(python_hello("mail.example"))
    assert functions(network, "logged") == {"evasion"}


def ftp_data(network: Network, lines: tuple[tuple[int, bytes], ...], port: int = 50123) -> Connection:
    play(network, network.connect(21), lines)
    return network.connect(port)


@pytest.mark.parametrize("end", [FIN, RST], ids=["FIN", "RST"])
def test_a_file_over_ftp_is_written_over_however_it_ends(end: int) -> None:
    network = Network()
    data = ftp_data(network, FTP)
    data.server(EVIL)
    data.segment(SERVER, len(EVIL), b"", flags=ACK | end)
    network.wait(1)
    assert data.to_client == b"X" * len(EVIL)


def test_a_data_connection_before_the_command_that_says_what_it_carries() -> None:
    network = Network()
    control = network.connect(21)
    play(network, control, FTP[:-2])
    data = network.connect(50123)
    control.client(b"RETR evil.exe\r\n")
    data.server(EVIL, 100, fin=True)
    network.wait(1)
    assert data.to_client == b"X" * len(EVIL)


def test_a_data_connection_back_to_the_client_is_read() -> None:
    network = Network()
    play(network, network.connect(21), (*FTP[:5], (CLIENT, b"PORT 198,51,100,2,195,203\r\n"), (SERVER, b"200 ok\r\n")))
    data = network.connect(50123)
    data.server(EVIL, fin=True)
    network.wait(1)
    assert data.to_client == b"X" * len(EVIL), "a third host that PORT names is read like any other"


class Ears:
    """Who gets datagrams."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def arrive(self, side: int, data: bytes) -> None:
        if side == SERVER:
            self.heard.append(data[28:])


def to_server(network: Network, datagrams: list[bytes], ports: tuple[int, int] = (40000, 443)) -> list[bytes]:
    ears = Ears()
    for datagram in datagrams:
        network.send(ears, CLIENT, packets.ipv4(packets.udp(datagram, ports=ports), 17))
    return ears.heard


def long_hello(name: str) -> list[bytes]:
    return sent_by(quic_client(name, protocols=["x" * 200] * 8))


HELLO = python_hello("www.example.com")[5:]
CUT = HELLO.index(b"example") + 3
QUIC = {
    "the plain one": sent_by(quic_client("www.example.com")),
    "in two datagrams": long_hello("www.example.com"),
    "in two datagrams, the last one first": long_hello("www.example.com")[::-1],
    "version 2": sent_by(quic_client("www.example.com", version=0x6B3343CF)),
    "a stray datagram first": [b"\x40hello", *sent_by(quic_client("www.example.com"))],
    "a long header without sense first": [b"\xc3\0\0\0\1\x08" + b"x" * 1300, *sent_by(quic_client("www.example.com"))],
    "the name cut in two": [initial(crypto(CUT, HELLO[CUT:])), initial(crypto(0, HELLO[:CUT]), number=1)],
    "an attempt at another name first": [*sent_by(quic_client("www.example.com"))],
}


@pytest.mark.parametrize("ports", [(40000, 443), (40000, 8443), (5353, 443), (40000, 53)], ids=str)
@pytest.mark.parametrize("datagrams", QUIC.values(), ids=QUIC.keys())
def test_a_hello_of_quic_to_a_blocked_name_never_arrives_whole(datagrams: list[bytes], ports: tuple[int, int]) -> None:
    network = Network(BLOCKED)
    heard = to_server(network, datagrams + datagrams, ports)
    assert heard != datagrams
    assert len(heard) < len(datagrams)
    assert functions(network) == {"dangerous-site"}


def test_a_new_attempt_after_retry_is_read_with_its_own_keys() -> None:
    network = Network(BLOCKED)
    first = [initial(crypto(CUT, HELLO[CUT:]))]
    again = [initial(crypto(0, HELLO[:CUT]), keys_of=b"new keys"), initial(crypto(CUT, HELLO[CUT:]), number=1, keys_of=b"new keys")]
    assert len(to_server(network, first + again)) < 3
    assert functions(network) == {"dangerous-site"}
