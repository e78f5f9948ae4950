"""The verbs of ./inv: the product's table of contents. Each calls one function; what it does is written there."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from firmware.console import Console, guarded
from firmware.host_tools import Purpose


@task(
    help={
        "recipe": "name in image-recipes/",
        "board": "build for another board",
        "buildroot": "an existing Buildroot tree",
        "verbose": "show tool output",
        "json": "JSON",
    }
)
@guarded
def build(_: Context, recipe: str = "lab", board: str = "", buildroot: str = "", verbose: bool = False, json: bool = False) -> None:
    """Build a signed image, its OTA bundle, SBOM and record."""
    from firmware import verbs

    _provide(Purpose.BUILD)
    verbs.build(recipe=recipe, board=board, buildroot=buildroot, verbose=verbose, json=json)


@task(positional=["recipe"], help={"recipe": "name in image-recipes/", "board": "render for another board"})
@guarded
def render(_: Context, recipe: str, board: str = "") -> None:
    """Write a recipe's rendered files to out/RECIPE/rendered/."""
    from firmware import verbs

    verbs.render(recipe=recipe, board=board)


@task(
    help={
        "recipe": "name in image-recipes/",
        "lan": "network namespace of port `lan`",
        "wan": "network namespace of port `wan`",
        "fresh": "forget the disk of the last start",
    }
)
@guarded
def boot(_: Context, recipe: str = "lab", lan: str = "", wan: str = "", fresh: bool = False) -> None:
    """Boot an image in QEMU, its console on this terminal."""
    from firmware import verbs

    _provide(Purpose.BUILD, Purpose.BOOT)
    verbs.boot(recipe=recipe, lan=lan, wan=wan, fresh=fresh)


@task(positional=["path"], help={"path": "folder of a build (out/lab/VERSION)", "json": "JSON"})
@guarded
def verify(_: Context, path: str, json: bool = False) -> None:
    """Check a build, from signature to verity hashes."""
    from firmware import verbs

    _provide(Purpose.BUILD)
    verbs.verify(path=path, json=json)


@task(name="init")
@guarded
def keys_init(_: Context) -> None:
    """Make the development keys and certificates under keys/."""
    from firmware import verbs

    verbs.keys_init()


_REPOSITORY_HELP = {"folder": "of the repository (out/repository)", "keyset": "keyset file (development keys)", "json": "JSON"}


@task(name="init", help=_REPOSITORY_HELP)
@guarded
def repo_init(_: Context, folder: str = "", keyset: str = "", json: bool = False) -> None:
    """Make an update repository without releases."""
    from firmware.repository import verbs

    verbs.repo_init(verbs.Options(folder, keyset, json))


@task(name="refresh", help=_REPOSITORY_HELP)
@guarded
def repo_refresh(_: Context, folder: str = "", keyset: str = "", json: bool = False) -> None:
    """Renew the repository's metadata: once a day."""
    from firmware.repository import verbs

    verbs.repo_refresh(verbs.Options(folder, keyset, json))


@task(
    name="rotate",
    positional=["role"],
    help={**_REPOSITORY_HELP, "role": "root, firmware, feeds, snapshot or timestamp", "old-keyset": "keyset before, signs too"},
)
@guarded
def repo_rotate(_: Context, role: str, folder: str = "", keyset: str = "", old_keyset: str = "", json: bool = False) -> None:
    """Let the keyset's keys sign a role from now on."""
    from firmware.repository import verbs

    verbs.repo_rotate(verbs.Options(folder, keyset, json), role, old_keyset)


@task(name="sign", help=_REPOSITORY_HELP)
@guarded
def repo_sign(_: Context, folder: str = "", keyset: str = "", json: bool = False) -> None:
    """Add a signature to what waits for it."""
    from firmware.repository import verbs

    verbs.repo_sign(verbs.Options(folder, keyset, json))


@task(name="drop", help={"folder": _REPOSITORY_HELP["folder"], "json": "JSON"})
@guarded
def repo_drop(_: Context, folder: str = "", json: bool = False) -> None:
    """Give up what waits for signatures."""
    from firmware.repository import verbs

    verbs.repo_drop(verbs.Options(folder, json=json))


@task(name="status", help={"folder": _REPOSITORY_HELP["folder"], "json": "JSON"})
@guarded
def repo_status(_: Context, folder: str = "", json: bool = False) -> None:
    """Say what is released, what expires, what waits."""
    from firmware.repository import verbs

    verbs.repo_status(verbs.Options(folder, json=json))


@task(
    name="withdraw",
    positional=["version"],
    help={**_REPOSITORY_HELP, "version": "of the release", "channel": "only in this one", "compatible": "only for these boxes"},
)
@guarded
def repo_withdraw(
    _: Context, version: str, channel: str = "", compatible: str = "", folder: str = "", keyset: str = "", json: bool = False
) -> None:
    """Take a release back; the one before it returns."""
    from firmware.repository import verbs

    verbs.repo_withdraw(verbs.Options(folder, keyset, json), version, channel, compatible)


@task(
    positional=["recipe"],
    help={
        **_REPOSITORY_HELP,
        "keyset": "keyset file (the recipe's)",
        "recipe": "name in image-recipes/",
        "channel": "stable or beta",
        "notice": "when owners are told: 2026-12-01 (Japan)",
        "activate-after": "from when on a power cycle activates",
        "activate-before": "until when",
        "waves": "10@2026-12-01,100@2026-12-05 (all at the notice)",
        "notes": "folder with ja.txt and en.txt, or TOML",
        "minimum-version": "nothing below it afterwards (as before)",
        "board": "a build for another board",
        "build": "its folder (out/RECIPE/latest)",
        "dry-run": "show what would change",
    },
)
@guarded
def release(
    _: Context,
    recipe: str,
    channel: str = "stable",
    notice: str = "",
    activate_after: str = "",
    activate_before: str = "",
    waves: str = "",
    notes: str = "",
    minimum_version: str = "",
    board: str = "",
    build: str = "",
    folder: str = "",
    keyset: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Verify a build and put it into its channel."""
    from firmware.repository import verbs

    _provide(Purpose.BUILD)
    verbs.release(
        verbs.Options(folder, keyset, json),
        recipe,
        board=board,
        build=build,
        dry_run=dry_run,
        channel=channel,
        notice=notice,
        activate_after=activate_after,
        activate_before=activate_before,
        waves=waves,
        notes=notes,
        minimum_version=minimum_version,
    )


@task(
    help={
        "folder": _REPOSITORY_HELP["folder"],
        "port": "to listen at (8080; 0: any)",
        "address": "to listen at (127.0.0.1)",
    }
)
@guarded
def serve(_: Context, folder: str = "", port: int = 8080, address: str = "127.0.0.1") -> None:
    """Give the repository over HTTP, for the lab."""
    from firmware.repository import verbs

    verbs.serve(verbs.Options(folder), port, address)


@task(
    positional=["name"],
    help={
        "name": "what to measure: build, boot, inspect or power-cut",
        "quick": "one short round (inspect), three cuts (power-cut)",
        "json": "JSON",
        "count": "how many power cuts",
    },
)
@guarded
def bench(_: Context, name: str, quick: bool = False, json: bool = False, count: int = 0) -> None:
    """Measure, and write the numbers to out/bench/NAME.json."""
    from firmware import verbs

    _provide(Purpose.BUILD, Purpose.BOOT, Purpose.TEST)
    verbs.bench(name=name, quick=quick, json=json, count=count)


@task(help={"level": "repo, unit, fuzz, net, image, boot or long; comma separated", "k": "only tests whose name matches"})
@guarded
def test(_: Context, level: str = "", k: str = "") -> int:
    """Run the tests, level by level."""
    from firmware import testing

    return testing.test(level=level, k=k)


@task(help={"json": "JSON"})
@guarded
def doctor(_: Context, json: bool = False) -> None:
    """Say what this machine can do and what it cannot."""
    from firmware.doctor import doctor

    doctor(json=json)


@task(help={"recipe": "whose base is locked, with the tools tree"})
@guarded
def lock(_: Context, recipe: str = "lab") -> None:
    """Take today's Debian package versions into debian.lock."""
    from firmware import verbs

    _provide(Purpose.BUILD)
    verbs.lock(recipe=recipe)


@task(help={"everything": "the step cache and the tools tree, too"})
@guarded
def clean(_: Context, everything: bool = False) -> None:
    """Remove releases and rendered files; keys stay."""
    from firmware import verbs

    verbs.clean(everything=everything)


def _provide(*purposes: Purpose) -> None:
    """See that the system tools are there, or say which are not."""
    from firmware.provision import provide_tools

    provide_tools(purposes, Console().tell)


repo = Collection(repo_init, repo_refresh, repo_rotate, repo_sign, repo_drop, repo_status, repo_withdraw)
namespace = Collection(
    *(build, render, boot, verify, release, serve, bench, test, lock, doctor, clean), keys=Collection(keys_init), repo=repo
)
