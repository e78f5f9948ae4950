"""The roles of the repository (docs/update.md 2.2): what each may name, who signs it, and how long it is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root
from tuf.api.metadata import Role as TufRole

from firmware.repository.approval import DELEGATED
from signing.tuf import RoleKeys

LIFE_DAYS: Mapping[str, int] = {"root": 365, "targets": 365, "firmware": 365, "feeds": 30, "snapshot": 14, "timestamp": 7}
"""How long metadata may be believed. Short for those that a machine signs each day: that is how long an attacker who can only hold
back news may hold it back. Long for those that people sign: a holiday must not stop every appliance."""

RENEW_DAYS: Mapping[str, int] = {"root": 60, "targets": 60, "firmware": 60, "feeds": 10}
"""A refresh makes anew what expires within so many days: two months are enough to bring people with keys together."""

BY_PEOPLE = ("root", "targets", "firmware", "feeds")
"""What may wait for signatures, in the order of publishing. Snapshot and timestamp are made when it is published."""

ALL = (*BY_PEOPLE, "snapshot", "timestamp")

PATHS: Mapping[str, tuple[str, ...]] = {"firmware": ("firmware/*/*",), "feeds": ("feeds/*", "feeds/*/*")}


def signed_by(role: str) -> str:
    """Whose keys sign it. The top-level targets only delegates and has no keys: whoever may change the root may change it."""
    return "root" if role == "targets" else role


def give_keys(root: Root, role: str, keys: RoleKeys) -> None:
    """Let these keys sign a role that the root names; keys that no role needs any more are left out."""
    root.roles[role] = TufRole([key.keyid for key in keys.keys], keys.threshold)
    used = {keyid for one in root.roles.values() for keyid in one.keyids}
    known = {**{key.keyid: key for key in keys.keys}, **root.keys}
    root.keys = {keyid: key for keyid, key in known.items() if keyid in used}


def make_root(keys: Mapping[str, RoleKeys], now: int) -> Root:
    """The first root of a keyset."""
    root = Root(expires=expiry("root", now), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        give_keys(root, role, keys[signed_by(role)])
    return root


def make_delegations(keys: Mapping[str, RoleKeys]) -> Delegations:
    """What the top-level targets says: who may name firmware, and who feeds."""
    found = Delegations({}, {})
    for role in DELEGATED:
        delegate(found, role, keys[role])
    return found


def delegate(delegations: Delegations, role: str, keys: RoleKeys) -> None:
    """Let these keys sign a role that the top-level targets names."""
    if delegations.roles is None:
        raise ValueError("succinct delegations are not ours")
    ids = [key.keyid for key in keys.keys]
    delegations.roles[role] = DelegatedRole(role, ids, keys.threshold, terminating=True, paths=list(PATHS[role]))
    used = {keyid for one in delegations.roles.values() for keyid in one.keyids}
    known = {**delegations.keys, **{key.keyid: key for key in keys.keys}}
    delegations.keys = {keyid: key for keyid, key in known.items() if keyid in used}


def make_next(metadata: Metadata[Any], role: str, now: int) -> Metadata[Any]:
    """The next version, to be signed anew."""
    metadata.signed.version += 1
    metadata.signed.expires = expiry(role, now)
    metadata.signatures.clear()
    return metadata


def expiry(role: str, now: int) -> datetime:
    return (to_time(now) + timedelta(days=LIFE_DAYS[role])).replace(microsecond=0)


def to_time(now: int) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def days_left(metadata: Metadata[Any], now: int) -> float:
    """Until clients refuse it; negative when they do."""
    seconds: float = (metadata.signed.expires - to_time(now)).total_seconds()
    return seconds / 86_400


def due(published: Iterable[tuple[str, Metadata[Any]]], now: int) -> list[str]:
    """The roles that a refresh should make anew."""
    return [role for role, metadata in published if role in RENEW_DAYS and days_left(metadata, now) <= RENEW_DAYS[role]]
