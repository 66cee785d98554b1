"""Blocking: a device that is blocked is told to un-enroll whenever it comes, until an administrator unblocks it."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from pynamodb.exceptions import UpdateError

from mdmlib.apple.event import rfc3339nano
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Enrollment

BLOCKED_TOPIC: Final = "mdm.DeviceBlocked"
UNBLOCKED_TOPIC: Final = "mdm.DeviceUnblocked"


class Blocking:
    """Blocks and unblocks devices. Their queues stay as they are."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        events: EventPublisher,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._events = events
        self._now = now
        self._new_event_id = new_event_id

    def block(self, enrollment_id: str) -> Enrollment:
        """Block a device and its user channels; a push makes it come and hear of it.

        Safe to repeat, which publishes again. Raises :class:`~mdmlib.errors.NotFoundError` for an unknown enrollment,
        :class:`~mdmlib.errors.BadRequestError` for a user channel, and :class:`~mdmlib.errors.UnavailableError`.
        """
        return self._set(enrollment_id, blocked=True)

    def unblock(self, enrollment_id: str) -> Enrollment:
        """Let a device come back: one that has not come since it was blocked goes on, another has to enroll again."""
        return self._set(enrollment_id, blocked=False)

    def _set(self, enrollment_id: str, *, blocked: bool) -> Enrollment:
        record = self._enrollments.get(enrollment_id)
        if record is None or record.state == "deleted":
            raise _unknown(enrollment_id)
        if record.parent_id:
            raise BadRequestError(
                f"Only devices are blocked, with all their user channels: block {record.parent_id}.",
                code="device_channel_only",
                field="id",
            )
        action = Enrollment.blocked.set(True) if blocked else Enrollment.blocked.remove()
        try:
            record.update([action], condition=Enrollment.item.exists() & (Enrollment.state != "deleted"))
        except UpdateError as error:
            if not condition_failed(error):
                raise
            raise _unknown(enrollment_id) from error
        logger.info("Device blocked" if blocked else "Device unblocked", enrollment_id=enrollment_id)
        self._publish(record, BLOCKED_TOPIC if blocked else UNBLOCKED_TOPIC)
        return record

    def _publish(self, record: Enrollment, topic: str) -> None:
        serial_number = {"serial_number": record.serial_number} if record.serial_number else {}
        document = {
            "topic": topic,
            "event_id": self._new_event_id(),
            "created_at": rfc3339nano(self._now()),
            "device_event": {
                "ids": {"id": record.enrollment_id, "type": record.type},
                "enrollment_type": record.type,
                **serial_number,
            },
        }
        self._events.publish(MDMEvent.from_document(document))


def _unknown(enrollment_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no enrollment {enrollment_id}; its id is the device's UDID, or its EnrollmentID.",
        code="unknown_enrollment",
        field="id",
    )
