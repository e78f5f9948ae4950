"""What Suricata tells: its EVE records, one line of JSON in one datagram each, as our events.

    {"timestamp": …, "event_type": "alert", "src_ip": …, "proto": "TCP", "alert": {"action": "blocked", "signature_id": …}, …}

(user guide, "Eve JSON Format".) The record says which packet matched; who began the connection is in its `flow`, and that is what
the owner wants to know: someone from outside, or a PC of the office. Names, URLs and addresses in a record come from the wire, by
way of Suricata's JSON: any character may be in them, and half a surrogate, which UTF-8 cannot carry, is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Event, Function, Heading
from mamori.inspect.errors import ParseError
from mamori.inspect.suricata.config import Network

MAX_RECORD_BYTES = 64 * 1024
"""A record without payloads, as we configure them, is 1 to 3 KB; with a URL of 8 KB that is all escapes, 50."""
RECEIVE_BUFFER_BYTES = 1024 * 1024
"""A burst of 500 alerts. What does not fit is lost, counted by nobody but Suricata (it never waits in this mode)."""
RECEIVE_LIMIT = 256
"""Records of one `receive`: what else the process does must not wait for a storm of alerts."""

_MAX_TEXT_CHARACTERS = 300
"""Of a signature's name or category: those of the ET rules are at most 200."""


class EveError(ParseError):
    """This is no EVE record of a shape that we know."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A signature matched. `client` and `server` are the ends of its connection, where there is one: else the packet's. `subject`
    is what the connection was about: a URL, a name, or nothing. `severity` is 1 (highest) to 4, `flow` Suricata's own number."""

    at_s: float
    flow: int
    signature: int
    revision: int
    title: str
    category: str
    severity: int
    is_blocked: bool
    transport: str
    application: str
    client: IPv4Address | IPv6Address
    client_port: int
    server: IPv4Address | IPv6Address
    server_port: int
    subject: str


def parse_record(line: bytes) -> Alert | None:
    """The alert in a record; None for a record of another type. EveError for what is neither."""
    if len(line) > MAX_RECORD_BYTES:
        raise EveError(f"a record of {len(line)} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise EveError(f"no JSON: {line[:60]!r}") from None
    if not isinstance(record, dict) or not isinstance(record.get("event_type"), str):
        raise EveError("no record with an event_type")
    return _parse_alert(record) if record["event_type"] == "alert" else None


def event_of(alert: Alert, home: Iterable[Network]) -> Event:
    """The event of an alert; `home` are the office's networks. The terminal's MAC is not known here.

    Heading: who began, when exactly one end is the office's. Between two ends in the office, or two outside (a multicast
    group, an address that we have not learned), the one that began counts as the terminal.
    """
    networks = tuple(home)
    client_home, server_home = (
        any(address in network for network in networks if network.version == address.version)
        for address in (alert.client, alert.server)
    )
    is_inbound = server_home and not client_home
    terminal, peer, peer_port = (
        (alert.server, alert.client, alert.client_port) if is_inbound else (alert.client, alert.server, alert.server_port)
    )
    heading = Heading.INBOUND if is_inbound else Heading.OUTBOUND if client_home and not server_home else Heading.NONE
    return Event(
        at_s=alert.at_s,
        function=Function.IPS,
        action=Action.BLOCKED if alert.is_blocked else Action.LOGGED,
        heading=heading,
        terminal_mac="",
        terminal=str(terminal),
        peer=str(peer),
        peer_port=peer_port,
        protocol=alert.application or alert.transport,
        subject=alert.subject,
        list_name=f"signature {alert.signature}:{alert.revision}",
        category=alert.category,
        detail=f"{alert.title} (severity {alert.severity})",
    )


class EveReader:
    """A bound socket that Suricata sends to. Readable (`fileno`) when records wait."""

    def __init__(self, receiver: socket.socket) -> None:
        self._socket = receiver
        self.malformed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, limit: int = RECEIVE_LIMIT) -> list[Alert]:
        """The alerts among the next records, at most `limit`; never blocks. What is no record is counted in `malformed`."""
        alerts = []
        for _ in range(limit):
            try:
                line = self._socket.recv(MAX_RECORD_BYTES + 1)
            except BlockingIOError:
                break
            try:
                alert = parse_record(line)
            except EveError:
                self.malformed += 1
                continue
            if alert is not None:
                alerts.append(alert)
        return alerts


@contextlib.contextmanager
def start_reader(path: Path, *, group: int | None = None) -> Iterator[EveReader]:
    """The socket at `path`, which whoever is in the `group` (a number; None: our own) may send to, as long as the block lasts.

    An old socket there is replaced. Suricata finds the new one by itself: it tries to connect again, once a second.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        path.unlink(missing_ok=True)
        receiver.bind(str(path))
        try:
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(0o660)  # sending takes the right to write
            yield EveReader(receiver)
        finally:
            path.unlink(missing_ok=True)


def _parse_alert(record: dict[str, object]) -> Alert:
    alert = _object(record, "alert")
    flow = _object(record, "flow")
    ends = flow if "src_ip" in flow and "dest_ip" in flow else record
    title = _text(alert, "signature", _MAX_TEXT_CHARACTERS)
    return Alert(
        at_s=_seconds(record.get("timestamp")),
        flow=_number(record, "flow_id", 2**64 - 1),
        signature=_number(alert, "signature_id", 2**32 - 1),
        revision=_number(alert, "rev", 2**32 - 1),
        title=title,
        category=_text(alert, "category", _MAX_TEXT_CHARACTERS),
        severity=_number(alert, "severity", 255),
        is_blocked=alert.get("action") == "blocked",
        transport=_text(record, "proto", 20).lower(),
        application=_application(record),
        client=_address(ends, "src_ip"),
        client_port=_number(ends, "src_port", 65535),
        server=_address(ends, "dest_ip"),
        server_port=_number(ends, "dest_port", 65535),
        subject=_shorten(_subject(record), MAX_SUBJECT_CHARACTERS),
    )


def _application(record: dict[str, object]) -> str:
    name = _text(record, "app_proto", 20)
    return "" if name in ("failed", "unknown", "none") else name


def _subject(record: dict[str, object]) -> str:
    """What people would call the connection's matter."""
    http, tls = _object(record, "http"), _object(record, "tls")
    if http:
        host, url = _text(http, "hostname"), _text(http, "url")
        return url if url.startswith(("http://", "https://")) else f"http://{host}{url}" if host else url
    if name := _text(tls, "sni") or _text(_object(record, "quic"), "sni"):
        return name
    queries = _object(record, "dns").get("query")
    query = queries[0] if isinstance(queries, list) and queries else queries
    if isinstance(query, dict):
        return _text(query, "rrname")
    return _text(_object(record, "fileinfo"), "filename")


def _object(record: dict[str, object], key: str) -> dict[str, object]:
    """Of things that may be missing: empty when it is not there, or is something else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _text(record: dict[str, object], key: str, longest: int = MAX_SUBJECT_CHARACTERS) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        return ""
    return _shorten(value, longest).encode(errors="replace").decode()


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _number(record: dict[str, object], key: str, highest: int) -> int:
    """0 when it is missing: ICMP has no ports, a packet without a flow no flow."""
    value = record.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise EveError(f"{key}: expected a number up to {highest}, got {_shown(value)}")
    return value


def _address(record: dict[str, object], key: str) -> IPv4Address | IPv6Address:
    value = record.get(key)
    try:
        if isinstance(value, str):
            return ip_address(value)
    except ValueError:
        pass
    raise EveError(f"{key}: expected an address, got {_shown(value)}")


def _seconds(value: object) -> float:
    """ISO 8601 with microseconds and an offset: 2026-11-23T09:20:18.457612+0000."""
    try:
        if isinstance(value, str):
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
    except (ValueError, OverflowError):
        pass
    raise EveError(f"timestamp: expected a time with its offset, got {_shown(value)}")


def _shown(value: object) -> str:
    """Not the `repr` of whatever JSON may hold: that of a deep list is a RecursionError, that of a long number slow."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__
