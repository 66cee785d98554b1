"""A device at the functions' door: a real certificate of a real CA, and requests that it signed."""

import hashlib
import plistlib
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from mdmlib.apple.certificates import CaIdentity, issue, new_certificate_authority
from mdmlib.store import tables
from tests.gateway import http_event

CHECKIN_TYPE = "application/x-apple-aspen-mdm-checkin"
CONNECT_TYPE = "application/x-apple-aspen-mdm"
TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"


def trusted_authority(organization: str = "Tests") -> CaIdentity:
    """Make a CA and let the deployment trust it, as the SCEP CA is trusted."""
    ca = new_certificate_authority(organization, now=datetime.now(UTC))
    certificate = ca.certificate.public_bytes(Encoding.DER)
    tables.CertificateAuthority("ca", "scep", certificate=certificate, created_at=0).save()
    return ca


class SignedDevice:
    """A device's certificate and key, and the gateway's events of the requests that it signs."""

    def __init__(self, ca: CaIdentity, udid: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, udid)]))
            .sign(key, SHA256())
        )
        self._have(udid, issue(csr, ca=ca, now=datetime.now(UTC), days=365), key)

    @classmethod
    def with_identity(
        cls, udid: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey, *, is_user_enrollment: bool = False
    ) -> Self:
        """Return the device that has this identity; ``udid`` is the EnrollmentID of a User Enrollment."""
        device = cls.__new__(cls)
        device._have(udid, certificate, key, is_user_enrollment=is_user_enrollment)
        return device

    def _have(
        self, udid: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey, *, is_user_enrollment: bool = False
    ) -> None:
        self.udid, self._certificate, self._key = udid, certificate, key
        self._id_key = "EnrollmentID" if is_user_enrollment else "UDID"

    @property
    def der(self) -> bytes:
        """Its certificate."""
        return self._certificate.public_bytes(Encoding.DER)

    @property
    def sha256(self) -> str:
        """What its certificate is known by."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def pem(self) -> str:
        """Its certificate, as proxies and API Gateway tell of it."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    def sign(self, body: bytes) -> str:
        """Return the ``Mdm-Signature`` of a body."""
        signature = (
            PKCS7SignatureBuilder()
            .set_data(body)
            .add_signer(self._certificate, self._key, SHA256())
            .sign(Encoding.DER, [PKCS7Options.DetachedSignature, PKCS7Options.Binary])
        )
        return b64encode(signature).decode()

    def put(self, path: str, body: bytes, *, content_type: str = CONNECT_TYPE) -> dict[str, Any]:
        """Return the event of a signed PUT of this body."""
        return http_event("PUT", path, body, headers={"Content-Type": content_type, "Mdm-Signature": self.sign(body)})

    def checkin(self, message_type: str, **fields: Any) -> dict[str, Any]:
        """Return the event of a check-in message."""
        message = {"MessageType": message_type, self._id_key: self.udid, "Topic": TOPIC, **fields}
        return self.put("/mdm/checkin", plistlib.dumps(message), content_type=CHECKIN_TYPE)

    def report(self, status: str, uuid: str | None = None, **fields: Any) -> dict[str, Any]:
        """Return the event of a command report."""
        named = {"CommandUUID": uuid} if uuid else {}
        return self.put("/mdm/connect", plistlib.dumps({"Status": status, self._id_key: self.udid, **named, **fields}))
