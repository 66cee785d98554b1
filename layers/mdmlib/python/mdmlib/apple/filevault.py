"""FileVault: the profile that turns it on and escrows its key, and the keys that Macs encrypt for us.

Apple's pages: com.apple.security.FDERecoveryKeyEscrow and com.apple.MCX.FileVault2 among the payloads, SecurityInfo and
RotateFileVaultKey among the commands.
"""

import re
import uuid
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mdmlib.apple import plist
from mdmlib.apple.cms_envelope import EnvelopedData
from mdmlib.errors import BadRequestError

PROFILE_IDENTIFIER: Final = "io.micromdm.wf.fvenable.v1.profile"
"""NanoCMD's, so that Macs that have it from there keep it."""

COMMON_NAME: Final = "filevault"

_DAYS: Final = 3_650
_NAMESPACE: Final = uuid.UUID("4e1c1f0a-9d67-5f3d-8f55-1a7d0b8f3b11")
_RECOVERY_KEY: Final = re.compile(rb"[A-Z0-9]{4}(?:-[A-Z0-9]{4}){5}")


def new_identity(now: datetime) -> tuple[bytes, bytes]:
    """Return a certificate (DER) and its private key (PKCS #8 DER)."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=10))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return (
        certificate.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )


def profile(certificate: bytes, *, organization: str) -> bytes:
    """Return the profile: FileVault is turned on at the next log-in, its key encrypted for ``certificate`` (DER).

    The same certificate makes the same profile.
    """

    def payload(kind: str, name: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - values of a payload
        return {
            "PayloadType": kind,
            "PayloadIdentifier": f"{PROFILE_IDENTIFIER}.{name}",
            "PayloadUUID": _uuid(certificate, name),
            "PayloadVersion": 1,
            **fields,
        }

    return plist.dumps(
        {
            **payload("Configuration", "profile"),
            "PayloadIdentifier": PROFILE_IDENTIFIER,
            "PayloadDisplayName": "FileVault",
            "PayloadOrganization": organization,
            "PayloadScope": "System",
            "PayloadContent": [
                payload(
                    "com.apple.security.FDERecoveryKeyEscrow",
                    "escrow",
                    Location=organization,
                    EncryptCertPayloadUUID=_uuid(certificate, "certificate"),
                ),
                payload(
                    "com.apple.MCX.FileVault2",
                    "filevault",
                    Enable="On",
                    Defer=True,
                    DeferForceAtUserLoginMaxBypassAttempts=0,
                    ShowRecoveryKey=False,
                ),
                payload("com.apple.security.pkcs1", "certificate", PayloadContent=certificate),
            ],
        }
    )


def recovery_key(envelope: bytes, certificate: bytes, private_key: rsa.RSAPrivateKey) -> str:
    """Return the recovery key in an envelope for us. Raises :class:`~mdmlib.errors.BadRequestError`."""
    opened = EnvelopedData.decode(envelope).open(x509.load_der_x509_certificate(certificate), private_key)
    # With another key than ours it is noise; an answer to a rotation has a property list around it.
    found = _RECOVERY_KEY.search(opened)
    if found is None:
        raise BadRequestError("There is no recovery key in the envelope.", code="no_recovery_key")
    return found[0].decode()


def _uuid(certificate: bytes, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{name}\n{certificate.hex()}")).upper()
