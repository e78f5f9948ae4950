"""How a repository is: what is offered, what expires when, and what waits for whom. A value first, words after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from firmware.repository.approval import Pending
from firmware.repository.options import show_time, show_waves
from firmware.repository.repository import Present, Repository
from firmware.repository.roles import ALL, LIFE_DAYS, RENEW_DAYS, days_left

_ONLINE_RENEW_SHARE = 0.5
"""A daily refresh never lets half of the life of snapshot or timestamp pass; where it did, nobody refreshes."""


@dataclass(frozen=True)
class RoleStatus:
    """`days` until clients refuse it, negative when they do."""

    role: str
    version: int
    days: float

    @property
    def should_be_renewed(self) -> bool:
        return self.days <= RENEW_DAYS.get(self.role, LIFE_DAYS[self.role] * _ONLINE_RENEW_SHARE)


@dataclass(frozen=True)
class Status:
    """`waiting` are the releases that signatures are missing for."""

    roles: tuple[RoleStatus, ...]
    releases: tuple[Present, ...]
    pending: tuple[Pending, ...]
    waiting: tuple[Present, ...]


def read_status(repository: Repository, now: int) -> Status:
    """Of a repository that may be waiting for its very first signatures."""
    pending = repository.pending()
    waiting = tuple(repository.waiting_releases().values())
    if pending and not repository.store.exists():
        return Status((), (), pending, waiting)
    found = {role: repository.store.read(role) for role in ALL}
    roles = tuple(RoleStatus(role, metadata.signed.version, days_left(metadata, now)) for role, metadata in found.items())
    releases = tuple(repository.releases().values())
    return Status(roles, releases, pending, tuple(one for one in waiting if one not in releases))


def to_json(status: Status) -> dict[str, Any]:
    return {
        "roles": [{**asdict(role), "days": round(role.days, 2), "renew": role.should_be_renewed} for role in status.roles],
        "releases": [release_json(one) for one in status.releases],
        "waiting": [release_json(one) for one in status.waiting],
        "pending": [asdict(one) for one in status.pending],
    }


def release_json(present: Present) -> dict[str, Any]:
    offer = present.offer
    return {
        "compatible": offer.compatible,
        "channel": offer.channel.value,
        "version": offer.version,
        "minimum_version": offer.minimum_version,
        "manifest_hash": offer.manifest_hash,
        "sha256": present.digest,
        "bytes": present.length,
        "notice_at": offer.notice_at,
        "activate_after": offer.activate_after,
        "activate_before": offer.activate_before,
        "waves": [asdict(wave) for wave in offer.waves],
    }


def role_rows(status: Status) -> list[Sequence[object]]:
    """For a table of role, version, and how long it is believed."""
    return [(one.role, one.version, _life(one)) for one in status.roles]


def release_rows(releases: Sequence[Present]) -> list[Sequence[object]]:
    """For a table of compatible, channel, version, MB, notice, window and waves; times as in Japan."""
    return [
        (
            one.offer.compatible,
            one.offer.channel.value,
            one.offer.version,
            f"{one.length / 1e6:.1f}",
            show_time(one.offer.notice_at),
            f"{show_time(one.offer.activate_after)} to {show_time(one.offer.activate_before)}",
            show_waves(one.offer.waves),
        )
        for one in releases
    ]


RELEASE_COLUMNS = ("for", "channel", "version", "MB", "notice", "window", "waves")
ROLE_COLUMNS = ("role", "version", "expires")


def pending_lines(pending: Sequence[Pending]) -> Iterator[str]:
    """What waits, and what to do about it."""
    for one in pending:
        yield f"{one.role} waits: {one.has} of {one.needs} signatures"
    if pending and all(one.is_complete or one.role in ("snapshot", "timestamp") for one in pending):
        yield "all people have signed: `./inv repo sign` where the keys of snapshot and timestamp are publishes it"
    elif pending:
        yield "the next person runs `./inv repo sign` with another key"


def _life(one: RoleStatus) -> str:
    if one.days < 0:
        return f"{-one.days:.0f} days ago: appliances refuse it"
    words = f"in {one.days:.0f} days" if one.days >= 1 else f"in {one.days * 24:.0f} hours"
    return f"{words}: refresh it" if one.should_be_renewed else words
