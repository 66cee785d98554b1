"""Who a device is: the certificate that it signed with, and the enrollment that this certificate belongs to.

Two steps, never one: :class:`DeviceIdentity` proves that a request was signed by a certificate of a CA that we trust;
:func:`role_of` says what that certificate may do for an enrollment.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from cryptography import x509

from mdmlib.apple.cms import decode_mdm_signature, verify_detached
from mdmlib.apple.identity import IdentityVerifier, VerifiedCertificate
from mdmlib.errors import IdentityError
from mdmlib.store.tables import CertificateAuthority, Enrollment

_KEEP: Final = timedelta(minutes=5)
_LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)


class DeviceIdentity:
    """Proves the identity of requests against the CAs in the resource table, which are kept for five minutes."""

    def __init__(self, *, grace: timedelta, now: Callable[[], datetime]) -> None:
        self._grace = grace
        self._now = now
        self._verifier: IdentityVerifier | None = None
        self._read_at = now()

    def prove(self, mdm_signature: str | None, body: bytes) -> VerifiedCertificate:
        """Return the certificate that ``body`` was signed with.

        Costs no call while the CAs are known, so a forged request costs none either. Raises
        :class:`~mdmlib.errors.IdentityError`.
        """
        if not mdm_signature:
            raise IdentityError("The request has no Mdm-Signature header.", code="signature_missing")
        signer = verify_detached(decode_mdm_signature(mdm_signature), body)
        now = self._now()
        if self._verifier is None or now - self._read_at > _KEEP:
            self._verifier = self._read_authorities()
        try:
            return self._verifier.verify(signer, at=now)
        except IdentityError:
            # It may be of a CA that was made or uploaded since; not everybody who asks may cost a read.
            if now - self._read_at <= _LOOK_AGAIN_AFTER:
                raise
            self._verifier = self._read_authorities()
            return self._verifier.verify(signer, at=now)

    def _read_authorities(self) -> IdentityVerifier:
        self._read_at = self._now()
        return IdentityVerifier(
            [x509.load_der_x509_certificate(authority.certificate) for authority in CertificateAuthority.query("ca")],
            grace=self._grace,
        )


class Role(Enum):
    """What a certificate may do for an enrollment."""

    CURRENT = auto()
    """Everything."""
    RENEWED = auto()
    """Everything, too: a renewal issued it, and this is its first use."""
    PREVIOUS = auto()
    """Replaced a short while ago: it may report results of commands, and nothing else."""


def role_of(certificate: VerifiedCertificate, device: Enrollment | None, *, at: datetime) -> Role:
    """Say what ``certificate`` may do for the device's enrollment, or raise IdentityError.

    ``device`` is the record of the device channel, also for messages of a user channel.
    """
    if device is None:
        raise IdentityError("The enrollment is unknown.", code="unknown_enrollment")
    if certificate.hash == device.identity:
        return Role.CURRENT
    if certificate.hash in (device.renewed_identities or ()):
        return Role.RENEWED
    if certificate.hash == device.previous_identity and at.timestamp() < (device.previous_identity_until or 0):
        return Role.PREVIOUS
    raise IdentityError("The certificate is not associated with the enrollment.", code="certificate_not_associated")
