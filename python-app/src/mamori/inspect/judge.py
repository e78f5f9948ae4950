"""What the owner's policy says of a name, an address, an application: pure, and the same for every protocol.

A name or a URL is looked up in all lists. An allowed one beats every list, and is told as such. Of several lists that have it
the first that blocks counts; else all are logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mamori.events.record import Function
from mamori.inspect.applications import Application, Applications
from mamori.inspect.blockpage import Label
from mamori.inspect.http_url import Url
from mamori.inspect.lists.listfile import Hit, ListKind
from mamori.inspect.lists.matcher import EntryMatcher
from mamori.inspect.networks import Networks
from mamori.inspect.policy import Mode, Policy

OWN_LIST = Label("お客様の遮断リスト", "your own block list")
"""What the block page calls policy.block."""


class Lists(Protocol):
    """What is asked of the compiled lists."""

    def lookup_name(self, name: str) -> Sequence[Hit]: ...
    def lookup_url(self, url: Url) -> Sequence[Hit]: ...


@dataclass(frozen=True, slots=True)
class Match:
    """One list, category or application that has it, and what the policy does with that."""

    function: Function
    mode: Mode
    list_name: str
    category: str
    list_label: Label
    category_label: Label


@dataclass(frozen=True, slots=True)
class Judgement:
    """All matches that are not off; `is_allowed` says that the allow list beats them."""

    matches: tuple[Match, ...] = ()
    is_allowed: bool = False

    @property
    def blocking(self) -> Match | None:
        """Why it is blocked; None if it is not."""
        if self.is_allowed:
            return None
        return next((match for match in self.matches if match.mode is Mode.BLOCK), None)


NOTHING = Judgement()


class Judge:
    """One policy with the lists and applications that are in force; a reload makes a new one."""

    __slots__ = ("_allowed", "_allowed_networks", "_blocked", "_blocked_networks", "applications", "lists", "policy")

    def __init__(self, policy: Policy, lists: Lists, applications: Applications) -> None:
        self.policy = policy
        self.lists = lists
        self.applications = applications
        self._allowed = EntryMatcher(policy.allow.names, policy.allow.urls)
        self._blocked = EntryMatcher(policy.block.names, policy.block.urls)
        self._allowed_networks = Networks(policy.allow.addresses)
        self._blocked_networks = Networks(policy.block.addresses)

    def judge_name(self, name: str) -> Judgement:
        """A host name, as `names.host_name` writes it."""
        hits = self.lists.lookup_name(name)
        application = self.applications.by_name(name)
        own = self._blocked.matches_name(name)
        if not hits and application is None and not own:
            return NOTHING
        return Judgement(self._matches(hits, application, own), self._allowed.matches_name(name))

    def judge_url(self, url: Url) -> Judgement:
        """One reading of a web request; look up all that a request may mean."""
        hits = self.lists.lookup_url(url)
        application = self.applications.by_name(url.host)
        own = self._blocked.matches_url(url)
        if not hits and application is None and not own:
            return NOTHING
        return Judgement(self._matches(hits, application, own), self._allowed.matches_url(url))

    def judge_hello(self, name: str | None, address: str, application: Application | None) -> Judgement:
        """A hello of TLS or QUIC. One without a name is for the server's address, as no address is sent for a name (RFC 6066,
        section 3), and lists may have that; else all that is known is the application that its protocols and port give away."""
        if name:
            return self.judge_name(name)
        judgement = self.judge_name(address)
        return judgement if judgement.matches else self.judge_application(application)

    def judge_application(self, application: Application | None) -> Judgement:
        """What a payload or a port gave away."""
        return NOTHING if application is None else Judgement(self._matches((), application, False))

    @property
    def has_exemptions(self) -> bool:
        """Whether there is anything that `exempts` could say yes to: who has to look for the addresses asks this first."""
        return bool(self._allowed_networks)

    def exempts(self, one: bytes, other: bytes) -> bool:
        """Whether the owner leaves one of two hosts (4 or 16 bytes each) alone: nothing of what passes between them is stopped."""
        return one in self._allowed_networks or other in self._allowed_networks

    def allows_address(self, address: bytes) -> bool:
        """Whether this host (4 or 16 bytes) is on the owner's allow list."""
        return address in self._allowed_networks

    def blocks_address(self, address: bytes) -> bool:
        """Whether the owner blocks this host; the kernel does it for connections that begin after the rules were loaded."""
        return address in self._blocked_networks

    def _matches(self, hits: Iterable[Hit], application: Application | None, own: bool) -> tuple[Match, ...]:
        found = []
        if own:
            found.append(Match(Function.DANGEROUS_SITE, Mode.BLOCK, "own", "own", OWN_LIST, OWN_LIST))
        for hit in hits:
            info = hit.list
            dangerous = info.kind is ListKind.DANGEROUS
            mode = self.policy.dangerous_sites.mode if dangerous else self.policy.categories.mode_of(info.category)
            function = Function.DANGEROUS_SITE if dangerous else Function.CATEGORY
            label = Label(info.label_ja, info.label_en)
            found.append(Match(function, mode, info.key, info.category, label, label))
        if application is not None:
            mode, label = self.policy.applications.mode_of(application.key), Label(application.ja, application.en)
            found.append(Match(Function.APPLICATION, mode, "applications", application.key, label, label))
        return tuple(match for match in found if match.mode is not Mode.OFF)
