"""The portal: servers, and the tokens that it gives for their certificates."""

import base64
import json
import secrets
import textwrap
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from local.ade.oauth import Token
from local.device.envelope import seal

_DAY: Final = 86_400
_LINE: Final = 76
_MESSAGE_LINE: Final = 64


class CertificateRefusedError(Exception):
    """The portal takes certificates of RSA keys with 2,048 bits or more."""


def new_token(*, days: float) -> Token:
    """Return a token for a new server."""
    return Token(
        consumer_key=f"CK_{secrets.token_hex(20)}",
        consumer_secret=f"CS_{secrets.token_hex(20)}",
        access_token=f"AT_{secrets.token_hex(30)}",
        access_secret=f"AS_{secrets.token_hex(20)}",
        expires_at=time.time() + days * _DAY,
    )


def renewed(token: Token, *, days: float) -> Token:
    """Return the token that follows: of the same consumer."""
    fresh = new_token(days=days)
    return replace(fresh, consumer_key=token.consumer_key, consumer_secret=token.consumer_secret)


def token_file(token: Token, certificate_pem: str) -> bytes:
    """Return the file that people download: S/MIME, encrypted to the certificate that they uploaded."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError as error:
        raise CertificateRefusedError("This is no certificate in PEM.") from error
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:  # noqa: PLR2004 - the portal's limit
        raise CertificateRefusedError("The certificate's key is not RSA, or too short.")
    document = json.dumps(
        {
            "consumer_key": token.consumer_key,
            "consumer_secret": token.consumer_secret,
            "access_token": token.access_token,
            "access_secret": token.access_secret,
            "access_token_expiry": datetime.fromtimestamp(token.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    # Broken into lines wherever they are full, as Apple's are.
    lines = [document[start : start + _MESSAGE_LINE] for start in range(0, len(document), _MESSAGE_LINE)]
    message = "\r\n".join(
        [
            "Content-Type: text/plain;charset=UTF-8",
            "Content-Transfer-Encoding: 7bit",
            "",
            "-----BEGIN MESSAGE-----",
            *lines,
            "-----END MESSAGE-----",
            "",
        ]
    )
    envelope = base64.b64encode(seal(message.encode(), certificate, cipher="3des")).decode()
    return "\r\n".join(
        [
            'Content-Type: application/pkcs7-mime; name="smime.p7m"; smime-type=enveloped-data',
            "Content-Transfer-Encoding: base64",
            'Content-Disposition: attachment; filename="smime.p7m"',
            "Content-Description: S/MIME Encrypted Message",
            "",
            *textwrap.wrap(envelope, _LINE),
            "",
        ]
    ).encode()
