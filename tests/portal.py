"""Apple's Push Certificates Portal, as far as tests need it."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mdmlib.apple.certificates import issue, new_certificate_authority
from tests.scep_client import rsa_key


def push_certificate(topic: str) -> bytes:
    """Return a push certificate and its key, as an administrator uploads them."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    key = rsa_key("push")
    subject = x509.Name([x509.NameAttribute(NameOID.USER_ID, topic)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificate = issue(csr, ca=new_certificate_authority("Apple", now=now), now=now, days=365)
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private_key
