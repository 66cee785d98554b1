"""Revocation: a certificate that is good for nothing from now on, for good.

What a device's requests are judged by is its enrollment's record, which every one of them reads anyway: there the
certificate's hash is noted (:func:`mdmlib.services.device_identity.role_of` looks at it), in one transaction with the
certificate's own item, at which Authenticate and SCEP look, and with the list of which CRLs are made.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.crl import RevokedEntry, may_sign, sign_crl
from mdmlib.errors import BadRequestError, NotFoundError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.associations import same_identity
from mdmlib.services.enrollments import Page
from mdmlib.store import tables
from mdmlib.store.tables import Certificate, CertificateSerial, Enrollment, EnrollmentItem, RevokedCertificate
from mdmlib.store.transactions import ConditionsFailedError, Put, Update, Write, transact

if TYPE_CHECKING:
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore
    from mdmlib.settings import Settings
    from mdmlib.store.enrollments import EnrollmentStore

REASONS: Final = (
    "unspecified",
    "key_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "privilege_withdrawn",
)
"""Why a certificate is revoked (RFC 5280, section 5.3.1)."""

_COLLECTION: Final = "revoked_certificate"
_KEEP: Final = timedelta(minutes=5)
_ATTEMPTS: Final = 3
_DAY: Final = 86_400


class Revocations:
    """Revokes certificates, and tells which are revoked."""

    def __init__(self, *, enrollments: "EnrollmentStore", settings: "Settings", now: Callable[[], datetime]) -> None:
        self._enrollments = enrollments
        self._settings = settings
        self._now = now

    def revoke_enrollment(self, enrollment_id: str, *, reason: str = "unspecified") -> Sequence[RevokedCertificate]:
        """Revoke all certificates that a device's enrollment may use; return those that are revoked now.

        Safe to repeat. Raises :class:`~mdmlib.errors.NotFoundError` for an unknown enrollment,
        :class:`~mdmlib.errors.BadRequestError` for a user channel, which has no certificate of its own, and
        :class:`~mdmlib.errors.UnavailableError`.
        """
        for _ in range(_ATTEMPTS):
            device = self._enrollments.get(enrollment_id)
            if device is None or device.state == "deleted":
                raise NotFoundError(f"There is no enrollment {enrollment_id}.", code="unknown_enrollment")
            if device.parent_id:
                raise BadRequestError(
                    f"A user channel has its device's certificate: revoke that of {device.parent_id}.",
                    code="device_channel_only",
                    field="enrollment_id",
                )
            certificates = _certificates(_usable(device))
            if (revoked := self._revoke(certificates, device, reason)) is not None:
                return revoked
        raise UnavailableError("Other requests of the same enrollment kept coming first.")

    def revoke_certificate(self, sha256: str, *, reason: str = "unspecified") -> RevokedCertificate:
        """Revoke one certificate by its SHA-256 (hex), whether an enrollment has it or not yet.

        Safe to repeat. Raises :class:`~mdmlib.errors.NotFoundError` for one that was neither issued here nor ever used.
        """
        sha256 = sha256.lower().replace(":", "")
        for _ in range(_ATTEMPTS):
            certificates = _certificates([sha256])
            if not certificates:
                raise _unknown("sha256")
            associated_id = certificates[0].associated_id
            device = self._enrollments.get(associated_id) if associated_id else None
            if (revoked := self._revoke(certificates, device, reason)) is not None:
                return revoked[0]
        raise UnavailableError("Other requests of the same enrollment kept coming first.")

    def revoke_serial_number(self, serial_number: str, *, reason: str = "unspecified") -> RevokedCertificate:
        """Revoke one certificate that was issued here, by its serial number (hex). Raises as for its SHA-256."""
        digits = serial_number.lower().replace(":", "").removeprefix("0x").lstrip("0")
        try:
            found = CertificateSerial.get(tables.SERIAL_PARTITION + digits, tables.RECORD, consistent_read=True)
        except DoesNotExist:
            raise _unknown("serial_number") from None
        return self.revoke_certificate(found.certificate_hash, reason=reason)

    def list(self, *, limit: int, after: str = "") -> Page[RevokedCertificate]:
        """Return what is revoked and has not ended long since, by SHA-256."""
        behind = RevokedCertificate.name > after if after else None
        found = list(RevokedCertificate.query(_COLLECTION, behind, limit=limit, consistent_read=True))
        return Page(found, found[-1].name if len(found) == limit else None)

    def _revoke(
        self, certificates: Sequence[Certificate], device: Enrollment | None, reason: str
    ) -> Sequence[RevokedCertificate] | None:
        """Revoke those that are not yet, in one transaction; None when something changed meanwhile."""
        now = int(self._now().timestamp())
        new = [certificate for certificate in certificates if certificate.revoked_at is None]
        entries = [self._entry(each, reason, int(each.revoked_at or now)) for each in certificates]
        writes: list[Write] = []
        for certificate in new:
            unchanged = Certificate.item.exists() & Certificate.revoked_at.does_not_exist()
            if certificate.associated_id:
                unchanged &= Certificate.associated_id == certificate.associated_id
            else:
                unchanged &= Certificate.associated_id.does_not_exist()
            item = Certificate(certificate.enrollment_id, tables.RECORD)
            writes.append(Update("certificate", item, [Certificate.revoked_at.set(now)], unchanged))
        names = {_hash(certificate) for certificate in new}
        writes += [Put("entry", entry) for entry in entries if entry.name in names]
        usable = _usable(device) if device else []
        if device and (affected := [name for name in usable if name in names]):
            # What can no longer be used for another reason needs not be remembered here.
            kept = [name for name in device.revoked_identities or () if name in usable]
            actions = [Enrollment.revoked_identities.set([*kept, *affected])]
            if device.identity in names:
                # It is not to be renewed.
                actions.append(Enrollment.expiring_shard.remove())
            record = Enrollment(device.enrollment_id, tables.RECORD)
            writes.append(Update("record", record, actions, same_identity(device)))
        if not writes:
            return [_stored(entry) for entry in entries]
        try:
            transact(writes)
        except ConditionsFailedError:
            return None
        for name in sorted(names):
            logger.warning(
                "Certificate revoked", certificate_hash=name, enrollment_id=device.enrollment_id if device else None
            )
        return [entry if entry.name in names else _stored(entry) for entry in entries]

    def _entry(self, certificate: Certificate, reason: str, revoked_at: int) -> RevokedCertificate:
        not_after = int(certificate.not_after or revoked_at)
        enrollment_id = certificate.associated_id
        return RevokedCertificate(
            _COLLECTION,
            _hash(certificate),
            serial_number=certificate.serial_number,
            issuer=certificate.issuer,
            enrollment_id=None if enrollment_id == tables.OTA_IDENTITY else enrollment_id,
            reason=reason,
            revoked_at=revoked_at,
            not_after=not_after,
            ttl=not_after + (self._settings.identity_grace_days + 1) * _DAY,
        )


class RevocationLists:
    """Signs the CRLs of our CAs. Each is kept for five minutes."""

    def __init__(self, *, authorities: "IssuingAuthorityStore", now: Callable[[], datetime]) -> None:
        self._authorities = authorities
        self._now = now
        self._kept: dict[str, tuple[datetime, bytes]] = {}

    def crl(self, name: str) -> bytes:
        """Return the CRL of one of our CAs. Raises :class:`~mdmlib.errors.NotFoundError` where there is none."""
        now = self._now()
        if name in self._kept and now - self._kept[name][0] < _KEEP:
            return self._kept[name][1]
        authority = self._authorities.find(name)
        if authority is None or not may_sign(authority.identity.certificate):
            raise NotFoundError("There is no CRL of this name.", code="crl_not_found")
        crl = sign_crl(authority.identity, [_listed(item) for item in _issued_by(name)], now=now)
        self._kept[name] = (now, crl)
        return crl


def _usable(device: Enrollment) -> list[str]:
    """Return the hashes of all certificates that a device's requests might be let in with."""
    named = (device.identity, device.previous_identity, *(device.renewed_identities or ()))
    return [name for name in dict.fromkeys(named) if name]


def _certificates(hashes: Sequence[str]) -> list[Certificate]:
    keys = [(tables.CERTIFICATE_PARTITION + sha256, tables.RECORD) for sha256 in hashes]
    found = EnrollmentItem.batch_get(keys, consistent_read=True) if keys else ()
    return sorted((item for item in found if isinstance(item, Certificate)), key=_hash)


def _hash(certificate: Certificate) -> str:
    return certificate.enrollment_id.removeprefix(tables.CERTIFICATE_PARTITION)


def _stored(entry: RevokedCertificate) -> RevokedCertificate:
    """Return an entry as it was written first; one that ended long since is no longer there."""
    try:
        return RevokedCertificate.get(_COLLECTION, entry.name, consistent_read=True)
    except DoesNotExist:
        return entry


def _issued_by(authority: str) -> list[RevokedCertificate]:
    everything = RevokedCertificate.query(_COLLECTION)
    return [item for item in everything if item.issuer == authority and item.serial_number]


def _listed(item: RevokedCertificate) -> RevokedEntry:
    moment = datetime.fromtimestamp(int(item.revoked_at), UTC)
    return RevokedEntry(int(item.serial_number, 16), moment, x509.ReasonFlags[item.reason])


def _unknown(field: str) -> NotFoundError:
    return NotFoundError(
        "No such certificate was issued here, nor has a device ever enrolled with it.",
        code="certificate_unknown",
        field=field,
    )
