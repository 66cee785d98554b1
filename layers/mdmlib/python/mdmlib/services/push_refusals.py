"""What follows when APNs refuses a push token for good."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pynamodb.exceptions import UpdateError

from mdmlib.apple.enrollment_id import EnrollmentID, EnrollmentType
from mdmlib.apple.event import ids, rfc3339nano
from mdmlib.clients.apns import Outcome
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.push_info import PushInfo, push_token_hash
from mdmlib.services.push_queue import PushTarget
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment

PUSH_FAILED_TOPIC: Final = "mdm.PushFailed"


class PushRefusals:
    """Notes refused tokens in their enrollments' records, and publishes them."""

    def __init__(
        self, *, enrollments: EnrollmentStore, events: EventPublisher, sealer: Sealer, now: Callable[[], datetime]
    ) -> None:
        self._enrollments = enrollments
        self._events = events
        self._sealer = sealer
        self._now = now

    def settle(self, target: PushTarget, outcome: Outcome, *, insists: bool) -> PushTarget | None:
        """Note that APNs will never take this token, and publish it. Return a target to push to instead.

        A refusal may be about a token that is no longer the enrollment's; APNs' timestamp may also be older than the
        TokenUpdate that told us of the very same token: then it is tried again, unless APNs ``insists``. Safe to
        repeat: the event is the same.
        """
        record = self._enrollments.get(target.enrollment_id)
        if record is None or record.push is None:
            return None
        refused = push_token_hash(target.token)
        if record.push_token_hash != refused:
            current = PushInfo.open(record.push, self._sealer, record.enrollment_id)
            return PushTarget(
                target.enrollment_id,
                record.topic or target.topic,
                current.token,
                current.magic,
                target.apns_id,
                target.expiration,
            )
        told_after = outcome.timestamp and (record.token_updated_at or 0) > outcome.timestamp.timestamp()
        if told_after and not insists:
            return target
        push_id = target.apns_id.lower()
        is_repeated = record.push_failed_by == push_id and record.push_failed_at
        failed_at = int(record.push_failed_at if is_repeated else self._now().timestamp())
        try:
            record.update(
                [
                    Enrollment.push_failure.set(outcome.reason),
                    Enrollment.push_failed_at.set(failed_at),
                    Enrollment.push_failed_by.set(push_id),
                ],
                condition=Enrollment.item.exists() & (Enrollment.push_token_hash == refused),
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return None  # A TokenUpdate, or the end of the enrollment, was quicker.
        self._events.publish(MDMEvent.from_document(self._push_failed(record, target, outcome, failed_at)))
        return None

    def _push_failed(self, record: Enrollment, target: PushTarget, outcome: Outcome, failed_at: int) -> dict[str, Any]:
        """Return the document of an ``mdm.PushFailed`` event.

        Its id is the push's: when the event is published again because the message came again, it is the same event.
        """
        type_ = EnrollmentType(record.type)
        part: dict[str, Any] = {
            "apns_id": target.apns_id,
            "reason": outcome.reason,
            "status": outcome.status,
            "unregistered_at": rfc3339nano(outcome.timestamp) if outcome.timestamp else None,
            "ids": ids(EnrollmentID(record.enrollment_id, type_, record.parent_id)),
            "enrollment_type": type_.value,
            "serial_number": record.serial_number,
        }
        return {
            "topic": PUSH_FAILED_TOPIC,
            "event_id": target.apns_id.lower(),
            "created_at": rfc3339nano(datetime.fromtimestamp(failed_at, UTC)),
            "push_event": {name: value for name, value in part.items() if value is not None},
        }
