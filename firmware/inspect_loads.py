"""What the benchmark of the inspection sends through the bridge, and what it takes down: real servers and clients in the lab.

Each load runs for so many seconds and gives figures by name; `bytes` is what arrived at the other end.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware.inspect_lab import ADDRESSES, WITHIN_S, Lab, wait_until
from firmware.netns import call_in_namespace
from firmware.process import Argument, Running, run, start
from mamori.formats.problems import MamoriError

SERVER = ADDRESSES["server"][0]
SERVERS = tuple(f"10.79.0.{number}" for number in range(101, 109))
"""More addresses of the server: the kernel chooses the worker by both addresses, and one pair would leave the others idle."""

LARGE_BYTES, MIDDLE_BYTES = 64 << 20, 2 << 20
"""An installer, of which the scanner takes the first 25 MiB; and a document, which it takes whole."""
MIDDLE_FILES, SMALL_FILES = 48, 256
SMALL_BYTES = (1 << 10, 16 << 10)
"""Most objects of a page are between these."""
ATTACHMENT_BYTES = 100_000

PARALLEL = 4
"""Downloads of documents at a time: clamd scans a file when all of it is there, so one at a time would wait more than it moves."""
MIX_CONNECTIONS = 24
RATE_PER_S = 200
"""Of the small messages whose latency is taken: an office at work, not a line that is full."""
NAME = "www.allowed.example"
"""No list has it."""

_CURL = ("--silent", "--show-error", "--fail")

Figures = dict[str, float]

_NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/temp; proxy_temp_path {folder}/temp; fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp; scgi_temp_path {folder}/temp;
    sendfile on; tcp_nopush on; keepalive_requests 100000000;
    open_file_cache max=1000;
    server {{
        listen 80; listen 443 ssl; root {folder}/web;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;
    }}
}}
"""
_MIX = """\
local servers = {{ {servers} }}
local number = 0
function setup(thread)
  number = number + 1
  thread.addr = wrk.lookup(servers[number], "80")[1]
  thread:set("seed", number)
end
function init(args)
  math.randomseed(seed)
end
function request()
  return wrk.format("GET", "/small/" .. math.random(0, {files} - 1))
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{{"requests": %d, "bytes": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "errors": %d}}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
"""wrk's script: each thread has another address of the server, and asks for objects at random."""


@dataclass(frozen=True)
class Office:
    """Servers that run beyond the bridge, and the folder with what they serve."""

    lab: Lab
    folder: Path


Load = Callable[[Office, float], Figures]


def write_files(folder: Path) -> None:
    """What the servers serve, and their certificate: the same bytes every time, and none of them compressible."""
    bytes_of = random.Random(3).randbytes  # noqa: S311 (no secret)
    (folder / "web/small").mkdir(parents=True)
    (folder / "web/large").write_bytes(b"".join(bytes_of(1 << 20) for _ in range(LARGE_BYTES >> 20)))
    for number in range(MIDDLE_FILES):
        (folder / f"web/middle{number}").write_bytes(bytes_of(MIDDLE_BYTES))
    low, high = SMALL_BYTES
    for number in range(SMALL_FILES):
        (folder / f"web/small/{number}").write_bytes(bytes_of(low + (high - low) * number // (SMALL_FILES - 1)))
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    quoted = ", ".join(f'"{address}"' for address in SERVERS)
    (folder / "mix.lua").write_text(_MIX.format(servers=quoted, files=SMALL_FILES))
    (folder / "mail").write_bytes(_mail(bytes_of(ATTACHMENT_BYTES)))
    certificate: list[Argument] = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    certificate += ["-subj", f"/CN={NAME}", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    run(certificate, explain="make a certificate")


@contextlib.contextmanager
def start_office(lab: Lab, folder: Path) -> Iterator[Office]:
    """A web server and a mail server on the server's side, listening when the block is entered."""
    for address in SERVERS:
        lab.at(lab.server, "ip", "address", "add", f"{address}/24", "dev", "eth0", explain="give the server more addresses")
    office = Office(lab, folder)
    with contextlib.ExitStack() as stack:
        nginx: list[Argument] = ["nginx", "-c", folder / "nginx.conf", "-e", folder / "nginx.log"]
        sink: list[Argument] = ["smtp-sink", "-u", "root", "0.0.0.0:25", "256"]
        echo: list[Argument] = ["socat", "TCP-LISTEN:7,fork,reuseaddr,nodelay", "PIPE"]
        for argv, port in ((nginx, 80), (sink, 25), (echo, 7)):
            command = ["ip", "netns", "exec", lab.server, *argv]
            server = stack.enter_context(start(command, explain=f"run {argv[0]}", log=folder / "servers.log"))
            _wait_for_port(lab, server, port)
        yield office


def download_large(office: Office, seconds: float) -> Figures:
    """64 MiB over HTTP, again and again on one connection."""
    return _download(office, [f"http://{SERVER}/large"] * 4, seconds)


def download_middle(office: Office, seconds: float) -> Figures:
    """Files of 2 MiB over HTTP, PARALLEL at a time. None comes twice: the scanner would know it again."""
    argv = ["--parallel", "--parallel-max", str(PARALLEL)]
    for number in range(MIDDLE_FILES):
        argv += ["--output", "/dev/null", f"http://{SERVERS[number % len(SERVERS)]}/middle{number}"]
    received, lasted_s = 0, 0.0
    while lasted_s < seconds:
        for number in range(MIDDLE_FILES):
            with (office.folder / f"web/middle{number}").open("r+b") as file:
                file.write(time.time_ns().to_bytes(8, "big"))
        began = time.monotonic()
        _at_client(office.lab, ["curl", *_CURL, *argv], "download files", seconds)
        lasted_s += time.monotonic() - began
        received += MIDDLE_FILES * MIDDLE_BYTES
    return {"gbit_per_s": received * 8 / lasted_s / 1e9, "bytes": received}


def download_tls(office: Office, seconds: float) -> Figures:
    """64 MiB over TLS 1.3, under a name that is allowed."""
    return _download(office, [f"https://{NAME}/large"] * 4, seconds)


def fetch_mix(office: Office, seconds: float) -> Figures:
    """Objects of 1 to 16 KiB on connections that stay, as fast as they come; each comes many times, as logos and scripts do."""
    warm = _fetch_mix(office, 1)  # the scanner sees each object for the first time once
    found = _fetch_mix(office, max(1, round(seconds)))
    return {
        "requests_per_s": found["requests"] / (found["duration_us"] / 1e6),
        "p50_ms": found["p50_us"] / 1e3,
        "p99_ms": found["p99_us"] / 1e3,
        "requests": found["requests"],
        "bytes": warm["bytes"] + found["bytes"],
    }


def _fetch_mix(office: Office, seconds: int) -> dict[str, int]:
    """What the script's last line says of so many seconds."""
    argv: list[Argument] = ["wrk", f"-t{len(SERVERS)}", f"-c{MIX_CONNECTIONS}", f"-d{seconds}s"]
    argv += ["-s", office.folder / "mix.lua", f"http://{SERVERS[0]}/"]
    said = _at_client(office.lab, argv, "fetch small objects", seconds)
    found: dict[str, int] = json.loads(said.rstrip().rpartition("\n")[2])
    if found["errors"]:
        raise MamoriError(f"bench: {found['errors']} of {found['requests']} requests failed")
    return found


def send_mails(office: Office, seconds: float) -> Figures:
    """Mails with an attachment of 100 KB, each on a connection of its own, four at a time."""
    argv: list[Argument] = ["smtp-source", "-s", "4", "-m", "40", "-F", office.folder / "mail", "-f", "a@client.example"]
    argv += ["-t", "b@server.example", f"{SERVER}:25"]
    began, sent = time.monotonic(), 0
    while sent == 0 or time.monotonic() - began < seconds:
        _at_client(office.lab, argv, "send mails", seconds)
        sent += 40
    lasted_s = time.monotonic() - began
    return {"mails_per_s": sent / lasted_s, "bytes": sent * (office.folder / "mail").stat().st_size}


def ping_web(office: Office, seconds: float) -> Figures:
    """Small requests one after the other on one connection, RATE_PER_S of them a second: what an answer takes."""

    def ask(connection: socket.socket, number: int) -> None:
        connection.sendall(b"GET /small/%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (number % 64, NAME.encode()))
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                raise MamoriError("bench: the web server hung up")
            body += more

    return _ping(office, 80, ask, seconds)


def ping_echo(office: Office, seconds: float) -> Figures:
    """64 bytes there and back over a protocol that nobody knows."""

    def ask(connection: socket.socket, number: int) -> None:
        connection.sendall(number.to_bytes(64, "big"))
        if connection.recv(64, socket.MSG_WAITALL) != number.to_bytes(64, "big"):
            raise MamoriError("bench: the echo is another")

    return _ping(office, 7, ask, seconds)


LOADS: Mapping[str, Load] = {
    "large": download_large,
    "middle": download_middle,
    "tls": download_tls,
    "mix": fetch_mix,
    "mail": send_mails,
    "web-latency": ping_web,
    "echo-latency": ping_echo,
}


def _download(office: Office, urls: list[str], seconds: float) -> Figures:
    argv: list[Argument] = ["curl", *_CURL, "--insecure", "--resolve", f"{NAME}:443:{SERVER}"]
    argv += ["--write-out", "%{size_download} %{time_total}\\n"]
    for url in urls:
        argv += ["--output", "/dev/null", url]
    received, lasted_s, deadline = 0, 0.0, time.monotonic() + seconds
    while received == 0 or time.monotonic() < deadline:
        for line in _at_client(office.lab, argv, "download files", seconds).splitlines():
            size, took_s = line.split()
            received, lasted_s = received + int(size), lasted_s + float(took_s)
    return {"gbit_per_s": received * 8 / lasted_s / 1e9, "bytes": received}


def _ping(office: Office, port: int, ask: Callable[[socket.socket, int], None], seconds: float) -> Figures:
    connection = call_in_namespace(office.lab.client, lambda: socket.create_connection((SERVER, port), timeout=WITHIN_S))
    took_ms: list[float] = []
    transferred = 0
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(16):  # what is slow once (ARP, the first packets of a connection) is not what an answer takes
            ask(connection, number)
        begin = time.perf_counter()
        for number in range(round(RATE_PER_S * seconds)):
            time.sleep(max(0.0, begin + number / RATE_PER_S - time.perf_counter()))
            asked = time.perf_counter()
            ask(connection, number)
            took_ms.append((time.perf_counter() - asked) * 1e3)
            transferred += 1
    cuts = statistics.quantiles(took_ms, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "requests": transferred}


def _at_client(lab: Lab, argv: list[Argument], explain: str, seconds: float) -> str:
    command = ["ip", "netns", "exec", lab.client, *argv]
    return run(command, explain=explain, timeout_s=60 + 10 * seconds).stdout


def _wait_for_port(lab: Lab, server: Running, port: int) -> None:
    listening = f":{port} "
    wait_until(server, lambda: listening in lab.at(lab.server, "ss", "-Hltn", explain="wait for a server"))


def _mail(attachment: bytes) -> bytes:
    from base64 import encodebytes

    head = (
        b"From: a@client.example\r\nTo: b@server.example\r\nSubject: bench\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--b\r\n'
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment; filename="a.bin"\r\n\r\n'
    )
    return head.replace(b"\r\n", b"\n") + encodebytes(attachment) + b"--b--\n"
