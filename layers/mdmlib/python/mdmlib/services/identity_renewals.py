"""Renewal of identities: found in time, queued, and told of as long as it does not succeed.

Once a day all identities that end soon are looked at. A device whose identity does is given a command that renews it
(:mod:`mdmlib.services.renewal_profiles`), one at a time: while it waits, the device is woken every day; when the device
has refused it, or has done it and still uses the old identity, another one follows after some days. What stays
unrenewed is told of by ``mdm.IdentityExpiring``, at each stage once, and counted for an alarm.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import UpdateError

from mdmlib import metrics
from mdmlib.apple.enrollment_id import EnrollmentID, EnrollmentType
from mdmlib.apple.event import RANDOM_BYTES, ids, rfc3339nano, uuid7
from mdmlib.errors import MalformedBodyError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.command_order import CommandOrder
from mdmlib.services.enqueue import PAYLOAD_OUTLIVES, EnqueueService
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.vitals import RENEW_IDENTITIES
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.command_queue import RENEWAL_PROFILE, dedup_key_item, pending_key, renewal_dedup_key
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Command, DedupKey, Enrollment, PendingCommand
from mdmlib.store.transactions import ConditionsFailedError, Put, Update, transact

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

IDENTITY_EXPIRING_TOPIC: Final = "mdm.IdentityExpiring"
URGENT_DAYS: Final = 7
"""What ends sooner, and still is not renewed, somebody has to look at."""

_STAGES: Final = (30, URGENT_DAYS, 0)
_LONGEST_PAUSE_DAYS: Final = 7
_SLACK: Final = timedelta(hours=6)
"""Daily is not to the minute: a pause of a day is over when the next pass comes a little early."""
_AFTERWARDS: Final = timedelta(days=2)
"""For how long after the end of its grace an identity is still looked at, so that none is missed."""
_PAGE: Final = 100
_PRIORITY: Final = 0
"""The least: a device that enrolls anew for it drops what waits behind."""
_DAY: Final = 86_400


@dataclass(frozen=True)
class _Page:
    """One message's work: a part of a shard of the index."""

    shard: str
    after: Any = None
    """DynamoDB's key of the last entry before."""

    @property
    def body(self) -> str:
        return json.dumps({"task": RENEW_IDENTITIES, "shard": self.shard, "after": self.after})


class IdentityRenewals:
    """Looks at all identities that end soon, a page a message, so that a million of them are no harder than one."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        enqueue: EnqueueService,
        events: EventPublisher,
        sqs_client: "Callable[[], SQSClient]",
        settings: Settings,
        now: Callable[[], datetime],
        order: CommandOrder,
        new_uuid: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._enqueue = enqueue
        self._events = events
        self._sqs_client = sqs_client
        self._settings = settings
        self._now = now
        self._order = order
        self._new_uuid = new_uuid

    @property
    def days(self) -> int:
        """So many days before its end an identity is renewed: never before half of its life is over."""
        return min(self._settings.renewal_days, self._settings.identity_days // 2)

    def start(self) -> None:
        """Ask for a look at every shard. Raises :class:`~mdmlib.errors.UnavailableError`."""
        if self.days > 0:
            for shard in range(tables.SHARDS):
                self._request(_Page(f"{shard:x}"))

    def receive(self, message: Any) -> None:  # noqa: ANN401 - decoded JSON
        """Do what a message of :meth:`start` asks for, and ask for the rest of its shard.

        Safe to repeat: what was done is seen. Raises :class:`~mdmlib.errors.UnavailableError`; the message stays then.
        """
        page = _decode(message)
        now = self._now()
        candidates, after = self._read(page, now)
        records = self._enrollments.get_many(candidates)
        due = [record for record in records.values() if self._is_due(record, now)]
        waiting = self._waiting(due, now)
        for record in due:
            self._tell(record, now)
            if record.enrollment_id not in waiting and self._may_try(record, now) and self._queue(record, now):
                waiting.add(record.enrollment_id)
        self._wake(waiting)
        if unrenewed := sum(_days_left(record, now) <= URGENT_DAYS for record in due):
            metrics.emit("Identities end and are not renewed", {Metric.UNRENEWED_IDENTITIES: unrenewed})
        if after:
            self._request(_Page(page.shard, after))

    def _read(self, page: _Page, now: datetime) -> tuple[list[str], Any]:
        """Return ids of a page of enrollments whose identities end soon, and where the next page begins, or None."""
        grace = timedelta(days=self._settings.identity_grace_days)
        found = Enrollment.expiring.query(
            page.shard,
            Enrollment.identity_not_after.between(
                int((now - grace - _AFTERWARDS).timestamp()), int((now + timedelta(days=self.days)).timestamp())
            ),
            limit=_PAGE,
            page_size=_PAGE,
            last_evaluated_key=page.after,
        )
        return [entry.enrollment_id for entry in found], found.last_evaluated_key

    def _is_due(self, record: Enrollment, now: datetime) -> bool:
        return (
            record.state in LIVE_STATES
            and not record.blocked
            and record.identity is not None
            and _days_left(record, now) <= self.days
        )

    def _waiting(self, records: Iterable[Enrollment], now: datetime) -> set[str]:
        """Return the ids of those for which a renewal waits already."""
        keys = [
            (record.enrollment_id, dedup_key_item(record.generation, renewal_dedup_key(record.identity)))
            for record in records
        ]
        found = DedupKey.batch_get(keys, consistent_read=True) if keys else ()
        return {item.enrollment_id for item in found if not item.ttl or item.ttl > now.timestamp()}

    def _may_try(self, record: Enrollment, now: datetime) -> bool:
        """Say whether the pause after the last attempt is over: one day, then two, then four, then a week."""
        attempts = int(record.renewal_attempts or 0)
        if not attempts:
            return True
        pause = timedelta(days=min(2 ** (attempts - 1), _LONGEST_PAUSE_DAYS)) - _SLACK
        return now.timestamp() >= record.renewal_queued_at + pause.total_seconds()

    def _queue(self, record: Enrollment, now: datetime) -> bool:
        """Queue a renewal; False when the enrollment is another by now, or somebody else has queued one."""
        id_, uuid, order = record.enrollment_id, self._new_uuid(), self._order.next(_PRIORITY)
        dedup_key, seconds = renewal_dedup_key(record.identity), int(now.timestamp())
        until = self._last_use(record, now)
        expires_at, ttl = int(until.timestamp()), int((until + PAYLOAD_OUTLIVES).timestamp())
        request_type = "InstallProfile"
        unchanged = (
            (Enrollment.identity == record.identity)
            & (Enrollment.generation == record.generation)
            & Enrollment.state.is_in(*LIVE_STATES)
        )
        attempt = [
            Enrollment.renewal_queued_at.set(seconds),
            Enrollment.renewal_attempts.set(int(record.renewal_attempts or 0) + 1),
        ]
        command = Command(
            tables.COMMAND_PARTITION + uuid,
            tables.RECORD,
            request_type=request_type,
            # Of no body: nobody else's command is the same.
            body_hash="",
            order=order,
            created_at=seconds,
            expires_at=expires_at,
            dedup_key=dedup_key,
            ttl=ttl,
        )
        pending = PendingCommand(
            id_,
            pending_key(record.generation, order),
            command_uuid=uuid,
            request_type=request_type,
            enqueued_at=seconds,
            waiting_shard=tables.shard_of(id_),
            expires_at=expires_at,
            dedup_key=dedup_key,
            kind=RENEWAL_PROFILE,
            ttl=ttl,
        )
        place = DedupKey(id_, dedup_key_item(record.generation, dedup_key), command_uuid=uuid, ttl=expires_at)
        try:
            transact(
                [
                    Update("record", Enrollment(id_, tables.RECORD), attempt, unchanged),
                    Put("command", command, Command.item.does_not_exist()),
                    Put("dedup", place, DedupKey.item.does_not_exist() | (DedupKey.ttl <= seconds)),
                    Put("pending", pending, PendingCommand.item.does_not_exist()),
                ]
            )
        except ConditionsFailedError:
            return False
        metrics.emit("Renewal of an identity queued", {Metric.RENEWALS_QUEUED: 1}, enrollment_id=id_, command_uuid=uuid)
        return True

    def _last_use(self, record: Enrollment, now: datetime) -> datetime:
        """Return until when a renewal is of use: as long as the identity is let in, and for a day at the least."""
        grace = timedelta(days=self._settings.identity_grace_days)
        end = datetime.fromtimestamp(int(record.identity_not_after), now.tzinfo) + grace
        return max(end, now + timedelta(days=1))

    def _tell(self, record: Enrollment, now: datetime) -> None:
        """Publish that an identity ends soon, once at each stage; told of again, it is the same event."""
        stage = self._stage(record, now)
        if record.renewal_stage is not None and record.renewal_stage <= stage:
            return
        self._events.publish(MDMEvent.from_document(self._document(record, stage, now)))
        try:
            record.update(
                [Enrollment.renewal_stage.set(stage)],
                condition=(Enrollment.identity == record.identity) & (Enrollment.generation == record.generation),
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise

    def _stage(self, record: Enrollment, now: datetime) -> int:
        """Return the stage that an identity has come to, in days before its end."""
        days_left = _days_left(record, now)
        return min(stage for stage in (self.days, *_STAGES) if days_left <= stage <= self.days)

    def _document(self, record: Enrollment, stage: int, now: datetime) -> dict[str, Any]:
        not_after = datetime.fromtimestamp(int(record.identity_not_after), now.tzinfo)
        type_ = EnrollmentType(record.type)
        unique = hashlib.sha256(f"{record.enrollment_id} {record.identity} {stage}".encode()).digest()[:RANDOM_BYTES]
        began = not_after - timedelta(days=stage)
        queued_at = record.renewal_queued_at
        part = {
            "not_after": rfc3339nano(not_after),
            "stage": stage,
            "days_left": int(_days_left(record, now) // 1),
            "renewal_attempts": int(record.renewal_attempts or 0),
            "renewal_queued_at": rfc3339nano(datetime.fromtimestamp(int(queued_at), now.tzinfo)) if queued_at else None,
            "ids": ids(EnrollmentID(record.enrollment_id, type_, None)),
            "enrollment_type": type_.value,
            "serial_number": record.serial_number,
        }
        return {
            "topic": IDENTITY_EXPIRING_TOPIC,
            "event_id": uuid7(int(began.timestamp() * 1000), unique),
            "created_at": rfc3339nano(now),
            "identity_event": {name: value for name, value in part.items() if value is not None},
        }

    def _wake(self, ids_: Iterable[str]) -> None:
        targets = sorted(ids_)
        if not targets:
            return
        outcome = self._enqueue.push(targets)
        if asleep := sum(bool(target.push_error) for target in outcome.targets.values()):
            logger.warning("Devices with an identity to renew cannot be woken", count=asleep)

    def _request(self, page: _Page) -> None:
        try:
            self._sqs_client().send_message(QueueUrl=self._settings.sweep_queue_url, MessageBody=page.body)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable") from error


def _days_left(record: Enrollment, now: datetime) -> float:
    days: float = (record.identity_not_after - now.timestamp()) / _DAY
    return days


def _decode(message: Any) -> _Page:  # noqa: ANN401 - decoded JSON
    shard, after = message.get("shard"), message.get("after")
    if shard not in [f"{number:x}" for number in range(tables.SHARDS)] or not isinstance(after, dict | None):
        raise MalformedBodyError("A message that asks for renewals names no shard.")
    return _Page(shard, after)
