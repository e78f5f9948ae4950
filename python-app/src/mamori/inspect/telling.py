"""What is told of one flow: to whom it belongs, in whose words, and nothing twice. The same for TCP and for datagrams."""

from __future__ import annotations

from typing import Any

from mamori.events.record import Action, Function
from mamori.inspect.desk import Desk, Parties
from mamori.inspect.flow import Flow
from mamori.inspect.judge import Judgement

MAX_TOLD = 1000
"""Names that are remembered as told, of one flow. A connection to a proxy names dozens; beyond it some are told again."""


class Teller:
    """See the module. `protocol` is what the flow speaks, as far as it is known."""

    __slots__ = ("_desk", "_flow", "_told", "parties", "protocol")

    def __init__(self, desk: Desk, flow: Flow[Any, str], parties: Parties, protocol: str) -> None:
        self._desk = desk
        self._flow = flow
        self._told: set[str] | None = None  # an empty set is a fifth of a flow of datagrams
        self.parties = parties
        self.protocol = protocol

    @property
    def address(self) -> str:
        """The peer, where nothing has a better name."""
        return f"{self.parties.peer}:{self.parties.peer_port}"

    @property
    def is_exempt(self) -> bool:
        """Whether the owner leaves one of the two hosts alone."""
        judge = self._desk.judge
        return judge.has_exemptions and judge.exempts(self._flow.originator[0], self._flow.responder[0])

    def is_news(self, key: str) -> bool:
        """Whether this was not told of this flow before; from now on it was."""
        told = self._told
        if told is None:
            told = self._told = set()
        if key in told:
            return False
        if len(told) >= MAX_TOLD:
            told.clear()
        told.add(key)
        return True

    def tell_passed(self, judgement: Judgement, subject: str, key: str = "") -> None:
        """All that the policy says of it, once; it was not blocked."""
        if not judgement.matches or not self.is_news(key or subject):
            return
        action = Action.ALLOWED if judgement.is_allowed or self.is_exempt else Action.LOGGED
        for match in judgement.matches:
            self._tell(match.function, action, subject, match.list_name, match.category)

    def tell_blocked(self, judgement: Judgement, subject: str) -> None:
        """It was blocked, and for this."""
        match = judgement.blocking
        if match is not None:
            self._tell(match.function, Action.BLOCKED, subject, match.list_name, match.category)

    def _tell(self, function: Function, action: Action, subject: str, list_name: str, category: str) -> None:
        desk = self._desk
        desk.tell(self.parties, function, action, self.protocol, subject, list_name=list_name, category=category)
        desk.tally(self.parties, function, "flow", category, 1, int(action is Action.BLOCKED))
