"""Commands that are not sent: their device could do them when they were queued, and cannot any more.

That happens when a device has been updated meanwhile: macOS 27 knows no ScheduleOSUpdate. Such a command is settled
here, as if the device had refused it: it leaves the queue, its result has the status ``NotSent`` and says why, and
``mdm.CommandNotSent`` is published. All of it is one transaction, with the event in the outbox, for the device knows
nothing of it and would never bring it again.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from mdmlib.apple import event as documents
from mdmlib.apple.command import Command
from mdmlib.apple.command_target import Target
from mdmlib.observability import logger
from mdmlib.services.command_targets import unsuitable_for
from mdmlib.services.events import EventPublisher, MDMEvent, outbox_item
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.command_queue import NOT_SENT, CommandQueueStore, place_of
from mdmlib.store.tables import CommandResult, PendingCommand
from mdmlib.store.transactions import ConditionsFailedError, Delete, Put, transact

COMMAND_NOT_SENT_TOPIC: Final = "mdm.CommandNotSent"
ERROR_DOMAIN: Final = "PicoMDM"
UNSUITABLE: Final = 1
"""The error's code in its domain."""
_DAY: Final = 86_400


class UnsentCommands:
    """Settles commands that their devices cannot do any more."""

    def __init__(
        self,
        *,
        queue: CommandQueueStore,
        events: EventPublisher,
        settings: Settings,
        new_event_id: Callable[[], str],
    ) -> None:
        self._queue = queue
        self._events = events
        self._settings = settings
        self._new_event_id = new_event_id

    def refuse(self, pending: PendingCommand, payload: bytes, target: Target, now: datetime) -> bool:
        """Settle a command if its device, as it is now, cannot do it; say whether it is settled.

        The device may have been given it before, and have deferred it: a report that comes after all is taken, and
        replaces this result.
        """
        reason = unsuitable_for(Command(pending.command_uuid, pending.request_type, payload), target)
        if reason is None:
            return False
        seconds = int(now.timestamp())
        event_id = self._new_event_id()
        result = CommandResult(
            pending.enrollment_id,
            tables.RESULT + pending.command_uuid,
            command_uuid=pending.command_uuid,
            request_type=pending.request_type,
            status=NOT_SENT,
            event_id=event_id,
            error_chain=[{"ErrorCode": UNSUITABLE, "ErrorDomain": ERROR_DOMAIN, "USEnglishDescription": reason}],
            reported_at=seconds,
            ttl=seconds + self._settings.result_days * _DAY,
        )
        outbox = outbox_item(MDMEvent.from_document(_document(pending, reason, event_id, now)))
        try:
            transact(
                [
                    Delete("pending", pending, PendingCommand.item.exists()),
                    Put("result", result, CommandResult.item.does_not_exist()),
                    Put("outbox", outbox),
                    *place_of(pending),
                ]
            )
        except ConditionsFailedError:
            return True  # It was cleared or settled meanwhile: it is not to be sent either.
        self._events.publish_outbox(outbox)
        logger.warning(
            "Command not sent", enrollment_id=pending.enrollment_id, command_uuid=pending.command_uuid, reason=reason
        )
        return True


def _document(pending: PendingCommand, reason: str, event_id: str, now: datetime) -> dict[str, Any]:
    return {
        "topic": COMMAND_NOT_SENT_TOPIC,
        "event_id": event_id,
        "created_at": documents.rfc3339nano(now),
        "command_event": {
            "command_uuid": pending.command_uuid,
            "request_type": pending.request_type,
            "enrollment_ids": [pending.enrollment_id],
            "reason": reason,
        },
    }
