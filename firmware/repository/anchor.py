"""The root metadata that images carry, and that every appliance starts from: the file `root.json` beside the keyset.

It belongs to the keyset and not to one repository's folder: images can be built before there is a repository, and every repository
of the keyset starts with it. After a rotation it is the newest root, so that new images start there.
"""

from __future__ import annotations

from pathlib import Path

from tuf.api.metadata import Metadata, Root

from firmware.repository.roles import make_root
from firmware.repository.store import SERIALIZER, RepositoryFilesError, read_root, write_whole
from mamori.formats.problems import MamoriError
from signing.keyset import Keyset
from signing.tuf import read_role_keys, signers_at_hand

ROOT_FILE = "root.json"


def prepare_anchor(keyset: Keyset, now: int) -> bytes:
    """The root metadata of the keyset. Where there is none it is made; MamoriError if too few root keys are at hand for that."""
    found = read_anchor(keyset)
    if found is not None:
        return found
    made = Metadata(make_root(read_role_keys(keyset), now))
    for signer in signers_at_hand(keyset, "root"):
        made.sign(signer, append=True)
    result = made.signed.get_verification_result("root", made.signed_bytes, made.signatures)
    if not result.verified:
        has = f"{len(result.signed)} of {result.threshold} root keys are at hand"
        raise MamoriError(
            f"{anchor_path(keyset)}: expected the TUF root metadata of this keyset, and there is none",
            f"{has}; `./inv repo init` and `./inv repo sign` make it in sittings",
        )
    keep_anchor(keyset, made)
    return made.to_bytes(SERIALIZER)


def read_anchor(keyset: Keyset) -> bytes | None:
    """The keyset's root metadata, None when it has none yet; MamoriError for a file that is something else."""
    path = anchor_path(keyset)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RepositoryFilesError(f"{path}: {error.strerror}") from None
    read_root(content, str(path))
    return content


def keep_anchor(keyset: Keyset, root: Metadata[Root]) -> bool:
    """Let new images start from this root, unless they start from a later one already. Whether the file was changed."""
    found = read_anchor(keyset)
    path = anchor_path(keyset)
    if found is not None and read_root(found, str(path)).signed.version >= root.signed.version:
        return False
    write_whole(path, root.to_bytes(SERIALIZER))
    return True


def anchor_path(keyset: Keyset) -> Path:
    """Beside the keyset file, where its public halves are."""
    return keyset.path.resolve().parent / ROOT_FILE
