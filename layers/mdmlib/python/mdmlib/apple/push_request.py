"""The road to a push certificate: a request for one, and what an MDM vendor makes of it for Apple's portal.

Apple's Push Certificates Portal (identity.apple.com) takes no plain request (PKCS #10), but one that an MDM vendor has
vouched for: base64 of a property list with the request, the vendor's signature over it, and the vendor's certificates
up to Apple's root. https://developer.apple.com/documentation/devicemanagement/setting-up-push-notifications-for-your-mdm-customers
"""

import plistlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from mdmlib.apple.certificates import BACKDATED, pem_blocks, spki
from mdmlib.apple.cms_envelope import EnvelopedData
from mdmlib.errors import BadRequestError, MalformedBodyError

MAX_BYTES: Final = 64 * 1024

_CERTIFICATE_VALIDITY: Final = timedelta(days=365)
_HEX: Final = re.compile(rb"[0-9A-Fa-f\s]+")
_DER: Final = 0x30


@dataclass(frozen=True)
class PushRequest:
    """A key that nobody has a certificate for yet."""

    csr: x509.CertificateSigningRequest
    private_key: rsa.RSAPrivateKey = field(repr=False)
    certificate: x509.Certificate
    """Self-signed, for those who answer with an envelope (mdmcert.download). Apple sees nothing of it."""

    @classmethod
    def new(cls, *, common_name: str, email: str, country: str | None, now: datetime) -> Self:
        """Make a key, RSA-2048 as the portal wants it, and a request for a certificate of it."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        attributes = [(NameOID.COMMON_NAME, common_name), (NameOID.EMAIL_ADDRESS, email)]
        if country:
            attributes.insert(0, (NameOID.COUNTRY_NAME, country))
        try:
            subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        except ValueError as error:
            raise BadRequestError(f"The request's subject is none: {error}.", code="invalid_subject") from error
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + _CERTIFICATE_VALIDITY)
            .sign(key, hashes.SHA256())
        )
        return cls(csr, key, certificate)


@dataclass(frozen=True)
class VendorIdentity:
    """An MDM vendor's certificate from Apple, its key, and the certificates above it."""

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey = field(repr=False)
    chain: Sequence[x509.Certificate]
    """From the certificate's issuer up to the root."""

    @classmethod
    def decode(cls, pem: bytes, password: str | None, *, at: datetime) -> Self:
        """Read it from PEM blocks in any order: the vendor's certificate, its key, and Apple's above it.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong: Apple's portal would say less.
        """
        blocks = pem_blocks(pem)
        keys = [block for label, block in blocks if label.endswith("PRIVATE KEY")]
        if len(keys) != 1:
            raise BadRequestError("There has to be one private key, the vendor's.", code="private_key_missing")
        try:
            certificates = [x509.load_pem_x509_certificate(block) for label, block in blocks if label == "CERTIFICATE"]
            key = load_pem_private_key(keys[0], password.encode() if password else None)
        except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError) as error:
            raise BadRequestError(
                "The vendor's certificates or key cannot be read, or the key's password is another one.",
                code="vendor_unreadable",
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise BadRequestError("A vendor's key is RSA.", code="key_unsupported")
        own = [each for each in certificates if spki(each.public_key()) == spki(key.public_key())]
        if not own:
            raise BadRequestError(
                "The private key is not the one of any of these certificates.",
                code="private_key_of_another_certificate",
            )
        certificate = max(own, key=lambda each: each.not_valid_after_utc)
        chain = _chain(certificate, certificates)
        for each in (certificate, *chain):
            if not each.not_valid_before_utc <= at <= each.not_valid_after_utc:
                raise BadRequestError(
                    f"The certificate {each.subject.rfc4514_string()} is not valid now, but until "
                    f"{each.not_valid_after_utc:%Y-%m-%d}; Apple's portal would refuse the request.",
                    code="certificate_expired",
                )
        return cls(certificate, key, chain)

    def sign(self, csr: x509.CertificateSigningRequest) -> bytes:
        """Vouch for a customer's request; return what Apple's portal takes."""
        der = csr.public_bytes(Encoding.DER)
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in (self.certificate, *self.chain))
        signature = self.private_key.sign(der, padding.PKCS1v15(), hashes.SHA256())
        document = {
            "PushCertRequestCSR": b64encode(der).decode(),
            "PushCertCertificateChain": chain.decode(),
            "PushCertSignature": b64encode(signature).decode(),
        }
        return b64encode(plistlib.dumps(document))


def decode_push_csr(csr: bytes) -> x509.CertificateSigningRequest:
    """Read a customer's request, PEM or DER. Raises :class:`~mdmlib.errors.BadRequestError`."""
    try:
        load = x509.load_der_x509_csr if csr[:1] == bytes([_DER]) else x509.load_pem_x509_csr
        request = load(csr)
        key = request.public_key()
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
        raise MalformedBodyError("The certificate request cannot be read.", field="csr") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise BadRequestError("A push certificate's key has to be RSA.", code="key_unsupported", field="csr")
    if not request.is_signature_valid:
        raise BadRequestError(
            "The request is not signed by the key that it is for.", code="signature_invalid", field="csr"
        )
    return request


def open_vouched_request(answer: bytes, request: PushRequest) -> bytes:
    """Return what mdmcert.download has made of a request, from the file that it mails: an envelope, in hex or DER.

    Raises :class:`~mdmlib.errors.BadRequestError`.
    """
    der = answer
    if _HEX.fullmatch(answer):
        try:
            der = bytes.fromhex(answer.decode())
        except ValueError as error:
            raise MalformedBodyError("The answer is no hexadecimal text of whole bytes.") from error
    opened = EnvelopedData.decode(der).open(request.certificate, request.private_key)
    if not opened.isascii() or not opened.strip():
        raise BadRequestError("The answer is for another request.", code="recipient_unknown")
    return opened


def _chain(certificate: x509.Certificate, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates above one, up to a root."""
    chain: list[x509.Certificate] = []
    current = certificate
    while current.issuer != current.subject:
        above = next((each for each in certificates if _issued(each, current)), None)
        if above is None or above in chain:
            raise BadRequestError(
                f"The certificate of {current.issuer.rfc4514_string()} is missing, which issued "
                f"{current.subject.rfc4514_string()}; Apple has it at https://www.apple.com/certificateauthority/.",
                code="chain_incomplete",
            )
        chain.append(above)
        current = above
    return chain


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
