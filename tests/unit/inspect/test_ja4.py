"""JA4 fingerprints against the examples of FoxIO's specification (github.com/FoxIO-LLC/ja4, technical_details/JA4.md)."""

from __future__ import annotations

import dataclasses

import pytest

from mamori.inspect.tls import ClientHello, Transport, ja4


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(code, 16) for code in text.split(","))


# The worked example of the specification, with GREASE put back in.
EXAMPLE = ClientHello(
    versions=(0x7A7A, 0x0304, 0x0303),
    cipher_suites=(0x2A2A, *numbers("1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035")),
    extensions=(0x5A5A, *numbers("001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"), 0x1A1A),
    server_name="example.com",
    alpn=(b"h2", b"http/1.1"),
    signature_algorithms=(0x3A3A, *numbers("0403,0804,0401,0503,0805,0501,0806,0601")),
)

FINGERPRINTS = {
    "the worked example": (EXAMPLE, "t13d1516h2_8daaf6152771_e5627efa2ab1"),
    "without signature algorithms": (
        dataclasses.replace(EXAMPLE, signature_algorithms=()),
        "t13d1516h2_8daaf6152771_6d807ffa2a79",
    ),
    "nothing at all": (ClientHello(versions=(0x0301,), cipher_suites=()), "t10i000000_000000000000_000000000000"),
}


@pytest.mark.parametrize(("hello", "fingerprint"), FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_the_fingerprint_is_that_of_the_specification(hello: ClientHello, fingerprint: str) -> None:
    assert ja4(hello, Transport.TCP) == fingerprint


def test_more_than_99_of_a_thing_are_99() -> None:
    many = ClientHello(versions=(0x0300,), cipher_suites=tuple(range(120)), extensions=tuple(range(20, 140)))
    assert ja4(many, Transport.TCP).startswith("ts3i999900_")


def test_a_fingerprint_over_quic_says_so() -> None:
    assert ja4(EXAMPLE, Transport.QUIC) == "q13d1516h2_8daaf6152771_e5627efa2ab1"


# The table under "ALPN Extension Value" of the specification.
PROTOCOLS = {
    b"h2": "h2",
    b"http/1.1": "h1",
    b"a": "aa",
    b"": "00",
    b"\xab": "ab",
    b"\x20": "20",
    b"\xab\xcd": "ad",
    b"\x20\x61": "21",
    b"\x30\xab": "3b",
    b"\x61\x20": "60",
    b"\x30\x31\xab\xcd": "3d",
    b"\x30\xab\xcd\x31": "01",
}


@pytest.mark.parametrize(("protocol", "letters"), PROTOCOLS.items(), ids=[protocol.hex() or "empty" for protocol in PROTOCOLS])
def test_a_protocol_gives_the_two_letters_of_the_specification(protocol: bytes, letters: str) -> None:
    assert ja4(dataclasses.replace(EXAMPLE, alpn=(protocol, b"other")), Transport.TCP)[8:10] == letters
