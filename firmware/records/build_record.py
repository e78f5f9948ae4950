"""The build record: what an image was made from, with what, and how long it took. `docs/records.md` gives the format.

It holds nothing of the machine but the versions that matter: no host name, no user, no path, no address. An input's
text is recorded as its hash, so that neither can slip in through one.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from firmware.bases import Package
from firmware.bases.debian_packages import Drift
from firmware.cache import Artifact, text_sha256
from firmware.recipe import Image
from signing.certificates import Certificate

BUILD_RECORD = "build.json"

FORMAT = 1
"""Goes up when a reader of the old format would misunderstand the new one."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Host:
    """What of the building machine may matter: the version of its Python, and its distribution's name and version."""

    python: str
    distribution: str


@dataclass(frozen=True)
class Build:
    """Everything that the record tells. `artifacts` are in the order in which they were made; `drift` is by section of the
    lock; `certificates` are by what they are for; `seconds` is how long this build took from start to end."""

    image: Image
    artifacts: Sequence[Artifact]
    tools: Sequence[Package]
    host: Host
    seconds: float
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    drift: Mapping[str, Drift] = field(default_factory=dict)


def read_host() -> Host:
    """This machine; a system without os-release (freedesktop.org) is "unknown"."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    distribution = " ".join(filter(None, (release.get("ID"), release.get("VERSION_ID"))))
    return Host(platform.python_version(), distribution or "unknown")


def render_build_record(build: Build) -> str:
    """The record as JSON text. Two builds with the same inputs differ in `timings`, and nowhere else."""
    record = {
        "format": FORMAT,
        "image": _image(build.image),
        "source": {"commit": build.image.source.commit, "dirty": build.image.source.dirty, "epoch": build.image.source.epoch},
        "steps": [_step(artifact) for artifact in build.artifacts],
        "tools": _tools(build.tools),
        "host": {"python": build.host.python, "distribution": build.host.distribution},
        "lock_drift": {section: _drift(drift) for section, drift in sorted(build.drift.items())},
        "certificates": {purpose: _certificate(certificate) for purpose, certificate in sorted(build.certificates.items())},
        "timings": {
            "seconds": round(build.seconds, 2),
            "steps": [{"step": made.step, "key": made.key, "seconds": made.seconds} for made in build.artifacts],
        },
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _image(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "board": image.board_name,
        "base": image.recipe.base.value,
        "variant": image.recipe.variant.value,
        "version": image.version,
        "compatible": image.compatible,
    }


def _step(artifact: Artifact) -> dict[str, Any]:
    inputs = {name: value if _SHA256.fullmatch(value) else text_sha256(value) for name, value in artifact.inputs.items()}
    return {
        "step": artifact.step,
        "key": artifact.key,
        "digest": artifact.digest,
        "inputs": dict(sorted(inputs.items())),
        "files": dict(sorted(artifact.files.items())),
    }


def _tools(packages: Iterable[Package]) -> list[dict[str, str]]:
    return [{"name": tool.name, "version": tool.version, "sha256": tool.sha256} for tool in sorted(packages)]


def _drift(drift: Drift) -> dict[str, list[str]]:
    return {
        "added": [f"{package.name} {package.version}" for package in drift.added],
        "removed": [f"{package.name} {package.version}" for package in drift.removed],
        "changed_version": [str(change) for change in drift.changed_version],
        "changed_hash": [f"{change.actual.name} {change.actual.version}" for change in drift.changed_hash],
    }


def _certificate(certificate: Certificate) -> dict[str, str]:
    return {"subject": certificate.subject, "sha256": certificate.fingerprint}
