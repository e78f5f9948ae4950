"""Any bytes are a DNS message or the one error; over TCP that does not depend on how they are cut."""

from __future__ import annotations

import contextlib
import struct

import dns.message
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.dns import (
    MAX_NAME_BYTES,
    DnsError,
    DnsReader,
    EchConfig,
    Message,
    NameReader,
    parse_ech_configs,
    parse_message,
)
from tests.support.hellos import cut, outcome, vector


def real_response() -> bytes:
    response = dns.message.make_response(dns.message.make_query("www.example.com", "HTTPS", use_edns=0))
    for kind, content in (("CNAME", "a.example.com."), ("A", "192.0.2.1"), ("HTTPS", "1 . alpn=h2 port=8443 ipv4hint=1.2.3.4")):
        response.answer.append(dns.rrset.from_text("www.example.com.", 60, "IN", kind, content))
    return response.to_wire()


REAL = real_response()
COUNTS = st.tuples(*[st.integers(0, 5)] * 4)
# Bytes that are lengths, pointers to near places and types that are read.
LIKELY = st.lists(
    st.sampled_from([b"\0", b"\1", b"\3abc", b"\xc0\x0c", b"\xc0\x10", b"\0\1", b"\0\5", b"\0\x29", b"\0\x41"]) | st.binary()
)
MESSAGES = st.builds(lambda counts, parts: struct.pack(">6H", 1, 0x8180, *counts) + b"".join(parts), COUNTS, LIKELY) | st.lists(
    st.tuples(st.integers(0), st.integers(0, 255)), max_size=6
).map(lambda damage: damaged(damage))


def damaged(damage: list[tuple[int, int]]) -> bytes:
    data = bytearray(REAL)
    for at, byte in damage:
        data[at % len(data)] = byte
    return bytes(data)


@given(MESSAGES | st.binary(max_size=100))
def test_any_bytes_are_a_message_or_the_one_error(data: bytes) -> None:
    with contextlib.suppress(DnsError):
        message = parse_message(data)
        assert isinstance(message, Message)
        records = (*message.answers, *message.authorities, *message.additionals)
        assert all(12 <= record.start <= record.end <= len(data) for record in records)


@given(st.binary(max_size=100) | MESSAGES, st.integers(0, 120))
def test_any_bytes_are_a_name_or_the_one_error(data: bytes, at: int) -> None:
    with contextlib.suppress(DnsError):
        labels, end = NameReader(data).read_labels(at)
        assert at < end <= len(data)
        assert sum(map(len, labels)) + len(labels) < MAX_NAME_BYTES
        assert all(1 <= len(label) <= 63 for label in labels)


@given(st.lists(MESSAGES.map(vector) | st.binary(max_size=20), max_size=4).map(b"".join), st.lists(st.integers(0)))
def test_any_stream_is_the_same_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    # A reader that has told some messages raises its error at the next call: the last, empty segment is that call.
    assert outcome(DnsReader().receive, [*cut(stream, cuts), b""]) == outcome(DnsReader().receive, [stream, b""])


@given(
    st.binary(max_size=100) | st.binary(max_size=80).map(lambda rest: b"\0\0\xfe\x0d" + vector(b"\7\0\x20\0\2kk\0\4abcd" + rest))
)
def test_any_parameter_is_some_ech_configs_or_none(content: bytes) -> None:
    assert all(isinstance(config, EchConfig) for config in parse_ech_configs(content))
