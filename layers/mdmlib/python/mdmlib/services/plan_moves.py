"""How a plan moves: its next steps become commands, and it is written down in the transaction that queues them.

Before that transaction nothing has happened but that commands were stored under names that say what they are. What is
left to be done behind it (telling, waking, asking for later) is done again by whoever brings the same cause again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple import event as documents
from mdmlib.apple import plist
from mdmlib.apple.command import Command
from mdmlib.errors import ConflictError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.command_targets import Live, Suitability
from mdmlib.services.events import EventPublisher, MDMEvent, outbox_item
from mdmlib.services.plan_actions import Action, PlannedDevice, Unneeded
from mdmlib.services.plan_document import UUID_PREFIX, PlanDocument, Step, StepState, give_up_cleared
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, OutboxEvent, Plan
from mdmlib.store.transactions import ConditionsFailedError, Put, Write

if TYPE_CHECKING:
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.workflow_queue import WorkflowQueue

FINISHED_TOPIC: Final = "mdm.PlanFinished"

LOOKED_AT_AFTER: Final = timedelta(hours=1)
"""A plan that has not moved for so long is looked at: a message may be lost. No step waits that long by itself."""

_MOST_AT_ONCE: Final = 40
"""Commands of one transaction, which has 100 writes; those of a longer phase follow when these are over."""

_PARTS_OF_A_LIFE: Final = 4
_MOST_TOLD: Final = 20
_RUNS_REMEMBERED: Final = 20
"""A message that comes late comes within an hour or two."""
"""Failures in an event."""
_COUNTED: Final = (StepState.DONE, StepState.UNNEEDED, StepState.FAILED)


@dataclass
class Turn:
    """What one move of a plan does."""

    device: PlannedDevice
    item: Plan | None
    """The plan as it was read; None: there was none of its kind."""
    document: PlanDocument
    kind: str
    run: str
    cause: str
    mover: str | None = None
    """The command whose result moves it."""
    commands: list[tuple[int, Command]] = field(default_factory=list)
    """Those that are queued, with the numbers of their steps."""
    delays: list[int] = field(default_factory=list)
    """After so many seconds it is to be moved again."""

    @property
    def record(self) -> Enrollment:
        """The device's record."""
        return self.device.record


class PlanMoves:
    """Moves plans."""

    def __init__(
        self,
        *,
        enqueue: "EnqueueService",
        events: EventPublisher,
        workflow_queue: "WorkflowQueue",
        actions: Mapping[str, Action],
        sealer: Sealer,
        command_life: timedelta,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._enqueue = enqueue
        self._events = events
        self._workflow_queue = workflow_queue
        self._actions = actions
        self._sealer = sealer
        self._command_life = command_life
        self._now = now
        self._new_event_id = new_event_id

    def move(self, turn: Turn) -> bool:
        """Queue what comes next and write the plan down; say whether nobody else changed it meanwhile."""
        if turn.item is not None and turn.item.run == turn.run and turn.item.generation != turn.record.generation:
            give_up_cleared(turn.document, at=int(self._now().timestamp()))
        turn.document.moved_by = turn.mover
        while True:
            self._take_next_steps(turn)
            item, outbox = self._written(turn)
            unchanged = Plan.version == turn.item.version if turn.item is not None else Plan.item.does_not_exist()
            beside: list[Write] = [Put("plan", item, unchanged)]
            if outbox is not None:
                beside.append(Put("outbox", outbox))
            commands = [command for _, command in turn.commands]
            try:
                self._enqueue.enqueue_beside(commands, Live(turn.record, turn.record), beside=beside)
            except ConditionsFailedError as failed:
                if not self._rename_answered(turn, failed.names):
                    return False
            else:
                break
        for delay in turn.delays:
            self._workflow_queue.resume_later(turn.record.enrollment_id, turn.kind, turn.run, seconds=delay)
        if commands:
            self._enqueue.tell_of(commands, Live(turn.record, turn.record))
        if outbox is not None:
            self._events.publish_outbox(outbox)
        return True

    def _rename_answered(self, turn: Turn, failed: frozenset[str]) -> bool:
        """Take steps again whose commands were answered under their names before; say whether that is all that failed.

        So it is when a run begins once more that was overtaken by so many others that none remembers it.
        """
        answered = {number for name in failed for number, _, what in [name.partition(" ")] if what == "answered"}
        if not answered or len(answered) < len(failed):
            return False
        logger.warning("Command of a plan was answered before", enrollment_id=turn.record.enrollment_id)
        for place in sorted(map(int, answered), reverse=True):
            number, _command = turn.commands.pop(place)
            # Its next attempt makes another name.
            turn.document.steps[number].become(StepState.PENDING, at=int(self._now().timestamp()))
        return True

    def remind(self, record: Enrollment, item: Plan, document: PlanDocument) -> None:
        """Do again what may have been left out behind the transaction that moved a plan: once too often is no harm."""
        seconds = int(self._now().timestamp())
        for step in document.in_state(StepState.WAITING):
            delay = max((step.not_before or 0) - seconds, 0)
            kind = item.item.removeprefix(tables.PLAN)
            self._workflow_queue.resume_later(record.enrollment_id, kind, item.run, seconds=delay)
        if document.in_state(StepState.QUEUED):
            self._enqueue.wake(Live(record, record))

    def _take_next_steps(self, turn: Turn) -> None:
        """Make commands of the steps of the current phase; with nothing to wait for, go on to the next phase."""
        at = int(self._now().timestamp())
        phase = None
        while (now_in := turn.document.phase) is not None and now_in != phase:
            phase = now_in
            for number, step in list(turn.document.current()):
                due = step.state is StepState.WAITING and (step.not_before or 0) <= at
                if (step.state is StepState.PENDING or due) and len(turn.commands) < _MOST_AT_ONCE:
                    self._take(turn, number, step, at)

    def _take(self, turn: Turn, number: int, step: Step, at: int) -> None:
        try:
            fields = dict(self._actions[step.action].command(step, turn.document, turn.device))
            command = self._named(turn, number, step, fields)
            if refusal := Suitability(command).refusal(Live(turn.record, turn.record)):
                raise ConflictError(refusal.message.removesuffix(" Say `force` to send it all the same."))
        except Unneeded as unneeded:
            step.become(StepState.UNNEEDED, at=at, reason=str(unneeded))
        except UnavailableError:
            raise
        except PicoMDMError as error:
            step.become(StepState.FAILED, at=at, reason=error.message)
        else:
            step.attempts += 1
            step.command_uuid, step.request_type = command.uuid, command.request_type
            step.become(StepState.QUEUED, at=at)
            turn.commands.append((number, command))

    def _named(self, turn: Turn, number: int, step: Step, fields: Mapping[str, Any]) -> Command:
        """Return a command under a name that says what it is.

        The same turn again makes the same command, and enrollments that a page of one job begins share what is the
        same for all of them: its life begins with the first of them. Who comes much later gets one of their own.
        """
        content = plist.dumps({"Command": dict(fields)})
        period = int(self._now().timestamp() / (self._command_life.total_seconds() / _PARTS_OF_A_LIFE))
        told = json.dumps([turn.run, int(turn.record.epoch), number, step.attempts, period]).encode()
        digest = hashlib.sha256(told + content).hexdigest()[:32]
        uuid = f"{UUID_PREFIX}{turn.kind}.{digest}"
        body = plist.dumps({"Command": dict(fields), "CommandUUID": uuid})
        return Command(uuid, str(fields["RequestType"]), body)

    def _written(self, turn: Turn) -> tuple[Plan, OutboxEvent | None]:
        """Return the plan as it is to be written, and the event when that ends it."""
        now = self._now()
        seconds = int(now.timestamp())
        record, document, begins = turn.record, turn.document, turn.item is None or turn.item.run != turn.run
        over = document.phase is None
        state = "running" if not over else "failed" if document.has_failed else "done"
        name = tables.PLAN + turn.kind
        item = Plan(
            record.enrollment_id,
            name,
            run=turn.run,
            former_runs=_former_runs(turn),
            epoch=record.epoch,
            generation=record.generation,
            state=state,
            cause=turn.cause,
            version=int(turn.item.version) + 1 if turn.item is not None else 1,
            document=self._sealer.seal(document.encode(), place=f"{record.enrollment_id}/{name}"),
            begun_at=seconds if begins or turn.item is None else turn.item.begun_at,
            changed_at=seconds,
        )
        shard = tables.shard_of(record.enrollment_id)
        if state != "done":
            item.waiting_shard = f"{'failed' if over else 'plan'}-{shard}"
            item.enqueued_at = seconds if over else int((now + LOOKED_AT_AFTER).timestamp())
        if not over:
            return item, None
        item.finished_at = seconds
        return item, outbox_item(MDMEvent.from_document(self._told(turn, state, now)))

    def _told(self, turn: Turn, state: str, now: datetime) -> dict[str, Any]:
        steps = turn.document.steps
        event = {
            "kind": turn.kind,
            "run": turn.run,
            "cause": turn.cause,
            "state": state,
            "enrollment_id": turn.record.enrollment_id,
            "serial_number": turn.record.serial_number,
            "blueprints": turn.document.blueprints,
            **{each.value: sum(step.state is each for step in steps) for each in _COUNTED},
            "failures": [
                {"step": step.title, "reason": step.reason or ""}
                for step in turn.document.in_state(StepState.FAILED)[:_MOST_TOLD]
            ],
        }
        return {
            "topic": FINISHED_TOPIC,
            "event_id": self._new_event_id(),
            "created_at": documents.rfc3339nano(now),
            "plan_event": {name: value for name, value in event.items() if value is not None},
        }


def _former_runs(turn: Turn) -> list[str] | None:
    """Return the runs whose place this one took in the same enrollment; None: there was none."""
    item = turn.item
    if item is None or item.epoch != turn.record.epoch:
        return None
    if item.run == turn.run:
        return item.former_runs
    return [item.run, *(item.former_runs or ())][:_RUNS_REMEMBERED]
