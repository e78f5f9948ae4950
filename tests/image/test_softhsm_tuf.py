"""TUF keys in a real PKCS #11 token: SoftHSM, reached by the tools tree's openssl, and python-tuf's own client to believe it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from firmware.repository.keysets import open_repository
from mamori.formats.problems import BadInputError
from signing.development import init_development
from signing.keyset import Keyset, read_keyset
from signing.tuf import needs_tools, signers_at_hand
from tests.conftest import ToolsTree
from tests.support.repository import client_of
from tests.support.update_world import make_offer

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "271828"
NOW = int(time.time())

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@pytest.fixture(scope="module")
def keyset(tools: ToolsTree, tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    """The two firmware keys are in a token, RSA and ECDSA; everything else is in files."""
    path = init_development(tmp_path_factory.mktemp("hsm") / "a folder", datetime.now(UTC))
    folder = path.parent
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    (folder / "pin").write_text(PIN)
    env = {"SOFTHSM2_CONF": str(config)}

    def util(*arguments: str) -> None:
        tools.run(["softhsm2-util", *arguments, "--pin", PIN], env=env, reads=(folder,), writes=(folder / "tokens",))

    util("--init-token", "--free", "--label", "people", "--so-pin", PIN)
    keys: list[PrivateKey] = [
        rsa.generate_private_key(public_exponent=65537, key_size=3072),
        ec.generate_private_key(ec.SECP256R1()),
    ]
    text = path.read_text()
    for number, key in enumerate(keys, start=1):
        name = f"tuf/firmware-{number}"
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        file = folder / f"{name}.key"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        util("--import", str(file), "--token", "people", "--label", f"person {number}", "--id", f"0{number}")
        file.unlink()
        uri = f"pkcs11:token=people;object=person%20{number}?module-path={MODULE}&pin-source=file:pin"
        text = text.replace(f'"file:{name}.key"', f'"{uri}"')
    surroundings = f'[hsm]\nenvironment = {{ SOFTHSM2_CONF = "{config}" }}\nreads = ["softhsm2.conf"]\nwrites = ["tokens"]\n'
    path.write_text(f"{text}\n{surroundings}")
    return read_keyset(path)


def test_two_tokens_release_and_clients_believe_them(keyset: Keyset, tools: ToolsTree, tmp_path: Path) -> None:
    assert needs_tools(keyset)
    repository = open_repository(tmp_path / "repository", keyset, tools=tools.tools)
    repository.init(NOW)
    (tmp_path / "bundle").write_bytes(b"a bundle")
    assert repository.add_release(tmp_path / "bundle", make_offer("2026.12.0"), NOW).pending == ()
    with client_of(repository, tmp_path / "client") as client:
        assert client.download() == b"a bundle"


def test_a_token_that_holds_another_key_than_the_keyset_says_is_refused(keyset: Keyset, tools: ToolsTree, tmp_path: Path) -> None:
    """`object` names the wrong one of two RSA keys: the signature would be a good one, of somebody else."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key()
    public = keyset.tuf["firmware"][0].public
    before = public.read_bytes()
    public.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    try:
        repository = open_repository(tmp_path / "repository", keyset, tools=tools.tools)
        with pytest.raises(BadInputError, match=r"tuf.firmware\[0\].key: expected the private key of"):
            repository.init(NOW)
        assert not repository.store.exists()
    finally:
        public.write_bytes(before)


def test_without_the_tools_a_token_is_told_to_be_out_of_reach(keyset: Keyset) -> None:
    with pytest.raises(BadInputError, match=r"tuf.firmware\[1\].key: expected a file: key"):
        signers_at_hand(keyset, "firmware")
