"""Any name and any bytes are those of an application or of none; any file is read or refused with its problems."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from mamori.formats.problems import BadInputError
from mamori.inspect.applications import Application, Applications, load_applications, own_applications

OWN = own_applications()
NAMES = st.text(max_size=40) | st.lists(st.sampled_from(("youtube", "com", "line", "me", "", "t", "co", "\\.")), max_size=8).map(
    ".".join
)
BYTES = st.binary(max_size=160) | st.lists(
    st.sampled_from(
        (b"\0", b"\1\0\0\0", b"\x38", b"\x40", b"d1:", b"SSH-2.0-", b"\x13BitTorrent protocol", b"\xc8\x02", bytes(16))
    ),
    max_size=12,
).map(b"".join)
LINES = st.lists(
    st.sampled_from(
        (
            *("[groups]", "[applications.a]", "[applications.'b c']", "chat = { ja = 'x', en = 'y' }", "ja = 'x'", "en = 'y'"),
            *(
                "group = 'chat'",
                "names = ['example.com']",
                "names = ['com', 3]",
                "tcp = [1, 1, 70000]",
                "alpn = ['x', 'x']",
                "nobody = ['a.b']",
            ),
            *(
                "payload = [{ protocol = 'tcp', client = '(' }]",
                "payload = [{ protocol = 'udp', server = 'a' }]",
                "payload = 1",
                "\0",
            ),
        )
    )
    | st.text(max_size=10),
    max_size=10,
).map("\n".join)


@given(NAMES)
def test_any_name_has_the_application_of_its_longest_suffix(name: str) -> None:
    found = OWN.by_name(name)
    assert found is None or (isinstance(found, Application) and OWN.by_name(f"any.{name}") == found)


@given(st.sampled_from(("tcp", "udp", "")), BYTES, BYTES, st.lists(st.binary(max_size=5), max_size=3))
def test_any_bytes_are_those_of_an_application_or_of_none(protocol: str, client: bytes, server: bytes, offers: list[bytes]) -> None:
    assert OWN.by_payload(protocol, client, server) in {None, *OWN.all.values()}
    assert OWN.by_alpn(offers) in {None, *OWN.all.values()}


@given(LINES)
def test_any_text_is_applications_or_its_problems(text: str) -> None:
    with contextlib.suppress(BadInputError):
        assert isinstance(load_applications(text, "a.toml"), Applications)
