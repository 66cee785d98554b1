"""Check-in: a device enrolls, tells its push token, hands in its bootstrap token, and leaves."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from mdmlib.apple import event as documents
from mdmlib.apple import plist
from mdmlib.apple.checkin import (
    Authenticate,
    CheckinMessage,
    CheckOut,
    GetBootstrapToken,
    SetBootstrapToken,
    TokenUpdate,
    UserAuthenticate,
)
from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.errors import BadRequestError, ConflictError, GoneError, IdentityError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.device_identity import Role, role_of
from mdmlib.services.events import EventPublisher, MDMEvent, outbox_item
from mdmlib.services.push_info import PushInfo
from mdmlib.services.sweep import SweepQueue
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Certificate, Enrollment, EnrollmentSecret, Message
from mdmlib.store.transactions import Check, ConditionsFailedError, Delete, Put, Update, Write, transact

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

BOOTSTRAP_TOKEN: Final = "BootstrapToken"  # noqa: S105 - Apple's name of the key
UNLOCK_TOKEN: Final = "UnlockToken"  # noqa: S105
_ATTEMPTS: Final = 3
_REPEAT_SECONDS: Final = 3_600
"""A message that comes again within an hour is the retry of a device that did not get our answer."""


@dataclass(frozen=True)
class _Received:
    """A message, who signed it, and when it came."""

    message: CheckinMessage
    certificate: VerifiedCertificate
    url_params: Mapping[str, str]
    at: datetime
    event_id: str

    @property
    def seconds(self) -> int:
        return int(self.at.timestamp())

    @property
    def hash(self) -> str:
        """Tells a retry from a new message."""
        return hashlib.sha256(self.message.body + b"\0" + self.certificate.hash.encode()).hexdigest()


class CheckinService:
    """Receives check-in messages: one read, one transaction, one event each."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        events: EventPublisher,
        sweeps: SweepQueue,
        sealer: Sealer,
        settings: Settings,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._events = events
        self._sweeps = sweeps
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._new_event_id = new_event_id

    def receive(
        self, certificate: VerifiedCertificate, message: CheckinMessage, url_params: Mapping[str, str]
    ) -> bytes | None:
        """Take a message in; return the plist that answers it, or None for an empty answer.

        Raises :class:`~mdmlib.errors.IdentityError` when the certificate is not the enrollment's, and
        :class:`~mdmlib.errors.GoneError` for UserAuthenticate, which is declined.
        """
        received = _Received(message, certificate, url_params, self._now(), self._new_event_id())
        match message:
            case Authenticate():
                self._authenticate(received, message)
            case TokenUpdate() if message.enrollment_id.type.is_user_channel:
                self._user_token_update(received, message)
            case TokenUpdate():
                self._token_update(received, message)
            case CheckOut():
                self._check_out(received)
            case SetBootstrapToken():
                self._set_bootstrap_token(received, message)
            case GetBootstrapToken():
                return self._get_bootstrap_token(received)
            case UserAuthenticate():
                self._publish(received, None)
                raise GoneError("Managed users of directories are not offered.", code="user_authenticate_declined")
            case _:
                raise BadRequestError(f"{message.message_type} is not supported.", code="unknown_message_type")
        return None

    def _authenticate(self, received: _Received, message: Authenticate) -> None:
        """Begin an enrollment: everything that belonged to the one before it ends in the same write.

        The same message under the same certificate with no TokenUpdate since is a repeat: it is published again under
        its first id and changes nothing. One that was overtaken by its own retry and the TokenUpdate behind it is
        dropped: it must not end the enrollment that is complete by now.
        """
        enrollment_id = message.enrollment_id
        if enrollment_id.parent:
            raise BadRequestError("Authenticate is a message of the device channel.", code="device_channel_only")
        for attempt in range(_ATTEMPTS):
            record = self._enrollments.get(enrollment_id.value)
            if record and record.authenticate_hash == received.hash and record.state == "authenticated":
                self._publish_repeat(received, record.authenticate_event_id, record.authenticated_at, record)
                return
            if attempt and record and record.authenticate_hash == received.hash:
                logger.info("Authenticate overtaken by its retry", enrollment_id=enrollment_id.value)
                return
            event = self._event(received, record)
            outbox = outbox_item(event)
            try:
                transact([*self._new_enrollment(received, message, record), Put("outbox", outbox)])
            except ConditionsFailedError as failed:
                if "certificate" in failed.names:
                    raise IdentityError(
                        "The certificate belongs to another enrollment.", code="certificate_of_another_enrollment"
                    ) from failed
                continue
            self._events.publish_outbox(outbox)
            if record:
                self._sweeps.request(enrollment_id.value, tables.next_generation(record.generation))
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _new_enrollment(self, received: _Received, message: Authenticate, record: Enrollment | None) -> list[Write]:
        id_ = message.enrollment_id.value
        certificate = received.certificate
        actions: list[Action] = [
            Enrollment.cls.set(Enrollment),
            Enrollment.type.set(message.enrollment_id.type.value),
            Enrollment.state.set("authenticated"),
            Enrollment.listing_shard.set(tables.shard_of(id_)),
            Enrollment.topic.set(message.topic),
            Enrollment.identity.set(certificate.hash),
            Enrollment.identity_not_after.set(int(certificate.not_after.timestamp())),
            Enrollment.expiring_shard.set(tables.shard_of(id_)),
            Enrollment.generation.set(tables.next_generation(record.generation) if record else tables.FIRST_GENERATION),
            Enrollment.epoch.set((record.epoch if record else 0) + 1),
            Enrollment.token_update_tally.set(0),
            Enrollment.authenticate_hash.set(received.hash),
            Enrollment.authenticate_event_id.set(received.event_id),
            Enrollment.authenticated_at.set(received.seconds),
            Enrollment.last_seen_at.set(received.seconds),
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
        if record and record.identity and record.identity != certificate.hash:
            grace = timedelta(hours=self._settings.previous_identity_hours)
            actions.append(Enrollment.previous_identity.set(record.identity))
            actions.append(Enrollment.previous_identity_until.set(int((received.at + grace).timestamp())))
        actions += [
            attribute.remove()
            for attribute in (
                Enrollment.push,
                Enrollment.push_token_hash,
                Enrollment.push_failure,
                Enrollment.push_failed_at,
                Enrollment.token_update_hash,
                Enrollment.token_update_event_id,
                Enrollment.token_updated_at,
                Enrollment.enrolled_at,
                Enrollment.checked_out_at,
                Enrollment.awaiting_configuration,
            )
        ]
        unchanged = (
            (Enrollment.generation == record.generation) & (Enrollment.epoch == record.epoch)
            if record
            else Enrollment.item.does_not_exist()
        )
        return [
            Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
            self._associate(certificate, id_, received.seconds),
            Put("message", self._message(received)),
            Delete("bootstrap token", EnrollmentSecret(id_, tables.SECRET + BOOTSTRAP_TOKEN)),
        ]

    def _associate(self, certificate: VerifiedCertificate, enrollment_id: str, seconds: int) -> Update:
        """Tie the certificate to the enrollment; the condition keeps it from ever serving two."""
        return Update(
            "certificate",
            Certificate(tables.CERTIFICATE_PARTITION + certificate.hash, tables.RECORD),
            [
                Certificate.cls.set(Certificate),
                Certificate.associated_id.set(enrollment_id),
                Certificate.associated_at.set(seconds),
                Certificate.not_after.set(int(certificate.not_after.timestamp())),
            ],
            Certificate.associated_id.does_not_exist() | (Certificate.associated_id == enrollment_id),
        )

    def _token_update(self, received: _Received, message: TokenUpdate) -> None:
        id_ = message.enrollment_id.value
        for _ in range(_ATTEMPTS):
            record = self._authorized(received, id_)
            if self._is_repeat(received, record):
                self._publish_repeat(received, record.token_update_event_id, record.token_updated_at, record)
                return
            tally = int(record.token_update_tally) + 1
            unchanged = (
                (Enrollment.generation == record.generation)
                & (Enrollment.identity == received.certificate.hash)
                & (Enrollment.token_update_tally == record.token_update_tally)
            )
            actions = self._enrolled(received, message, tally=tally)
            try:
                transact(
                    [
                        Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                        *self._token_update_items(received, message),
                    ]
                )
            except ConditionsFailedError:
                continue
            self._publish(received, record, tally=tally)
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _user_token_update(self, received: _Received, message: TokenUpdate) -> None:
        """Enable a user channel, or note its new token.

        Under a device epoch that it has not seen it begins anew: a new generation, tally 1, so that nothing of its
        former life revives. The device's record is checked in the same transaction.
        """
        id_, device_id = message.enrollment_id.value, message.enrollment_id.device
        for _ in range(_ATTEMPTS):
            records = self._enrollments.get_many([id_, device_id])
            record, device = records.get(id_), records.get(device_id)
            self._authorize(received, device)
            assert device is not None  # noqa: S101 - _authorize refuses an unknown device
            same_life = record is not None and record.device_epoch == device.epoch and record.state == "enrolled"
            if record and same_life and self._is_repeat(received, record):
                self._publish_repeat(received, record.token_update_event_id, record.token_updated_at, record)
                return
            tally = int(record.token_update_tally) + 1 if record and same_life else 1
            actions = [
                *self._enrolled(received, message, tally=tally),
                Enrollment.cls.set(Enrollment),
                Enrollment.type.set(message.enrollment_id.type.value),
                Enrollment.parent_id.set(device_id),
                Enrollment.listing_shard.set(tables.shard_of(id_)),
                Enrollment.device_epoch.set(device.epoch),
            ]
            if not same_life:
                former = record.generation if record else None
                actions.append(
                    Enrollment.generation.set(tables.next_generation(former) if former else tables.FIRST_GENERATION)
                )
            unchanged = (
                (Enrollment.generation == record.generation)
                & (Enrollment.token_update_tally == record.token_update_tally)
                if record
                else Enrollment.item.does_not_exist()
            )
            device_unchanged = (Enrollment.epoch == device.epoch) & (Enrollment.state != "checked_out")
            try:
                transact(
                    [
                        Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                        Check("device", Enrollment(device_id, tables.RECORD), device_unchanged),
                        *self._token_update_items(received, message),
                    ]
                )
            except ConditionsFailedError:
                continue
            self._publish(received, record, tally=tally)
            if record and not same_life:
                self._sweeps.request(id_, tables.next_generation(record.generation))
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _enrolled(self, received: _Received, message: TokenUpdate, *, tally: int) -> "list[Action]":
        id_ = message.enrollment_id.value
        push = PushInfo(token=message.push_token.hex(), magic=message.push_magic)
        actions: list[Action] = [
            Enrollment.state.set("enrolled"),
            Enrollment.topic.set(message.topic),
            Enrollment.push.set(push.seal(self._sealer, id_)),
            Enrollment.push_token_hash.set(push.token_hash),
            Enrollment.push_failure.remove(),
            Enrollment.push_failed_at.remove(),
            Enrollment.token_update_tally.set(tally),
            Enrollment.token_update_hash.set(received.hash),
            Enrollment.token_update_event_id.set(received.event_id),
            Enrollment.token_updated_at.set(received.seconds),
            Enrollment.last_seen_at.set(received.seconds),
        ]
        if tally == 1:
            actions.append(Enrollment.enrolled_at.set(received.seconds))
        if message.awaiting_configuration is not None:
            actions.append(Enrollment.awaiting_configuration.set(message.awaiting_configuration))
        if message.user_short_name:
            actions.append(Enrollment.user_short_name.set(message.user_short_name))
        if message.user_long_name:
            actions.append(Enrollment.user_long_name.set(message.user_long_name))
        return actions

    def _token_update_items(self, received: _Received, message: TokenUpdate) -> list[Write]:
        items: list[Write] = [Put("message", self._message(received))]
        if message.unlock_token:
            items.append(Put("unlock token", self._secret(received, UNLOCK_TOKEN, message.unlock_token)))
        return items

    def _check_out(self, received: _Received) -> None:
        """End an enrollment. Its queue ends with it, and so do its user channels."""
        id_ = received.message.enrollment_id.value
        is_user_channel = received.message.enrollment_id.parent is not None
        for _ in range(_ATTEMPTS):
            record = self._authorized(received, id_, checked_out=True)
            if record.state == "checked_out":
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
            outbox = outbox_item(self._event(received, record))
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

    def _set_bootstrap_token(self, received: _Received, message: SetBootstrapToken) -> None:
        id_ = self._device_channel(received)
        record = self._authorized(received, id_)
        secret = self._secret(received, BOOTSTRAP_TOKEN, message.bootstrap_token)
        write = Put("secret", secret) if message.bootstrap_token else Delete("secret", secret)
        same_enrollment = (Enrollment.generation == record.generation) & (
            Enrollment.identity == received.certificate.hash
        )
        seen = [Enrollment.last_seen_at.set(received.seconds)]
        try:
            transact([Update("record", Enrollment(id_, tables.RECORD), seen, same_enrollment), write])
        except ConditionsFailedError as failed:
            raise ConflictError("The enrollment began anew meanwhile.") from failed
        self._publish(received, record)

    def _get_bootstrap_token(self, received: _Received) -> bytes | None:
        id_ = self._device_channel(received)
        record, secret = self._enrollments.get_with_secret(id_, BOOTSTRAP_TOKEN)
        self._authorize(received, record)
        self._publish(received, record)
        if secret is None:
            return None
        token = self._sealer.open(secret.value, place=f"{id_}/{secret.item}")
        return plist.dumps({BOOTSTRAP_TOKEN: token})

    def _device_channel(self, received: _Received) -> str:
        if received.message.enrollment_id.parent:
            raise BadRequestError(
                f"{received.message.message_type} is a message of the device channel.", code="device_channel_only"
            )
        return received.message.enrollment_id.value

    def _authorized(self, received: _Received, id_: str, *, checked_out: bool = False) -> Enrollment:
        """Return the enrollment's record if the certificate is its, or its device's, current one."""
        device_id = received.message.enrollment_id.device
        if id_ == device_id:
            record = device = self._enrollments.get(id_)
        else:
            records = self._enrollments.get_many([id_, device_id])
            record, device = records.get(id_), records.get(device_id)
        self._authorize(received, device, checked_out=checked_out)
        if record is None:
            raise IdentityError("The user channel is not enrolled.", code="unknown_enrollment")
        return record

    def _authorize(self, received: _Received, device: Enrollment | None, *, checked_out: bool = False) -> None:
        role = role_of(received.certificate, device, at=received.at)
        if role is not Role.CURRENT:
            raise IdentityError("A replaced certificate may only report results.", code="certificate_replaced")
        if device and device.state not in LIVE_STATES and not checked_out:
            raise IdentityError("The enrollment has ended.", code="enrollment_ended")

    def _is_repeat(self, received: _Received, record: Enrollment) -> bool:
        return (
            record.token_update_hash == received.hash
            and received.seconds - (record.token_updated_at or 0) < _REPEAT_SECONDS
        )

    def _message(self, received: _Received) -> Message:
        id_ = received.message.enrollment_id.value
        item = tables.MESSAGE + received.message.message_type
        body = self._sealer.seal(received.message.body, place=f"{id_}/{item}")
        return Message(id_, item, body=body, received_at=received.seconds)

    def _secret(self, received: _Received, name: str, value: bytes) -> EnrollmentSecret:
        id_ = received.message.enrollment_id.value
        item = tables.SECRET + name
        sealed = self._sealer.seal(value, place=f"{id_}/{item}")
        return EnrollmentSecret(id_, item, value=sealed, received_at=received.seconds)

    def _event(
        self,
        received: _Received,
        record: Enrollment | None,
        *,
        tally: int | None = None,
        event_id: str | None = None,
        created_at: datetime | None = None,
    ) -> MDMEvent:
        serial_number = record.serial_number if record else None
        if isinstance(received.message, Authenticate) and received.message.serial_number:
            serial_number = received.message.serial_number
        document = documents.mdm_event(
            received.message,
            event_id=event_id or received.event_id,
            created_at=created_at or received.at,
            url_params=received.url_params,
            token_update_tally=tally,
            serial_number=serial_number,
        )
        return self._events.prepare(document, received.message.body)

    def _publish(self, received: _Received, record: Enrollment | None, *, tally: int | None = None) -> None:
        self._events.publish(self._event(received, record, tally=tally))

    def _publish_repeat(self, received: _Received, event_id: str, seconds: float, record: Enrollment) -> None:
        """Publish again what may have been lost between commit and publication, under its first id."""
        tally = int(record.token_update_tally) if isinstance(received.message, TokenUpdate) else None
        created_at = datetime.fromtimestamp(seconds, received.at.tzinfo)
        self._events.publish(self._event(received, record, tally=tally, event_id=event_id, created_at=created_at))
