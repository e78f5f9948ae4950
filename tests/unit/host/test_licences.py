"""The licence manifest."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from firmware.bases import Package
from firmware.records.licences import UNKNOWN, render_licences

HEADER = "package,version,ecosystem,licences,source,source_version,homepage\n"


def test_each_package_is_one_line_sorted_by_name() -> None:
    bash = Package("bash", "5.2-1", "deb", "amd64", "bash", "5.2-1", licences=("MIT", "GPL-3.0-or-later"), homepage="https://b")
    assert render_licences([Package("zlib", "1"), bash, bash]) == (
        f"{HEADER}bash,5.2-1,deb,GPL-3.0-or-later; MIT,bash,5.2-1,https://b\nzlib,1,generic,{UNKNOWN},,,\n"
    )


def test_a_spreadsheet_takes_no_value_for_a_formula() -> None:
    assert render_licences([Package("x", "1", licences=("=1+1",), homepage="@x")]) == f"{HEADER}x,1,generic,'=1+1,,,'@x\n"


@given(st.lists(st.builds(Package, st.text(), st.text(), licences=st.tuples(st.text()), homepage=st.text())))
def test_every_value_stays_in_its_cell_and_its_line(packages: list[Package]) -> None:
    text = render_licences(packages)
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert {len(row) for row in table} == {7}
    assert len(table) == text.count("\n")
    assert {row[0].lstrip("'") for row in table[1:]} == {" ".join(package.name.split()).lstrip("'") for package in packages}
