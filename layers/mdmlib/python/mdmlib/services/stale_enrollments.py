"""Enrollments that stay silent: told of by ``mdm.EnrollmentStale``, once at each stage.

Once a day all devices are looked at in the index ``listing``, a page a message of the sweep queue, so that a million of
them are no harder than one. The first stage is ``StaleDays`` days of silence; each further one is twice as long.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import UpdateError

from mdmlib.apple.enrollment_id import EnrollmentID, EnrollmentType
from mdmlib.apple.event import RANDOM_BYTES, ids, rfc3339nano, uuid7
from mdmlib.errors import MalformedBodyError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.vitals import FIND_STALE
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Enrollment

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

ENROLLMENT_STALE_TOPIC: Final = "mdm.EnrollmentStale"
_ENROLLED: Final = "enrolled"
_PAGE: Final = 500
_DAY: Final = 86_400


@dataclass(frozen=True)
class _Page:
    """One message's work: a part of a shard of the index."""

    shard: str
    after: Any = None
    """DynamoDB's key of the last entry before."""

    @property
    def body(self) -> str:
        return json.dumps({"task": FIND_STALE, "shard": self.shard, "after": self.after})


class StaleEnrollments:
    """Finds devices that have not been heard of for long. User channels are silent while nobody is logged in."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        events: EventPublisher,
        sqs_client: "Callable[[], SQSClient]",
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._enrollments = enrollments
        self._events = events
        self._sqs_client = sqs_client
        self._settings = settings
        self._now = now

    def start(self) -> None:
        """Ask for a look at every shard. Raises :class:`~mdmlib.errors.UnavailableError`."""
        if self._settings.stale_days > 0:
            for shard in range(tables.SHARDS):
                self._request(_Page(f"{shard:x}"))

    def receive(self, message: Mapping[str, Any]) -> None:
        """Do what a message of :meth:`start` asks for, and ask for the rest of its shard.

        Safe to repeat: an event that is published again is the same one. Raises
        :class:`~mdmlib.errors.UnavailableError`; the message stays then.
        """
        page, now = _decode(message), self._now()
        entries = Enrollment.listing.query(page.shard, limit=_PAGE, page_size=_PAGE, last_evaluated_key=page.after)
        silent = [entry.enrollment_id for entry in entries if isinstance(entry, Enrollment) and self._stage(entry, now)]
        told = 0
        for record in self._enrollments.get_many(silent).values():
            # The index is a moment behind.
            stage = self._stage(record, now)
            if stage and not (record.stale_since == record.last_seen_at and (record.stale_stage or 0) >= stage):
                self._tell(record, stage, now)
                told += 1
        if told:
            logger.info("Enrollments are stale", count=told)
        if entries.last_evaluated_key:
            self._request(_Page(page.shard, entries.last_evaluated_key))

    def _stage(self, record: Enrollment, now: datetime) -> int:
        """Return the longest stage that a device has been silent for, in days; 0: none."""
        first = self._settings.stale_days
        if record.state != _ENROLLED or record.blocked or record.parent_id or not record.last_seen_at or first <= 0:
            return 0
        days = (now.timestamp() - record.last_seen_at) / _DAY
        return first << int(days / first).bit_length() - 1 if days >= first else 0

    def _tell(self, record: Enrollment, stage: int, now: datetime) -> None:
        """Publish it, then note it: in this order, so that one that is not noted is told of again."""
        self._events.publish(MDMEvent.from_document(_document(record, stage, now)))
        try:
            record.update(
                [Enrollment.stale_stage.set(stage), Enrollment.stale_since.set(record.last_seen_at)],
                condition=(Enrollment.generation == record.generation)
                & (Enrollment.last_seen_at == record.last_seen_at),
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise
            # It was heard of meanwhile, or has ended.

    def _request(self, page: _Page) -> None:
        try:
            self._sqs_client().send_message(QueueUrl=self._settings.sweep_queue_url, MessageBody=page.body)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable") from error


def _document(record: Enrollment, stage: int, now: datetime) -> dict[str, Any]:
    """Return the event; its id says which enrollment, since when, and the stage, so that told twice it is one."""
    seen_at = datetime.fromtimestamp(int(record.last_seen_at), now.tzinfo)
    type_ = EnrollmentType(record.type)
    unique = hashlib.sha256(f"{record.enrollment_id} {record.last_seen_at} {stage}".encode()).digest()[:RANDOM_BYTES]
    began = seen_at + timedelta(days=stage)
    part = {
        "last_seen_at": rfc3339nano(seen_at),
        "stage": stage,
        "days_silent": int((now - seen_at).total_seconds() // _DAY),
        "push_failure": record.push_failure,
        "ids": ids(EnrollmentID(record.enrollment_id, type_, None)),
        "enrollment_type": type_.value,
        "serial_number": record.serial_number,
    }
    return {
        "topic": ENROLLMENT_STALE_TOPIC,
        "event_id": uuid7(int(began.timestamp() * 1000), unique),
        "created_at": rfc3339nano(now),
        "stale_event": {name: value for name, value in part.items() if value is not None},
    }


def _decode(message: Mapping[str, Any]) -> _Page:
    shard, after = message.get("shard"), message.get("after")
    if shard not in [f"{number:x}" for number in range(tables.SHARDS)] or not isinstance(after, dict | None):
        raise MalformedBodyError("A message that asks for stale enrollments names no shard.")
    return _Page(shard, after)
