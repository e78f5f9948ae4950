"""The engine as a transcript: what two hosts say, what each gets, what is told."""

from __future__ import annotations

import base64
import email
import email.policy

import pytest

from mamori.events.record import Function
from mamori.inspect.commands import Accept
from mamori.inspect.connection import SIGNATURE_BYTES
from mamori.inspect.files import MAX_GLANCES
from mamori.inspect.packet import ICMP, UDP
from mamori.inspect.reassembly import AHEAD_BYTES
from tests.support import packets
from tests.support.conversation import CLIENT, MARKER, SERVER, SIGNATURE, Network
from tests.support.hellos import python_hello

GET = b"GET /file HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
BLOCK_EXAMPLE = '[block]\nnames = ["example.com"]\n'


def response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def mail(attachment: bytes) -> bytes:
    lines = base64.encodebytes(attachment).replace(b"\n", b"\r\n")
    return (
        b"From: a@example.com\r\nTo: b@example.com\r\nSubject: Offer\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="sep"\r\n\r\n'
        b"--sep\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n"
        b'--sep\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="offer.bin"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n" + lines + b"--sep--\r\n"
    )


def test_what_is_harmless_passes_whole_and_says_nothing() -> None:
    network = Network()
    connection = network.connect()
    connection.client(GET, 7)
    connection.server(response(b"hello"), 5)
    assert (connection.to_server, connection.to_client) == (GET, response(b"hello"))
    assert network.told == []
    assert network.held == 0
    assert not network.decided, "a connection of HTTP is asked about for ever"


@pytest.mark.parametrize("size", [1, 7, 40, None], ids=lambda size: f"in pieces of {size}")
def test_a_blocked_site_gets_a_page_and_the_server_not_a_byte_of_the_last_piece(size: int | None) -> None:
    network = Network(BLOCK_EXAMPLE)
    connection = network.connect()
    connection.client(GET, size)
    for _ in range(30):
        connection.repeat(CLIENT)
    assert connection.to_client.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert connection.to_client.endswith(b"</html>\n")
    assert GET.startswith(connection.to_server)
    assert len(connection.to_server) < len(GET)
    assert network.told == [("dangerous-site", "blocked", "www.example.com/file")]


def test_a_blocked_request_behind_one_that_waits_for_its_answer_gets_no_page_that_could_be_taken_for_it() -> None:
    network = Network(BLOCK_EXAMPLE)
    connection = network.connect()
    connection.client(GET.replace(b"www.example.com", b"www.example.org"))
    connection.client(GET)
    for _ in range(5):
        connection.repeat(CLIENT)
    assert b"403" not in connection.to_client
    assert b"www.example.com" not in connection.to_server
    assert connection.is_reset[SERVER]


def test_a_form_posted_to_a_blocked_site_gets_a_refusal_without_a_page() -> None:
    network = Network(BLOCK_EXAMPLE)
    connection = network.connect()
    connection.client(b"POST /login HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\npassword=1")
    for _ in range(10):
        connection.repeat(CLIENT)
    assert connection.to_client.startswith(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n")
    assert b"password" not in connection.to_server


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (f'{BLOCK_EXAMPLE}[allow]\nnames = ["www.example.com"]\n', "allowed"),
        (f'{BLOCK_EXAMPLE}[allow]\nurls = ["www.example.com/file"]\n', "allowed"),
    ],
    ids=["by name", "by address"],
)
def test_an_allow_entry_beats_a_block_entry(policy: str, told: str) -> None:
    # One table twice is no TOML: the tables are joined.
    network = Network(policy)
    connection = network.connect()
    connection.client(GET)
    connection.server(response(b"hello"))
    assert connection.to_client == response(b"hello")
    assert [action for _, action, _ in network.told] == [told]


def test_a_blocked_name_in_tls_fails_the_handshake_with_an_alert() -> None:
    network = Network(BLOCK_EXAMPLE)
    connection = network.connect(443)
    connection.client(python_hello("www.example.com"))
    for _ in range(5):
        connection.repeat(CLIENT)
    assert connection.to_client == bytes((21, 3, 3, 0, 2, 2, 49))
    assert connection.to_server == b""
    assert network.told == [("dangerous-site", "blocked", "www.example.com")]


def test_an_allowed_hello_decides_the_connection() -> None:
    network = Network(BLOCK_EXAMPLE)
    connection = network.connect(443)
    connection.client(python_hello("www.example.org"))
    assert network.decided
    connection.server(b"\x16\x03\x03anything")
    assert connection.to_client == b"\x16\x03\x03anything"


def test_an_infected_download_is_cut_and_its_retry_gets_a_page() -> None:
    network = Network()
    connection = network.connect()
    connection.client(GET)
    connection.server(response(b"MZ" + MARKER))
    assert MARKER not in connection.to_client
    assert connection.is_reset[CLIENT]
    again = network.connect()
    again.client(GET)
    for _ in range(30):
        again.repeat(CLIENT)
    assert again.to_client.startswith(b"HTTP/1.1 403")
    assert SIGNATURE.encode() in again.to_client
    assert again.to_server == b""
    assert network.told == [("virus", "blocked", "www.example.com/file")] * 2
    counted = [tally for tally in network.tallies if tally.function is Function.VIRUS]
    assert [(tally.unit, tally.category, tally.scanned, tally.blocked) for tally in counted] == [("file", SIGNATURE, 1, 1)] * 2


def test_an_infected_download_is_only_told_when_the_policy_says_log() -> None:
    network = Network('[virus]\nmode = "log"\n')
    connection = network.connect()
    connection.client(GET)
    connection.server(response(MARKER))
    assert connection.to_client == response(MARKER)
    assert network.told == [("virus", "logged", "www.example.com/file")]


def test_nothing_is_scanned_when_the_policy_says_off() -> None:
    network = Network('[virus]\nmode = "off"\n')
    connection = network.connect()
    connection.client(GET)
    connection.server(response(MARKER))
    assert connection.to_client == response(MARKER)
    assert network.told == []


def test_an_infected_upload_is_cut_before_the_server_has_it() -> None:
    network = Network()
    connection = network.connect()
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.exe"\r\n\r\n' + MARKER + b"\r\n--b--\r\n"
    head = b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    connection.client(head % len(form) + form)
    assert MARKER not in connection.to_server
    assert connection.is_reset[SERVER]
    assert network.told == [("virus", "blocked", "a.example/up x.exe")]


@pytest.mark.parametrize(("unseen", "arrives"), [("pass", True), ("block", False)])
def test_a_scanner_that_does_not_answer_stops_nothing_for_longer_than_the_policy_says(unseen: str, arrives: bool) -> None:
    network = Network(f'[virus]\nunseen = "{unseen}"\nhold_ms = 2000\n', scan=None)
    connection = network.connect()
    connection.client(GET)
    connection.server(response(b"hello"))
    assert connection.to_client == b""
    network.wait(1.9)
    assert connection.to_client == b""
    network.wait(0.2)
    assert (connection.to_client == response(b"hello")) is arrives
    assert network.told == [("virus", "unseen" if arrives else "blocked", "www.example.com/file")]
    assert network.held == 0


def smtp_up_to_data(network: Network, port: int = 25):
    connection = network.connect(port)
    connection.server(b"220 mail.example ESMTP\r\n")
    connection.client(b"EHLO me\r\n")
    connection.server(b"250 mail.example\r\n")
    connection.client(b"MAIL FROM:<a@example.com>\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"RCPT TO:<b@example.com>\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"DATA\r\n")
    connection.server(b"354 go\r\n")
    return connection


@pytest.mark.parametrize("size", [1, 11, 100, None], ids=lambda size: f"in pieces of {size}")
def test_an_infected_attachment_is_written_over_and_the_mail_arrives(size: int | None) -> None:
    network = Network()
    connection = smtp_up_to_data(network)
    before = len(connection.to_server)
    content = mail(b"\0" * 50 + MARKER + b"\0" * 50)
    connection.client(content + b".\r\n", size)
    network.wait(1)
    got = connection.to_server[before:]
    assert len(got) == len(content) + 3
    assert got.endswith(b".\r\n")
    parsed = email.message_from_bytes(got[:-3], policy=email.policy.default)
    attachment = next(parsed.iter_attachments())
    assert attachment.get_filename() == "offer.bin"
    assert MARKER not in attachment.get_content()
    assert parsed.get_body().get_content() == "See the file."
    assert [told[:2] for told in network.told] == [("virus", "blocked")]
    assert network.held == 0


def test_a_retransmission_of_what_was_written_over_is_written_over_alike() -> None:
    network = Network()
    connection = smtp_up_to_data(network)
    content = mail(MARKER * 3)
    start = len(connection.to_server)
    connection.hosts[SERVER].is_away = True
    connection.client(content + b".\r\n")
    connection.hosts[SERVER].is_away = False
    assert connection.to_server[start:] == b"", "the first copy is lost behind the box"
    connection.repeat(CLIENT)
    network.wait(1)
    assert len(connection.to_server[start:]) == len(content) + 3
    assert MARKER not in base64.b64decode(connection.to_server[start:].split(b"base64\r\n\r\n")[1].split(b"--sep")[0])


def test_a_clean_mail_passes_unchanged_however_it_is_cut() -> None:
    network = Network()
    connection = smtp_up_to_data(network)
    before = len(connection.to_server)
    content = mail(b"harmless" * 100) + b".\r\n"
    connection.client(content, 13)
    network.wait(1)
    assert connection.to_server[before:] == content
    assert network.told == []


def test_bytes_that_are_sent_twice_and_differently_are_told_and_the_second_copy_is_dropped() -> None:
    network = Network()
    connection = network.connect()
    connection.segment(CLIENT, 10, GET[10:20])
    connection.segment(CLIENT, 12, b"XXX")
    assert network.told[0][:2] == ("evasion", "logged"), "it is not known to be HTTP yet: the copy is dropped, nothing is cut"
    assert b"XXX" not in connection.to_server


def test_bytes_that_nobody_can_keep_are_dropped() -> None:
    network = Network()
    connection = network.connect()
    token = connection.segment(CLIENT, AHEAD_BYTES + 10, b"far ahead")
    assert network.fates[token] == "dropped"


def test_a_protocol_that_is_not_read_is_decided_at_once_without_signatures() -> None:
    network = Network('[ips]\nmode = "off"\n')
    connection = network.connect(22)
    connection.server(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert not network.decided, "the client's word comes first"
    connection.client(b"SSH-2.0-x\r\n")
    assert network.decided
    assert connection.to_server == b"SSH-2.0-x\r\n"


def test_a_protocol_that_is_not_read_is_decided_when_the_signature_engine_has_seen_enough() -> None:
    network = Network()
    connection = network.connect(445)
    first = connection.client(b"\0\0\0\x54\xffSMBr" + bytes(76))
    sent = 0
    while not network.decided:
        last = connection.server(bytes(10_000))
        sent += 10_000
    assert {first, last} <= network.asked_signatures
    assert SIGNATURE_BYTES <= sent < SIGNATURE_BYTES + 10_000
    assert connection.client(b"more") not in network.asked_signatures


@pytest.mark.parametrize("first", [GET, b"\x00not a protocol\xff" * 9], ids=["HTTP", "something else"])
def test_a_host_that_the_owner_allows_is_no_business_of_the_signature_engine(first: bytes) -> None:
    for allowed, is_asked in (("198.51.100.2", False), ("203.0.113.250", True)):
        network = Network(f'[allow]\naddresses = ["{allowed}"]\n')
        connection = network.connect()
        connection.client(first)
        connection.server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert bool(network.asked_signatures) is is_asked, allowed


def test_datagrams_and_other_protocols_of_an_allowed_host_are_not_handed_on_either() -> None:
    for allowed, is_asked in (("192.0.2.1", False), ("203.0.113.250", True)):
        engine = Network(f'[allow]\naddresses = ["{allowed}"]\n').engine
        for token, data in enumerate((packets.ipv4(packets.udp(b"x" * 20), UDP), packets.ipv4(packets.icmp(8, 0), ICMP))):
            engine.receive(token, memoryview(data), 0, is_inside=True, mac=b"", now=100.0)
        accepted = [command.wants_signatures for command in engine.take_commands() if isinstance(command, Accept)]
        assert accepted == [is_asked, is_asked]


def test_what_cannot_be_read_is_seen_by_the_signature_engine_still() -> None:
    network = Network()
    connection = network.connect(25)
    connection.client(b"EHLO a\r\n")  # before the greeting
    connection.server(b"220 mail.example ESMTP\r\n")
    tokens = [connection.client(bytes(range(256)) * 8) for _ in range(3)]
    assert set(tokens) <= network.asked_signatures


def test_a_closed_engine_leaves_no_packet_without_a_verdict() -> None:
    network = Network(scan=None)
    connection = network.connect()
    connection.client(GET)
    connection.server(response(b"hello"))
    assert network.held == 1
    network.engine.close()
    network.carry_out()
    assert network.held == 0
    assert connection.to_client == response(b"hello")


def test_who_pauses_just_before_the_end_of_an_attachment_does_not_get_it_out() -> None:
    network = Network()
    connection = smtp_up_to_data(network)
    head = b"Subject: x\r\nContent-Type: application/x-a; name=a.exe\r\n\r\n"
    connection.client(head + MARKER + b"\r\n")
    network.wait(1)
    assert connection.to_server.endswith(head + b"X" * len(MARKER) + b"\r\n")
    connection.client(b"more\r\n.\r\n")
    network.wait(1)
    assert connection.to_server.endswith(b"X" * len(MARKER) + b"\r\nXXXX\r\n.\r\n")
    assert [event.action.value for event in network.events] == ["blocked"]


@pytest.mark.parametrize(
    "pieces",
    [[MARKER], [b"%x\r\n" % len(MARKER), MARKER, b"\r\n"]],
    ids=["until close", "in chunks"],
)
def test_who_pauses_just_before_the_end_of_a_download_does_not_get_it_out(pieces: list[bytes]) -> None:
    network = Network()
    connection = network.connect()
    connection.client(GET)
    chunked = b"Transfer-Encoding: chunked\r\n" if len(pieces) > 1 else b""
    connection.server(b"HTTP/1.1 200 OK\r\n" + chunked + b"\r\n")
    connection.server(b"".join(pieces))
    network.wait(1)
    assert MARKER not in connection.to_client
    assert connection.is_reset[CLIENT]
    assert network.told == [("virus", "blocked", "www.example.com/file")]


def test_who_pauses_in_a_clean_attachment_is_looked_at_a_bounded_number_of_times() -> None:
    network = Network()
    connection = smtp_up_to_data(network)
    sent = b"Subject: x\r\nContent-Type: application/x-a; name=a.exe\r\n\r\n"
    connection.client(sent)
    for number in range(3 * MAX_GLANCES):
        line = b"line %d\r\n" % number
        connection.client(line)
        network.wait(0.1)
        sent += line
        assert connection.to_server.endswith(sent), "a pause ends with the scanner's word"
    assert network.glances == MAX_GLANCES


class Ftp:
    """A session in passive mode that has begun."""

    def __init__(self, network: Network) -> None:
        self.network, self._port = network, 50_000
        self.control = network.connect(21)
        self.control.server(b"220 (vsFTPd 3.0.3)\r\n")
        for command, reply in (("USER anonymous", "331 password"), ("PASS x", "230 in"), ("TYPE I", "200 binary")):
            self.control.client(f"{command}\r\n".encode())
            self.control.server(f"{reply}\r\n".encode())

    def fetch(self, name: str, content: bytes, rest: int = 0) -> bytes:
        """What the client gets of a file from byte `rest` on."""
        self._port += 1
        if rest:
            self.control.client(b"REST %d\r\n" % rest)
            self.control.server(b"350 from there on\r\n")
        self.control.client(b"EPSV\r\n")
        self.control.server(b"229 Entering Extended Passive Mode (|||%d|)\r\n" % self._port)
        data = self.network.connect(self._port)
        self.control.client(f"RETR {name}\r\n".encode())
        self.control.server(b"150 here it comes\r\n")
        data.server(content[rest:], fin=True)
        self.control.server(b"226 done\r\n")
        self.network.wait(1)
        return data.to_client


def test_a_file_over_ftp_is_written_over_on_its_own_connection() -> None:
    network = Network()
    assert Ftp(network).fetch("evil.exe", b"MZ" + MARKER) == b"X" * (2 + len(MARKER))
    assert network.told == [("virus", "blocked", "ftp://198.51.100.2/evil.exe")]


def test_the_rest_of_a_file_whose_beginning_was_infected_is_written_over_too() -> None:
    network = Network()
    ftp = Ftp(network)
    assert ftp.fetch("evil.exe", MARKER + b"the rest", rest=10) == (MARKER + b"the rest")[10:], "nobody knows yet"
    ftp.fetch("evil.exe", MARKER + b"the rest")
    assert ftp.fetch("evil.exe", MARKER + b"the rest", rest=10) == b"X" * (len(MARKER) - 2)
    assert ftp.fetch("other.exe", MARKER + b"the rest", rest=10) == (MARKER + b"the rest")[10:]
    assert ftp.fetch("evil.exe", b"a clean one by now") == b"a clean one by now"
    assert network.told.count(("virus", "blocked", "ftp://198.51.100.2/evil.exe")) == 2


def test_what_passes_is_told_once_for_each_host_of_a_connection() -> None:
    network = Network('[allow]\nnames = ["example.com"]\n[block]\nnames = ["example.com"]\n')
    connection = network.connect()
    for path in (b"a", b"b"):
        for host in (b"one.example.com", b"two.example.com"):
            connection.client(GET.replace(b"www.example.com", host).replace(b"/file", b"/" + path))
            connection.server(response(b"hello"))
    assert network.told == [
        ("dangerous-site", "allowed", "one.example.com/a"),
        ("dangerous-site", "allowed", "two.example.com/a"),
    ]
    other = network.connect()
    other.client(GET.replace(b"www.example.com", b"one.example.com"))
    assert len(network.told) == 3, "another connection is another piece of news"
