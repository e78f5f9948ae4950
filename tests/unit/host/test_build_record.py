"""The build record: every input, nothing of the machine, and the same bytes but for the timings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firmware.bases import Package
from firmware.bases.debian_packages import Change, Drift, LockedPackage
from firmware.cache import Artifact, Cache
from firmware.recipe import Image, read_image
from firmware.records.build_record import Build, Host, read_host, render_build_record
from firmware.version import Source
from signing.certificates import Certificate

A, B = "a" * 64, "b" * 64
FOLDER = Path("/home/somebody/mamori/out/cache")


@pytest.fixture
def image() -> Image:
    return read_image("lab", Source("2026.11.0+g0123456789", "0123456789" * 4, True, 1_763_878_000))


@pytest.fixture
def build(image: Image) -> Build:
    inputs = {"rootfs": A, "mirror": "http://user:secret@mirror.example/debian", "app": B}
    old, new = (LockedPackage("openssl", version, "amd64", A) for version in ("3.5.1-1", "3.5.2-1"))
    day = datetime(2026, 1, 1, tzinfo=UTC)
    return Build(
        image,
        artifacts=[
            Artifact("rootfs", FOLDER / "rootfs", "k1", A, {"rootfs.tar": A}, 89.25, {"packages": "bash\n"}),
            Artifact("erofs", FOLDER / "erofs", "k2", B, {"root.erofs": B, "hash": A}, 29.0, inputs),
        ],
        tools=[Package("rauc", "1.13-1", "deb", sha256=B), Package("erofs-utils", "1.8.6-1", "deb", sha256=A)],
        host=Host("3.11.7", "debian 12"),
        seconds=123.456,
        certificates={"secure-boot-db": Certificate(b"", b"", "CN=db,O=Mamori", "CN=db", "Mamori", day, day, B)},
        drift={"tools": Drift(), "base lab": Drift(added=(new,), changed_version=(Change(old, new),))},
    )


def record(build: Build) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(render_build_record(build))
    return loaded


def test_the_record_says_which_image_from_which_source(build: Build) -> None:
    assert record(build)["image"] == {
        "name": "lab",
        "board": "qemu-x86_64",
        "base": "debian",
        "variant": "lab",
        "version": "2026.11.0+g0123456789",
        "compatible": "mamori-qemu-x86_64-lab",
    }
    assert record(build)["source"] == {"commit": "0123456789" * 4, "dirty": True, "epoch": 1_763_878_000}


def test_every_step_has_the_hash_of_every_input_and_output(build: Build) -> None:
    first, second = record(build)["steps"]
    assert first["inputs"] == {"packages": hashlib.sha256(b"bash\n").hexdigest()}
    assert (second["step"], second["key"], second["digest"]) == ("erofs", "k2", B)
    assert second["files"] == {"hash": A, "root.erofs": B}
    assert (second["inputs"]["rootfs"], second["inputs"]["app"]) == (A, B)


def test_tools_drift_and_certificates_are_named(build: Build) -> None:
    written = record(build)
    assert [tool["name"] for tool in written["tools"]] == ["erofs-utils", "rauc"]
    assert written["lock_drift"]["tools"] == {"added": [], "removed": [], "changed_version": [], "changed_hash": []}
    assert written["lock_drift"]["base lab"]["changed_version"] == ["openssl 3.5.1-1 -> 3.5.2-1"]
    assert written["certificates"] == {"secure-boot-db": {"subject": "CN=db,O=Mamori", "sha256": B}}


@pytest.mark.parametrize("trace", [str(FOLDER), "/home", "mirror.example", "secret"])
def test_nothing_of_the_machine_slips_in(build: Build, trace: str) -> None:
    assert trace not in render_build_record(build)


def test_two_builds_differ_in_their_timings_only(build: Build) -> None:
    slower = [dataclasses.replace(made, seconds=made.seconds * 2, folder=Path("/elsewhere")) for made in build.artifacts]
    one, two = record(build), record(dataclasses.replace(build, artifacts=slower, tools=list(reversed(build.tools)), seconds=500))
    timings = one.pop("timings"), two.pop("timings")
    assert one == two
    assert timings[0] == {
        "seconds": 123.46,
        "steps": [{"step": "rootfs", "key": "k1", "seconds": 89.25}, {"step": "erofs", "key": "k2", "seconds": 29.0}],
    }
    assert timings[1]["steps"][1]["seconds"] == 58.0


def test_a_real_artifact_of_the_cache_is_recorded(build: Build, tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "out").write_text("y")

    made = Cache(tmp_path).step("demo", {"text": "x"}, make)
    (step,) = record(dataclasses.replace(build, artifacts=[made]))["steps"]
    assert step["inputs"] == {"text": hashlib.sha256(b"x").hexdigest()}
    assert step["files"] == {"out": hashlib.sha256(b"y").hexdigest()}
    assert str(tmp_path) not in json.dumps(step)


def test_the_host_is_its_python_and_its_distribution() -> None:
    host = read_host()
    assert host.python == platform.python_version()
    assert host.distribution == " ".join(platform.freedesktop_os_release()[key] for key in ("ID", "VERSION_ID"))
