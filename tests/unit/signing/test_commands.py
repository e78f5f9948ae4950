"""The plans for tools, by value: what is run, what it may see, and that no secret is in it. The tools themselves: tests/image."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mamori.formats.problems import MamoriError
from signing.commands import (
    RaucVerb,
    ToolCommand,
    plan_cms_signature,
    plan_cms_verification,
    plan_rauc,
    plan_secure_boot_signature,
    plan_secure_boot_verification,
)
from signing.keyset import Keyset, read_keyset
from signing.uri import parse_key_uri

IN, OUT = Path("/work-in/file"), Path("/work-out/file.signed")


@pytest.fixture
def keyset(keys: Path) -> Keyset:
    return read_keyset(keys / "keyset.toml")


@pytest.fixture
def in_hsm(keys: Path) -> Keyset:
    """The same keys, with db and the signer behind PKCS #11, and an intermediate for the signer."""
    toml = keys / "keyset.toml"
    text = toml.read_text()
    for name, label in (("secure-boot/db", "db"), ("bundle/ca1-signer", "signer")):
        uri = f"pkcs11:token=lab;object={label}?module-path=/usr/lib/hsm.so&pin-source=file:pin"
        text = text.replace(f'"file:{name}.key"', f'"{uri}"')
    text = text.replace(
        'certificate = "bundle/ca1-signer.crt"', 'certificate = "bundle/ca1-signer.crt"\nintermediate = "between.crt"'
    )
    toml.write_text(text + '\n[hsm]\nenvironment = { HSM_CONF = "/etc/hsm.conf" }\nreads = ["hsm.conf"]\nwrites = ["tokens"]\n')
    (keys / "pin").write_text("271828")
    return read_keyset(toml)


def all_signatures(keyset: Keyset) -> list[ToolCommand]:
    return [
        plan_secure_boot_signature(keyset, IN, OUT, 1_700_000_000),
        plan_cms_signature(keyset, IN, OUT),
        plan_rauc(keyset, RaucVerb.BUNDLE, IN, OUT),
        plan_rauc(keyset, RaucVerb.RESIGN, IN, OUT),
    ]


def test_a_file_key_is_read_and_only_the_outputs_folder_is_written(keyset: Keyset) -> None:
    boot, checksums, bundle, resigned = all_signatures(keyset)
    assert {path.name for path in boot.reads} == {"db.crt", "db.key", "file"}
    for command in (boot, checksums, resigned):
        assert command.env == {}
        assert IN in command.reads
        assert command.writes == (OUT.parent,)
    for command in (checksums, resigned, bundle):
        assert {path.name for path in command.reads} - {"file"} == {"ca1-signer.crt", "ca1-signer.key"}
    assert bundle.writes == (IN, OUT.parent), "rauc works inside the content folder"


def test_an_hsm_key_brings_module_pin_file_and_surroundings(in_hsm: Keyset, keys: Path) -> None:
    for command in all_signatures(in_hsm):
        assert command.env["HSM_CONF"] == "/etc/hsm.conf"
        assert {keys / "pin", keys / "hsm.conf"} <= set(command.reads)
        assert keys / "tokens" in command.writes
        assert "/usr/lib/hsm.so" in {*command.argv, *command.env.values()}
        assert not any("module-path" in argument for argument in command.argv)


def test_no_plan_holds_a_pin(in_hsm: Keyset) -> None:
    for command in all_signatures(in_hsm):
        assert "271828" not in str(command)


def test_an_intermediate_goes_into_bundle_signatures_and_not_into_secure_boot(in_hsm: Keyset, keys: Path) -> None:
    boot, *bundle = all_signatures(in_hsm)
    between = keys / "between.crt"
    assert between not in boot.reads
    for command in bundle:
        assert between in command.reads
        assert str(between) in command.argv


def test_every_path_in_a_plan_is_mounted_for_it(in_hsm: Keyset) -> None:
    for command in all_signatures(in_hsm):
        named = {argument for argument in command.argv if argument.startswith("/") and argument != "/usr/lib/hsm.so"}
        for path in map(Path, named):
            assert path in (*command.reads, *command.writes) or path.parent in command.writes, path


def test_the_time_of_a_secure_boot_signature_is_the_callers(keyset: Keyset) -> None:
    argv = plan_secure_boot_signature(keyset, IN, OUT, 1_700_000_000).argv
    assert argv[argv.index("-time") + 1] == "1700000000"


def test_options_for_rauc_stand_before_the_files(keyset: Keyset) -> None:
    argv = plan_rauc(keyset, RaucVerb.BUNDLE, IN, OUT, ["--mksquashfs-args=-reproducible"]).argv
    assert argv[:2] == ("rauc", "bundle")
    assert argv[-3:] == ("--mksquashfs-args=-reproducible", str(IN), str(OUT))


def test_a_moment_for_verification_is_given_in_seconds() -> None:
    at = datetime(1970, 1, 2, tzinfo=UTC)
    assert plan_cms_verification(IN, OUT, Path("/ca.pem"), at).argv[-2:] == ("-attime", "86400")
    assert "-attime" not in plan_cms_verification(IN, OUT, Path("/ca.pem")).argv


def test_verification_writes_nothing() -> None:
    assert plan_cms_verification(IN, OUT, Path("/ca.pem")).writes == ()
    assert plan_secure_boot_verification(Path("/db.crt"), IN).writes == ()


def test_signing_with_a_key_that_stays_in_the_safe_is_refused_by_name(keyset: Keyset) -> None:
    without = dataclasses.replace(keyset, db=dataclasses.replace(keyset.db, key=None))
    with pytest.raises(MamoriError, match=r"secure_boot\.db: .* not its private key"):
        plan_secure_boot_signature(without, IN, OUT, 0)


def test_a_planned_uri_is_one_argument_even_with_spaces(in_hsm: Keyset, keys: Path) -> None:
    uri = "pkcs11:token=My%20HSM;object=db?module-path=/usr/lib/hsm.so&pin-source=file:the%20pin"
    key = parse_key_uri(uri, keys, "keyset.toml", "db.key")
    spaced = dataclasses.replace(in_hsm, db=dataclasses.replace(in_hsm.db, key=key))
    argv = plan_secure_boot_signature(spaced, IN, OUT, 0).argv
    assert f"pkcs11:token=My%20HSM;object=db;type=private?pin-source=file:{keys}/the%20pin" in argv
