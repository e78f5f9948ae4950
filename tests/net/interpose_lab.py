"""A bridge whose queue interposes, between curl and nginx; both ends are the kernel's own TCP. No test is in here.

The judge stands in for the engine: it knows of every connection what was forwarded and what was acknowledged, and starts an
Interposer at the packet that says a forbidden word.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firmware.inspect_lab import ADDRESSES, Lab, start_lab
from firmware.process import Argument, Result, run, start
from mamori.inspect.craft import SEQUENCE_MASK, parse_syn_options
from mamori.inspect.flow import ORIGINATOR
from mamori.inspect.interpose import DEFAULT_MSS, Answer, Cut, Deliver, Drop, Interposer, Side
from mamori.inspect.nfqueue.messages import Packet as QueuedPacket
from mamori.inspect.nfqueue.messages import Verdict, encode_verdict
from mamori.inspect.packet import ACK, FIN, SYN, TCP, Packet, parse_packet
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.wait import check_until, patience_s

PORTS = (80, 443)
BODY_BYTES = 30_000_000
VIRUS = b"\xffVIRUS\xff"
TLS_ALERT = bytes.fromhex("15030300020231")  # RFC 8446 6: alert, TLS 1.2 on the record layer, 2 bytes: fatal, access_denied

_NGINX = """\
daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ }}
http {{
  access_log {folder}/access; client_max_body_size 0; keepalive_timeout 300; send_timeout 300; default_type application/x;
  server {{
    listen [::]:80 ipv6only=off; listen [::]:443 ssl ipv6only=off;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key; root {folder}/web;
    location /up {{ proxy_pass http://127.0.0.1:80/fine; proxy_method GET; proxy_pass_request_body off; }}
  }}
}}
"""


@dataclass
class Talk:
    """What the judge knows of one connection."""

    limits: list[int]
    acknowledged: list[int]
    mss: int = DEFAULT_MSS
    interposer: Interposer | None = None

    def note(self, direction: int, packet: Packet) -> None:
        """A packet that was forwarded."""
        end = packet.sequence + len(packet.payload) + bool(packet.flags & FIN) + bool(packet.flags & SYN)
        self.limits[direction] = _later(self.limits[direction], end)
        self.hear(direction, packet)

    def hear(self, direction: int, packet: Packet) -> None:
        """What a packet acknowledges."""
        if packet.flags & ACK:
            other = 1 - direction
            self.acknowledged[other] = _later(self.acknowledged[other], packet.acknowledgement)
            self.limits[other] = _later(self.limits[other], packet.acknowledgement)

    def sides(self) -> tuple[Side, Side]:
        first, second = (Side(self.limits[side], self.acknowledged[side]) for side in (0, 1))
        return first, second


@dataclass
class Judge:
    """`words`: what to look for in a packet's payload, and what to do. `loss`: the share of packets that are lost on either
    side of the box. `delivered` after a decision: direction, payload, and whether it was a super-packet."""

    words: Mapping[bytes, Cut | Answer]
    loss: float = 0.0
    seed: int = 1
    is_length_fixed: bool = False
    talks: dict[bytes, Talk] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    delivered: list[tuple[int, bytes, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = seeded(self.seed)

    def __call__(self, queued: QueuedPacket) -> bytes:
        data = queued.payload
        packet = parse_packet(data)
        if packet.protocol != TCP or not {packet.source_port, packet.destination_port} & set(PORTS):
            return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT)
        if self._is_lost(packet):
            return encode_verdict(queued.queue, queued.id, Verdict.DROP)
        payload = self._judge(data, packet, queued)
        if payload == b"" or self._is_lost(packet):
            return encode_verdict(queued.queue, queued.id, Verdict.DROP)
        return encode_verdict(queued.queue, queued.id, Verdict.ACCEPT, payload=payload)

    def _is_lost(self, packet: Packet) -> bool:
        return not packet.flags & SYN and self.chance.random() < self.loss

    def _judge(self, data: memoryview, packet: Packet, queued: QueuedPacket) -> bytes | None:
        """The new packet; None for the old one, nothing to drop it."""
        direction = int(packet.source_port in PORTS)
        ends = packet.source_port.to_bytes(2, "big"), packet.destination_port.to_bytes(2, "big")
        key = min(packet.source, packet.destination) + ends[direction]
        if key not in self.talks:
            numbers = [packet.sequence, packet.acknowledgement]
            limits = numbers[::-1] if direction else numbers
            self.talks[key] = Talk(limits, list(limits), parse_syn_options(data, packet).mss or DEFAULT_MSS)
        talk = self.talks[key]
        if talk.interposer is None:
            kind = next((kind for word, kind in self.words.items() if word in bytes(packet.payload)), None)
            if kind is None:
                talk.note(direction, packet)
                return None
            talk.hear(direction, packet)
            if isinstance(kind, Answer):
                kind = Answer(kind.data, min(talk.mss, DEFAULT_MSS))
            talk.interposer = Interposer(kind, talk.sides(), is_length_fixed=self.is_length_fixed)
        return self._interpose(talk.interposer, direction, data, packet, queued)

    def _interpose(
        self, interposer: Interposer, direction: int, data: memoryview, packet: Packet, queued: QueuedPacket
    ) -> bytes | None:
        outcome = interposer.receive(direction, data, packet, queued.info)
        self.outcomes[f"{'from server' if direction else 'from client'} {type(outcome).__name__}"] += 1
        if isinstance(outcome, Deliver):
            self.delivered.append((direction, bytes(parse_packet(outcome.data).payload), queued.is_super_packet))
            return outcome.data
        return b"" if isinstance(outcome, Drop) else None

    def reached_server(self) -> bytes:
        """What was delivered to the server after a decision, other than zeros."""
        return b"".join(payload for direction, payload, _ in self.delivered if direction == ORIGINATOR).strip(b"\0")


def _later(number: int, other: int) -> int:
    number, other = number & SEQUENCE_MASK, other & SEQUENCE_MASK
    return other if 0 < (other - number & SEQUENCE_MASK) < 1 << 31 else number


@dataclass(frozen=True)
class Office:
    """The lab with nginx in it."""

    lab: Lab
    folder: Path

    def log(self) -> str:
        return (self.folder / "access").read_text()

    def connections(self, namespace: str) -> list[str]:
        """TCP sockets that are not listening and not in TIME-WAIT, with their state."""
        text = self.lab.at(namespace, "ss", "-Htn", "state", "all", "exclude", "listening", "exclude", "time-wait", explain="ask")
        return [line for line in text.splitlines() if any(f":{port} " in f"{line} " for port in PORTS)]

    def check_closed(self, within_s: float = 15) -> float:
        """No connection is left at either end; the seconds it took."""
        begin = time.monotonic()
        for namespace in (self.lab.server, self.lab.client):
            check_until(f"closed in {namespace}", lambda at=namespace: not self.connections(at), within_s)  # type: ignore[misc]
        return time.monotonic() - begin

    def curl(self, *arguments: Argument, family: int = 0, scheme: str = "http", within_s: float = 30) -> Result:
        """Arguments that begin with `/` are paths on the server."""
        host = ADDRESSES["server"][family]
        base = f"{scheme}://[{host}]" if family else f"{scheme}://{host}"
        words = [f"{base}{word}" if isinstance(word, str) and word.startswith("/") else word for word in arguments]
        argv = ["ip", "netns", "exec", self.lab.client, "curl", "--silent", "--show-error", "--insecure"]
        report = ["--write-out", "\n%{http_code} %{size_download} %{time_total} %{num_connects}"]
        most = patience_s(within_s)
        return run([*argv, "--max-time", f"{most:g}", *report, *words], explain="fetch", accept=range(100), timeout_s=most + 20)


@contextlib.contextmanager
def start_office(folder: Path) -> Iterator[Office]:
    need(os.geteuid() == 0, "network namespaces take root")
    for tool in ("ip", "curl", "nginx", "openssl", "ss", "ethtool", "iptables-nft-restore"):
        need(tool, "lays out the bridge and sends through it")
    need(Path("/proc/sys/net/bridge").exists(), "the kernel module br_netfilter is not loaded")
    web = folder / "web"
    web.mkdir()
    (web / "fine").write_bytes(b"fine")
    (web / "blocked").write_bytes(b"the server's own words")
    body = bytearray(seeded(5).randbytes(BODY_BYTES))
    body[BODY_BYTES // 2 : BODY_BYTES // 2 + len(VIRUS)] = VIRUS
    (web / "infected").write_bytes(body)
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
    run([*key, "-keyout", folder / "key", "-out", folder / "cert"], explain="make a certificate")
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    with start_lab(f"mamori-inter-{os.getpid()}") as lab:
        argv: list[Argument] = ["ip", "netns", "exec", lab.server, "nginx", "-c", folder / "nginx.conf", "-p", folder]
        with start(argv, explain="run the web server", log=folder / "log") as server:
            listening = ["ip", "netns", "exec", lab.server, "ss", "-Hltn", "sport = 443"]
            check_until("nginx listens", lambda: run(listening, explain="ask").stdout, within_s=20)
            server.check()
            yield Office(lab, folder)
