"""What the computers of the office call themselves: read off the packets that they send to all.

    name = names_from_dhcp(payload)             # UDP 68 -> 67
    name = names_from_dhcp6(payload)            # UDP 546 -> 547
    name = names_from_mdns(payload, sender)     # UDP 5353 -> 5353, to 224.0.0.251 or ff02::fb
    name = names_from_netbios(payload)          # UDP 137 -> 137, broadcast

Anyone on the network can say any name, so a name is for people to read and decides nothing. Bytes that make no sense are no
name and no error: nothing hangs on them. Names keep whatever characters they came with, cut to MAX_NAME_CHARACTERS; those of mDNS
come in lower case, as all names of DNS here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from struct import unpack_from

from mamori.inspect.dns import Message, Record, parse_message
from mamori.inspect.errors import ParseError

MAX_NAME_CHARACTERS = 100
"""More than a label of DNS (63 bytes) or a NetBIOS name (15) has; DHCP option 12 could bring 255."""

_BOOTREQUEST, _ETHERNET, _MAC_BYTES = 1, 1, 6
_SNAME_AT, _FILE_AT, _COOKIE_AT, _OPTIONS_AT = 44, 108, 236, 240
_COOKIE = b"\x63\x82\x53\x63"
_PAD, _HOST_NAME, _REQUESTED, _OVERLOAD, _KIND, _FQDN, _END = 0, 12, 50, 52, 53, 81, 255
_DISCOVER, _REQUEST, _INFORM = 1, 3, 8
"""RFC 2131 and 2132: where the fields and which the options are."""

_FQDN_CANONICAL = 0x04
"""Flag E of option 81: the name is in DNS's wire format (RFC 4702, section 2.1)."""

_CLIENT_KINDS6 = frozenset({1, 3, 4, 5, 6, 11})
"""Solicit, Request, Confirm, Renew, Rebind, Information-request (RFC 8415, section 7.3). A relay's message is not its client's
frame."""

_FQDN6 = 39
"""RFC 4704, section 4."""

_REGISTRATION, _REFRESH, _REFRESH_TOO, _MULTIHOMED = 5, 8, 9, 15
_NB, _GROUP = 0x20, 0x8000
_WORKSTATION, _FILE_SERVER = 0x00, 0x20
"""RFC 1002, section 4.2.1.1 and 4.2.1.3; 9 is what a misprint there made others send, 15 is Windows' own. Suffixes are the names'
sixteenth byte: of others (browser elections, users) the name is not the computer's."""

_NETBIOS_NAME = re.compile(r"[a-p]{32}")
_RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A UUID: browsers make one up for each WebRTC call (draft-ietf-mmusic-mdns-ice-candidates, section 3.1.1)."""

_MEANINGLESS = frozenset({"", "localhost", "localhost.localdomain", "(none)", "unknown"})


@dataclass(frozen=True, slots=True)
class TerminalName:
    """`mac` and `address` are "" where the message does not say them or could not be believed: the frame's then hold. `source` is
    `dhcp`, `mdns` or `netbios`."""

    name: str
    mac: str
    address: str
    source: str


def names_from_dhcp(payload: bytes) -> TerminalName | None:
    """The name in a DHCPv4 client's Discover, Request or Inform: of option 12, else 81."""
    if len(payload) < _OPTIONS_AT or payload[:3] != bytes([_BOOTREQUEST, _ETHERNET, _MAC_BYTES]):
        return None
    if payload[_COOKIE_AT:_OPTIONS_AT] != _COOKIE:
        return None
    options = _dhcp_options(payload)
    kind = options.get(_KIND, b"")
    if kind not in (bytes([_DISCOVER]), bytes([_REQUEST]), bytes([_INFORM])):
        return None
    name = _readable(options.get(_HOST_NAME, b"")) or _fqdn(options.get(_FQDN, b""))
    if not name:
        return None
    # What a Discover asks for is a wish; a Request is nearly always granted, and a new one follows if not.
    address = payload[12:16]
    if kind[0] == _REQUEST and not any(address) and len(options.get(_REQUESTED, b"")) == 4:
        address = options[_REQUESTED]
    text = str(IPv4Address(address)) if any(address) and kind[0] != _DISCOVER else ""
    return TerminalName(name, payload[28:34].hex(":"), text, "dhcp")


def names_from_dhcp6(payload: bytes) -> TerminalName | None:
    """The name in a DHCPv6 client's message: option 39. Its identifier may have the MAC of another of its network cards
    (RFC 8415, section 11.2), so the frame's is better."""
    if len(payload) < 4 or payload[0] not in _CLIENT_KINDS6:
        return None
    at = 4
    while at + 4 <= len(payload):
        code, length = unpack_from(">HH", payload, at)
        at += 4
        if code == _FQDN6 and 1 < length <= len(payload) - at:
            name = _first_label(payload[at + 1 : at + length])
            return TerminalName(name, "", "", "dhcp") if name else None
        at += length
    return None


def names_from_mdns(payload: bytes, sender: str) -> TerminalName | None:
    """The name `NAME.local` that a multicast DNS answer gives to the address that it comes from (RFC 6762). Names of other
    addresses do not count: sleep proxies and reflectors answer for others, with a MAC address of their own."""
    try:
        message, address = parse_message(payload), ip_address(sender)
    except (ParseError, ValueError):
        return None
    if not message.is_response or message.opcode:
        return None
    for record in _records(message):
        if record.data != address:
            continue
        label, _, rest = _split_label(record.name)
        name = _readable(label)
        if rest == "local" and name and not _RANDOM.fullmatch(name):
            return TerminalName(name, "", sender, "mdns")
    return None


def names_from_netbios(payload: bytes) -> TerminalName | None:
    """The name of its own that a Windows computer or a Samba server registers or refreshes (RFC 1002, section 4.2.2 to 4.2.4)."""
    try:
        message = parse_message(payload)
    except ParseError:
        return None
    if message.is_response or message.opcode not in (_REGISTRATION, _REFRESH, _REFRESH_TOO, _MULTIHOMED) or not message.questions:
        return None
    encoded = message.questions[0].name.partition(".")[0]
    content = next((record.data for record in message.additionals if record.kind == _NB), b"")
    if not _NETBIOS_NAME.fullmatch(encoded) or not isinstance(content, bytes) or len(content) < 6:
        return None
    if int.from_bytes(content[:2], "big") & _GROUP:
        return None
    # First-level encoding, RFC 1001, section 14.1: each half of a byte is a letter from A on.
    halves = [ord(letter) - ord("a") for letter in encoded]
    decoded = bytes(high << 4 | low for high, low in zip(halves[::2], halves[1::2], strict=True))
    name = _readable(decoded[:15])
    if decoded[15] not in (_WORKSTATION, _FILE_SERVER) or not name:
        return None
    return TerminalName(name, "", str(IPv4Address(content[2:6])), "netbios")


def _dhcp_options(payload: bytes) -> dict[int, bytes]:
    """All options, also of those fields that option 52 says hold more; the parts of a long one are joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    _add_options(options, payload[_OPTIONS_AT:])
    overload = options.get(_OVERLOAD, b"\0")[:1]
    if overload in (b"\1", b"\3"):
        _add_options(options, payload[_FILE_AT:_COOKIE_AT])
    if overload in (b"\2", b"\3"):
        _add_options(options, payload[_SNAME_AT:_FILE_AT])
    return options


def _add_options(options: dict[int, bytes], field: bytes) -> None:
    parts: dict[int, list[bytes]] = {}
    at = 0
    while at < len(field) and field[at] != _END:
        if field[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(field) or at + 2 + field[at + 1] > len(field):
            break
        parts.setdefault(field[at], []).append(field[at + 2 : at + 2 + field[at + 1]])
        at += 2 + field[at + 1]
    for code, pieces in parts.items():
        options[code] = options.get(code, b"") + b"".join(pieces)


def _fqdn(option: bytes) -> str:
    """Option 81: flags, two bytes of the past, and a name, in wire format or as text."""
    if len(option) < 4:
        return ""
    return _first_label(option[3:]) if option[0] & _FQDN_CANONICAL else _readable(option[3:].partition(b".")[0])


def _first_label(name: bytes) -> str:
    """Of a name in DNS's wire format. Clients that know only their host name send it without the final zero."""
    return _readable(name[1 : 1 + name[0]]) if name and 0 < name[0] < 64 else ""


def _readable(raw: bytes) -> str:
    """The name as text, "" if it says nothing. Older Windows in Japan writes its own code page, some clients a final NUL."""
    raw = raw.partition(b"\0")[0].strip()
    for encoding in ("utf-8", "cp932"):
        try:
            name = raw.decode(encoding)
            break
        except (UnicodeDecodeError, LookupError):  # a small Python may lack the code page
            continue
    else:
        name = raw.decode("utf-8", "replace")
    name = name[:MAX_NAME_CHARACTERS].strip()
    return "" if name.lower() in _MEANINGLESS else name


def _records(message: Message) -> Iterator[Record]:
    yield from message.answers
    yield from message.additionals


def _split_label(name: str) -> tuple[bytes, str, str]:
    """The first label as its bytes, and the rest: the reverse of names.domain_name, where a dot inside a label is escaped."""
    label = bytearray()
    at = 0
    while at < len(name) and name[at] != ".":
        if name[at] != "\\":
            label.append(ord(name[at]))
            at += 1
        elif name[at + 1 : at + 4].isdigit():
            label.append(int(name[at + 1 : at + 4]))
            at += 4
        else:
            label.append(ord(name[at + 1]))
            at += 2
    return bytes(label), name[at : at + 1], name[at + 1 :]
