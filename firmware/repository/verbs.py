"""What `./inv repo …`, `./inv release` and `./inv serve` do; `tasks.py` only names them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firmware.console import Console
from firmware.lock import read_lock
from firmware.recipe import ROOT, Signing, read_image
from firmware.repository import keysets, status
from firmware.repository.options import make_offer, now_utc, parse_asked
from firmware.repository.repository import Done, Present, PublishError, Repository
from firmware.repository.serve import serving
from firmware.repository.store import Store
from firmware.toolstree import prepare_tools
from firmware.verify import Releasable, read_releasable, verify_release
from firmware.version import read_source
from firmware.workspace import Workspace
from mamori.formats.offer import Offer
from mamori.formats.problems import BadInputError, MamoriError, Problem
from mamori.formats.release import Variant
from signing.check import check_keyset
from signing.keyset import Keyset, read_keyset
from signing.tuf import ROLES, needs_tools, read_role_keys

FOLDER = Path("out/repository")
PORT = 8080


@dataclass(frozen=True)
class Options:
    """Which repository, whose keys, and how to answer. No keyset: the development keys."""

    folder: str = ""
    keyset: str = ""
    json: bool = False

    @property
    def path(self) -> Path:
        return Path(self.folder) if self.folder else ROOT / FOLDER

    @property
    def keyset_path(self) -> Path:
        return Path(self.keyset) if self.keyset else ROOT / Signing().keyset

    def read_keyset(self) -> Keyset:
        return read_keyset(self.keyset_path, builds=False)

    def open(self, old_keyset: str = "") -> Repository:
        old = read_keyset(Path(old_keyset), builds=False) if old_keyset else None
        return _open(self.path, self.read_keyset(), old)


def repo_init(options: Options) -> None:
    """A new repository, and the root that images start from."""
    repository = options.open()
    _tell_done(options, keysets.init(repository, options.read_keyset(), now_utc()), repository)


def repo_refresh(options: Options) -> None:
    repository = options.open()
    _tell_done(options, repository.refresh(now_utc()), repository)


def repo_sign(options: Options) -> None:
    repository = options.open()
    _tell_done(options, repository.sign(now_utc()), repository)


def repo_rotate(options: Options, role: str, old_keyset: str) -> None:
    """The keyset's keys take the place of those that the repository has for the role."""
    if role not in ROLES:
        raise BadInputError([Problem("command line", "role", f"one of {', '.join(ROLES)}", repr(role))])
    repository = options.open(old_keyset)
    _tell_done(options, repository.rotate(role, read_role_keys(options.read_keyset()), now_utc()), repository)


def repo_drop(options: Options) -> None:
    dropped = Repository(options.path, {}, {}).drop()
    if options.json:
        Console().json({"dropped": dropped})
        return
    Console().say(f"given up: {', '.join(dropped)}" if dropped else "nothing waited for signatures")


def repo_withdraw(options: Options, version: str, channel: str, compatible: str) -> None:
    """From everywhere where this version is the present release, or only where asked."""
    repository = options.open()
    found = {
        path: one
        for path, one in repository.releases().items()
        if one.offer.version == version
        and (not channel or one.offer.channel.value == channel)
        and (not compatible or one.offer.compatible == compatible)
    }
    if not found:
        present = ", ".join(f"{one.offer.version} ({path})" for path, one in repository.releases().items())
        raise PublishError(f"{version} is no present release here", f"present are: {present or 'none'}")
    done = repository.withdraw_from(list(found), version, now_utc())
    _tell_done(options, done, repository, {"withdrawn": sorted(found)})


def repo_status(options: Options) -> None:
    found, console = status.read_status(Repository(options.path, {}, {}), now_utc()), Console()
    if options.json:
        console.json(status.to_json(found))
        return
    console.table(status.ROLE_COLUMNS, status.role_rows(found))
    for title, releases in (("", found.releases), ("waits for signatures:", found.waiting)):
        if releases:
            console.say("")
            if title:
                console.say(title)
            console.table(status.RELEASE_COLUMNS, status.release_rows(releases))
    if not found.releases:
        console.say("\nno release")
    for line in status.pending_lines(found.pending):
        console.say(line)


def release(
    options: Options,
    recipe: str,
    *,
    board: str = "",
    build: str = "",
    dry_run: bool = False,
    **asked: str,
) -> None:
    """Verify a build and put it into its channel; `asked` as `parse_asked` takes it. What can be refused without the ten
    seconds of verifying is refused before."""
    wanted, now = parse_asked(**asked), now_utc()
    console = Console()
    workspace = Workspace(console)
    image = read_image(recipe, read_source(workspace.root), board, workspace.root)
    keyset_path = Path(options.keyset) if options.keyset else workspace.root / image.recipe.signing.keyset
    keyset = read_keyset(keyset_path, builds=False)
    if image.recipe.variant is Variant.RELEASE:
        check_keyset(keyset, release=True, now=datetime.now(UTC))
    repository = _open(options.path, keyset)
    before = repository.present(image.compatible, wanted.channel)
    tools = prepare_tools(workspace, read_lock(workspace.root))
    folder = Path(build) if build else workspace.out / image.label / "latest"
    found = read_releasable(tools, folder)
    _check_same_kind(found, image.compatible, folder)
    offer = make_offer(
        wanted,
        version=found.image.version,
        compatible=found.image.compatible,
        manifest_hash=found.manifest_hash,
        before=before.offer if before else None,
        now=now,
    )
    repository.check_release(offer)
    verify_release(tools, folder, console)
    if dry_run:
        _tell_plan(options, console, repository, offer, found, before)
        return
    with console.step("publish"):
        done = repository.add_release(found.bundle, offer, now)
    _tell_done(
        options, done, repository, {"version": offer.version, "channel": offer.channel.value, "compatible": offer.compatible}
    )


def serve(options: Options, port: int = PORT, address: str = "127.0.0.1") -> None:
    """Until Ctrl-C, which is how one ends it."""
    if not Store(options.path).exists():
        raise MamoriError(f"{options.path}: no repository", "`./inv repo init` makes one")
    console = Console()
    try:
        with serving(options.path, address=address, port=port, on_request=console.tell) as found:
            console.say(f"http://{address}:{found}/ gives {options.path}; Ctrl-C ends it")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except OSError as error:
        raise MamoriError(f"{address}:{port}: {error.strerror}", "--port names another port, 0 any that is free") from None


def _open(folder: Path, keyset: Keyset, old: Keyset | None = None) -> Repository:
    """With the tools tree where a key is in a token, which only its tools reach."""
    tools = None
    if needs_tools(keyset) or (old is not None and needs_tools(old)):
        tools = prepare_tools(Workspace(Console()), read_lock(ROOT))
    return keysets.open_repository(folder, keyset, old, tools)


def _check_same_kind(found: Releasable, compatible: str, folder: Path) -> None:
    if found.image.compatible != compatible:
        raise MamoriError(f"{folder}: expected a build for {compatible}, got one for {found.image.compatible}")


def _tell_done(options: Options, done: Done, repository: Repository, more: dict[str, Any] | None = None) -> None:
    console = Console()
    anchored = keysets.keep_root(repository, options.read_keyset()) if "root" in done.published else False
    if options.json:
        console.json({**(more or {}), "published": dict(done.published), "pending": [asdict(one) for one in done.pending]})
        return
    for name, value in (more or {}).items():
        console.say(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    if done.published:
        console.say("published: " + ", ".join(f"{role} {version}" for role, version in done.published.items()))
    if anchored:
        console.say(
            "images that are built with this keyset from now on start from this root: keep its root.json as you keep the keyset"
        )
    for line in status.pending_lines(done.pending):
        console.say(line)


def _tell_plan(
    options: Options, console: Console, repository: Repository, offer: Offer, found: Releasable, before: Present | None
) -> None:
    """What a release would change."""
    planned = Present(offer, found.bundle.stat().st_size, "")
    waiting = repository.foresee("firmware")
    if options.json:
        was = before.offer.version if before else None
        console.json({"dry_run": True, **status.release_json(planned), "before": was, "pending": [asdict(one) for one in waiting]})
        return
    rows: list[Sequence[object]] = [*status.release_rows([before] if before else []), *status.release_rows([planned])]
    console.table(status.RELEASE_COLUMNS, rows)
    console.say(f"the last line {'takes the place of the one above' if before else 'is the first release of this channel'}")
    console.say(f"manifest {offer.manifest_hash}, from {found.bundle}")
    console.say(f"not below {offer.minimum_version} once it is confirmed")
    for language, text in (("ja", offer.notes.ja), ("en", offer.notes.en)):
        console.say(f"notes, {language}: {text}")
    lines = list(status.pending_lines(waiting))
    console.say("\n".join(["it would wait:", *lines]) if lines else "it would be published at once")
    console.say("dry run: nothing was changed")
