"""What is installed in a Debian tree, and the lock: parsing, drift, pins."""

from __future__ import annotations

import string
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.bases import Package
from firmware.bases.debian_packages import (
    Change,
    Drift,
    LockedPackage,
    compare,
    lock_packages,
    parse_index,
    parse_lock,
    parse_packages,
    parse_stanzas,
    render_lock,
    render_pins,
)
from mamori.formats.problems import BadInputError, MamoriError

A, B, C = (letter * 64 for letter in "abc")

STATUS = """\
Package: busybox-static
Status: install ok installed
Architecture: amd64
Source: busybox (1:1.37.0-6)
Version: 1:1.37.0-6+b9
Conffiles:
 /etc/busybox.conf 879455db9b938ce287b23383629aedce
Description: Standalone rescue shell
 BusyBox combines tiny versions of many utilities.
 .
 Package: fake
Homepage: http://www.busybox.net

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.152
Description: add and remove users and groups
"""


def index(name: str, version: str, architecture: str, sha256: str) -> str:
    return f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nDescription: x\nSHA256: {sha256}\n\n"


BUSYBOX = index("busybox-static", "1:1.37.0-6+b9", "amd64", B)
ADDUSER = index("adduser", "3.152", "all", A)


def test_installed_packages_have_their_source_and_the_hash_that_the_index_signs() -> None:
    assert parse_packages(STATUS, ADDUSER, BUSYBOX) == (
        Package("adduser", "3.152", "deb", "all", "adduser", "3.152", A, description="add and remove users and groups"),
        Package(
            *("busybox-static", "1:1.37.0-6+b9", "deb", "amd64", "busybox", "1:1.37.0-6", B),
            homepage="http://www.busybox.net",
            description="Standalone rescue shell",
        ),
    )


def test_another_version_in_the_index_lends_its_hash_to_nobody() -> None:
    both = index("adduser", "3.151", "all", C) + ADDUSER
    assert [package.sha256 for package in parse_packages(STATUS, both, BUSYBOX)] == [A, B]


def test_two_indices_may_have_the_same_package() -> None:
    assert parse_packages(STATUS, ADDUSER, BUSYBOX, ADDUSER) == parse_packages(STATUS, ADDUSER + BUSYBOX)


@pytest.mark.parametrize(
    ("status", "indices", "says"),
    [
        pytest.param(STATUS, [ADDUSER], "SHA-256 of 1 packages: busybox-static", id="a package that no index has"),
        pytest.param(STATUS, [ADDUSER, BUSYBOX.replace(B, "")], "1 packages: busybox-static", id="a stanza without hash"),
        pytest.param(
            STATUS, [ADDUSER, BUSYBOX, BUSYBOX.replace(B, C)], "disagree on busybox-static", id="two hashes for one archive"
        ),
        pytest.param(STATUS.replace("ok installed", "ok half-configured"), [], "not installed whole", id="half configured"),
        pytest.param(STATUS.replace("Version: 3.152", ""), [], "version: expected", id="no version"),
        pytest.param(STATUS.replace("Architecture: all", "Architecture: a/b"), [], "got 'a/b'", id="a strange architecture"),
        pytest.param(STATUS.replace("busybox (1:1.37.0-6)", "busybox (1:1"), [], "source: expected", id="half a source"),
    ],
)
def test_a_tree_that_cannot_be_accounted_for_is_refused(status: str, indices: list[str], says: str) -> None:
    with pytest.raises(MamoriError, match=says.replace("(", r"\(")):
        parse_packages(status, *indices)


def test_an_index_gives_packages_that_are_fetched_but_not_installed() -> None:
    (kernel,) = parse_index(index("linux-image-6.12.94+deb13-amd64", "6.12.94-1", "amd64", C))
    assert (kernel.name, kernel.sha256, kernel.source_version) == ("linux-image-6.12.94+deb13-amd64", C, "6.12.94-1")


def test_a_stanza_joins_continuation_lines_and_skips_comments() -> None:
    text = "# comment\nA: 1\nB:\n 2\n# comment\n\t3\nno field\n lost\n\n \n\nC:4\n"
    assert list(parse_stanzas(text)) == [{"a": "1", "b": "\n2\n3"}, {"c": "4"}]


@given(
    st.lists(st.sampled_from([*STATUS.splitlines(keepends=True), *BUSYBOX.splitlines(keepends=True), "\n", " x", "é\n"])), st.text()
)
def test_foreign_text_gives_packages_or_the_one_error(lines: list[str], text: str) -> None:
    for status in ("".join(lines), text):
        for parse in (parse_index, lambda index: parse_packages(index, ADDUSER + BUSYBOX)):
            try:
                assert all(len(package.sha256) == 64 for package in parse(status))
            except MamoriError as error:
                assert str(error)


LOCK = """\
# comment

[base lab]
adduser 3.152 all {A}

[tools]
adduser 3.152 all {A}
libstdc++6 14.2.0-19 amd64 {B}
""".format(A=A, B=B)  # noqa: UP032 - the braces are few and the text is long


def test_the_lock_is_read_by_tree() -> None:
    adduser = LockedPackage("adduser", "3.152", "all", A)
    assert parse_lock(LOCK) == {"base lab": (adduser,), "tools": (adduser, LockedPackage("libstdc++6", "14.2.0-19", "amd64", B))}


def test_the_lock_is_written_sorted_whatever_the_order() -> None:
    sections = {name: tuple(reversed(packages)) for name, packages in reversed(list(parse_lock(LOCK).items()))}
    assert "\n".join(line for line in render_lock(sections).splitlines() if line[:1] != "#") + "\n" == LOCK.removeprefix(
        "# comment\n"
    )


def test_every_bad_line_of_a_lock_is_named_at_once() -> None:
    text = f"early 1 all {A}\n[tools]\nx y\nadduser 1 all {A}\nadduser 2 all {B}\n[tools]\n[../x]\nadduser 3 amd64 {A} \n"
    with pytest.raises(BadInputError) as caught:
        parse_lock(text)
    assert [problem.key for problem in caught.value.problems] == [f"line {n}" for n in (1, 3, 5, 6, 7, 8)]


names = st.text(string.ascii_lowercase + string.digits + "+.-", min_size=2, max_size=9).filter(lambda name: name[0].isalnum())
versions = st.from_regex(r"[0-9][A-Za-z0-9.+:~-]{0,9}", fullmatch=True).filter(str.isascii)
digests = st.sampled_from([A, B, C])
locked_packages = st.lists(
    st.builds(LockedPackage, names, versions, st.sampled_from(["all", "amd64"]), digests),
    unique_by=lambda package: (package.name, package.architecture),
).map(lambda packages: tuple(sorted(packages)))


@given(st.dictionaries(st.sampled_from(["tools", "base lab", "base release"]), locked_packages))
def test_a_lock_reads_back_as_it_was_written(sections: dict[str, tuple[LockedPackage, ...]]) -> None:
    assert parse_lock(render_lock(sections)) == sections


@given(st.text() | st.lists(st.sampled_from([*LOCK.splitlines(keepends=True), "[", "\r\n", " "])).map("".join))
def test_a_foreign_lock_gives_sections_or_the_one_error(text: str) -> None:
    try:
        sections = parse_lock(text)
    except BadInputError:
        return
    assert parse_lock(render_lock(sections)) == sections


@pytest.mark.parametrize("bad", ["1 all\nPin: x", "", "1 2"], ids=["a line feed", "nothing", "a space"])
def test_a_value_that_would_not_be_read_back_is_not_written(bad: str) -> None:
    with pytest.raises(BadInputError):
        render_lock({"tools": [LockedPackage("adduser", bad, "all", A)]})


def test_drift_tells_new_gone_other_version_and_other_hash_apart() -> None:
    same = LockedPackage("bash", "5.2", "amd64", A)
    gone, new = LockedPackage("ed", "1", "amd64", A), LockedPackage("nano", "8", "amd64", B)
    old_ssl, new_ssl = (LockedPackage("openssl", version, "amd64", digest) for version, digest in (("3.5.1", A), ("3.5.2", B)))
    dash, forged = (LockedPackage("dash", "0.5", "amd64", digest) for digest in (A, C))
    drift = compare([gone, same, old_ssl, dash], [new_ssl, new, forged, same])
    assert drift == Drift((new,), (gone,), (Change(old_ssl, new_ssl),), (Change(dash, forged),))
    assert str(drift) == (
        "1 added (nano); 1 removed (ed); 1 with another version (openssl 3.5.1 -> 3.5.2); 1 with another hash (dash)"
    )
    with pytest.raises(MamoriError, match=rf"\[tools\]: dash 0.5 is locked with SHA-256 {A}, and the mirror signs {C}"):
        drift.check_hashes("tools")


def test_another_version_is_drift_and_no_error() -> None:
    drift = compare([LockedPackage("a0", "1", "all", A)], [LockedPackage("a0", "2", "all", B)])
    drift.check_hashes("tools")
    assert drift


@given(locked_packages, locked_packages)
def test_drift_accounts_for_every_difference(before: tuple[LockedPackage, ...], after: tuple[LockedPackage, ...]) -> None:
    drift = compare(before, after)
    changes = drift.changed_version + drift.changed_hash
    patched = (set(before) - set(drift.removed) - {c.locked for c in changes}) | set(drift.added) | {c.actual for c in changes}
    assert patched == set(after)
    assert bool(drift) == (before != after)


def test_many_changed_packages_are_counted_and_a_few_named() -> None:
    added = compare([], [LockedPackage(f"p{n}", "1", "all", A) for n in range(9)])
    assert str(added) == "9 added (p0, p1, p2, p3, p4, …)"


def test_pins_outrank_even_newer_versions() -> None:
    assert render_pins(chain.from_iterable(parse_lock(LOCK)[tree] for tree in ["tools"])) == (
        "Package: adduser\nPin: version 3.152\nPin-Priority: 1001\n\n"
        "Package: libstdc++6\nPin: version 14.2.0-19\nPin-Priority: 1001\n"
    )


def test_the_lock_keeps_what_apt_can_be_held_to() -> None:
    (locked, _) = lock_packages(parse_packages(STATUS, ADDUSER + BUSYBOX))
    assert locked == LockedPackage("adduser", "3.152", "all", A)
