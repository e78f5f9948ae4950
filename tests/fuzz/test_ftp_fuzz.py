"""Any dialogue is findings or the one error, within the reader's limits, however it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.findings import AnomalySeen, DataConnectionExpected, Finding, OpaqueBegins, TlsBegins
from mamori.inspect.ftp import MAX_HELD_BYTES, MAX_LINE_BYTES, FtpError, FtpReader
from mamori.inspect.ftp_text import (
    extended_listener,
    parse_command,
    parse_extended_port,
    parse_long_port,
    passive_listeners,
    quoted_path,
    unique_name,
)
from tests.support.hellos import cut

ADDRESSES = (
    b"1,2,3,4,5,6",
    b"(|||7|)",
    b"|1|192.0.2.1|8|",
    b"|2|::1|9|",
    b"4,4,1,2,3,4,2,5,6",
    b"|",
    b",",
    b"(",
    b"65535",
    b" ",
    b"0",
)
COMMANDS = (
    b"PASV",
    b"EPSV",
    b"PORT ",
    b"EPRT ",
    b"LPRT ",
    b"RETR a",
    b"STOR b",
    b"STOU",
    b"LIST -l",
    b"CWD ..",
    b"CWD /x",
    b"CDUP",
)
MORE = (
    b"AUTH TLS",
    b"AUTH X",
    b"REST 5",
    b"TYPE I",
    b"MODE Z",
    b"PWD",
    b"USER x",
    b"\xff\xf4\xff\xf2ABOR",
    b"\xff",
    b"\xff\xff",
    b"\0",
)
REPLIES = (
    b"220 ",
    b"227 ",
    b"227-",
    b"228 ",
    b"229 ",
    b"234 ",
    b"334 ",
    b"150 FILE: x",
    b"226 ",
    b"350 ",
    b'257 "/a"',
    b"500 ",
    b"200 ",
)
ENDS = (b"\r\n", b"\n", b"\r\n", b"\r")
CLIENT = st.lists(st.sampled_from((*COMMANDS, *MORE, *ADDRESSES, *ENDS)) | st.binary(max_size=5), max_size=12).map(b"".join)
SERVER = st.lists(st.sampled_from((*REPLIES, *ADDRESSES, *ENDS)) | st.binary(max_size=5), max_size=12).map(b"".join)
TURNS = st.lists(st.tuples(st.just(0), CLIENT) | st.tuples(st.just(1), SERVER), max_size=12)


def outcome(turns: list[tuple[int, bytes]]) -> tuple[list[Finding], str | None]:
    reader, findings, error = FtpReader(), [], None
    for direction, data in [*turns, (0, b""), (1, b"")]:
        try:
            got = reader.receive(direction, data)
        except FtpError as raised:
            assert error in (None, str(raised))
            error = str(raised)
        else:
            assert error is None
            findings += got
        assert reader.held_bytes <= 2 * MAX_LINE_BYTES + MAX_HELD_BYTES
    return findings, error


@given(TURNS, st.lists(st.integers(0)))
def test_any_dialogue_is_the_same_however_it_is_cut(turns: list[tuple[int, bytes]], cuts: list[int]) -> None:
    pieces = [(side, piece) for side, data in turns for piece in cut(data, cuts)]
    assert outcome(turns) == outcome(pieces)


@given(TURNS)
def test_any_finding_lies_in_what_was_said(turns: list[tuple[int, bytes]]) -> None:
    sent = [sum(len(data) for side, data in turns if side == direction) for direction in (0, 1)]
    for finding in outcome(turns)[0]:
        assert isinstance(finding, AnomalySeen | DataConnectionExpected | OpaqueBegins | TlsBegins)
        if isinstance(finding, AnomalySeen):
            assert 0 <= finding.start <= finding.end <= max(sent)
        if isinstance(finding, TlsBegins):
            assert finding.starts[0] <= sent[0]
            assert finding.starts[1] <= sent[1]
        if isinstance(finding, DataConnectionExpected):
            assert 0 <= finding.port <= 65535
            assert finding.port or finding.listener == 0


@given(CLIENT | SERVER | st.binary(max_size=200))
def test_any_line_is_read(line: bytes) -> None:
    assert parse_command(line).verb == parse_command(line).verb.upper()
    ports = [listener[1] for listener in passive_listeners(line)]
    for place in (parse_extended_port(line), parse_long_port(line)):
        ports += [place[1]] if place else []
    ports += [port] if (port := extended_listener(line)) else []
    assert all(0 < port <= 65535 for port in ports)
    assert all(name is None or isinstance(name, str) for name in (quoted_path(line), unique_name(line)))
