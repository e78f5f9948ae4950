"""Real ClientHellos, made by real clients when they are asked for, and the hands to wrap and damage them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from OpenSSL import SSL

from mamori.inspect.errors import ParseError

HANDSHAKE, ALERT = 22, 21

Event = TypeVar("Event")


def python_hello(name: str | None, protocols: Sequence[str] = (), newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The first flight of Python's ssl module: TLS records."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def post_quantum_hello(name: str) -> bytes:
    """The first flight of the OpenSSL inside `cryptography`, 3.5 or newer: it has a key share of 1216 bytes, as browsers send."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_tlsext_host_name(name.encode())
    client.set_connect_state()
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return client.bio_read(1 << 16)
    raise AssertionError("a handshake without a server")


def record(payload: bytes, kind: int = HANDSHAKE, version: bytes = b"\3\1") -> bytes:
    """A TLS record."""
    return bytes((kind,)) + version + len(payload).to_bytes(2, "big") + payload


def message(body: bytes) -> bytes:
    """A ClientHello with its handshake header."""
    return b"\1" + len(body).to_bytes(3, "big") + body


def extension(kind: int, content: bytes) -> bytes:
    """A TLS extension."""
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """A server_name extension with these names."""
    return extension(0, vector(b"".join(bytes((kind,)) + vector(name) for name in names)))


def vector(content: bytes, width: int = 2) -> bytes:
    """Bytes with their length before them."""
    return len(content).to_bytes(width, "big") + content


def split_extensions(hello: bytes) -> tuple[bytes, list[bytes]]:
    """The body of the hello in a first flight of one record: what stands before the extensions, and each of those."""
    body = hello[9:]
    at = 35 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions, start = [], at + 2
    while start < len(body):
        end = start + 4 + int.from_bytes(body[start + 2 : start + 4], "big")
        extensions.append(body[start:end])
        start = end
    return body[:at], extensions


def join_extensions(before: bytes, extensions: Iterable[bytes]) -> bytes:
    """A first flight of one record from what `split_extensions` gave."""
    return record(message(before + vector(b"".join(extensions))))


def quic_client(name: str, version: int = 1, protocols: Sequence[str] = ("h3",)) -> QuicConnection:
    """An aioquic client that wants to send its first datagrams. Many protocols make a hello of many datagrams."""
    configuration = QuicConfiguration(
        is_client=True, server_name=name, alpn_protocols=list(protocols), original_version=version, supported_versions=[version]
    )
    client = QuicConnection(configuration=configuration)
    client.connect(("192.0.2.1", 443), now=0.0)
    return client


def sent_by(client: QuicConnection) -> list[bytes]:
    """The datagrams that a client wants to send now."""
    return [datagram for datagram, _ in client.datagrams_to_send(now=0.0)]


def initial(frames: bytes, number: int = 0, keys_of: bytes = b"8 bytes!", sent_to: bytes | None = None, version: int = 1) -> bytes:
    """An Initial packet with these frames, sealed by aioquic with the keys of one connection id, sent to the same or another."""
    keys = CryptoPair()
    keys.setup_initial(cid=keys_of, is_client=True, version=version)
    frames = frames.ljust(4, b"\0")  # Header protection needs a sample.
    first = 0xC3 if version == 1 else 0xD3
    header = bytes((first,)) + version.to_bytes(4, "big") + vector(keys_of if sent_to is None else sent_to, 1) + b"\0" + b"\0"
    header += (0x4000 | 4 + len(frames) + 16).to_bytes(2, "big") + (number & 0xFFFFFFFF).to_bytes(4, "big")
    return keys.encrypt_packet(header, frames, number)


def crypto(start: int, content: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\6" + (0x80000000 | start).to_bytes(4, "big") + (0x4000 | len(content)).to_bytes(2, "big") + content


def cut(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The data in segments that begin at `cuts`, in any order; positions count modulo the length."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return (data[start:end] for start, end in pairwise(places))


def outcome(receive: Callable[[bytes], list[Event]], segments: Iterable[bytes]) -> tuple[list[Event], str | None]:
    """All events of a reader that is given these segments, and its error, which it must keep to once it was raised."""
    events: list[Event] = []
    error: str | None = None
    for segment in segments:
        try:
            got = receive(segment)
        except ParseError as raised:
            assert error in (None, str(raised))
            error = str(raised)
        else:
            assert error is None
            events += got
    return events, error
