"""Who must sign what: asked of the metadata that clients believe, never of a keyset, so what is published is what they accept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets, VerificationResult

DELEGATED = ("firmware", "feeds")
"""Roles that the top-level targets names; the others are named by the root."""


@dataclass(frozen=True)
class Pending:
    """A role that waits: how many signatures it has, and needs."""

    role: str
    has: int
    needs: int

    @property
    def is_complete(self) -> bool:
        return self.has >= self.needs


@dataclass(frozen=True)
class Approval:
    """`before` is the root that clients have now, None in a new repository; `root` and `targets` are what they will have."""

    before: Root | None
    root: Root
    targets: Targets

    def key_ids(self, role: str) -> frozenset[str]:
        """The keys whose signature under the role counts for anybody, before or after."""
        return frozenset(keyid for delegator in self._all(role) for keyid in delegator.get_delegated_role(role).keyids)

    def of(self, role: str, metadata: Metadata[Any]) -> Pending:
        """Whether the clients of afterwards accept the metadata. A new root must please those of before as well (TUF, 5.3.4)."""
        results = [_result(self._after(role), role, metadata)]
        if role == "root" and self.before is not None:
            results.append(_result(self.before, role, metadata))
        return _worst(role, results)

    def pleases_both(self, role: str, metadata: Metadata[Any]) -> bool:
        """Whether clients with the root of before accept it, too: then it may be published before the new root is."""
        return _worst(role, [_result(delegator, role, metadata) for delegator in self._all(role)]).is_complete

    def _after(self, role: str) -> Root | Targets:
        return self.targets if role in DELEGATED else self.root

    def _all(self, role: str) -> list[Root | Targets]:
        if role in DELEGATED or self.before is None:
            return [self._after(role)]  # new targets are only seen together with what they delegate to: by the new snapshot
        return [self.before, self.root]


def incomplete(states: Iterable[Pending]) -> tuple[Pending, ...]:
    return tuple(state for state in states if not state.is_complete)


def refused(approval: Approval, metadata: Mapping[str, Metadata[Any]]) -> tuple[Pending, ...]:
    """What of a whole repository its clients would refuse."""
    return incomplete(approval.of(role, one) for role, one in metadata.items())


def _result(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> VerificationResult:
    return delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)


def _worst(role: str, results: Iterable[VerificationResult]) -> Pending:
    worst = min(results, key=lambda result: len(result.signed) - result.threshold)
    return Pending(role, len(worst.signed), worst.threshold)
