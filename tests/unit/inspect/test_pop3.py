"""POP3: which bytes are messages, in every segmentation; where peers disagree, all readings are seen and it is said."""

from __future__ import annotations

import pytest

from mamori.inspect.findings import TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.pop3 import MAX_WAITING, Pop3Error, Pop3Reader
from tests.support.mail_transcript import Recorder, Talk, Transcript, hear, talk

LOOSE = "a line with a dot that ends the message for some receivers, and more after it"
WRONG_END = "a message that does not end in CRLF . CRLF"
UNEXPECTED = "the server sends text where the answer to a command should be"
HELLO = b"S: +OK POP3\nC: USER a\nS: +OK\nC: PASS DATA\nS: +OK\n"


def heard(said: Talk) -> Transcript:
    return hear(lambda: Pop3Reader(mail=Recorder), said, Pop3Error)


MESSAGES = {
    "RETR": (rb"C: RETR 1" + b"\n" + rb"S: +OK 5 octets\r\na\r\n..b\r\n.", [b"a\r\n.b\r\n"]),
    "an empty one": (rb"C: retr 1" + b"\n" + rb"S: +OK\r\n.", []),
    "all at once": (
        rb"C: STAT\r\nLIST\r\nUIDL 1\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nDELE 1\r\nQUIT"
        + b"\n"
        + rb"S: +OK 2 9\r\n+OK\r\n1 4\r\n2 5\r\n.\r\n+OK 1 x\r\n+OK\r\none\r\n.\r\n-ERR gone\r\n+OK\r\n+OK\r\n.\r\n+OK\r\n+OK",
        [b"one\r\n", b"+OK\r\n"],
    ),
    "after lists": (
        rb"C: CAPA\r\nUIDL\r\nLIST\r\nAUTH\r\nLANG" + b"\n"
        rb"S: +OK\r\nTOP\r\n.\r\n+OK\r\n1 x\r\n.\r\n-ERR\r\n+OK\r\nPLAIN\r\n.\r\n+OK\r\nen\r\n." + b"\n"
        rb"C: RETR 1" + b"\n" + rb"S: +OK\r\nx\r\n.",
        [b"x\r\n"],
    ),
    "after AUTH, in steps": (
        b"C: AUTH LOGIN\nS: + VXNlcm5hbWU6\nC: RETR\nS: + UGFzc3dvcmQ6\nC: TOP\nS: +OK\nC: RETR 1\nS: +OK\\r\\nx\\r\\n.",
        [b"x\r\n"],
    ),
    "after AUTH that was not waited for": (
        b"C: AUTH PLAIN\\r\\nAGEAYg==\nS: + \\r\\n+OK\nC: RETR 1\nS: +OK\\r\\nx\\r\\n.",
        [b"x\r\n"],
    ),
    "after a refused STLS": (b"C: STLS\nS: -ERR no\nC: RETR 1\nS: +OK\\r\\nx\\r\\n.", [b"x\r\n"]),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_server_gives_these_messages(case: str) -> None:
    dialogue, messages = MESSAGES[case]
    said = heard(talk(HELLO + dialogue))
    assert said.messages == messages
    assert all(file.is_complete for file in said.files)
    assert (said.anomalies, said.error, said.tls) == ([], None, None)


def test_a_messages_bytes_are_where_they_were_in_the_stream() -> None:
    before = talk(HELLO + b"C: RETR 1\nS: +OK")
    at = sum(len(data) for direction, data in before if direction == RESPONDER)
    assert heard([*before, *talk(rb"S: ..a\r\n.")]).files[0].spans == [(at + 1, at + 5)]


def test_the_top_of_a_message_is_not_complete() -> None:
    (file,) = heard(talk(HELLO + b"C: TOP 1 5\nS: +OK\\r\\nx\\r\\n.")).files
    assert (file.data, file.is_complete) == (b"x\r\n", False)


def test_a_message_that_breaks_off_is_not_complete() -> None:
    (file,) = heard(talk(HELLO + b"C: RETR 1\nS: +OK\\r\\nx")).files
    assert (file.data, file.is_complete) == (b"x\r\n", False)


@pytest.mark.parametrize("end", [rb"\n.\n", rb"\n.\r\n", rb"\r\n.\n", rb"\r\n.\r", rb"\r\n\x00.\r\n"])
def test_an_answer_behind_a_loose_end_is_read_too(end: bytes) -> None:
    said = heard(talk(HELLO + b"C: RETR 1\\r\\nRETR 2\nS: +OK\\r\\nfirst" + end + rb"+OK\r\nsecond\r\n.\r\n+OK\r\nthird\r\n."))
    assert said.messages[0].endswith(b"+OK\r\nsecond\r\n")
    assert said.messages[1:] == [b"second\r\n", b"third\r\n"]
    assert said.evasions == [LOOSE]


def test_a_server_with_the_wrong_line_ends_is_no_evasion() -> None:
    ask = rb"""
        C: RETR 1
        S: +OK\na\n.\n\c
        """
    said = heard(talk(HELLO + ask * 2 + b"C: QUIT\nS: +OK"))
    assert said.messages == [b"a\n\n"] * 2
    assert (said.evasions, said.oddities) == ([], [WRONG_END] * 2)


def test_a_dot_after_a_bare_lf_is_told() -> None:
    said = heard(talk(HELLO + rb"C: RETR 1" + b"\n" + rb"S: +OK\r\na\n.b\r\n."))
    assert (said.messages, said.evasions) == ([b"a\nb\r\n"], ["a dot begins a line after a bare LF"])


def test_text_where_a_line_was_expected_is_read_as_a_message() -> None:
    said = heard(talk(HELLO + rb"C: XTRA\r\nRETR 1" + b"\n" + rb"S: +OK\r\nhidden\r\n.\r\n+OK\r\nx\r\n."))
    assert (said.messages, said.evasions) == ([b"hidden\r\n", b"x\r\n"], [UNEXPECTED])


def test_one_line_too_many_hides_nothing() -> None:
    said = heard(talk(HELLO + b"C: NOOP\nS: +OK\\r\\nby the way\nC: RETR 1\nS: +OK\\r\\nx\\r\\n."))
    assert (said.messages, said.evasions) == ([b"by the way\r\n", b"x\r\n"], [UNEXPECTED])


def offsets(dialogue: Talk) -> tuple[int, int]:
    client, server = (sum(len(data) for side, data in dialogue if side == which) for which in (ORIGINATOR, RESPONDER))
    return client, server


def test_after_stls_comes_tls() -> None:
    dialogue = talk(b"S: +OK\nC: STLS\nS: +OK")
    said = heard([*dialogue, (ORIGINATOR, b"\x16\x03\x01RETR 1\r\n"), (RESPONDER, b"\x16\x03\x03+OK\r\nx\r\n.\r\n")])
    assert said.tls == TlsBegins(offsets(dialogue))
    assert (said.messages, said.anomalies, said.error) == ([], [], None)


def test_commands_pipelined_after_stls_are_told_and_if_refused_are_commands() -> None:
    before = talk(b"S: +OK\nC: STLS")
    accepted = [*before, *talk(b"C: RETR 1\nS: +OK")]
    told = ["bytes after STLS before it was answered"]
    said = heard(accepted)
    assert (said.tls, said.evasions) == (TlsBegins((offsets(before)[0], offsets(accepted)[1])), told)
    said = heard([*before, *talk(b"C: RETR 1\nS: -ERR\\r\\n+OK\\r\\nx\\r\\n.")])
    assert (said.tls, said.evasions, said.messages) == (None, told, [b"x\r\n"])


def test_a_server_that_goes_on_in_clear_text_after_stls_is_told() -> None:
    said = heard(talk(b"S: +OK\nC: STLS\nS: +OK\\r\\n+OK injected"))
    assert said.evasions == ["the server sends more after its answer to STLS, before the client began with TLS"]


def test_what_is_no_pop3_is_the_one_error() -> None:
    assert heard([(RESPONDER, b"220 smtp\r\n")]).error == "the server does not greet with +OK or -ERR"


def test_a_flood_of_commands_is_bounded() -> None:
    reader = Pop3Reader(mail=Recorder)
    reader.receive(ORIGINATOR, b"NOOP\r\n" * MAX_WAITING)
    with pytest.raises(Pop3Error, match="commands without an answer"):
        reader.receive(ORIGINATOR, b"NOOP\r\n")
