"""IMAP: which bytes are messages and parts, and how a part is read, in every segmentation."""

from __future__ import annotations

import zlib
from base64 import encodebytes

import pytest

from mamori.inspect.findings import Coding, TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.imap import ImapError, ImapReader
from mamori.inspect.imap_structure import find_structure
from tests.support.mail_transcript import Recorder, Talk, Transcript, byte_by_byte, hear, join, read, talk

HELLO = b"S: * OK IMAP\nC: a LOGIN x y\nS: a OK\n"
EVIL = bytes(range(256)) * 8
BASE64 = encodebytes(EVIL).replace(b"\n", b"\r\n")
STRUCTURE = (
    b'(("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 3 1 NIL NIL NIL NIL)'
    b'("APPLICATION" "X-DOS" ("NAME" "a \\"b\\".exe") NIL NIL "BASE64" 99 NIL ("ATTACHMENT" ("FILENAME" "c.exe")) NIL NIL)'
    b' "MIXED" ("BOUNDARY" "xyz") NIL NIL NIL)'
)
HEADER_2 = (
    b'Content-Type: APPLICATION/X-DOS;\r\n\tNAME="a \\"b\\".exe"\r\nContent-Transfer-Encoding: BASE64\r\n'
    b'Content-Disposition: ATTACHMENT;\r\n\tFILENAME="c.exe"\r\n\r\n'
)
AS_BASE64 = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
AS_TEXT = b"Content-Type: text/plain\r\n\r\n"


def server(*parts: bytes) -> tuple[int, bytes]:
    return RESPONDER, b"".join(parts)


def client(*parts: bytes) -> tuple[int, bytes]:
    return ORIGINATOR, b"".join(parts)


def literal(data: bytes) -> bytes:
    return b"{%d}\r\n%s" % (len(data), data)


def fetched(*items: bytes, mail: int = 1) -> tuple[int, bytes]:
    return server(b"* %d FETCH (" % mail, b" ".join(items), b")\r\n")


def heard(said: Talk, mail: type = Recorder) -> Transcript:
    return hear(lambda: ImapReader(mail=mail), said, ImapError, cuttings=10)


DOWN = {
    "BODY[]": ([fetched(b"UID 7 BODY[] " + literal(b"a\r\n)\r\n") + b" FLAGS (\\Seen)")], [b"a\r\n)\r\n"]),
    "RFC822": ([fetched(b"RFC822 " + literal(b"a"))], [b"a"]),
    "BINARY[]": ([fetched(b"BINARY[] ~" + literal(b"\0"))], [b"\0"]),
    "an empty one": ([fetched(b"BODY[] {0}\r\n")], []),
    "NIL": ([fetched(b"BODY[] NIL")], []),
    "in small letters": ([server(b"* 1 fetch (body[] ", literal(b"a"), b")\r\n")], [b"a"]),
    "with LF": ([server(b"* 1 FETCH (BODY[] {1}\na)\n")], [b"a"]),
    "two in one response": ([fetched(b"BODY[] " + literal(b"a"), b"BODY[TEXT] " + literal(b"b"))], [b"a", AS_TEXT + b"b"]),
    "two responses": ([fetched(b"BODY[] " + literal(b"a")), fetched(b"BODY[] " + literal(b"b"), mail=2)], [b"a", b"b"]),
    "UIDFETCH": ([server(b"* 1 UIDFETCH (BODY[] ", literal(b"a"), b")\r\n")], [b"a"]),
    "a header": ([fetched(b"BODY[HEADER] " + literal(b"a: b\r\n\r\n"), b"BODY[HEADER.FIELDS (A B)] " + literal(b"a"))], []),
    "a subject in a literal": ([fetched(b"ENVELOPE (NIL " + literal(b"BODY[] x") + b")", b"BODY[] " + literal(b"a"))], [b"a"]),
    "a quoted string": ([fetched(b'BODY[] "a\\"b\\\\c"', b'FLAGS ("x")')], [b'a"b\\c']),
    "a name that looks like a literal": ([server(b'* LIST () "/" "{3}"\r\n'), fetched(b"BODY[] " + literal(b"a"))], [b"a"]),
    "a name in a literal": ([server(b"* LIST () NIL ", literal(b"BODY[]"), b"\r\n"), fetched(b"BODY[] " + literal(b"a"))], [b"a"]),
    "a long literal of another item": (
        [fetched(b"X-RAW " + literal(b"Subject: x\r\n" * 400))],
        [b"Content-Type: message/rfc822\r\n\r\n" + b"Subject: x\r\n" * 400],
    ),
}


@pytest.mark.parametrize("case", DOWN)
def test_a_server_gives_these(case: str) -> None:
    said, messages = DOWN[case]
    transcript = heard([*talk(HELLO), *said])
    assert transcript.messages == messages
    assert all(file.is_complete for file in transcript.files)
    assert (transcript.anomalies, transcript.error) == ([], None)


UP = {
    "APPEND": ([client(b"b APPEND INBOX (\\Seen) {3}\r\n"), server(b"+ go\r\n"), client(b"a\r\n\r\n")], [b"a\r\n"]),
    "without waiting": ([client(b"b append x {1+}\r\na\r\nc NOOP\r\n")], [b"a"]),
    "literal8": ([client(b"b APPEND x UTF8 (~{1+}\r\na)\r\n")], [b"a"]),
    "the mailbox too": ([client(b"b APPEND {5+}\r\nINBOX {1+}\r\na\r\n")], [b"a"]),
    "two": ([client(b"b APPEND x {1+}\r\na () {1+}\r\nb\r\n")], [b"a", b"b"]),
    "CATENATE": ([client(b'b APPEND x CATENATE (URL "/x" TEXT {1+}\r\na TEXT {1+}\r\nb)\r\n')], [b"a", b"b"]),
    "REPLACE": ([client(b"b UID REPLACE 4 Drafts {1+}\r\na\r\n")], [b"a"]),
    "LOGIN is none": ([client(b"b LOGIN {1+}\r\na {1+}\r\nb\r\n")], []),
    "after a login in steps": (
        [
            client(b"b AUTHENTICATE PLAIN\r\n"),
            server(b"+ \r\n"),
            client(b"AGEAYg==\r\n"),
            server(b"b OK\r\n"),
            client(b"c APPEND x {1}\r\n"),
            server(b"+ \r\n"),
            client(b"a\r\n"),
        ],
        [b"a"],
    ),
    "refused": (
        [
            client(b"b APPEND x {9}\r\n"),
            server(b"b NO full\r\n"),
            client(b"c APPEND x {1}\r\n"),
            server(b"+ \r\n"),
            client(b"a\r\n"),
        ],
        [b"a"],
    ),
    "IDLE between": (
        [
            client(b"b IDLE\r\n"),
            server(b"+ idling\r\n* 2 EXISTS\r\n"),
            client(b"DONE\r\nc APPEND x {1}\r\n"),
            server(b"b OK\r\n+ \r\n"),
            client(b"a\r\n"),
        ],
        [b"a"],
    ),
}


@pytest.mark.parametrize("case", UP)
def test_a_client_gives_these(case: str) -> None:
    said, messages = UP[case]
    transcript = heard([*talk(HELLO), *said])
    assert transcript.messages == messages
    assert all(file.is_complete for file in transcript.files)
    assert (transcript.anomalies, transcript.error) == ([], None)


def test_a_messages_bytes_are_where_they_were_in_the_stream() -> None:
    before = b"* OK\r\n* 1 FETCH (BODY[] "
    assert heard([server(before, literal(b"abc"), b")\r\n")]).files[0].spans == [(len(before) + 5, len(before) + 8)]


def test_a_literal_that_breaks_off_is_not_complete() -> None:
    transcript = heard([*talk(HELLO), client(b"b APPEND x {5+}\r\nabc"), server(b"* 1 FETCH (BODY[] {9}\r\nde")])
    assert [(file.data, file.is_complete) for file in transcript.files] == [(b"abc", False), (b"de", False)]


# ---- parts

PARTS = {
    "by the structure": ([fetched(b"BODYSTRUCTURE " + STRUCTURE), fetched(b"BODY[2] " + literal(BASE64))], HEADER_2),
    "by the structure in the same response": ([fetched(b"BODY " + STRUCTURE, b"BODY[2] " + literal(BASE64))], HEADER_2),
    "by the structure with a literal inside": (
        [fetched(b"BODYSTRUCTURE " + STRUCTURE.replace(b'"c.exe"', literal(b"c.exe"))), fetched(b"BODY[2] " + literal(BASE64))],
        HEADER_2,
    ),
    "by its header": (
        [
            fetched(b"BODY[2.MIME] " + literal(b"Content-Type: a/b\r\nX: y\r\nContent-Transfer-Encoding:\r\n base64\r\n\r\n")),
            fetched(b"BODY[2] " + literal(BASE64)),
        ],
        b"Content-Type: a/b\r\nContent-Transfer-Encoding:\r\n base64\r\n\r\n",
    ),
    "by its look": ([fetched(b"BODY[2] " + literal(BASE64))], AS_BASE64),
    "by its look, since mails have new numbers": (
        [fetched(b"BODYSTRUCTURE " + STRUCTURE), server(b"* 1 EXPUNGE\r\n"), fetched(b"BODY[2] " + literal(BASE64))],
        AS_BASE64,
    ),
    "by its look, since the mailbox is another": (
        [fetched(b"BODYSTRUCTURE " + STRUCTURE), client(b"b SELECT x\r\n"), fetched(b"BODY[2] " + literal(BASE64))],
        AS_BASE64,
    ),
    "the text by the mail's header": (
        [
            fetched(
                b"BODY[HEADER] " + literal(b"Subject: s\r\nContent-Type: multipart/x; boundary=xyz\r\n\r\n"),
                b"BODY[TEXT] " + literal(b"--xyz"),
            )
        ],
        b"Subject: s\r\nContent-Type: multipart/x; boundary=xyz\r\n\r\n",
    ),
    "the text by the structure": (
        [fetched(b"BODYSTRUCTURE " + STRUCTURE), fetched(b"RFC822.TEXT " + literal(b"--xyz"))],
        b'Content-Type: multipart/MIXED;\r\n\tBOUNDARY="xyz"\r\n\r\n',
    ),
    "the text by its look": (
        [fetched(b"BODY[TEXT] " + literal(b"Multipart:\r\n\r\n--xyz\r\nContent-Type: a/b\r\n\r\nx"))],
        b'Content-Type: multipart/mixed; boundary="xyz"\r\n\r\n',
    ),
    "decoded by the server": (
        [fetched(b"BODYSTRUCTURE " + STRUCTURE), fetched(b"BINARY[2] ~" + literal(EVIL))],
        HEADER_2.replace(b"Content-Transfer-Encoding: BASE64\r\n", b"").replace(
            b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        ),
    ),
    "quoted-printable by its look": (
        [fetched(b"BODY[1] " + literal(b"a=\r\nb=3D"))],
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
    ),
    "bytes by their look": (
        [fetched(b"BODY[1] " + literal(b"MZ\0\1"))],
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n",
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_is_read_with_the_header_that_it_has(case: str) -> None:
    said, header = PARTS[case]
    (file,) = heard([*talk(HELLO), *said]).files
    assert file.data.startswith(header)
    assert file.data[len(header) :] in said[-1][1]
    assert file.data[len(header) :]
    assert file.is_complete


def test_a_parts_file_is_decoded() -> None:
    reader = read(
        ImapReader, [*talk(HELLO), fetched(b"BODYSTRUCTURE " + STRUCTURE), fetched(b"BODY[2] " + literal(BASE64))], ImapError
    )
    (file,) = reader.files
    assert (file.data, file.name, file.is_complete, file.codings) == (EVIL, "c.exe", True, {Coding.BASE64})


def test_a_mail_inside_a_mail_has_parts_of_its_own() -> None:
    inner = b'("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 9 (NIL) %s 5 NIL NIL NIL NIL)'
    single = b'("TEXT" "PLAIN" NIL NIL NIL "BASE64" 3 1)'
    headers = find_structure(b"* 1 FETCH (BODYSTRUCTURE (" + inner % STRUCTURE + inner % single + b' "MIXED"))')
    assert sorted(headers) == [b"1.1.MIME", b"1.2.MIME", b"1.HEADER", b"1.MIME", b"2.1.MIME", b"2.HEADER", b"2.MIME", b"HEADER"]
    assert headers[b"1.2.MIME"] == HEADER_2
    assert b"BASE64" in headers[b"2.1.MIME"]


@pytest.mark.parametrize("text", [b"(" * 60 + b")" * 60, b'("a', b"(", b"((((", b'("TEXT")', b"()", b"(())"])
def test_a_structure_that_is_none_gives_nothing_or_little(text: bytes) -> None:
    assert len(find_structure(b"* 1 FETCH (BODYSTRUCTURE " + text)) <= 2


# ---- pieces


def pieces(data: bytes, size: int, item: bytes = b"BODY[]") -> list[tuple[int, bytes]]:
    said = []
    for at in range(0, len(data), size):
        said.append(client(b"f FETCH 1 %s<%d.%d>\r\n" % (item, at, size)))
        said.append(fetched(item + b"<%d> " % at + literal(data[at : at + size])))
        said.append(server(b"f OK\r\n"))
    return said


def test_pieces_that_follow_one_another_are_one_mail() -> None:
    mail = bytes(range(65, 91)) * 10
    (file,) = heard([*talk(HELLO), *pieces(mail, 100)]).files
    assert (file.data, file.is_complete) == (mail, True)


def test_pieces_end_with_the_mail_whose_size_was_told() -> None:
    said = [*talk(HELLO), fetched(b"RFC822.SIZE 200"), *pieces(b"a" * 200, 100)]
    reader, files = ImapReader(mail=Recorder), 0
    for direction, data in said:
        files += sum(getattr(finding, "is_complete", False) for finding in reader.receive(direction, data))
    assert files == 1


def test_pieces_that_do_not_go_on_are_files_of_their_own() -> None:
    mail = BASE64[:1600]
    said = [
        fetched(b"BODY[2]<%d> " % at + literal(mail[at : at + 400])) for at in (0, 400, 1001)
    ]  # the last one in the middle of a quantum
    first, second = read(ImapReader, [*talk(HELLO), *said], ImapError).files
    whole = EVIL[: 800 // 78 * 57]
    assert first.data.startswith(whole)
    assert not first.is_complete
    assert second.data in EVIL  # from its second line on
    assert len(second.data) >= 200
    assert not second.is_complete


def test_pieces_of_too_many_mails_are_ended() -> None:
    said = [fetched(b"BODY[]<0> " + literal(b"a"), mail=number) for number in range(1, 100)]
    assert len(heard([*talk(HELLO), *said]).files) == 99
    reader = ImapReader(mail=Recorder)
    reader.receive(RESPONDER, b"".join(data for _, data in [*talk(b"S: * OK"), *said]))
    assert len(reader.end(RESPONDER)) <= 8


# ---- what peers read in two ways

EVASIONS = {
    "a status like a literal": (
        [server(b"* OK see {99}\r\n"), fetched(b"BODY[] " + literal(b"a"))],
        [b"a"],
        "a status that ends like the announcement of a literal",
    ),
    "a literal without waiting, wanted": (
        [client(b"b APPEND x {1}\r\na\r\n"), server(b"+ \r\n")],
        [b"a"],
        "bytes after a literal before the server answered",
    ),
    "a literal without waiting, refused": (
        [client(b"b APPEND x {20}\r\nc APPEND x {1+}\r\ny\r\n\r\n"), server(b"b NO\r\n")],
        [b"c APPEND x {1+}\r\ny\r\n", b"y"],
        "bytes after a literal before the server answered",
    ),
    "a command behind STARTTLS that is refused": (
        [client(b"b STARTTLS\r\nc APPEND x {1+}\r\ny\r\n"), server(b"b NO\r\n")],
        [b"y"],
        "bytes after STARTTLS before the server answered",
    ),
}


@pytest.mark.parametrize("case", EVASIONS)
def test_what_peers_read_in_two_ways_is_seen_and_said(case: str) -> None:
    said, messages, text = EVASIONS[case]
    transcript = heard([*talk(HELLO), *said])
    assert (transcript.messages, transcript.evasions, transcript.error) == (messages, [text], None)


def test_after_starttls_comes_tls() -> None:
    said = [*talk(b"S: * OK"), client(b"b STARTTLS\r\n"), server(b"* CAPABILITY x\r\nb OK go\r\n")]
    hello, answer = client(b"\x16\x03\x01b APPEND x {1+}\r\na\r\n"), server(b"\x16* 1 FETCH (BODY[] {1}\r\na)\r\n")
    transcript = heard([*said, hello, answer])
    assert transcript.tls == TlsBegins((len(said[1][1]), len(said[0][1]) + len(said[2][1])))
    assert (transcript.messages, transcript.anomalies) == ([], [])
    assert heard([*said, server(b"x")]).evasions == [
        "the server sends more after its answer to STARTTLS, before the client began with TLS"
    ]


def test_what_is_no_imap_is_the_one_error() -> None:
    assert heard([server(b"HTTP/1.1 200\r\n")]).error == "the server does not greet with * OK"


# ---- COMPRESS


class Deflate:
    def __init__(self) -> None:
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, -15)

    def __call__(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def compressed(*after: tuple[int, bytes]) -> list[tuple[int, bytes]]:
    packers = (Deflate(), Deflate())
    agreed = [client(b"z COMPRESS DEFLATE\r\n"), server(b"z OK\r\n")]
    return [*talk(HELLO), *agreed, *((direction, packers[direction](data)) for direction, data in after)]


def files_of(said: Talk) -> list[tuple[bytes, bool | None, set[Coding]]]:
    """Without ranges, which are those of the segments."""
    found = read(lambda: ImapReader(mail=Recorder), said, ImapError)
    assert found.error is None
    return [(file.data, file.is_complete, file.codings) for file in found.files]


def test_both_sides_are_inflated() -> None:
    said = compressed(
        client(b"b APPEND x {1}\r\n"),
        server(b"+ \r\n"),
        client(b"a\r\n"),
        server(b"b OK\r\n"),
        fetched(b"BODY[] " + literal(EVIL * 50)),
    )
    expected = [(b"a", True, {Coding.COMPRESSED}), (EVIL * 50, True, {Coding.COMPRESSED})]
    assert files_of(join(said)) == files_of(byte_by_byte(said)) == expected


def test_a_file_lies_in_the_deflated_segments() -> None:
    said = compressed(fetched(b"BODY[] " + literal(b"abc")))
    before = sum(len(data) for direction, data in said[:-1] if direction == RESPONDER)
    found = read(lambda: ImapReader(mail=Recorder), said, ImapError)
    assert found.files[0].spans == [(before, before + len(said[-1][1]))]


def test_a_server_that_deflates_at_once_is_read() -> None:
    assert files_of(join(compressed(fetched(b"BODY[] " + literal(b"abc"))))) == [(b"abc", True, {Coding.COMPRESSED})]


@pytest.mark.parametrize(("stream", "trouble"), [(b"\xff" * 9, "not deflated as agreed"), (b"\3\0", "more comes after the end")])
def test_what_cannot_be_inflated_is_opaque(stream: bytes, trouble: str) -> None:
    said = [*compressed(server(b"* 1 FETCH (BODY[] {99}\r\nabc")), server(stream), server(b"more")]
    found = read(lambda: ImapReader(mail=Recorder), said, ImapError)
    assert [(file.data[:3], file.is_complete) for file in found.files] == [(b"abc", False)]
    assert (found.evasions, found.opaque) == ([f"compressed IMAP: {trouble}"], "imap")


def test_the_end_of_the_deflated_stream_is_no_evasion() -> None:
    """Dovecot's last bytes, after LOGOUT."""
    found = read(lambda: ImapReader(mail=Recorder), [*compressed(server(b"* BYE\r\n")), server(b"\3\0")], ImapError)
    assert (found.anomalies, found.opaque, found.error) == ([], None, None)


def test_a_text_that_is_read_by_its_look_is_no_evasion() -> None:
    """The boundary is in it; a header made up without one would be an anomaly of its own."""
    text = b'--a"b\r\nContent-Type: text/plain\r\n\r\nx\r\n--a"b--\r\n'
    found = read(ImapReader, [*talk(HELLO), fetched(b"BODY[TEXT] " + literal(text))], ImapError)
    assert ([file.data.strip() for file in found.files], found.anomalies) == ([b"x"], [])


def test_a_bomb_is_opaque() -> None:
    said = compressed(server(b"* 1 FETCH (BODY[] {99999999}\r\n", b"\0" * 20_000_000))
    found = read(lambda: ImapReader(mail=Recorder), said, ImapError)
    assert (found.evasions, found.opaque) == (["compressed IMAP: it inflates beyond reason"], "imap")
    assert len(found.files[0].data) < 5_000_000
