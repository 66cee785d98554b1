"""Who a device is: the certificate that it signed with, and the enrollment that this certificate belongs to.

Two steps, never one: :class:`DeviceIdentity` proves that whoever sent a request holds a certificate of a CA that we
trust; :func:`role_of` says what that certificate may do for an enrollment.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from cryptography import x509

from mdmlib.apple.cms import SignerCertificate, decode_mdm_signature, verify_detached
from mdmlib.apple.identity import IdentityVerifier, VerifiedCertificate
from mdmlib.errors import IdentityError
from mdmlib.services.certificate_header import decode_certificate_header, decode_pem
from mdmlib.settings import Settings
from mdmlib.store.tables import CertificateAuthority, Enrollment

PROXY_SECRET_HEADER: Final = "x-picomdm-proxy-secret"  # noqa: S105 - the name of a header
_SIGNATURE_HEADER: Final = "mdm-signature"

_KEEP: Final = timedelta(minutes=5)
_LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a request brings that may prove who sent it."""

    body: bytes = field(repr=False)
    """Exact to the byte: a signature is over it."""
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case. Everything in them may be made up."""
    tls_certificate: str | None = field(repr=False, default=None)
    """PEM of the certificate of a client that API Gateway itself has spoken mutual TLS with."""


class DeviceIdentity:
    """Proves the identity of requests against the CAs in the resource table, which are kept for five minutes.

    What proves it is for the deployment to say (``IDENTITY``), and nothing else counts. Of several, the first that a
    request brings decides, even if it brings another one that would do: mutual TLS, a proxy's certificate header, the
    signature of the message.
    """

    def __init__(self, *, settings: Settings, now: Callable[[], datetime]) -> None:
        self._settings = settings
        holders = {"mtls": self._of_tls, "header": self._of_proxy, "signature": self._of_signature}
        self._holders = [holder for method, holder in holders.items() if method in settings.identity_methods]
        self._now = now
        self._verifier: IdentityVerifier | None = None
        self._read_at = now()

    def prove(self, evidence: Evidence) -> VerifiedCertificate:
        """Return the certificate of who sent a request.

        Costs no call while the CAs are known, so a forged request costs none either. Raises
        :class:`~mdmlib.errors.IdentityError`.
        """
        certificate = self._holder(evidence)
        now = self._now()
        if self._verifier is None or now - self._read_at > _KEEP:
            self._verifier = self._read_authorities()
        try:
            return self._verifier.verify(certificate, at=now)
        except IdentityError:
            # It may be of a CA that was made or uploaded since; not everybody who asks may cost a read.
            if now - self._read_at <= _LOOK_AGAIN_AFTER:
                raise
            self._verifier = self._read_authorities()
            return self._verifier.verify(certificate, at=now)

    def _holder(self, evidence: Evidence) -> SignerCertificate:
        for holder in self._holders:
            if (certificate := holder(evidence)) is not None:
                return certificate
        raise IdentityError("The request brings nothing that proves who sent it here.", code="identity_missing")

    def _of_tls(self, evidence: Evidence) -> SignerCertificate | None:
        pem = evidence.tls_certificate
        return SignerCertificate(decode_pem(pem)) if pem else None

    def _of_proxy(self, evidence: Evidence) -> SignerCertificate | None:
        value = evidence.headers.get(self._settings.certificate_header.lower())
        if value is None:
            return None
        secret = evidence.headers.get(PROXY_SECRET_HEADER, "").encode()
        if not hmac.compare_digest(hashlib.sha256(secret).hexdigest(), self._settings.proxy_secret_hash):
            raise IdentityError("A certificate header without the proxy's secret.", code="proxy_secret_wrong")
        return SignerCertificate(decode_certificate_header(value))

    def _of_signature(self, evidence: Evidence) -> SignerCertificate | None:
        signature = evidence.headers.get(_SIGNATURE_HEADER)
        return verify_detached(decode_mdm_signature(signature), evidence.body) if signature else None

    def _read_authorities(self) -> IdentityVerifier:
        self._read_at = self._now()
        return IdentityVerifier(
            trusted_certificates(),
            grace=timedelta(days=self._settings.identity_grace_days),
        )


def trusted_certificates() -> list[x509.Certificate]:
    """Read the certificates of all authorities, ours and those that were uploaded."""
    return [certificate for authority in CertificateAuthority.query("ca") for certificate in certificates_of(authority)]


def certificates_of(authority: CertificateAuthority) -> list[x509.Certificate]:
    """Return the certificates of an authority; each may have issued a device's."""
    first = x509.load_der_x509_certificate(authority.certificate)
    return [first, *(x509.load_pem_x509_certificates(authority.intermediates) if authority.intermediates else ())]


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
    if certificate.hash in (device.revoked_identities or ()):
        raise certificate_revoked()
    if certificate.hash == device.identity:
        return Role.CURRENT
    if certificate.hash in (device.renewed_identities or ()):
        return Role.RENEWED
    if certificate.hash == device.previous_identity and at.timestamp() < (device.previous_identity_until or 0):
        return Role.PREVIOUS
    raise IdentityError("The certificate is not associated with the enrollment.", code="certificate_not_associated")


def certificate_revoked() -> IdentityError:
    """Return the error for a certificate that an administrator has revoked."""
    return IdentityError("The certificate was revoked.", code="certificate_revoked")
