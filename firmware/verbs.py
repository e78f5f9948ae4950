"""What the verbs of ./inv do; `tasks.py` only names them."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from firmware.console import Console
from firmware.recipe import ROOT, read_image, recipe_names
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError


def build(recipe: str = "lab", board: str = "", buildroot: str = "", verbose: bool = False, json: bool = False) -> None:
    """Build an image and say where it is."""
    from firmware.build import build_image

    console, started = Console(verbose=verbose), time.monotonic()
    built = build_image(Workspace(console), recipe, board, buildroot)
    files = {path.name: path.stat().st_size for path in sorted(built.folder.iterdir())}
    seconds = time.monotonic() - started
    folder = built.folder.relative_to(ROOT)
    if json:
        console.json({"version": built.image.version, "folder": str(folder), "files": files, "seconds": round(seconds, 2)})
        return
    console.table(["file", "MB"], [[name, f"{size / 1e6:.1f}"] for name, size in files.items()])
    console.say(f"{built.image.label} {built.image.version}: {folder} in {seconds:.1f} s")


def render(recipe: str, board: str = "") -> None:
    """Write the rendered files and list them."""
    from firmware.render import render_image, write_rendered
    from firmware.version import read_source

    console = Console()
    workspace = Workspace(console)
    image = read_image(recipe, read_source(workspace.root), board, workspace.root)
    files = render_image(image, workspace.root)
    folder = workspace.out / image.label / "rendered"
    write_rendered(files, folder)
    for name in files:
        console.say(str((folder / name).relative_to(ROOT)))


def boot(recipe: str = "lab", lan: str = "", wan: str = "", fresh: bool = False) -> None:
    """Build what is missing, then hand the terminal to the machine."""
    from firmware.build import build_image
    from firmware.qemu import boot_interactively

    console = Console()
    boot_interactively(build_image(Workspace(console), recipe), console, lan=lan, wan=wan, fresh=fresh)


def verify(path: str, json: bool = False) -> None:
    """Check a release folder and say what was checked."""
    from firmware.lock import read_lock
    from firmware.toolstree import prepare_tools
    from firmware.verify import verify_release

    console = Console()
    workspace = Workspace(console)
    checks = verify_release(prepare_tools(workspace, read_lock(ROOT)), Path(path), console)
    if json:
        console.json([asdict(check) for check in checks])
        return
    for check in checks:
        console.say(f"{check.name:<28} {check.detail}")
    console.say(f"{path}: everything checks")


def keys_init() -> None:
    """Make the development PKI."""
    from firmware.repository.anchor import prepare_anchor
    from signing.development import init_development
    from signing.keyset import read_keyset

    console, now = Console(), datetime.now(UTC)
    keyset = init_development(ROOT / "keys" / "development", now)
    prepare_anchor(read_keyset(keyset), int(now.timestamp()))
    console.say(f"made {keyset.relative_to(ROOT)}: for development only, releases refuse these keys")


def lock(recipe: str = "lab") -> None:
    """Take the package versions that the mirror has today into debian.lock, and say what changed."""
    from firmware.bases.debian import DebianBase
    from firmware.lock import Lock, read_lock, write_lock
    from firmware.render import render_image, write_rendered
    from firmware.toolstree import TREE_NAME, prepare_tools, tools_packages
    from firmware.version import read_source

    console = Console()
    workspace, today = Workspace(console), Lock({}, int(time.time()))
    image = read_image(recipe, read_source(ROOT), "", ROOT)
    if image.recipe.base.value != "debian":
        raise MamoriError(f"image-recipes/{recipe}.toml: base: only the debian base is locked here, not {image.recipe.base.value}")
    write_rendered(render_image(image, ROOT), workspace.out / image.label / "rendered")
    tools = prepare_tools(workspace, today)
    base = DebianBase(workspace, today).build(image, workspace.out / image.label / "rendered")
    trees = {TREE_NAME: tools_packages(tools), base.lock_section: base.packages}
    before = read_lock(ROOT)
    path = write_lock(ROOT, trees, today.epoch)
    for name, packages in trees.items():
        drift = before.drift(name, packages)
        console.say(f"[{name}] {len(packages)} packages: {drift if name in before.trees else 'new'}")
    console.say(f"wrote {path.relative_to(ROOT)}")


def bench(name: str, quick: bool = False, json: bool = False, count: int = 0) -> None:
    """Measure, write the figures, and print them."""
    from firmware import benchmarks

    console = Console()
    measured = benchmarks.run(name, Workspace(console), quick=quick, count=count)
    tables = () if json else tuple(benchmarks.tables(measured))
    if not tables:
        console.json(measured)
    for columns, rows in tables:
        console.table(columns, rows)
        console.say("")


def clean(everything: bool = False) -> None:
    """Remove rendered files and releases; `everything` also the cache and the tools tree."""
    out = ROOT / "out"
    for name in [*recipe_names(), "bench", *(["cache", "tools"] if everything else [])]:
        for path in out.glob(f"{name}*") if name in recipe_names() else [out / name]:
            shutil.rmtree(path, ignore_errors=True)
