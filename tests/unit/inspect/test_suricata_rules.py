"""What the policy makes of a feed's rules. That Suricata takes the result and acts on it is shown in tests/net."""

from __future__ import annotations

import pytest

from mamori.inspect.policy import Ips, IpsException, Mode
from mamori.inspect.suricata.rules import MAX_RULE_BYTES, Tally, parse_rule, prepare_rules

MALWARE = 'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"x"; content:"a\\;b"; classtype:trojan-activity; sid:2000001; rev:2;)'


def rule(action: str = "alert", classtype: str = "trojan-activity", sid: int = 1, more: str = "") -> str:
    return f'{action} tcp any any -> any any (msg:"m";{more} classtype:{classtype}; sid:{sid};)'


def prepared(text: str, ips: Ips | None = None) -> tuple[list[str], Tally]:
    tally = Tally()
    return list(prepare_rules(text.splitlines(), ips or Ips(), tally)), tally


def actions(text: str, mode: Mode = Mode.BLOCK) -> list[str]:
    return [line.split()[0] for line in prepared(text, Ips(mode=mode))[0]]


def test_a_rule_is_taken_apart_at_semicolons_that_no_backslash_hides() -> None:
    found = parse_rule(MALWARE)
    assert found is not None
    assert (found.action, found.header, found.signature) == ("alert", "http $HOME_NET any -> $EXTERNAL_NET any", 2000001)
    assert found.options[1] == ("content", '"a\\;b"')


def test_a_rule_that_is_not_changed_says_what_it_said() -> None:
    assert prepared(MALWARE, Ips(mode=Mode.LOG))[0] == [MALWARE + "\n"]
    assert prepared(MALWARE)[0] == [MALWARE.replace("alert", "drop", 1) + "\n"]


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (rule(), "drop"),
        (rule(classtype="policy-violation"), "alert"),
        (rule(classtype="attempted-recon"), "alert"),
        (rule(classtype="not-in-any-file"), "alert"),
        (rule(more=" metadata:x y, signature_severity Major;"), "drop"),
        (rule(more=" metadata:x y, signature_severity Informational;"), "alert"),
        (rule(more=" flowbits:set,x; noalert;"), "alert"),
        (rule(more=" flowbits:set,x; flowbits:noalert;"), "alert"),
        (rule("drop", "misc-activity"), "drop"),
        (rule("reject", "misc-activity"), "drop"),
        (rule("rejectboth", "misc-activity"), "drop"),
        (rule("pass"), "pass"),
    ],
    ids=[
        "harm",
        "a policy's violation",
        "a look around",
        "an unknown class",
        "major harm",
        "informational, whatever the class",
        "takes notes",
        "takes notes, old spelling",
        "the feed drops",
        "the feed rejects",
        "the feed rejects both",
        "the feed passes",
    ],
)
def test_what_blocks_is_harm_or_the_feeds_own_word(text: str, action: str) -> None:
    assert actions(text) == [action]


def test_in_log_mode_nothing_is_dropped_and_in_off_mode_nothing_is_there() -> None:
    text = "\n".join([rule(), rule("drop", sid=2), rule("reject", sid=3), rule("pass", sid=4)])
    assert actions(text, Mode.LOG) == ["alert", "alert", "alert", "pass"]
    assert prepared(text, Ips(mode=Mode.OFF)) == ([], Tally())


def test_lines_are_counted_by_what_became_of_them() -> None:
    lines = [
        "# a comment with a tail \\",
        rule(sid=1),
        rule(sid=1),
        rule(sid=2, classtype="misc-activity"),
        rule("pass", sid=3),
        rule(sid=4, more=" lua:x.lua;"),
        rule(sid=5, more=" dataset:set,x,state /etc/passwd;"),
        "",
        "nonsense",
        'alert tcp any any -> any any (msg:"no number";)',
        rule(sid=1_900_000_000),
        rule(sid=2**32),
        rule(sid=6)[:-1],
        "alert tcp any any -> any any (;sid:7;)",
        "alert",
        "alert (sid:8;)",
        rule(sid=9, more=f' content:"{"x" * MAX_RULE_BYTES}";'),
        rule(sid=10, more=' content:"\x00";'),
    ]
    got, tally = prepared("\n".join(lines))
    assert (tally.dropping, tally.alerting, tally.passing) == (1, 1, 1) == (len(got) - 2, len(got) - 2, len(got) - 2)
    assert (tally.repeated, tally.unsupported, tally.malformed) == (1, 2, 10)
    assert tally.examples[0] == "nonsense"
    assert len(tally.examples) == 5


def test_a_rule_may_go_on_in_the_next_line_with_a_comment_between() -> None:
    got, tally = prepared('alert tcp any any -> any any \\\n# between\n  (msg:"m"; \\\n sid:5;)\n' + rule(sid=6))
    assert got[0] == 'alert tcp any any -> any any (msg:"m"; sid:5;)\n'
    assert tally.written == 2


def test_a_rule_that_never_ends_costs_no_memory_and_not_the_next_one() -> None:
    got, tally = prepared("\n".join(["alert tcp x \\"] * 5000 + ["x"] + [rule()]))
    assert got[-1].startswith("drop tcp any any")
    assert tally.malformed < 20


def test_an_excepted_signature_is_left_out() -> None:
    got, tally = prepared("\n".join([rule(sid=1), rule(sid=2)]), Ips(exceptions=(IpsException(signature=1),)))
    assert [line for line in got if "sid:1;" in line] == []
    assert (tally.excepted, tally.dropping) == (1, 1)


def test_an_excepted_communication_passes_before_all_rules() -> None:
    ips = Ips(exceptions=(IpsException(terminal="10.0.0.5", peer="192.0.2.0/24"), IpsException(peer="2001:db8::1")))
    assert prepared(rule(), ips)[0][:2] == [
        'pass ip 10.0.0.5 any <> 192.0.2.0/24 any (msg:"excepted"; sid:1900000000; rev:1;)\n',
        'pass ip any any <> 2001:db8::1 any (msg:"excepted"; sid:1900000001; rev:1;)\n',
    ]


@pytest.mark.parametrize(
    ("written", "rendered"),
    [
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("10.0.0.0/0.255.255.255", "10.0.0.0/8"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_an_excepted_network_is_written_as_suricata_reads_it(written: str, rendered: str) -> None:
    (first, *_), _ = prepared(rule(), Ips(exceptions=(IpsException(terminal=written),)))
    assert first.startswith(f"pass ip {rendered} any <> any any ")


def test_a_signature_that_is_excepted_between_two_wants_their_flows_unmarked() -> None:
    ips = Ips(exceptions=(IpsException(signature=7, terminal="10.0.0.5"), IpsException(signature=7, peer="192.0.2.1")))
    got, tally = prepared("\n".join([rule(sid=7), rule(sid=8)]), ips)
    assert got == [
        'alert ip 10.0.0.5 any <> any any (msg:"excepted"; flowbits:set,mamori.except.7; noalert; sid:1900000000; rev:1;)\n',
        'alert ip any any <> 192.0.2.1 any (msg:"excepted"; flowbits:set,mamori.except.7; noalert; sid:1900000001; rev:1;)\n',
        'drop tcp any any -> any any (msg:"m"; classtype:trojan-activity; flowbits:isnotset,mamori.except.7; sid:7;)\n',
        'drop tcp any any -> any any (msg:"m"; classtype:trojan-activity; sid:8;)\n',
    ]
    assert tally.dropping == 2


def test_an_exception_for_everything_excepts_nothing() -> None:
    assert prepared(rule(), Ips(exceptions=(IpsException(),)))[0] == prepared(rule())[0]
