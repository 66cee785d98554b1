"""Associations: which certificate belongs to which enrollment, for good.

=============  =========================================  =====================================================
Message        Its certificate                            What becomes of it
=============  =========================================  =====================================================
Authenticate   belongs to nobody, or to this enrollment   it is the identity from now on
Authenticate   belongs to another enrollment              refused
any other      is the identity                            taken
any other      a renewal issued it, it is used first now  taken; it is the identity from now on
any other      was the identity a short while ago         taken if it reports a result
any other      none of these; there is an identity        refused
any            was revoked                                refused
any other      belongs to nobody; there is no identity    refused, or (RETROACTIVE_ASSOCIATION) taken: it is the
                                                          identity from now on
any other      is another's; there is no identity         refused
=============  =========================================  =====================================================

The enrollment is always the device's: user channels have no identity of their own. A certificate is written down on the
condition that it belongs to no other enrollment, so none ever serves two.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import UpdateError

from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.errors import IdentityError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.device_identity import Role, role_of
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Certificate, Enrollment
from mdmlib.store.transactions import ConditionsFailedError, Update, transact

if TYPE_CHECKING:
    from pynamodb.expressions.condition import Condition
    from pynamodb.expressions.update import Action

MAX_RENEWED: Final = 4
"""So many unused certificates of an enrollment are remembered: a device that asked four times since lost the first."""

_KEPT: Final = timedelta(days=3650 + 366)
"""For how long after its end a certificate is remembered: longer than any ``IDENTITY_GRACE_DAYS`` accepts it."""

_ATTEMPTS: Final = 3
_IDENTITY_ATTRIBUTES: Final = (
    "identity",
    "identity_not_after",
    "expected_identity",
    "previous_identity",
    "previous_identity_until",
    "renewed_identities",
    "revoked_identities",
)


class Associations:
    """Says what a certificate may do for an enrollment, and writes down what follows from that."""

    def __init__(self, *, enrollments: EnrollmentStore, settings: Settings) -> None:
        self._enrollments = enrollments
        self._settings = settings

    def role(
        self, certificate: VerifiedCertificate, device: Enrollment | None, *, at: datetime
    ) -> tuple[Enrollment, Role]:
        """Return the device's record, and whether the certificate is its ``CURRENT`` or its ``PREVIOUS`` one.

        ``device`` is the record of the device channel, also for messages of a user channel. Two cases cost a write,
        once each, which the returned record shows already: the first use of a renewed certificate, and a retroactive
        association. Raises :class:`~mdmlib.errors.IdentityError`, and :class:`~mdmlib.errors.UnavailableError` when
        other requests kept coming first.
        """
        if device is None:
            raise IdentityError("The enrollment is unknown.", code="unknown_enrollment")
        for _ in range(_ATTEMPTS):
            if device.identity is None and self._is_awaited(certificate, device):
                if self._associate(certificate, device, at=at):
                    return device, Role.CURRENT
            else:
                role = role_of(certificate, device, at=at)
                if role is not Role.RENEWED:
                    return device, role
                if self._take_over(certificate, device, at=at):
                    return device, Role.CURRENT
            self._look_again(device)
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def replacing(self, identity: str, *, at: datetime) -> "list[Action]":
        """Return what a record keeps of the identity that gives way to another one."""
        until = at + timedelta(hours=self._settings.previous_identity_hours)
        return [
            Enrollment.previous_identity.set(identity),
            Enrollment.previous_identity_until.set(int(until.timestamp())),
        ]

    def _is_awaited(self, certificate: VerifiedCertificate, device: Enrollment) -> bool:
        """Say whether an enrollment of another server's, which has no identity here yet, may have this one."""
        if device.state not in LIVE_STATES:
            return False
        if device.expected_identity is not None:
            matches: bool = device.expected_identity == certificate.hash
            return matches
        return self._settings.retroactive_association == "on"

    def _associate(self, certificate: VerifiedCertificate, device: Enrollment, *, at: datetime) -> bool:
        """Give an enrollment without an identity this one; False when it is not without by now."""
        id_, not_after = device.enrollment_id, int(certificate.not_after.timestamp())
        actions = [
            Enrollment.identity.set(certificate.hash),
            Enrollment.identity_not_after.set(not_after),
            Enrollment.expiring_shard.set(tables.shard_of(id_)),
        ]
        unchanged = Enrollment.identity.does_not_exist() & (Enrollment.generation == device.generation)
        try:
            transact(
                [
                    Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                    association(certificate, id_, at=at),
                ]
            )
        except ConditionsFailedError as failed:
            if "certificate" in failed.names:
                raise of_another_enrollment() from failed
            return False
        device.identity, device.identity_not_after = certificate.hash, not_after
        logger.info("Identity associated retroactively", enrollment_id=id_, certificate_hash=certificate.hash)
        return True

    def _take_over(self, certificate: VerifiedCertificate, device: Enrollment, *, at: datetime) -> bool:
        """Let a renewed certificate take the identity's place; False when the record is another by now."""
        renewed, shard = device.renewed_identities, tables.shard_of(device.enrollment_id)
        actions = [
            Enrollment.identity.set(certificate.hash),
            Enrollment.identity_not_after.set(int(certificate.not_after.timestamp())),
            # It is gone when the one before was revoked.
            *([Enrollment.expiring_shard.set(shard)] if device.state in LIVE_STATES else []),
            *self.replacing(device.identity, at=at),
            # What was issued after this one may still be on its way to the device.
            *end_of_renewal(unused=renewed[renewed.index(certificate.hash) + 1 :]),
        ]
        try:
            device.update(actions, condition=same_identity(device))
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return False
        logger.info("Renewed identity in use", enrollment_id=device.enrollment_id, certificate_hash=certificate.hash)
        return True

    def _look_again(self, device: Enrollment) -> None:
        """Read anew who the device is. The rest of its record stays as it is: the request was judged by it so far."""
        fresh = self._enrollments.get(device.enrollment_id)
        for attribute in _IDENTITY_ATTRIBUTES:
            setattr(device, attribute, getattr(fresh, attribute, None))


def association(certificate: VerifiedCertificate, enrollment_id: str, *, at: datetime) -> Update:
    """Return the write, named ``certificate``, that ties a good certificate to an enrollment if it is no other's."""
    return Update(
        "certificate",
        Certificate(tables.CERTIFICATE_PARTITION + certificate.hash, tables.RECORD),
        [
            Certificate.cls.set(Certificate),
            Certificate.associated_id.set(enrollment_id),
            Certificate.associated_at.set(int(at.timestamp())),
            Certificate.not_after.set(int(certificate.not_after.timestamp())),
            Certificate.ttl.set(certificate_ttl(certificate.not_after)),
        ],
        (Certificate.associated_id.does_not_exist() | (Certificate.associated_id == enrollment_id))
        & Certificate.revoked_at.does_not_exist(),
    )


def certificate_ttl(not_after: datetime) -> int:
    """Return until when a certificate is remembered (epoch seconds): as long as it may be accepted anywhere."""
    return int((not_after + _KEPT).timestamp())


def end_of_renewal(*, unused: Sequence[str] = ()) -> "list[Action]":
    """Return what a record forgets when its identity is another; ``unused`` renewed certificates it goes on to know."""
    return [
        Enrollment.renewed_identities.set(list(unused)) if unused else Enrollment.renewed_identities.remove(),
        Enrollment.renewal_stage.remove(),
        Enrollment.renewal_attempts.remove(),
        Enrollment.renewal_queued_at.remove(),
    ]


def same_identity(device: Enrollment) -> "Condition":
    """Return the condition that an enrollment is the same, and so is everything that may be its identity."""
    renewed, revoked = device.renewed_identities, device.revoked_identities
    unchanged: Condition = (
        (Enrollment.identity == device.identity)
        & (Enrollment.generation == device.generation)
        & (Enrollment.state == device.state)
        & (Enrollment.renewed_identities == renewed if renewed else Enrollment.renewed_identities.does_not_exist())
        & (Enrollment.revoked_identities == revoked if revoked else Enrollment.revoked_identities.does_not_exist())
    )
    return unchanged


def of_another_enrollment() -> IdentityError:
    """Return the error for a certificate that belongs to another enrollment, or to none any more."""
    return IdentityError(
        "The certificate belongs to another enrollment, or was revoked.", code="certificate_of_another_enrollment"
    )
