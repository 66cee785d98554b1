"""Server tokens of Apple Business and School Manager: what the portal lets an administrator download.

The file is S/MIME: a MIME message whose body is a CMS envelope for the certificate that was uploaded, in which another
MIME message has the token's JSON between two lines of dashes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mdmlib.apple.cms_envelope import EnvelopedData
from mdmlib.errors import BadRequestError, MalformedBodyError

LONGEST_FILE: Final = 64 * 1024

_MESSAGE: Final = re.compile(rb"-----BEGIN MESSAGE-----(.*?)-----END MESSAGE-----", re.DOTALL)
_DER: Final = b"\x30"


@dataclass(frozen=True, kw_only=True)
class AdeToken:
    """Who may ask Apple about a server's devices, and until when. Nothing of it but the expiry is for people's eyes."""

    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    access_token: str = field(repr=False)
    access_secret: str = field(repr=False)
    access_token_expiry: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a token as Apple's JSON has it. Raises :class:`~mdmlib.errors.MalformedBodyError` with ``field``."""
        texts: dict[str, str] = {}
        for name in ("consumer_key", "consumer_secret", "access_token", "access_secret", "access_token_expiry"):
            value = document.get(name)
            if not isinstance(value, str) or not value:
                raise MalformedBodyError(f"The token has no {name}.", field=name)
            texts[name] = value
        try:
            expiry = datetime.fromisoformat(texts.pop("access_token_expiry"))
        except ValueError as error:
            raise MalformedBodyError(
                "The token's access_token_expiry is no time in RFC 3339.", field="access_token_expiry"
            ) from error
        return cls(**texts, access_token_expiry=expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC))

    def document(self) -> dict[str, str]:
        """Return the token as Apple's JSON has it."""
        expiry = self.access_token_expiry.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return asdict(self) | {"access_token_expiry": expiry}


def open_token_file(file: bytes, *, certificate: x509.Certificate, private_key: rsa.RSAPrivateKey) -> AdeToken:
    """Return the token in a file from Apple's portal, or in the envelope that is its body.

    Raises :class:`~mdmlib.errors.BadRequestError` with the code ``token_for_another_key`` when the file was made for
    another certificate, and :class:`~mdmlib.errors.MalformedBodyError` for what is no such file.
    """
    if len(file) > LONGEST_FILE:
        raise MalformedBodyError("The token's file is too long to be one.")
    envelope = EnvelopedData.decode(_envelope(file))
    another = BadRequestError(
        "The token was made for another certificate: upload this server's present one in Apple's portal, and download "
        "the token again.",
        code="token_for_another_key",
    )
    try:
        opened = envelope.open(certificate, private_key)
    except BadRequestError as error:
        if error.code != "recipient_unknown":
            raise
        raise another from error
    # Certificates of ours look alike: the key alone may be another one, and what it decrypts to is noise.
    message = _MESSAGE.search(opened)
    if message is None:
        raise another
    try:
        document = json.loads(b"".join(message[1].split(b"\n")).replace(b"\r", b""))
    except ValueError:
        # No cause: the decoder's error would show the token.
        raise MalformedBodyError("The token is no JSON.") from None
    if not isinstance(document, dict):
        raise MalformedBodyError("The token is JSON, but no object.")
    return AdeToken.from_document(document)


def _envelope(file: bytes) -> bytes:
    if file.startswith(_DER):
        return file
    body = message_from_bytes(file).get_payload(decode=True)
    if not isinstance(body, bytes) or not body.startswith(_DER):
        raise MalformedBodyError("This is no token of Apple's portal: a file that ends in .p7m is expected.")
    return body
