"""Pushing again: devices whose commands wait unanswered are woken after an hour, after four, and then every day.

A push may be lost on its way, and a device that was off for longer than APNs keeps a push never hears of it. Every hour
the commands that have come of age since the last time are looked at in the index ``waiting``, and in one hour of the
day all older ones of a shard. A page is a message of the sweep queue, so that a million of them are no harder than one.
Nothing is written down: what is done twice wakes a device twice, which is once to APNs.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import MalformedBodyError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.enqueue import EnqueueService
from mdmlib.services.vitals import INTERVALS, PUSH_AGAIN, Vitals
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.tables import Enrollment, PendingCommand

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

AGES: Final = (timedelta(hours=1), timedelta(hours=4))
"""So old a command is when its device is woken again, for the first and the second time; then every day."""

_DAY: Final = 86_400
_HOUR: Final = 3_600
_OVERLAP: Final = timedelta(minutes=1)
"""What is queued between the look at the clock and the note of the run is not left out."""
_LONGEST: Final = timedelta(days=1)
_PAGE: Final = 100
_READ: Final = ("enrollment_id", "item", "cls", "not_before", "not_now_at", "expires_at")


@dataclass(frozen=True)
class _Page:
    """One message's work: commands of a shard that were queued in a span of time (epoch seconds)."""

    shard: str
    since: int
    until: int
    after: Any = None
    """DynamoDB's key of the last entry before."""

    @property
    def body(self) -> str:
        return json.dumps(
            {"task": PUSH_AGAIN, "shard": self.shard, "since": self.since, "until": self.until, "after": self.after}
        )


class PushAgain:
    """Wakes the devices that have left commands unanswered, and could do something about it."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        enqueue: EnqueueService,
        vitals: Vitals,
        sqs_client: "Callable[[], SQSClient]",
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._enrollments = enrollments
        self._enqueue = enqueue
        self._vitals = vitals
        self._sqs_client = sqs_client
        self._settings = settings
        self._now = now

    def start(self) -> None:
        """Ask for a look at what has come of age since the last run. Raises :class:`~mdmlib.errors.UnavailableError`.

        A run that was left out is made up for, one that comes twice finds next to nothing.
        """
        now = self._now()
        last = self._vitals.last_run(PUSH_AGAIN) or now - INTERVALS[PUSH_AGAIN]
        since = min(max(last - _OVERLAP, now - _LONGEST), now)
        for number in range(tables.SHARDS):
            shard = f"{number:x}"
            for age in AGES:
                self._request(_Page(shard, int((since - age).timestamp()), int((now - age).timestamp())))
            # Each shard has an hour of the day (UTC) of its own, so that not all of them are woken at once.
            if _day_of(now, number) != _day_of(since, number):
                self._request(_Page(shard, 0, int(now.timestamp()) - _DAY))

    def receive(self, message: Mapping[str, Any]) -> None:
        """Do what a message of :meth:`start` asks for, and ask for the rest of its span.

        Raises :class:`~mdmlib.errors.UnavailableError`; the message stays then.
        """
        page = _decode(message)
        entries = PendingCommand.waiting.query(
            page.shard,
            PendingCommand.enqueued_at.between(page.since, page.until),
            limit=_PAGE,
            page_size=_PAGE,
            last_evaluated_key=page.after,
        )
        keys = [(entry.enrollment_id, entry.item) for entry in entries]
        targets = self._targets(keys)
        if targets:
            outcome = self._enqueue.push(targets)
            woken = sum(target.push_result is not None for target in outcome.targets.values())
            logger.info("Devices woken again", count=woken, commands=len(keys))
        if entries.last_evaluated_key:
            self._request(_Page(page.shard, page.since, page.until, entries.last_evaluated_key))

    def _targets(self, keys: Iterable[tuple[str, str]]) -> list[str]:
        """Return whom it is of use to wake: the index knows neither who is enabled nor what a command waits for."""
        keys = list(keys)
        records = self._enrollments.get_many(id_ for id_, _ in keys)
        parents = {record.parent_id for record in records.values() if record.parent_id} - set(records)
        devices = records | (self._enrollments.get_many(parents) if parents else {})
        living = [
            (id_, item)
            for id_, item in keys
            if (record := records.get(id_))
            and item.startswith(f"{tables.PENDING}{record.generation}#")
            and _may_be_woken(record, devices.get(record.parent_id or id_))
        ]
        now = self._now().timestamp()
        commands = PendingCommand.batch_get(living, attributes_to_get=list(_READ)) if living else ()
        return sorted({command.enrollment_id for command in commands if _is_due(command, now)})

    def _request(self, page: _Page) -> None:
        try:
            self._sqs_client().send_message(QueueUrl=self._settings.sweep_queue_url, MessageBody=page.body)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable") from error


def _may_be_woken(record: Enrollment, device: Enrollment | None) -> bool:
    if device is None or not is_live(record, device) or record.blocked or device.blocked:
        return False
    return record.push is not None and not record.push_failure


def _is_due(command: PendingCommand, now: float) -> bool:
    """Say whether the device could do anything about a command now. One that it deferred it comes back for itself."""
    return command.expires_at > now and (command.not_before or 0) <= now and command.not_now_at is None


def _day_of(time: datetime, shard: int) -> int:
    """Return the number of the day, of those that begin at the shard's hour."""
    return int(time.timestamp() - shard * _HOUR) // _DAY


def _decode(message: Mapping[str, Any]) -> _Page:
    shard, since, until, after = (message.get(name) for name in ("shard", "since", "until", "after"))
    if (
        shard not in [f"{number:x}" for number in range(tables.SHARDS)]
        or not isinstance(since, int)
        or not isinstance(until, int)
        or not isinstance(after, dict | None)
    ):
        raise MalformedBodyError("A message that asks to push again names no shard or no time.")
    return _Page(shard, since, until, after)
