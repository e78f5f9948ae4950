"""Which licences a Debian `copyright` file speaks of, as SPDX expressions.

Two thirds of Debian's copyright files are machine readable: their `License` fields hold short names and a small grammar
("GPL-2+ or Artistic, and BSD-3-clause"), close to SPDX's and older than it. The others are prose, and a program that
guesses what prose grants is worse than one that says where it can be read.

Formats: Machine-readable debian/copyright file, version 1.0 ("License specification"); SPDX 2.3, annex D.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cyclonedx.spdx import fixup_id

from firmware.bases.debian_packages import parse_stanzas

SEE_TEXT = "see text"
"""The licence of a package whose copyright file only people can read."""

_MAX_SYNOPSIS = 400
"""A list of short names; what is longer is a licence's text on the wrong line."""

_SYNONYMS = MappingProxyType(
    {
        "apache-2": "Apache-2.0",
        "artistic": "Artistic-1.0-Perl",
        "boost-1.0": "BSL-1.0",
        "cc0": "CC0-1.0",
        "expat": "MIT",
        "perl": "Artistic-1.0-Perl OR GPL-1.0-or-later",
        "zope-2.1": "ZPL-2.1",
    }
)

# Only those of which SPDX has one version.
_EXCEPTIONS = MappingProxyType(
    {
        "bison": "Bison-exception-2.2",
        "classpath": "Classpath-exception-2.0",
        "font": "Font-exception-2.0",
        "libtool": "Libtool-exception",
        "linux-syscall-note": "Linux-syscall-note",
        "llvm": "LLVM-exception",
    }
)

_GNU = re.compile(r"(AGPL|LGPL|GPL|GFDL)(-NIV)?-?v?(\d+)((?:\.\d+)*)(\+|-only|-or-later)?", re.IGNORECASE)
_WITH = re.compile(r"(\S+) with (\S+)(?: licen[cs]e)? exceptions?", re.IGNORECASE)
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z]+(?:-[0-9]+(?:\.[0-9]+)*)?)")
_WORD = re.compile(r"\S{1,80}")


@dataclass(frozen=True)
class _Compound:
    """Operands that `AND` or `OR` joins; an operand is SPDX text or another compound."""

    operator: str
    operands: tuple[str | _Compound, ...]

    def __str__(self) -> str:
        return f" {self.operator} ".join(dict.fromkeys(self._shown(operand) for operand in self.operands))

    def _shown(self, operand: str | _Compound) -> str:
        foreign = isinstance(operand, _Compound) and operand.operator != self.operator
        return f"({operand})" if foreign else str(operand)


def parse_copyright(text: str) -> tuple[str, ...]:
    """The licences in a copyright file: SPDX expressions, `LicenseRef-NAME` for names that SPDX does not know.

    A file in prose gives `GPL-2 (see text)` for each common licence that it refers to (it may or may not say "or
    later"), or SEE_TEXT. Sorted, never empty, never an error.
    """
    first, *others = [*parse_stanzas(text)] or [{}]
    found: set[str] = set()
    if any(name.startswith("format") for name in first):
        synopses = [fields["license"].partition("\n")[0] for fields in (first, *others) if "license" in fields]
        found = {parse_licence(synopsis) for synopsis in synopses}
    found = found or {f"{name} ({SEE_TEXT})" for name in _COMMON.findall(text)}
    return tuple(sorted(found)) or (SEE_TEXT,)


def parse_licence(synopsis: str) -> str:
    """The first line of a `License` field as one SPDX expression, or SEE_TEXT when it is not made of short names."""
    synopsis = " ".join(synopsis.split())
    if not synopsis or len(synopsis) > _MAX_SYNOPSIS or "(" in synopsis:  # the grammar has no parentheses
        return SEE_TEXT
    try:
        # "A or B, and C" is (A or B) and C: a comma binds less than the words. A bare comma asks for both, to be safe.
        head, *tail = (part.strip() for part in synopsis.split(","))
        expression = _alternatives(head)
        for part in tail:
            operator, _, rest = part.partition(" ")
            if operator.lower() in ("and", "or"):
                expression = _Compound(operator.upper(), (expression, _alternatives(rest)))
            else:
                expression = _Compound("AND", (expression, _alternatives(part)))
    except _NotAShortNameError:
        return SEE_TEXT
    return str(expression)


class _NotAShortNameError(Exception):
    pass


def _alternatives(text: str) -> str | _Compound:
    """`A and B or C`: `and` binds closer."""
    alternatives = [
        _joined("AND", [_term(term) for term in re.split(r" and ", part, flags=re.IGNORECASE)])
        for part in re.split(r" or | \| ", text, flags=re.IGNORECASE)
    ]
    return _joined("OR", alternatives)


def _joined(operator: str, operands: Sequence[str | _Compound]) -> str | _Compound:
    return operands[0] if len(operands) == 1 else _Compound(operator, tuple(operands))


def _term(term: str) -> str | _Compound:
    """A short name, with or without an exception."""
    if exception := _WITH.fullmatch(term):
        licence, known = _short_name(exception[1]), _EXCEPTIONS.get(exception[2].lower())
        if known and isinstance(licence, str) and not licence.startswith("LicenseRef-"):
            return f"{licence} WITH {known}"
        return _reference(f"{exception[1]}-with-{exception[2]}-exception")
    if not _WORD.fullmatch(term) or term.lower() in ("and", "or", "with"):
        raise _NotAShortNameError
    return _short_name(term)


def _short_name(name: str) -> str | _Compound:
    gnu = _GNU.fullmatch(name)
    known = _gnu_id(gnu) if gnu else _SYNONYMS.get(name.lower()) or fixup_id(name)
    if known is None:
        return _reference(name)
    head, *tail = known.split(" OR ")
    return _Compound("OR", (head, *tail)) if tail else head


def _gnu_id(match: re.Match[str]) -> str | None:
    """`GPL-2+` is GPL-2.0-or-later and `GPL-2` GPL-2.0-only: SPDX always says which, Debian only when it is the former."""
    family, invariants, major, minor, suffix = match.groups()
    later = "or-later" if suffix in ("+", "-or-later") else "only"
    return fixup_id(f"{family}-{major}{minor or '.0'}{'-no-invariants' if invariants else ''}-{later}")


def _reference(name: str) -> str:
    """A name that SPDX does not know, in the characters that it allows."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", re.sub(r"\+(?=$|-)", "-or-later", name)).strip("-")
    if not plain:
        raise _NotAShortNameError
    return f"LicenseRef-{plain}"
