"""FileVault as a Mac has it: who may read its recovery key, and a new one for whoever knows the old one.

Its user is somebody who logs out as soon as a profile asks for FileVault, and agrees.
"""

import secrets
import string
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from local.device.configuration_profile import ConfigurationProfile

_ESCROW: Final = "com.apple.security.FDERecoveryKeyEscrow"
_FILEVAULT: Final = "com.apple.MCX.FileVault2"
_ALPHABET: Final = string.ascii_uppercase + string.digits


class FileVault:
    """A disk, encrypted or not."""

    def __init__(self) -> None:
        self.recovery_key: str | None = None
        """The personal one; None while nothing is encrypted."""
        self._escrow: bytes | None = None

    def heed(self, profile: ConfigurationProfile) -> None:
        """Do what a profile that was installed asks for."""
        wanted = any(payload.get("Enable") == "On" for payload in profile.of_type(_FILEVAULT))
        for payload in profile.of_type(_ESCROW):
            reader = payload.get("EncryptCertPayloadUUID")
            certificates = (one.get("PayloadContent") for one in profile.payloads if one["PayloadUUID"] == reader)
            self._escrow = next((der for der in certificates if isinstance(der, bytes)), None)
        if wanted and self.recovery_key is None:
            self.recovery_key = _new_key()

    def security_info(self) -> dict[str, Any]:
        """Return what SecurityInfo says of it."""
        is_on = self.recovery_key is not None
        told: dict[str, Any] = {
            "FDE_Enabled": is_on,
            "FDE_HasPersonalRecoveryKey": is_on,
            "FDE_HasInstitutionalRecoveryKey": False,
        }
        if self.recovery_key is not None and self._escrow is not None:
            told["FDE_PersonalRecoveryKeyCMS"] = _enveloped(self.recovery_key, self._escrow)
        return told

    def rotate(self, fields: Mapping[str, Any]) -> bytes | None:
        """Make another key for whoever knows the present one, and return it, encrypted; None: they do not."""
        match fields:
            case {
                "KeyType": "personal",
                "FileVaultUnlock": {"Password": str(password)},
                "ReplyEncryptionCertificate": bytes(certificate),
            } if self.recovery_key is not None and password == self.recovery_key:
                self.recovery_key = _new_key()
                return _enveloped(self.recovery_key, certificate)
        return None


def _new_key() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(6))


def _enveloped(key: str, certificate: bytes) -> bytes:
    reader = x509.load_der_x509_certificate(certificate)
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(key.encode()).add_recipient(reader)
    return builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
