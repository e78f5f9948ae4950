"""SMTP: which bytes are messages, in every segmentation; where peers disagree, all readings are seen and it is said."""

from __future__ import annotations

import pytest

from mamori.inspect.findings import TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.mail_lines import MAX_EARLY_BYTES
from mamori.inspect.smtp import MAX_LINE_BYTES, MAX_WAITING, SmtpError, SmtpReader
from tests.support.mail_transcript import Recorder, Talk, Transcript, hear, join, read, talk

EARLY = "a message before the server asked for it"
LOOSE = "a line with a dot that ends the message for some receivers, and more after it"
WRONG_END = "a message that does not end in CRLF . CRLF"
NOT_OFFERED = "BDAT to a server that did not offer CHUNKING"
AFTER_STARTTLS = "bytes after STARTTLS before it was answered"

HELLO = rb"""
S: 220 mx.example ESMTP
C: EHLO a
S: 250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 STARTTLS
"""
START = (
    HELLO
    + rb"""
C: MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA
S: 250 ok\r\n250 ok\r\n354 go
"""
)


def heard(said: Talk) -> Transcript:
    return hear(lambda: SmtpReader(mail=Recorder), said, SmtpError)


MESSAGES = {
    "one by DATA": (START + rb"C: Subject: x\r\n\r\nhi\r\n.", [b"Subject: x\r\n\r\nhi\r\n"]),
    "stuffed dots": (START + rb"C: ..a\r\n...\r\na.b\r\n..\r\n.", [b".a\r\n..\r\na.b\r\n.\r\n"]),
    "an empty one": (START + rb"C: .", []),
    "two, pipelined": (
        START
        + rb"""
        C: one\r\n.\r\nMAIL FROM:<a@a>\r\nRCPT TO:<c@c>\r\nDATA
        S: 250 ok\r\n250 ok\r\n250 ok\r\n354 go
        C: two\r\n.\r\nQUIT
        S: 250 ok\r\n221 bye""",
        [b"one\r\n", b"two\r\n"],
    ),
    "by BDAT, with bytes that look like an end": (
        HELLO + rb"C: MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 5\r\n\r\n.\r\nbdat 3  last\r\nabc\c",
        [b"\r\n.\r\nabc"],
    ),
    "by BDAT, with an empty last chunk": (HELLO + rb"C: BDAT 3\r\nabcBDAT 0 LAST\r\nQUIT", [b"abc"]),
    "by BDAT, two messages": (HELLO + rb"C: BDAT 3 LAST\r\nabcMAIL FROM:<a@a>\r\nBDAT 2 LAST\r\nde\c", [b"abc", b"de"]),
    "DATA refused, then commands": (
        HELLO
        + rb"""
        C: MAIL FROM:<a@a>\r\nDATA
        S: 250 ok\r\n503 no recipient
        C: RCPT TO:<b@b>\r\nDATA
        S: 250 ok\r\n354 go
        C: x\r\n.""",
        [b"x\r\n"],
    ),
    "in small letters, after blanks": (HELLO + b"C: \\tdata \nS: 354\nC: x\\r\\n.", [b"x\r\n"]),
    "a server without ESMTP": (
        rb"""
        S: 220-hello\r\n220 there
        C: EHLO a
        S: 500 what?
        C: HELO a
        S: 250 ok
        C: MAIL FROM:<a@a>
        S: 250 ok
        C: RCPT TO:<b@b>
        S: 250 ok
        C: DATA
        S: 354 go
        C: x\r\n.""",
        [b"x\r\n"],
    ),
    "after AUTH, whose secrets are no commands": (
        HELLO
        + rb"""
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: DATA
        S: 334 UGFzc3dvcmQ6
        C: QUIT
        S: 235 ok
        C: DATA
        S: 354 go
        C: x\r\n.""",
        [b"x\r\n"],
    ),
    "LMTP: an answer for each recipient": (
        rb"""
        S: 220 x
        C: LHLO a
        S: 250 CHUNKING
        C: MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nRCPT TO:<d@d>\r\nDATA
        S: 250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go
        C: x\r\n.\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA
        S: 250 ok\r\n452 full\r\n250 ok\r\n250 ok\r\n354 go
        C: y\r\n.""",
        [b"x\r\n", b"y\r\n"],
    ),
    "8 bits and NUL": (START + rb"C: \xff\x00\r\n\x00\r\n.", [b"\xff\0\r\n\0\r\n"]),
    "a second hello after STARTTLS was refused": (
        HELLO
        + rb"""
        C: STARTTLS
        S: 454 not now
        C: DATA
        S: 354 go
        C: x\r\n.""",
        [b"x\r\n"],
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_client_sends_these_messages(case: str) -> None:
    dialogue, messages = MESSAGES[case]
    said = heard(talk(dialogue))
    assert said.messages == messages
    assert all(file.is_complete for file in said.files)
    assert (said.anomalies, said.error, said.tls) == ([], None, None)


def test_a_messages_bytes_are_where_they_were_in_the_stream() -> None:
    dialogue = join(talk(START + rb"C: ..a\r\n..b\r\n."))
    at = sum(len(data) for direction, data in dialogue[:-1] if direction == ORIGINATOR)
    assert heard(dialogue).files[0].spans == [(at + 1, at + 5), (at + 6, at + 10)]


BROKEN = {
    "the connection ends": START + rb"C: x",
    "within BDAT": HELLO + rb"C: BDAT 10 LAST\r\nx",
    "RSET between chunks": HELLO + rb"C: BDAT 3\r\nx\r\nRSET",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_message_that_breaks_off_is_not_complete(case: str) -> None:
    said = heard(talk(BROKEN[case]))
    assert [(file.data, file.is_complete) for file in said.files] == [(b"x\r\n", False)]


EVASIONS = {
    "a message without waiting, wanted": (
        HELLO + rb"C: DATA\r\nx\r\n.\r\nNOOP" + b"\n" + rb"S: 354 go\r\n250 ok\r\n250 ok",
        [b"x\r\n"],
        [EARLY],
    ),
    "a message without waiting, refused, which holds another": (
        HELLO + rb"C: DATA\r\nNOOP\r\nDATA" + b"\n" + rb"S: 503 no\r\n250 ok\r\n354 go" + b"\n" + rb"C: y\r\n.",
        [b"NOOP\r\nDATA\r\n", b"y\r\n"],
        [EARLY],
    ),
    "commands in a chunk for a server without CHUNKING": (
        rb"""
        S: 220 x
        C: HELO a
        S: 250 ok
        C: BDAT 100 LAST\r\nDATA
        S: 502 unknown\r\n354 go
        C: y\r\n.""",
        [b"DATA\r\n", b"y\r\n"],
        [NOT_OFFERED],
    ),
    "a chunk for a server that did not say that it can": (
        b"S: 220 x\nC: BDAT 3 LAST\\r\\nabcDATA\nS: 250 ok\\r\\n354 go\nC: y\\r\\n.",
        [b"abc", b"y\r\n"],
        [NOT_OFFERED],
    ),
    "a chunk of strange size": (
        HELLO + rb"C: BDAT -1 LAST\r\nDATA" + b"\n" + rb"S: 501 what?\r\n354 go" + b"\n" + rb"C: y\r\n.",
        [b"y\r\n"],
        ["BDAT without a size that all servers read alike"],
    ),
    "a server that reads DATA where we do not": (
        HELLO + b"C: XYZ\nS: 354 go" + b"\n" + rb"C: y\r\n.",
        [b"y\r\n"],
        ["the server asks for a message that the client did not announce"],
    ),
    "a dot after a bare LF": (START + rb"C: a\n.b\n.c\r\n.", [b"a\nb\nc\r\n"], ["a dot begins a line after a bare LF"]),
    "an overlong command": (
        HELLO + b"C: NOOP " + b"x" * MAX_LINE_BYTES,
        [],
        [f"a command of more than {MAX_LINE_BYTES} bytes"],
    ),
    "an end that only the server saw": (
        START + b"C: x\nS: 250 ok\nC: DATA\nS: 354 go\nC: y\\r\\n.",
        [b"x\r\n", b"y\r\n"],
        ["the server saw the end of a message where there is none"],
    ),
}


@pytest.mark.parametrize("case", EVASIONS)
def test_what_peers_read_in_two_ways_is_seen_and_said(case: str) -> None:
    dialogue, messages, evasions = EVASIONS[case]
    said = heard(talk(dialogue))
    assert (said.messages, said.evasions, said.error) == (messages, evasions, None)


@pytest.mark.parametrize("end", [rb"\n.\n", rb"\n.\r\n", rb"\r\n.\n", rb"\r.\r", rb"\r\n.\r", rb"\r\n\x00.\r\n", rb"\r\n.\r\r\n"])
def test_a_smuggled_message_is_read_too(end: bytes) -> None:
    said = heard(talk(START + b"C: first" + end + rb"MAIL FROM:<x@x>\r\nRCPT TO:<b@b>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT"))
    first, smuggled = said.files
    assert first.data.startswith(b"first")
    assert first.data.endswith(b"DATA\r\nsmuggled\r\n")
    assert smuggled.data == b"smuggled\r\n"
    assert (first.is_complete, smuggled.is_complete) == (True, True)
    assert said.evasions == [LOOSE]


def test_two_smuggled_messages_are_read() -> None:
    said = heard(talk(START + rb"C: first\n.\nDATA\none\n.\r\nDATA\ntwo\n.\nNOOP\r\n."))
    assert said.messages[1:] == [b"one\n", b"two\n"]
    assert said.evasions == [LOOSE]


def test_a_client_with_the_wrong_line_ends_is_no_evasion() -> None:
    dialogue = rb"""
        S: 220 x
        C: HELO a\n\c
        S: 250 ok
        C: DATA\n\c
        S: 354 go
        C: a\n.\n\c
        S: 250 ok
        C: DATA\n\c
        S: 354 go
        C: b\n.\n\c
        S: 250 ok"""
    said = heard(talk(dialogue))
    assert said.messages == [b"a\n\n", b"b\n\n"]  # the last one of the dot's line
    assert (said.evasions, said.oddities) == ([], [WRONG_END] * 2)
    assert all(file.is_complete for file in said.files)


def test_a_server_that_takes_the_smuggled_message_is_followed() -> None:
    said = heard(
        talk(START + b"C: a\\n.\\nDATA\\nb\\c\nS: 250 ok\\r\\n354 go\nC: c\\n.\\n\\c\nS: 250 ok\nC: DATA\nS: 354\nC: d\\r\\n.")
    )
    assert said.messages == [b"a\n\nDATA\nb", b"bc\n", b"d\r\n"]
    assert said.evasions == [LOOSE]


def offsets(dialogue: Talk) -> tuple[int, int]:
    client, server = (sum(len(data) for side, data in dialogue if side == which) for which in (ORIGINATOR, RESPONDER))
    return client, server


def test_after_starttls_comes_tls() -> None:
    dialogue = talk(HELLO + b"C: STARTTLS\nS: 220 go")
    said = heard([*dialogue, (ORIGINATOR, b"\x16\x03\x01DATA\r\n"), (RESPONDER, b"\x16\x03\x03354\r\n")])
    assert said.tls == TlsBegins(offsets(dialogue))
    assert (said.messages, said.anomalies, said.error) == ([], [], None)


def test_offsets_count_from_where_the_streams_began() -> None:
    dialogue = talk(HELLO + b"C: STARTTLS\nS: 220 go")
    client, server = offsets(dialogue)
    assert read(lambda: SmtpReader((100, 7), mail=Recorder), dialogue, SmtpError).tls == TlsBegins((100 + client, 7 + server))


def test_commands_pipelined_after_starttls_are_told() -> None:
    before, after = talk(HELLO + b"C: STARTTLS"), talk(b"C: RSET\nS: 220 go")
    said = heard([*before, *after])
    assert said.tls == TlsBegins((offsets(before)[0], offsets([*before, *after])[1]))
    assert said.evasions == [AFTER_STARTTLS]


def test_commands_pipelined_after_a_refused_starttls_are_commands() -> None:
    said = heard(talk(HELLO + b"C: STARTTLS\\r\\nDATA\nS: 454 no\\r\\n354 go\nC: x\\r\\n."))
    assert (said.messages, said.evasions, said.tls) == ([b"x\r\n"], [AFTER_STARTTLS], None)


def test_answers_are_counted_through_messages_that_were_not_waited_for() -> None:
    early = rb"C: DATA\r\none\r\n.\r\nDATA\r\ntwo\r\n.\r\nDATA\r\nNOOP\r\nDATA"
    answers = rb"S: 354 go\r\n250 ok\r\n354 go\r\n250 ok\r\n503 no\r\n250 ok\r\n354 go"
    said = heard(talk(HELLO + early + b"\n" + answers + b"\n" + rb"C: three\r\n."))
    assert said.messages == [b"one\r\n", b"two\r\n", b"NOOP\r\nDATA\r\n", b"three\r\n"]
    assert set(said.evasions) == {EARLY}


def test_an_answer_too_many_is_not_taken_for_that_to_data() -> None:
    said = heard(talk(HELLO + b"C: NOOP\\r\\nDATA\nS: 250 ok\\r\\n250 ok\\r\\n354 go\nC: x\\r\\n."))
    assert (said.messages, said.anomalies) == ([b"x\r\n"], [])


def test_what_was_read_in_the_wrong_way_waits_for_no_answer() -> None:
    dialogue = talk(HELLO + b"C: DATA\\r\\nx\\r\\n.\\r\\nRSET\nS: 503 no\\r\\n500\\r\\n500\\r\\n250 ok\nC: STARTTLS\nS: 220 go")
    assert heard(dialogue).tls == TlsBegins(offsets(dialogue))


def test_lmtp_answers_are_counted_by_recipients() -> None:
    sent = rb"C: LHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nDATA"
    answers = rb"S: 250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go"
    end = b"C: x\\r\\n.\\r\\nRSET\\r\\nSTARTTLS\nS: 250 b\\r\\n250 c\\r\\n250 ok\\r\\n220 go"
    dialogue = talk(b"S: 220 x\n" + sent + b"\n" + answers + b"\n" + end)
    assert heard(dialogue).tls == TlsBegins(offsets(dialogue))


def test_a_server_that_goes_on_in_clear_text_after_starttls_is_told() -> None:
    said = heard(talk(HELLO + b"C: STARTTLS\nS: 220 go\\r\\n250 injected"))
    assert said.evasions == ["the server sends more after its answer to STARTTLS, before the client began with TLS"]


def test_what_is_no_smtp_is_the_one_error() -> None:
    assert heard([(RESPONDER, b"HTTP/1.1 200 OK\r\n")]).error == "the server does not greet with a code"


def test_too_many_early_bytes_are_an_error_only_if_they_are_refused() -> None:
    dialogue = [*talk(HELLO), (ORIGINATOR, b"DATA\r\n" + b"x" * (MAX_EARLY_BYTES + 1) + b"\r\n.\r\n")]
    for answer, error in ((b"354 go\r\n", None), (b"503 no\r\n", "the client did not wait for an answer, and it was no")):
        said = read(lambda: SmtpReader(mail=Recorder), [*dialogue, (RESPONDER, answer)], SmtpError)
        assert (said.error, said.messages) == (error, [b"x" * (MAX_EARLY_BYTES + 1) + b"\r\n"])


def test_a_flood_of_commands_is_bounded() -> None:
    reader = SmtpReader(mail=Recorder)
    reader.receive(ORIGINATOR, b"NOOP\r\n" * MAX_WAITING)
    with pytest.raises(SmtpError, match="commands without an answer"):
        reader.receive(ORIGINATOR, b"NOOP\r\n")
