"""Whatever two hosts send: every packet gets one verdict, nothing raises, nothing is left behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support import packets
from tests.support.conversation import CLIENT, MARKER, SERVER, Network

POLICIES = (
    "",
    '[block]\nnames = ["example.com"]\n',
    '[virus]\nmode = "log"\n[evasion]\nmode = "log"\n',
    '[virus]\nunseen = "block"\nhold_ms = 100\n',
    '[virus]\nmode = "off"\n',
)
SAYINGS = (
    b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 60\r\n\r\n--b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + MARKER,
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"220 mail ESMTP\r\n",
    b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
    b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nRVZJTC1NQVJLRVI=\r\n.\r\n",
    b"STARTTLS\r\n",
    b"+OK ready\r\n",
    b"USER a\r\nPASS b\r\nRETR 1\r\n",
    b"+OK\r\nSubject: x\r\n\r\nbody\r\n.\r\n",
    b"* OK IMAP4rev1\r\n",
    b"a FETCH 1 BODY[]\r\n",
    b"* 1 FETCH (BODY[] {20}\r\nSubject: x\r\n\r\n" + MARKER + b")\r\na OK\r\n",
    b"220 (vsFTPd 3.0.3)\r\n",
    b"USER a\r\nPASV\r\nRETR x\r\n",
    b"227 Entering Passive Mode (198,51,100,2,195,203)\r\n",
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    b"SSH-2.0-x\r\n",
    b"\x00" * 40,
)
ATTACHMENT = SAYINGS[11]
SCRIPTS = (
    [(CLIENT, SAYINGS[0]), (SERVER, SAYINGS[4]), (CLIENT, SAYINGS[0]), (SERVER, SAYINGS[4])],
    [(CLIENT, SAYINGS[2]), (SERVER, SAYINGS[4])],
    [(SERVER, SAYINGS[8]), (CLIENT, SAYINGS[9]), (SERVER, SAYINGS[10]), (CLIENT, ATTACHMENT), (SERVER, b"250 ok\r\n")],
    [(SERVER, SAYINGS[13]), (CLIENT, b"RETR 1\r\n"), (SERVER, b"+OK\r\n" + ATTACHMENT), (CLIENT, b"QUIT\r\n")],
    [(SERVER, SAYINGS[16]), (CLIENT, SAYINGS[17]), (SERVER, SAYINGS[18])],
    [(SERVER, SAYINGS[19]), (CLIENT, SAYINGS[20]), (SERVER, SAYINGS[21])],
)
"""Conversations that reach files; fuzzing alone would hardly find the words."""

SIDES = st.sampled_from([CLIENT, SERVER])
BYTES = st.sampled_from(SAYINGS) | st.binary(max_size=60)
ACTIONS = st.one_of(
    st.tuples(st.just("say"), SIDES, BYTES, st.integers(1, 80), st.booleans()),
    st.tuples(st.just("segment"), SIDES, BYTES, st.integers(-5, 400), st.sampled_from([0, 1, 2, 4, 16, 17, 18, 20, 24, 48])),
    st.tuples(st.just("raw"), SIDES, st.binary(max_size=80), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("repeat"), SIDES, st.just(b""), st.just(0), st.just(False)),
    st.tuples(st.just("wait"), SIDES, st.just(b""), st.integers(0, 6000), st.just(False)),
    st.tuples(st.just("answer"), SIDES, st.just(b""), st.integers(0, 2), st.just(False)),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple]:
    """A script in random pieces, with anything between its lines; or anything."""
    script = draw(st.sampled_from(SCRIPTS))
    actions: list[tuple] = []
    for side, data in script:
        actions.append(("say", side, data, draw(st.integers(1, 200)), False))
        actions += draw(st.lists(ACTIONS, max_size=2))
    return actions


@given(
    st.sampled_from(POLICIES),
    st.sampled_from([21, 25, 53, 80, 110, 143, 443, 50123]),
    conversations() | st.lists(ACTIONS, max_size=25),
)
def test_every_packet_gets_one_verdict_and_nothing_is_left(policy: str, port: int, actions: list[tuple]) -> None:
    network = Network(policy, scan=None)
    connection = network.connect(port)
    for kind, side, data, number, more in actions:
        if kind == "say":
            (connection.client if side == CLIENT else connection.server)(data, number, fin=bool(more) and number > 60)
        elif kind == "segment":
            connection.segment(side, number, data, flags=int(more))
        elif kind == "raw":
            network.send(connection, side, bytes((0x40 + number, *data)), info=2 if more else 0)
        elif kind == "repeat":
            connection.repeat(side)
        elif kind == "wait":
            network.wait(number / 1000)
        else:
            verdict = ((None, None), ("Test.Marker", None), (None, "too large"))[number]
            network.answer_one(*verdict)
    network.wait(8000)
    assert network.engine.flows == 0
    assert network.held == 0
    assert network.engine.held_bytes == 0
    assert network.engine.open_scans == 0
    network.engine.close()
    network.carry_out()
    assert network.held == 0


@given(st.lists(st.tuples(SIDES, st.sampled_from([443, 53, 5353, 40001]), st.binary(max_size=100)), max_size=20))
def test_any_datagrams_get_one_verdict(said: list[tuple]) -> None:
    network = Network('[dangerous_sites]\ndns = "block"\n[block]\nnames = ["example.com"]\n')

    class Nobody:
        def arrive(self, side: int, data: bytes) -> None:
            del side, data

    for side, port, data in said:
        ports, ends = (40000, port), (packets.CLIENT, packets.SERVER)
        datagram = packets.udp(data, ports=ports if side == CLIENT else ports[::-1])
        network.send(Nobody(), side, packets.ipv4(datagram, 17, ends=ends if side == CLIENT else ends[::-1]))
    assert network.held == 0
