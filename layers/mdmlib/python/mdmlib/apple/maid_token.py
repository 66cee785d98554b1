"""The token of ``com.apple.maid``: an organization's own devices may sign in to its Managed Apple Accounts.

Apple's page: https://developer.apple.com/documentation/devicemanagement/get-token. The token is a JWT (RFC 7519) in
compact form, signed with RS256 under the key whose certificate the organization gave to Apple for this server.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from mdmlib.apple.checkin import MAID_SERVICE


def maid_token(key: RSAPrivateKey, *, server_uuid: str, issued_at: datetime, token_id: str) -> bytes:
    """Return a token. Apple takes each ``token_id`` (a random UUID) once, and only soon after ``issued_at``."""
    header = _part({"alg": "RS256", "typ": "JWT"})
    claims: dict[str, str | int] = {
        "iss": server_uuid,
        "iat": int(issued_at.timestamp()),
        "jti": token_id,
        "service_type": MAID_SERVICE,
    }
    signed = header + b"." + _part(claims)
    return signed + b"." + _base64url(key.sign(signed, PKCS1v15(), SHA256()))


def _part(document: Mapping[str, str | int]) -> bytes:
    return _base64url(json.dumps(document, separators=(",", ":")).encode())


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
