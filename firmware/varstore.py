"""UEFI variables for QEMU: OVMF's empty store with the keyset's PK, KEK and db enrolled, and Secure Boot on."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from firmware import host_tools
from firmware.cache import file_sha256
from firmware.layout import NAMESPACE
from firmware.process import run
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError
from signing.keyset import Keyset

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
"""OVMF that keeps its variables behind SMM: a guest that is root cannot write the key variables past the firmware."""

EMPTY = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""No key at all: the firmware is in setup mode and starts anything. The same size as what CODE expects."""

OWNER = uuid.uuid5(NAMESPACE, "secure-boot-owner")
"""SignatureOwner of our entries (UEFI specification, 32.4.1): says who enrolled them, and nobody checks it."""

_STORE = "variables.fd"


def build_varstore(workspace: Workspace, keyset: Keyset) -> Path:
    """The variable store that trusts the keyset and nobody else; QEMU writes to it, so it is copied before use."""
    need_firmware()
    certificates = {"pk": keyset.pk.certificate, "kek": keyset.kek.certificate, "db": keyset.db.certificate}
    inputs = {name: file_sha256(path) for name, path in (*certificates.items(), ("template", EMPTY))} | {"owner": str(OWNER)}

    def make(folder: Path) -> None:
        # virt-firmware as a program: its library calls sys.exit on a file that it does not like.
        argv: list[str | Path] = [sys.executable, "-m", "virt.firmware.vars", "--input", EMPTY, "--output", folder / _STORE]
        for option, name in (("--set-pk", "pk"), ("--add-kek", "kek"), ("--add-db", "db")):
            argv += [option, str(OWNER), certificates[name]]
        run([*argv, "--sb"], explain="enrol the Secure Boot keys in a variable store")

    return workspace.cache.step("variables", inputs, make, code=(__file__,)) / _STORE


def need_firmware() -> None:
    """MamoriError when the UEFI firmware is not installed."""
    for path in (CODE, EMPTY):
        if not path.exists():
            raise MamoriError(f"start QEMU: {path} is not on this machine", host_tools.install_hint(str(CODE)))
