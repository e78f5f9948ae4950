"""Sniffing: any bytes give an application or ask for more, and enough of them always give one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.sniff import MAX_SNIFF_BYTES, Application, sniff

STARTS = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [b"GET ", b"FOO ", b"/", b" HTTP/1.1", b"HTTP/1.", b"\r\n", b"220 ", b"220-", b"SMTP", b"FTP", b"+OK", b"* OK", b"SSH-"]
    )
    | st.sampled_from(
        [b"EHLO x", b"USER x", b"\x16\x03\x01", b"\x03\0", b"\0\0\0\1\xfeSMB", b"PRI * HTTP/2.0", b"\x80\x2e\x01\x03", b" ", b"\0"]
    ),
    max_size=6,
).map(b"".join)


@given(STARTS, STARTS)
def test_any_starts_are_an_application_or_need_more(client: bytes, server: bytes) -> None:
    assert sniff(client, server) in {None, *Application}


@given(STARTS, STARTS, st.sampled_from([b"A", b"\n", b"\0", b" x", b"GE"]))
def test_enough_bytes_of_either_side_always_tell(client: bytes, server: bytes, filler: bytes) -> None:
    full = filler * MAX_SNIFF_BYTES
    assert sniff((client + full)[:MAX_SNIFF_BYTES], server) is not None
    assert sniff(client, (server + full)[:MAX_SNIFF_BYTES]) is not None


@given(STARTS, STARTS, STARTS)
def test_what_the_client_said_clearly_is_not_unsaid_by_more(client: bytes, server: bytes, more: bytes) -> None:
    found = sniff(client, b"")
    if found not in (None, Application.UNKNOWN):
        assert sniff(client + more, server) is found
