"""Nothing in the repository that belongs to one machine, one network or one key holder."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from firmware.host_tools import which
from firmware.process import run
from tests.support.checkout import ROOT, files, text_files

ASK_PIP = """
import json
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
configuration = Configuration(isolated=False)
configuration.load()
print(json.dumps([PyPI.netloc, PyPI.file_storage_domain, *map(str, dict(configuration.items()).values())]))
"""
PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=:, -]{40}")
KEY_SUFFIXES = {".key", ".p12", ".pfx", ".jks", ".kdbx"}


def apt_texts() -> list[str]:
    return [path.read_text(errors="replace") for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources")]


def pip_texts() -> list[str]:
    """What the pip that ./inv uses is set to, and its defaults; pip itself knows best where its settings lie."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    answer: list[str] = json.loads(run([base, "-c", ASK_PIP], env=os.environ, explain="ask pip for its settings").stdout)
    return answer


def npm_texts() -> list[str]:
    return [run(["npm", "config", "get", "registry"], env=os.environ, explain="ask npm").stdout] if which("npm") else []


def hosts_in(text: str) -> set[str]:
    """Host names in `text`, of addresses or alone."""
    addresses = re.findall(r"\b(?:https?|ftp|mirror\+https?)://[^\s'\"\]]+", text)
    names = {urlsplit(address).hostname or "" for address in addresses}
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+", text.strip()):
        names.add(text.strip())
    return names - {""}


def test_no_address_of_a_package_registry_is_written_down() -> None:
    hosts = set().union(*map(hosts_in, [*apt_texts(), *pip_texts(), *npm_texts()]))
    assert hosts, "the host's own settings name at least one registry"
    named = re.compile("|".join(rf"(?<![\w.-]){re.escape(host)}(?![\w-])" for host in hosts))
    assert [f"{path}: {match.group()}" for path, text in text_files().items() for match in named.finditer(text)] == []


def test_no_path_of_this_machine_is_written_down() -> None:
    own = {ROOT, Path.home()} - {Path("/root")}  # root's home is the same everywhere, also on the appliance
    places = re.compile("|".join(rf"(?<![\w.$)}}*-]){re.escape(str(path))}(?![\w-])" for path in sorted(own)))
    assert [f"{path}: {match.group()}" for path, text in text_files().items() for match in places.finditer(text)] == []


def test_no_private_key_is_in_the_repository() -> None:
    armoured = [str(path) for path, text in text_files().items() if PRIVATE_KEY.search(text)]
    named = [str(path) for path in files() if path.suffix in KEY_SUFFIXES]
    assert (armoured, named) == ([], [])


def test_the_lock_names_no_index_and_pins_every_package_by_hash() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert re.findall(r"^--(?!hash).*$", lock, re.MULTILINE) == []
    packages = re.findall(r"^([a-z0-9.-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert packages == re.findall(r"^([a-z0-9.-]+)[^#\n]*$", lock, re.MULTILINE)
    wanted = re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert set(wanted) <= set(packages)
