"""The token by which devices sign in to Managed Apple Accounts, verified as whoever has the certificate can."""

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from mdmlib.apple.maid_token import maid_token

KEY = generate_private_key(public_exponent=65537, key_size=2048)


def decoded(part: bytes) -> bytes:
    assert b"=" not in part
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def test_a_maid_token_is_a_jwt_with_apples_claims() -> None:
    token = maid_token(KEY, server_uuid="S1", issued_at=datetime(2026, 11, 20, 12, tzinfo=UTC), token_id="T1")

    header, claims, signature = token.split(b".")
    assert json.loads(decoded(header)) == {"alg": "RS256", "typ": "JWT"}
    assert json.loads(decoded(claims)) == {
        "iss": "S1",
        "iat": 1_795_176_000,
        "jti": "T1",
        "service_type": "com.apple.maid",
    }
    KEY.public_key().verify(decoded(signature), header + b"." + claims, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(decoded(signature), header + b".e30", PKCS1v15(), SHA256())
