"""A signer with a token's key comes from a keyset, and from nowhere else."""

from __future__ import annotations

import pytest

from signing.tuf import TokenSigner
from tests.support.repository import make_signer


def test_a_uri_alone_makes_no_signer_and_the_error_says_what_does() -> None:
    with pytest.raises(ValueError, match=r"pkcs11:token=x: .*signers_at_hand"):
        TokenSigner.from_priv_key_uri("pkcs11:token=x", make_signer().public_key)
