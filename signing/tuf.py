"""The TUF keys of a keyset: who may sign which role, how many must, and signers for the keys that are at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Key, SecretsHandler, Signature, Signer, SSlibKey

from mamori.formats.problems import BadInputError, Problem
from signing.commands import ToolCommand, plan_raw_signature
from signing.keyset import Keyset, Published
from signing.private import read_private_key
from signing.uri import FileKey, TokenKey

ROLES = ("root", "firmware", "feeds", "snapshot", "timestamp")


Run = Callable[[ToolCommand], object]

_PSS = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
_TOKEN_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rsassa-pss-sha256": ("-sha256", *_PSS),
        "ecdsa-sha2-nistp256": ("-sha256",),
        "ecdsa-sha2-nistp384": ("-sha384",),
    }
)
"""By TUF's name of a scheme, what `openssl dgst` is told."""

_TOKEN_HINT = "libp11, which reaches the token, has no Ed25519"  # noqa: S105, no secret


@dataclass(frozen=True)
class RoleKeys:
    """The public keys of a role, in the keyset's order, and how many of them must sign."""

    keys: tuple[SSlibKey, ...]
    threshold: int


def threshold_of(count: int) -> int:
    """The majority: two of three, both of two. A single lost key neither signs alone nor stops the others where there are three."""
    return count // 2 + 1


def read_role_keys(keyset: Keyset) -> Mapping[str, RoleKeys]:
    """By role; BadInputError for a key that cannot be read. No private key is looked at."""
    problems: list[Problem] = []
    found = {}
    for role in ROLES:
        keys = tuple(key for key in (_read_public(keyset, one, problems) for one in keyset.tuf[role]) if key is not None)
        found[role] = RoleKeys(keys, threshold_of(len(keyset.tuf[role])))
    problems += _shared(keyset, found)
    if problems:
        raise BadInputError(problems)
    return MappingProxyType(found)


@dataclass(frozen=True)
class TokenSigner(Signer):
    """A key that never leaves its token: the tools tree's openssl signs with it. `run` carries out a command there."""

    keyset: Keyset
    published: Published
    public: SSlibKey
    run: Run

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,  # noqa: ARG003 (every Signer of securesystemslib has this method)
        secrets_handler: SecretsHandler | None = None,  # noqa: ARG003
    ) -> TokenSigner:
        """The library's way from a URI alone. A token's key takes a module, a PIN and the tools tree as well, and those are in the
        keyset: ValueError says where such signers come from."""
        raise ValueError(f"{priv_key_uri}: a signer with a token's key is made from a keyset (signing.tuf.signers_at_hand)")

    @property
    def public_key(self) -> SSlibKey:
        return self.public

    def sign(self, payload: bytes) -> Signature:
        """MamoriError when the token does not sign, or with another key than the keyset says."""
        with tempfile.TemporaryDirectory(prefix="mamori-sign-") as folder:
            file, signature = Path(folder) / "payload", Path(folder) / "signature"
            file.write_bytes(payload)
            options = _TOKEN_OPTIONS[self.public.scheme]
            self.run(plan_raw_signature(self.keyset, self.published, file, signature, options))
            made = Signature(self.public.keyid, signature.read_bytes().hex())
        try:
            self.public.verify_signature(made, payload)
        except UnverifiedSignatureError:
            expected = f"the private key of {self.published.public}"
            raise BadInputError([Problem(str(self.keyset.path), f"{self.published.name}.key", expected, "another key")]) from None
        return made


def signers_at_hand(
    keyset: Keyset, role: str, environment: Mapping[str, str] = os.environ, run: Run | None = None
) -> tuple[Signer, ...]:
    """A signer for each key of the role whose private half the keyset names; the others belong to other people. BadInputError
    for one that is named and cannot be used. Keys in tokens need `run`, which carries out commands in the tools tree."""
    problems: list[Problem] = []
    signers: list[Signer] = []
    for published in keyset.tuf[role]:
        public = _read_public(keyset, published, problems) if published.key is not None else None
        if public is None:
            continue
        name = f"{published.name}.key"
        if isinstance(published.key, FileKey):
            try:
                private = read_private_key(published.key.path, environment, str(keyset.path), name)
            except BadInputError as error:
                problems.extend(error.problems)
                continue
            signers.append(CryptoSigner(private.key, public))
        elif run is None:
            problems.append(Problem(str(keyset.path), name, "a file: key", str(published.key), "`./inv repo` reaches tokens"))
        elif public.scheme not in _TOKEN_OPTIONS:
            expected = "RSA or ECDSA (P-256, P-384) in a token"
            problems.append(Problem(str(keyset.path), name, expected, f"{public.scheme} at {published.key}", _TOKEN_HINT))
        else:
            signers.append(TokenSigner(keyset, published, public, run))
    if problems:
        raise BadInputError(problems)
    return tuple(signers)


def needs_tools(keyset: Keyset) -> bool:
    """Whether a TUF key of the keyset is in a token."""
    return any(isinstance(one.key, TokenKey) for keys in keyset.tuf.values() for one in keys)


def _shared(keyset: Keyset, found: Mapping[str, RoleKeys]) -> list[Problem]:
    """A key that stands twice: within a role it would count as two people, in two roles it would join what is apart."""
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for role, keys in found.items():
        for key, published in zip(keys.keys, keyset.tuf[role], strict=False):
            if key.keyid in owners:
                expected = f"another key than {owners[key.keyid]}"
                problems.append(Problem(str(keyset.path), f"{published.name}.public", expected, "the same"))
            owners.setdefault(key.keyid, published.name)
    return problems


def _read_public(keyset: Keyset, published: Published, problems: list[Problem]) -> SSlibKey | None:
    name = f"{published.name}.public"
    try:
        return SSlibKey.from_crypto(load_pem_public_key(published.public.read_bytes()))
    except OSError as error:
        problems.append(Problem(str(keyset.path), name, "a public key file", f"{published.public}: {error.strerror}"))
    except ValueError as error:
        problems.append(Problem(str(keyset.path), name, "a public key in PEM", f"{published.public}: {error}"))
    return None
