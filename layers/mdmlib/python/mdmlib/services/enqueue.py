"""Queueing a command for enrollments, and waking them."""

import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Final

from mdmlib import metrics
from mdmlib.apple import event as documents
from mdmlib.apple.command import Command
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.command_order import DEFAULT_PRIORITY, MAX_PRIORITY, CommandOrder
from mdmlib.services.command_targets import (
    MAX_TARGETS,
    CommandTargets,
    EnqueueOutcome,
    Live,
    Suitability,
    TargetOutcome,
)
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.pending_writer import PendingItem, PendingWriter, chunks
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_info import PushInfo
from mdmlib.services.push_queue import PushQueue, PushTarget
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.command_queue import INLINE_PENDING_BYTES, CommandQueueStore, pending_key
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentHead, EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import CommandResult, Enrollment, PendingCommand
from mdmlib.store.transactions import Check, Put, Write, transact

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["MAX_TARGETS", "EnqueueOutcome", "EnqueueService", "TargetOutcome"]

COMMAND_QUEUED_TOPIC: Final = "mdm.CommandQueued"
MAX_DEDUP_KEY: Final = 200
_EVENT_TARGETS: Final = 1_000
PAYLOAD_OUTLIVES: Final = timedelta(days=2)
_CREATED: Final = 500
"""So many commands are remembered as stored."""


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
        self._targets = CommandTargets(enrollments=enrollments)
        self._writer = PendingWriter(table=settings.enrollment_table, batch_client=batch_client)
        self._queue = queue
        self._events = events
        self._pushes = pushes
        self._push_certificates = push_certificates
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._order = order
        self._new_event_id = new_event_id
        self._created: OrderedDict[str, tables.Command] = OrderedDict()

    def enqueue(
        self,
        command: Command,
        ids: Sequence[str],
        *,
        priority: int = DEFAULT_PRIORITY,
        push: bool = True,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        dedup_key: str | None = None,
        force: bool = False,
    ) -> EnqueueOutcome:
        """Queue ``command`` for the enrollments ``ids`` (at most 10,000) and wake them.

        ``priority`` is 0 to 9, 9 goes out first. With a ``dedup_key`` it is refused where a command with the same key
        waits. ``force`` queues it also for those that cannot do it, as far as is known.

        What concerns one target is in its outcome, never raised: an unknown or checked-out enrollment does not fail the
        others. Raises :class:`~mdmlib.errors.BadRequestError` for what is wrong with the request,
        :class:`~mdmlib.errors.ConflictError` for a CommandUUID that has another body.
        """
        until = self._until(priority, expires_at, not_before, dedup_key)
        outcome, live = self._targets.read(ids)
        outcome.command_uuid, outcome.request_type = command.uuid, command.request_type
        suitable = live if force else _suitable(command, live, outcome)
        if not suitable:
            return outcome
        stored, is_new = self._create(command, priority, until, dedup_key)
        self._queue_for(command, stored, suitable, outcome, not_before=not_before, is_new=is_new, forced=force)
        if push:
            self._push([live[id_].record for id_, target in outcome.targets.items() if target.queued], outcome)
        return outcome

    def store(
        self,
        command: Command,
        *,
        priority: int = DEFAULT_PRIORITY,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        dedup_key: str | None = None,
    ) -> None:
        """Store a command that is queued later, by :meth:`enqueue_stored`. Raises as :meth:`enqueue` does."""
        self._create(command, priority, self._until(priority, expires_at, not_before, dedup_key), dedup_key)

    def enqueue_stored(
        self, command_uuid: str, ids: Sequence[str], *, push: bool, not_before: datetime | None, force: bool
    ) -> EnqueueOutcome:
        """Queue a command that :meth:`store` stored. Safe to repeat: nothing that was answered is put back.

        Raises :class:`~mdmlib.errors.NotFoundError` when its life is over.
        """
        command, stored = self._queue.load(command_uuid)
        if stored.expires_at <= self._now().timestamp():
            raise NotFoundError(f"The life of the command {command_uuid} is over.", code="command_expired")
        outcome, live = self._targets.read(ids)
        outcome.command_uuid, outcome.request_type = command.uuid, command.request_type
        suitable = live if force else _suitable(command, live, outcome)
        if suitable:
            self._queue_for(command, stored, suitable, outcome, not_before=not_before, is_new=False, forced=force)
        if push:
            self._push([live[id_].record for id_, target in outcome.targets.items() if target.queued], outcome)
        return outcome

    def enqueue_beside(self, commands: Sequence[Command], target: Live, *, beside: Sequence[Write]) -> None:
        """Queue several commands for one enrollment, in their order, in one transaction with other writes.

        The enrollment has to be in the life in which it was read. Nobody is woken or told: :meth:`tell_of` does that,
        and whoever calls both repeats the latter when it may have been left out. Raises
        :class:`~mdmlib.store.transactions.ConditionsFailedError`, with ``record`` when the enrollment ended or its
        queue was cleared, ``<number> answered`` for a command that the device has answered already, and the names in
        ``beside``.
        """
        record = target.record
        id_, now = record.enrollment_id, self._now()
        alive = (Enrollment.generation == record.generation) & Enrollment.state.is_in(*LIVE_STATES)
        writes = [*beside, Check("record", Enrollment(id_, tables.RECORD), alive)]
        until = now + timedelta(days=self._settings.command_days)
        for number, command in enumerate(commands):
            stored = self._created_once(command, until)
            item = self._item(command, stored, target, forced=False)
            answered = CommandResult(id_, tables.RESULT + command.uuid)
            writes += [
                Put("pending", self._whole(item, command, stored, now, not_before=None)),
                Check(f"{number} answered", answered, CommandResult.item.does_not_exist()),
            ]
        transact(writes)

    def tell_of(self, commands: Sequence[Command], target: Live) -> None:
        """Publish that commands were queued by :meth:`enqueue_beside`, and wake the device."""
        id_, now = target.record.enrollment_id, self._now()
        try:
            self._events.publish_all([self._event(command, [id_], now) for command in commands])
        except UnavailableError:
            logger.error("mdm.CommandQueued not published", enrollment_id=id_)
        metrics.emit("Commands queued", {Metric.COMMANDS_QUEUED: len(commands)}, enrollment_id=id_)
        self.wake(target)

    def wake(self, target: Live) -> None:
        """Wake an enrollment that was read a moment ago; what stands in the way of that is nobody's concern here."""
        id_ = target.record.enrollment_id
        self._push([target.record], EnqueueOutcome(None, None, {id_: TargetOutcome()}))

    def _created_once(self, command: Command, until: datetime) -> tables.Command:
        """Store a command, or return the one that is stored. What many devices get is stored by the first of them."""
        stored = self._created.get(command.uuid)
        if stored is None:
            stored, _ = self._create(command, DEFAULT_PRIORITY, until, None)
            self._created[command.uuid] = stored
            while len(self._created) > _CREATED:
                self._created.popitem(last=False)
        return stored

    def push(self, ids: Sequence[str], *, expiration: int | None = None) -> EnqueueOutcome:
        """Wake enrollments without queueing anything. ``expiration`` is epoch seconds, for APNs.

        A target that would take no command is not woken; its ``command_error`` says why, its ``push_error`` in words.
        """
        outcome, live = self._targets.read(ids)
        for target in outcome.targets.values():
            if target.command_error:
                target.push_error = target.command_error.message
        self._push([target.record for target in live.values()], outcome, expiration=expiration)
        return outcome

    def _until(
        self, priority: int, expires_at: datetime | None, not_before: datetime | None, dedup_key: str | None
    ) -> datetime:
        """Check a request's options; return when its command expires."""
        if not 0 <= priority <= MAX_PRIORITY:
            raise BadRequestError("priority is a number from 0 to 9.", code="invalid_field", field="priority")
        now = self._now()
        until = expires_at or now + timedelta(days=self._settings.command_days)
        if until <= now:
            raise BadRequestError("expires_at lies in the past.", code="invalid_field", field="expires_at")
        if not_before and not_before >= until:
            raise BadRequestError(
                "not_before lies behind the end of the command's life.", code="invalid_field", field="not_before"
            )
        if dedup_key is not None and not (
            0 < len(dedup_key) <= MAX_DEDUP_KEY and dedup_key.isprintable() and "#" not in dedup_key
        ):
            raise BadRequestError(
                f"dedup_key is 1 to {MAX_DEDUP_KEY} printable characters, none of them a #.",
                code="invalid_field",
                field="dedup_key",
            )
        return until

    def _create(
        self, command: Command, priority: int, until: datetime, dedup_key: str | None
    ) -> tuple[tables.Command, bool]:
        """Store the command once for all its targets; say whether it is new."""
        return self._queue.create(
            command.uuid,
            tables.Command(
                request_type=command.request_type,
                body_hash=command.body_hash,
                order=self._order.next(priority),
                created_at=int(self._now().timestamp()),
                expires_at=int(until.timestamp()),
                dedup_key=dedup_key,
                ttl=int((until + PAYLOAD_OUTLIVES).timestamp()),
            ),
            command.body,
        )

    def _queue_for(
        self,
        command: Command,
        stored: tables.Command,
        live: dict[str, Live],
        outcome: EnqueueOutcome,
        *,
        not_before: datetime | None,
        is_new: bool,
        forced: bool,
    ) -> None:
        """Write the pending items, and tell of it."""
        now = self._now()
        items = [self._item(command, stored, target, forced=forced) for target in live.values()]

        def whole(item: PendingItem) -> PendingCommand:
            return self._whole(item, command, stored, now, not_before=not_before)

        for id_, error in self._writer.write(whole, items, is_new=is_new, now=int(now.timestamp())):
            outcome.targets[id_].command_error = error
        queued = [id_ for id_ in live if not outcome.targets[id_].command_error]
        for id_ in self._targets.cleared_meanwhile(live, queued):
            outcome.targets[id_].command_error = ConflictError(
                "The queue was cleared, or its device enrolled anew, while the command was queued; queue it again.",
                code="cleared",
            )
        queued = [id_ for id_ in queued if not outcome.targets[id_].command_error]
        for id_ in queued:
            outcome.targets[id_].queued = True
        self._announce(command, queued, now)
        if queued:
            metrics.emit(
                "Command queued",
                {Metric.COMMANDS_QUEUED: len(queued)},
                command_uuid=command.uuid,
                request_type=command.request_type,
                enrollment_id=queued[0] if len(queued) == 1 else None,
            )

    def _item(self, command: Command, stored: tables.Command, target: Live, *, forced: bool) -> PendingItem:
        id_, key = target.record.enrollment_id, pending_key(target.record.generation, stored.order)
        inline = len(command.body) <= INLINE_PENDING_BYTES
        return PendingItem(
            id_,
            key,
            payload=self._queue.seal_pending(id_, key, command.body) if inline else None,
            suits=None if forced else str(target.target),
        )

    @staticmethod
    def _whole(
        item: PendingItem, command: Command, stored: tables.Command, now: datetime, *, not_before: datetime | None
    ) -> PendingCommand:
        """Return a pending item whole."""
        return PendingCommand(
            item.enrollment_id,
            item.item,
            command_uuid=command.uuid,
            request_type=command.request_type,
            payload=item.payload,
            enqueued_at=int(now.timestamp()),
            waiting_shard=tables.shard_of(item.enrollment_id),
            expires_at=stored.expires_at,
            not_before=int(not_before.timestamp()) if not_before else None,
            dedup_key=stored.dedup_key,
            suits=item.suits,
            ttl=stored.ttl,
        )

    def _push(
        self, records: Sequence[EnrollmentHead | Enrollment], outcome: EnqueueOutcome, *, expiration: int | None = None
    ) -> None:
        targets = []
        has_certificate = cache(self._has_certificate)
        for record in records:
            result = outcome.targets[record.enrollment_id]
            if record.push is None or record.topic is None:
                result.push_error = "push data missing for id"
            elif record.push_failure:
                # A push that succeeds writes nothing: only the device's next TokenUpdate ends this.
                result.push_error = f"APNs refused the push token: {record.push_failure}"
            elif not has_certificate(record.topic):
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
        for chunk in chunks(queued, _EVENT_TARGETS):
            try:
                self._events.publish_or_keep(self._event(command, chunk, now))
            except UnavailableError as error:
                logger.error("mdm.CommandQueued not published", command_uuid=command.uuid)
                if not command.is_named_by_us:
                    raise UnavailableError(
                        "The command is queued, but nobody could be told of it: send it again, with the same "
                        "CommandUUID, which queues nothing more.",
                        code="event_unpublished",
                    ) from error
                # Sent again it would be another command, and the device would carry out both.

    def _event(self, command: Command, enrollment_ids: Sequence[str], now: datetime) -> MDMEvent:
        return MDMEvent.from_document(
            {
                "topic": COMMAND_QUEUED_TOPIC,
                "event_id": self._new_event_id(),
                "created_at": documents.rfc3339nano(now),
                "command_event": {
                    "command_uuid": command.uuid,
                    "request_type": command.request_type,
                    "enrollment_ids": list(enrollment_ids),
                },
            }
        )


def _suitable(command: Command, live: dict[str, Live], outcome: EnqueueOutcome) -> dict[str, Live]:
    """Return the targets that can do the command, as far as is known; the others get their error."""
    suitability = Suitability(command)
    suitable = {}
    for id_, target in live.items():
        if refusal := suitability.refusal(target):
            outcome.targets[id_].command_error = refusal
        else:
            suitable[id_] = target
    return suitable
