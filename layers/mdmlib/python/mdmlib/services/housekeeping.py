"""Housekeeping: what others leave to be done later, and what is done by the clock.

Everything here is safe to repeat and to break off: what is not done comes again, with the next schedule or message.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import MalformedBodyError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.plan_document import kind_of
from mdmlib.services.sweep import COMMAND_JOB, PUSH_JOB, SweepQueue
from mdmlib.services.vitals import (
    FIND_STALE,
    LOOK_AFTER_PLANS,
    MEASURE,
    PUBLISH_LEFTOVERS,
    PUSH_AGAIN,
    RELEASE_DEVICES,
    RENEW_IDENTITIES,
    Vitals,
)
from mdmlib.settings import Settings
from mdmlib.store.tables import DEDUP, OUTBOX_PARTITION, PENDING, SHARDS, EnrollmentItem, OutboxEvent, PendingCommand

if TYPE_CHECKING:
    from mdmlib.services.command_jobs import CommandJobs
    from mdmlib.services.identity_renewals import IdentityRenewals
    from mdmlib.services.plan_looks import PlanLooks
    from mdmlib.services.push_again import PushAgain
    from mdmlib.services.push_jobs import PushJobs
    from mdmlib.services.setup_release import SetupRelease
    from mdmlib.services.stale_enrollments import StaleEnrollments

LEFT_AFTER_SECONDS: Final = 60
"""Whoever committed an event to the outbox is still publishing it before that."""

SWEEP_ITEMS: Final = 2_000
"""What one message deletes at most: a partition takes 1,000 write units a second, and a function ends."""

_GENERATION: Final = re.compile(r"[0-9a-f]{8}")


class Housekeeping:
    """Publishes what was left, deletes what is dead, and has identities renewed, devices woken and plans looked at."""

    def __init__(  # noqa: PLR0913 - it has many tasks, each with a service of its own
        self,
        *,
        events: EventPublisher,
        sweeps: SweepQueue,
        renewals: "Callable[[], IdentityRenewals]",
        jobs: "Callable[[], CommandJobs]",
        push_jobs: "Callable[[], PushJobs]",
        push_again: "Callable[[], PushAgain]",
        stale: "Callable[[], StaleEnrollments]",
        release: "Callable[[], SetupRelease]",
        plan_looks: "Callable[[], PlanLooks]",
        vitals: Vitals,
        settings: Settings,
        now: Callable[[], datetime],
        tell_plan: "Callable[[str, str], object]",
        keep_rules: Callable[[], None],
        sweep_items: int = SWEEP_ITEMS,
    ) -> None:
        """``tell_plan`` is told of an enrollment's command of a plan, by its uuid, that waits no more.

        ``keep_rules`` enables the rules of the bus that somebody needs.
        """
        self._events = events
        self._sweeps = sweeps
        self._renewals = renewals
        self._jobs = jobs
        self._push_jobs = push_jobs
        self._push_again = push_again
        self._stale = stale
        self._release = release
        self._plan_looks = plan_looks
        self._keep_rules = keep_rules
        self._vitals = vitals
        self._consumers = {
            _queue_name(settings.sweep_queue_url, "/"): self.take_up,
            _queue_name(settings.event_fallback_queue_url, "/"): self.republish,
        }
        self._now = now
        self._tell_plan = tell_plan
        self._keep_rules = keep_rules
        self._sweep_items = sweep_items

    def receive(self, queue_arn: str, body: str) -> None:
        """Do what a message of one of housekeeping's queues asks for. Raises when it has to stay in its queue."""
        consumer = self._consumers.get(_queue_name(queue_arn, ":"))
        if consumer is None:
            raise UnavailableError(f"Housekeeping does not know the queue {queue_arn}.", code="unknown_queue")
        consumer(body)

    def run(self, task: str | None) -> None:
        """Do what a schedule asks for; one that names nothing, for what was left in the outbox.

        Raises when it failed, so that somebody is told.
        """
        task = task or PUBLISH_LEFTOVERS
        if task == PUBLISH_LEFTOVERS:
            self.publish_leftovers()
        elif task == RENEW_IDENTITIES:
            self._renewals().start()
        elif task == PUSH_AGAIN:
            self._push_again().start()
        elif task == FIND_STALE:
            self._stale().start()
        elif task == RELEASE_DEVICES:
            self._release().run()
        elif task == LOOK_AFTER_PLANS:
            self._plan_looks().run()
            self._keep_rules()
        elif task == MEASURE:
            self._vitals.measure()
        else:
            raise UnavailableError(f"Housekeeping does not know the task {task}.", code="unknown_task")
        self._vitals.note_run(task)

    def publish_leftovers(self) -> None:
        """Publish the events that were committed to the outbox but not taken out of it.

        Raises :class:`~mdmlib.errors.UnavailableError` at the first one that the bus does not take: the others would
        fare no better.
        """
        published = 0
        for item in self._leftovers():
            if not self._events.publish_outbox(item):
                raise UnavailableError("Events are left in the outbox: the event bus or DynamoDB is unavailable.")
            published += 1
        if published:
            logger.warning("Events were left in the outbox", events=published)

    def republish(self, body: str) -> None:
        """Bring an event from the fallback queue to the bus.

        Raises :class:`~mdmlib.errors.UnavailableError` when the bus does not take it; the message stays then.
        """
        try:
            event = MDMEvent.from_detail(body)
        except (ValueError, KeyError, TypeError):
            # No cause: the decoder's error would show a part of the body.
            raise MalformedBodyError("A message of the event fallback queue is no event.") from None
        self._events.publish_again(event)

    def take_up(self, body: str) -> None:
        """Do what a message of the sweep queue asks for: a sweep, or a part of a task that is too long for one go."""
        message = _decode(body)
        if message.get("task") == RENEW_IDENTITIES:
            self._renewals().receive(message)
        elif message.get("task") == COMMAND_JOB:
            self._jobs().receive(message)
        elif message.get("task") == PUSH_JOB:
            self._push_jobs().receive(message)
        elif message.get("task") == PUSH_AGAIN:
            self._push_again().receive(message)
        elif message.get("task") == FIND_STALE:
            self._stale().receive(message)
        else:
            self._sweep(message)

    def _sweep(self, message: dict[str, Any]) -> None:
        """Delete the pending commands of an enrollment that are of older generations than a message says.

        ``{"enrollment_id": …, "generation": …}`` is a message of the sweep queue. Generations count down, and none
        comes back: whatever is queued meanwhile is of this generation or of a newer one. A long queue is deleted by
        several messages.
        """
        enrollment_id, generation = _decode_sweep(message)
        dead = list(islice(self._dead(enrollment_id, generation), self._sweep_items))
        # First those, while it can be seen whose they were. One command of each plan will do: it looks at all of them.
        commands = [item.command_uuid for item in dead if isinstance(item, PendingCommand) and item.command_uuid]
        for command_uuid in {kind: uuid for uuid in commands if (kind := kind_of(uuid)) is not None}.values():
            self._tell_plan(enrollment_id, command_uuid)
        with EnrollmentItem.batch_write() as batch:
            for item in dead:
                batch.delete(item)
        if len(dead) == self._sweep_items:
            self._sweeps.request(enrollment_id, generation)

    def _leftovers(self) -> Iterator[OutboxEvent]:
        before = int(self._now().timestamp()) - LEFT_AFTER_SECONDS
        for shard in range(SHARDS):
            # The filter is no cheaper than reading all, but the outbox is empty as a rule.
            yield from OutboxEvent.query(
                f"{OUTBOX_PARTITION}{shard:x}",
                filter_condition=OutboxEvent.created_at < before,
                consistent_read=True,
            )

    def _dead(self, enrollment_id: str, generation: str) -> Iterator[EnrollmentItem]:
        for kind in (PENDING, DEDUP):
            # "$" is the character after "#": behind everything of this generation, and behind everything of the kind.
            yield from EnrollmentItem.query(
                enrollment_id,
                EnrollmentItem.item.between(f"{kind}{generation}$", f"{kind[:-1]}$"),
                attributes_to_get=["enrollment_id", "item", "cls", "command_uuid"],
            )


def _queue_name(url_or_arn: str, separator: str) -> str:
    return url_or_arn.rsplit(separator, 1)[-1]


def _decode(body: str) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise MalformedBodyError("A message of the sweep queue is malformed.") from error
    if not isinstance(message, dict):
        raise MalformedBodyError("A message of the sweep queue is malformed.")
    return message


def _decode_sweep(message: dict[str, Any]) -> tuple[str, str]:
    enrollment_id, generation = message.get("enrollment_id"), message.get("generation")
    if not enrollment_id or not isinstance(enrollment_id, str) or not _GENERATION.fullmatch(str(generation)):
        raise MalformedBodyError("A message of the sweep queue names no enrollment or no generation.")
    return enrollment_id, str(generation)
