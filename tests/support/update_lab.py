"""A TUF repository of the development keys outside of the office, and releases of real bundles in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firmware.build import Built
from firmware.netns import call_in_namespace
from firmware.repository.anchor import read_anchor
from firmware.repository.repository import Repository
from firmware.repository.serve import serving
from firmware.repository.store import read_root
from firmware.verify.release import read_releasable
from mamori.formats.offer import Channel, Offer, ReleaseNotes, Wave
from signing.tuf import ROLES, read_role_keys, signers_at_hand
from tests.support.office import ROUTER, Office

PORT = 8080
URL = f"http://{ROUTER}:{PORT}"

DAY_S = 86_400


@dataclass
class UpdateLab:
    """`requests` are the lines of the server's log."""

    repository: Repository
    built: Built
    requests: list[str]

    def release(self, built: Built, **changes: Any) -> Offer:
        """Publish the bundle of `built` for everyone, announced at once, its window opening in a day."""
        now = int(time.time())
        offer = Offer(
            version=built.image.version,
            compatible=built.image.compatible,
            manifest_hash=read_releasable(built.tools, built.folder, built.folder.parents[2]).manifest_hash,
            channel=Channel.STABLE,
            minimum_version="2026.1.0",
            waves=(Wave(100, now - DAY_S),),
            notice_at=now - 60,
            activate_after=now + DAY_S,
            activate_before=now + 8 * DAY_S,
            notes=ReleaseNotes("試験用の版です", "a test's release"),
        )
        offer = replace(offer, **changes)
        done = self.repository.add_release(built.bundle, offer, now)
        assert done.pending == ()
        return offer


@contextlib.contextmanager
def start_update_lab(built: Built, office: Office, folder: Path) -> Iterator[UpdateLab]:
    """An empty repository at URL, for boxes that were built with the keys of `built`."""
    keyset = built.signer.keyset
    anchor = read_anchor(keyset)
    assert anchor is not None
    signers = {role: signers_at_hand(keyset, role) for role in ROLES}
    repository = Repository(folder, read_role_keys(keyset), signers)
    done = repository.init(int(time.time()), read_root(anchor, "the anchor"))
    assert done.pending == ()
    requests: list[str] = []
    server = serving(folder, address=ROUTER, port=PORT, on_request=requests.append)
    call_in_namespace(office.wan, server.__enter__)
    try:
        yield UpdateLab(repository, built, requests)
    finally:
        server.__exit__(None, None, None)
