"""What can be done to the repository. Each operation makes new metadata of the present one, signs what keys are at hand for, and
publishes it once every role has its threshold; what lacks signatures waits in `staged/` for the next person.

Times are Unix seconds; `now` is always given, so a test can live in any year.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signer
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.metadata import Role as TufRole

from firmware.repository.store import Store
from mamori.formats.offer import Channel, Offer, decode_offer, encode_offer, target_path
from mamori.formats.problems import MamoriError
from mamori.formats.version import VersionOrder
from signing.tuf import RoleKeys

LIFE_DAYS: Mapping[str, int] = {"root": 365, "targets": 365, "firmware": 365, "feeds": 30, "snapshot": 14, "timestamp": 7}
"""How long metadata may be believed. Short for those that a machine signs each day: that is how long an attacker who can only hold
back news may hold it back. Long for those that people sign: a holiday must not stop every appliance."""

FIRMWARE_PATHS = ["firmware/*/*"]
FEEDS_PATHS = ["feeds/*", "feeds/*/*"]

_SIGNED_BY = {"targets": "root"}
"""Roles without keys of their own: the top-level targets only delegate, and whoever may change the root may change that."""


class PublishError(MamoriError):
    """The operation makes no sense, or may not be."""


@dataclass(frozen=True)
class Pending:
    """A role that waits: how many signatures it has, and needs."""

    role: str
    has: int
    needs: int


@dataclass(frozen=True)
class Done:
    """What an operation has changed: versions of roles that were published, and roles that wait."""

    published: Mapping[str, int]
    pending: tuple[Pending, ...] = ()


@dataclass(frozen=True)
class Present:
    """One channel's present release."""

    offer: Offer
    length: int
    digest: str


class Repository:
    """A repository in a folder. `signers` gives the signers that are at hand for a role; `keys` who may sign it."""

    def __init__(self, folder: Path, keys: Mapping[str, RoleKeys], signers: Mapping[str, Sequence[Signer]]) -> None:
        self.store = Store(folder)
        self._keys, self._signers = keys, signers

    # --- operations --------------------------------------------------------------------------------------------------------

    def init(self, now: int) -> Done:
        """A new repository without releases."""
        if self.store.exists():
            raise PublishError(f"{self.store.folder}: there is a repository already")
        root = Root(expires=_expiry("root", now), consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            self._give_keys(root, role)
        firmware, feeds = Targets(expires=_expiry("firmware", now)), Targets(expires=_expiry("feeds", now))
        targets = Targets(expires=_expiry("targets", now), delegations=self._delegations())
        signed = {"root": root, "targets": targets, "firmware": firmware, "feeds": feeds}
        return self._finish({role: Metadata(one) for role, one in signed.items()}, now)

    def present(self, compatible: str, channel: Channel) -> Present | None:
        """The present release of a channel; None without one."""
        target = self._firmware().signed.targets.get(target_path(compatible, channel))
        return _present(target) if target is not None else None

    def releases(self) -> dict[str, Present]:
        """All present releases by target path."""
        return {path: _present(target) for path, target in sorted(self._firmware().signed.targets.items())}

    def add_release(self, bundle: Path, offer: Offer, now: int) -> Done:
        """Put the bundle into its channel. PublishError for a version that is not above what the channel has, or had."""
        path = target_path(offer.compatible, offer.channel)
        newest = self._newest_ever(path)
        if newest is not None and VersionOrder(offer.version) <= VersionOrder(newest):
            raise PublishError(f"{offer.version} is not above {newest}, which {path} has had")
        digest, length = _digest(bundle)
        target = TargetFile(length, {"sha256": digest}, path, {"custom": encode_offer(offer)})
        firmware = self._firmware()
        self.store.add_target(path, digest, bundle)
        firmware.signed.targets[path] = target
        return self._finish({"firmware": _next(firmware, "firmware", now)}, now)

    def withdraw(self, compatible: str, channel: Channel, version: str, now: int) -> Done:
        """The release before it takes its place, or none."""
        path = target_path(compatible, channel)
        firmware = self._firmware()
        target = firmware.signed.targets.get(path)
        if target is None or _present(target).offer.version != version:
            raise PublishError(f"{version} is not the present release of {path}")
        before = self._release_before(path, version)
        if before is None:
            del firmware.signed.targets[path]
        else:
            firmware.signed.targets[path] = before
        return self._finish({"firmware": _next(firmware, "firmware", now)}, now)

    def refresh(self, now: int, within_days: float = 3) -> Done:
        """New snapshot and timestamp, and anew whatever expires within so many days and can be signed."""
        changed = {}
        for role in ("root", "targets", "firmware", "feeds"):
            metadata = self.store.read(role)
            if metadata.signed.expires <= _time(now) + timedelta(days=within_days):
                changed[role] = _next(metadata, role, now)
        return self._finish(changed, now)

    def rotate(self, role: str, keys: Mapping[str, RoleKeys], now: int) -> Done:
        """Let other keys sign the role from now on. For `root` both the old and the new keys must sign (TUF, 5.3.4)."""
        old = self._keys
        self._keys = {**old, role: keys[role]}
        changed: dict[str, Metadata[Any]] = {}
        if role in ("firmware", "feeds"):
            targets = self.store.read("targets")
            targets.signed.delegations = self._delegations()
            changed["targets"] = _next(targets, "targets", now)
        else:
            root = self.store.read("root")
            self._give_keys(root.signed, role)
            if role == "root":
                self._give_keys(root.signed, "targets")
            changed["root"] = _next(root, "root", now)
        for signed in [role] if role != "root" else ["targets"]:
            if signed in ("targets", "firmware", "feeds"):
                changed[signed] = _next(self.store.read(signed), signed, now)
        return self._finish(changed, now, old_root=old["root"])

    def sign(self, now: int) -> Done:
        """Add the signatures of the keys that are at hand to what waits, and publish what is complete."""
        waiting = {role: staged for role in ("root", "targets", "firmware", "feeds") if (staged := self.store.read_staged(role))}
        if not waiting:
            raise PublishError(f"{self.store.folder}: nothing waits for signatures")
        return self._finish(waiting, now)

    def pending(self) -> tuple[Pending, ...]:
        """What waits for signatures."""
        return tuple(
            self._state_of(role, staged)
            for role in ("root", "targets", "firmware", "feeds")
            if (staged := self.store.read_staged(role)) is not None
        )

    # --- signing and publishing --------------------------------------------------------------------------------------------

    def _finish(self, changed: Mapping[str, Metadata[Any]], now: int, old_root: RoleKeys | None = None) -> Done:
        """Sign; publish everything with a new snapshot and timestamp if it is complete, else let it wait."""
        for role, metadata in changed.items():
            signers = list(self._signers.get(_SIGNED_BY.get(role, role), ()))
            for signer in signers:
                metadata.sign(signer, append=True)
        states = {role: self._state_of(role, metadata, old_root) for role, metadata in changed.items()}
        waiting = tuple(state for state in states.values() if state.has < state.needs)
        if waiting:
            for role, metadata in changed.items():
                self.store.stage(role, metadata)
            return Done({}, waiting)
        online = self._online(changed, now)
        self.store.publish({**changed, **online})
        for role in changed:
            self.store.unstage(role)
        return Done({role: metadata.signed.version for role, metadata in {**changed, **online}.items()})

    def _online(self, changed: Mapping[str, Metadata[Any]], now: int) -> dict[str, Metadata[Any]]:
        """The next snapshot and timestamp; PublishError if they cannot be signed here."""
        is_new = not self.store.exists()
        snapshot: Metadata[Any] = Metadata(Snapshot(expires=_expiry("snapshot", now))) if is_new else self.store.read("snapshot")
        if not is_new:
            snapshot = _next(snapshot, "snapshot", now)
        for role in ("targets", "firmware", "feeds"):
            if role in changed:
                snapshot.signed.meta[f"{role}.json"] = MetaFile(version=changed[role].signed.version)
        timestamp: Metadata[Any] = (
            Metadata(Timestamp(expires=_expiry("timestamp", now))) if is_new else self.store.read("timestamp")
        )
        if not is_new:
            timestamp = _next(timestamp, "timestamp", now)
        timestamp.signed.snapshot_meta = MetaFile(version=snapshot.signed.version)
        found = {"snapshot": snapshot, "timestamp": timestamp}
        for role, metadata in found.items():
            for signer in self._signers.get(role, ()):
                metadata.sign(signer, append=True)
            state = self._state_of(role, metadata)
            if state.has < state.needs:
                raise PublishError(f"{role}: {state.has} of {state.needs} signatures: its keys are needed to publish")
        return found

    def _state_of(self, role: str, metadata: Metadata[Any], old_root: RoleKeys | None = None) -> Pending:
        keys = self._keys[_SIGNED_BY.get(role, role)]
        has = _count(metadata, keys.keys)
        if role == "root":
            old = old_root or self._published_root_keys()
            if old is not None and _count(metadata, old.keys) < old.threshold:
                return Pending(role, min(has, keys.threshold - 1), keys.threshold)
        return Pending(role, has, keys.threshold)

    def _published_root_keys(self) -> RoleKeys | None:
        if not self.store.exists():
            return None
        root = self.store.read("root").signed
        role = root.roles["root"]
        return RoleKeys(tuple(root.keys[keyid] for keyid in role.keyids), role.threshold)

    def _give_keys(self, root: Root, role: str) -> None:
        wanted = self._keys[_SIGNED_BY.get(role, role)]
        root.roles[role] = TufRole([key.keyid for key in wanted.keys], wanted.threshold)
        used = {keyid for one in root.roles.values() for keyid in one.keyids}
        root.keys = {**{key.keyid: key for key in wanted.keys}, **root.keys}
        root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}

    def _delegations(self) -> Delegations:
        roles: dict[str, DelegatedRole] = {}
        keys: dict[str, Key] = {}
        for name, paths in (("firmware", FIRMWARE_PATHS), ("feeds", FEEDS_PATHS)):
            wanted = self._keys[name]
            ids = [key.keyid for key in wanted.keys]
            roles[name] = DelegatedRole(name, ids, wanted.threshold, terminating=True, paths=list(paths))
            keys |= {key.keyid: key for key in wanted.keys}
        return Delegations(keys, roles)

    # --- history -----------------------------------------------------------------------------------------------------------

    def _firmware(self) -> Metadata[Any]:
        if self.store.read_staged("firmware") is not None:
            raise PublishError("a release waits for signatures: `./inv repo sign` first")
        return self.store.read("firmware")

    def _past(self, path: str) -> Iterable[TargetFile]:
        """What the target was in each published version of the role, the newest first."""
        for metadata in self.store.past("firmware"):
            target = metadata.signed.targets.get(path)
            if target is not None:
                yield target

    def _newest_ever(self, path: str) -> str | None:
        versions = [_present(target).offer.version for target in self._past(path)]
        return max(versions, key=VersionOrder, default=None)

    def _release_before(self, path: str, version: str) -> TargetFile | None:
        order = VersionOrder(version)
        older = [target for target in self._past(path) if VersionOrder(_present(target).offer.version) < order]
        return max(older, key=lambda target: VersionOrder(_present(target).offer.version), default=None)


def _present(target: TargetFile) -> Present:
    custom = target.custom or {}
    return Present(decode_offer(custom, target.path), target.length, target.hashes["sha256"])


def _next(metadata: Metadata[Any], role: str, now: int) -> Metadata[Any]:
    metadata.signed.version += 1
    metadata.signed.expires = _expiry(role, now)
    metadata.signatures.clear()
    return metadata


def _count(metadata: Metadata[Any], keys: Iterable[Any]) -> int:
    """Valid signatures by these keys."""
    count = 0
    for key in keys:
        signature = metadata.signatures.get(key.keyid)
        if signature is None:
            continue
        try:
            key.verify_signature(signature, metadata.signed_bytes)
        except (UnverifiedSignatureError, VerificationError):
            continue
        count += 1
    return count


def _expiry(role: str, now: int) -> datetime:
    return (_time(now) + timedelta(days=LIFE_DAYS[role])).replace(microsecond=0)


def _time(now: int) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _digest(file: Path) -> tuple[str, int]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return digest, file.stat().st_size
