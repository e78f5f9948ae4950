"""The TUF keys of a keyset: who may sign which role, how many must, and signers for the keys that are at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from mamori.formats.problems import BadInputError, Problem
from signing.keyset import Keyset, Published
from signing.private import read_private_key
from signing.uri import FileKey

ROLES = ("root", "firmware", "feeds", "snapshot", "timestamp")


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


def signers_at_hand(keyset: Keyset, role: str, environment: Mapping[str, str] = os.environ) -> tuple[Signer, ...]:
    """A signer for each key of the role whose private half the keyset names; the others belong to other people. BadInputError
    for one that is named and cannot be used."""
    problems: list[Problem] = []
    signers = []
    for published in keyset.tuf[role]:
        if published.key is None:
            continue
        name = f"{published.name}.key"
        if not isinstance(published.key, FileKey):
            problems.append(Problem(str(keyset.path), name, "a file: key", str(published.key), "TUF does not sign with tokens yet"))
            continue
        public = _read_public(keyset, published, problems)
        try:
            private = read_private_key(published.key.path, environment, str(keyset.path), name)
        except BadInputError as error:
            problems.extend(error.problems)
            continue
        if public is not None:
            signers.append(CryptoSigner(private.key, public))
    if problems:
        raise BadInputError(problems)
    return tuple(signers)


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
