"""What all levels share: the built laboratory image, and the tools tree to look at it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware import workspace
from firmware.build import Built, build_image
from firmware.console import Console
from firmware.lock import read_lock
from firmware.toolstree import prepare_tools
from firmware.workspace import Workspace
from tests.support.need import need


@dataclass(frozen=True)
class ToolsTree:
    """The tools tree, answering with everything that a tool said."""

    tools: workspace.Tools

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
    ) -> str:
        result = self.tools.run(argv, env=env, reads=reads, writes=writes, explain=f"run {argv[0]} for a test")
        return result.stdout + result.stderr


@pytest.fixture(scope="session")
def checkout() -> Workspace:
    for tool in ("mmdebstrap", "bwrap"):
        need(tool, "without it there is no tools tree and no image")
    return Workspace(Console())


@pytest.fixture(scope="session")
def tools(checkout: Workspace) -> ToolsTree:
    return ToolsTree(prepare_tools(checkout, read_lock(checkout.root)))


@pytest.fixture(scope="session")
def built(checkout: Workspace) -> Built:
    """The laboratory image of this checkout; nothing is done when it is built already."""
    return build_image(checkout, "lab")
