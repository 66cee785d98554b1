"""Device authorities: whose certificates prove that somebody is a genuine Apple device.

An administrator uploads Apple's; they are public (https://www.apple.com/certificateauthority/). Without them nobody can
tell a device from a program that claims to be one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.device_certificate import DeviceCertificateVerifier, SignedContent, load_authority
from mdmlib.errors import BadRequestError, ForbiddenError, IdentityError
from mdmlib.store.tables import DeviceCertificateAuthority

if TYPE_CHECKING:
    from mdmlib.settings import Settings

_COLLECTION: Final = "device_ca"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEEP: Final = timedelta(minutes=5)
_LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class DeviceAuthorityInfo:
    """What is told of an uploaded authority."""

    name: str
    subject: str
    """RFC 4514."""
    not_after: datetime
    """Of its certificate; it is not asked when devices are verified."""
    sha256: str
    uploaded_at: int
    """Epoch seconds."""


class DeviceAuthorities:
    """The authorities that administrators uploaded, kept for five minutes once they were read."""

    def __init__(self, *, settings: "Settings", now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._kept: tuple[datetime, DeviceCertificateVerifier | None] | None = None

    def check(self, signed: SignedContent) -> None:
        """Accept a content that a genuine device signed.

        Costs no call while the authorities are known, so a forged request costs none either. Raises
        :class:`~mdmlib.errors.IdentityError`, and :class:`~mdmlib.errors.ForbiddenError` while no authority was
        uploaded: then everybody is accepted if ``ADE_UNVERIFIED`` is on, and nobody if not.
        """
        # Whoever has just uploaded the first one does not wait for five minutes.
        verifier = self._verifier(fresh=False) or self._verifier(fresh=True)
        if verifier is None and self._settings.ade_unverified != "on":
            raise ForbiddenError(
                "No device's certificate can be verified: upload Apple's authorities first (picomdm device-ca upload).",
                code="device_authorities_missing",
            )
        if verifier is None:
            return
        try:
            verifier.verify(signed)
        except IdentityError:
            renewed = self._verifier(fresh=True)
            if renewed is None or renewed is verifier:
                raise
            renewed.verify(signed)

    def upload(self, name: str, certificate: bytes) -> DeviceAuthorityInfo:
        """Store an authority's certificate, PEM or DER, in place of the one of the same name.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it.
        """
        if not _NAME.fullmatch(name):
            raise BadRequestError(
                "A name has letters, digits, dots, dashes and underscores, at most 64.",
                code="invalid_field",
                field="name",
            )
        item = DeviceCertificateAuthority(
            _COLLECTION,
            name,
            certificate=load_authority(certificate).public_bytes(Encoding.DER),
            uploaded_at=int(self._now().timestamp()),
        )
        item.save()
        self._kept = None
        return _info(item)

    def list(self) -> list[DeviceAuthorityInfo]:
        """Return all authorities, ordered by name."""
        return [_info(item) for item in DeviceCertificateAuthority.query(_COLLECTION, consistent_read=True)]

    def delete(self, name: str) -> None:
        """Trust an authority no more; one that is not there is no error."""
        DeviceCertificateAuthority(_COLLECTION, name).delete()
        self._kept = None

    def _verifier(self, *, fresh: bool) -> DeviceCertificateVerifier | None:
        now = self._now()
        # Not everybody who sends a forged request may cost a read.
        keep = _LOOK_AGAIN_AFTER if fresh else _KEEP
        if self._kept is None or now - self._kept[0] > keep:
            certificates = [
                x509.load_der_x509_certificate(item.certificate)
                for item in DeviceCertificateAuthority.query(_COLLECTION)
            ]
            self._kept = now, DeviceCertificateVerifier(certificates) if certificates else None
        return self._kept[1]


def _info(item: DeviceCertificateAuthority) -> DeviceAuthorityInfo:
    certificate = x509.load_der_x509_certificate(item.certificate)
    return DeviceAuthorityInfo(
        name=item.name,
        subject=certificate.subject.rfc4514_string(),
        not_after=certificate.not_valid_after_utc.astimezone(UTC),
        sha256=certificate.fingerprint(SHA256()).hex(),
        uploaded_at=int(item.uploaded_at),
    )
