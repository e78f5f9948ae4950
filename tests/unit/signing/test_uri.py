"""Key URIs: what is understood, what is refused and how, and what tools get to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from signing.uri import FileKey, TokenKey, parse_key_uri

FOLDER = Path("/keys")
MODULE = "module-path=/usr/lib/hsm.so"


def parse(text: str) -> FileKey | TokenKey:
    return parse_key_uri(text, FOLDER, "keyset.toml", "db.key")


ACCEPTED = {
    "a relative file": ("file:db.key", FileKey(Path("/keys/db.key"))),
    "an absolute file": ("file:/media/stick/db.key", FileKey(Path("/media/stick/db.key"))),
    "a file with a space": ("file:my keys/db.key", FileKey(Path("/keys/my keys/db.key"))),
    "a token's object": (f"pkcs11:token=lab;object=db?{MODULE}", TokenKey("lab", Path("/usr/lib/hsm.so"), "db")),
    "a binary id": (f"pkcs11:token=lab;id=%00%ff%3B?{MODULE}", TokenKey("lab", Path("/usr/lib/hsm.so"), id=b"\0\xff;")),
    "an escaped token name": (f"pkcs11:token=My%20HSM%3b1;object=db?{MODULE}", TokenKey("My HSM;1", Path("/usr/lib/hsm.so"), "db")),
    "any order": (f"pkcs11:object=db;token=lab?{MODULE}", TokenKey("lab", Path("/usr/lib/hsm.so"), "db")),
    "a relative PIN file": (
        f"pkcs11:token=lab;object=db?pin-source=file:pin&{MODULE}",
        TokenKey("lab", Path("/usr/lib/hsm.so"), "db", pin_source=Path("/keys/pin")),
    ),
    "an absolute PIN file without its scheme": (
        f"pkcs11:token=lab;object=db?{MODULE}&pin-source=/run/pin",
        TokenKey("lab", Path("/usr/lib/hsm.so"), "db", pin_source=Path("/run/pin")),
    ),
}

REFUSED = {
    "nothing": ("", "a `file:` or `pkcs11:` URI"),
    "a bare path": ("db.key", "a `file:` or `pkcs11:` URI"),
    "another scheme": ("https://example.org/db.key", "a `file:` or `pkcs11:` URI"),
    "an upper-case scheme": ("FILE:db.key", "a `file:` or `pkcs11:` URI"),
    "a file without a path": ("file:", "file:PATH"),
    "a file with a host": ("file://host/db.key", "with no host"),
    "a file with a line break": ("file:db\n.key", "file:PATH"),
    "a PIN in the URI": (f"pkcs11:token=lab;object=db?{MODULE}&pin-value=1234", "pin-source=file:PATH"),
    "no token": (f"pkcs11:object=db?{MODULE}", "`token`"),
    "neither object nor id": (f"pkcs11:token=lab?{MODULE}", "`object` or `id`"),
    "no module": ("pkcs11:token=lab;object=db", "`module-path`"),
    "a relative module": ("pkcs11:token=lab;object=db?module-path=hsm.so", "an absolute path"),
    "an empty value": (f"pkcs11:token=;object=db?{MODULE}", "`token` with a value"),
    "an attribute twice": (f"pkcs11:token=lab;token=field;object=db?{MODULE}", "`token` once"),
    "an unknown attribute": (f"pkcs11:token=lab;slot-id=1;object=db?{MODULE}", "`slot-id`"),
    "a path attribute in the query": (f"pkcs11:token=lab;object=db?{MODULE}&id=1", "`id`"),
    "a broken escape": (f"pkcs11:token=lab;object=d%2?{MODULE}", "%XX"),
    "an unescaped space": (f"pkcs11:token=my hsm;object=db?{MODULE}", "%XX"),
    "a name that is not UTF-8": (f"pkcs11:token=%ff;object=db?{MODULE}", "in UTF-8"),
    "a name with a zero byte": (f"pkcs11:token=lab%00;object=db?{MODULE}", "printable"),
    "a PIN from a command": (f"pkcs11:token=lab;object=db?{MODULE}&pin-source=%7Ccat", "`pin-source` with a file's path"),
    "a PIN from another machine": (f"pkcs11:token=lab;object=db?{MODULE}&pin-source=file://host/pin", "with a file's path"),
}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_key_uri_is_understood(text: str, expected: FileKey | TokenKey) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_key_uri_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    assert told in str(caught.value)
    assert str(caught.value).startswith("keyset.toml: db.key: expected ")


def test_all_problems_of_a_uri_are_told_at_once() -> None:
    with pytest.raises(BadInputError) as caught:
        parse("pkcs11:slot-id=1;object=%zz?pin-value=1234")
    assert len(caught.value.problems) == 3


def test_a_pin_in_the_uri_is_not_repeated_in_the_message() -> None:
    with pytest.raises(BadInputError) as caught:
        parse(f"pkcs11:token=lab;object=db?{MODULE}&pin-value=271828")
    assert "271828" not in str(caught.value)


def test_tools_get_a_uri_that_selects_the_private_key_and_escapes_every_value() -> None:
    key = TokenKey("My HSM;1", Path("/usr/lib/hsm.so"), "a/b", b"\0\xff", Path("/keys/a pin"))
    assert str(key) == "pkcs11:token=My%20HSM%3B1;object=a%2Fb;id=%00%FF;type=private?pin-source=file:/keys/a%20pin"


def test_what_tools_get_names_the_same_key_again() -> None:
    key = parse(f"pkcs11:token=My%20HSM%3b1;id=%01%fe?{MODULE}&pin-source=file:a%20pin")
    again = str(key).replace(";type=private", "") + f"&{MODULE}"
    assert parse(again) == key
