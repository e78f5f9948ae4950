"""The diagram in docs/update.md is the machine's table. MAMORI_RENEW_GOLDEN=1 draws it anew."""

from __future__ import annotations

import os
import re

from firmware.recipe import ROOT
from mamori.update.core import TABLE
from mamori.update.words import Phase

PAGE = ROOT / "docs/update.md"
_PLACE = re.compile(r"(?<=<!-- update-machine -->\n).*?(?=<!-- end -->)", re.DOTALL)


def draw() -> str:
    """Mermaid, one arrow for each pair of phases, with all that leads along it."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for row in TABLE:
        words = f"{row.event.__name__}: {row.why}"
        arrows.setdefault((row.phase, row.then), []).append(words)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> idle"]
    for (before, after), words in arrows.items():
        lines.append(f"    {before.value} --> {after.value} : {'<br>'.join(words)}")
    return "\n".join([*lines, "```", ""])


def test_the_diagram_is_the_table() -> None:
    text = PAGE.read_text()
    renewed = _PLACE.sub(lambda _: draw(), text)
    if os.environ.get("MAMORI_RENEW_GOLDEN") == "1":
        PAGE.write_text(renewed)
    assert PAGE.read_text() == renewed


def test_the_page_names_every_phase() -> None:
    for phase in Phase:
        assert phase.value in PAGE.read_text()
