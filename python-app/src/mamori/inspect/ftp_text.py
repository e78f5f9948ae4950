"""What FTP's control connection says, line by line: commands, replies, and the addresses in them.

RFC 959, 1123 (4.1), 1639 (LPRT, LPSV), 2428 (EPRT, EPSV), 2640 (names in UTF-8), 3659 (REST). Servers and clients are the
measure: what one of them would understand is understood here.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from ipaddress import ip_address

MAX_PATH_CHARS = 4096
"""PATH_MAX of Linux, and vsftpd's longest command. A folder that grows beyond is forgotten, so that CWD cannot pile up memory."""

MAX_LISTENERS = 4
"""Addresses read from one line of a reply. There is one; more of them are for clients that pick another than the first."""

_AFTER_TELNET = (b"ABOR", b"STAT", b"QUIT")  # RFC 959, section 4.1.3: with Telnet's IP and Synch before them
_IAC, _SE, _WILL, _DONT = 0xFF, 0xF0, 0xFB, 0xFE
_REPLY = re.compile(rb"(\d\d\d)(-?)")
_SIX = re.compile(rb"(?<!\d)(\d{1,5})" + rb"[ \t]*,[ \t]*(\d{1,5})" * 5)
_NUMBERS = re.compile(rb"\d{1,5}(?:[ \t]*,[ \t]*\d{1,5}){8,40}")
# Any delimiter that is no digit (RFC 2428, section 3); between the first two stand at most a family and an address.
_EXTENDED = re.compile(rb"([^\w\s.:])[0-9]*\1[0-9A-Fa-f.:]*\1[ \t]*(\d{1,5})[ \t]*\1")
_QUOTED = re.compile(rb'"((?:[^"]|"")*)"')
_UNIQUE = re.compile(rb"FILE:[ \t]*(.+)", re.IGNORECASE)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Command:
    """`verb` is in upper case; `argument` as it came, without the spaces before it. `is_odd`: it holds bytes (NUL, CR, Telnet
    commands before something other than ABOR) that servers read in different ways."""

    verb: bytes
    argument: bytes
    is_odd: bool


def parse_command(line: bytes) -> Command:
    """The command in a line, without its LF. Any line is one, if perhaps one that no server knows."""
    line = line.rstrip(b"\r")
    plain = without_telnet(line)
    # A lone IAC is what is left when the DM behind it was sent as urgent data.
    head, _, rest = plain.lstrip(b" \t\xff").replace(b"\t", b" ", 1).partition(b" ")
    verb = head.upper()
    has_telnet = len(plain) + line.count(b"\xff\xff") != len(line) and verb not in _AFTER_TELNET
    return Command(verb, rest.lstrip(b" \t"), has_telnet or b"\0" in plain or b"\r" in plain)


def parse_reply(line: bytes) -> tuple[int, bool] | None:
    """Code, and whether more lines follow; None for a line that begins with no code."""
    found = _REPLY.match(line)
    return (int(found[1]), bool(found[2])) if found else None


def without_telnet(line: bytes) -> bytes:
    """The line without Telnet's commands (RFC 854); a doubled IAC is the byte itself. IAC before what is no command stays, as
    ProFTPD has it: it is the y with two dots of a Latin-1 name."""
    if _IAC not in line:
        return line
    plain, at = bytearray(), 0
    while (found := line.find(_IAC, at)) >= 0:
        plain += line[at:found]
        following = line[found + 1] if found + 1 < len(line) else 0
        if following < _SE:
            plain.append(_IAC)
            at = found + 1
        elif following == _IAC:
            plain.append(_IAC)
            at = found + 2
        else:
            at = found + (3 if _WILL <= following <= _DONT else 2)
    return bytes(plain + line[at:])


def parse_port(argument: bytes) -> tuple[str, int] | None:
    """Address and port of a PORT command or a 227 reply: six numbers, wherever they stand (RFC 1123, section 4.1.2.6)."""
    return next(iter(passive_listeners(argument)), None)


def passive_listeners(text: bytes) -> list[tuple[str, int]]:
    """All that a 227 reply may mean. Parentheses, words and spaces around the numbers are up to the server."""
    listeners = []
    for found in _SIX.finditer(text):
        numbers = [int(number) for number in found.groups()]
        if max(numbers) < 256 and (numbers[4] or numbers[5]):
            listeners.append((".".join(map(str, numbers[:4])), numbers[4] << 8 | numbers[5]))
            if len(listeners) == MAX_LISTENERS:
                break
    return listeners


def parse_extended_port(argument: bytes) -> tuple[str, int] | None:
    """Address and port of an EPRT command."""
    delimiter = argument[:1]
    parts = argument.split(delimiter) if delimiter else []
    if len(parts) < 4 or not re.fullmatch(rb"[ \t]*\d{1,5}[ \t]*", parts[3]) or not 0 < int(parts[3]) <= _MAX_PORT:
        return None
    address = parse_address(parts[2])
    return (address, int(parts[3])) if address else None


def extended_listener(text: bytes) -> int | None:
    """The port of a 229 reply. Its address, if it has one, is ignored by clients: it is the server's (RFC 2428, section 3)."""
    found = _EXTENDED.search(text)
    return int(found[2]) if found and 0 < int(found[2]) <= _MAX_PORT else None


def parse_long_port(text: bytes) -> tuple[str, int] | None:
    """Address and port of LPRT or of a 228 reply (RFC 1639): family, then the address and the port, each behind its length."""
    found = _NUMBERS.search(text)
    numbers = [int(number) for number in found[0].split(b",")] if found else []
    if not numbers or max(numbers) > 255 or numbers[1] not in (4, 16) or len(numbers) < 5 + numbers[1]:
        return None
    end = 2 + numbers[1]
    port = numbers[end + 1] << 8 | numbers[end + 2]
    return (str(ip_address(bytes(numbers[2:end]))), port) if numbers[end] == 2 and port else None


def parse_address(text: bytes) -> str | None:
    """An IP address in its one spelling; None if it is none."""
    try:
        return str(ip_address(text.strip().decode("ascii").strip("[]").partition("%")[0]))
    except ValueError:
        return None


def path_text(raw: bytes) -> str:
    """A path as people know it: UTF-8 (RFC 2640), or the Japanese Windows code page that older servers and scanners use."""
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except ValueError:
            continue
    return raw.decode("latin-1")


def join(folder: str, path: str) -> str:
    """`path` as seen from `folder`, without dots; "" is a folder of which nothing is known."""
    if not path:
        return folder
    path = path[-MAX_PATH_CHARS:]
    joined = posixpath.normpath(posixpath.join(folder, path))
    return joined if len(joined) <= MAX_PATH_CHARS else path


def quoted_path(text: bytes) -> str | None:
    """The folder in a 257 reply: in quotes, a quote inside doubled (RFC 959, appendix II)."""
    found = _QUOTED.search(text)
    return path_text(found[1].replace(b'""', b'"')) if found else None


def unique_name(text: bytes) -> str | None:
    """The name that a server has chosen for STOU (RFC 1123, section 4.1.2.9)."""
    found = _UNIQUE.search(text)
    return path_text(found[1].strip(b" \t\r\"'.")) if found else None
