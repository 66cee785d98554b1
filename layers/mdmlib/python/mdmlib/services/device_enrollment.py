"""Authenticate and CheckOut: an enrollment begins, and ends."""

from typing import TYPE_CHECKING

from mdmlib.apple.checkin import Authenticate
from mdmlib.errors import IdentityError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.admission import Admission, device_channel_only, refuse_blocked
from mdmlib.services.associations import Associations, association, end_of_renewal, of_another_enrollment
from mdmlib.services.bootstrap_token import BOOTSTRAP_TOKEN
from mdmlib.services.checkin_events import CheckinEvents
from mdmlib.services.checkin_message import ATTEMPTS, Received
from mdmlib.services.device_identity import certificate_revoked
from mdmlib.services.enrollment_links import link_permits
from mdmlib.services.events import outbox_item
from mdmlib.services.scep_challenges import LISTED_DEVICES, serial_hash
from mdmlib.services.sweep import SweepQueue
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Certificate, Enrollment, EnrollmentSecret
from mdmlib.store.transactions import ConditionsFailedError, Delete, Put, Update, Write, transact

if TYPE_CHECKING:
    from pynamodb.expressions.condition import Condition
    from pynamodb.expressions.update import Action


class DeviceEnrollment:
    """Begins and ends enrollments; each commits its event with the record."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        admission: Admission,
        associations: Associations,
        events: CheckinEvents,
        sweeps: SweepQueue,
        sealer: Sealer,
    ) -> None:
        self._enrollments = enrollments
        self._admission = admission
        self._associations = associations
        self._events = events
        self._sweeps = sweeps
        self._sealer = sealer

    def begin(self, received: Received, message: Authenticate) -> None:
        """Begin an enrollment: everything that belonged to the one before it ends in the same write.

        The same message under the same certificate with no TokenUpdate since is a repeat: it is published again under
        its first id and changes nothing. One that was overtaken by its own retry and the TokenUpdate behind it is
        dropped: it must not end the enrollment that is complete by now.
        """
        device_channel_only(received)
        for attempt in range(ATTEMPTS):
            record, certificate = self._enrollments.get_with_certificate(received.id, received.certificate.hash)
            _check_certificate(certificate, message)
            if record:
                refuse_blocked(record, product=message.product_name, os_version=message.os_version)
            if record and record.authenticate_hash == received.hash and record.state == "authenticated":
                self._events.publish_repeat(received, record.authenticate_event_id, record)
                return
            if attempt and record and record.authenticate_hash == received.hash:
                logger.info("Authenticate overtaken by its retry", enrollment_id=received.id)
                return
            outbox = outbox_item(self._events.of(received, record))
            try:
                transact(
                    [
                        *self._new_enrollment(
                            received, message, record, link=certificate.link if certificate else None
                        ),
                        Put("outbox", outbox),
                    ]
                )
            except ConditionsFailedError as failed:
                if "certificate" in failed.names:
                    raise of_another_enrollment() from failed
                continue
            self._events.publish_outbox(outbox)
            if record:
                self._sweeps.request(received.id, tables.next_generation(record.generation))
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def end(self, received: Received) -> None:
        """End an enrollment. Its queue ends with it, and so do its user channels."""
        id_ = received.id
        is_user_channel = received.message.enrollment_id.parent is not None
        for _ in range(ATTEMPTS):
            record = self._admission.enrolled(received, leaving=True)
            if record.state not in LIVE_STATES:
                return
            actions: list[Action] = [
                Enrollment.state.set("checked_out"),
                Enrollment.checked_out_at.set(received.seconds),
                Enrollment.last_seen_at.set(received.seconds),
                Enrollment.generation.set(tables.next_generation(record.generation)),
                Enrollment.push.remove(),
                Enrollment.push_token_hash.remove(),
                Enrollment.expiring_shard.remove(),
            ]
            if not is_user_channel:
                actions.append(Enrollment.epoch.set(record.epoch + 1))
            unchanged = (Enrollment.generation == record.generation) & (Enrollment.state == record.state)
            outbox = outbox_item(self._events.of(received, record))
            try:
                transact(
                    [
                        Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                        Put("outbox", outbox),
                    ]
                )
            except ConditionsFailedError:
                continue
            self._events.publish_outbox(outbox)
            self._sweeps.request(id_, tables.next_generation(record.generation))
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _new_enrollment(
        self, received: Received, message: Authenticate, record: Enrollment | None, *, link: str | None
    ) -> list[Write]:
        id_ = message.enrollment_id.value
        certificate = received.certificate
        actions = [
            *begun(message, record, at=received.seconds),
            Enrollment.identity.set(certificate.hash),
            Enrollment.identity_not_after.set(int(certificate.not_after.timestamp())),
            Enrollment.expiring_shard.set(tables.shard_of(id_)),
            Enrollment.authenticate_hash.set(received.hash),
            Enrollment.authenticate_event_id.set(received.event_id),
            Enrollment.last_seen_at.set(received.seconds),
        ]
        if record and record.identity and record.identity != certificate.hash:
            actions += self._associations.replacing(record.identity, at=received.at)
        actions.append(Enrollment.link.set(link) if link else Enrollment.link.remove())
        # What a renewal issued before this does not take the new enrollment over.
        actions += end_of_renewal()
        return [
            Update("record", Enrollment(id_, tables.RECORD), actions, same_life(record)),
            association(certificate, id_, at=received.at),
            Put("message", received.kept_message(self._sealer)),
            Delete("bootstrap token", EnrollmentSecret(id_, tables.SECRET + BOOTSTRAP_TOKEN)),
        ]


def begun(message: Authenticate, record: Enrollment | None, *, at: int) -> "list[Action]":
    """Return what a record becomes when an enrollment begins, whoever brought the message.

    ``at`` is in epoch seconds. The queue and the user channels of the enrollment before end with it.
    """
    actions: list[Action] = [
        Enrollment.cls.set(Enrollment),
        Enrollment.type.set(message.enrollment_id.type.value),
        Enrollment.state.set("authenticated"),
        Enrollment.listing_shard.set(tables.shard_of(message.enrollment_id.value)),
        Enrollment.topic.set(message.topic),
        Enrollment.generation.set(tables.next_generation(record.generation) if record else tables.FIRST_GENERATION),
        Enrollment.epoch.set((record.epoch if record else 0) + 1),
        Enrollment.token_update_tally.set(0),
        Enrollment.authenticated_at.set(at),
    ]
    known = (
        (Enrollment.serial_number, message.serial_number),
        (Enrollment.model, message.model),
        (Enrollment.model_name, message.model_name),
        (Enrollment.product_name, message.product_name),
        (Enrollment.os_version, message.os_version),
        (Enrollment.build_version, message.build_version),
        (Enrollment.device_name, message.device_name),
        (Enrollment.imei, message.imei),
        (Enrollment.meid, message.meid),
    )
    # What a message does not carry stays as it is known: not every OS sends every key.
    actions += [attribute.set(value) for attribute, value in known if value]
    actions += [
        attribute.remove()
        for attribute in (
            Enrollment.push,
            Enrollment.push_token_hash,
            Enrollment.push_failure,
            Enrollment.push_failed_at,
            Enrollment.push_failed_by,
            Enrollment.token_update_hash,
            Enrollment.token_update_event_id,
            Enrollment.token_updated_at,
            Enrollment.enrolled_at,
            Enrollment.checked_out_at,
            Enrollment.awaiting_configuration,
            Enrollment.is_supervised,
        )
    ]
    return actions


def same_life(record: Enrollment | None) -> "Condition":
    """Return the condition that nothing began or ended since the record was read, or found missing."""
    if record is None:
        return Enrollment.item.does_not_exist()
    unchanged: Condition = (Enrollment.generation == record.generation) & (Enrollment.epoch == record.epoch)
    return unchanged


def _check_certificate(certificate: Certificate | None, message: Authenticate) -> None:
    """Refuse a certificate that was revoked, belongs to another enrollment, or was issued for another serial number."""
    if certificate is None:
        return
    if certificate.revoked_at is not None:
        raise certificate_revoked()
    if certificate.associated_id not in {None, message.enrollment_id.value}:
        raise of_another_enrollment()
    if certificate.serial_hash is None:
        return
    if certificate.serial_hash == LISTED_DEVICES:
        permitted = link_permits(certificate.link, message.serial_number)
    else:
        permitted = serial_hash(message.serial_number or "") == certificate.serial_hash
    if not permitted:
        raise IdentityError("The certificate was issued for another device.", code="certificate_of_another_device")
