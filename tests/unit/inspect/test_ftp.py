"""FTP's control connection as dialogues: `C:` lines of the client, `S:` lines of the server, and what is found in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.findings import AnomalySeen, Coding, DataConnectionExpected, Finding, OpaqueBegins, TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.ftp import MAX_HELD_BYTES, MAX_LINE_BYTES, MAX_WAITING, FtpError, FtpReader
from mamori.inspect.ftp_text import MAX_PATH_CHARS, join, parse_address, path_text, unique_name, without_telnet
from tests.support.hellos import cut

C, S = ORIGINATOR, RESPONDER
GREETING = (S, b"220 ready\r\n")
Turn = tuple[int, bytes]


def talk(*lines: str | bytes) -> list[Turn]:
    """A dialogue after the greeting, from lines that begin with `C:` or `S:`."""
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    return [GREETING, *((C if line[:2] == b"C:" else S, line[2:] + b"\r\n") for line in raw)]


def found(turns: list[Turn], reader: FtpReader | None = None) -> list[Finding]:
    reader = reader or FtpReader()
    return [finding for direction, data in turns for finding in reader.receive(direction, data)]


def server(port: int, name: str = "", sender: int | None = None, address: str = "") -> DataConnectionExpected:
    return DataConnectionExpected(S, address, port, sender, name)


def client(port: int, name: str = "", sender: int | None = None, address: str = "") -> DataConnectionExpected:
    return DataConnectionExpected(C, address, port, sender, name)


def both(one: DataConnectionExpected, address: str) -> list[Finding]:
    """A listener is told with its address and without."""
    return [DataConnectionExpected(one.listener, address, one.port, one.sender, one.name), one]


EPSV = ("C:EPSV", "S:229 Entering Extended Passive Mode (|||4660|)")
DIALOGUES: dict[str, tuple[list[Turn], list[Finding]]] = {
    "PASV and a download": (
        talk("C:PASV", "S:227 Entering Passive Mode (192,0,2,1,18,52).", "C:RETR a.txt", "S:150 Here it comes", "S:226 Done"),
        [*both(server(4660), "192.0.2.1"), *both(server(4660, "a.txt", S), "192.0.2.1")],
    ),
    "EPSV and an upload": (talk(*EPSV, "C:STOR a.txt", "S:150 ok", "S:226 ok"), [server(4660), server(4660, "a.txt", C)]),
    "an append": (talk(*EPSV, "C:APPE log"), [server(4660), server(4660, "log", C)]),
    "a listing": (talk(*EPSV, "C:LIST -la /pub"), [server(4660), server(4660, "/pub/")]),
    "a listing of here": (talk(*EPSV, "C:MLSD"), [server(4660), server(4660, "/")]),
    "PORT and a download": (
        talk("C:PORT 192,0,2,9,18,52", "S:200 ok", "C:RETR a"),
        [*both(client(4660), "192.0.2.9"), *both(client(4660, "a", S), "192.0.2.9")],
    ),
    "EPRT": (
        talk("C:EPRT |2|2001:DB8::9|4660|", "S:200 ok", "C:STOR a"),
        [*both(client(4660), "2001:db8::9"), *both(client(4660, "a", C), "2001:db8::9")],
    ),
    "LPRT": (talk("C:LPRT 4,4,192,0,2,9,2,18,52", "S:200 ok"), both(client(4660), "192.0.2.9")),
    "LPSV": (
        talk("C:LPSV", "S:228 Long Passive (6,16,32,1,13,184,0,0,0,0,0,0,0,0,0,0,0,9,2,18,52)"),
        both(server(4660), "2001:db8::9"),
    ),
    "PORT that is refused leaves PASV": (
        talk(*EPSV, "C:PORT 192,0,2,9,4,1", "S:500 no", "C:RETR a"),
        [server(4660), *both(client(1025), "192.0.2.9"), server(4660, "a", S)],
    ),
    "PASV that is refused leaves PORT": (
        talk("C:PORT 192,0,2,9,18,52", "S:200 ok", "C:PASV", "S:502 no", "C:RETR a"),
        [*both(client(4660), "192.0.2.9"), *both(client(4660, "a", S), "192.0.2.9")],
    ),
    "a transfer without a listener": (talk("C:RETR a"), [client(0, "a", S)]),
    "a listener that was used": (
        talk(*EPSV, "C:LIST", "S:226 ok", "C:RETR a"),
        [server(4660), server(4660, "/"), server(4660, "a", S), client(0, "a", S)],
    ),
    "all pipelined": (
        [
            *((C, b"USER a\r\nPASS b\r\nCWD /pub\r\nEPSV\r\nRETR a\r\nQUIT\r\n"), GREETING),
            (S, b"331 ?\r\n230 ok\r\n250 ok\r\n229 (|||4660|)\r\n150 ok\r\n226 ok\r\n221 bye\r\n"),
        ],
        [server(4660), server(4660, "/pub/a", S)],
    ),
    "two pipelined downloads": (
        talk("C:EPSV\r\nRETR a\r\nEPSV\r\nRETR b", "S:229 (|||1|)\r\n150 a\r\n226 a\r\n229 (|||2|)\r\n150 b"),
        [server(1), server(1, "a", S), server(2), server(2, "b", S)],
    ),
    "PORT and RETR pipelined": (
        talk("C:PORT 192,0,2,9,18,52\r\nRETR a"),
        [*both(client(4660), "192.0.2.9"), *both(client(4660, "a", S), "192.0.2.9")],
    ),
    "a pipelined EPSV that is refused": (
        talk("C:PORT 192,0,2,9,18,52\r\nEPSV\r\nRETR a", "S:200 ok", "S:500 no"),
        [*both(client(4660), "192.0.2.9"), *both(client(4660, "a", S), "192.0.2.9")],
    ),
    "folders": (
        talk("C:CWD /pub", "S:250 ok", "C:CWD deep/er", "S:250 ok", "C:CDUP", "S:200 ok", *EPSV, "C:RETR x"),
        [server(4660), server(4660, "/pub/deep/x", S)],
    ),
    "a folder that is refused": (
        talk("C:CWD /pub", "S:250 ok", "C:CWD x", "S:550 no", *EPSV, "C:RETR x"),
        [server(4660), server(4660, "/pub/x", S)],
    ),
    "the folder of PWD": (
        talk("C:PWD", 'S:257 "/home/""me""" is it', *EPSV, "C:RETR x"),
        [server(4660), server(4660, '/home/"me"/x', S)],
    ),
    "an absolute path": (talk("C:CWD /pub", "S:250 ok", *EPSV, "C:RETR /etc/x"), [server(4660), server(4660, "/etc/x", S)]),
    "another user's folder": (
        talk("C:CWD /pub", "S:250 ok", "C:USER b", "S:331 ?", *EPSV, "C:RETR x"),
        [server(4660), server(4660, "x", S)],
    ),
    "STOU": (
        talk(*EPSV, "C:STOU", "S:150 FILE: unique.1", "S:226 ok"),
        [server(4660), server(4660, "", C), server(4660, "unique.1", C)],
    ),
    "replies of many lines": (
        [
            *((S, b"220-hello\r\n 220 in the text\r\n220 end\r\n"), (C, b"FEAT\r\n")),
            *((S, b"211-x\r\n EPSV\r\n500 inside\r\n211 End\r\n"), *talk(*EPSV)[1:]),
        ],
        [server(4660)],
    ),
    "text that looks like replies": (
        talk("C:FEAT\r\nCWD /pub\r\nEPSV\r\nRETR a", "S:211-x\r\n500 inside\r\n500 again\r\n211 End\r\n250 ok\r\n229 (|||4660|)"),
        [server(4660), server(4660, "/pub/a", S)],
    ),
    "commands before a greeting that tells to wait": (
        [(C, b"EPSV\r\nRETR a\r\n"), (S, b"120 wait\r\n220 ready\r\n229 (|||4660|)\r\n150 ok\r\n")],
        [server(4660), server(4660, "a", S)],
    ),
    "a greeting that tells to wait": ([(S, b"120 wait\r\n"), *talk(*EPSV)], [server(4660)]),
    "a server that loses count": (
        talk("C:ABOR\r\nNOOP\r\nCWD /pub\r\nEPSV\r\nRETR a", "S:229 (|||4660|)"),
        [server(4660), server(4660, "/pub/a", S)],
    ),
}


@pytest.mark.parametrize(("turns", "expected"), DIALOGUES.values(), ids=DIALOGUES)
def test_a_dialogue_says_where_the_data_goes(turns: list[Turn], expected: list[Finding]) -> None:
    assert found(turns) == expected


@pytest.mark.parametrize(("turns", "expected"), DIALOGUES.values(), ids=DIALOGUES)
def test_a_dialogue_byte_by_byte_is_the_same(turns: list[Turn], expected: list[Finding]) -> None:
    assert found([(side, data[at : at + 1]) for side, data in turns for at in range(len(data))]) == expected


@given(st.sampled_from(list(DIALOGUES.values())), st.lists(st.integers(0)))
def test_a_dialogue_is_the_same_however_it_is_cut(dialogue: tuple[list[Turn], list[Finding]], cuts: list[int]) -> None:
    turns, expected = dialogue
    assert found([(side, piece) for side, data in turns for piece in cut(data, cuts)]) == expected


PASSIVE_REPLIES = {
    "as in the RFC": (b"227 Entering Passive Mode (192,0,2,1,18,52)", "192.0.2.1", 4660),
    "without parentheses": (b"227 Entering Passive Mode 192,0,2,1,18,52", "192.0.2.1", 4660),
    "with an equals sign": (b"227 Passive =192,0,2,1,18,52.", "192.0.2.1", 4660),
    "with spaces": (b"227 ok ( 192, 0 ,2,1,\t18, 52 )", "192.0.2.1", 4660),
    "with zeros": (b"227 ok (192,000,002,001,018,052)", "192.0.2.1", 4660),
    "without text": (b"227 192,0,2,1,18,52", "192.0.2.1", 4660),
    "with other numbers first": (b"227 on port 21 (192,0,2,1,18,52) for 30 s", "192.0.2.1", 4660),
    "extended": (b"229 ok (|||4660|)", "", 4660),
    "extended, another delimiter": (b"229 ok (!!!4660!)", "", 4660),
    "extended, without parentheses": (b"229 ok |||4660|", "", 4660),
    "extended, with spaces": (b"229 ok ( ||| 4660 | )", "", 4660),
    "extended, with an address that counts for nothing": (b"229 ok (|1|203.0.113.9|4660|)", "", 4660),
    "extended, with an IPv6 address": (b"229 ok (|2|2001:db8::1|4660|)", "", 4660),
    "first of many lines": (b"229-ok (|||4660|)\r\n more\r\n229 end", "", 4660),
    "last of many lines": (b"229-ok\r\n229 (|||4660|)", "", 4660),
    "a line end of LF": (b"229 ok (|||4660|)\n229", "", 4660),
    "with a Telnet NOP": (b"\xff\xf1229 ok (|||4660|)", "", 4660),
}


@pytest.mark.parametrize(("reply", "address", "port"), PASSIVE_REPLIES.values(), ids=PASSIVE_REPLIES)
def test_a_passive_reply_is_understood_as_clients_do(reply: bytes, address: str, port: int) -> None:
    command = "C:EPSV" if reply.lstrip(b"\xff\xf1").startswith(b"229") else "C:PASV"
    expected = both(server(port), address) if address else [server(port)]
    assert found(talk(command, b"S:" + reply)) == expected


@pytest.mark.parametrize(
    "reply",
    [
        b"227 ok (192,0,2,1,18)",
        b"227 ok (192,0,2,256,18,52)",
        b"227 ok (192,0,2,1,0,0)",
        b"227 ok (192.0.2.1.18.52)",
        b"229 ok (|||0|)",
        b"229 ok (|||65536|)",
        b"229 ok (||4660|)",
        b"229 ok (|||)",
        b"228 ok (4,4,192,0,2,9,1,18)",
        b"228 ok (4,4,192,0,2,9,2,18)",
        b"228 ok (4,9,192,0,2,9,2,18,1,1,1,1,1,1,1,1)",
        b"228 nothing",
    ],
)
def test_a_passive_reply_without_an_address_says_nothing(reply: bytes) -> None:
    assert found(talk("C:PASV", b"S:" + reply)) == []


@pytest.mark.parametrize(
    "argument",
    [b"1,2,3,4,5", b"1,2,3,4,0,0", b"1,2,3,4,256,1", b"a,b,c,d,e,f", b"", b"1,2,3,999,5,6"],
)
def test_a_port_command_without_an_address_says_nothing(argument: bytes) -> None:
    assert found(talk(b"C:PORT " + argument)) == []


@pytest.mark.parametrize(
    "argument", [b"", b"|", b"|1|192.0.2.9|", b"|1|192.0.2.999|4660|", b"|1|192.0.2.9|0|", b"|1|192.0.2.9|99999|", b"|1||4660|"]
)
def test_an_eprt_command_without_an_address_says_nothing(argument: bytes) -> None:
    assert found(talk(b"C:EPRT " + argument)) == []


COMMANDS = {
    "lower case": b"retr a b",
    "spaces before it": b"  RETR a b",
    "many spaces after it": b"RETR   a b",
    "a tab": b"RETR\ta b",
    "a second CR": b"RETR a b\r",
    "an IAC alone": b"\xffRETR a b",
}


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_read_however_it_is_spaced(line: bytes) -> None:
    assert found(talk(*EPSV, b"C:" + line)) == [server(4660), server(4660, "a b", S)]


def test_an_abort_has_telnet_bytes_before_it() -> None:
    turns = talk(*EPSV, "C:RETR a", "S:150 ok", b"C:\xff\xf4\xff\xf2ABOR", "S:426 broken", "S:226 ok", *EPSV, "C:RETR b")
    assert found(turns) == [server(4660), server(4660, "a", S), server(4660), server(4660, "b", S)]


@pytest.mark.parametrize("line", [b"RETR a\0b", b"RETR a\rb", b"\xff\xf1RETR a", b"RE\xff\xfb\x01TR a"])
def test_a_command_that_servers_read_differently_is_an_evasion(line: bytes) -> None:
    findings = found(talk(*EPSV, b"C:" + line))
    assert [finding.is_evasion for finding in findings if isinstance(finding, AnomalySeen)] == [True]
    assert isinstance(findings[-1], DataConnectionExpected)
    assert findings[-1].sender == S


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (b"a\xff\xffb", b"a\xffb"),
        (b"a\xff\xf1b", b"ab"),
        (b"a\xff\xfd\x06b", b"ab"),
        (b"a\xffb", b"a\xffb"),
        (b"a\xff", b"a\xff"),
        (b"a\xff\xfe", b"a"),
        (b"\xff\xf4\xff\xf2ABOR", b"ABOR"),
    ],
)
def test_telnet_is_taken_out_of_a_line(line: bytes, plain: bytes) -> None:
    assert without_telnet(line) == plain


@pytest.mark.parametrize(
    ("raw", "text"),
    [("見積書.xlsx".encode(), "見積書.xlsx"), ("見積書.xlsx".encode("cp932"), "見積書.xlsx"), (b"a\x81", "a\x81")],
)
def test_a_name_is_read_in_the_encodings_that_are_about(raw: bytes, text: str) -> None:
    assert path_text(raw) == text


def test_a_folder_does_not_grow_without_end() -> None:
    folder = "/"
    for _ in range(1000):
        folder = join(folder, "x" * 100)
        assert len(folder) <= MAX_PATH_CHARS


def test_a_restart_is_told_and_the_name_is_kept() -> None:
    findings = found(talk("C:REST 1000", "S:350 ok", *EPSV, "C:RETR a", "S:226 ok", "C:EPSV", "S:229 (|||1|)", "C:RETR b"))
    anomaly = AnomalySeen(17, 25, "FTP carries the part of a file from byte 1000 on", is_evasion=False)
    assert findings == [server(4660), anomaly, server(4660, "a", S)._replace(is_part=True), server(1), server(1, "b", S)]


def test_a_pipelined_restart_counts_for_one_file() -> None:
    findings = found(talk(*EPSV, "C:REST 7\r\nRETR a\r\nRETR b", "S:350 ok", "S:226 ok", "S:226 ok", "C:RETR c"))
    assert sum(isinstance(finding, AnomalySeen) for finding in findings) == 1


@pytest.mark.parametrize("lines", [("C:REST 0", "S:350 ok"), ("C:REST 7", "S:501 no")])
def test_a_restart_at_the_start_or_refused_is_none(lines: tuple[str, str]) -> None:
    assert found(talk(*lines, *EPSV, "C:RETR a")) == [server(4660), server(4660, "a", S)]


@pytest.mark.parametrize(
    ("lines", "coding"),
    [
        ((), Coding.TEXT),
        (("C:TYPE I", "S:200 ok"), Coding.BINARY),
        (("C:TYPE I", "S:200 ok", "C:type a n", "S:200 ok"), Coding.TEXT),
        (("C:TYPE L 8", "S:200 ok"), Coding.BINARY),
        (("C:TYPE I", "S:504 no"), Coding.TEXT),
        (("C:TYPE I", "S:200 ok", "C:MODE Z", "S:200 ok"), Coding.COMPRESSED),
        (("C:TYPE I", "S:200 ok", "C:MODE Z", "S:504 no"), Coding.BINARY),
        (("C:TYPE I", "S:200 ok", "C:MODE Z", "S:200 ok", "C:MODE S", "S:200 ok"), Coding.BINARY),
    ],
)
def test_the_coding_follows_type_and_mode(lines: tuple[str, ...], coding: Coding) -> None:
    reader = FtpReader()
    found(talk(*lines), reader)
    assert reader.coding is coding


def test_a_reply_with_two_addresses_is_an_evasion() -> None:
    for reply in (b"227 (192,0,2,1,18,52) (192,0,2,1,18,53)", b"227-(192,0,2,1,18,52)\r\n227 (192,0,2,1,18,53)"):
        findings = found(talk("C:PASV", b"S:" + reply))
        assert {finding.port for finding in findings if isinstance(finding, DataConnectionExpected)} == {4660, 4661}
        assert [finding.is_evasion for finding in findings if isinstance(finding, AnomalySeen)] == [True]


def test_port_to_a_service_is_told() -> None:
    first = found(talk("C:PORT 192,0,2,9,0,25"))[0]
    assert isinstance(first, AnomalySeen)
    assert not first.is_evasion


# --- TLS ---

HELLO = b"\x16\x03\x01\x00\x05hello"


@pytest.mark.parametrize("mechanism", ["TLS", "tls", "SSL", "TLS-C", "TLS-P "])
@pytest.mark.parametrize("reply", ["234 ok", "334 ok", "200 ok"])
def test_tls_begins_behind_the_command_and_behind_its_reply(mechanism: str, reply: str) -> None:
    turns = talk(f"C:AUTH {mechanism}", f"S:{reply}")
    starts = (len(turns[1][1]), len(GREETING[1]) + len(turns[2][1]))
    assert found([*turns, (C, HELLO), (S, HELLO + b"\r\n227 (1,2,3,4,5,6)\r\n")]) == [TlsBegins(starts)]


def test_offsets_count_from_the_starts() -> None:
    assert found(talk("C:AUTH TLS", "S:234 ok"), FtpReader((1000, 2000))) == [TlsBegins((1010, 2019))]


def test_a_hello_that_does_not_wait_is_part_of_tls() -> None:
    assert found([GREETING, (C, b"AUTH TLS\r\n" + HELLO[:3]), (C, HELLO[3:]), (S, b"234 ok\r\n")]) == [TlsBegins((10, 19))]


def test_commands_behind_auth_are_read_when_it_is_refused() -> None:
    turns = [GREETING, (C, b"AUTH TLS\r\nEP"), (C, b"SV\r\n"), (S, b"530 no\r\n229 (|||4660|)\r\n"), (C, b"RETR a\r\n")]
    assert found(turns) == [server(4660), server(4660, "a", S)]


def test_commands_behind_auth_are_an_evasion_when_it_is_agreed() -> None:
    findings = found([GREETING, (C, b"AUTH TLS\r\nEPSV\r\n"), (S, b"234 ok\r\n")])
    assert findings == [AnomalySeen(10, 16, "FTP commands between AUTH TLS and its reply", is_evasion=True), TlsBegins((10, 19))]


def test_another_security_is_opaque() -> None:
    turns = talk("C:AUTH GSSAPI", "S:334 more", "C:ADAT YWJj", "S:235 ok")
    assert found(turns) == [OpaqueBegins(len(turns[1][1]) + len(turns[3][1]), "ftp-security")]


# --- limits ---


@pytest.mark.parametrize("side", [C, S])
@pytest.mark.parametrize("ending", [b"", b"\r\n"])
def test_a_line_without_end_is_the_one_error(side: int, ending: bytes) -> None:
    reader = FtpReader()
    with pytest.raises(FtpError):
        reader.receive(side, b"x" * (MAX_LINE_BYTES + 1) + ending)
    assert reader.held_bytes == 0
    with pytest.raises(FtpError):
        reader.receive(side, b"")


def test_a_line_of_the_longest_length_is_read() -> None:
    assert FtpReader().receive(C, b"RETR ".ljust(MAX_LINE_BYTES, b"x") + b"\n")


def test_commands_without_replies_end_somewhere() -> None:
    reader = FtpReader()
    assert reader.receive(C, b"NOOP\r\n" * MAX_WAITING) == []
    with pytest.raises(FtpError):
        reader.receive(C, b"NOOP\r\n")


def test_what_comes_before_the_error_is_told_first() -> None:
    reader = FtpReader()
    assert reader.receive(C, b"PORT 1,2,3,4,5,6\n" + b"x" * (MAX_LINE_BYTES + 1)) == both(client(1286), "1.2.3.4")
    with pytest.raises(FtpError):
        reader.receive(S, b"")


def test_what_is_held_behind_auth_ends_somewhere() -> None:
    reader = FtpReader()
    reader.receive(C, b"AUTH TLS\r\n")
    reader.receive(C, bytes(MAX_HELD_BYTES))
    assert reader.held_bytes == MAX_HELD_BYTES
    with pytest.raises(FtpError):
        reader.receive(C, b"x")


def test_a_last_line_without_an_end_is_read() -> None:
    reader = FtpReader()
    assert reader.receive(C, b"PORT 1,2,3,4,5,6") == []
    assert reader.end(C) == both(client(1286), "1.2.3.4")
    assert reader.end(S) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [(b"[2001:DB8::1]", "2001:db8::1"), (b"fe80::1%eth0", "fe80::1"), (b"192.0.2.1 ", "192.0.2.1"), (b"x", None)],
)
def test_an_address_has_one_spelling(text: bytes, address: str | None) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "name"), [(b"150 FILE: a.1\r", "a.1"), (b'150 File: "x y".', "x y"), (b"150 ok", None), (b"150 FILE:", None)]
)
def test_the_name_that_a_server_chose_is_read(text: bytes, name: str | None) -> None:
    assert unique_name(text) == name
