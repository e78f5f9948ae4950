"""A real dnsmasq outside, which has one answer to everything, and questions to it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from firmware.netns import call_in_namespace
from firmware.process import Argument, start
from tests.support.need import need
from tests.support.wait import check_until, patience_s
from tests.support.web import Way, Web

A, AAAA = 1, 28
ANSWERS = {A: "192.0.2.55", AAAA: "2001:db8::55"}


@contextlib.contextmanager
def start_dnsmasq(web: Web) -> Iterator[None]:
    """It listens when the block is entered."""
    need("dnsmasq", "is the resolver")
    argv: list[Argument] = ["ip", "netns", "exec", web.box.lab.server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]
    argv += ["--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--log-queries", "--log-facility=-"]
    argv += [f"--address=/#/{answer}" for answer in ANSWERS.values()]
    with start(argv, explain="resolve names", log=web.folder / "dnsmasq.log") as dnsmasq:

        def listens() -> bool:
            dnsmasq.check()
            return ":53 " in web.at("server", "ss", "-Hltn", explain="look whether it listens").stdout

        check_until("dnsmasq listens", listens, within_s=10)
        yield


@dataclass(frozen=True)
class Answer:
    code: int
    question: bytes
    addresses: tuple[str, ...]


def ask(web: Web, name: str, kind: int = A, *, way: Way = Way.OUT4, tcp: bool = False, edns: bool = False) -> Answer:
    """The resolver's answer, read with nothing of ours."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!HH", kind, 1)
    options = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0) if edns else b""
    query = struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, len(options) and 1) + question + options
    message = over_tcp(web, way, query) if tcp else over_udp(web, way, query)
    number, flags, questions, answers = struct.unpack_from("!4H", message)
    assert (number, flags & 0x8000, questions) == (0x1234, 0x8000, 1)
    at, addresses = 12 + len(question), []
    for _ in range(answers):
        at += 2  # dnsmasq points at the question's name
        (length,) = struct.unpack_from("!H", message, at + 8)
        addresses.append(str(ip_address(message[at + 10 : at + 10 + length])))
        at += 10 + length
    return Answer(flags & 0xF, message[12 : 12 + len(question)], tuple(addresses))


def over_udp(web: Web, way: Way, query: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in way.address else socket.AF_INET
    with call_in_namespace(web.namespace(way.asks), lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
        client.settimeout(patience_s(5))
        client.connect((way.address, 53))
        client.send(query)
        return client.recv(65_536)


def over_tcp(web: Web, way: Way, query: bytes) -> bytes:
    with web.connect(53, way, within_s=5) as client, client.makefile("rb") as stream:
        client.sendall(struct.pack("!H", len(query)) + query)
        return stream.read(struct.unpack("!H", stream.read(2))[0])
