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


@task(
    positional=["name"],
    help={"name": "what to measure: build, boot or inspect", "quick": "one short round (inspect)", "json": "JSON"},
)
@guarded
def bench(_: Context, name: str, quick: bool = False, json: bool = False) -> None:
    """Measure, and write the numbers to out/bench/NAME.json."""
    from firmware import verbs

    _provide(Purpose.BUILD, Purpose.BOOT, Purpose.TEST)
    verbs.bench(name=name, quick=quick, json=json)


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


namespace = Collection(build, render, boot, verify, bench, test, lock, doctor, clean, keys=Collection(keys_init))
