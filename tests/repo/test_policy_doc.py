"""docs/policy.md agrees with the schema: each key with its choices and its default, and examples that are policies."""

from __future__ import annotations

import dataclasses
import enum
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mamori.inspect.applications import own_applications
from mamori.inspect.policy import MAX_POLICY_BYTES, Policy, parse_policy
from tests.repo.test_docs import explained, keys
from tests.support.checkout import ROOT

TEXT = (ROOT / "docs/policy.md").read_text()
DEFAULTS = dict(re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`|any) \|", TEXT, re.MULTILINE))
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def defaults(value: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its default as TOML has it; those of an exception have none."""
    for field in dataclasses.fields(value):
        key, inner = prefix + field.name, getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from defaults(inner, f"{key}.")
        else:
            plain = inner.value if isinstance(inner, enum.Enum) else dict(inner) if isinstance(inner, Mapping) else inner
            yield key, list(plain) if isinstance(plain, tuple) else plain


def test_every_key_and_every_choice_of_the_policy_is_explained() -> None:
    told = set(explained(TEXT))
    assert [key for key in keys(Policy) if key not in told] == []
    known = {key.partition("=")[0] for key in keys(Policy)}
    assert {key for key in told if "=" not in key} == {*known, *(key for key, _ in defaults(Policy()))}


def test_the_document_says_the_defaults_that_the_policy_has() -> None:
    said = {key: tomllib.loads(f"value = {text}")["value"] for key, text in DEFAULTS.items() if text}
    assert said == dict(defaults(Policy()))
    assert {key for key, text in DEFAULTS.items() if not text} == {
        "ips.exceptions.signature",
        "ips.exceptions.terminal",
        "ips.exceptions.peer",
    }


def test_the_document_says_how_long_the_end_of_a_file_may_wait() -> None:
    hints = typing.get_type_hints(type(Policy().virus), include_extras=True)
    limits = typing.get_args(hints["hold_ms"])[1]
    (low, high) = re.search(r"in milliseconds; (\d+) to ([\d,]+)", TEXT).groups()  # type: ignore[union-attr]
    assert (int(low), int(high.replace(",", ""))) == (limits.low, limits.high)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.partition("\n")[0])
def test_an_example_is_a_policy_that_differs_from_the_default_and_names_what_there_is(text: str) -> None:
    policy = parse_policy(text, "the example")
    assert policy != Policy()
    assert set(policy.applications.modes) <= set(own_applications().all)


def test_the_document_says_how_large_a_policy_may_be() -> None:
    assert f"It has at most {MAX_POLICY_BYTES >> 10} KiB" in TEXT


def test_there_are_examples_in_the_document() -> None:
    assert len(EXAMPLES) >= 3
