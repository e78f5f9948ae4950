"""Signing as the build uses it: plans from `signing`, carried out in the tools tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from firmware.recipe import Image
from firmware.workspace import Tools, Workspace
from mamori.formats.problems import MamoriError
from mamori.formats.release import Variant
from signing.anchors import Anchors
from signing.check import check_keyset
from signing.commands import (
    RaucVerb,
    ToolCommand,
    plan_cms_signature,
    plan_cms_verification,
    plan_rauc,
    plan_secure_boot_signature,
    plan_secure_boot_verification,
)
from signing.development import init_development
from signing.keyset import Keyset, read_keyset
from signing.unlocked import start_unlocked

SIGNED_AT_S = 1735689600
"""2025-01-01: the time that Secure Boot signatures state. Nobody checks it (UEFI 32.5 compares no dates), and a constant
one gives the same bytes for the same input."""


@dataclass(frozen=True)
class Signer:
    """A keyset in use. Private keys are lent to tools only while they sign."""

    keyset: Keyset
    anchors: Anchors
    tools: Tools

    @property
    def secure_boot_identity(self) -> str:
        """What a signed file depends on: the certificate that it is signed with."""
        return self.anchors.db.fingerprint

    @property
    def bundle_identity(self) -> str:
        """What a bundle's signature depends on: both authorities, and which of them signs."""
        return f"{self.keyset.signs_with.value} {' '.join(ca.fingerprint for ca in self.anchors.bundle)}"

    def sign_pe(self, unsigned: Path, signed: Path) -> None:
        """A signed copy of an EFI executable, checked with another implementation than the one that signed it."""
        with start_unlocked(self.keyset) as keyset:
            self._carry_out(plan_secure_boot_signature(keyset, unsigned, signed, SIGNED_AT_S), f"sign {signed.name}")
        self.verify_pe(signed)

    def verify_pe(self, signed: Path) -> None:
        """MamoriError unless `signed` carries a signature of this keyset's db certificate."""
        self._carry_out(plan_secure_boot_verification(self.keyset.db.certificate, signed), f"verify the signature of {signed.name}")

    def sign_file(self, file: Path, signature: Path) -> None:
        """A detached CMS signature of the bundle signer."""
        with start_unlocked(self.keyset) as keyset:
            self._carry_out(plan_cms_signature(keyset, file, signature), f"sign {file.name}")

    def rauc(self, verb: RaucVerb, source: Path, output: Path, options: Sequence[str] = ()) -> None:
        """`rauc bundle` or `rauc resign` with the bundle signer."""
        with start_unlocked(self.keyset) as keyset:
            self._carry_out(plan_rauc(keyset, verb, source, output, options), f"sign {output.name}")

    def _carry_out(self, command: ToolCommand, explain: str) -> None:
        self.tools.run(command.argv, reads=command.reads, writes=command.writes, env=command.env, explain=explain)


def verify_file(tools: Tools, file: Path, signature: Path, authorities: Path, at: datetime | None = None) -> None:
    """MamoriError unless `signature` is a CMS signature of `file` under one of the CA certificates in `authorities`."""
    command = plan_cms_verification(file, signature, authorities, at)
    explain = f"verify the signature of {file.name}"
    tools.run(command.argv, reads=command.reads, writes=command.writes, env=command.env, explain=explain)


def prepare_keyset(workspace: Workspace, image: Image) -> Keyset:
    """The keyset of the recipe, checked; development keys are made on first use of a recipe that may use them.

    BadInputError names every key that is missing, expired, or not allowed in a release.
    """
    path = workspace.root / image.recipe.signing.keyset
    release = image.recipe.variant is Variant.RELEASE
    now = datetime.now(UTC)
    if not path.exists():
        if release:
            raise MamoriError(
                f"image-recipes/{image.name}.toml: signing.keyset: expected a keyset file,"
                f" got {image.recipe.signing.keyset}, which does not exist",
                "a release is signed with keys of its own: signing/README.md says how they are made; development keys are refused",
            )
        init_development(path.parent, now)
        folder = image.recipe.signing.keyset.rpartition("/")[0]
        workspace.console.warn(f"made a development PKI in {folder}/: never trust it in the field")
    keyset = read_keyset(path)
    check_keyset(keyset, release=release, now=now)
    return keyset
