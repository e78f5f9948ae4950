"""The doctor finds out what is so, and judges the test levels by it."""

from __future__ import annotations

import json

import pytest

from firmware.doctor import Finding, doctor, examine, judge
from firmware.host_tools import TOOLS, Purpose, install_command, missing
from firmware.testing import LEVELS, Level, Need, parse_levels
from mamori.formats.problems import MamoriError


def test_a_level_is_held_up_by_what_it_needs_and_by_nothing_else() -> None:
    machine = [
        Finding("network namespaces", False, "not permitted"),
        Finding("tap devices", False, "no device"),
        Finding("KVM", False, ""),
    ]
    assert judge(Level("net", needs=(Need.NETWORK,)), machine) == Finding("net", False, "network namespaces: not permitted")
    assert judge(Level("unit"), machine) == Finding("unit", True, "")


def test_every_need_of_a_level_is_examined() -> None:
    names = {finding.name for finding in examine()}
    assert {need.value for need in Need} <= names
    assert {purpose.value for purpose in Purpose} <= names


def test_the_report_is_a_table_or_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(json=True)
    report = json.loads(capsys.readouterr().out)
    assert [level["name"] for level in report["levels"]] == [level.name for level in LEVELS]
    doctor()
    table = capsys.readouterr().out
    assert [finding["name"] for finding in report["machine"] if finding["name"] not in table] == []


def test_levels_run_cheapest_first_and_soaks_only_on_request() -> None:
    assert [level.name for level in parse_levels("")] == ["repo", "unit", "fuzz", "net", "image", "boot"]
    assert [level.name for level in parse_levels("long, unit,repo")] == ["repo", "unit", "long"]


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(MamoriError, match=r"no such test level: units\n    hint: levels are repo, unit,"):
        parse_levels("unit,units")


def test_a_missing_tool_is_named_only_for_the_purposes_that_want_it() -> None:
    absent = [tool for tool in TOOLS if not tool.is_present]
    assert missing(Purpose) == tuple(absent)
    assert missing([]) == ()
    assert install_command(TOOLS[:2]) == "apt-get install bubblewrap mmdebstrap"
