"""What is said on a TCP connection, and what the policy makes of it: from bytes in order to words for the connection.

    sniffing ──▶ reading, by the protocol's reader ──▶ decided | blocked | unreadable

The words: `block` (how the connection is to be ended), `is_decided`, `is_unreadable`; for each packet whether it has to wait
(`read` and `end` say so); until when (HoldQueue.wait_until); and what to write over (HoldQueue.overwrites).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any

from mamori.events.record import Action, Function
from mamori.inspect.blocking import TLS_ACCESS_DENIED, answer_infected, answer_request
from mamori.inspect.desk import Desk, ExpectedData, Parties, ScanOwner, address_text
from mamori.inspect.errors import ParseError
from mamori.inspect.files import CarriedFile, Files, can_overwrite
from mamori.inspect.findings import (
    AnomalySeen,
    Coding,
    DataConnectionExpected,
    FileData,
    FileEnded,
    FileStarted,
    FileUnseen,
    Finding,
    HelloSeen,
    OpaqueBegins,
    QuestionSeen,
    Reader,
    RequestSeen,
    ResponseSeen,
    TlsBegins,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER, Flow
from mamori.inspect.ftp import FtpDataReader, FtpReader
from mamori.inspect.hold import HoldQueue
from mamori.inspect.imap import ImapReader
from mamori.inspect.interpose import Answer, Cut
from mamori.inspect.judge import Judgement
from mamori.inspect.mime import MailReader
from mamori.inspect.policy import Mode, Unseen
from mamori.inspect.pop3 import Pop3Reader
from mamori.inspect.smtp import SmtpReader
from mamori.inspect.sniff import MAX_SNIFF_BYTES, Application, sniff
from mamori.inspect.web_reader import DnsConnectionReader, HttpReader, TlsConnectionReader

DNS_PORT = 53
"""DNS over TCP has no first bytes of its own."""

_READERS: dict[Application, Callable[[tuple[int, int]], Reader]] = {
    Application.HTTP: HttpReader,
    Application.TLS: TlsConnectionReader,
    Application.SMTP: partial(SmtpReader, mail=MailReader),
    Application.POP3: partial(Pop3Reader, mail=MailReader),
    Application.IMAP: partial(ImapReader, mail=MailReader),
    Application.FTP: FtpReader,
}
_DELIVERED_WHOLE = frozenset({"smtp", "pop3", "imap", "ftp-data"})
_SERVER_FIRST = frozenset({Application.SMTP, Application.POP3, Application.IMAP, Application.FTP})


class Session:
    """See the module."""

    __slots__ = (
        *(
            "_begins_message",
            "_desk",
            "_expected",
            "_files",
            "_flow",
            "_heads",
            "_holding",
            "_holds",
            "_judged",
            "_reader",
            "_starts",
        ),
        *("_subject", "block", "is_decided", "is_unreadable", "parties", "protocol"),
    )

    def __init__(
        self,
        desk: Desk,
        flow: Flow[Any, str],
        parties: Parties,
        holds: tuple[HoldQueue, HoldQueue],
        expected: ExpectedData | None,
        owner: ScanOwner,
    ) -> None:
        self._desk = desk
        self._flow = flow
        self._holds = holds
        self._files = Files(desk, owner)
        self._judged: set[str] = set()
        self._expected = expected
        self._holding = False
        self._begins_message = -1
        self._subject = f"{parties.peer}:{parties.peer_port}"
        self.parties = parties
        self.protocol = "ftp-data" if expected is not None else "tcp"
        self.block: Cut | Answer | None = None
        self.is_decided = self.is_unreadable = False
        self._reader: Reader | None = None
        self._heads: tuple[bytearray, bytearray] | None = None
        self._starts = (0, 0)
        self._begin((0, 0))

    @property
    def is_over(self) -> bool:
        """Whether nothing more needs to be read."""
        return self.block is not None or self.is_decided or self.is_unreadable

    @property
    def delivers_whole(self) -> bool:
        """Whether what is infected is written over instead of cut, so that bytes must not run ahead."""
        return self.protocol in _DELIVERED_WHOLE

    def begins_message(self, direction: int) -> bool:
        """Whether the last `read` came upon a message of HTTP in this direction."""
        return self._begins_message == direction

    def has_open_file(self, direction: int) -> bool:
        return self._files.open_in(direction)

    def forget_ranges(self, direction: int, before: int) -> None:
        """What lies before this offset is out."""
        self._files.forget_ranges(direction, before)

    # --- bytes -------------------------------------------------------------------------------------------------------------

    def read(self, direction: int, data: bytes) -> bool:
        """The next bytes of one side; whether the packet that brought them has to wait."""
        self._holding, self._begins_message = False, -1
        if self._heads is not None:
            self._sniff(self._heads, direction, data)
        elif self._reader is not None:
            self._feed(direction, data)
        elif self._expected is not None:
            # The first bytes of an FTP data connection: by now the command that says what they are has been seen.
            self._reader = FtpDataReader(self._expected.name, direction, coding=self._expected.coding)
            self._subject = self._expected.subject
            self._feed(direction, data)
        return self._holding

    def end(self, direction: int, reset: bool) -> bool:
        """One side is done; whether the packet that says so has to wait."""
        self._holding = False
        if reset:
            self._files.close()
            for hold in self._holds:
                hold.wait_until = None
        elif self._reader is not None:
            try:
                self._on_findings(self._reader.end(direction), direction)
            except ParseError as error:
                self._on_parse_error(error)
        return self._holding

    def restart(self) -> None:
        """The connection begins anew with another SYN."""
        self._files.close()
        self._begin((0, 0))

    def on_gap(self, why: str) -> None:
        """Bytes passed that were not seen: where the rest belongs cannot be said."""
        self._give_in(why)

    def close(self) -> None:
        """No more is read."""
        self._files.close()
        self._reader = self._heads = None
        for hold in self._holds:
            hold.wait_until = None

    def _begin(self, starts: tuple[int, int]) -> None:
        """Look at the bytes from these offsets on as at a new connection's."""
        self._starts = starts
        self._heads, self._reader = None, None
        if self._expected is not None:
            return
        if self._flow.responder[1] == DNS_PORT:
            self._reader, self.protocol = DnsConnectionReader(starts), "dns"
        else:
            self._heads = (bytearray(), bytearray())

    def _sniff(self, heads: tuple[bytearray, bytearray], direction: int, data: bytes) -> None:
        heads[direction].extend(data)
        application = sniff(bytes(heads[ORIGINATOR][:MAX_SNIFF_BYTES]), bytes(heads[RESPONDER][:MAX_SNIFF_BYTES]))
        if application is None:
            return
        self._heads = None
        if application is not Application.UNKNOWN:
            self.protocol = application.value
        make = _READERS.get(application)
        if make is None:
            self._judge_opaque(bytes(heads[ORIGINATOR]), bytes(heads[RESPONDER]))
            return
        if application is Application.HTTP:
            address, port = self._flow.responder
            self._reader = HttpReader(self._starts, (address_text(address), port))
        else:
            self._reader = make(self._starts)
        for side in (RESPONDER, ORIGINATOR) if application in _SERVER_FIRST else (ORIGINATOR, RESPONDER):
            if heads[side] and not self.is_over:
                self._feed(side, bytes(heads[side]))

    def _feed(self, direction: int, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            return
        try:
            self._on_findings(reader.receive(direction, data), direction)
        except ParseError as error:
            self._on_parse_error(error)

    def _on_parse_error(self, error: ParseError) -> None:
        seen_whole = not (self._flow.stream(ORIGINATOR).picked_up or self._flow.stream(RESPONDER).picked_up)
        if self.protocol == "http" and seen_whole:
            self.on_evasion(f"cannot be read as HTTP: {error}")
        if self.block is None:
            self._give_in(str(error))

    def _give_in(self, why: str) -> None:
        """Nothing more can be said of this connection: it passes, and that is told."""
        if self.is_over:
            return
        # No server takes such a hello (tls.py), so nothing is hidden by it.
        if self.protocol != "tls":
            self._desk.tell(self.parties, Function.EVASION, Action.UNSEEN, self.protocol, self._subject, detail=why)
        self.close()
        self.is_unreadable = True

    def on_evasion(self, text: str) -> None:
        """Something that peers read in more than one way."""
        mode = self._desk.judge.policy.evasion.mode
        if mode is Mode.OFF or text in self._judged:
            return
        self._judged.add(text)
        # Of mail and FTP nothing is cut for it: the readers read both ways, and broken but honest mailers are many.
        blocks = mode is Mode.BLOCK and self.protocol == "http" and not self._is_exempt
        action = Action.BLOCKED if blocks else Action.LOGGED
        self._desk.tell(self.parties, Function.EVASION, action, self.protocol, self._subject, detail=text)
        self._desk.tally(self.parties, Function.EVASION, "flow", "", 1, int(blocks))
        if blocks:
            self.block = Cut(ORIGINATOR)

    # --- findings ----------------------------------------------------------------------------------------------------------

    def _on_findings(self, findings: Sequence[Finding], direction: int) -> None:
        for finding in findings:
            if self.is_over:
                return
            match finding:
                case FileData():
                    self._on_file_data(finding, direction)
                case RequestSeen():
                    self._begins_message = direction
                    self._on_request(finding)
                case ResponseSeen():
                    self._begins_message = direction
                case FileStarted():
                    if self._desk.judge.policy.virus.mode is not Mode.OFF and not self._is_exempt:
                        self._files.begin(direction, finding)
                case FileEnded():
                    self._on_file_end(finding, direction)
                case FileUnseen(file, _, reason):
                    lost = self._files.lose(file, reason)
                    if lost is not None:
                        self._on_scan(lost)
                case HelloSeen():
                    self._on_hello(finding)
                case QuestionSeen(name):
                    self._tell_once(name, self._desk.judge.judge_name(name))
                case AnomalySeen(_, _, text, is_evasion):
                    if is_evasion:
                        self.on_evasion(text)
                case DataConnectionExpected():
                    self._expect(finding)
                case TlsBegins(starts):
                    self._reader, self.protocol = TlsConnectionReader(starts), "tls"
                case OpaqueBegins(start, protocol):
                    self._on_opaque(start, protocol, direction)

    def _on_request(self, seen: RequestSeen) -> None:
        request, desk, judge = seen.request, self._desk, self._desk.judge
        self._subject = str(request.urls[0]) if request.urls else request.target
        contact = judge.policy.block_page.contact
        desk.tally(self.parties, Function.DANGEROUS_SITE, "url")
        if self._is_exempt:
            return
        for address in map(str, request.urls):
            signature = desk.recall_infected(address) if judge.policy.virus.mode is Mode.BLOCK else None
            if signature is not None:
                why = "it was infected when it was fetched before"
                desk.tell(self.parties, Function.VIRUS, Action.BLOCKED, "http", address, category=signature, detail=why)
                self._refuse(answer_infected(request, signature, contact))
                return
        for url in request.urls:
            judgement = judge.judge_url(url)
            if judgement.blocking is not None:
                self._tell(str(url), judgement, True)
                self._refuse(answer_request(request, judgement.blocking, contact))
                return
            self._tell_once(url.host, judgement, subject=str(url))

    def _refuse(self, page: bytes) -> None:
        """Answer the request in the server's place. Where an earlier response is still to come, the client would take the page for
        that one: the connection ends instead, and a client that pipelines asks again."""
        busy = isinstance(self._reader, HttpReader) and self._reader.is_answering
        self.block = Cut(ORIGINATOR) if busy else Answer(page)

    def _on_hello(self, seen: HelloSeen) -> None:
        hello, judge, port = seen.hello, self._desk.judge, self._flow.responder[1]
        name = hello.server_name
        self._desk.tally(self.parties, Function.DANGEROUS_SITE, "name" if name else "hidden name")
        if name is None:
            application = judge.applications.by_alpn(hello.alpn) or judge.applications.by_port("tcp", port)
            judgement = judge.judge_application(application)
        else:
            judgement = judge.judge_name(name)
        if judgement.blocking is not None and not self._is_exempt:
            self._tell(name or self._subject, judgement, True)
            self.block = Answer(TLS_ACCESS_DENIED)
        else:
            self._tell_once(name or self._subject, judgement)
            self.is_decided = True

    def _judge_opaque(self, client: bytes, server: bytes) -> None:
        """A protocol that is not read: an application perhaps, and passed by the kernel from here on."""
        judge = self._desk.judge
        found = judge.applications.by_payload("tcp", client, server) or judge.applications.by_port("tcp", self._flow.responder[1])
        judgement = judge.judge_application(found)
        if judgement.blocking is not None and not self._is_exempt:
            self._tell(self._subject, judgement, True)
            self.block = Cut(ORIGINATOR)
        else:
            self._tell_once(self._subject, judgement)
            self.is_decided = True

    def _on_opaque(self, start: int, protocol: str, direction: int) -> None:
        if protocol:
            self.protocol = protocol
            self._judge_opaque(b"", b"")
            return
        # A tunnel (CONNECT): what is inside is looked at as if it were a connection of its own.
        other = self._flow.stream(1 - direction).next
        self._begin((start, other) if direction == ORIGINATOR else (other, start))

    def _expect(self, expected: DataConnectionExpected) -> None:
        host = self._flow.originator[0] if expected.listener == ORIGINATOR else self._flow.responder[0]
        try:
            address = ip_address(expected.address).packed if expected.address else host
        except ValueError:
            address = host
        subject = f"ftp://{self.parties.peer}/{expected.name.lstrip('/')}"
        # Without PORT and PASV the server connects to the client's port of the control connection (RFC 959, 3.2).
        port = expected.port or self._flow.originator[1]
        coding = self._reader.coding if isinstance(self._reader, FtpReader) else Coding.BINARY
        self._desk.expect(address, port, expected.name, coding, subject)

    # --- files -------------------------------------------------------------------------------------------------------------

    @property
    def _blocks_viruses(self) -> bool:
        return self._desk.judge.policy.virus.mode is Mode.BLOCK

    def _on_file_data(self, data: FileData, direction: int) -> None:
        carried = self._files.feed(data, self.delivers_whole and self._blocks_viruses)
        if carried is None:
            return
        if carried.is_overwritten and data.end > data.start:
            self._holds[direction].overwrite(data.start, data.end, data.coding)
        elif (self.delivers_whole or carried.ends_with_stream) and self._blocks_viruses and carried.unseen is None:
            # A file that only the stream's end ends would be out before its verdict: no packet of it is known to be the last.
            self._holding = True

    def _on_file_end(self, ended: FileEnded, direction: int) -> None:
        carried = self._files.end(ended.file, ended.is_complete)
        if carried is None or not carried.is_waiting or not self._blocks_viruses:
            return
        self._holding = True
        hold = self._holds[direction]
        if hold.wait_until is None:
            hold.wait_until = self._desk.now + self._desk.judge.policy.virus.hold_ms / 1000

    def give_up(self, direction: int) -> None:
        """The scanner did not answer in time, or too much waits for it."""
        for file in self._files.overdue(direction):
            self.scanned(file, None, "the scanner did not answer in time")

    def scanned(self, file: int, signature: str | None, unseen: str | None) -> None:
        """The scanner's word; see Connection.scanned."""
        carried = self._files.judge(file, signature, unseen)
        if carried is None:
            return
        if signature is None and unseen is None:
            self._desk.tally(self.parties, Function.VIRUS, "file")
        else:
            self._on_scan(carried)
        if not self._files.waiting(carried.direction):
            self._holds[carried.direction].wait_until = None

    def _on_scan(self, carried: CarriedFile) -> None:
        """A file that is not clean, or of which nothing is known."""
        virus = self._desk.judge.policy.virus
        infected = carried.signature is not None
        blocks = virus.mode is Mode.BLOCK and (infected or virus.unseen is Unseen.BLOCK)
        action = Action.BLOCKED if blocks else Action.LOGGED if infected else Action.UNSEEN
        carrier = carried.subject if carried.subject and self.protocol != "ftp-data" else self._subject
        subject = carrier if not carried.name or carried.name in carrier else f"{carrier} {carried.name}"
        category, detail = carried.signature or "", carried.unseen or ""
        if action is not Action.UNSEEN or self._desk.is_news(detail):
            self._desk.tell(self.parties, Function.VIRUS, action, self.protocol, subject, category=category, detail=detail)
        self._desk.tally(self.parties, Function.VIRUS, "file" if infected else "unseen file", category, 1, int(blocks))
        if not blocks:
            return
        if infected and self.protocol in ("http", "ftp-data"):
            self._desk.remember_infected(carrier, category)
        if self.delivers_whole and can_overwrite(carried):
            carried.is_overwritten = True
            for each in carried.ranges:
                self._holds[carried.direction].overwrite(*each)
        else:
            self.block = Cut(carried.direction)

    # --- telling -----------------------------------------------------------------------------------------------------------

    @property
    def _is_exempt(self) -> bool:
        judge = self._desk.judge
        return judge.has_allowed_addresses and (
            judge.allows_address(self._flow.originator[0]) or judge.allows_address(self._flow.responder[0])
        )

    def _tell_once(self, key: str, judgement: Judgement, subject: str = "") -> None:
        """What a name means, once for a connection; it was not blocked."""
        if judgement.matches and key not in self._judged:
            self._judged.add(key)
            self._tell(subject or key, judgement, False)

    def _tell(self, subject: str, judgement: Judgement, is_blocked: bool) -> None:
        blocking = judgement.blocking if is_blocked else None
        passed = Action.ALLOWED if judgement.is_allowed or self._is_exempt else Action.LOGGED
        for match in judgement.matches if blocking is None else (blocking,):
            action, names = Action.BLOCKED if is_blocked else passed, {"list_name": match.list_name, "category": match.category}
            self._desk.tell(self.parties, match.function, action, self.protocol, subject, **names)
            self._desk.tally(self.parties, match.function, "flow", match.category, 1, int(is_blocked))
