"""./inv makes its virtual environment once, makes it again when it must, and hands the command line over.

The real script runs in a small checkout. Its lock names one wheel, made here, that is called Invoke and says how it was
started: so that nothing is downloaded, and the hand-over can be looked at.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from firmware.process import Result, run
from tests.support.checkout import ROOT

ECHO = "import json, os, sys; print(json.dumps({'arguments': sys.argv[1:], 'cwd': os.getcwd(), 'path': sys.path}))"
METADATA = "Metadata-Version: 2.1\nName: invoke\nVersion: 1\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_lock(checkout: Path, digest: str = "") -> None:
    wheel = checkout / "invoke-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("invoke/__init__.py", "")
        archive.writestr("invoke/__main__.py", ECHO)
        archive.writestr("invoke-1.dist-info/METADATA", METADATA)
        archive.writestr("invoke-1.dist-info/WHEEL", WHEEL)
        archive.writestr("invoke-1.dist-info/RECORD", "")
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    (checkout / "requirements.txt").write_text(f"invoke @ {wheel.as_uri()} --hash=sha256:{digest}\n")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout that was started once."""
    checkout = make_checkout(tmp_path_factory.mktemp("bootstrap") / "with space")
    assert "making .venv: done" in inv(checkout, "--list").stderr
    return checkout


def make_checkout(checkout: Path) -> Path:
    checkout.mkdir()
    shutil.copy(ROOT / "inv", checkout)
    for folder in ("firmware", "python-app/src"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    write_lock(checkout)
    return checkout


def inv(checkout: Path, *arguments: str, cwd: Path | None = None) -> Result:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return run([base, checkout / "inv", *arguments], cwd=cwd, explain="start ./inv", accept=range(256))


@pytest.mark.parametrize(
    ("given", "handed_over"),
    [
        pytest.param([], ["--list"], id="nothing asks for the table of contents"),
        pytest.param(["build"], ["build"], id="a verb alone"),
        pytest.param(["build", "appliance", "--verbose"], ["build", "--recipe", "appliance", "--verbose"], id="a bare recipe"),
        pytest.param(["boot", "--lan", "x"], ["boot", "--lan", "x"], id="flags stay"),
        pytest.param(["test", "unit"], ["test", "--level", "unit"], id="a bare level"),
        pytest.param(["lock", "lab"], ["lock", "--recipe", "lab"], id="a recipe whose base is locked"),
        pytest.param(["keys", "init"], ["keys.init"], id="a verb of a collection"),
        pytest.param(["repo", "rotate", "root"], ["repo.rotate", "root"], id="a verb of a collection with an argument"),
        pytest.param(["repo"], ["--list", "repo"], id="a collection alone asks for its verbs"),
        pytest.param(["--help", "repo", "rotate"], ["--help", "repo.rotate"], id="help for a verb of a collection"),
        pytest.param(["verify", "out/a b"], ["verify", "out/a b"], id="required arguments stay"),
    ],
)
def test_the_command_line_is_handed_over_as_invoke_takes_it(ready: Path, given: list[str], handed_over: list[str]) -> None:
    outcome = inv(ready, *given)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout)["arguments"] == ["--search-root", str(ready), *handed_over]


def test_the_callers_folder_stays_and_is_no_place_to_import_from(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "invoke.py").write_text("raise SystemExit('imported from the wrong place')")
    started = json.loads(inv(ready, cwd=tmp_path).stdout)
    assert started["cwd"] == str(tmp_path)
    assert str(tmp_path) not in started["path"]
    assert {str(ready), str(ready / "python-app/src")} <= set(started["path"])


def test_a_half_made_environment_is_made_again(ready: Path) -> None:
    (ready / ".venv/mamori-stamp").unlink()
    (ready / ".venv/lib").rename(ready / ".venv/lib-broken")
    assert "making .venv: done" in inv(ready).stderr
    assert inv(ready).stderr == ""


def test_a_changed_lock_makes_the_environment_anew(ready: Path) -> None:
    with (ready / "requirements.txt").open("a") as lock:
        lock.write("# renewed\n")
    assert "making .venv: done" in inv(ready).stderr
    assert inv(ready).stderr == ""


def test_a_package_with_another_hash_is_refused_and_nothing_is_started(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    write_lock(checkout, digest="0" * 64)
    outcome = inv(checkout)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "inv: install the Python packages: exit code 1" in outcome.stderr
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in outcome.stderr
    assert not (checkout / ".venv/mamori-stamp").exists()
    write_lock(checkout)
    assert inv(checkout).code == 0


def test_two_starts_at_once_make_it_once(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: inv(checkout), range(2)))
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert "".join(outcome.stderr for outcome in outcomes).count("making .venv: done") == 1
