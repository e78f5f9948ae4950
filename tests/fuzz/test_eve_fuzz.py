"""Any bytes are an alert, nothing, or the one error; any lines are rules that are read again as they were written."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mamori.events.record import MAX_SUBJECT_CHARACTERS
from mamori.inspect.policy import Ips, IpsException, Mode
from mamori.inspect.suricata.config import LOCAL_NETWORKS
from mamori.inspect.suricata.eve import EveError, event_of, parse_record
from mamori.inspect.suricata.rules import Tally, parse_rule, prepare_rules
from tests.unit.inspect.test_suricata_eve import RECORD

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["::1", "10.0.0.1", "TCP"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
PATHS = (
    [(key,) for key in RECORD]
    + [(key, inner) for key, value in RECORD.items() if isinstance(value, dict) for inner in value]
    + [("dns",), ("tls",), ("quic",), ("fileinfo",)]
)
RULE_PARTS = st.sampled_from(
    [
        *(
            "alert ",
            "drop ",
            "pass ",
            "tcp any any -> any any ",
            "(",
            ")",
            ";",
            "\\",
            '"',
            ":",
            " ",
            "#",
            "\n",
            "\\\n",
            "\x00",
            "あ",
        ),
        *(
            "msg:",
            "sid:",
            "1",
            "7",
            "1900000000",
            "4294967296",
            "classtype:trojan-activity;",
            "noalert;",
            "flowbits:",
            "lua",
            "metadata:",
        ),
    ]
)
RULE_TEXTS = st.lists(RULE_PARTS | st.text(max_size=3)).map("".join) | st.lists(
    st.builds(
        lambda action, body, sid: f"{action} tcp any any -> any any ({body} sid:{sid};)",
        st.sampled_from(["alert", "drop", "reject", "pass", "x"]),
        st.lists(RULE_PARTS, max_size=8).map("".join),
        st.integers(0, 12),
    )
).map("\n".join)


def changed(changes: list[tuple[tuple[str, ...], Any]]) -> bytes:
    record = copy.deepcopy(RECORD)
    for path, value in changes:
        place: Any = record
        for key in path[:-1]:
            place = place.get(key)
        if isinstance(place, dict):
            place[path[-1]] = value
    return json.dumps(record).encode()


@given(
    st.lists(st.tuples(st.sampled_from(PATHS), VALUES), max_size=4).map(changed)
    | st.binary(max_size=200)
    | VALUES.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_an_alert_or_nothing_or_the_one_error(line: bytes) -> None:
    with contextlib.suppress(EveError):
        alert = parse_record(line)
        if alert is not None:
            event = event_of(alert, LOCAL_NETWORKS)
            assert len(event.subject) <= MAX_SUBJECT_CHARACTERS
            assert len(event.category) <= 300
            "".join((event.subject, event.category, event.detail, event.protocol)).encode()


@given(RULE_TEXTS, st.sampled_from(Mode), st.integers(1, 12))
def test_whatever_lines_come_in_what_goes_out_is_rules(text: str, mode: Mode, signature: int) -> None:
    exceptions = (IpsException(signature=signature), IpsException(signature=13 - signature, terminal="10.0.0.1"))
    ips, tally = Ips(mode=mode, exceptions=exceptions), Tally()
    got = list(prepare_rules(text.split("\n"), ips, tally))
    assert len(got) == tally.written + (mode is not Mode.OFF)
    rules = [parse_rule(line) for line in got]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in got)
    assert all(rule is not None and rule.signature for rule in rules)
    numbers = [rule.signature for rule in rules if rule]
    assert len(set(numbers)) == len(numbers)
    assert signature not in numbers
    if mode is not Mode.BLOCK:
        assert all(rule.action in ("alert", "pass") for rule in rules if rule)
