"""One flow of datagrams under inspection: QUIC by its hello, DNS by its questions, applications by their first bytes."""

from __future__ import annotations

from typing import Any

from mamori.events.record import Action, Function
from mamori.inspect.commands import Accept, Drop, Replace
from mamori.inspect.craft import CraftError, refuse_dns
from mamori.inspect.desk import PASSED, Desk, Parties
from mamori.inspect.dns import DnsError, Message, parse_message
from mamori.inspect.flow import ORIGINATOR, Flow
from mamori.inspect.hold import Queued
from mamori.inspect.judge import NOTHING, Judgement
from mamori.inspect.packet import Packet
from mamori.inspect.policy import Mode
from mamori.inspect.quic import QuicError, QuicReader, looks_like_quic
from mamori.inspect.telling import Teller
from mamori.inspect.tls import ClientHelloReceived
from mamori.inspect.unread import TOO_MUCH_UNREAD

DNS_PORTS = frozenset({53, 5353, 5355})
"""DNS, multicast DNS, LLMNR: messages of one format."""

MAX_UNKNOWN = 64
"""Datagrams of a client in which no QUIC was found before the flow is passed by the kernel. A stray datagram before the first
Initial is a trick; so many of them are another protocol (a game, a call)."""

MAX_QUIC = 256
"""A client's datagrams of QUIC without a hello that can be read. A handshake is over after some ten."""


class DatagramFlow:
    """See the module. Commands go to the desk."""

    __slots__ = ("_application_sought", "_desk", "_flow", "_is_blocked", "_is_dns", "_kept_bytes", "_quic", "_seen", "_teller")

    def __init__(self, desk: Desk, flow: Flow[Any, str], parties: Parties) -> None:
        self._desk = desk
        self._flow = flow
        self._is_blocked = False
        self._application_sought = False
        self._quic: QuicReader | None = None
        self._seen = self._kept_bytes = 0
        self._is_dns = flow.responder[1] in DNS_PORTS or flow.originator[1] in DNS_PORTS
        self._teller = Teller(desk, flow, parties, "dns" if self._is_dns else "udp")

    @property
    def parties(self) -> Parties:
        return self._teller.parties

    @parties.setter
    def parties(self, parties: Parties) -> None:
        self._teller.parties = parties

    def on_timer(self, now: float) -> None:
        """Nothing waits here."""

    def receive(self, queued: Queued, packet: Packet, direction: int) -> None:
        """One datagram, and the verdict on it."""
        if not self._is_blocked:
            message = self._parse_dns(packet) if self._is_dns else None
            if message is not None:
                refusal = self._read_dns(queued, packet, message)
                if refusal is not None:
                    whole = bool(refusal) and len(queued.tokens) == 1
                    self._desk.out.extend([Replace(queued.tokens[0], refusal)] if whole else map(Drop, queued.tokens))
                    return
            elif direction == ORIGINATOR:
                self._read_client(bytes(packet.payload))
                self._account()
                unread = self._desk.unread
                while (keeper := unread.next_victim()) is not None:
                    keeper.give_up()
            elif not self._application_sought and self._seen:
                self._seek_application(b"", bytes(packet.payload))
        out = self._desk.out
        if self._is_blocked:
            out.extend(map(Drop, queued.tokens))
        else:
            decided = self._flow.verdict is not None
            wants_signatures = not decided and not self._teller.is_exempt
            out.extend(Accept(token, decided, wants_signatures) for token in queued.tokens)

    def _parse_dns(self, packet: Packet) -> Message | None:
        """None for what is no DNS: QUIC may come from, and go to, any port. The first such datagram ends the reading as DNS."""
        try:
            return parse_message(bytes(packet.payload))
        except DnsError:
            if looks_like_quic(bytes(packet.payload)):
                self._is_dns, self._teller.protocol = False, "udp"
            return None

    def _read_dns(self, queued: Queued, packet: Packet, message: Message) -> bytes | None:
        """A question is told; the packet that answers one for a blocked name is given as the refusal that takes its place,
        empty where none can be made of it: nobody gets it then."""
        mode = self._desk.judge.policy.dangerous_sites.dns
        if mode is Mode.OFF:
            return None
        if message.is_response:
            return self._refuse(queued, packet, message) if mode is Mode.BLOCK else None
        for question in message.questions:
            self._desk.tally(self.parties, Function.DANGEROUS_SITE, "question")
            self._tell_question(question.name, self._desk.judge.judge_name(question.name))
        return None

    def _tell_question(self, name: str, judgement: Judgement) -> None:
        """A question passes: its answer is refused if the policy says so, else the access that follows is, with a page that
        says why."""
        refused = self._desk.judge.policy.dangerous_sites.dns is Mode.BLOCK and not self._teller.is_exempt
        blocking = judgement.blocking
        if refused and blocking is not None and blocking.function is Function.DANGEROUS_SITE:
            if self._teller.is_news(name):
                self._teller.tell_blocked(judgement, name)
        else:
            self._teller.tell_passed(judgement, name)

    def _refuse(self, queued: Queued, packet: Packet, message: Message) -> bytes | None:
        for question in message.questions:
            blocking = self._desk.judge.judge_name(question.name).blocking
            if blocking is not None and blocking.function is Function.DANGEROUS_SITE and not self._teller.is_exempt:
                try:
                    return refuse_dns(queued.data, packet, queued.info)
                except CraftError:
                    return b""
        return None

    def _read_client(self, payload: bytes) -> None:
        self._seen += 1
        if self._quic is None and looks_like_quic(payload):
            self._quic, self._teller.protocol = QuicReader(), "quic"
        if self._quic is not None:
            self._read_quic(self._quic, payload)
        elif not self._application_sought and not self._is_dns:
            self._seek_application(payload, b"")
        if self._seen >= (MAX_UNKNOWN if self._quic is None else MAX_QUIC) and not self._is_blocked and not self._is_dns:
            self._flow.decide(PASSED)

    def _read_quic(self, quic: QuicReader, payload: bytes) -> None:
        try:
            events = quic.receive(payload)
        except QuicError as error:
            # No server would answer this; so nothing comes of it, and the next datagrams are another attempt.
            self._desk.tell(self.parties, Function.EVASION, Action.UNSEEN, "quic", self._teller.address, detail=str(error))
            self._quic = None
            return
        for event in events:
            if isinstance(event, ClientHelloReceived):
                name = event.hello.server_name
                judge = self._desk.judge
                server = self._desk.text_of(self._flow.responder[0])
                judgement = judge.judge_hello(name, server, judge.applications.by_alpn(event.hello.alpn))
                self._desk.tally(self.parties, Function.DANGEROUS_SITE, "name")
                if not self._blocks(judgement, name or self._teller.address):
                    self._flow.decide(PASSED)
                return

    def _seek_application(self, client: bytes, server: bytes) -> None:
        judge = self._desk.judge
        application = judge.applications.by_payload("udp", client, server)
        if application is None:
            if self._seen >= 2 or server:
                application = judge.applications.by_port("udp", self._flow.responder[1])
            else:
                return
        self._application_sought = True
        judgement = judge.judge_application(application)
        if application is not None and not self._blocks(judgement, self._teller.address) and judgement is not NOTHING:
            self._flow.decide(PASSED)

    def _blocks(self, judgement: Judgement, subject: str) -> bool:
        """Tell what it means; whether the flow is blocked for it."""
        self._is_blocked = judgement.blocking is not None and not self._teller.is_exempt
        if self._is_blocked:
            self._teller.tell_blocked(judgement, subject)
        else:
            self._teller.tell_passed(judgement, subject)
        return self._is_blocked

    def close(self) -> None:
        """No more is read."""
        self._quic = None
        self._account()

    def give_up(self) -> None:
        """Too much is kept for all flows together, and most of it here. A client of QUIC that gets no answer tries TCP."""
        blocks = self._desk.judge.policy.evasion.mode is Mode.BLOCK and not self._teller.is_exempt
        action = Action.BLOCKED if blocks else Action.UNSEEN
        self._desk.tell(self.parties, Function.EVASION, action, "quic", self._teller.address, detail=TOO_MUCH_UNREAD)
        self.close()
        self._is_blocked = blocks
        if not blocks:
            self._flow.decide(PASSED)

    def _account(self) -> None:
        """Say what is kept now."""
        quic = self._quic if not self._is_blocked and self._flow.verdict is None else None
        kept_bytes = quic.held_bytes if quic is not None else 0
        if kept_bytes != self._kept_bytes:
            self._desk.unread.change(self, self._kept_bytes, kept_bytes)
            self._kept_bytes = kept_bytes
