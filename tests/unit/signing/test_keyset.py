"""Reading a keyset file: what it means, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError, MamoriError
from signing.keyset import Authority, read_keyset
from signing.uri import FileKey, TokenKey


def test_a_keyset_says_which_key_is_for_what(keys: Path) -> None:
    keyset = read_keyset(keys / "keyset.toml")
    assert keyset.db.certificate == keys / "secure-boot/db.crt"
    assert keyset.db.key == FileKey(keys / "secure-boot/db.key")
    assert keyset.signs_with is Authority.CA1
    assert keyset.signer.certificate == keys / "bundle/ca1-signer.crt"
    assert [key.name for key in keyset.tuf["root"]] == ["tuf.root[0]", "tuf.root[1]", "tuf.root[2]"]


def test_one_word_moves_signing_to_the_other_ca(keys: Path) -> None:
    edit(keys, 'signs_with = "ca1"', 'signs_with = "ca2"')
    assert read_keyset(keys / "keyset.toml").signer.certificate == keys / "bundle/ca2-signer.crt"


def test_keys_behind_a_link_are_named_where_they_are_and_problems_where_people_look(keys: Path) -> None:
    link = keys.with_name("link")
    link.symlink_to(keys)
    keyset = read_keyset(link / "keyset.toml")
    assert keyset.db.key == FileKey(keys / "secure-boot/db.key")
    assert keyset.path == link / "keyset.toml"


def test_an_hsm_brings_its_surroundings(keys: Path) -> None:
    edit(keys, '"file:secure-boot/db.key"', '"pkcs11:token=field;object=db?module-path=/usr/lib/hsm.so&pin-source=file:pin"')
    with (keys / "keyset.toml").open("a") as file:
        file.write('\n[hsm]\nenvironment = { HSM_CONF = "/etc/hsm.conf" }\nreads = ["/etc/hsm.conf"]\nwrites = ["tokens"]\n')
    keyset = read_keyset(keys / "keyset.toml")
    assert keyset.db.key == TokenKey("field", Path("/usr/lib/hsm.so"), "db", pin_source=keys / "pin")
    assert dict(keyset.hsm.environment) == {"HSM_CONF": "/etc/hsm.conf"}
    assert (keyset.hsm.reads, keyset.hsm.writes) == ((Path("/etc/hsm.conf"),), (keys / "tokens",))


def test_keys_that_no_build_uses_may_stay_in_the_safe(keys: Path) -> None:
    for name in ("secure-boot/pk", "secure-boot/kek", "bundle/ca1", "bundle/ca2", "bundle/ca2-signer", "tuf/root-1"):
        edit(keys, f'key = "file:{name}.key"\n', "")
    keyset = read_keyset(keys / "keyset.toml")
    assert keyset.pk.key is None
    assert keyset.authorities[Authority.CA1].ca.key is None
    assert keyset.tuf["root"][0].key is None


REFUSED = {
    "no db key": ('key = "file:secure-boot/db.key"\n', "", "secure_boot.db.key: expected a URI"),
    "no key for the signer": ('key = "file:bundle/ca1-signer.key"\n', "", "bundle.ca1.signer.key: expected a URI"),
    "no certificate": ('certificate = "bundle/ca2.crt"\n', "", "bundle.ca2.ca.certificate: expected a string, got nothing"),
    "an unknown CA": ('signs_with = "ca1"', 'signs_with = "ca3"', "bundle.signs_with: expected one of ca1, ca2, got 'ca3'"),
    "a bad URI": ('"file:tuf/feeds-1.key"', '"tuf/feeds-1.key"', "tuf.feeds[0].key: expected a `file:` or `pkcs11:` URI"),
    "a misspelt key": ("[ssh]", "[shs]", "hint: did you mean `ssh`?"),
    "more keys than a role may have": (
        "[[tuf.snapshot]]",
        '[[tuf.snapshot]]\npublic = "x.pub"\n' * 16 + "[[tuf.snapshot]]",
        "tuf.snapshot: expected 1 to 16 keys, got 17",
    ),
    "a role without keys": ("[[tuf.snapshot]]", "[[tuf.feeds]]", "tuf.snapshot: expected an array, got nothing"),
}


@pytest.mark.parametrize(("old", "new", "told"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_keyset_file_is_refused_with_the_key_that_is_wrong(keys: Path, old: str, new: str, told: str) -> None:
    edit(keys, old, new)
    with pytest.raises(BadInputError) as caught:
        read_keyset(keys / "keyset.toml")
    assert f"{keys}/keyset.toml: " in str(caught.value)
    assert told in str(caught.value)


def test_every_bad_uri_is_told_at_once(keys: Path) -> None:
    edit(keys, "file:", "flie:")
    with pytest.raises(BadInputError) as caught:
        read_keyset(keys / "keyset.toml")
    assert len(caught.value.problems) == 16


def test_a_missing_keyset_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match=r"keyset\.toml: cannot be read: No such file"):
        read_keyset(tmp_path / "keyset.toml")


def edit(keys: Path, old: str, new: str) -> None:
    path = keys / "keyset.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
