"""Queueing a command for enrollments, and waking them."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib import metrics
from mdmlib.apple import event as documents
from mdmlib.apple.command import Command
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, PicoMDMError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.command_order import DEFAULT_PRIORITY, MAX_PRIORITY, CommandOrder
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_info import PushInfo
from mdmlib.services.push_queue import PushQueue, PushTarget
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.command_queue import INLINE_PENDING_BYTES, CommandQueueStore, pending_key
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import CommandResult, Enrollment, PendingCommand
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, transact

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

COMMAND_QUEUED_TOPIC: Final = "mdm.CommandQueued"
MAX_TARGETS: Final = 10_000
_BATCH_WRITE: Final = 25
_EVENT_TARGETS: Final = 1_000
PAYLOAD_OUTLIVES: Final = timedelta(days=2)
_T = TypeVar("_T")


@dataclass
class TargetOutcome:
    """What became of one enrollment. ``push_result`` is the ``apns-id`` under which it is woken."""

    queued: bool = False
    push_result: str | None = None
    push_error: str | None = None
    command_error: PicoMDMError | None = None


@dataclass
class EnqueueOutcome:
    """What became of a request, by enrollment id."""

    command_uuid: str | None
    request_type: str | None
    targets: dict[str, TargetOutcome] = field(default_factory=dict)


@dataclass(frozen=True)
class _Live:
    """A target as it was read, with its device for a user channel."""

    record: Enrollment
    device: Enrollment


class EnqueueService:
    """Queues commands and asks for pushes.

    A request that is repeated with the same CommandUUID and body is resumed: what was queued stays as it is, what was
    not is queued. A command that a device has answered is never put back.
    """

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        queue: CommandQueueStore,
        events: EventPublisher,
        pushes: PushQueue,
        push_certificates: PushCertificates,
        batch_client: "Callable[[], DynamoDBClient]",
        sealer: Sealer,
        settings: Settings,
        now: Callable[[], datetime],
        order: CommandOrder,
        new_event_id: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._queue = queue
        self._events = events
        self._pushes = pushes
        self._push_certificates = push_certificates
        self._batch_client = batch_client
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._order = order
        self._new_event_id = new_event_id

    def enqueue(
        self,
        command: Command,
        ids: Sequence[str],
        *,
        priority: int = DEFAULT_PRIORITY,
        push: bool = True,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
    ) -> EnqueueOutcome:
        """Queue ``command`` for the enrollments ``ids`` (at most 10,000) and wake them.

        ``priority`` is 0 to 9, 9 goes out first. What concerns one target is in its outcome, never raised: an unknown
        or checked-out enrollment does not fail the others. Raises :class:`~mdmlib.errors.BadRequestError` for what is
        wrong with the request, :class:`~mdmlib.errors.ConflictError` for a CommandUUID that has another body.
        """
        if not 0 <= priority <= MAX_PRIORITY:
            raise BadRequestError("priority is a number from 0 to 9.", code="invalid_field", field="priority")
        now = self._now()
        until = expires_at or now + timedelta(days=self._settings.command_days)
        if until <= now:
            raise BadRequestError("expires_at lies in the past.", code="invalid_field", field="expires_at")
        outcome, live = self._targets(ids)
        outcome.command_uuid, outcome.request_type = command.uuid, command.request_type
        if not live:
            return outcome
        stored, is_new = self._queue.create(
            command.uuid,
            tables.Command(
                request_type=command.request_type,
                body_hash=command.body_hash,
                order=self._order.next(priority),
                created_at=int(now.timestamp()),
                expires_at=int(until.timestamp()),
                ttl=int((until + PAYLOAD_OUTLIVES).timestamp()),
            ),
            command.body,
        )
        pending = [self._pending(command, stored, target.record, now, not_before) for target in live.values()]
        for item, error in self._write(pending, is_new=is_new):
            outcome.targets[item.enrollment_id].command_error = error
        queued = [item.enrollment_id for item in pending if not outcome.targets[item.enrollment_id].command_error]
        for id_ in self._cleared_meanwhile(live, queued):
            outcome.targets[id_].command_error = ConflictError(
                "The queue was cleared, or its device enrolled anew, while the command was queued; queue it again.",
                code="cleared",
            )
        queued = [id_ for id_ in queued if not outcome.targets[id_].command_error]
        for id_ in queued:
            outcome.targets[id_].queued = True
        if push:
            self._push([live[id_].record for id_ in queued], outcome)
        self._announce(command, queued, now)
        if queued:
            metrics.emit(
                "Command queued",
                {Metric.COMMANDS_QUEUED: len(queued)},
                command_uuid=command.uuid,
                request_type=command.request_type,
                enrollment_id=queued[0] if len(queued) == 1 else None,
            )
        return outcome

    def push(self, ids: Sequence[str], *, expiration: int | None = None) -> EnqueueOutcome:
        """Wake enrollments without queueing anything. ``expiration`` is epoch seconds, for APNs.

        A target that would take no command is not woken; its ``command_error`` says why, its ``push_error`` in words.
        """
        outcome, live = self._targets(ids)
        for target in outcome.targets.values():
            if target.command_error:
                target.push_error = target.command_error.message
        self._push([target.record for target in live.values()], outcome, expiration=expiration)
        return outcome

    def _targets(self, ids: Sequence[str]) -> tuple[EnqueueOutcome, dict[str, _Live]]:
        """Read the targets strongly; those that may not receive commands get their error."""
        unique = list(dict.fromkeys(ids))
        if not unique:
            raise BadRequestError("Name at least one enrollment.", code="no_targets", field="udid")
        if len(unique) > MAX_TARGETS:
            raise BadRequestError(
                f"One request may name {MAX_TARGETS} enrollments; split it.", code="too_many_targets", field="udid"
            )
        outcome = EnqueueOutcome(None, None, {id_: TargetOutcome() for id_ in unique})
        records = self._enrollments.get_many(unique)
        devices = records | self._devices_of(records)
        live = {}
        for id_ in unique:
            record = records.get(id_)
            device = devices.get(record.parent_id or id_) if record else None
            if record is None or record.state == "deleted":
                outcome.targets[id_].command_error = NotFoundError(
                    f"There is no enrollment {id_}: check the id with `picomdm devices`.",
                    code="unknown_enrollment",
                    field="udid",
                )
            elif device is None or not is_live(record, device):
                outcome.targets[id_].command_error = ConflictError(
                    f"The enrollment {id_} has ended; its device has to enroll again first.",
                    code="enrollment_ended",
                    field="udid",
                )
            else:
                live[id_] = _Live(record, device)
        return outcome, live

    def _pending(
        self,
        command: Command,
        stored: tables.Command,
        record: Enrollment,
        now: datetime,
        not_before: datetime | None,
    ) -> PendingCommand:
        id_, key = record.enrollment_id, pending_key(record.generation, stored.order)
        return PendingCommand(
            id_,
            key,
            command_uuid=command.uuid,
            request_type=command.request_type,
            payload=(
                self._queue.seal_pending(id_, key, command.body) if len(command.body) <= INLINE_PENDING_BYTES else None
            ),
            enqueued_at=int(now.timestamp()),
            waiting_shard=tables.shard_of(id_),
            expires_at=stored.expires_at,
            not_before=int(not_before.timestamp()) if not_before else None,
            ttl=stored.ttl,
        )

    def _write(self, items: Sequence[PendingCommand], *, is_new: bool) -> Iterator[tuple[PendingCommand, PicoMDMError]]:
        """Write pending items; yield those that failed.

        A batch has no conditions, so it is sent once and never again: between two attempts a device may have answered
        the command, and the second would put it back. What a batch left over, and every item of a request that is
        resumed, is written on the condition that it was not answered.
        """
        careful: list[PendingCommand] = []
        if is_new:
            for batch in _chunks(items, _BATCH_WRITE):
                careful += self._batch(batch)
        else:
            careful += items
        for item in careful:
            try:
                transact(
                    [
                        Check(
                            "result",
                            CommandResult(item.enrollment_id, tables.RESULT + item.command_uuid),
                            CommandResult.item.does_not_exist(),
                        ),
                        Put("pending", item, PendingCommand.item.does_not_exist()),
                    ]
                )
            except ConditionsFailedError:
                continue  # It waits already, or was answered already: that is what was asked for.
            except UnavailableError as error:
                yield item, error

    def _batch(self, items: Sequence[PendingCommand]) -> list[PendingCommand]:
        """Write up to 25 items in one attempt; return those that may not have been written."""
        requests: list[Any] = [{"PutRequest": {"Item": item.serialize()}} for item in items]
        table = self._settings.enrollment_table
        try:
            answer = self._batch_client().batch_write_item(RequestItems={table: requests})
        except (BotoCoreError, ClientError) as error:
            logger.warning("Batch of pending commands failed", error=type(error).__name__, count=len(items))
            return list(items)
        left = {
            (request["PutRequest"]["Item"]["enrollment_id"]["S"], request["PutRequest"]["Item"]["item"]["S"])
            for request in answer.get("UnprocessedItems", {}).get(table, [])
        }
        return [item for item in items if (item.enrollment_id, item.item) in left]

    def _cleared_meanwhile(self, live: Mapping[str, _Live], queued: Sequence[str]) -> list[str]:
        """Return the targets whose queues were cleared, or ended, between being read and being written."""
        records = self._enrollments.get_many(queued)
        devices = records | self._devices_of(records)

        def is_as_it_was(id_: str) -> bool:
            record, device = records.get(id_), devices.get(live[id_].device.enrollment_id)
            return (
                record is not None
                and device is not None
                and record.generation == live[id_].record.generation
                and is_live(record, device)
            )

        return [id_ for id_ in queued if not is_as_it_was(id_)]

    def _devices_of(self, records: Mapping[str, Enrollment]) -> dict[str, Enrollment]:
        """Read the devices of those records that are of user channels."""
        parents = {record.parent_id for record in records.values() if record.parent_id} - set(records)
        return self._enrollments.get_many(parents) if parents else {}

    def _push(self, records: Sequence[Enrollment], outcome: EnqueueOutcome, *, expiration: int | None = None) -> None:
        targets = []
        for record in records:
            result = outcome.targets[record.enrollment_id]
            if record.push is None:
                result.push_error = "push data missing for id"
            elif record.push_failure:
                # A push that succeeds writes nothing: only the device's next TokenUpdate ends this.
                result.push_error = f"APNs refused the push token: {record.push_failure}"
            elif not self._has_certificate(record.topic):
                result.push_error = f"there is no push certificate for the topic {record.topic}"
            else:
                push = PushInfo.open(record.push, self._sealer, record.enrollment_id)
                result.push_result = str(uuid.uuid4())
                targets.append(
                    PushTarget(
                        enrollment_id=record.enrollment_id,
                        topic=record.topic,
                        token=push.token,
                        magic=push.magic,
                        apns_id=result.push_result,
                        expiration=expiration,
                    )
                )
        if not targets:
            return
        for id_, error in self._pushes.send(targets).items():
            if error:
                outcome.targets[id_].push_result, outcome.targets[id_].push_error = None, error

    def _has_certificate(self, topic: str) -> bool:
        try:
            self._push_certificates.get(topic)
        except NotFoundError:
            return False
        return True

    def _announce(self, command: Command, queued: Sequence[str], now: datetime) -> None:
        """Publish ``mdm.CommandQueued``, one event per 1,000 enrollments."""
        for chunk in _chunks(queued, _EVENT_TARGETS):
            document = {
                "topic": COMMAND_QUEUED_TOPIC,
                "event_id": self._new_event_id(),
                "created_at": documents.rfc3339nano(now),
                "command_event": {
                    "command_uuid": command.uuid,
                    "request_type": command.request_type,
                    "enrollment_ids": list(chunk),
                },
            }
            try:
                self._events.publish(MDMEvent.from_document(document))
            except UnavailableError:
                # The command is queued and its caller has to hear that; asking again would queue nothing more.
                logger.error("mdm.CommandQueued not published", command_uuid=command.uuid)


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
