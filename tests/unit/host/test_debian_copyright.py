"""Debian copyright files to SPDX: the machine readable ones, prose, and whatever else lies under that name."""

from __future__ import annotations

import re

import pytest
from cyclonedx.spdx import is_expression
from hypothesis import given
from hypothesis import strategies as st

from firmware.records.debian_copyright import SEE_TEXT, parse_copyright, parse_licence


@pytest.mark.parametrize(
    ("synopsis", "spdx"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("gpl-3.0-or-later", "GPL-3.0-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("AGPL-3", "AGPL-3.0-only"),
        ("GPL-9+", "LicenseRef-GPL-9-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("public-domain", "LicenseRef-public-domain"),
        ("MIT/X11", "LicenseRef-MIT-X11"),
        ("Perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
        ("Expat and ISC or GPL-2", "(MIT AND ISC) OR GPL-2.0-only"),
        ("GPL-2+ or Artistic, and BSD-3-clause", "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND BSD-3-Clause"),
        ("GPL-2+, or Expat and ISC", "GPL-2.0-or-later OR (MIT AND ISC)"),
        ("Expat, ISC", "MIT AND ISC"),
        ("Expat and Perl", "MIT AND (Artistic-1.0-Perl OR GPL-1.0-or-later)"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-2+ with OpenSSL exception", "LicenseRef-GPL-2-or-later-with-OpenSSL-exception"),
        ("MIT AND  MIT", "MIT"),
    ],
)
def test_a_short_name_is_an_spdx_expression(synopsis: str, spdx: str) -> None:
    assert parse_licence(synopsis) == spdx


@pytest.mark.parametrize(
    "synopsis",
    ["", "Permission to use, copy and modify", "(GPL-2 or MIT) and ISC", "a" * 81, "A and " * 100 + "B", "or", ",", "///"],
    ids=["nothing", "a sentence", "parentheses", "a very long word", "a very long line", "an operator", "a comma", "no letter"],
)
def test_what_is_no_list_of_short_names_is_left_to_people(synopsis: str) -> None:
    assert parse_licence(synopsis) == SEE_TEXT


DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: x

Files: *
Copyright: 2020 A
License: GPL-2+
 On Debian systems, see /usr/share/common-licenses/GPL-3.

Files: debian/*
Copyright: 2020 B
License:
 Do what you like.

Files: src/c
License: Expat

License: Expat
 Permission is hereby granted ...
"""


def test_a_machine_readable_file_gives_each_licence_once_and_does_not_hide_the_nameless() -> None:
    assert parse_copyright(DEP5) == ("GPL-2.0-or-later", "MIT", SEE_TEXT)


def test_prose_gives_the_common_licences_that_it_refers_to_without_guessing_later() -> None:
    text = "The text is in /usr/share/common-licenses/GPL-2.\nThe library: `/usr/share/common-licenses/LGPL-2.1'\n"
    assert parse_copyright(text) == ("GPL-2 (see text)", "LGPL-2.1 (see text)")


def test_prose_that_refers_to_nothing_is_left_to_people() -> None:
    assert parse_copyright("Permission is hereby granted, License: MIT\n") == (SEE_TEXT,)


lines = st.sampled_from([*DEP5.splitlines(keepends=True), "License: A or\n", "License: , and ,\n", "\0", "License: +++\n"])


@given(st.text() | st.lists(lines).map("".join) | st.text().map(lambda text: f"Format: x\nLicense: {text}"))
def test_no_file_is_too_odd(text: str) -> None:
    licences = parse_copyright(text)
    assert licences == tuple(sorted(set(licences)))
    assert licences
    for licence in licences:
        assert licence.endswith((SEE_TEXT, "(see text)")) or is_expression(re.sub(r"LicenseRef-[A-Za-z0-9.-]+", "MIT", licence))
