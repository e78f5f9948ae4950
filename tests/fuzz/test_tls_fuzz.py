"""Any bytes are a hello, some other protocol, not enough yet, or the one error, and that does not depend on how they are cut."""

from __future__ import annotations

import contextlib
import ssl

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.tls import MAX_HELLO_BYTES, ClientHello, TlsError, TlsReader, Transport, ja4, parse_client_hello
from tests.support.hellos import cut, message, outcome, post_quantum_hello, python_hello, record

REAL = [
    python_hello("real.example", ["h2"]),
    python_hello("real.example", newest=ssl.TLSVersion.TLSv1_2),
    post_quantum_hello("real.example"),
]
CUTS = st.lists(st.integers(0), max_size=20)
LIKE_TLS = st.binary(max_size=200).map(lambda rest: b"\x16\3\1" + rest) | st.binary(max_size=200).map(
    lambda rest: b"\x80\x2e\1\3\1" + rest
)
RECORDS = st.lists(
    st.builds(record, st.binary(max_size=60), st.sampled_from([20, 21, 22, 23])) | st.sampled_from([record(b"")] * 3), max_size=50
).map(b"".join)


@given(st.binary(max_size=200) | LIKE_TLS | RECORDS, CUTS)
def test_any_stream_is_the_same_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    assert outcome(TlsReader().receive, cut(stream, cuts)) == outcome(TlsReader().receive, [stream])


@given(st.sampled_from(REAL), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8), CUTS)
def test_a_damaged_hello_is_the_same_however_it_is_cut(hello: bytes, damage: list[tuple[int, int]], cuts: list[int]) -> None:
    stream = bytearray(hello)
    for at, byte in damage:
        stream[at % len(stream)] = byte
    assert outcome(TlsReader().receive, cut(bytes(stream), cuts)) == outcome(TlsReader().receive, [bytes(stream)])


@given(
    st.binary(max_size=300) | st.sampled_from(REAL).flatmap(lambda hello: st.integers(9, len(hello)).map(lambda end: hello[9:end]))
)
def test_any_body_is_a_hello_with_a_fingerprint_or_the_one_error(body: bytes) -> None:
    with contextlib.suppress(TlsError):
        hello = parse_client_hello(body)
        assert isinstance(hello, ClientHello)
        assert len(ja4(hello, Transport.TCP)) == 36


@given(st.integers(1, 300), st.integers(0, 3))
def test_a_stream_without_end_comes_to_an_end_of_its_own(size: int, idle: int) -> None:
    endless = message(bytes(MAX_HELLO_BYTES - 4))
    reader = TlsReader()
    fed = 0
    with contextlib.suppress(TlsError):
        for at in range(0, len(endless), size):
            reader.receive(record(endless[at : at + size]) + record(b"") * idle)
            fed = at + size
        raise AssertionError("no end")
    assert fed <= MAX_HELLO_BYTES
