"""Key pairs of servers in Apple Business and School Manager: the portal encrypts a server's tokens to its certificate.

Apple looks at the key alone. The certificate's dates mean nothing to it, so ours lasts: the same key also signs tokens
of ``com.apple.maid`` (:mod:`mdmlib.apple.maid_token`), for as long as the server is there.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from cryptography.x509.oid import NameOID

from mdmlib.apple.certificates import BACKDATED, key_usage
from mdmlib.errors import BadRequestError

VALIDITY: Final = timedelta(days=3_650)


@dataclass(frozen=True)
class AdeKeyPair:
    """A key, RSA-2048 as the portal wants it, and its self-signed certificate."""

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def new(cls, common_name: str, *, now: datetime, validity: timedelta = VALIDITY) -> Self:
        """Make one. Raises :class:`~mdmlib.errors.BadRequestError` for a name that no certificate can have."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return cls(_certificate(key, _name(common_name), now=now, validity=validity), key)

    @classmethod
    def from_der(cls, certificate: bytes, private_key: bytes) -> Self:
        """Read one that was made here and stored."""
        # Checking the primes anew takes longer than all else that is done with a token.
        key = load_der_private_key(private_key, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("A server's key is no RSA key.")
        return cls(x509.load_der_x509_certificate(certificate), key)

    def certified_anew(self, *, now: datetime) -> Self:
        """Return the same key with a certificate that has not ended: a token for either of them opens with it."""
        return replace(
            self, certificate=_certificate(self.private_key, self.certificate.subject, now=now, validity=VALIDITY)
        )

    @property
    def certificate_der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def private_key_der(self) -> bytes:
        """The key, PKCS #8 DER."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _name(common_name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError as error:
        raise BadRequestError("A certificate's common name has 1 to 64 characters.", field="cn") from error


def _certificate(key: rsa.RSAPrivateKey, name: x509.Name, *, now: datetime, validity: timedelta) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        # Always the same: an envelope names its recipient by issuer and serial number, and which key it is for shows
        # when it is opened.
        .serial_number(1)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(key_usage(digital_signature=True, key_encipherment=True), critical=True)
        .sign(key, hashes.SHA256())
    )
