"""What the box tells about traffic: single events, and counts of what was looked at.

Whoever inspects makes these values; `mamori.events` carries, stores and shows them. Addresses are text as `ipaddress` writes
them, times are Unix seconds, and text that came off the wire may hold any character: whoever shows it escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_SUBJECT_CHARACTERS = 1000
"""Of an address or a name. The rest is cut off with an ellipsis: a URL of 64 KB is no news for people."""


MAX_OWN_CHARACTERS = 500
"""Of what the box tells of itself: an error message, or the first of many."""


class Function(Enum):
    """What the box does for its owner; each can be blocking, logging or off."""

    IPS = "ips"
    VIRUS = "virus"
    DANGEROUS_SITE = "dangerous-site"
    CATEGORY = "category"
    APPLICATION = "application"
    ADDRESS = "address"
    EVASION = "evasion"
    SYSTEM = "system"


class Action(Enum):
    """What was done. `UNSEEN`: it could not be looked at (encrypted, too large, scanner away), and the policy let it pass."""

    BLOCKED = "blocked"
    LOGGED = "logged"
    ALLOWED = "allowed"
    UNSEEN = "unseen"
    REPORTED = "reported"


class Heading(Enum):
    """Who began: a computer of the office, or someone outside."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    terminal_mac, terminal   the computer in the office: MAC as aa:bb:cc:dd:ee:ff ("" if unknown) and IP address
    peer, peer_port          the other end
    protocol                 `http`, `tls`, `quic`, `dns`, `smtp`, `tcp` …
    subject                  the URL, the name, the file: what it is about
    list_name                the list, signature or category set that had it; "" where there is none
    category                 of the list's entry: `phishing`, `gambling`; of a virus its name; of an application its key
    detail                   one line more, in English, for whoever looks closely
    """

    at_s: float
    function: Function
    action: Action
    heading: Heading
    terminal_mac: str
    terminal: str
    peer: str
    peer_port: int
    protocol: str
    subject: str
    list_name: str = ""
    category: str = ""
    detail: str = ""


def own_event(at_s: float, category: str, subject: str, detail: str = "") -> Event:
    """What the box tells of itself: `category` is one of the words in docs/events.md, for programs, `subject` a line for people."""
    subject, detail = subject[:MAX_OWN_CHARACTERS], detail[:MAX_OWN_CHARACTERS]
    return Event(at_s, Function.SYSTEM, Action.REPORTED, Heading.NONE, "", "", "", 0, "", subject, "", category, detail)


@dataclass(frozen=True, slots=True)
class Count:
    """How much of it there was since the last count: `scanned` looked at, `blocked` of them stopped. `unit` says of what:
    `file`, `flow`, `url`, `name`."""

    at_s: float
    function: Function
    unit: str
    terminal_mac: str
    terminal: str
    category: str
    scanned: int
    blocked: int


@dataclass(frozen=True, slots=True)
class TerminalSeen:
    """A computer said what it is called. `source` is the protocol that told: `dhcp`, `mdns`, `netbios`."""

    at_s: float
    mac: str
    address: str
    name: str
    source: str


Record = Event | Count | TerminalSeen
