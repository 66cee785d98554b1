"""DeclarativeManagement: devices fetch their declarations and report on them, here or at another server.

Apple's page: https://developer.apple.com/documentation/devicemanagement/declarative-management. A declaration that the
device should not have is 404, a status report that cannot be read is 400: after 5xx the device would send it again.
"""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from mdmlib.apple import event as documents
from mdmlib.apple.checkin import DeclarativeManagement
from mdmlib.apple.declarations import DeclarationSet, decode_status_report
from mdmlib.errors import NotFoundError
from mdmlib.services.checkin_message import CheckinAnswer, Received
from mdmlib.services.events import EventPublisher, holds_secret
from mdmlib.store.tables import Enrollment

STATUS_REPORT_TOPIC: Final = "ddm.StatusReport"

STATUS: Final = "status"
_DECLARATION: Final = "declaration/"
_MAX_DOCUMENT_BYTES: Final = 64 * 1024


class DeclarationServer(Protocol):
    """Answers DeclarativeManagement messages of enrollments that were let in."""

    def answer(self, received: Received, message: DeclarativeManagement, record: Enrollment) -> CheckinAnswer | None:
        """Return what the device gets: JSON, or None for a status report that was taken.

        Raises :class:`~mdmlib.errors.NotFoundError`, :class:`~mdmlib.errors.MalformedBodyError` or
        :class:`~mdmlib.errors.UnavailableError`.
        """


class Declarations:
    """The declarations of this deployment."""

    def __init__(
        self,
        *,
        events: EventPublisher,
        declarations_of: Callable[[Enrollment], DeclarationSet],
        new_event_id: Callable[[], str],
    ) -> None:
        self._events = events
        self._declarations_of = declarations_of
        self._new_event_id = new_event_id

    def answer(self, received: Received, message: DeclarativeManagement, record: Enrollment) -> CheckinAnswer | None:
        """Answer out of the enrollment's own set."""
        if message.endpoint == STATUS:
            self._publish_status(received, message, record)
            return None
        declarations = self._declarations_of(record)
        if message.endpoint == "tokens":
            changed_at = datetime.fromtimestamp(record.authenticated_at or record.enrolled_at or 0, UTC)
            return CheckinAnswer.json(declarations.tokens_response(changed_at))
        if message.endpoint == "declaration-items":
            return CheckinAnswer.json(declarations.items_response())
        if message.endpoint.startswith(_DECLARATION):
            kind, _, identifier = message.endpoint.removeprefix(_DECLARATION).partition("/")
            if declaration := declarations.find(kind, identifier):
                return CheckinAnswer.json(declaration.body)
            raise NotFoundError("The device has no such declaration.", code="unknown_declaration")
        raise NotFoundError("Declarative management has no such endpoint.", code="unknown_endpoint")

    def _publish_status(self, received: Received, message: DeclarativeManagement, record: Enrollment) -> None:
        """Publish ``ddm.StatusReport``: the report as it is, and parsed, where everybody may read it."""
        report = decode_status_report(message.data)
        enrollment_id = message.enrollment_id
        open_to_all = len(message.data) <= _MAX_DOCUMENT_BYTES and not holds_secret(message.data)
        document = {
            "topic": STATUS_REPORT_TOPIC,
            # The message has an event of its own, of that id.
            "event_id": self._new_event_id(),
            "created_at": documents.rfc3339nano(received.at),
            "status_event": {
                "ids": documents.ids(enrollment_id),
                "enrollment_type": enrollment_id.type.value,
                **({"serial_number": record.serial_number} if record.serial_number else {}),
                "full_report": report.get("FullReport") is True,
                **({"status_report": report} if open_to_all else {}),
                "raw_payload": b64encode(message.data).decode(),
            },
        }
        self._events.publish(self._events.prepare(document, message.data))


def no_declarations(_record: Enrollment) -> DeclarationSet:
    """Return the set of an enrollment that has no declarations."""
    return DeclarationSet()
