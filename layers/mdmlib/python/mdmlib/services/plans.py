"""Plans: what a device is to be brought to, step by step, durable and observable.

A plan is one item of its enrollment (:class:`~mdmlib.store.tables.Plan`). It moves when something happens: it is
begun, a device has answered one of its commands, a delay is over. Whoever moves it reads it, decides, and writes it
back on the condition that nobody else did, in the one transaction that queues the commands of its next steps. So each
event may come twice and in any order, and a function may end between any two calls:

* before the transaction nothing has happened but that commands were stored under names that say what they are;
* after it, the same event finds its step over. It publishes and wakes again what may have been left out.

Offline devices and NotNow need nothing here: the command waits in the device's queue. A device that enrolls anew ends
its plans by that (``epoch``).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple import event as documents
from mdmlib.apple import plist
from mdmlib.apple.command import Command
from mdmlib.apple.command_report import ACKNOWLEDGED, COMMAND_FORMAT_ERROR
from mdmlib.errors import ConflictError, MalformedBodyError, NotFoundError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.command_targets import Live, Suitability
from mdmlib.services.events import EventPublisher, MDMEvent, outbox_item
from mdmlib.services.plan_actions import Action, Again, NotFulfilled, PlannedDevice, Unneeded
from mdmlib.services.plan_document import RELEASE, UUID_PREFIX, PlanDocument, Step, StepState, kind_of
from mdmlib.store import tables
from mdmlib.store.command_queue import NOT_SENT, CommandQueueStore
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import CommandResult, Enrollment, EnrollmentItem, OutboxEvent, Plan
from mdmlib.store.transactions import ConditionsFailedError, Put, Write

if TYPE_CHECKING:
    from mdmlib.services.device_attributes import DeviceAttributeStore
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.workflow_queue import WorkflowQueue

FINISHED_TOPIC: Final = "mdm.PlanFinished"

MOST_ATTEMPTS: Final = 3
"""How often a step is tried whose device reports an error."""

_RETRY_SECONDS: Final = (60, 600)
_RETRY_SECONDS_IN_SETUP: Final = (5, 20)
"""While somebody sits in front of Setup Assistant."""

_MOST_AT_ONCE: Final = 40
"""Commands of one transaction, which has 100 writes; those of a longer phase follow when these are over."""

_TURNS: Final = 5
_FOUND: Final = 100
_LONGEST_KEY: Final = 1_023
_MOST_TOLD: Final = 20
"""Failures in an event."""
_COUNTED: Final = (StepState.DONE, StepState.UNNEEDED, StepState.FAILED)


@dataclass(frozen=True)
class Situation:
    """What is known when a plan begins."""

    device: PlannedDevice
    former: PlanDocument | None
    """The last plan of the kind in the same enrollment."""


@dataclass(frozen=True)
class KnownPlan:
    """A plan as it is told of."""

    enrollment_id: str
    kind: str
    item: Plan
    document: PlanDocument = field(repr=False)
    state: str
    """As the item has it, or ``ended``: with its enrollment."""


@dataclass
class _Turn:
    """What one move of a plan does."""

    record: Enrollment
    item: Plan | None
    document: PlanDocument
    kind: str
    run: str
    cause: str
    commands: list[tuple[int, Command]] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    device: PlannedDevice | None = None
    """Read when it is first asked for."""


class Plans:
    """Begins plans, moves them on, and tells of them."""

    def __init__(
        self,
        *,
        queue: CommandQueueStore,
        enqueue: "EnqueueService",
        events: EventPublisher,
        attributes: "DeviceAttributeStore",
        workflow_queue: "WorkflowQueue",
        actions: Mapping[str, Action],
        sealer: Sealer,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._queue = queue
        self._enqueue = enqueue
        self._events = events
        self._attributes = attributes
        self._workflow_queue = workflow_queue
        self._actions = actions
        self._sealer = sealer
        self._now = now
        self._new_event_id = new_event_id

    def begin(
        self,
        enrollment_id: str,
        kind: str,
        draft: Callable[[Situation], PlanDocument | None],
        *,
        run: str,
        cause: str,
    ) -> bool:
        """Begin a plan in place of the former one of its kind; say whether there is one to begin.

        ``draft`` says what is to be done; it is asked again when the device's state changed meanwhile. ``run`` tells
        this beginning from others: the same one again only makes sure that the device was woken. Raises
        :class:`~mdmlib.errors.NotFoundError` and :class:`~mdmlib.errors.ConflictError` for a device that takes no
        commands.
        """
        for _ in range(_TURNS):
            found, item, _result = self._read(enrollment_id, kind)
            record = _live(enrollment_id, found)
            alive = item is not None and item.epoch == record.epoch
            if item is not None and alive and item.run == run:
                self._remind(record, item)
                return True
            former = self._open(item) if item is not None and alive else None
            device = self._device(record)
            document = draft(Situation(device, former))
            if document is None:
                return False
            if former is not None:
                document.installed = former.installed | document.installed
            if self._move(_Turn(record, item, document, kind, run, cause, device=device)):
                return True
        raise UnavailableError("Others kept changing the plan.")

    def take_result(self, enrollment_id: str, command_uuid: str) -> None:
        """Move a plan on, for a command of its has a result, or does not wait any more.

        What is of no plan any more changes nothing.
        """
        kind = kind_of(command_uuid)
        if kind is None:
            return
        for _ in range(_TURNS):
            record, item, result = self._read(enrollment_id, kind, command_uuid)
            if record is None or item is None or item.epoch != record.epoch:
                return
            document = self._open(item)
            step = document.step_of(command_uuid)
            if step is None or record.state not in LIVE_STATES:
                return
            if step.state is not StepState.QUEUED:
                self._remind(record, item)
                return
            turn = _Turn(record, item, document, kind, item.run, item.cause)
            if result is not None:
                self._settle(turn, step, result)
            elif item.generation == record.generation:
                if self._waits(record, command_uuid):
                    return
                at = int(self._now().timestamp())
                step.become(StepState.FAILED, at=at, reason="An administrator took its command back.")
            if self._move(turn):
                return
        raise UnavailableError("Others kept changing the plan.")

    def resume(self, enrollment_id: str, kind: str, run: str) -> None:
        """Move a plan on, for a delay is over."""
        for _ in range(_TURNS):
            record, item, _result = self._read(enrollment_id, kind)
            if record is None or item is None or item.epoch != record.epoch or item.run != run:
                return
            document = self._open(item)
            if record.state not in LIVE_STATES or not document.in_state(StepState.WAITING, StepState.PENDING):
                return
            if self._move(_Turn(record, item, document, kind, run, item.cause)):
                return
        raise UnavailableError("Others kept changing the plan.")

    def situation(self, enrollment_id: str, kind: str) -> Situation:
        """Return what a plan that began now would begin with. Raises as :meth:`begin` does."""
        record, item, _result = self._read(enrollment_id, kind)
        alive = _live(enrollment_id, record)
        former = self._open(item) if item is not None and item.epoch == alive.epoch else None
        return Situation(self._device(alive), former)

    # What is told of plans

    def of_enrollment(self, enrollment_id: str) -> list[KnownPlan]:
        """Return the plans of an enrollment, one of each kind. Raises :class:`~mdmlib.errors.NotFoundError`."""
        items = list(
            EnrollmentItem.query(enrollment_id, EnrollmentItem.item.startswith(tables.PLAN), consistent_read=True)
            if "#" not in enrollment_id
            else ()
        )
        record, _, _ = self._read(enrollment_id, "-")
        if record is None or record.state == "deleted":
            raise NotFoundError(f"There is no enrollment {enrollment_id[:200]}.", code="unknown_enrollment")
        return [self._known(item, record) for item in items if isinstance(item, Plan)]

    def unsettled(self, *, failed: bool, limit: int, after: str) -> tuple[list[KnownPlan], str | None]:
        """Return a page of the plans that are running, or have failed, of all enrollments; and the next position.

        Within each of 16 shards those that moved least lately come first.
        """
        position: dict[str, Any] = json.loads(after) if after else {"shard": 0}
        keys: list[tuple[str, str]] = []
        for shard in range(position["shard"], tables.SHARDS):
            name = f"{'failed' if failed else 'plan'}-{shard:x}"
            begin = position.get("key") if shard == position["shard"] else None
            page = EnrollmentItem.waiting.query(
                name, limit=limit - len(keys), last_evaluated_key=_index_key(name, begin) if begin else None
            )
            read = [key for key in page if isinstance(key, Plan)]
            keys += [(key.enrollment_id, key.item) for key in read]
            if len(keys) == limit:
                last = read[-1]
                key = [int(last.enqueued_at), last.enrollment_id, last.item]
                return self._known_of(keys), json.dumps({"shard": shard, "key": key}, separators=(",", ":"))
        return self._known_of(keys), None

    def _known_of(self, keys: Sequence[tuple[str, str]]) -> list[KnownPlan]:
        known: list[KnownPlan] = []
        for start in range(0, len(keys), _FOUND // 2):
            some = keys[start : start + _FOUND // 2]
            wanted = [*some, *((id_, tables.RECORD) for id_ in dict.fromkeys(id_ for id_, _ in some))]
            items = list(EnrollmentItem.batch_get(wanted, consistent_read=True))
            records = {item.enrollment_id: item for item in items if isinstance(item, Enrollment)}
            plans = {(item.enrollment_id, item.item): item for item in items if isinstance(item, Plan)}
            known += [self._known(plans[key], records[key[0]]) for key in some if key in plans and key[0] in records]
        return known

    def _known(self, item: Plan, record: Enrollment) -> KnownPlan:
        document = self._open(item)
        ended = item.epoch != record.epoch or record.state not in LIVE_STATES
        state = "ended" if ended and item.state == "running" else item.state
        if not ended and item.generation != record.generation:
            _give_up_cleared(document, at=int(item.changed_at))
        return KnownPlan(item.enrollment_id, item.item.removeprefix(tables.PLAN), item, document, state)

    # How a plan moves

    def _read(
        self, enrollment_id: str, kind: str, command_uuid: str | None = None
    ) -> tuple[Enrollment | None, Plan | None, CommandResult | None]:
        """Read the record, a plan and a result, strongly and in one call."""
        if not 0 < len(enrollment_id.encode()) <= _LONGEST_KEY or "#" in enrollment_id:
            return None, None, None
        keys = [(enrollment_id, tables.RECORD), (enrollment_id, tables.PLAN + kind)]
        if command_uuid is not None:
            keys.append((enrollment_id, tables.RESULT + command_uuid))
        items = list(EnrollmentItem.batch_get(keys, consistent_read=True))
        record = next((item for item in items if isinstance(item, Enrollment)), None)
        plan = next((item for item in items if isinstance(item, Plan)), None)
        return record, plan, next((item for item in items if isinstance(item, CommandResult)), None)

    def _waits(self, record: Enrollment, command_uuid: str) -> bool:
        """Say whether a command waits for its device, or was answered by it just now."""
        result, command = self._queue.result_and_command(record.enrollment_id, command_uuid)
        if result is not None or command is None:
            return result is not None
        pending = self._queue.pending(record, command.order)
        return any(EnrollmentItem.batch_get([(pending.enrollment_id, pending.item)], consistent_read=True))

    def _device(self, record: Enrollment) -> PlannedDevice:
        live = Live(record, record)
        attributes = self._attributes.find(record.serial_number)
        return PlannedDevice(record, live.target.platform, tags=attributes.tags, values=attributes.values)

    def _device_of(self, turn: _Turn) -> PlannedDevice:
        if turn.device is None:
            turn.device = self._device(turn.record)
        return turn.device

    def _settle(self, turn: _Turn, step: Step, result: CommandResult) -> None:
        """Note what became of a step's command."""
        at = int(self._now().timestamp())
        if result.status == ACKNOWLEDGED:
            try:
                self._actions[step.action].learn(step, turn.document, self._device_of(turn), self._answer(result))
            except Again as again:
                self._later(turn, step, again.after, str(again))
            except NotFulfilled as failure:
                step.become(StepState.FAILED, at=at, reason=str(failure))
            else:
                step.become(StepState.DONE, at=at)
            return
        reason = _complaint(result)
        step.failures += 1
        # What a device does not understand, or cannot do, it will not the next time.
        if result.status in {NOT_SENT, COMMAND_FORMAT_ERROR} or step.failures >= MOST_ATTEMPTS:
            step.become(StepState.FAILED, at=at, reason=reason)
            return
        delays = _RETRY_SECONDS_IN_SETUP if turn.record.awaiting_configuration else _RETRY_SECONDS
        self._later(turn, step, delays[min(step.failures, len(delays)) - 1], f"{reason} It is tried again.")

    def _later(self, turn: _Turn, step: Step, seconds: int, reason: str) -> None:
        at = int(self._now().timestamp())
        step.become(StepState.WAITING, at=at, reason=reason, not_before=at + seconds)
        turn.delays.append(seconds)

    def _answer(self, result: CommandResult) -> Mapping[str, Any]:
        report = self._queue.report(result)
        try:
            return plist.loads(report) if report is not None else {}
        except MalformedBodyError:
            return {}

    def _move(self, turn: _Turn) -> bool:
        """Queue what comes next and write the plan down; say whether nobody else changed it meanwhile."""
        if turn.item is not None and turn.item.run == turn.run and turn.item.generation != turn.record.generation:
            _give_up_cleared(turn.document, at=int(self._now().timestamp()))
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
            for name in failed.names:
                number, _, what = name.partition(" ")
                if what == "answered" and "plan" not in failed.names:
                    # Under this name it was sent before, by a run that was overtaken: it gets another one.
                    turn.document.steps[turn.commands[int(number)][0]].attempts += 1
                    logger.warning("Command of a plan was answered before", enrollment_id=turn.record.enrollment_id)
            return False
        for delay in turn.delays:
            self._workflow_queue.resume_later(turn.record.enrollment_id, turn.kind, turn.run, seconds=delay)
        if commands:
            self._enqueue.tell_of(commands, Live(turn.record, turn.record))
        if outbox is not None:
            self._events.publish_outbox(outbox)
        return True

    def _take_next_steps(self, turn: _Turn) -> None:
        """Make commands of the steps of the current phase; with nothing to wait for, go on to the next phase."""
        device = self._device_of(turn)
        at = int(self._now().timestamp())
        phase = None
        while (now_in := turn.document.phase) is not None and now_in != phase:
            phase = now_in
            for number, step in list(turn.document.current()):
                due = step.state is StepState.WAITING and (step.not_before or 0) <= at
                if (step.state is StepState.PENDING or due) and len(turn.commands) < _MOST_AT_ONCE:
                    self._take(turn, number, step, device, at)

    def _take(self, turn: _Turn, number: int, step: Step, device: PlannedDevice, at: int) -> None:
        try:
            fields = dict(self._actions[step.action].command(step, turn.document, device))
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

    def _named(self, turn: _Turn, number: int, step: Step, fields: Mapping[str, Any]) -> Command:
        """Return a command under a name that says what it is.

        The same turn again makes the same command, and enrollments that a page of one job begins share what is the
        same for all of them.
        """
        content = plist.dumps({"Command": dict(fields)})
        told = json.dumps([turn.run, int(turn.record.epoch), number, step.attempts]).encode()
        digest = hashlib.sha256(told + content).hexdigest()[:32]
        uuid = f"{UUID_PREFIX}{turn.kind}.{digest}"
        body = plist.dumps({"Command": dict(fields), "CommandUUID": uuid})
        return Command(uuid, str(fields["RequestType"]), body)

    def _written(self, turn: _Turn) -> tuple[Plan, OutboxEvent | None]:
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
            item.enqueued_at = seconds
        if not over:
            return item, None
        item.finished_at = seconds
        return item, outbox_item(MDMEvent.from_document(self._told(turn, state, now)))

    def _told(self, turn: _Turn, state: str, now: datetime) -> dict[str, Any]:
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

    def _remind(self, record: Enrollment, item: Plan) -> None:
        """Do again what may have been left out behind the transaction that moved a plan: once too often is no harm."""
        document = self._open(item)
        seconds = int(self._now().timestamp())
        for step in document.in_state(StepState.WAITING):
            delay = max((step.not_before or 0) - seconds, 0)
            kind = item.item.removeprefix(tables.PLAN)
            self._workflow_queue.resume_later(record.enrollment_id, kind, item.run, seconds=delay)
        if document.in_state(StepState.QUEUED):
            self._enqueue.wake(Live(record, record))

    def _open(self, item: Plan) -> PlanDocument:
        return PlanDocument.decode(self._sealer.open(item.document, place=f"{item.enrollment_id}/{item.item}"))


def check_device(record: Enrollment) -> None:
    """Raise :class:`~mdmlib.errors.ConflictError` for a user channel: plans are for devices."""
    if record.parent_id is not None:
        raise ConflictError("It is the channel of a user; plans are for devices.", code="not_a_device")


def _live(enrollment_id: str, record: Enrollment | None) -> Enrollment:
    if record is None or record.state == "deleted":
        raise NotFoundError(f"There is no enrollment {enrollment_id[:200]}.", code="unknown_enrollment")
    check_device(record)
    if record.state not in LIVE_STATES:
        raise ConflictError(
            f"The enrollment {enrollment_id} has ended; its device has to enroll again first.", code="enrollment_ended"
        )
    return record


def _give_up_cleared(document: PlanDocument, *, at: int) -> None:
    """Send nothing more of a plan whose queue an administrator has cleared, but let Setup Assistant go on."""
    for step in document.in_state(StepState.QUEUED):
        step.become(StepState.FAILED, at=at, reason="An administrator cleared the queue that its command was in.")
    for step in document.in_state(StepState.PENDING, StepState.WAITING):
        if step.action != RELEASE:
            step.become(StepState.FAILED, at=at, reason="An administrator cleared the queue before its turn came.")


def _complaint(result: CommandResult) -> str:
    """Return what a device says about why it did not do a command."""
    chain = result.error_chain or []
    first = next((error for error in chain if isinstance(error, Mapping)), {})
    text = first.get("USEnglishDescription") or first.get("LocalizedDescription")
    code = first.get("ErrorCode")
    told = f"{result.status}: {text}" if text else str(result.status)
    return f"{told} ({code})." if code is not None else f"{told}."


def _index_key(shard: str, key: Sequence[Any]) -> dict[str, Any]:
    enqueued_at, enrollment_id, item = key
    return {
        "waiting_shard": {"S": shard},
        "enqueued_at": {"N": str(enqueued_at)},
        "enrollment_id": {"S": enrollment_id},
        "item": {"S": item},
    }
