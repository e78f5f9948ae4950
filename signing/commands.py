"""Signing as plans: the commands that sign and verify, for the host to run inside the tools tree.

Which tools, and why (measured with Debian 13's versions; docs/adr/0004-keys-by-uri.md has the figures):

- PE files: osslsigncode, the only one whose signing time can be set. sbsign 0.9.4 and systemd-sbsign 257 write the current
  second whatever SOURCE_DATE_EPOCH says, so an image could never be built twice.
- PKCS #11: libp11's engine, for all three signers. RAUC 1.13 knows nothing else, and `openssl cms` with pkcs11-provider 1.0
  on SoftHSM 2.6 ends in a segmentation fault.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from mamori.formats.problems import MamoriError
from signing.keyset import Certified, Keyset, Published
from signing.uri import FileKey, KeyUri, TokenKey


@dataclass(frozen=True)
class ToolCommand:
    """A command for the tools tree. Every path in `argv` is absolute and means the same file inside the tree.

    `reads`: host files and folders that it may see; `writes`: host folders that it may also change. `env` comes on top of
    a clean environment. No argument and no variable holds a secret: this may be logged.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


class RaucVerb(enum.Enum):
    """The two verbs of rauc that need a private key."""

    BUNDLE = "bundle"
    RESIGN = "resign"


def plan_secure_boot_signature(keyset: Keyset, image: Path, output: Path, signed_at_s: int) -> ToolCommand:
    """Sign a PE file with db into `output`, which must not exist. Same key, image and time (Unix seconds): same bytes.

    A signature that the image already has is replaced.
    """
    key = _key_of(keyset.db)
    argv = ["osslsigncode", "sign", "-h", "sha256", "-time", str(signed_at_s)]
    argv += ["-certs", str(keyset.db.certificate), "-key", _key_argument(key)]
    if isinstance(key, TokenKey):
        argv += ["-pkcs11module", str(key.module_path)]
    argv += ["-in", str(image), "-out", str(output)]
    return _signing(keyset, keyset.db, argv, {}, reads=(image,), writes=(output.parent,))


def plan_secure_boot_verification(certificate: Path, image: Path) -> ToolCommand:
    """Verify a PE file against one PEM certificate. Another implementation than the one that signs, on purpose."""
    return ToolCommand(("sbverify", "--cert", str(certificate), str(image)), reads=(certificate, image))


def plan_cms_signature(keyset: Keyset, file: Path, signature: Path) -> ToolCommand:
    """Sign a file with the bundle signer: detached CMS in DER, with the certificates of the signer and its intermediate.

    Signed attributes stay, and the signing time with them, so two runs differ: a CMS signature without them can be
    mistaken for one over attributes, and the other way round (RFC 5652, section 5.4).
    """
    key = _key_of(keyset.signer)
    argv = ["openssl", "cms", "-sign", "-binary", "-nosmimecap", "-md", "sha256", "-outform", "DER"]
    argv += ["-signer", str(keyset.signer.certificate), "-inkey", _key_argument(key)]
    if keyset.signer.intermediate:
        argv += ["-certfile", str(keyset.signer.intermediate)]
    env = {}
    if isinstance(key, TokenKey):
        argv += ["-engine", "pkcs11", "-keyform", "engine"]
        env["PKCS11_MODULE_PATH"] = str(key.module_path)
    argv += ["-in", str(file), "-out", str(signature)]
    return _signing(keyset, keyset.signer, argv, env, reads=(file,), writes=(signature.parent,))


def plan_raw_signature(keyset: Keyset, key: Published, file: Path, signature: Path, options: Sequence[str]) -> ToolCommand:
    """Sign a file with a key in a token: the bare signature, as TUF has it. `options` are digest and padding for `openssl dgst`."""
    if not isinstance(key.key, TokenKey):
        raise MamoriError(f"{key.name}: not a key in a token")
    argv = ["openssl", "dgst", *options, "-engine", "pkcs11", "-keyform", "engine", "-sign", str(key.key)]
    argv += ["-out", str(signature), str(file)]
    env = MappingProxyType({**keyset.hsm.environment, "PKCS11_MODULE_PATH": str(key.key.module_path)})
    pin = (key.key.pin_source,) if key.key.pin_source else ()
    return ToolCommand(tuple(argv), env, (file, *pin, *keyset.hsm.reads), (signature.parent, *keyset.hsm.writes))


def plan_cms_verification(file: Path, signature: Path, authorities: Path, at: datetime | None = None) -> ToolCommand:
    """Verify a detached CMS signature against the PEM CA certificates in one file, and nothing that the system trusts.

    `at` is the moment at which the certificates must be valid; None is now.
    """
    argv = ["openssl", "cms", "-verify", "-binary", "-purpose", "codesign", "-no-CApath", "-no-CAstore"]
    argv += ["-CAfile", str(authorities), "-inform", "DER", "-in", str(signature), "-content", str(file), "-out", "/dev/null"]
    if at is not None:
        argv += ["-attime", str(int(at.timestamp()))]
    return ToolCommand(tuple(argv), reads=(file, signature, authorities))


def plan_rauc(keyset: Keyset, verb: RaucVerb, source: Path, output: Path, options: Sequence[str] = ()) -> ToolCommand:
    """`rauc bundle CONTENT-FOLDER OUTPUT` or `rauc resign BUNDLE OUTPUT` with the bundle signer; `options` go to rauc as they are.

    rauc works in a hidden folder inside the content folder, which is therefore writable. In a sandbox it cannot prove that
    nobody else writes a bundle ("exclusive access"), so verify one with `rauc info` first and resign it with `--no-verify`.
    Files that `options` name are the caller's to add to `reads`. The output must not exist.
    """
    key = _key_of(keyset.signer)
    argv = ["rauc", verb.value, "--cert", str(keyset.signer.certificate), "--key", _key_argument(key)]
    if keyset.signer.intermediate:
        argv += ["--intermediate", str(keyset.signer.intermediate)]
    argv += [*options, str(source), str(output)]
    env = {"RAUC_PKCS11_MODULE": str(key.module_path)} if isinstance(key, TokenKey) else {}
    if verb is RaucVerb.BUNDLE:
        return _signing(keyset, keyset.signer, argv, env, reads=(), writes=(source, output.parent))
    return _signing(keyset, keyset.signer, argv, env, reads=(source,), writes=(output.parent,))


def _key_of(certified: Certified) -> KeyUri:
    if certified.key is None:
        raise MamoriError(f"{certified.name}: the keyset has its certificate, but not its private key")
    return certified.key


def _key_argument(key: KeyUri) -> str:
    return str(key.path) if isinstance(key, FileKey) else str(key)


def _signing(
    keyset: Keyset,
    certified: Certified,
    argv: Sequence[str],
    env: Mapping[str, str],
    reads: tuple[Path, ...],
    writes: tuple[Path, ...],
) -> ToolCommand:
    """The command with what its key needs to be seen: a file, or an HSM's module with its surroundings."""
    reads = (certified.certificate, *((certified.intermediate,) if certified.intermediate else ()), *reads)
    if isinstance(certified.key, FileKey):
        return ToolCommand(tuple(argv), MappingProxyType(dict(env)), (*reads, certified.key.path), writes)
    pin = (certified.key.pin_source,) if certified.key and certified.key.pin_source else ()
    env = MappingProxyType({**keyset.hsm.environment, **env})
    return ToolCommand(tuple(argv), env, (*reads, *pin, *keyset.hsm.reads), (*writes, *keyset.hsm.writes))
