"""What the owner wants: one TOML file on the data partition, strict. A bad one is refused with its errors, the old one stays.

[virus]
mode = "block"                # block, log or off: the same words everywhere

[categories]
mode = "log"                  # for those that are not named below
modes = { gambling = "block" }

[allow]                       # an allowed name beats every list
names = ["example.co.jp"]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from types import MappingProxyType
from typing import Annotated

from mamori.formats.strict import Between, Matches, parse, parse_toml
from mamori.inspect.lists.entries import Entry, EntryError, parse_entry

_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

MAX_POLICY_BYTES = 128 << 10
"""Five thousand names of the owner's own. A worker reads that in 0.1 s, while no packet passes it. A text made for it takes tomllib
300 times its size in memory, in each worker and in the supervisor."""

MAX_EXCEPTIONS = 1000
"""What people write. Each costs one rule of the signature engine that every connection is compared with."""


class Mode(Enum):
    """What a function does with what it finds. `off`: it does not even look."""

    BLOCK = "block"
    LOG = "log"
    OFF = "off"


class Unseen(Enum):
    """What happens to a file that no scanner could look at in time."""

    LET_THROUGH = "pass"
    BLOCK = "block"


class _Name:
    says = "a domain name without a wildcard, or an address"

    @staticmethod
    def accepts(value: object) -> bool:
        # What stands before an @ is a mail address's, whose domain was hardly meant.
        entry = _entry(value) if isinstance(value, str) and not re.search("[/@]|^=", value) else None
        return entry is not None and not entry.path and entry.port is None


class _Url:
    says = "host and path: example.com/path"

    @staticmethod
    def accepts(value: object) -> bool:
        return isinstance(value, str) and "/" in value.replace("://", "", 1) and _entry(value) is not None


def _entry(text: str) -> Entry | None:
    try:
        return parse_entry(text)
    except EntryError:
        return None


class _Address:
    says = "an IP address or network (of a network its first address: 192.0.2.0/24)"

    @staticmethod
    def accepts(value: object) -> bool:
        try:
            ip_network(str(value))
        except ValueError:
            return False
        return "%" not in str(value)  # a scope is of one machine's interface, and may hold any character


class _Keys:
    says = "keys of lower-case letters, digits and hyphens"

    @staticmethod
    def accepts(value: object) -> bool:
        return isinstance(value, Mapping) and all(map(_KEY.fullmatch, value))


class _FewExceptions:
    says = f"at most {MAX_EXCEPTIONS} tables"

    @staticmethod
    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and len(value) <= MAX_EXCEPTIONS


class _SaysSomething:
    says = "at least one of signature, terminal, peer"

    @staticmethod
    def accepts(value: object) -> bool:
        return value != IpsException()


@dataclass(frozen=True)
class Virus:
    """`hold_ms`: how long the tail of a file may wait for its verdict. `unseen`: what a file gets that could not be scanned."""

    mode: Mode = Mode.BLOCK
    unseen: Unseen = Unseen.LET_THROUGH
    hold_ms: Annotated[int, Between(100, 30_000)] = 5000


@dataclass(frozen=True)
class DangerousSites:
    """`dns`: what happens to a question for such a name. `block` answers that there is no such name, which is quicker and says
    less: the browser shows an error of its own instead of the page that says why. It takes `mode = "block"`."""

    mode: Mode = Mode.BLOCK
    dns: Mode = Mode.LOG


@dataclass(frozen=True)
class Choices:
    """`mode` for all, `modes` for those that are named: categories or applications."""

    mode: Mode = Mode.LOG
    modes: Annotated[Mapping[str, Mode], _Keys()] = field(default_factory=lambda: MappingProxyType({}))

    def mode_of(self, key: str) -> Mode:
        return self.modes.get(key, self.mode)


@dataclass(frozen=True)
class IpsException:
    """A communication that the signatures leave alone: with this signature, between these; what is not said is any."""

    signature: Annotated[int, Between(1, 4_294_967_295)] | None = None
    terminal: Annotated[str, _Address()] | None = None
    peer: Annotated[str, _Address()] | None = None


@dataclass(frozen=True)
class Ips:
    """`floods`: port scans and floods are limited in netfilter."""

    mode: Mode = Mode.BLOCK
    floods: Mode = Mode.BLOCK
    exceptions: Annotated[tuple[Annotated[IpsException, _SaysSomething()], ...], _FewExceptions()] = ()


@dataclass(frozen=True)
class Evasion:
    """Traffic that two peers would read in two ways: smuggling, conflicting retransmissions."""

    mode: Mode = Mode.BLOCK


@dataclass(frozen=True)
class Addresses:
    """Known-bad networks, dropped in the kernel."""

    mode: Mode = Mode.BLOCK


@dataclass(frozen=True)
class Entries:
    """`names` match with everything below them; `urls` are host and path: one that ends in a slash matches with everything below
    it (lists/entries.py)."""

    names: tuple[Annotated[str, _Name()], ...] = ()
    urls: tuple[Annotated[str, _Url()], ...] = ()
    addresses: tuple[Annotated[str, _Address()], ...] = ()


@dataclass(frozen=True)
class BlockPage:
    """`contact`: whom the reader of the page may ask."""

    contact: Annotated[str, Matches(r"[^\x00-\x1f]{0,200}", "one line of at most 200 characters")] = ""


@dataclass(frozen=True)
class Policy:
    """All of it; every part has a default, so an empty file is a policy."""

    virus: Virus = Virus()
    dangerous_sites: DangerousSites = DangerousSites()
    categories: Choices = Choices()
    applications: Choices = Choices()
    ips: Ips = Ips()
    evasion: Evasion = Evasion()
    addresses: Addresses = Addresses()
    allow: Entries = Entries()
    block: Entries = Entries()
    block_page: BlockPage = BlockPage()


def parse_policy(text: str, source: str) -> Policy:
    """The policy in a TOML text; BadInputError names everything that is wrong with it."""
    return parse(Policy, parse_toml(text, source), source)
