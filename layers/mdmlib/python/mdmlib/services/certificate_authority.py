"""The SCEP CA: decides who is given an identity, and gives it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynamodb.exceptions import DoesNotExist

from mdmlib import metrics
from mdmlib.apple import scep
from mdmlib.apple.certificates import CaIdentity, issue, spki
from mdmlib.apple.identity import CERTIFICATE_NOT_OURS, IdentityVerifier, VerifiedCertificate
from mdmlib.apple.scep import CertificateRequest, FailInfo, MessageType, PkiMessage, ScepRefusedError
from mdmlib.errors import BadRequestError, ForbiddenError, IdentityError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.associations import MAX_RENEWED, Associations, certificate_ttl, same_identity
from mdmlib.services.device_identity import Role, trusted_certificates
from mdmlib.services.scep_challenges import Challenge, Purpose
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.tables import (
    Certificate,
    CertificateSerial,
    Enrollment,
    EnrollmentLink,
    IssuedCertificate,
    RedeemedChallenge,
)
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, Update, Write, transact

if TYPE_CHECKING:
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.services.static_challenge import StaticChallenge
    from mdmlib.settings import Settings
    from mdmlib.store.enrollments import EnrollmentStore

_KEEP_ISSUED: Final = timedelta(days=30)
"""For how long a client that lost the answer gets the same certificate again."""
_KEEP_REDEEMED: Final = timedelta(days=1)
"""For how long after its own end a used challenge is remembered; its expiry alone refuses it by then."""

_STATIC: Final = "static"
"""Warrants a transaction of a static challenge, which has nothing of its own."""

_ATTEMPTS: Final = 3


class CertificateAuthorityService:
    """Issues identities over SCEP."""

    def __init__(
        self,
        *,
        authorities: "IssuingAuthorityStore",
        enrollments: "EnrollmentStore",
        challenges: "ScepChallenges",
        static_challenge: "StaticChallenge",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        self._authorities = authorities
        self._enrollments = enrollments
        self._associations = Associations(enrollments=enrollments, settings=settings)
        self._challenges = challenges
        self._static_challenge = static_challenge
        self._settings = settings
        self._now = now

    def load(self) -> CaIdentity:
        """Return the CA that is in use, made if this is the deployment's first use of it."""
        return self._authorities.load().current.identity

    def certificates(self) -> list[x509.Certificate]:
        """Return the certificates of all CAs of ours: any of them may have issued an identity."""
        return self._authorities.load().certificates

    def capabilities(self) -> bytes:
        """Return the answer to GetCACaps."""
        return scep.capabilities(has_next_ca=self._authorities.waiting() is not None)

    def certificate_der(self) -> bytes:
        """Return the CA's certificate: the answer to GetCACert."""
        return self.load().der

    def next_certificate(self) -> bytes:
        """Return the next CA's certificate, vouched for by the one in use: the answer to GetNextCACert.

        Raises :class:`~mdmlib.errors.BadRequestError` when there is none.
        """
        waiting = self._authorities.waiting()
        if waiting is None:
            raise BadRequestError("SCEP: no CA is to follow the one in use.", code="scep_no_next_ca")
        return scep.next_ca_certificate(self.load(), waiting.identity.certificate)

    def pki_operation(self, message: bytes) -> bytes:
        """Answer a PKIOperation: with a certificate, or with a CertRep that refuses it.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for what is no SCEP message, and
        :class:`~mdmlib.errors.UnavailableError` when asking again is right.
        """
        request = PkiMessage.decode(message)
        ca = self.load()
        try:
            issue_to = self._procedure(request.message_type)
            opened = self._open(request)
            ca = opened.ca
            return request.success(opened, issue_to(request, opened))
        except ScepRefusedError as refused:
            logger.warning("SCEP request refused", code=refused.code, reason=refused.message)
            return request.failure(ca, refused.fail_info)

    def _open(self, message: PkiMessage) -> CertificateRequest:
        try:
            return message.open(*self._authorities.load().answering(at=self._now()))
        except ScepRefusedError as refused:
            if refused.code != scep.RECIPIENT_UNKNOWN:
                raise
            # It may be for a CA that came into use after ours were read, and another process told of it.
            return message.open(*self._authorities.load(anew=True).answering(at=self._now()))

    def _procedure(self, message_type: int) -> Callable[[PkiMessage, CertificateRequest], bytes]:
        match message_type:
            case MessageType.PKCS_REQ:
                return self._enroll
            case MessageType.RENEWAL_REQ:
                return self._renew
            case _:
                raise _refusal("This kind of SCEP message is not served.", code="scep_message_type")

    def _enroll(self, message: PkiMessage, request: CertificateRequest) -> bytes:
        """Issue a first certificate to whoever has a good challenge.

        Using the challenge up, counting the link's use and storing the certificate happen together or not at all, so a
        client that lost the answer asks again and gets the same certificate.
        """
        if not request.signer_is_self_signed:
            # Older clients renew like this. Who signed proves nothing beside the challenge, but a stranger's
            # certificate has no business here.
            self._verified(request)
        try:
            challenge = self._challenges.recognize(request.challenge_password)
        except ForbiddenError as error:
            if self._static_challenge.is_met(request.challenge_password):
                return self._enroll_by_static_challenge(message, request)
            raise _refusal(error.message, code=error.code) from error
        key = _transaction_key(message, request, warrant=challenge.nonce)
        if self._challenges.is_over(challenge):
            if issued := _issued(key):
                return issued
            raise _refusal("The SCEP challenge has expired.", code="challenge_expired")
        if challenge.renews:
            return self._renew_by_challenge(request, key, challenge, renews=challenge.renews)
        certificate = self._issue(request)
        try:
            transact(
                [
                    *self._redemption(challenge),
                    *self._new_certificate(certificate, key, link=challenge.link_id, challenge=challenge),
                ]
            )
        except ConditionsFailedError as failed:
            if issued := _issued(key):
                return issued
            if "challenge" in failed.names:
                raise _refusal("The SCEP challenge was used before.", code="challenge_used") from failed
            raise _refusal(
                "The enrollment link was revoked or used up after the profile was downloaded.", code="link_unusable"
            ) from failed
        _tell("Identity issued", certificate, link=challenge.link_id)
        return certificate.der

    def _enroll_by_static_challenge(self, message: PkiMessage, request: CertificateRequest) -> bytes:
        """Issue a certificate to whoever knows the static challenge; the same request gets the same one.

        Some clients have one key and one transaction ID for life, so that such a request may be a new one. They get the
        certificate that they have; after it was revoked they need another key.
        """
        key = _transaction_key(message, request, warrant=_STATIC)
        certificate = self._issue(request)
        try:
            transact(self._new_certificate(certificate, key, link=None))
        except ConditionsFailedError as failed:
            issued = _issued(key)
            if issued is None:
                raise UnavailableError("Another request of the same transaction came first.") from failed
            item = _association(hashlib.sha256(issued).hexdigest())
            if item and item.revoked_at is not None:
                raise _unfit("A certificate of the same key was revoked.", code="certificate_revoked") from failed
            return issued
        _tell("Identity issued", certificate, link=None)
        return certificate.der

    def _renew(self, message: PkiMessage, request: CertificateRequest) -> bytes:
        """Issue the certificate that is to follow the one that signed the request, and associate it at once.

        The device has no other way to tell us: it goes on with the new certificate without a word. Until it has done so
        the old one is its identity, for a device that lost the answer has nothing else.
        """
        signer = self._verified(request)
        key = _transaction_key(message, request, warrant=signer.hash)
        for _ in range(_ATTEMPTS):
            if issued := _issued(key):
                return issued
            device = self._device_of(signer.hash)
            try:
                device, role = self._associations.role(signer, device, at=self._now())
            except IdentityError as error:
                raise _unfit(error.message, code=error.code) from error
            if role is not Role.CURRENT:
                raise _unfit("The certificate was replaced.", code="certificate_replaced")
            certificate = self._issue(request, subject=x509.load_der_x509_certificate(signer.der).subject)
            try:
                transact(self._renewed(device, certificate, key))
            except ConditionsFailedError:
                continue
            _tell("Identity renewed", certificate, enrollment_id=device.enrollment_id)
            return certificate.der
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _renew_by_challenge(self, request: CertificateRequest, key: str, challenge: Challenge, *, renews: str) -> bytes:
        """Issue the certificate that is to follow the one that a challenge names.

        Devices that are given their enrollment profile once more ask like this, as they did when they enrolled, and
        then some go on without another Authenticate. The challenge was handed out to the enrollment itself.
        """
        for _ in range(_ATTEMPTS):
            device = self._device_of(renews)
            if device is None or device.identity != renews:
                if issued := _issued(key):
                    return issued
                raise _unfit("The certificate was replaced.", code="certificate_replaced")
            certificate = self._issue(request)
            try:
                transact([*self._redemption(challenge), *self._renewed(device, certificate, key)])
            except ConditionsFailedError as failed:
                if issued := _issued(key):
                    return issued
                if "challenge" in failed.names:
                    raise _refusal("The SCEP challenge was used before.", code="challenge_used") from failed
                continue
            _tell("Identity renewed", certificate, enrollment_id=device.enrollment_id)
            return certificate.der
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _renewed(self, device: Enrollment, certificate: "_NewCertificate", key: str) -> list[Write]:
        """Return what ties a renewed certificate to its enrollment. Raises when that has ended."""
        if device.state not in LIVE_STATES or device.blocked:
            raise _unfit("The enrollment has ended.", code="enrollment_ended")
        renewed = [*(device.renewed_identities or ()), certificate.hash][-MAX_RENEWED:]
        awaited = Update(
            "record",
            Enrollment(device.enrollment_id, tables.RECORD),
            [Enrollment.renewed_identities.set(renewed)],
            same_identity(device),
        )
        return [awaited, *self._new_certificate(certificate, key, link=device.link, renews=device)]

    def _verified(self, request: CertificateRequest) -> VerifiedCertificate:
        """Return the request's signer as a certificate of our CAs, or of an uploaded one, which ours take over."""
        grace, now = timedelta(days=self._settings.identity_grace_days), self._now()
        try:
            try:
                return IdentityVerifier(self.certificates(), grace=grace).verify(request.signer, at=now)
            except IdentityError as error:
                if error.code != CERTIFICATE_NOT_OURS:
                    raise
            return IdentityVerifier(trusted_certificates(), grace=grace).verify(request.signer, at=now)
        except IdentityError as error:
            raise _unfit(error.message, code=error.code) from error

    def _device_of(self, certificate_hash: str) -> Enrollment | None:
        """Return the record of the enrollment that a certificate is associated with. Raises when that was revoked."""
        item = _association(certificate_hash)
        if item and item.revoked_at is not None:
            raise _unfit("The certificate was revoked.", code="certificate_revoked")
        return self._enrollments.get(item.associated_id) if item and item.associated_id else None

    def _issue(self, request: CertificateRequest, *, subject: x509.Name | None = None) -> "_NewCertificate":
        days = self._settings.identity_days
        try:
            certificate = issue(request.csr, ca=request.ca, now=self._now(), days=days, subject=subject)
        except BadRequestError as error:
            fail_info = FailInfo.BAD_ALG if error.code == "key_unsupported" else FailInfo.BAD_REQUEST
            raise ScepRefusedError(fail_info, error.message, code=error.code) from error
        der = certificate.public_bytes(Encoding.DER)
        return _NewCertificate(
            der=der,
            hash=hashlib.sha256(der).hexdigest(),
            serial_number=f"{certificate.serial_number:x}",
            not_after=certificate.not_valid_after_utc,
            issuer=self._authorities.name_of(request.ca),
        )

    def _redemption(self, challenge: Challenge) -> list[Write]:
        used = RedeemedChallenge(
            tables.CHALLENGE_PARTITION + challenge.nonce,
            tables.RECORD,
            link=challenge.link_id,
            ttl=challenge.expires_at + int(_KEEP_REDEEMED.total_seconds()),
        )
        writes: list[Write] = [Put("challenge", used, RedeemedChallenge.item.does_not_exist())]
        if challenge.link_id is not None:
            usable = EnrollmentLink.name.exists() & (
                EnrollmentLink.revoked.does_not_exist() | (EnrollmentLink.revoked == False)  # noqa: E712 - a condition
            )
            not_used_up = EnrollmentLink.max_uses.does_not_exist() | (EnrollmentLink.uses < EnrollmentLink.max_uses)
            link = EnrollmentLink("enrollment_link", challenge.link_id)
            if challenge.purpose is Purpose.OTA:
                # Its identity leads to a profile, and the identity of that one counts.
                writes.append(Check("link", link, usable & not_used_up))
            else:
                writes.append(Update("link", link, [EnrollmentLink.uses.add(1)], usable & not_used_up))
        return writes

    def _new_certificate(
        self,
        certificate: "_NewCertificate",
        key: str,
        *,
        link: str | None,
        challenge: Challenge | None = None,
        renews: Enrollment | None = None,
    ) -> list[Write]:
        now, not_after = self._now(), certificate.not_after
        associated_id = renews.enrollment_id if renews else None
        if challenge and challenge.purpose is Purpose.OTA:
            # No enrollment has this id: nothing can enroll with the certificate.
            associated_id = tables.OTA_IDENTITY
        issued = IssuedCertificate(
            key,
            tables.RECORD,
            certificate=certificate.der,
            ttl=int((now + _KEEP_ISSUED).timestamp()),
        )
        association = Certificate(
            tables.CERTIFICATE_PARTITION + certificate.hash,
            tables.RECORD,
            associated_id=associated_id,
            associated_at=int(now.timestamp()) if associated_id else None,
            replaces=renews.identity if renews else None,
            not_after=int(not_after.timestamp()),
            link=link,
            serial_hash=challenge.serial_hash if challenge else None,
            issuer=certificate.issuer,
            serial_number=certificate.serial_number,
            ttl=certificate_ttl(not_after),
        )
        serial = CertificateSerial(
            tables.SERIAL_PARTITION + certificate.serial_number,
            tables.RECORD,
            certificate_hash=certificate.hash,
            ttl=certificate_ttl(not_after),
        )
        return [
            Put("serial", serial),
            Put("issued", issued, IssuedCertificate.item.does_not_exist()),
            Put("certificate", association, Certificate.item.does_not_exist()),
        ]


@dataclass(frozen=True, kw_only=True)
class _NewCertificate:
    """A certificate that was signed just now, and is nobody's before it is committed."""

    der: bytes
    hash: str
    serial_number: str
    """Hex."""
    not_after: datetime
    issuer: str | None
    """The name of the CA that signed it."""


def _tell(phrase: str, certificate: _NewCertificate, **fields: str | None) -> None:
    metrics.emit(phrase, {Metric.CERTIFICATES_ISSUED: 1}, certificate_hash=certificate.hash, **fields)


def _refusal(reason: str, *, code: str) -> ScepRefusedError:
    return ScepRefusedError(FailInfo.BAD_REQUEST, reason, code=code)


def _unfit(reason: str, *, code: str) -> ScepRefusedError:
    return ScepRefusedError(FailInfo.BAD_CERT_ID, reason, code=code)


def _transaction_key(message: PkiMessage, request: CertificateRequest, *, warrant: str) -> str:
    """Return the partition of what a transaction was answered with.

    The key to be certified is a part of it, so that who merely repeats somebody's transaction ID gets nothing of
    theirs; and so is the ``warrant``, a challenge's nonce or a certificate's hash, because some clients have one key
    and one transaction ID for life: a new warrant is a new request.
    """
    parts = (message.transaction_id, spki(request.csr.public_key()), warrant.encode())
    return (
        tables.ISSUED_PARTITION + hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    )


def _association(certificate_hash: str) -> Certificate | None:
    try:
        return Certificate.get(tables.CERTIFICATE_PARTITION + certificate_hash, tables.RECORD, consistent_read=True)
    except DoesNotExist:
        return None


def _issued(key: str) -> bytes | None:
    try:
        return bytes(IssuedCertificate.get(key, tables.RECORD, consistent_read=True).certificate)
    except DoesNotExist:
        return None
