"""The licence manifest: one line for each package, for a person, a spreadsheet or grep. The texts are in the archive beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from firmware.bases import Package

MANIFEST = "licences.csv"

UNKNOWN = "unknown"
"""What the manifest says of a package whose licence nobody stated: it is there to be found."""

_COLUMNS = ("package", "version", "ecosystem", "licences", "source", "source_version", "homepage")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render_licences(packages: Iterable[Package]) -> str:
    """The manifest as CSV (RFC 4180, but with line feeds): header, then one record for each package, sorted, none twice.

    Several licences are joined by "; ": all of them apply, each to a part of the package.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows(sorted({_row(package) for package in packages}))
    return text.getvalue()


def _row(package: Package) -> tuple[str, ...]:
    licences = "; ".join(sorted(set(package.licences))) or UNKNOWN
    row = (package.name, package.version, package.ecosystem, licences, package.source, package.source_version, package.homepage)
    return tuple(_cell(value) for value in row)


def _cell(value: str) -> str:
    """One line of text that no spreadsheet takes for a formula: packagers write some of these values."""
    line = " ".join(value.split())
    return f"'{line}" if line.startswith(_FORMULA) else line
