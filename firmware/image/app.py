"""The device application as a tar: the wheel of `python-app/`, installed where the device's Python looks for it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from firmware.bases import PythonTarget
from firmware.cache import Artifact, tree_sha256
from firmware.image import tar
from firmware.image.tar import add_tree, new_tar
from firmware.process import Argument, run
from firmware.workspace import Tools, Workspace

TAR = "app.tar"
SOURCE = Path("python-app")


def build_app(workspace: Workspace, tools: Tools, python: PythonTarget, epoch: int) -> Artifact:
    """The application for `python`. Byte code is hash-based and unchecked: the root cannot change under it, and no
    source file has to be looked at when it starts."""
    source = workspace.root / SOURCE
    inputs = {"source": tree_sha256(source), "python": repr(python), "epoch": str(epoch)}
    with workspace.console.step("application") as step:

        def make(folder: Path) -> None:
            work, tree = folder / "work", folder / "tree"
            work.mkdir()
            wheel = _build_wheel(source, work, epoch)
            _install(wheel, tree, python)
            _compile(tools, tree, python)
            with new_tar(folder / TAR) as archive:
                add_tree(archive, tree, mtime=epoch)
            shutil.rmtree(work)
            shutil.rmtree(tree)

        return workspace.cache.step("app", inputs, make, code=(__file__, tar.__file__), on_hit=step.cached)


def _build_wheel(source: Path, work: Path, epoch: int) -> Path:
    """flit_core is the project's own build backend; its PEP 517 hook needs no network and no isolated environment."""
    copy = work / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    hook = f"from flit_core import buildapi; print(buildapi.build_wheel({str(work)!r}))"
    environment = {"SOURCE_DATE_EPOCH": str(epoch)}
    name = run([sys.executable, "-c", hook], cwd=copy, env=environment, explain="build the wheel of the application").stdout.strip()
    return work / name.splitlines()[-1]


def _install(wheel: Path, tree: Path, python: PythonTarget) -> None:
    site = f"/{python.site_packages}"
    scheme = {"purelib": site, "platlib": site, "scripts": "/usr/bin", "headers": "/usr/include", "data": "/usr"}
    destination = SchemeDictionaryDestination(scheme, interpreter="/usr/bin/python3", script_kind="posix", destdir=str(tree))
    with WheelFile.open(wheel) as source:
        install(source, destination, additional_metadata={"INSTALLER": b"mamori\n"})


def _compile(tools: Tools, tree: Path, python: PythonTarget) -> None:
    """Byte code, when the tools tree has the device's Python; another Python compiles at start, in memory."""
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    if tools.run(["python3", "-c", version], explain="ask for the tools tree's Python").stdout.strip() != python.version:
        return
    compiler: list[Argument] = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    tools.run([*compiler, "-s", tree, "-p", "/", tree], writes=[tree], explain="compile the application")
