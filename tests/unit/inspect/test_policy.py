"""The owner's policy: what is a policy, and how each thing that is none is told."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from mamori.formats.strict import MAX_PROBLEMS
from mamori.inspect.applications import own_applications
from mamori.inspect.http_url import parse_target
from mamori.inspect.judge import Judge
from mamori.inspect.policy import MAX_POLICY_BYTES, Mode, Policy, Unseen, parse_policy
from mamori.inspect.policy_file import read_policy
from mamori.inspect.sources import NoLists

EVERYTHING = """
[virus]
mode = "log"
unseen = "block"
hold_ms = 100
[dangerous_sites]
mode = "off"
dns = "block"
[categories]
mode = "off"
modes = { gambling = "block", "web-mail" = "log" }
[applications]
mode = "block"
[applications.modes]
line = "off"
[ips]
mode = "log"
floods = "off"
[[ips.exceptions]]
signature = 4294967295
[[ips.exceptions]]
terminal = "192.168.1.0/24"
peer = "2001:db8::1"
[evasion]
mode = "log"
[addresses]
mode = "log"
[allow]
names = ["Example.CO.jp", "例え.jp", "xn--r8jz45g.jp", "example.com.", "192.0.2.1", "2001:db8::1", "_dmarc.example.com"]
urls = ["example.com/", "https://example.com/a%20b?c", "例え.jp:8080/パス/"]
[block]
addresses = ["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "192.0.2.0/255.255.255.0"]
[block_page]
contact = "情報システム 内線 123"
"""


def test_a_policy_may_say_everything() -> None:
    policy = parse_policy(EVERYTHING, "policy.toml")
    assert (policy.virus.mode, policy.virus.unseen, policy.virus.hold_ms) == (Mode.LOG, Unseen.BLOCK, 100)
    assert (policy.dangerous_sites.mode, policy.dangerous_sites.dns) == (Mode.OFF, Mode.BLOCK)
    assert [policy.categories.mode_of(key) for key in ("gambling", "web-mail", "other")] == [Mode.BLOCK, Mode.LOG, Mode.OFF]
    assert [policy.applications.mode_of(key) for key in ("line", "other")] == [Mode.OFF, Mode.BLOCK]
    assert [(one.signature, one.terminal, one.peer) for one in policy.ips.exceptions] == [
        (4294967295, None, None),
        (None, "192.168.1.0/24", "2001:db8::1"),
    ]
    Judge(policy, NoLists(), own_applications())


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff[virus]\r\n", "[allow]\nnames = []\n"], ids=repr)
def test_what_is_not_said_has_its_default(text: str) -> None:
    assert parse_policy(text, "policy.toml") == Policy()


NAMES = {
    "as people write it": ("Example.COM", "www.example.com"),
    "with a final dot": ("example.com.", "example.com"),
    "in Japanese": ("例え.jp", "www.xn--r8jz45g.jp"),
    "with an ideographic full stop": ("例え。jp", "xn--r8jz45g.jp"),
    "in full width": ("ＥＸＡＭＰＬＥ．com", "example.com"),
    "an address": ("192.0.2.1", "192.0.2.1"),
    "an IPv6 address in another spelling": ("2001:DB8:0::1", "2001:db8::1"),
}


@pytest.mark.parametrize(("entry", "name"), NAMES.values(), ids=NAMES)
def test_a_name_is_taken_however_it_is_written(entry: str, name: str) -> None:
    judge = Judge(parse_policy(f'[block]\nnames = ["{entry}"]\n', "policy.toml"), NoLists(), own_applications())
    assert judge.judge_name(name).blocking is not None
    host = f"[{name}]" if ":" in name else name
    assert judge.judge_url(parse_target("GET", "/x", [host])[0]).blocking is not None
    assert judge.judge_name("other.example").blocking is None


NAME = "a domain name without a wildcard, or an address"
URL = "host and path: example.com/path"
ADDRESS = "an IP address or network (of a network its first address: 192.0.2.0/24)"
MODES = "one of block, log, off"
TOP = "one of addresses, allow, applications, block, block_page, categories, dangerous_sites, evasion, ips, virus"

BAD = {
    "an unknown table": ("[viruses]\n", ["viruses", TOP, "an unknown key", "did you mean `virus`?"]),
    "an unknown key": ("[evasion]\nmodes = 1\n", ["evasion.modes", "one of mode", "an unknown key", "did you mean `mode`?"]),
    "a key at the top": ("mode = 'block'\n", ["mode", TOP, "an unknown key", ""]),
    "a key with a line break": ('"a\\nb" = 1\n', ["'a\\nb'", TOP, "an unknown key", ""]),
    "a very long key": (f'"{"é" * 1000}" = 1\n', ["'" + "é" * 58 + "…", TOP, "an unknown key", ""]),
    "a table where a value belongs": ("[virus.mode]\n", ["virus.mode", MODES, "a table", ""]),
    "a value where a table belongs": ("virus = 1\n", ["virus", "a table", "1", ""]),
    "an array of tables where one belongs": ("[[virus]]\n", ["virus", "a table", "[{}]", ""]),
    "a mode with a typing error": ("[virus]\nmode = 'blok'\n", ["virus.mode", MODES, "'blok'", "did you mean `block`?"]),
    "a mode in capitals": ("[virus]\nmode = 'BLOCK'\n", ["virus.mode", MODES, "'BLOCK'", ""]),
    "a mode that is true": ("[virus]\nmode = true\n", ["virus.mode", MODES, "true", ""]),
    "a category's mode": ("[categories.modes]\na = 'x'\n", ["categories.modes.a", MODES, "'x'", ""]),
    "a category's key in capitals": (
        "[categories.modes]\nGambling = 'log'\n",
        ["categories.modes", "keys of lower-case letters, digits and hyphens", "a table", ""],
    ),
    "too short a time": ("[virus]\nhold_ms = 99\n", ["virus.hold_ms", "100 to 30000", "99", ""]),
    "too long a time": ("[virus]\nhold_ms = 30001\n", ["virus.hold_ms", "100 to 30000", "30001", ""]),
    "a time with a fraction": ("[virus]\nhold_ms = 100.0\n", ["virus.hold_ms", "an integer", "100.0", ""]),
    "no number": ("[virus]\nhold_ms = nan\n", ["virus.hold_ms", "an integer", "nan", ""]),
    "true as a time": ("[virus]\nhold_ms = true\n", ["virus.hold_ms", "an integer", "true", ""]),
    "a number of thousands of digits": (
        f"[virus]\nhold_ms = 0x{'9' * 5000}\n",
        ["virus.hold_ms", "100 to 30000", "a value too large to show", ""],
    ),
    "a date": ("[virus]\nhold_ms = 2026-11-23\n", ["virus.hold_ms", "an integer", "datetime.date(2026, 11, 23)", ""]),
    "a name where names belong": ("[allow]\nnames = 'a.example'\n", ["allow.names", "an array", "'a.example'", ""]),
    "a number as a name": ("[allow]\nnames = [1]\n", ["allow.names[0]", "a string", "1", ""]),
    "a wildcard": ("[allow]\nnames = ['a.jp', '*.example.com']\n", ["allow.names[1]", NAME, "'*.example.com'", ""]),
    "a URL as a name": ("[block]\nnames = ['http://a.jp/']\n", ["block.names[0]", NAME, "'http://a.jp/'", ""]),
    "a mail address as a name": ("[block]\nnames = ['x@a.jp']\n", ["block.names[0]", NAME, "'x@a.jp'", ""]),
    "a name with a port": ("[block]\nnames = ['a.jp:80']\n", ["block.names[0]", NAME, "'a.jp:80'", ""]),
    "a name with a space": ("[block]\nnames = ['a .jp']\n", ["block.names[0]", NAME, "'a .jp'", ""]),
    "an empty name": ("[block]\nnames = ['']\n", ["block.names[0]", NAME, "''", ""]),
    "a name that is only a dot": ("[block]\nnames = ['.']\n", ["block.names[0]", NAME, "'.'", ""]),
    "a name that is a number": ("[block]\nnames = ['12345']\n", ["block.names[0]", NAME, "'12345'", ""]),
    "a label of 64": (f"[block]\nnames = ['{'a' * 64}.jp']\n", ["block.names[0]", NAME, f"'{'a' * 58}…", ""]),
    "a name as a URL": ("[block]\nurls = ['a.jp']\n", ["block.urls[0]", URL, "'a.jp'", ""]),
    "a scheme and a name as a URL": ("[block]\nurls = ['https://a.jp']\n", ["block.urls[0]", URL, "'https://a.jp'", ""]),
    "a URL without a host": ("[block]\nurls = ['/path']\n", ["block.urls[0]", URL, "'/path'", ""]),
    "a name as an address": ("[block]\naddresses = ['a.jp']\n", ["block.addresses[0]", ADDRESS, "'a.jp'", ""]),
    "an address inside a network": ("[block]\naddresses = ['10.0.0.1/8']\n", ["block.addresses[0]", ADDRESS, "'10.0.0.1/8'", ""]),
    "a scope": ("[block]\naddresses = ['fe80::1%eth0']\n", ["block.addresses[0]", ADDRESS, "'fe80::1%eth0'", ""]),
    "a scope that is a command": (
        "[[ips.exceptions]]\nterminal = 'fe80::1%x } ; flush ruleset ;'\n",
        ["ips.exceptions[0].terminal", ADDRESS, "'fe80::1%x } ; flush ruleset ;'", ""],
    ),
    "an exception for everything": (
        "[[ips.exceptions]]\n",
        ["ips.exceptions[0]", "at least one of signature, terminal, peer", "a table", ""],
    ),
    "too many exceptions": (
        "[[ips.exceptions]]\nsignature = 1\n" * 1001,
        ["ips.exceptions", "at most 1000 tables", "", ""],
    ),
    "a signature of 0": ("[[ips.exceptions]]\nsignature = 0\n", ["ips.exceptions[0].signature", "1 to 4294967295", "0", ""]),
    "a contact of two lines": (
        "[block_page]\ncontact = 'a\\nb'\n".replace("'", '"'),
        ["block_page.contact", "one line of at most 200 characters", "'a\\nb'", ""],
    ),
    "a key said twice": (
        "[virus]\nmode = 'log'\nmode = 'log'\n",
        ["(syntax)", "TOML 1.0", "Cannot overwrite a value (at line 3, column 13)", ""],
    ),
    "a table said twice": (
        "[virus]\n[ips]\n[virus]\n",
        ["(syntax)", "TOML 1.0", "Cannot declare ('virus',) twice (at line 3, column 7)", ""],
    ),
    "a string that is not closed": ("[virus]\nmode = 'log\n", ["(syntax)", "TOML 1.0", "", ""]),
    "tables nested too deeply": ("a = " + "[" * 100_000, ["(syntax)", "TOML 1.0", "", ""]),
    "a key of too many parts": (".".join("a" * 100_000) + " = 1", ["(syntax)", "keys of at most 8 parts", "more", ""]),
    "a table's name of too many parts": (f"[{' . '.join('a' * 9)}]", ["(syntax)", "keys of at most 8 parts", "more", ""]),
    "a key of too many parts behind a string that ends with a quote": (
        'a = { b = """c"""", ' + ".".join("d" * 40) + ' = "e" }',
        ["(syntax)", "keys of at most 8 parts", "more", ""],
    ),
    "the same with apostrophes": (
        "a = { b = '''c''''', " + ".".join("d" * 40) + " = 'e' }",
        ["(syntax)", "keys of at most 8 parts", "more", ""],
    ),
    "a quoted key of too many parts": (".".join(["'a b'"] * 40) + " = 1", ["(syntax)", "keys of at most 8 parts", "more", ""]),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_told_with_file_key_expected_and_actual(text: str, told: list[str]) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_policy(text, "policy.toml")
    (problem,) = caught.value.problems
    key, expected, got, hint = told
    assert (problem.source, problem.key, problem.expected, problem.hint) == ("policy.toml", key, expected, hint)
    assert problem.got == got or (not got and problem.got)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(BadInputError) as caught:
        parse_policy("[virus]\nmode = 1\nhold = 2\n[allow]\nnames = ['*', 'a.jp', 3]\naddress = 1\n", "p")
    assert [problem.key for problem in caught.value.problems] == [
        "allow.address",
        "allow.names[0]",
        "allow.names[2]",
        "virus.hold",
        "virus.mode",
    ]


def test_of_very_many_problems_the_number_is_told() -> None:
    with pytest.raises(BadInputError) as caught:
        parse_policy(f"[allow]\nnames = [{'1,' * 20_000}]\n", "p")
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert str(caught.value.problems[0]) == "p: (number): expected at most 100 problems, got 20000"


def test_dots_and_quotes_in_strings_and_comments_are_no_keys() -> None:
    dots = ".".join("a" * 100)
    names = f"'{dots}', '''{dots}''', \"\"\"{dots}\"\"\""
    policy = parse_policy(f'# {dots} = "\n[block_page]\ncontact = "\\"a.b\'"  # it\'s {dots}\n[allow]\nnames = [{names}]\n', "p")
    assert policy.allow.names == (dots,) * 3
    assert policy.block_page.contact == "\"a.b'"


SLOW = {
    "digits": "a = " + "9" * MAX_POLICY_BYTES,
    "letters": "a" * MAX_POLICY_BYTES,
    "dots": "." * MAX_POLICY_BYTES,
    "letters with dots": "a." * (MAX_POLICY_BYTES // 2),
    "letters with spaced dots": "a ." * (MAX_POLICY_BYTES // 3),
    "quotes": '"' * MAX_POLICY_BYTES,
    "escaped quotes": 'a = "' + '\\"' * (MAX_POLICY_BYTES // 2),
    "apostrophes": "'" * MAX_POLICY_BYTES,
    "an open string of quotes": '"""' + '" ' * (MAX_POLICY_BYTES // 2),
    "comments": "#" * MAX_POLICY_BYTES,
    "tables": "".join(f"[t{number}]\n" for number in range(MAX_POLICY_BYTES // 10)),
    "exceptions": "[[ips.exceptions]]\n" * (MAX_POLICY_BYTES // 19),
    "names": "[allow]\nnames = [" + "'a.example.com'," * (MAX_POLICY_BYTES // 16) + "]",
    "URLs of escapes": "[allow]\nurls = [" + f"'a.jp/{'%41' * 500}'," * (MAX_POLICY_BYTES // 1520) + "]",
    "addresses": "[block]\naddresses = [" + "'10.0.0.1'," * (MAX_POLICY_BYTES // 11) + "]",
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_no_policy_takes_long(text: str) -> None:
    """What is quadratic would take minutes: the limit is for a slow and busy machine."""
    began = time.process_time()
    try:
        parse_policy(text, "p")
    except BadInputError as error:
        assert len(str(error)) < 100_000
    assert time.process_time() - began < 10


HEAVY = {
    "tables": "".join(f"[t{number}.a.b.c.d.e.f.g]\n" for number in range(MAX_POLICY_BYTES // 24)),
    "keys": "".join(f"k{number}.a.b.c.d.e.f.g=1\n" for number in range(MAX_POLICY_BYTES // 22)),
    "a long number": "a=0b" + "1" * MAX_POLICY_BYTES,
}


@pytest.mark.parametrize("text", HEAVY.values(), ids=HEAVY)
def test_no_policy_takes_much_memory(text: str) -> None:
    """Five processes read it, which have 512 MiB together."""
    assert len(text) >= MAX_POLICY_BYTES * 9 // 10
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError):
            parse_policy(text, "p")
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()


CONTENTS = {
    "too much": (b"#" * (MAX_POLICY_BYTES + 1), "(size): expected at most 131072 bytes, got more"),
    "no text": (b"\x7fELF\x02\x01\xff", "(encoding): expected UTF-8, got byte 0xff at 6"),
    "Shift JIS": ('[block_page]\ncontact = "情報"\n'.encode("cp932"), "(encoding): expected UTF-8, got byte 0x8f at 24"),
    "UTF-16": ('[virus]\nmode = "log"\n'.encode("utf-16"), "(encoding): expected UTF-8, got byte 0xff at 0"),
    "zeros": (bytes(100), "(syntax): expected TOML 1.0, got Invalid statement (at line 1, column 1)"),
}


@pytest.mark.parametrize(("content", "told"), CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_is_no_text_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        read_policy(path)
    assert str(caught.value) == f"{path}: {told}"
