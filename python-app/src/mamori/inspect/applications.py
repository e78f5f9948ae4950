"""Which application a flow belongs to: LINE, a game, BitTorrent, a VPN. What it means is for the policy to say.

Evidence, the strongest first. A caller asks in this order with what it has, and takes the first answer:

    by_payload   the first bytes: the protocol itself says so
    by_name      the name in a TLS or QUIC hello, a Host field or a DNS question; the longest suffix wins
    by_alpn      the protocols that a hello offers
    by_port      the responder's port, only for protocols that nothing else is known to use; for flows that nothing else explains

The entries are data (data/applications.toml). A wrong answer blocks an office's work, so they hold only what belongs to one
application: names that many share (googleapis.com, akamaized.net) are not there, and names of widgets and pixels that any site
carries are under `nobody`, so that a news site with a button is not taken for a social network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, NamedTuple

from mamori.formats.problems import BadInputError, Problem
from mamori.formats.strict import Between, Matches, parse, parse_toml

MAX_PAYLOAD_BYTES = 2048
"""Of each side, what signatures look at: a datagram as large as Ethernet carries, for some know it by its length."""

MAX_SIGNATURE_CHARS = 400
"""A signature is a few fixed bytes with their places; a longer one is a mistake."""

_KEY = r"[a-z0-9][a-z0-9-]{0,62}"
_NAME = Matches(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+", "a lower-case domain name of two labels or more")
_TEXT = Matches(r"[^\x00-\x1f]{1,60}", "one line of at most 60 characters")
_Port = Annotated[int, Between(1, 65_535)]


class Transport(Enum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class Group:
    """What people call a kind of applications."""

    ja: Annotated[str, _TEXT]
    en: Annotated[str, _TEXT]


@dataclass(frozen=True)
class Signature:
    """Regular expressions over bytes, at the very start of what each side sends; `.` is any byte. If there are two, both must
    match."""

    protocol: Transport
    client: str = ""
    server: str = ""


@dataclass(frozen=True)
class Entry:
    """An application as the file has it. `names` match with everything below them."""

    ja: Annotated[str, _TEXT]
    en: Annotated[str, _TEXT]
    group: Annotated[str, Matches(_KEY, "the key of a group")]
    names: tuple[Annotated[str, _NAME], ...] = ()
    alpn: tuple[Annotated[str, Matches(r"[!-~]{1,255}", "an ALPN protocol")], ...] = ()
    tcp: tuple[_Port, ...] = ()
    udp: tuple[_Port, ...] = ()
    payload: tuple[Signature, ...] = ()


@dataclass(frozen=True)
class _File:
    groups: Mapping[str, Group]
    applications: Mapping[str, Entry]
    nobody: tuple[Annotated[str, _NAME], ...] = ()


@dataclass(frozen=True, slots=True)
class Application:
    """`key` is what a policy and an event call it, `ja` and `en` what people do, `group` a key of `Applications.groups`."""

    key: str
    ja: str
    en: str
    group: str


class _Compiled(NamedTuple):
    client: re.Pattern[bytes] | None
    server: re.Pattern[bytes] | None
    application: Application


class Applications:
    """All that are known, ready to be asked. Immutable; a new file makes a new one."""

    __slots__ = ("_alpn", "_labels", "_names", "_ports", "_signatures", "all", "groups")

    def __init__(self, file: _File, signatures: Mapping[str, tuple[_Compiled, ...]]) -> None:
        """For load_applications, which checks what it gives."""
        self.groups: Mapping[str, Group] = file.groups
        self.all: Mapping[str, Application] = MappingProxyType({key: _known(key, one) for key, one in file.applications.items()})
        self._names: dict[str, Application | None] = dict.fromkeys(file.nobody)
        self._alpn: dict[str, Application] = {}
        self._ports: dict[tuple[str, int], Application] = {}
        self._signatures = signatures
        for key, entry in file.applications.items():
            self._names.update(dict.fromkeys(entry.names, self.all[key]))
            self._alpn.update(dict.fromkeys(entry.alpn, self.all[key]))
            for protocol, ports in (("tcp", entry.tcp), ("udp", entry.udp)):
                self._ports.update({(protocol, port): self.all[key] for port in ports})
        self._labels = max((name.count(".") + 1 for name in self._names), default=1)

    def by_name(self, name: str) -> Application | None:
        """The application of this name (lower-case, no final dot) or of the nearest name above it. A lookup per label, and no more
        than the longest entry has."""
        labels = name.rsplit(".", self._labels)[-self._labels :]
        for first in range(len(labels) - 1):
            suffix = ".".join(labels[first:])
            if suffix in self._names:
                return self._names[suffix]
        return None

    def by_alpn(self, protocols: Iterable[bytes | str]) -> Application | None:
        """The application of the first of these protocols that has one."""
        for protocol in protocols:
            found = self._alpn.get(protocol if isinstance(protocol, str) else protocol.decode("latin-1"))
            if found is not None:
                return found
        return None

    def by_payload(self, protocol: str, client: bytes, server: bytes) -> Application | None:
        """The application whose signature fits what client and server sent first over `protocol` (`tcp` or `udp`): the start of a
        stream, or one whole datagram. None may turn into an answer when more has come. The first entry that fits wins."""
        client, server = client[:MAX_PAYLOAD_BYTES], server[:MAX_PAYLOAD_BYTES]
        for one in self._signatures.get(protocol, ()):
            if (one.client is None or one.client.match(client)) and (one.server is None or one.server.match(server)):
                return one.application
        return None

    def by_port(self, protocol: str, port: int) -> Application | None:
        """The application that a port of a responder stands for."""
        return self._ports.get((protocol, port))


def load_applications(text: str, source: str) -> Applications:
    """The applications in a TOML text; BadInputError names everything that is wrong with it."""
    file = parse(_File, parse_toml(text, source), source)
    problems = [
        Problem(source, f"applications.{key}", "a key of lower-case letters, digits and hyphens", repr(key))
        for key in file.applications
        if not re.fullmatch(_KEY, key)
    ]
    problems += _doubles(file, source)
    signatures: dict[str, tuple[_Compiled, ...]] = {}
    for key, entry in file.applications.items():
        if entry.group not in file.groups:
            problems.append(Problem(source, f"applications.{key}.group", f"one of {', '.join(file.groups)}", repr(entry.group)))
        if not (entry.names or entry.alpn or entry.tcp or entry.udp or entry.payload):
            problems.append(Problem(source, f"applications.{key}", "names, alpn, ports or payload", "nothing to know it by"))
        for index, signature in enumerate(entry.payload):
            place = f"applications.{key}.payload[{index}]"
            client = _pattern(signature.client, f"{place}.client", source, problems)
            server = _pattern(signature.server, f"{place}.server", source, problems)
            if not signature.client and not signature.server:
                problems.append(Problem(source, place, "client, server or both", "neither"))
            protocol = signature.protocol.value
            signatures[protocol] = (*signatures.get(protocol, ()), _Compiled(client, server, _known(key, entry)))
    if problems:
        raise BadInputError(problems)
    return Applications(file, signatures)


def own_applications() -> Applications:
    """Those that come with the software."""
    source = "applications.toml"
    return load_applications(files("mamori.inspect").joinpath("data", source).read_text("utf-8"), source)


def _known(key: str, entry: Entry) -> Application:
    return Application(key, entry.ja, entry.en, entry.group)


def _pattern(text: str, place: str, source: str, problems: list[Problem]) -> re.Pattern[bytes] | None:
    if not text:
        return None
    if len(text) > MAX_SIGNATURE_CHARS:
        problems.append(Problem(source, place, f"at most {MAX_SIGNATURE_CHARS} characters", str(len(text))))
        return None
    try:
        pattern = re.compile(text.encode("ascii"), re.DOTALL)
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        problems.append(Problem(source, place, "a regular expression over bytes, in ASCII", f"{text!r} ({error})"))
        return None
    if pattern.match(b""):
        problems.append(Problem(source, place, "an expression that needs some bytes", f"{text!r}, which matches nothing at all"))
    return pattern


def _doubles(file: _File, source: str) -> list[Problem]:
    """What is listed twice, within an entry or in two."""
    seen: dict[tuple[str, object], str] = {("names", name): "nobody" for name in file.nobody}
    problems = [
        Problem(source, "nobody", "every name once", repr(name)) for name in set(file.nobody) if file.nobody.count(name) > 1
    ]
    for key, entry in file.applications.items():
        for field in ("names", "alpn", "tcp", "udp"):
            for value in getattr(entry, field):
                before = seen.setdefault((field, value), f"applications.{key}")
                if before != f"applications.{key}" or getattr(entry, field).count(value) > 1:
                    problems.append(Problem(source, f"applications.{key}.{field}", f"{value!r} once", f"it is also in {before}"))
    return problems
