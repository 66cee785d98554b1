"""Apple's Push Certificates Portal and its programme for MDM vendors, as strict as they are.

https://developer.apple.com/documentation/devicemanagement/setting-up-push-notifications-for-your-mdm-customers
"""

import base64
import plistlib
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_TOPIC: Final = "com.apple.mgmt.External."
_KEYS: Final = frozenset({"PushCertRequestCSR", "PushCertCertificateChain", "PushCertSignature"})
_CHAIN_LENGTH: Final = 3
_RSA_BITS: Final = 2048


class PortalError(Exception):
    """The portal does not take the request."""


class PushPortal:
    """The authorities above vendors' certificates, and the one that issues push certificates."""

    def __init__(self) -> None:
        self._root_key = _new_key()
        self._root = _certificate("Simulated Apple Root CA", self._root_key, "Simulated Apple Root CA", self._root_key)
        self._wwdr_key = _new_key()
        self._wwdr = _certificate("Simulated WWDR CA", self._wwdr_key, "Simulated Apple Root CA", self._root_key)

    @property
    def chain(self) -> bytes:
        """Apple's certificates above vendors', PEM: the intermediate, then the root."""
        return self._wwdr.public_bytes(Encoding.PEM) + self._root.public_bytes(Encoding.PEM)

    def issue_vendor(self, name: str, *, days: int = 365) -> bytes:
        """Return a vendor's certificate and its key, PEM; ``days`` of 0 or less give one that has ended."""
        key = _new_key()
        certificate = _certificate(f"MDM Vendor: {name}", key, "Simulated WWDR CA", self._wwdr_key, days=days)
        private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM) + private_key

    def issue(self, push_request: bytes, *, topic: str) -> bytes:
        """Return the push certificate, PEM, for what somebody uploads. Raises :class:`PortalError`."""
        try:
            document = plistlib.loads(base64.b64decode(push_request, validate=True))
            csr_der = base64.b64decode(document["PushCertRequestCSR"], validate=True)
            signature = base64.b64decode(document["PushCertSignature"], validate=True)
            chain = x509.load_pem_x509_certificates(document["PushCertCertificateChain"].encode())
            csr = x509.load_der_x509_csr(csr_der)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            plistlib.InvalidFileException,
        ) as error:
            raise PortalError("Invalid certificate signing request.") from error
        if document.keys() != _KEYS:
            raise PortalError("The request has other keys than it should.")
        self._check_chain(chain)
        vendor_key = chain[0].public_key()
        if not isinstance(vendor_key, rsa.RSAPublicKey):
            raise PortalError("The vendor's key is no RSA key.")
        try:
            vendor_key.verify(signature, csr_der, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as error:
            raise PortalError("The vendor's signature is not over this request.") from error
        key = csr.public_key()
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _RSA_BITS or not csr.is_signature_valid:
            raise PortalError("The request is not signed by an RSA key of 2,048 bits that it is for.")
        if not topic.startswith(_TOPIC):
            raise PortalError(f"A topic begins with {_TOPIC}")
        return self._push_certificate(key, topic)

    def _check_chain(self, chain: list[x509.Certificate]) -> None:
        if len(chain) != _CHAIN_LENGTH or chain[2] != self._root:
            raise PortalError("The chain does not lead from the vendor to Apple's root.")
        now = datetime.now(UTC)
        for certificate, issuer in zip(chain, (*chain[1:], chain[2]), strict=True):
            try:
                certificate.verify_directly_issued_by(issuer)
            except (InvalidSignature, ValueError, TypeError) as error:
                raise PortalError("The chain is not in order.") from error
            if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                raise PortalError("A certificate of the chain has ended.")

    def _push_certificate(self, key: rsa.RSAPublicKey, topic: str) -> bytes:
        now = datetime.now(UTC)
        subject = x509.Name(
            [x509.NameAttribute(NameOID.USER_ID, topic), x509.NameAttribute(NameOID.COMMON_NAME, f"APSP:{topic[24:]}")]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._wwdr.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=365))
            .sign(self._wwdr_key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, days: int = 365
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days - 1 if days <= 0 else days))
        .sign(issuer_key, hashes.SHA256())
    )
