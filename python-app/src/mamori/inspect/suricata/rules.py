"""From a feed's rules to those that Suricata gets: what the owner's policy makes of them. Text in, text out, line by line.

    alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"…"; …; classtype:trojan-activity; sid:2018358; rev:10; metadata:…;)

That is the format of Suricata, and of the ET sets (user guide, "Rules Format"). Feeds say `alert` almost everywhere, for
they do not know whether anyone wants to block. We do: with mode `block`, a rule whose class says attack, or malware, or theft
becomes a `drop`; one that tells of a policy, a curiosity or an attempt to look around stays an `alert`, because an office must
not stand still for it. Rules that only take notes for others (`noalert`) are never made to drop.

Exceptions are of three kinds:

    a signature                       its rule is left out
    a communication                   a `pass` rule for the two addresses, before all others
    a signature in a communication    a rule that marks the flows of the two addresses with a bit, and the signature wants it unset

A `suppress` line would not do for the last: it hides the alert, and the packet is dropped all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from mamori.inspect.policy import Ips, IpsException, Mode

MAX_RULE_BYTES = 8190
"""Suricata reads lines into 8192 bytes (DETECT_MAX_RULE_SIZE), and would take the rest of a longer one for a rule."""
OWN_SIDS = range(1_900_000_000, 1_900_100_000)
"""The numbers of our own rules: far from the feeds' (ET: 2,000,000 on), and refused in them."""

BLOCKING_CLASSES = frozenset(
    {
        *("attempted-user", "attempted-admin", "successful-user", "successful-admin", "web-application-attack"),
        *("shellcode-detect", "exploit-kit", "attempted-dos", "denial-of-service", "successful-dos"),
        *("trojan-activity", "command-and-control", "domain-c2", "targeted-activity", "coin-mining"),
        *("credential-theft", "social-engineering", "successful-recon-largescale", "successful-recon-limited"),
    }
)
"""Class types of Suricata's classification.config that say harm. Not among them: policy-violation, misc-activity, bad-unknown,
attempted-recon, protocol-command-decode, pup-activity …: true, and no reason to stop an office."""

_LOGGED_SEVERITIES = ("Informational",)
"""Of ET's `signature_severity`: with this a rule stays an alert, whatever its class."""

_UNSUPPORTED = frozenset({"lua", "luajit", "filestore", "dataset", "datarep", "iprep", "geoip"})
"""They run programs, write files, or want files that no feed of ours brings."""

_ACTIONS = ("alert", "drop", "reject", "rejectsrc", "rejectdst", "rejectboth", "pass")
_OPTION = re.compile(r"((?:[^;\\]|\\.)*);", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass
class Tally:
    """What became of the rules so far: written as drops, as alerts, and as passes of the feed; left out because the owner excepted
    their signature, because they want what we do not have, because a signature came twice (the first counts), and because they
    are no rules. `examples` are a few of the last kind, for people."""

    dropping: int = 0
    alerting: int = 0
    passing: int = 0
    excepted: int = 0
    unsupported: int = 0
    repeated: int = 0
    malformed: int = 0
    examples: tuple[str, ...] = ()

    @property
    def written(self) -> int:
        return self.dropping + self.alerting + self.passing


@dataclass(frozen=True)
class Rule:
    """A rule, taken apart as far as it matters here. `header` is protocol, addresses, ports and direction; options are in order,
    each name in lower case and value, "" where there is none."""

    action: str
    header: str
    options: tuple[tuple[str, str], ...]

    def value(self, name: str) -> str:
        return next((value for key, value in self.options if key == name), "")

    @property
    def signature(self) -> int:
        """Its number; 0 when it has none, or one that does not fit."""
        text = self.value("sid")
        return int(text) if _NUMBER.fullmatch(text) and int(text) < 2**32 else 0

    @property
    def takes_notes_only(self) -> bool:
        return any(name == "noalert" or (name == "flowbits" and value == "noalert") for name, value in self.options)


def parse_rule(line: str) -> Rule | None:
    """None when the line is no rule. An option ends at a semicolon that has no backslash before it, also within quotes: so reads
    Suricata (detect-parse.c), and so must write whoever wants to be read."""
    head, _, body = line.strip().partition("(")
    action, _, header = head.partition(" ")
    if action not in _ACTIONS or not header.strip() or not body.endswith(")"):
        return None
    options, at, last = [], 0, len(body) - 1
    while body[at:last].strip():
        option = _OPTION.match(body, at, last)
        name, _, value = option[1].partition(":") if option else ("", "", "")
        if option is None or not name.strip():
            return None
        options.append((name.strip().lower(), value.strip()))
        at = option.end()
    return Rule(action, header.strip(), tuple(options))


def prepare_rules(lines: Iterable[str], ips: Ips, tally: Tally) -> Iterator[str]:
    """The rules for Suricata, a line each with its newline, from those of the feeds; `tally` counts what became of them.

    With mode `off` there is none. Whatever is in `lines`, what comes out is a rule as far as we can tell; whether Suricata takes
    it, only Suricata can say (`config.check_command`).
    """
    if ips.mode is Mode.OFF:
        return
    exceptions = _Exceptions(ips.exceptions)
    yield from exceptions.rules()
    seen: set[int] = set()
    for text in _join_lines(lines):
        rule = None if len(text.encode(errors="replace")) > MAX_RULE_BYTES or _CONTROL.search(text) else parse_rule(text)
        if rule is None or rule.signature == 0 or rule.signature in OWN_SIDS:
            tally.malformed += 1
            if len(tally.examples) < 5:
                tally.examples += (text[:120],)
        elif rule.signature in seen:
            tally.repeated += 1
        elif rule.signature in exceptions.left_out:
            tally.excepted += 1
        elif any(name in _UNSUPPORTED for name, _ in rule.options):
            tally.unsupported += 1
        else:
            seen.add(rule.signature)
            action = action_for(rule, ips.mode)
            _count(tally, action)
            yield _write(rule, action, exceptions.bits.get(rule.signature))


def action_for(rule: Rule, mode: Mode) -> str:
    """`drop`, `alert` or `pass`. A feed that itself says drop or reject is believed; a reject would need a raw socket, and its
    answer to a forged sender would go to a bystander."""
    if rule.action == "pass":
        return "pass"
    if mode is not Mode.BLOCK or rule.takes_notes_only:
        return "alert"
    if rule.action != "alert":
        return "drop"
    severity = re.search(r"signature_severity\s+(\w+)", rule.value("metadata"))
    if severity and severity[1] in _LOGGED_SEVERITIES:
        return "alert"
    return "drop" if rule.value("classtype") in BLOCKING_CLASSES else "alert"


class _Exceptions:
    """`left_out`: signatures that go altogether; `bits`: the flow bit that a signature wants unset."""

    def __init__(self, exceptions: Iterable[IpsException]) -> None:
        self._addressed = [one for one in exceptions if one.terminal or one.peer]
        bare = [one for one in exceptions if not (one.terminal or one.peer)]
        self.left_out = frozenset(one.signature for one in bare if one.signature)
        self.bits = {one.signature: f"mamori.except.{one.signature}" for one in self._addressed if one.signature}

    def rules(self) -> Iterator[str]:
        for number, one in enumerate(self._addressed):
            ends = f"{_end(one.terminal)} any <> {_end(one.peer)} any"
            sid = f"sid:{OWN_SIDS[number]}; rev:1;"
            if one.signature:
                yield f'alert ip {ends} (msg:"excepted"; flowbits:set,{self.bits[one.signature]}; noalert; {sid})\n'
            else:
                yield f'pass ip {ends} (msg:"excepted"; {sid})\n'


def _end(text: str | None) -> str:
    """As Suricata reads it: a policy may have a mask in place of a length, and even one of the hosts' bits (ipaddress)."""
    if text is None:
        return "any"
    network = ip_network(text)
    return str(network if network.num_addresses > 1 else network.network_address)


def _write(rule: Rule, action: str, bit: str | None) -> str:
    options = list(rule.options)
    if bit:
        # Before the sid, so behind everything that has to stand together, like a content and its modifiers.
        place = next(index for index, (name, _) in enumerate(options) if name == "sid")
        options.insert(place, ("flowbits", f"isnotset,{bit}"))
    body = " ".join(f"{name}:{value};" if value else f"{name};" for name, value in options)
    return f"{action} {rule.header} ({body})\n"


def _count(tally: Tally, action: str) -> None:
    tally.dropping += action == "drop"
    tally.alerting += action == "alert"
    tally.passing += action == "pass"


def _join_lines(lines: Iterable[str]) -> Iterator[str]:
    """Rules without comments and blank lines; one that ends with a backslash goes on in the next line. A rule that never ends
    is cut where it is too long, and its rest is no rule either."""
    waiting = ""
    for line in lines:
        part = line.strip()
        if not part or part.startswith("#"):  # also amid a rule (detect-engine-loader.c, DetectLoadSigFile)
            continue
        waiting += part
        if part.endswith("\\") and len(waiting) <= MAX_RULE_BYTES:
            waiting = waiting[:-1] + " "
            continue
        yield waiting
        waiting = ""
    if waiting:
        yield waiting
