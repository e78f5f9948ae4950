"""FTP (RFC 959 and its extensions, see ftp_text): where the next data connection will be, and which file it carries.

    reader = FtpReader()
    for finding in reader.receive(direction, data): ...     # DataConnectionExpected, TlsBegins, OpaqueBegins, AnomalySeen

A data connection is told as soon as it is known who listens (sender None, name ""), because clients connect before they say what
for, and told again when the transfer is asked for. `name` is then the path, with the folder as far as it was seen. Of a listing it
is the folder with a `/` behind it, and sender is None; of STOU it is "" until the server has chosen.

Every listener with an address is told a second time with the address "": curl and Python connect to the server whatever a 227
reply says, and some servers to the client whatever PORT says. Without PORT and PASV a server connects to the client's end of
the control connection (RFC 959, section 3.2): that is port 0. What the server then refuses just never happens.

Replies come in the order of the commands, but servers lose count (ABOR, blank lines), so a reply that fits one kind of command
only also says which were answered before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NoReturn

from mamori.inspect.errors import ParseError
from mamori.inspect.findings import AnomalySeen, Coding, DataConnectionExpected, Finding, OpaqueBegins, TlsBegins
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.ftp_data import FtpDataReader as FtpDataReader  # so that both readers of FTP are found here
from mamori.inspect.ftp_text import (
    Command,
    extended_listener,
    join,
    parse_command,
    parse_extended_port,
    parse_long_port,
    parse_port,
    parse_reply,
    passive_listeners,
    path_text,
    quoted_path,
    unique_name,
    without_telnet,
)

MAX_LINE_BYTES = 16 << 10
"""A line without an end. A path has at most 4096 bytes (PATH_MAX), and servers take no longer commands."""

MAX_WAITING = 256
"""Commands without a reply. Clients wait, or pipeline a handful; a queue without an end is an attack on memory."""

MAX_HELD_BYTES = 64 << 10
"""What a client may send behind AUTH before its answer: nothing, or a first TLS flight from one that does not wait."""

_RESTS = frozenset((b"REST", b"RANG"))
_TRANSFERS = {b"RETR": RESPONDER, b"STOR": ORIGINATOR, b"STOU": ORIGINATOR, b"APPE": ORIGINATOR}
_LISTINGS = frozenset((b"LIST", b"NLST", b"MLSD"))
_DATA = frozenset(_TRANSFERS) | _LISTINGS
_FOLDERS = frozenset((b"CWD", b"XCWD", b"CDUP", b"XCUP"))
_PRINTS = frozenset((b"PWD", b"XPWD"))
_LOGINS = frozenset((b"USER", b"REIN"))
_PASSIVE = frozenset((b"PASV", b"EPSV", b"LPSV", b"CPSV", b"SPSV"))
_TLS = frozenset((b"TLS", b"TLS-C", b"TLS-P", b"SSL"))
_ANSWERS = {
    125: _DATA,
    150: _DATA,
    227: frozenset((b"PASV", b"CPSV", b"SPSV")),
    228: frozenset((b"LPSV",)),
    229: frozenset((b"EPSV",)),
    234: frozenset((b"AUTH",)),
    257: frozenset((b"PWD", b"XPWD", b"MKD", b"XMKD")),
    334: frozenset((b"AUTH", b"ADAT")),
    335: frozenset((b"ADAT",)),
    350: frozenset((b"REST", b"RANG", b"RNFR")),
}
"""Replies that answer only these commands, though servers may give others too (RFC 959, section 5.4)."""

_WELL_KNOWN_PORTS = 1024


class FtpError(ParseError):
    """No FTP, or beyond its limits."""


@dataclass(frozen=True, slots=True)
class _Listener:
    side: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command that waits for its reply."""

    command: Command
    start: int
    end: int
    listener: _Listener | None = None  # that of PORT and its kin


class FtpReader:
    """Reads both directions of a control connection, from its first bytes. See `findings.Reader`."""

    __slots__ = (
        *("_ahead", "_asked", "_at", "_buffers", "_failure", "_folder", "_greeted", "_held", "_is_over", "_is_used"),
        *("_listeners", "_mode", "_multiline", "_rest", "_type"),
    )

    def __init__(self, starts: tuple[int, int] = (0, 0)) -> None:
        """`starts` are the stream offsets of the first bytes."""
        self._at = list(starts)
        self._buffers = (bytearray(), bytearray())
        self._held: bytearray | None = None  # behind AUTH
        self._asked: deque[_Asked] = deque()
        self._greeted = False
        self._multiline: int | None = None  # the code that a reply of several lines began with
        self._listeners: tuple[_Listener, ...] = ()
        self._is_used = False  # by a transfer since
        self._folder = self._ahead = ""  # where the server said we are, and where we are if all goes well
        self._rest = b""
        self._type, self._mode = b"A", b"S"
        self._is_over = False  # what follows is TLS, or otherwise not ours
        self._failure: str | None = None

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self._buffers)) + len(self._held or b"")

    @property
    def coding(self) -> Coding:
        """How the next file lies in its data connection, by the last TYPE and MODE."""
        if self._mode != b"S":
            return Coding.COMPRESSED
        return Coding.TEXT if self._type in (b"A", b"E") else Coding.BINARY

    def receive(self, direction: int, data: bytes | memoryview) -> list[Finding]:
        """The next bytes of a direction. FtpError once a limit is passed, and from then on."""
        if self._failure is not None:
            raise FtpError(self._failure)
        findings: list[Finding] = []
        if not self._is_over:
            try:
                self._receive(direction, data, findings)
            except FtpError as error:
                self._failure = str(error)
                self._forget()
                if not findings:
                    raise
        return findings

    def end(self, direction: int) -> list[Finding]:
        """A last line without an end is read like others, as ProFTPD does."""
        return self.receive(direction, b"\n") if self._buffers[direction] else []

    def _receive(self, direction: int, data: bytes | memoryview, findings: list[Finding]) -> None:
        if direction == ORIGINATOR and self._held is not None:
            if len(self._held) + len(data) > MAX_HELD_BYTES:
                _fail("too much behind AUTH")
            self._held += data
            return
        buffer = self._buffers[direction]
        seen = len(buffer)
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", max(start, seen)) + 1) > 0:
            line = bytes(buffer[start : end - 1])
            first, self._at[direction] = self._at[direction], self._at[direction] + end - start
            start = end
            if len(line) > MAX_LINE_BYTES:
                _fail("a line that is too long")
            if direction == RESPONDER:
                self._read_reply(line, first, findings)
            else:
                self._read_command(line, first, findings)
                if self._held is not None:
                    self._held += buffer[start:]
                    start = len(buffer)
            if self._is_over:
                return
        del buffer[:start]
        if len(buffer) > MAX_LINE_BYTES:
            _fail("a line that is too long")

    def _forget(self) -> None:
        self._buffers = (bytearray(), bytearray())
        self._held = None
        self._asked.clear()

    # --- what the client says ---

    def _read_command(self, line: bytes, start: int, findings: list[Finding]) -> None:
        command = parse_command(line)
        end = self._at[ORIGINATOR]
        if command.is_odd:
            findings.append(AnomalySeen(start, end, "an FTP command with control characters", is_evasion=True))
        if not command.verb:
            return
        if len(self._asked) == MAX_WAITING:
            _fail("too many commands without a reply")
        asked = _Asked(command, start, end, _active_listener(command))
        if command.verb in _DATA:
            self._expect_transfer(asked, findings)
        elif asked.listener:
            if asked.listener.port < _WELL_KNOWN_PORTS:
                text = f"FTP asks the server to connect to port {asked.listener.port}"
                findings.append(AnomalySeen(start, end, text, is_evasion=False))  # RFC 2577, section 3: the bounce attack
            findings += _expectations((asked.listener,), None, "")
        elif command.verb in _FOLDERS:
            self._ahead = _entered(self._ahead, command)
        elif command.verb == b"AUTH":
            self._held = bytearray()
        self._asked.append(asked)

    def _expect_transfer(self, asked: _Asked, findings: list[Finding]) -> None:
        """Tell what the data connection will carry, unless a passive one is asked for and not agreed yet: then with its reply."""
        listeners, rest = self._listeners, self._rest
        for before in self._asked:
            verb = before.command.verb
            if before is asked:
                break
            if verb in _PASSIVE:
                return
            if before.listener:
                listeners = (before.listener,)
            elif verb in _RESTS or verb in _DATA:
                rest = before.command.argument if verb in _RESTS else b""
        verb = asked.command.verb
        is_part = verb in _TRANSFERS and bool((numbers := rest.split()[:1]) and numbers[0].strip(b"0"))
        if is_part:
            text = f"FTP carries the part of a file from byte {path_text(numbers[0][:20])} on"
            findings.append(AnomalySeen(asked.start, asked.end, text, is_evasion=False))
        if not listeners or (self._is_used and listeners[0].side == RESPONDER):
            listeners += (_Listener(ORIGINATOR, "", 0),)
        self._rest = b""
        self._is_used = True
        findings += _expectations(listeners, _TRANSFERS.get(verb), self._name(asked.command), is_part)

    def _name(self, command: Command) -> str:
        """The path of what is transferred. Changes of the folder that have no reply yet are taken to succeed."""
        if command.verb == b"STOU":
            return ""
        if command.verb in _TRANSFERS:
            return join(self._ahead, path_text(command.argument))
        path = b" ".join(word for word in command.argument.split(b" ") if not word.startswith(b"-"))  # `LIST -la folder`
        return join(self._ahead, path_text(path)).rstrip("/") + "/"

    # --- what the server says ---

    def _read_reply(self, line: bytes, start: int, findings: list[Finding]) -> None:
        line = without_telnet(line.rstrip(b"\r"))
        reply = parse_reply(line)
        if reply and reply[0] in (227, 228, 229):
            self._read_listener(reply[0], line[3:], start, findings)  # on any line: clients do not agree which one counts
        if reply is None or (self._multiline is not None and reply != (self._multiline, False)):
            return
        code, goes_on = reply
        self._multiline = code if goes_on else None
        if goes_on:
            return
        if not self._greeted:
            self._greeted = code // 100 != 1  # 120: ready in some minutes
            return
        self._catch_up(code)
        if self._asked and code // 100 == 1:
            if self._asked[0].command.verb == b"STOU" and (name := unique_name(line)):
                findings += _expectations(self._listeners, ORIGINATOR, join(self._folder, name))
        elif self._asked:
            self._finish(self._asked.popleft(), code, line, findings)

    def _catch_up(self, code: int) -> None:
        """Forget the commands that must have been answered before this reply."""
        verbs = _ANSWERS.get(code, frozenset())
        place = next((index for index, asked in enumerate(self._asked) if asked.command.verb in verbs), 0)
        for _ in range(place):
            self._asked.popleft()

    def _read_listener(self, code: int, text: bytes, start: int, findings: list[Finding]) -> None:
        places: list[tuple[str, int]] = []
        if code == 229:
            places = [("", port)] if (port := extended_listener(text)) else []
        elif code == 228:
            places = [place] if (place := parse_long_port(text)) else []
        else:
            places = passive_listeners(text)
        if not places:
            return
        listeners = tuple(_Listener(RESPONDER, *place) for place in dict.fromkeys(places))
        if len(listeners) > 1 or (self._multiline is not None and not self._is_used and self._listeners not in ((), listeners)):
            findings.append(AnomalySeen(start, self._at[RESPONDER], "an FTP reply with several addresses", is_evasion=True))
        self._listeners, self._is_used = listeners, False
        findings += _expectations(listeners, None, "")

    def _finish(self, asked: _Asked, code: int, line: bytes, findings: list[Finding]) -> None:
        """The command has its last reply."""
        verb, argument, is_done = asked.command.verb, asked.command.argument, code // 100 == 2
        if verb in _PASSIVE:
            self._expect_pipelined(findings)
        elif asked.listener and is_done:
            self._listeners, self._is_used = (asked.listener,), False
        elif verb in _RESTS and code // 100 == 3:
            self._rest = b"" if any(one.command.verb in _DATA for one in self._asked) else argument
        elif verb in (*_FOLDERS, *_PRINTS, *_LOGINS):
            self._change_folder(asked.command, code, line)
        elif verb == b"TYPE" and is_done:
            self._type = argument[:1].upper()
        elif verb == b"MODE" and is_done:
            self._mode = argument[:1].upper()
            if self._mode != b"S":
                text = f"FTP carries files in mode {path_text(self._mode)}"
                findings.append(AnomalySeen(asked.start, asked.end, text, is_evasion=False))
        elif verb in (b"AUTH", b"ADAT"):
            self._secure(asked, code, findings)

    def _expect_pipelined(self, findings: list[Finding]) -> None:
        """A transfer that was asked for before it was known who listens."""
        asked = next((asked for asked in self._asked if asked.command.verb in _DATA | _PASSIVE), None)
        if asked and asked.command.verb in _DATA:
            self._expect_transfer(asked, findings)

    def _change_folder(self, command: Command, code: int, line: bytes) -> None:
        if command.verb in _LOGINS:
            self._folder = ""
        elif code == 257:
            self._folder = join("", quoted_path(line) or "")
        elif code // 100 == 2 and command.verb in _FOLDERS:
            self._folder = _entered(self._folder, command)
        if not any(asked.command.verb in _FOLDERS for asked in self._asked):
            self._ahead = self._folder

    def _secure(self, asked: _Asked, code: int, findings: list[Finding]) -> None:
        """AUTH (RFC 2228, 4217). curl takes 334 for a yes, Python any 2yz."""
        start, held = asked.end, bytes(self._held or b"")
        is_tls = asked.command.verb == b"AUTH" and asked.command.argument.strip().upper() in _TLS
        if is_tls and (code // 100 == 2 or code == 334):
            if held and held[:1] not in (b"\x16", b"\x80"):
                text = "FTP commands between AUTH TLS and its reply"
                findings.append(AnomalySeen(start, start + len(held), text, is_evasion=True))
            findings.append(TlsBegins((start, self._at[RESPONDER])))
        elif not is_tls and code // 100 == 2:
            findings.append(OpaqueBegins(start, "ftp-security"))
        else:
            self._held = None
            if held:
                self._receive(ORIGINATOR, held, findings)
            return
        self._is_over = True
        self._forget()


def _active_listener(command: Command) -> _Listener | None:
    parse = {b"PORT": parse_port, b"EPRT": parse_extended_port, b"LPRT": parse_long_port}.get(command.verb)
    place = parse(command.argument) if parse else None
    return _Listener(ORIGINATOR, *place) if place else None


def _entered(folder: str, command: Command) -> str:
    """The folder that CWD or CDUP leads to."""
    up = command.verb in (b"CDUP", b"XCUP")
    return join(folder, ".." if up else path_text(command.argument))


def _expectations(
    listeners: tuple[_Listener, ...], sender: int | None, name: str, is_part: bool = False
) -> list[DataConnectionExpected]:
    places = dict.fromkeys((side, address, port) for one in listeners for side, address, port in _places(one))
    return [DataConnectionExpected(side, address, port, sender, name, is_part) for side, address, port in places]


def _places(one: _Listener) -> tuple[tuple[int, str, int], ...]:
    here = (one.side, "", one.port)
    return ((one.side, one.address, one.port), here) if one.address else (here,)


def _fail(what: str) -> NoReturn:
    raise FtpError(what)
