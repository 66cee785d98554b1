"""The events of check-in messages."""

from mdmlib.apple import event as documents
from mdmlib.apple.checkin import Authenticate, DeclarativeManagement, NewerMessage, TokenUpdate
from mdmlib.services.checkin_message import Received
from mdmlib.services.events import EventPublisher, MDMEvent, holds_secret
from mdmlib.store.tables import Enrollment, OutboxEvent


class CheckinEvents:
    """Makes a message's event and publishes it: after its effect is committed, before it is answered."""

    def __init__(self, events: EventPublisher) -> None:
        self._events = events

    def of(
        self,
        received: Received,
        record: Enrollment | None,
        *,
        tally: int | None = None,
        event_id: str | None = None,
    ) -> MDMEvent:
        """Return the event of a message; ``record`` is its enrollment's, as far as it is known."""
        message, event_id = received.message, event_id or received.event_id
        serial_number = record.serial_number if record else None
        if isinstance(message, Authenticate) and message.serial_number:
            serial_number = message.serial_number
        document = documents.mdm_event(
            message,
            event_id=event_id,
            created_at=documents.uuid7_time(event_id),
            url_params=received.url_params,
            token_update_tally=tally,
            serial_number=serial_number,
        )
        # Nobody knows what a message of a newer release holds; and in base64 a status report's words cannot be seen.
        secret = isinstance(message, NewerMessage) or (
            isinstance(message, DeclarativeManagement) and holds_secret(message.data)
        )
        return self._events.prepare(document, message.body, secret=secret)

    def publish(self, received: Received, record: Enrollment | None, *, tally: int | None = None) -> None:
        """Publish a message's event. Raises :class:`~mdmlib.errors.UnavailableError`."""
        self._events.publish(self.of(received, record, tally=tally))

    def publish_repeat(self, received: Received, event_id: str, record: Enrollment) -> None:
        """Publish again what may have been lost between commit and publication, under its first id."""
        tally = int(record.token_update_tally) if isinstance(received.message, TokenUpdate) else None
        self._events.publish(self.of(received, record, tally=tally, event_id=event_id))

    def publish_outbox(self, outbox: OutboxEvent) -> None:
        """Publish an event that was committed with a record."""
        self._events.publish_outbox(outbox)
