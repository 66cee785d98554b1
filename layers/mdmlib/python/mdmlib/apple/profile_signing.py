"""Signing profiles, so that a device shows whom they are from instead of "not signed".

A signed ``.mobileconfig`` is a SignedData around the plist (RFC 5652, section 5), with the signer's certificate and
those between it and a root that the device trusts.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from mdmlib.apple.certificates import spki
from mdmlib.errors import BadRequestError

_MAX_CHAIN: Final = 5
_KEY_LABELS: Final = (b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY")


@dataclass(frozen=True)
class SigningIdentity:
    """A certificate, its private key, and the certificates of the authorities above it."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def decode(cls, pem: bytes) -> Self:
        """Read certificates and one unencrypted private key from PEM blocks in any order.

        The certificate of the key is the signer's, all others are the chain. Raises
        :class:`~mdmlib.errors.BadRequestError` with what is wrong.
        """
        if b"ENCRYPTED" in pem:
            raise BadRequestError("The private key is encrypted; decrypt it first.", code="private_key_encrypted")
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
            raise BadRequestError(
                "There is no certificate in the PEM, or one that cannot be read.", code="certificate_unreadable"
            ) from error
        key = _private_key(pem)
        public = spki(key.public_key())
        try:
            own = [certificate for certificate in certificates if spki(certificate.public_key()) == public]
        except (UnsupportedAlgorithm, ValueError) as error:
            raise BadRequestError("A certificate cannot be read.", code="certificate_unreadable") from error
        if not own:
            raise BadRequestError(
                "The private key is not the one of any of these certificates.",
                code="private_key_of_another_certificate",
            )
        chain = [certificate for certificate in certificates if certificate != own[0]]
        if len(chain) > _MAX_CHAIN:
            raise BadRequestError(f"There are more than {_MAX_CHAIN} certificates in the chain.", code="chain_too_long")
        return cls(own[0], tuple(chain), key)

    @property
    def not_after(self) -> datetime:
        """Until when the certificate is good. Devices show what was signed with it as unverified afterwards."""
        return self.certificate.not_valid_after_utc

    @property
    def certificates_pem(self) -> bytes:
        """The signer's certificate, followed by its chain."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in (self.certificate, *self.chain))

    @property
    def private_key_pem(self) -> bytes:
        """The private key as PKCS #8, unencrypted."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, profile: bytes) -> bytes:
        """Return the signed profile, DER, with the plist inside as it was given."""
        builder = PKCS7SignatureBuilder().set_data(profile).add_signer(self.certificate, self.private_key, SHA256())
        for certificate in self.chain:
            builder = builder.add_certificate(certificate)
        return builder.sign(Encoding.DER, [PKCS7Options.Binary, PKCS7Options.NoCapabilities])


def _private_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    for label in _KEY_LABELS:
        begin, end = b"-----BEGIN " + label + b"-----", b"-----END " + label + b"-----"
        _, found, rest = pem.partition(begin)
        if not found:
            continue
        try:
            key = load_pem_private_key(begin + rest.partition(end)[0] + end, password=None)
        except (UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise BadRequestError("The private key cannot be read.", code="private_key_unreadable") from error
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            return key
        raise BadRequestError("The private key is neither RSA nor of an elliptic curve.", code="key_unsupported")
    raise BadRequestError("There is no private key in the PEM.", code="private_key_missing")
