"""ClientHellos of real clients and what a server lets pass, in any segmentation."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.tls import (
    MAX_HELLO_BYTES,
    MAX_IDLE_RECORDS,
    ClientHello,
    ClientHelloReceived,
    EchOffer,
    Framing,
    NotTlsSeen,
    TlsError,
    TlsReader,
)
from tests.support.hellos import (
    ALERT,
    cut,
    extension,
    join_extensions,
    message,
    outcome,
    post_quantum_hello,
    python_hello,
    record,
    server_name,
    split_extensions,
    vector,
)
from tests.support.need import need
from tests.support.wait import check_until, patience_s

TIMEOUT_S = 20
WARNING = record(b"\1\x5a", ALERT)


def read(flight: bytes) -> ClientHello:
    (event,) = TlsReader().receive(flight)
    assert isinstance(event, ClientHelloReceived)
    return event.hello


# --- real clients ---

REAL = {
    "Python, TLS 1.3": python_hello("www.example.com", ["h2", "http/1.1"]),
    "Python, TLS 1.2": python_hello("www.example.com", ["h2", "http/1.1"], newest=ssl.TLSVersion.TLSv1_2),
    "OpenSSL with a post-quantum key share": post_quantum_hello("www.example.com"),
}


@pytest.mark.parametrize("flight", REAL.values(), ids=REAL)
def test_the_server_name_of_a_real_client_is_read(flight: bytes) -> None:
    assert read(flight).server_name == "www.example.com"


def test_a_post_quantum_hello_is_larger_than_a_segment() -> None:
    assert len(REAL["OpenSSL with a post-quantum key share"]) > 1460


def test_a_tls_1_3_client_offers_its_versions_and_protocols() -> None:
    hello = read(REAL["Python, TLS 1.3"])
    assert (hello.alpn, max(hello.versions), hello.resumption, hello.early_data) == ((b"h2", b"http/1.1"), 0x0304, False, False)


def test_a_tls_1_2_client_has_its_one_version() -> None:
    assert read(REAL["Python, TLS 1.2"]).versions == (0x0303,)


def test_a_client_without_a_name_has_none() -> None:
    hello = read(python_hello(None))
    assert (hello.server_name, hello.alpn) == (None, ())


@pytest.mark.parametrize("flight", REAL.values(), ids=REAL)
@pytest.mark.parametrize("rest", [b"", b"trailing garbage", WARNING], ids=["alone", "before garbage", "before a record"])
def test_a_hello_is_the_same_whole_and_byte_by_byte(flight: bytes, rest: bytes) -> None:
    whole = [ClientHelloReceived(read(flight), 0, len(flight))]
    assert outcome(TlsReader().receive, [flight + rest]) == (whole, None)
    assert outcome(TlsReader().receive, cut(flight + rest, range(len(flight + rest)))) == (whole, None)


@given(st.sampled_from([*REAL.values()]), st.lists(st.integers(0)), st.lists(st.integers(0)), st.integers(0, 1 << 40))
def test_records_and_segments_may_be_cut_anywhere(flight: bytes, records: list[int], segments: list[int], start: int) -> None:
    stream = b"".join(record(part) for part in cut(flight[5:], records))
    expected = [ClientHelloReceived(read(flight), start, start + len(stream))]
    assert outcome(TlsReader(start).receive, cut(stream, segments)) == (expected, None)


def test_nothing_is_said_before_the_last_byte_and_nothing_after_it() -> None:
    flight = REAL["Python, TLS 1.3"]
    reader = TlsReader()
    assert reader.receive(memoryview(flight)[:-1]) == []
    assert len(reader.receive(memoryview(flight)[-1:])) == 1
    assert reader.receive(flight) == []


# --- what a server takes ---

PLAIN = python_hello("plain.example")
BODY = PLAIN[5:]
BEFORE, EXTENSIONS = split_extensions(PLAIN)
OTHERS = [part for part in EXTENSIONS if part[:2] != b"\0\0"]
PLAIN_NAME = server_name(b"plain.example")
ALGORITHMS = [part for part in OTHERS if part[:2] != b"\0\r"]


def with_extensions(*more: bytes) -> bytes:
    return join_extensions(BEFORE, [*more, *OTHERS])


FLIGHTS = {
    "two records": record(BODY[:50]) + record(BODY[50:]),
    "a record a byte": b"".join(record(BODY[at : at + 1]) for at in range(len(BODY))),
    "a record version of the future": record(BODY, version=b"\3\xff"),
    "a second record of another version": record(BODY[:50]) + record(BODY[50:], version=b"\3\x09"),
    "a record version below 3": record(BODY, version=b"\2\0"),
    "the greatest record version that Go takes": record(BODY, version=b"\x0f\xff"),
    "an empty record before": record(b"") + PLAIN,
    "an empty record between": record(BODY[:50]) + record(b"") + record(BODY[50:]),
    "as many empty records as go": record(b"") * MAX_IDLE_RECORDS + PLAIN,
    "one empty record too many": record(b"") * (MAX_IDLE_RECORDS + 1) + PLAIN,
    "a warning before": WARNING + PLAIN,
    "a warning between": record(BODY[:50]) + WARNING + record(BODY[50:]),
    "a fatal alert between": record(BODY[:50]) + record(b"\2\x28", ALERT) + record(BODY[50:]),
    "a second record that is too long": record(BODY[:50]) + record(BODY[50:].ljust(16385)),
    "a change of cipher between": record(BODY[:50]) + record(b"\1", 20) + record(BODY[50:]),
    "another handshake message before": record(b"\0\0\0\0") + PLAIN,
    "another handshake message after": record(BODY + b"\x14\0\0\x0c" + bytes(12)),
    "no cipher suites": record(message(BEFORE[: 35 + BEFORE[34]] + b"\0\0\1\0" + vector(b"".join(EXTENSIONS)))),
    "bytes after the extensions": record(message(PLAIN[9:] + b"x")),
    "no name": with_extensions(),
    "a name after all else": join_extensions(BEFORE, [*OTHERS, server_name(b"last.example")]),
    "a name in capitals": with_extensions(server_name(b"PLAIN.Example")),
    "a name with a final dot": with_extensions(server_name(b"plain.example.")),
    "an empty name": with_extensions(server_name(b"")),
    "a name with a zero byte": with_extensions(server_name(b"a\0.example")),
    "a name of 300 bytes": with_extensions(server_name(b"a" * 300)),
    "two names": with_extensions(server_name(b"a.example", b"b.example")),
    "two name extensions": with_extensions(server_name(b"a.example"), server_name(b"b.example")),
    "a name of another type": with_extensions(server_name(b"a.example", kind=5)),
    "bytes after the name": with_extensions(extension(0, vector(b"\0" + vector(b"a.example")) + b"zz")),
    "an empty name extension": with_extensions(extension(0, b"")),
    "an unknown extension twice": with_extensions(PLAIN_NAME, extension(0x7777, b"a"), extension(0x7777, b"b")),
    "protocols that run past their end": with_extensions(extension(16, b"\0\x09\x02h2")),
    "an empty protocol": with_extensions(PLAIN_NAME, extension(16, vector(b"\0\2h2"))),
    "half a signature algorithm": join_extensions(BEFORE, [*ALGORITHMS, extension(13, vector(b"\4\3\1"))]),
    "an extension that runs past its end": join_extensions(BEFORE, [*OTHERS, b"\x77\x77\0\x09x"]),
}


@contextmanager
def openssl_server(folder: Path) -> Iterator[tuple[str, int]]:
    """`openssl s_server` on a port of its own choice."""
    need("openssl", "is asked what a server takes")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    serve = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key, "-alpn", "h2", "-early_data"]
    with subprocess.Popen([*serve, "-no_anti_replay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            line = next(line for line in server.stdout if line.startswith("ACCEPT"))
            yield "127.0.0.1", int(line.rpartition(":")[2])
        finally:
            server.kill()


def is_taken(address: tuple[str, int], flight: bytes) -> bool:
    """Whether a server answers with a ServerHello. One that goes on waiting has not."""
    with socket.create_connection(address, timeout=patience_s(TIMEOUT_S)) as client:
        client.sendall(flight)
        client.settimeout(patience_s(1))
        try:
            answer = client.recv(6)
        except (TimeoutError, ConnectionResetError):
            return False
    return answer[:1] == b"\x16" and answer[5:] == b"\2"


def test_every_hello_that_openssl_takes_is_read(tmp_path: Path) -> None:
    with openssl_server(tmp_path) as address:
        taken = {name for name, flight in FLIGHTS.items() if is_taken(address, flight)}
    assert len(taken) > 10
    outcomes = {name: outcome(TlsReader().receive, [FLIGHTS[name]]) for name in taken}
    unread = {name for name, (events, _) in outcomes.items() if not any(isinstance(event, ClientHelloReceived) for event in events)}
    assert unread == set()


NAMES: dict[str, str | None] = {
    "no name": None,
    "an empty name": None,
    "an empty name extension": None,
    "a name of another type": None,
    "a name after all else": "last.example",
    "a name with a zero byte": r"a\000.example",
    "a name of 300 bytes": "a" * 300,
}
ERRORS = {
    "one empty record too many": "more than 32 records",
    "a change of cipher between": "a record of type 20",
    "a fatal alert between": "a record of type 21",
    "a second record that is too long": "16385 bytes",
    "no cipher suites": "without cipher suites",
    "bytes after the extensions": "bytes after",
    "two names": "two host names",
    "two name extensions": "extension 0 twice",
    "bytes after the name": "bytes after its list",
    "protocols that run past their end": "runs past",
    "half a signature algorithm": "half a number",
    "an extension that runs past its end": "do not fill",
}
OTHER_PROTOCOLS = ("another handshake message before",)


@pytest.mark.parametrize("case", [case for case in FLIGHTS if case not in (*ERRORS, *OTHER_PROTOCOLS)])
def test_a_hello_that_some_server_takes_has_its_name(case: str) -> None:
    assert read(FLIGHTS[case]).server_name == NAMES.get(case, "plain.example")


@pytest.mark.parametrize("case", ERRORS)
def test_a_hello_that_no_server_takes_is_the_one_error_for_good(case: str) -> None:
    reader = TlsReader()
    with pytest.raises(TlsError, match=ERRORS[case]):
        reader.receive(FLIGHTS[case])
    with pytest.raises(TlsError, match=ERRORS[case]):
        reader.receive(PLAIN)


@pytest.mark.parametrize("flight", FLIGHTS.values(), ids=FLIGHTS)
def test_an_odd_hello_is_as_odd_byte_by_byte(flight: bytes) -> None:
    assert outcome(TlsReader().receive, cut(flight, range(len(flight)))) == outcome(TlsReader().receive, [flight])


# --- limits ---


def test_a_hello_of_the_greatest_size_is_read() -> None:
    spare = MAX_HELLO_BYTES - len(message(BEFORE + vector(b"".join([*EXTENSIONS, extension(21, b"")]))))
    full = message(BEFORE + vector(b"".join([*EXTENSIONS, extension(21, bytes(spare))])))
    assert len(full) == MAX_HELLO_BYTES
    assert read(b"".join(record(part) for part in cut(full, range(0, len(full), 16384)))).server_name == "plain.example"


def test_a_hello_that_announces_more_is_given_up_at_its_header() -> None:
    with pytest.raises(TlsError, match="65537 bytes"):
        TlsReader().receive(record(b"\1" + (MAX_HELLO_BYTES - 3).to_bytes(3, "big")))


def test_idle_records_are_counted_anew_after_each_part_of_the_hello() -> None:
    idle = record(b"") * MAX_IDLE_RECORDS
    assert read(idle + record(BODY[:50]) + idle + record(BODY[50:])).server_name == "plain.example"


# --- not TLS ---

OTHERS_FIRST = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a TLS server": b"\x16\3\3\0\x5a\2\0\0\x56\3\3",
    "TLS that is under way": b"\x17\3\3\1\0" + bytes(20),
    "a record of version 16": b"\x16\x10\0\0\x20\1",
    "a record that is too long": b"\x16\3\1\x40\1\1",
    "a fatal alert": b"\x15\3\1\0\2\2\x28",
    "BitTorrent": b"\x13BitTorrent protocol",
    "SMB": b"\0\0\0\xa4\xfeSMB",
    "a call of ONC RPC": b"\x80\0\0\x28\x12\x34\x56\x78\0\0\0\0",
    "an SSLv2 hello without ciphers": b"\x80\x19\1\3\1\0\0\0\0\0\x10" + bytes(16),
    "an SSLv2 hello whose lengths do not add up": b"\x80\x2e\1\0\2\0\x15\0\0\0\x11" + bytes(40),
}


@pytest.mark.parametrize("first", OTHERS_FIRST.values(), ids=OTHERS_FIRST)
def test_another_protocol_is_told_from_its_first_bytes(first: bytes) -> None:
    assert outcome(TlsReader().receive, [first]) == ([NotTlsSeen()], None)
    assert outcome(TlsReader().receive, cut(first, range(len(first)))) == ([NotTlsSeen()], None)


# --- SSLv2 ---

SSL2_CIPHERS = b"\1\0\x80\7\0\xc0\0\0\x2f"


def ssl2_hello(version: bytes, session: bytes = b"") -> bytes:
    """RFC 5246, appendix E.2."""
    sizes = b"".join(len(part).to_bytes(2, "big") for part in (SSL2_CIPHERS, session, bytes(16)))
    body = b"\1" + version + sizes + SSL2_CIPHERS + session + bytes(16)
    return (0x8000 | len(body)).to_bytes(2, "big") + body


@pytest.mark.parametrize("version", [0x0002, 0x0300, 0x0301, 0x0303])
def test_an_sslv2_compatible_hello_is_recognised_in_any_segmentation(version: int) -> None:
    flight = ssl2_hello(version.to_bytes(2, "big"))
    hello = ClientHello(versions=(version,), cipher_suites=(0x010080, 0x0700C0, 0x2F), framing=Framing.SSL2)
    expected = [ClientHelloReceived(hello, 0, len(flight))], None
    assert outcome(TlsReader().receive, [flight + b"rest"]) == expected
    assert outcome(TlsReader().receive, cut(flight + b"rest", range(99))) == expected


def test_an_sslv2_session_id_is_a_resumption() -> None:
    assert read(ssl2_hello(b"\3\1", session=bytes(16))).resumption


# --- encrypted hellos, sessions of before ---


def test_an_encrypted_client_hello_is_noted_with_its_config_id() -> None:
    outer = b"\0" + b"\0\1\0\1" + b"\x2b" + vector(bytes(32)) + vector(bytes(144))  # RFC 9849, section 5
    assert read(with_extensions(extension(0xFE0D, outer), server_name(b"front.example"))).ech == EchOffer(0x2B, len(outer))
    assert read(with_extensions(extension(0xFE0D, b"\0\0"))).ech == EchOffer(None, 2)
    assert read(PLAIN).ech is None


OLD_BEFORE, OLD_EXTENSIONS = split_extensions(python_hello("old.example", newest=ssl.TLSVersion.TLSv1_2))
RESUMED = {
    "an empty ticket": (join_extensions(OLD_BEFORE, OLD_EXTENSIONS), False),
    "a ticket": (join_extensions(OLD_BEFORE, [part for part in OLD_EXTENSIONS if part[1] != 35] + [extension(35, b"t")]), True),
    "a session id before TLS 1.3": (join_extensions(OLD_BEFORE[:34] + b"\1i" + OLD_BEFORE[35:], OLD_EXTENSIONS), True),
    "a session id of TLS 1.3, which is for middleboxes": (PLAIN, False),
    "a pre-shared key": (with_extensions(extension(41, b"key")), True),
}


@pytest.mark.parametrize(("flight", "is_resumed"), RESUMED.values(), ids=RESUMED)
def test_a_client_resumes_by_ticket_key_or_old_session_id(flight: bytes, is_resumed: bool) -> None:
    assert read(flight).resumption is is_resumed


@contextmanager
def caught_flight(arguments: list[str | Path]) -> Iterator[list[bytes]]:
    """What `openssl s_client` says first, to a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(patience_s(TIMEOUT_S))
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(patience_s(TIMEOUT_S))
                    yield [connection.recv(1 << 16)]
            finally:
                client.kill()


def test_a_session_of_before_and_its_early_data_are_noted(tmp_path: Path) -> None:
    session, early = tmp_path / "session.pem", tmp_path / "early"
    early.write_text("GET / HTTP/1.0\r\n\r\n")
    with openssl_server(tmp_path) as (host, port), caught_session(f"{host}:{port}", session):
        assert session.stat().st_size > 0
    with caught_flight(["-servername", "again.example", "-sess_in", session, "-early_data", early]) as (flight,):
        hello = read(flight)
    assert (hello.server_name, hello.resumption, hello.early_data) == ("again.example", True, True)


@contextmanager
def caught_session(address: str, session: Path) -> Iterator[None]:
    """A client that stays until the server's ticket came and is in the file."""
    command = ["openssl", "s_client", "-connect", address, "-servername", "again.example", "-sess_out", session]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            check_until("the server's ticket is in the file", lambda: session.exists() and session.stat().st_size > 0, TIMEOUT_S)
            yield
        finally:
            client.kill()


def test_a_tls_1_2_client_with_options_is_read() -> None:
    need("openssl", "is the client")
    with caught_flight(["-tls1_2", "-servername", "old.example", "-alpn", "imap,pop3", "-cipher", "AES128-SHA"]) as (flight,):
        hello = read(flight)
    assert (hello.server_name, hello.alpn, hello.versions) == ("old.example", (b"imap", b"pop3"), (0x0303,))
    assert hello.cipher_suites == (0x002F, 0x00FF)
