"""TokenUpdate: an enrollment is complete, and tells how it can be pushed to."""

from typing import TYPE_CHECKING, Final

from mdmlib import metrics
from mdmlib.apple.checkin import TokenUpdate
from mdmlib.errors import UnavailableError
from mdmlib.metrics import Metric
from mdmlib.services.admission import Admission, check_auth_token
from mdmlib.services.awaited_configuration import awaited
from mdmlib.services.checkin_events import CheckinEvents
from mdmlib.services.checkin_message import ATTEMPTS, REPEAT_SECONDS, Received
from mdmlib.services.push_info import PushInfo
from mdmlib.services.sweep import SweepQueue
from mdmlib.services.user_login import UserLogin
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, USER_AUTHENTICATION, EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentSecret
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, Update, Write, transact

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

UNLOCK_TOKEN: Final = "UnlockToken"  # noqa: S105 - Apple's name of the key


class PushTokens:
    """Notes the push tokens of device channels and user channels."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        admission: Admission,
        events: CheckinEvents,
        sweeps: SweepQueue,
        sealer: Sealer,
        setup_minutes: int,
    ) -> None:
        self._enrollments = enrollments
        self._setup_minutes = setup_minutes
        self._admission = admission
        self._events = events
        self._sweeps = sweeps
        self._sealer = sealer

    def note(self, received: Received, message: TokenUpdate) -> None:
        """Complete an enrollment, or note its new token."""
        if message.enrollment_id.type.is_user_channel:
            self._note_user(received, message)
        else:
            self._note_device(received, message)

    def _note_device(self, received: Received, message: TokenUpdate) -> None:
        id_ = received.id
        for _ in range(ATTEMPTS):
            record = self._admission.enrolled(received)
            if _is_repeat(received, record):
                self._events.publish_repeat(received, record.token_update_event_id, record)
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
                        *self._items(received, message, int(record.epoch)),
                    ]
                )
            except ConditionsFailedError:
                continue
            self._events.publish(received, record, tally=tally)
            if tally == 1:
                metrics.emit("Enrollment completed", {Metric.ENROLLMENTS: 1}, enrollment_id=id_)
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _note_user(self, received: Received, message: TokenUpdate) -> None:
        """Enable a user channel, or note its new token.

        Under a device epoch that it has not seen it begins anew: a new generation, tally 1, so that nothing of its
        former life revives. The device's record is checked in the same transaction. A network user has to show the
        AuthToken of the login; users of the Mac itself never log in with us and have none.
        """
        id_, device_id = received.id, received.device_id
        for _ in range(ATTEMPTS):
            record, device, login_item = self._enrollments.get_login(id_, device_id)
            device = self._admission.device(received, device)
            token_hash = None
            if login_item:
                token_hash = UserLogin.of(login_item, self._sealer).check(message.fields)
            elif record:
                check_auth_token(record, message.fields)
            same_life = record is not None and record.device_epoch == device.epoch and record.state == "enrolled"
            if record and same_life and _is_repeat(received, record):
                self._events.publish_repeat(received, record.token_update_event_id, record)
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
            if token_hash:
                actions.append(Enrollment.auth_token_hash.set(token_hash))
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
            device_unchanged = (Enrollment.epoch == device.epoch) & Enrollment.state.is_in(*LIVE_STATES)
            writes: list[Write] = [
                Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                Check("device", Enrollment(device_id, tables.RECORD), device_unchanged),
                _login_unchanged(received, login_item),
                *self._items(received, message, int(device.epoch)),
            ]
            try:
                transact(writes)
            except ConditionsFailedError:
                continue
            self._events.publish(received, record, tally=tally)
            if record and not same_life:
                self._sweeps.request(id_, tables.next_generation(record.generation))
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _enrolled(self, received: Received, message: TokenUpdate, *, tally: int) -> "list[Action]":
        return [
            *completed(message, self._sealer, tally=tally, at=received.seconds),
            Enrollment.token_update_hash.set(received.hash),
            Enrollment.token_update_event_id.set(received.event_id),
            Enrollment.last_seen_at.set(received.seconds),
        ]

    def _items(self, received: Received, message: TokenUpdate, epoch: int) -> list[Write]:
        items: list[Write] = [Put("message", received.kept_message(self._sealer))]
        if message.unlock_token:
            items.append(Put("unlock token", received.secret(self._sealer, UNLOCK_TOKEN, message.unlock_token)))
        if message.awaiting_configuration:
            item, actions = awaited(received.id, epoch, at=received.seconds, minutes=self._setup_minutes)
            items.append(Update("awaited configuration", item, actions))
        return items


def completed(message: TokenUpdate, sealer: Sealer, *, tally: int, at: int) -> "list[Action]":
    """Return what the record learns from a TokenUpdate, whoever brought it. ``at`` is in epoch seconds."""
    push = PushInfo(token=message.push_token.hex(), magic=message.push_magic)
    actions: list[Action] = [
        Enrollment.state.set("enrolled"),
        Enrollment.topic.set(message.topic),
        Enrollment.push.set(push.seal(sealer, message.enrollment_id.value)),
        Enrollment.push_token_hash.set(push.token_hash),
        Enrollment.push_failure.remove(),
        Enrollment.push_failed_at.remove(),
        Enrollment.push_failed_by.remove(),
        Enrollment.token_update_tally.set(tally),
        Enrollment.token_updated_at.set(at),
    ]
    if tally == 1:
        actions.append(Enrollment.enrolled_at.set(at))
    if message.awaiting_configuration is not None:
        actions.append(Enrollment.awaiting_configuration.set(message.awaiting_configuration))
    if message.user_short_name:
        actions.append(Enrollment.user_short_name.set(message.user_short_name))
    if message.user_long_name:
        actions.append(Enrollment.user_long_name.set(message.user_long_name))
    return actions


def _login_unchanged(received: Received, item: EnrollmentSecret | None) -> Check:
    # A login that begins meanwhile finds no record to write its token's hash to: one of the two has to try again.
    key = EnrollmentSecret(received.id, tables.SECRET + USER_AUTHENTICATION)
    return Check("login", key, EnrollmentSecret.value == item.value if item else EnrollmentSecret.item.does_not_exist())


def _is_repeat(received: Received, record: Enrollment) -> bool:
    return (
        record.token_update_hash == received.hash and received.seconds - (record.token_updated_at or 0) < REPEAT_SECONDS
    )
