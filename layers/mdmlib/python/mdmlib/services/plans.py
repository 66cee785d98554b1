"""Plans: what a device is to be brought to, step by step, durable and observable.

A plan is one item of its enrollment (:class:`~mdmlib.store.tables.Plan`). It moves when something happens: it is
begun, a device has answered one of its commands, a delay is over. Whoever moves it reads it, decides, and writes it
back on the condition that nobody else did, in the one transaction that queues the commands of its next steps
(:mod:`mdmlib.services.plan_moves`). So each event may come twice and in any order, and a function may end between any
two calls.

A phase goes on when all of its commands are over, so what a device has done is noted with the last of them: a command
that it acknowledged while one behind it waits moves nothing, unless its answer is wanted outside of the plan. Whoever
notes the last one reads the results of all.

Offline devices and NotNow need nothing here: the command waits in the device's queue. A device that enrolls anew ends
its plans by that (``epoch``). A plan that has not moved for an hour is looked at, by the clock, and then less and less
often: what it waits for may have been lost, or its command's life be over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import UpdateError

from mdmlib.apple import plist
from mdmlib.apple.command_report import ACKNOWLEDGED, COMMAND_FORMAT_ERROR
from mdmlib.errors import ConflictError, MalformedBodyError, NotFoundError, UnavailableError
from mdmlib.services.command_targets import Live
from mdmlib.services.plan_actions import Action, Again, NotFulfilled, PlannedDevice
from mdmlib.services.plan_document import PlanDocument, Step, StepState, kind_of
from mdmlib.services.plan_moves import LOOKED_AT_AFTER, PlanMoves, Turn
from mdmlib.store import tables
from mdmlib.store.command_queue import NOT_SENT, CommandQueueStore
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import CommandResult, Enrollment, EnrollmentItem, Plan

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action as UpdateAction

    from mdmlib.services.device_attributes import DeviceAttributeStore

MOST_ATTEMPTS: Final = 3
"""How often a step is tried whose device reports an error, or leaves it unanswered for all of its command's life."""

_RETRY_SECONDS: Final = (60, 600)
_RETRY_SECONDS_IN_SETUP: Final = (5, 20)
"""While somebody sits in front of Setup Assistant."""

_LONGEST_PAUSE: Final = timedelta(days=7)
"""Between two looks at a plan whose device is silent."""

_TURNS: Final = 5


@dataclass(frozen=True)
class Situation:
    """What is known when a plan begins."""

    device: PlannedDevice
    former: PlanDocument | None
    """The last plan of the kind in the same enrollment."""
    former_begun_at: int = 0
    former_changed_at: int = 0


class Plans:
    """Begins plans and moves them on."""

    def __init__(
        self,
        *,
        queue: CommandQueueStore,
        moves: PlanMoves,
        attributes: "DeviceAttributeStore",
        actions: Mapping[str, Action],
        sealer: Sealer,
        command_life: timedelta,
        result_life: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._moves = moves
        self._attributes = attributes
        self._actions = actions
        self._sealer = sealer
        self._command_life = command_life
        # What a device has done is noted while its result is there.
        self._longest_pause = min(_LONGEST_PAUSE, result_life / 2)
        self._now = now

    def begin(
        self,
        enrollment_id: str,
        kind: str,
        draft: Callable[[Situation], PlanDocument | None],
        *,
        run: str,
        cause: str,
        begins: Callable[[Situation], bool] | None = None,
    ) -> bool:
        """Begin a plan in place of the former one of its kind; say whether there is one to begin.

        ``draft`` says what is to be done; it is asked again when the device's state changed meanwhile. Before,
        ``begins`` says whether there is anything; what the device has done last of the former plan it may not see yet.
        ``run`` tells this beginning from others: the same one again only makes sure that the device was woken, and does
        nothing once another one has taken its place. Raises
        :class:`~mdmlib.errors.NotFoundError` and :class:`~mdmlib.errors.ConflictError` for a device that takes no
        commands.
        """
        for _ in range(_TURNS):
            found, item, _result = self._read(enrollment_id, kind)
            record = _live(enrollment_id, found)
            alive = item is not None and item.epoch == record.epoch
            if item is not None and alive and item.run == run:
                self._moves.remind(record, item, self._open(item))
                return True
            if item is not None and alive and run in (item.former_runs or ()):
                # Somebody asked for another one meanwhile: what comes late, or twice, does not undo that.
                return True
            item_alive = item if alive else None
            if begins is not None and not begins(self._situation(record, item_alive)):
                return False
            situation = self._situation(record, item_alive, is_up_to_date=True)
            document = draft(situation)
            if document is None:
                return False
            if situation.former is not None:
                document.installed = situation.former.installed | document.installed
            if self._moves.move(Turn(situation.device, item, document, kind, run, cause)):
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
            if record is None or item is None or not _is_alive(record, item):
                return
            document = self._open(item)
            step = document.step_of(command_uuid)
            if step is None or self._moves_nothing(record, item, document, step, result):
                return
            turn = self._turn(record, item, document, mover=command_uuid)
            self._settle_answered(turn, {command_uuid: result} if result is not None else {})
            if step.state is StepState.QUEUED and item.generation == record.generation:
                self._fail(step, "An administrator took its command back.")
            if self._move(turn):
                return
        raise UnavailableError("Others kept changing the plan.")

    def resume(self, enrollment_id: str, kind: str, run: str) -> None:
        """Move a plan on, for a delay is over."""
        for _ in range(_TURNS):
            record, item, _result = self._read(enrollment_id, kind)
            if record is None or item is None or not _is_alive(record, item) or item.run != run:
                return
            turn = self._turn(record, item, self._open(item))
            if not self._is_due(turn.document) or self._moves.move(turn):
                return
        raise UnavailableError("Others kept changing the plan.")

    def look_after(self, enrollment_id: str, kind: str) -> None:
        """Look at a plan that has not moved for long, and move it on where it stands still.

        What its device has answered is noted, a delay that is over ends, and a command whose life has ended is sent
        again, as often as any step is tried. Where there is nothing to be done, the next look is put off.
        """
        for _ in range(_TURNS):
            record, item, _result = self._read(enrollment_id, kind)
            if item is None or item.state != "running":
                return
            if record is None or not _is_alive(record, item):
                # It has ended with its enrollment: nobody has to look at it any more.
                self._note(item, [Plan.waiting_shard.remove(), Plan.enqueued_at.remove()])
                return
            turn = self._turn(record, item, self._open(item))
            before = turn.document.encode()
            expiring = self._expiring(record)
            self._settle_answered(turn)
            next_look = self._settle_lost(turn, expiring, next_look=self._next_look(item))
            stands = turn.document.encode() == before and item.generation == record.generation
            if stands and not self._is_due(turn.document):
                self._note(item, [Plan.enqueued_at.set(next_look)])
                return
            if self._move(turn):
                return
        raise UnavailableError("Others kept changing the plan.")

    def situation(self, enrollment_id: str, kind: str) -> Situation:
        """Return what a plan that began now would begin with. Raises as :meth:`begin` does."""
        record, item, _result = self._read(enrollment_id, kind)
        alive = _live(enrollment_id, record)
        return self._situation(alive, item if item is not None and item.epoch == alive.epoch else None)

    # What is read

    def _read(
        self, enrollment_id: str, kind: str, command_uuid: str | None = None
    ) -> tuple[Enrollment | None, Plan | None, CommandResult | None]:
        """Read the record, a plan and a result, strongly and in one call."""
        if not 0 < len(enrollment_id.encode()) <= tables.LONGEST_ID or "#" in enrollment_id:
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

    def _expiring(self, record: Enrollment) -> dict[str, int]:
        """Return when the lives of the commands end that wait for a device, by uuid."""
        queue = self._queue.read_on(record, after=f"{tables.PENDING}{record.generation}#")
        return {pending.command_uuid: int(pending.expires_at) for pending in queue}

    def _device(self, record: Enrollment) -> PlannedDevice:
        serial_number = record.serial_number
        platform = Live(record, record).target.platform
        return PlannedDevice(record, platform, ask=lambda: self._attributes.find(serial_number))

    def _turn(self, record: Enrollment, item: Plan, document: PlanDocument, *, mover: str | None = None) -> Turn:
        kind = item.item.removeprefix(tables.PLAN)
        return Turn(self._device(record), item, document, kind, item.run, item.cause, mover=mover)

    def _open(self, item: Plan) -> PlanDocument:
        return PlanDocument.decode(self._sealer.open(item.document, place=f"{item.enrollment_id}/{item.item}"))

    def _situation(self, record: Enrollment, item: Plan | None, *, is_up_to_date: bool = False) -> Situation:
        """Return what a plan begins with; ``is_up_to_date`` notes all that the device has done of the plan before."""
        if item is None:
            return Situation(self._device(record), None)
        turn = self._turn(record, item, self._open(item))
        if is_up_to_date and turn.document.in_state(StepState.QUEUED):
            self._settle_answered(turn)
        return Situation(turn.device, turn.document, int(item.begun_at), int(item.changed_at))

    # How it moves

    def _move(self, turn: Turn) -> bool:
        """Move a plan and look back; say whether nobody else moved it meanwhile."""
        if not self._moves.move(turn):
            return False
        self._look_back(turn.record, turn.document, new=[command.uuid for _, command in turn.commands])
        return True

    def _moves_nothing(
        self, record: Enrollment, item: Plan, document: PlanDocument, step: Step, result: CommandResult | None
    ) -> bool:
        """Say whether there is nothing to be done yet, or any more, about what became of a step's command."""
        if step.state is not StepState.QUEUED:
            # Most that come late had nothing to do with the last move; a delay may be of an earlier one.
            if document.moved_by == step.command_uuid or document.in_state(StepState.WAITING):
                self._moves.remind(record, item, document)
                self._look_back(record, document)
            return True
        if item.generation != record.generation:
            return False
        if result is None:
            return self._waits(record, str(step.command_uuid))
        is_hurried = self._actions[step.action].at_once
        return result.status == ACKNOWLEDGED and document.waits_behind(step) and not is_hurried

    def _look_back(self, record: Enrollment, document: PlanDocument, *, new: Sequence[str] = ()) -> None:
        """Take what the device answered while its plan was moved: whoever brought that may have seen it unmoved.

        Nobody has to look for what ``new`` commands come to.
        """
        waiting = [str(step.command_uuid) for step in document.in_state(StepState.QUEUED)]
        waiting = [uuid for uuid in waiting if uuid not in new]
        answered = self._queue.results(record.enrollment_id, waiting)
        if answered:
            self.take_result(record.enrollment_id, next(uuid for uuid in reversed(waiting) if uuid in answered))

    def _settle_answered(self, turn: Turn, known: Mapping[str, CommandResult] | None = None) -> None:
        """Note what became of all commands that the device has answered; ``known`` are results that were read."""
        queued = {str(step.command_uuid): step for step in turn.document.in_state(StepState.QUEUED)}
        results = dict(known or {})
        results |= self._queue.results(turn.record.enrollment_id, [uuid for uuid in queued if uuid not in results])
        for uuid, step in queued.items():
            if uuid in results:
                self._settle(turn, step, results[uuid])

    def _settle(self, turn: Turn, step: Step, result: CommandResult) -> None:
        if result.status == ACKNOWLEDGED:
            try:
                self._actions[step.action].learn(step, turn.document, turn.device, self._answer(result))
            except Again as again:
                self._later(turn, step, again.after, str(again))
            except NotFulfilled as failure:
                self._fail(step, str(failure))
            else:
                step.become(StepState.DONE, at=int(self._now().timestamp()))
            return
        reason = _complaint(result)
        step.failures += 1
        # What a device does not understand, or cannot do, it will not the next time.
        if result.status in {NOT_SENT, COMMAND_FORMAT_ERROR} or step.failures >= MOST_ATTEMPTS:
            self._fail(step, reason)
            return
        delays = _RETRY_SECONDS_IN_SETUP if turn.record.awaiting_configuration else _RETRY_SECONDS
        self._later(turn, step, delays[min(step.failures, len(delays)) - 1], f"{reason} It is tried again.")

    def _settle_lost(self, turn: Turn, expiring: Mapping[str, int], *, next_look: int) -> int:
        """Note what became of commands that the device has not answered; return when to look again."""
        now = int(self._now().timestamp())
        for step in turn.document.in_state(StepState.QUEUED):
            end = expiring.get(str(step.command_uuid))
            if end is not None and end > now:
                next_look = min(next_look, end)
            elif end is None and now - (step.changed_at or 0) < self._command_life.total_seconds() / 2:
                self._fail(step, "An administrator took its command back.")
            else:
                self._expire(step)
        return next_look

    def _expire(self, step: Step) -> None:
        at = int(self._now().timestamp())
        step.failures += 1
        days = self._command_life.days
        if step.failures >= MOST_ATTEMPTS:
            again = "when the device connects again, begin the plan once more"
            self._fail(step, f"It was sent {step.attempts} times and not answered, at last for {days} days: {again}.")
        else:
            reason = f"The device has not answered for {days} days. It is sent again."
            step.become(StepState.WAITING, at=at, reason=reason, not_before=at)

    def _fail(self, step: Step, reason: str) -> None:
        step.become(StepState.FAILED, at=int(self._now().timestamp()), reason=reason)

    def _later(self, turn: Turn, step: Step, seconds: int, reason: str) -> None:
        at = int(self._now().timestamp())
        step.become(StepState.WAITING, at=at, reason=reason, not_before=at + seconds)
        turn.delays.append(seconds)

    def _answer(self, result: CommandResult) -> Mapping[str, Any]:
        report = self._queue.report(result)
        try:
            return plist.loads(report) if report is not None else {}
        except MalformedBodyError:
            return {}

    # When it is looked at

    def _is_due(self, document: PlanDocument) -> bool:
        """Say whether the delay of a step is over."""
        now = self._now().timestamp()
        return any((step.not_before or 0) <= now for step in document.in_state(StepState.WAITING))

    def _next_look(self, item: Plan) -> int:
        """Return when to look again at a plan that does not move: after as long as it has stood still by now."""
        now = self._now()
        still = timedelta(seconds=now.timestamp() - int(item.changed_at))
        return int((now + min(max(still, LOOKED_AT_AFTER), self._longest_pause)).timestamp())

    def _note(self, item: Plan, actions: "list[UpdateAction]") -> None:
        """Note when a plan is looked at again. One that has moved meanwhile has noted that itself."""
        try:
            item.update(actions, condition=Plan.version == item.version)
        except UpdateError as error:
            if not condition_failed(error):
                raise


def check_device(record: Enrollment) -> None:
    """Raise :class:`~mdmlib.errors.ConflictError` for a user channel: plans are for devices."""
    if record.parent_id is not None:
        raise ConflictError(
            "It is the channel of a user, and plans are for devices: send commands to it, or name its device.",
            code="not_a_device",
        )


def _is_alive(record: Enrollment, item: Plan) -> bool:
    return item.epoch == record.epoch and record.state in LIVE_STATES


def _live(enrollment_id: str, record: Enrollment | None) -> Enrollment:
    if record is None or record.state == "deleted":
        raise NotFoundError(f"There is no enrollment {enrollment_id[:200]}.", code="unknown_enrollment")
    check_device(record)
    if record.state not in LIVE_STATES:
        raise ConflictError(
            f"The enrollment {enrollment_id} has ended; its device has to enroll again first.", code="enrollment_ended"
        )
    return record


def _complaint(result: CommandResult) -> str:
    """Return what a device says about why it did not do a command."""
    chain = result.error_chain or []
    first = next((error for error in chain if isinstance(error, Mapping)), {})
    text = first.get("USEnglishDescription") or first.get("LocalizedDescription")
    code = first.get("ErrorCode")
    told = f"{result.status}: {text}" if text else str(result.status)
    return f"{told} ({code})." if code is not None else f"{told}."
