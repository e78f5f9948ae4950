"""Where a repository meets a keyset: who may sign in it, whose keys are at hand, and which root its images start from."""

from __future__ import annotations

from pathlib import Path

from firmware.repository.anchor import keep_anchor, read_anchor
from firmware.repository.repository import Done, Repository
from firmware.repository.store import read_root
from firmware.workspace import Tools
from signing.commands import ToolCommand
from signing.keyset import Keyset
from signing.tuf import ROLES, read_role_keys, signers_at_hand


def open_repository(folder: Path, keyset: Keyset, old: Keyset | None = None, tools: Tools | None = None) -> Repository:
    """The repository in the folder, and what the keyset can sign in it; `old` is the keyset before a rotation, which signs too.
    BadInputError for keys that are named and cannot be used. Keys in tokens are reached with the tools tree."""
    run = (lambda command: _carry_out(tools, command)) if tools is not None else None
    held = [keyset, *([old] if old else [])]
    signers = {role: [signer for one in held for signer in signers_at_hand(one, role, run=run)] for role in ROLES}
    return Repository(folder, read_role_keys(keyset), signers)


def _carry_out(tools: Tools, command: ToolCommand) -> None:
    tools.run(command.argv, reads=command.reads, writes=command.writes, env=command.env, explain="sign with a key in a token")


def init(repository: Repository, keyset: Keyset, now: int) -> Done:
    """A new repository, whose first root is what images of the keyset carry already, if they do."""
    found = read_anchor(keyset)
    return repository.init(now, read_root(found, str(keyset.path)) if found is not None else None)


def keep_root(repository: Repository, keyset: Keyset) -> bool:
    """Let the images of the keyset start from the repository's present root. Whether that is new."""
    return repository.store.exists() and keep_anchor(keyset, repository.store.read("root"))
