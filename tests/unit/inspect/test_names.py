"""Domain names as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.names import domain_name, host_name

HOST_NAMES = {
    "a plain name": (b"www.example.com", "www.example.com"),
    "capitals": (b"WwW.Example.COM", "www.example.com"),
    "a final dot": (b"example.com.", "example.com"),
    "an A-label in capitals": (b"XN--Q9JYB4C.example", "xn--q9jyb4c.example"),
    "a sloppy name": (b"_my_host.example", "_my_host.example"),
    "an address": (b"192.0.2.1", "192.0.2.1"),
    "UTF-8, which should be an A-label": ("日本.example".encode(), r"\230\151\165\230\156\172.example"),
    "a zero byte": (b"good.example\0.bad.example", r"good.example\000.bad.example"),
    "a space and a backslash": (b"a b\\c", r"a\032b\\c"),
}


@pytest.mark.parametrize(("raw", "text"), HOST_NAMES.values(), ids=HOST_NAMES)
def test_a_dotted_name_is_lower_case_text_without_a_final_dot(raw: bytes, text: str) -> None:
    assert host_name(raw) == text


DOMAIN_NAMES = {
    "labels": ((b"www", b"Example", b"COM"), "www.example.com"),
    "the root": ((), "."),
    "a dot inside a label": ((b"a.b", b"example"), r"a\.b.example"),
    "a dot that ends a label": ((b"a.", b"example"), r"a\..example"),
    "a service name with a space": ((b"My Printer", b"_ipp", b"_tcp", b"local"), r"my\032printer._ipp._tcp.local"),
    "a backslash before a dot": ((b"a\\.b",), r"a\\\.b"),
}


@pytest.mark.parametrize(("labels", "text"), DOMAIN_NAMES.values(), ids=DOMAIN_NAMES)
def test_labels_are_joined_so_that_they_can_be_told_apart(labels: tuple[bytes, ...], text: str) -> None:
    assert domain_name(labels) == text


LABELS = st.lists(st.binary(min_size=1, max_size=6), max_size=4).map(tuple)


@given(LABELS, LABELS)
def test_two_names_have_one_text_only_if_they_differ_in_case_alone(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    same = [label.lower() for label in one] == [label.lower() for label in other]
    assert (domain_name(one) == domain_name(other)) is same


@given(st.binary(max_size=20))
def test_any_bytes_become_text_that_is_printable_ascii(raw: bytes) -> None:
    assert all(0x21 <= ord(letter) <= 0x7E for letter in host_name(raw) + domain_name((raw,)))
