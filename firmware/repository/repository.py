"""What can be done to the repository. Each operation makes new metadata of the present one, signs what keys are at hand for, and
publishes it once every role has its threshold; what lacks signatures waits in `staged/` for the next person.

Times are Unix seconds; `now` is always given, so a test can live in any year.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from firmware.repository.approval import Approval, Pending, incomplete, refused
from firmware.repository.roles import (
    ALL,
    BY_PEOPLE,
    LIFE_DAYS,
    delegate,
    due,
    expiry,
    give_keys,
    make_delegations,
    make_next,
    make_root,
    signed_by,
)
from firmware.repository.store import Store
from mamori.formats.offer import Channel, Offer, decode_offer, encode_offer, target_path
from mamori.formats.problems import MamoriError
from mamori.formats.version import VersionOrder
from signing.tuf import RoleKeys

__all__ = ["LIFE_DAYS", "Done", "Pending", "Present", "PublishError", "Repository"]

_DROP_HINT = "`./inv repo sign` adds a signature, `./inv repo drop` gives up what waits"


class PublishError(MamoriError):
    """The operation makes no sense, or may not be."""


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
    """A repository in a folder. `signers` gives the signers that are at hand for a role; `keys` who may sign it in a new one."""

    def __init__(self, folder: Path, keys: Mapping[str, RoleKeys], signers: Mapping[str, Sequence[Signer]]) -> None:
        self.store = Store(folder)
        self._keys, self._signers = keys, signers

    # --- operations --------------------------------------------------------------------------------------------------------

    def init(self, now: int, root: Metadata[Root] | None = None) -> Done:
        """A new repository without releases; `root` is what images of these keys already start from."""
        with self.store.locked(is_new=True):
            if self.store.exists():
                raise PublishError(f"{self.store.folder}: there is a repository already")
            self._refuse_if_waiting(*BY_PEOPLE)
            made: dict[str, Metadata[Any]] = {
                "root": root or Metadata(make_root(self._keys, now)),
                "targets": Metadata(Targets(expires=expiry("targets", now), delegations=make_delegations(self._keys))),
                "firmware": Metadata(Targets(expires=expiry("firmware", now))),
                "feeds": Metadata(Targets(expires=expiry("feeds", now))),
            }
            return self._finish(made, now)

    def add_release(self, bundle: Path, offer: Offer, now: int) -> Done:
        """Put the bundle into its channel. PublishError for a version that is not above what the channel has, or had."""
        with self.store.locked():
            self.check_release(offer)
            custom, path = encode_offer(offer), target_path(offer.compatible, offer.channel)
            digest, length = self.store.add_target(path, bundle)
            firmware = self.store.read("firmware")
            firmware.signed.targets[path] = TargetFile(length, {"sha256": digest}, path, {"custom": custom})
            return self._finish({"firmware": make_next(firmware, "firmware", now)}, now)

    def check_release(self, offer: Offer) -> None:
        """PublishError if the release could not be added."""
        self._refuse_if_waiting("firmware")
        path = target_path(offer.compatible, offer.channel)
        versions = [_present(target).offer.version for target in self._past(path)]
        newest = max(versions, key=VersionOrder, default=None)
        if newest is not None and VersionOrder(offer.version) <= VersionOrder(newest):
            raise PublishError(f"{offer.version} is not above {newest}, which {path} has had")

    def withdraw(self, compatible: str, channel: Channel, version: str, now: int) -> Done:
        """The release before it takes its place, or none."""
        return self.withdraw_from([target_path(compatible, channel)], version, now)

    def withdraw_from(self, paths: Sequence[str], version: str, now: int) -> Done:
        """The same for several targets at once."""
        with self.store.locked():
            self._refuse_if_waiting("firmware")
            firmware = self.store.read("firmware")
            for path in paths:
                target = firmware.signed.targets.get(path)
                if target is None or _present(target).offer.version != version:
                    raise PublishError(f"{version} is not the present release of {path}")
                before = self._release_before(path)
                if before is None:
                    del firmware.signed.targets[path]
                else:
                    self._check_bundle(path, before)
                    firmware.signed.targets[path] = before
            return self._finish({"firmware": make_next(firmware, "firmware", now)}, now)

    def refresh(self, now: int) -> Done:
        """New snapshot and timestamp, and anew whatever expires soon. What people must sign waits for them and holds up nothing."""
        with self.store.locked():
            fresh = [role for role in BY_PEOPLE if self.store.read_staged(role) is None]
            renewed = due([(role, self.store.read(role)) for role in fresh], now)
            changed = {role: make_next(self.store.read(role), role, now) for role in renewed}
            approval = self._approval(changed)
            self._sign(changed, approval)
            waiting = {role for role, metadata in changed.items() if not approval.of(role, metadata).is_complete}
            ready = {role: metadata for role, metadata in changed.items() if role not in waiting}
            # What waits counts for nothing yet; each of these roles has the keys that it had, so they need not go together.
            done = self._finish(ready, now)
            for role in waiting:
                self.store.stage(role, changed[role])
            return Done(done.published, (*done.pending, *(approval.of(role, changed[role]) for role in sorted(waiting))))

    def rotate(self, role: str, keys: Mapping[str, RoleKeys], now: int) -> Done:
        """Let other keys sign the role from now on. For `root` both the old and the new keys must sign (TUF, 5.3.4)."""
        with self.store.locked():
            self._refuse_if_waiting(*BY_PEOPLE)
            changed: dict[str, Metadata[Any]] = {}
            if role in ("firmware", "feeds"):
                targets = self.store.read("targets")
                delegate(targets.signed.delegations, role, keys[role])
                changed["targets"] = make_next(targets, "targets", now)
                changed[role] = make_next(self.store.read(role), role, now)
            else:
                root = self.store.read("root")
                give_keys(root.signed, role, keys[role])
                if role == "root":
                    give_keys(root.signed, "targets", keys[role])
                    changed["targets"] = make_next(self.store.read("targets"), "targets", now)
                changed["root"] = make_next(root, "root", now)
            return self._finish(changed, now)

    def sign(self, now: int) -> Done:
        """Add the signatures of the keys that are at hand to what waits, and publish what is complete."""
        with self.store.locked():
            waiting = self.staged()
            if not waiting:
                raise PublishError(f"{self.store.folder}: nothing waits for signatures")
            self._refuse_if_too_late(now)
            return self._finish(waiting, now)

    def drop(self) -> tuple[str, ...]:
        """Give up what waits for signatures: the names of its roles."""
        with self.store.locked():
            waiting = tuple(self.staged())
            for role in BY_PEOPLE:
                self.store.unstage(role)
            return waiting

    # --- questions ---------------------------------------------------------------------------------------------------------

    def present(self, compatible: str, channel: Channel) -> Present | None:
        """The present release of a channel; None without one."""
        target = self.store.read("firmware").signed.targets.get(target_path(compatible, channel))
        return _present(target) if target is not None else None

    def releases(self) -> dict[str, Present]:
        """All present releases by target path."""
        return _releases(self.store.read("firmware"))

    def waiting_releases(self) -> dict[str, Present]:
        """The releases that there will be once what waits is signed; none if no release waits."""
        staged = self.store.read_staged("firmware")
        return _releases(staged) if staged is not None else {}

    def staged(self) -> dict[str, Metadata[Any]]:
        """What waits for signatures."""
        found = {role: self.store.read_staged(role) for role in BY_PEOPLE}
        return {role: metadata for role, metadata in found.items() if metadata is not None}

    def pending(self) -> tuple[Pending, ...]:
        """What waits, with its signatures. A role that is complete waits for the keys of snapshot and timestamp."""
        waiting = self.staged()
        if not waiting:
            return ()
        approval = self._approval(waiting)
        return tuple(approval.of(role, metadata) for role, metadata in waiting.items())

    def foresee(self, role: str) -> tuple[Pending, ...]:
        """What a new version of the role would wait for, with the keys at hand."""
        approval = self._approval({})
        online = ("snapshot", "timestamp")
        states = []
        for one in (role, *online):
            at_hand = {signer.public_key.keyid for signer in self._signers.get(signed_by(one), ())}
            needs = approval.of(one, self.store.read(one)).needs
            states.append(Pending(one, len(approval.key_ids(one) & at_hand), needs))
        return incomplete(states)

    # --- signing and publishing --------------------------------------------------------------------------------------------

    def _finish(self, changed: Mapping[str, Metadata[Any]], now: int) -> Done:
        """Sign; publish everything with a new snapshot and timestamp if it is complete, else let it wait."""
        approval = self._approval(changed)
        self._sign(changed, approval)
        waiting = incomplete(approval.of(role, metadata) for role, metadata in changed.items())
        online = self._online(changed, now) if not waiting else {}
        self._sign(online, approval)
        waiting = waiting or incomplete(approval.of(role, metadata) for role, metadata in online.items())
        if waiting and not changed:
            words = ", ".join(f"{one.role} ({one.has} of {one.needs})" for one in waiting)
            raise PublishError(f"signatures are missing: {words}", "its keys are needed to publish anything")
        if waiting:
            for role, metadata in changed.items():
                self.store.stage(role, metadata)
            return Done({}, waiting)
        published = {**changed, **online}
        self._check_whole(published, approval)
        self.store.publish((role, published[role]) for role in _order(published, approval))
        for role in changed:
            self.store.unstage(role)
        return Done({role: metadata.signed.version for role, metadata in published.items()})

    def _approval(self, changed: Mapping[str, Metadata[Any]]) -> Approval:
        is_new = not self.store.exists()
        if is_new and not {"root", "targets"} <= changed.keys():
            raise PublishError(f"{self.store.folder}: what waits for signatures is not whole", _DROP_HINT)
        root = changed["root"] if "root" in changed else self.store.read("root")
        targets = changed["targets"] if "targets" in changed else self.store.read("targets")
        return Approval(None if is_new else self.store.read("root").signed, root.signed, targets.signed)

    def _sign(self, changed: Mapping[str, Metadata[Any]], approval: Approval) -> None:
        """PublishError if keys are at hand, and all of them are others than those that count."""
        for role, metadata in changed.items():
            at_hand = self._signers.get(signed_by(role), ())
            wanted = approval.key_ids(role)
            fitting = [signer for signer in at_hand if signer.public_key.keyid in wanted]
            if at_hand and not fitting:
                keys = signed_by(role)
                hint = f"use the keyset that the repository has; `./inv repo rotate {keys}` makes others count"
                raise PublishError(f"the keyset has other keys for {keys} than the repository", hint)
            for signer in fitting:
                _sign(role, metadata, signer)

    def _online(self, changed: Mapping[str, Metadata[Any]], now: int) -> dict[str, Metadata[Any]]:
        """The next snapshot and timestamp, unsigned."""
        if self.store.exists():
            snapshot = make_next(self.store.read("snapshot"), "snapshot", now)
            timestamp = make_next(self.store.read("timestamp"), "timestamp", now)
        else:
            snapshot = Metadata(Snapshot(expires=expiry("snapshot", now)))
            timestamp = Metadata(Timestamp(expires=expiry("timestamp", now)))
        for role in ("targets", "firmware", "feeds"):
            if role in changed:
                snapshot.signed.meta[f"{role}.json"] = MetaFile(version=changed[role].signed.version)
        timestamp.signed.snapshot_meta = MetaFile(version=snapshot.signed.version)
        return {"snapshot": snapshot, "timestamp": timestamp}

    def _check_whole(self, published: Mapping[str, Metadata[Any]], approval: Approval) -> None:
        """PublishError unless clients will accept all of it, with what stays as it is."""
        whole = {role: published[role] if role in published else self.store.read(role) for role in ALL}
        wrong = refused(approval, whole)
        if wrong:
            words = ", ".join(f"{one.role} ({one.has} of {one.needs} signatures)" for one in wrong)
            raise PublishError(f"appliances would refuse this: {words}; nothing is published", "`./inv repo drop`, and do it again")

    def _refuse_if_waiting(self, *roles: str) -> None:
        for role in roles:
            if self.store.read_staged(role) is not None:
                what = "a release" if role == "firmware" else role
                raise PublishError(f"{what} waits for signatures", _DROP_HINT)

    def _check_bundle(self, path: str, target: TargetFile) -> None:
        bundle = self.store.target(path, target.hashes["sha256"])
        if not bundle.is_file() or bundle.stat().st_size != target.length:
            raise PublishError(f"{bundle}: the bundle of the release before is not there", "bring it back from the backup first")

    def _refuse_if_too_late(self, now: int) -> None:
        """A release that waited until its window was over could be activated by nobody."""
        if not self.store.exists():
            return
        for path, one in self.waiting_releases().items():
            is_new = one.offer.version not in {_present(target).offer.version for target in self._past(path)}
            if is_new and one.offer.activate_before <= now:
                raise PublishError(
                    f"{one.offer.version}: the window to activate it is over", "`./inv repo drop`, and release it anew"
                )

    # --- history -----------------------------------------------------------------------------------------------------------

    def _past(self, path: str) -> Iterable[TargetFile]:
        """What the target was in each published version of the role, the newest first."""
        for metadata in self.store.past("firmware"):
            target = metadata.signed.targets.get(path)
            if target is not None:
                yield target

    def _release_before(self, path: str) -> TargetFile | None:
        """What stands below the present release: those that were withdrawn do not come back."""
        standing: list[TargetFile] = []
        for metadata in reversed(list(self.store.past("firmware"))):
            target = metadata.signed.targets.get(path)
            while standing and (target is None or _order_of(standing[-1]) >= _order_of(target)):
                standing.pop()
            if target is not None:
                standing.append(target)
        return standing[-2] if len(standing) > 1 else None


def _sign(role: str, metadata: Metadata[Any], signer: Signer) -> None:
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:  # python-tuf wraps whatever a signer raises
        if isinstance(error.__cause__, MamoriError):
            raise error.__cause__ from None
        raise PublishError(f"{role} cannot be signed: {error}") from error


def _order(published: Mapping[str, Metadata[Any]], approval: Approval) -> list[str]:
    """What is published first. The timestamp makes the rest visible, and a new root is visible by itself.

    Where clients of the old root believe the new timestamp as well, the new root comes last: then there is no moment at which
    anybody is refused. Where the old keys are lost there is one, as short as can be.
    """
    roles = [role for role in ALL if role in published and role not in ("root", "timestamp")]
    if "root" not in published:
        return [*roles, "timestamp"]
    is_seamless = approval.before is not None and all(approval.pleases_both(role, published[role]) for role in published)
    return [*roles, "timestamp", "root"] if is_seamless else [*roles, "root", "timestamp"]


def _releases(firmware: Metadata[Any]) -> dict[str, Present]:
    return {path: _present(target) for path, target in sorted(firmware.signed.targets.items())}


def _present(target: TargetFile) -> Present:
    custom = target.custom or {}
    return Present(decode_offer(custom, target.path), target.length, target.hashes["sha256"])


def _order_of(target: TargetFile) -> VersionOrder:
    return VersionOrder(_present(target).offer.version)
