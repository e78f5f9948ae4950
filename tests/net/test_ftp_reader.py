"""What vsftpd, curl and Python's ftplib say to each other: tcpdump records it, and the readers find every file in it."""

from __future__ import annotations

import ftplib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace, start_namespace
from firmware.process import run, start
from mamori.inspect.capture import CaptureError, read_capture
from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    DataConnectionExpected,
    FileData,
    FileEnded,
    FileStarted,
    Finding,
    TlsBegins,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER, Flow, FlowTable
from mamori.inspect.ftp import FtpDataReader, FtpReader
from mamori.inspect.ftp_data import data_sender
from mamori.inspect.packet import ACK, FIN, SYN, TCP, Packet, parse_packet
from mamori.inspect.reassembly import Closed, Data
from tests.support.ftp_servers import CONTROL_PORT, start_ftp_server
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.wait import check_until, patience_s

CONTENT = seeded(5).randbytes(300_000)


@dataclass
class DataConnection:
    """A data connection, and what its reader found."""

    was_expected: bool
    expected: DataConnectionExpected | None = None
    reader: FtpDataReader | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    is_complete: bool = False
    coding: Coding | None = None


@dataclass
class Control:
    """A control connection: its reader, and what each side said."""

    reader: FtpReader = field(default_factory=FtpReader)
    said: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))


@dataclass
class Session:
    """All that was seen. The control connections come one after the other."""

    controls: dict[Flow[None, None], Control] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    expected: dict[tuple[bytes, int], DataConnectionExpected] = field(default_factory=dict)
    connections: dict[Flow[None, None], DataConnection] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        return {name: data for one in self.connections.values() for name, data in one.files.items()}

    def tell(self, packet: Packet, flow: Flow[None, None], direction: int) -> None:
        """What a bridge does with a packet of TCP."""
        is_control = flow.responder[1] == CONTROL_PORT
        if packet.flags & SYN and not packet.flags & ACK and not is_control:
            self.connections[flow] = DataConnection(flow.responder in self.expected)
        for event in flow.stream(direction).receive(packet.sequence, packet.payload, packet.flags, packet.urgent):
            if isinstance(event, Data) and is_control:
                control = self.controls.setdefault(flow, Control())
                control.said[direction].extend(event.data)
                self._learn(control.reader.receive(direction, event.data), flow)
            elif isinstance(event, Data):
                self._read(self.connections[flow], flow, direction, bytes(event.data))
            elif isinstance(event, Closed) and not is_control and packet.flags & FIN:
                self._read(self.connections[flow], flow, direction, None)
        if packet.flags & ACK:
            flow.stream(1 - direction).acknowledge(packet.acknowledgement)

    def _learn(self, findings: list[Finding], flow: Flow[None, None]) -> None:
        self.findings += findings
        for finding in findings:
            if isinstance(finding, DataConnectionExpected):
                host = (flow.originator, flow.responder)[finding.listener][0]
                self.expected[ip_address(finding.address).packed if finding.address else host, finding.port] = finding

    def _read(self, one: DataConnection, flow: Flow[None, None], direction: int, data: bytes | None) -> None:
        if not one.was_expected:
            return  # agreed on inside TLS
        if one.reader is None:
            one.expected = self.expected[flow.responder]
            coding = list(self.controls.values())[-1].reader.coding
            one.reader = FtpDataReader(one.expected.name, data_sender(one.expected), coding=coding)
        findings = one.reader.end(direction) if data is None else one.reader.receive(direction, data)
        for finding in findings:
            if isinstance(finding, FileStarted):
                one.files[finding.subject] = b""
            elif isinstance(finding, FileData):
                one.files[one.expected.name if one.expected else ""] += finding.data
                one.coding = finding.coding
            elif isinstance(finding, FileEnded):
                one.is_complete = finding.is_complete
            else:
                raise AssertionError(finding)


def read_session(file: Path) -> Session:
    """What tcpdump has written so far."""
    session, table = Session(), FlowTable[None, None]()
    with suppress(CaptureError), file.open("rb") as opened:
        for captured in read_capture(opened):
            packet = parse_packet(captured.data)
            if packet.protocol == TCP:
                flow, direction = table.receive(packet, captured.at_s)
                session.tell(packet, flow, direction)
    return session


@dataclass
class Lab:
    namespace: str
    folder: Path
    capture: Path

    def curl(self, *arguments: str | Path) -> None:
        argv = ["ip", "netns", "exec", self.namespace, "curl", "-sS", "--fail", *arguments]
        run(argv, explain="ask an FTP server", timeout_s=patience_s(30))

    def session(self, goodbyes: int = 1) -> Session:
        """What was seen, once so many control connections have ended."""

        def ended() -> int:
            controls = read_session(self.capture).controls.values()
            return sum(b"\r\n221" in control.said[RESPONDER] for control in controls)

        check_until("the sessions are recorded to their ends", lambda: ended() == goodbyes, within_s=15)
        return read_session(self.capture)


@contextmanager
def start_lab(folder: Path, more: str = "") -> Iterator[Lab]:
    """vsftpd with a private configuration, tcpdump beside it."""
    need(os.geteuid() == 0, "network namespaces and vsftpd need root")
    for tool, why in (("curl", "is a client"), ("tcpdump", "records the session")):
        need(tool, why)
    capture, log = folder / "a.pcap", folder / "tcpdump.log"
    with start_namespace(f"mamori-ftp-{os.getpid()}") as namespace:
        tcpdump = ["tcpdump", "-n", "-U", "-s", "70000", "-B", "32768", "-i", "lo", "-w", capture, "tcp"]
        recording = start(["ip", "netns", "exec", namespace, *tcpdump], explain="record", log=log)
        with recording, start_ftp_server(folder, namespace, more) as server:
            (server.pub / "a.bin").write_bytes(CONTENT)
            (server.pub / "見積書.xlsx").write_bytes(b"secret")
            check_until("tcpdump listens", lambda: log.exists() and b"listening on" in log.read_bytes(), within_s=10)
            yield Lab(namespace, folder, capture)


def check_connections(session: Session, count: int) -> None:
    """Each data connection was announced before it came, and was a whole file when it ended."""
    connections = list(session.connections.values())
    assert len(connections) == count
    assert all(one.was_expected and one.is_complete and one.reader for one in connections)
    assert all(control.reader.held_bytes == 0 for control in session.controls.values())


WAYS = {
    "EPSV": ((), "127.0.0.1"),
    "PASV": (("--disable-epsv",), "127.0.0.1"),
    "EPRT": (("--ftp-port", "-"), "127.0.0.1"),
    "PORT": (("--ftp-port", "-", "--disable-eprt"), "127.0.0.1"),
    "EPSV over IPv6": (("--globoff",), "[::1]"),
    "EPRT over IPv6": (("--globoff", "--ftp-port", "-"), "[::1]"),
}


@pytest.mark.parametrize(("options", "host"), WAYS.values(), ids=WAYS)
def test_what_curl_fetches_lists_and_sends_is_read(tmp_path: Path, options: tuple[str, ...], host: str) -> None:
    got, sent = tmp_path / "got", tmp_path / "sent"
    sent.write_bytes(CONTENT[:100_000])
    url = f"ftp://{host}"
    with start_lab(tmp_path) as lab:
        lab.curl(*options, "-o", got, f"{url}/pub/a.bin", "-o", tmp_path / "list", f"{url}/pub/")
        lab.curl(*options, "-T", sent, f"{url}/in/new.bin")
        session = lab.session(goodbyes=2)
    assert got.read_bytes() == CONTENT
    check_connections(session, 3)
    names = {name.lstrip("/"): data for name, data in session.files.items()}
    assert b"a.bin" in names.pop("pub/")
    assert names == {"pub/a.bin": CONTENT, "in/new.bin": CONTENT[:100_000]}
    assert not [one for one in session.findings if isinstance(one, AnomalySeen)]
    senders = {one.expected.name.lstrip("/"): one.expected.sender for one in session.connections.values() if one.expected}
    assert senders == {"pub/a.bin": RESPONDER, "pub/": None, "in/new.bin": ORIGINATOR}


def test_a_resumed_download_is_the_rest_of_a_file(tmp_path: Path) -> None:
    got = tmp_path / "got"
    got.write_bytes(CONTENT[:1000])
    with start_lab(tmp_path) as lab:
        lab.curl("-C", "1000", "-o", got, "ftp://127.0.0.1/pub/a.bin")
        session = lab.session()
    check_connections(session, 1)
    assert list(session.files.values()) == [CONTENT[1000:]]
    assert [one.text for one in session.findings if isinstance(one, AnomalySeen)] == [
        "FTP carries the part of a file from byte 1000 on"
    ]


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_what_ftplib_does_is_read(tmp_path: Path, family: socket.AddressFamily, passive: bool) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    got: list[bytes] = []

    def work() -> None:
        with ftplib.FTP(address, timeout=patience_s(20)) as client:  # noqa: S321 - that is what is tested
            client.set_pasv(passive)
            client.login()
            client.cwd("pub")
            client.retrlines("LIST", lambda _: None)
            client.retrbinary("RETR 見積書.xlsx", got.append)
            client.cwd("/in")
            client.storlines("STOR text", io.BytesIO(b"one\ntwo\n"))
            client.storbinary("STOR empty", io.BytesIO(b""))
            with suppress(ftplib.error_perm):
                client.retrbinary("RETR missing", got.append)
            client.storbinary("STOR last", io.BytesIO(CONTENT))

    with start_lab(tmp_path) as lab:
        call_in_namespace(lab.namespace, work)
        session = lab.session()
    assert b"".join(got) == b"secret"
    files = session.files
    assert b"a.bin" in files.pop("pub/")
    assert files == {"pub/見積書.xlsx": b"secret", "/in/text": b"one\r\ntwo\r\n", "/in/empty": b"", "/in/last": CONTENT}
    codings = {one.expected.name: one.coding for one in session.connections.values() if one.expected and one.coding}
    assert (codings["/in/text"], codings["/in/last"]) == (Coding.TEXT, Coding.BINARY)
    assert all(one.was_expected for one in session.connections.values())


def test_after_auth_tls_each_side_speaks_tls(tmp_path: Path) -> None:
    need("openssl", "makes a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    run(argv, explain="make a certificate")
    with start_lab(
        tmp_path, f"ssl_enable=YES\nallow_anon_ssl=YES\nrsa_cert_file={certificate}\nrsa_private_key_file={key}\n"
    ) as lab:
        lab.curl("--ssl-reqd", "--insecure", "-o", tmp_path / "got", "ftp://127.0.0.1/pub/a.bin")

        def said() -> tuple[bytearray, bytearray]:
            controls = list(read_session(lab.capture).controls.values())
            return controls[0].said if controls else (bytearray(), bytearray())

        check_until("both sides have said more than a hello", lambda: min(map(len, said())) > 500, within_s=15)
        (begins,) = read_session(lab.capture).findings
        client, server = said()
    assert isinstance(begins, TlsBegins)
    assert client[: begins.starts[0]].endswith((b"AUTH SSL\r\n", b"AUTH TLS\r\n"))
    assert [bytes(client[begins.starts[0] :][:2]), bytes(server[begins.starts[1] :][:2])] == [b"\x16\x03"] * 2
    assert (tmp_path / "got").read_bytes() == CONTENT
