"""What is said on a TCP connection, and what the policy makes of it: from bytes in order to words for the connection.

    sniffing ──▶ reading, by the protocol's reader ──▶ decided | blocked | unreadable

The words: `block` (how the connection is to be ended), `is_decided`, `is_unreadable`; for each packet whether it has to wait
(`read` and `end` say so); until when (HoldQueue.wait_until); and what to write over (HoldQueue.overwrites). Files are viruses.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any

from mamori.events.record import Action, Function
from mamori.inspect.blocking import TLS_ACCESS_DENIED, answer_infected, answer_request
from mamori.inspect.desk import Desk, ExpectedData, Owner, Parties
from mamori.inspect.errors import ParseError
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
    OpaqueData,
    QuestionSeen,
    Reader,
    RequestSeen,
    ResponseSeen,
    TlsBegins,
)
from mamori.inspect.flow import ORIGINATOR, RESPONDER, Flow
from mamori.inspect.ftp import FtpDataReader, FtpReader
from mamori.inspect.hold import HoldQueue
from mamori.inspect.http1_head import NO_HTTP
from mamori.inspect.imap import ImapReader
from mamori.inspect.interpose import DEFAULT_MSS, Answer, Cut
from mamori.inspect.mime import MailReader
from mamori.inspect.policy import Mode
from mamori.inspect.pop3 import Pop3Reader
from mamori.inspect.smtp import SmtpReader
from mamori.inspect.sniff import MAX_SNIFF_BYTES, Application, is_dns_query, sniff
from mamori.inspect.telling import Teller
from mamori.inspect.unread import TOO_MUCH_UNREAD
from mamori.inspect.viruses import Viruses
from mamori.inspect.web_reader import DnsConnectionReader, HttpReader, TlsConnectionReader

DNS_PORT = 53
"""DNS over TCP has no first bytes of its own: what nothing else fits is taken for it there."""

MAX_TUNNELS = 16
"""Connections inside of one: a request to a proxy for a tunnel, TLS in a protocol of text. More are made to be looked at."""

_READERS: dict[Application, Callable[[tuple[int, int]], Reader]] = {
    Application.HTTP: HttpReader,
    Application.TLS: TlsConnectionReader,
    Application.SMTP: partial(SmtpReader, mail=MailReader),
    Application.POP3: partial(Pop3Reader, mail=MailReader),
    Application.IMAP: partial(ImapReader, mail=MailReader),
    Application.FTP: FtpReader,
}
_SERVER_FIRST = frozenset({Application.SMTP, Application.POP3, Application.IMAP, Application.FTP})


class Session:
    """See the module. `mss`: the longest segment that the client is sure to take."""

    __slots__ = (
        *(
            "_begins_message",
            "_block",
            "_desk",
            "_expected",
            "_flow",
            "_has_request",
            "_heads",
            "_holding",
            "_kept_bytes",
            "_owner",
        ),
        *("_reader", "_starts", "_teller", "_tunnels", "is_decided", "is_unreadable", "mss", "viruses"),
    )

    def __init__(
        self,
        desk: Desk,
        flow: Flow[Any, str],
        parties: Parties,
        holds: tuple[HoldQueue, HoldQueue],
        expected: ExpectedData | None,
        owner: Owner,
    ) -> None:
        self._desk = desk
        self._flow = flow
        self._teller = Teller(desk, flow, parties, "ftp-data" if expected is not None else "tcp")
        self.viruses = Viruses(desk, self._teller, holds, owner)
        self._expected = expected
        self._owner = owner
        self._kept_bytes = 0
        self._holding = self._has_request = False
        self._begins_message = -1
        self._tunnels = 0
        self._block: Cut | Answer | None = None
        self.is_decided = self.is_unreadable = False
        self.mss = DEFAULT_MSS
        self._reader: Reader | None = None
        self._heads: tuple[bytes, bytes] | None = None
        self._starts = (0, 0)
        self._begin((0, 0))

    @property
    def parties(self) -> Parties:
        return self._teller.parties

    @parties.setter
    def parties(self, parties: Parties) -> None:
        self._teller.parties = parties

    @property
    def protocol(self) -> str:
        return self._teller.protocol

    @property
    def block(self) -> Cut | Answer | None:
        """How the connection is to be ended."""
        return self._block or self.viruses.block

    @property
    def is_over(self) -> bool:
        """Whether nothing more needs to be read."""
        return self.is_decided or self.is_unreadable or self.block is not None

    def begins_message(self, direction: int) -> bool:
        """Whether the last `read` came upon a message of HTTP in this direction."""
        return self._begins_message == direction

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
            self.viruses.subject = self._expected.subject
            self._feed(direction, data)
        self._account()
        unread = self._desk.unread
        while (keeper := unread.next_victim()) is not None:
            keeper.give_up()
        return self._holding

    def end(self, direction: int) -> bool:
        """One side is done; whether the packet that says so has to wait."""
        self._holding = False
        if self._reader is not None:
            try:
                self._on_findings(self._reader.end(direction), direction)
            except ParseError as error:
                self._on_parse_error(error)
        self._account()
        return self._holding

    def restart(self, direction: int) -> None:
        """This side begins anew with another SYN, and so does all that is said."""
        self.viruses.close()
        other = self._flow.stream(1 - direction).next
        self._begin((0, other) if direction == ORIGINATOR else (other, 0))

    def on_gap(self, why: str) -> bool:
        """Bytes passed that were not seen: where the rest belongs cannot be said. Whether the packet in hand has to wait."""
        self._holding = False
        self._give_in(why)
        return self._holding

    def close(self) -> None:
        """No more is read."""
        self.viruses.close()
        self._reader = self._heads = None
        self._account()

    def give_up(self) -> None:
        """Too much is kept for all connections together, and most of it here. HTTP is cut as where it cannot be read: else whoever
        opens enough connections would pass unseen."""
        if self.protocol == "http" and not self.is_over:
            self.on_evasion(TOO_MUCH_UNREAD)
        self._give_in(TOO_MUCH_UNREAD)
        self._reader = self._heads = None
        self._account()
        self._desk.set_timer(self._desk.now, self._owner)  # what waits here need not

    def _account(self) -> None:
        """Say what is kept now."""
        if self._reader is not None:
            kept_bytes = self._reader.held_bytes
        else:
            kept_bytes = len(self._heads[ORIGINATOR]) + len(self._heads[RESPONDER]) if self._heads is not None else 0
        if kept_bytes != self._kept_bytes:
            self._desk.unread.change(self, self._kept_bytes, kept_bytes)
            self._kept_bytes = kept_bytes

    def _begin(self, starts: tuple[int, int]) -> None:
        """Look at the bytes from these offsets on as at a new connection's."""
        self._starts = starts
        self._reader, self._heads = None, None if self._expected is not None else (b"", b"")

    def _sniff(self, heads: tuple[bytes, bytes], direction: int, data: bytes) -> None:
        heads = (heads[0] + data, heads[1]) if direction == ORIGINATOR else (heads[0], heads[1] + data)
        application = sniff(heads[ORIGINATOR][:MAX_SNIFF_BYTES], heads[RESPONDER][:MAX_SNIFF_BYTES])
        if application is None and self._flow.responder[1] == DNS_PORT and is_dns_query(heads[ORIGINATOR]):
            application = Application.UNKNOWN  # the server would have to speak first to say so, and has the question then
        if application is None:
            self._heads = heads
            return
        self._heads = None
        make = _READERS.get(application)
        if application is not Application.UNKNOWN:
            self._teller.protocol = application.value
        elif self._flow.responder[1] == DNS_PORT:
            make, self._teller.protocol = DnsConnectionReader, "dns"
        if make is None:
            self._judge_opaque(heads[ORIGINATOR], heads[RESPONDER])
            return
        if make is HttpReader:
            address, port = self._flow.responder
            make = partial(HttpReader, server=(self._desk.text_of(address), port))
        reader = self._reader = make(self._starts)
        for side in (RESPONDER, ORIGINATOR) if application in _SERVER_FIRST else (ORIGINATOR, RESPONDER):
            if heads[side] and not self.is_over:
                if self._reader is reader:
                    self._feed(side, heads[side])
                else:
                    self._feed_opaque(side, heads[side])

    def _feed(self, direction: int, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            return
        try:
            self._on_findings(reader.receive(direction, data), direction)
            if isinstance(reader, HttpReader) and reader is self._reader and not self.is_over:
                # What cannot be read behind the last message is told by the next call; these bytes must not pass before that.
                reader.check(direction)
        except ParseError as error:
            self._on_parse_error(error)

    def _feed_opaque(self, direction: int, data: bytes) -> None:
        """Bytes behind the place where another protocol began."""
        if self._heads is not None:
            self._sniff(self._heads, direction, data)
        else:
            self._feed(direction, data)

    def _on_parse_error(self, error: ParseError) -> None:
        streams = self._flow.stream(ORIGINATOR), self._flow.stream(RESPONDER)
        is_foreign = not self._has_request and str(error) in NO_HTTP  # RTSP, SIP and others begin with words of HTTP
        if self.protocol == "http" and not is_foreign and not any(stream.picked_up for stream in streams):
            self.on_evasion(f"cannot be read as HTTP: {error}")
        if self.block is None:
            self._give_in(str(error))

    def _give_in(self, why: str) -> None:
        """Nothing more can be said of this connection: it passes, and that is told. The files that were open are judged by what
        came of them."""
        if self.is_over:
            return
        # No server takes such a hello (tls.py), so nothing is hidden by it.
        if self.protocol != "tls":
            self._desk.tell(self.parties, Function.EVASION, Action.UNSEEN, self.protocol, self.viruses.subject, detail=why)
        self._holding = self.viruses.end_all() or self._holding
        self._reader = self._heads = None
        self.is_unreadable = True

    def on_evasion(self, text: str) -> None:
        """Something that peers read in more than one way."""
        mode = self._desk.judge.policy.evasion.mode
        if mode is Mode.OFF or not self._teller.is_news(f"evasion {text}"):
            return
        # Of mail and FTP nothing is cut for it: the readers read both ways, and broken but honest mailers are many.
        blocks = mode is Mode.BLOCK and self.protocol == "http" and not self._teller.is_exempt
        action = Action.BLOCKED if blocks else Action.LOGGED
        self._desk.tell(self.parties, Function.EVASION, action, self.protocol, self.viruses.subject, detail=text)
        self._desk.tally(self.parties, Function.EVASION, "flow", "", 1, int(blocks))
        if blocks:
            self._block = Cut(ORIGINATOR)

    # --- findings ----------------------------------------------------------------------------------------------------------

    def _on_findings(self, findings: Sequence[Finding], direction: int) -> None:
        viruses = self.viruses
        for finding in findings:
            if self.is_over:
                return
            match finding:
                case FileData():
                    self._holding = viruses.receive(finding, direction) or self._holding
                case RequestSeen():
                    self._begins_message, self._has_request = direction, True
                    self._on_request(finding)
                case ResponseSeen():
                    self._begins_message = direction
                case FileStarted():
                    viruses.begin(direction, finding, is_rest=self._expected is not None and self._expected.is_part)
                case FileEnded():
                    self._holding = viruses.end(finding, direction) or self._holding
                case FileUnseen():
                    viruses.lose(finding)
                case HelloSeen():
                    self._on_hello(finding)
                case QuestionSeen(name):
                    self._on_question(name)
                case AnomalySeen(_, _, text, is_evasion):
                    if is_evasion:
                        self.on_evasion(text)
                case DataConnectionExpected():
                    self._expect(finding)
                case TlsBegins(starts):
                    self._reader, self._teller.protocol = TlsConnectionReader(starts), "tls"
                case OpaqueBegins(start, protocol):
                    self._on_opaque(start, protocol, direction)
                case OpaqueData(data):
                    self._feed_opaque(direction, data)

    def _on_request(self, seen: RequestSeen) -> None:
        request, desk, judge = seen.request, self._desk, self._desk.judge
        addresses = [str(url) for url in request.urls]
        self.viruses.subject = addresses[0] if addresses else request.target
        contact = judge.policy.block_page.contact
        desk.tally(self.parties, Function.DANGEROUS_SITE, "url")
        if self._teller.is_exempt:
            return
        for address in addresses:
            signature = desk.recall_infected(address) if judge.policy.virus.mode is Mode.BLOCK else None
            if signature is not None:
                why = "it was infected when it was fetched before"
                desk.tell(self.parties, Function.VIRUS, Action.BLOCKED, "http", address, category=signature, detail=why)
                desk.tally(self.parties, Function.VIRUS, "file", signature, 1, 1)
                self._refuse(answer_infected(request, signature, contact))
                return
        for url, address in zip(request.urls, addresses, strict=True):
            judgement = judge.judge_url(url)
            if judgement.blocking is not None:
                self._teller.tell_blocked(judgement, address)
                self._refuse(answer_request(request, judgement.blocking, contact))
                return
            self._teller.tell_passed(judgement, address, url.host)

    def _refuse(self, page: bytes) -> None:
        """Answer the request in the server's place. Where an earlier response is still to come, the client would take the page for
        that one: the connection ends instead, and a client that pipelines asks again."""
        busy = isinstance(self._reader, HttpReader) and self._reader.is_answering
        self._block = Cut(ORIGINATOR) if busy else Answer(page, self.mss)

    def _on_hello(self, seen: HelloSeen) -> None:
        hello, judge, (address, port) = seen.hello, self._desk.judge, self._flow.responder
        name = hello.server_name
        self._desk.tally(self.parties, Function.DANGEROUS_SITE, "name" if name else "hidden name")
        application = judge.applications.by_alpn(hello.alpn) or judge.applications.by_port("tcp", port)
        judgement = judge.judge_hello(name, self._desk.text_of(address), application)
        subject = name or self.viruses.subject
        if judgement.blocking is not None and not self._teller.is_exempt:
            self._teller.tell_blocked(judgement, subject)
            self._block = Answer(TLS_ACCESS_DENIED, self.mss)
        else:
            self._teller.tell_passed(judgement, subject)
            self.is_decided = True

    def _on_question(self, name: str) -> None:
        """DNS over TCP, where no answer can be put in the place of another: what is to be refused is cut."""
        judge = self._desk.judge
        mode = judge.policy.dangerous_sites.dns
        if mode is Mode.OFF:
            return
        self._desk.tally(self.parties, Function.DANGEROUS_SITE, "question")
        judgement = judge.judge_name(name)
        blocking = judgement.blocking
        is_refused = mode is Mode.BLOCK and blocking is not None and blocking.function is Function.DANGEROUS_SITE
        if is_refused and not self._teller.is_exempt:
            self._teller.tell_blocked(judgement, name)
            self._block = Cut(ORIGINATOR)
        else:
            self._teller.tell_passed(judgement, name)

    def _judge_opaque(self, client: bytes, server: bytes) -> None:
        """A protocol that is not read: an application perhaps, and passed by the kernel from here on."""
        judge = self._desk.judge
        found = judge.applications.by_payload("tcp", client, server) or judge.applications.by_port("tcp", self._flow.responder[1])
        judgement = judge.judge_application(found)
        if judgement.blocking is not None and not self._teller.is_exempt:
            self._teller.tell_blocked(judgement, self.viruses.subject)
            self._block = Cut(ORIGINATOR)
        else:
            self._teller.tell_passed(judgement, self.viruses.subject)
            self.is_decided = True

    def _on_opaque(self, start: int, protocol: str, direction: int) -> None:
        self._tunnels += 1
        if protocol or self._tunnels > MAX_TUNNELS:
            self._teller.protocol = protocol or "tcp"
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
        self._desk.expect(address, port, expected.name, coding, subject, expected.is_part)
