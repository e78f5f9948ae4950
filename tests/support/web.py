"""Real web servers at either end of the guarded bridge, and curl at the other: out of the office and into it, IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from firmware.inspect_lab import ADDRESSES
from firmware.netns import call_in_namespace
from firmware.process import Argument, Result, run
from tests.support.guarded import Guarded
from tests.support.need import need
from tests.support.nginx import start_nginx
from tests.support.wait import check_until, patience_s

PORTS = (80, 8081)
TLS_PORT = 443

_HTTP = """\
log_format told '$http_host $request_uri $http_x_case';
access_log {folder}/access.log told;
large_client_header_buffers 4 64k;
client_max_body_size 0;
gzip on; gzip_min_length 1; gzip_types *;
types {{ text/html html; }}
default_type application/octet-stream;
ssl_certificate {folder}/cert.pem;
ssl_certificate_key {folder}/key.pem;
server {{
    listen 80; listen [::]:80; listen 8081; listen [::]:8081;
    listen 443 ssl http2; listen [::]:443 ssl http2;
    root {folder}/web;
    location /files/ {{ }}
    location / {{ return 200 "hello"; }}
}}
"""


class Way(Enum):
    """Who asks whom: the side of the client, that of the server, and which of its addresses."""

    OUT4 = ("client", "server", 0)
    OUT6 = ("client", "server", 1)
    IN4 = ("server", "client", 0)
    IN6 = ("server", "client", 1)

    @property
    def asks(self) -> str:
        return self.value[0]

    @property
    def address(self) -> str:
        """The server's."""
        return ADDRESSES[self.value[1]][self.value[2]]

    @property
    def host(self) -> str:
        """The same in a URL."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def terminal(self) -> str:
        """The address of the computer in the office."""
        return ADDRESSES["client"][self.value[2]]

    @property
    def peer(self) -> str:
        return ADDRESSES["server"][self.value[2]]

    @property
    def heading(self) -> str:
        return "outbound" if self.asks == "client" else "inbound"


@dataclass(frozen=True)
class Web:
    """A web server outside and one in the office. Any name and path answers `hello`, below /files/ lies what is in `files`."""

    box: Guarded
    folder: Path

    @property
    def files(self) -> Path:
        """What the server outside has."""
        return self.folder / "server/web/files"

    def namespace(self, side: str) -> str:
        return self.box.lab.client if side == "client" else self.box.lab.server

    def at(self, side: str, *argv: Argument, explain: str, input: bytes = b"", within_s: float = 30) -> Result:
        """A program of one side, to its end, whatever that is."""
        command = ["ip", "netns", "exec", self.namespace(side), *argv]
        return run(command, explain=explain, accept=range(256), timeout_s=patience_s(within_s), input=input)

    def curl(self, url: str, *arguments: Argument, way: Way = Way.OUT4, within_s: float = 20, input: bytes = b"") -> Result:
        """Fetch from the server of this way, whatever the URL's name is."""
        argv: list[Argument] = ["curl", "--silent", "--insecure", "--globoff", "--max-time", f"{patience_s(within_s):g}"]
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        resolve = f"{parts.hostname}:{port}:{way.host}"
        return self.at(way.asks, *argv, "--resolve", resolve, *arguments, url, explain="fetch", input=input, within_s=within_s + 10)

    def requests(self, side: str = "server") -> list[str]:
        """What the server of that side answered: host, path and the header X-Case of each."""
        return (self.folder / side / "access.log").read_text().splitlines()

    def listen(self, side: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket for both families."""

        def make() -> socket.socket:
            if kind is socket.SOCK_STREAM:
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
            made = socket.socket(socket.AF_INET6, kind)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind(("::", port))
            return made

        return call_in_namespace(self.namespace(side), make)

    def connect(self, port: int, way: Way = Way.OUT4, within_s: float = 20) -> socket.socket:
        timeout_s = patience_s(within_s)
        return call_in_namespace(self.namespace(way.asks), lambda: socket.create_connection((way.address, port), timeout_s))

    def mac(self) -> str:
        """That of the computer in the office."""
        return self.at("client", "cat", "/sys/class/net/eth0/address", explain="read the terminal's address").stdout.strip()

    def await_events(self, *, within_s: float = 10, **wanted: object) -> list[dict[str, Any]]:
        """The events that say this, as soon as there is one."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [event for event in self.box.events("--limit", "5000") if wanted.items() <= event.items()]
            return bool(found)

        check_until(f"it is told: {wanted}", look, within_s)
        return found

    def queued(self) -> int:
        """How many packets the workers have had."""
        return sum(self.box.lab.queued(number) or 0 for number in range(len(self.box.workers())))


@contextlib.contextmanager
def start_web(box: Guarded, folder: Path) -> Iterator[Web]:
    """Both servers listen when the block is entered."""
    for tool in ("nginx", "curl", "openssl"):
        need(tool, "web servers and their client")
    web = Web(box, folder)
    with contextlib.ExitStack() as stack:
        for side in ("server", "client"):
            home = folder / side
            (home / "web/files").mkdir(parents=True)
            make_certificate(home, "www.example")
            stack.enter_context(start_nginx(web.namespace(side), home, _HTTP.format(folder=home)))
        yield web


def make_certificate(folder: Path, name: str) -> None:
    """cert.pem and key.pem, which nobody trusts."""
    argv: list[Argument] = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files: list[Argument] = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    run([*argv, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:*.{name}", *files], explain="make a certificate")


class Phase(Enum):
    """A filter is proved by these three, in this order: a fixture with them as parameters, of the module's scope, sets the policy,
    and every test that asks for it runs in each."""

    BEFORE = "works"
    BLOCKED = "is blocked"
    AFTER = "works again"


class Sink:
    """A server that answers nothing and keeps what each of its connections said."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], bytearray] = {}

    def of(self, connection: socket.socket) -> bytes:
        """What came of what this client sent."""
        return self.heard(connection.getsockname()[:2])

    def heard(self, name: tuple[str, int]) -> bytes:
        """The same, by address and port."""
        return bytes(self._heard.get(name, b""))

    def talk(self, peer: socket.socket) -> None:
        address, port = peer.getpeername()[:2]
        kept = self._heard[address.removeprefix("::ffff:"), port] = bytearray()
        while data := peer.recv(65_536):
            kept += data


def say(connection: socket.socket, pieces: Iterable[bytes], pause_s: float = 0.0005) -> None:
    """Each piece in a segment of its own, as far as the kernel can be made to."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # cut in the middle
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)


def hear(connection: socket.socket, size: int = 1 << 20) -> bytes:
    """What comes, up to this many bytes or the end of the connection, however it ends."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while len(heard) < size and (data := connection.recv(size - len(heard))):
            heard += data
    return heard
