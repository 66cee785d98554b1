"""What administrators do to command queues: clear them, and take single commands back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pynamodb.exceptions import UpdateError

from mdmlib.apple.command import MAX_COMMAND_UUID_LENGTH
from mdmlib.errors import ConflictError, NotFoundError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.plan_document import kind_of
from mdmlib.services.sweep import SweepQueue
from mdmlib.store import tables
from mdmlib.store.command_queue import CommandQueueStore, place_of
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Command, Enrollment, EnrollmentItem, PendingCommand
from mdmlib.store.transactions import ConditionsFailedError, Delete, transact

_DELETED: Final = "deleted"


class CommandQueues:
    """The queues of enrollments. A device that was given a command already may do it all the same, and report on it."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        queue: CommandQueueStore,
        sweeps: SweepQueue,
        tell_plan: Callable[[str, str], object],
    ) -> None:
        """``tell_plan`` is told of an enrollment's command of a plan, by its uuid, that was taken back."""
        self._enrollments = enrollments
        self._queue = queue
        self._sweeps = sweeps
        self._tell_plan = tell_plan

    def clear(self, ids: Iterable[str]) -> Mapping[str, PicoMDMError | None]:
        """Drop every command that waits for these enrollments; say of each what went wrong, or None.

        It takes one write for each, however long its queue is: the next generation begins, and a command of another one
        does not exist. What is queued while this runs may or may not be dropped; whoever queues it is told. User
        channels have queues of their own: name them too.
        """
        unique = list(dict.fromkeys(ids))
        records = self._enrollments.get_many(unique)
        return {id_: self._clear(id_, records.get(id_)) for id_ in unique}

    def user_channels(self, enrollment_id: str) -> list[str]:
        """Return the ids of a device's user channels."""
        return [key.enrollment_id for key in EnrollmentItem.by_parent.query(enrollment_id)]

    def cancel(self, enrollment_id: str, command_uuid: str) -> None:
        """Take one command back that waits for an enrollment.

        Raises :class:`~mdmlib.errors.NotFoundError` for an enrollment that is unknown and a command that does not wait
        for it, :class:`~mdmlib.errors.ConflictError` for one that the device has finally reported on.
        """
        record = self._enrollments.get(enrollment_id)
        if record is None or record.state == _DELETED:
            raise _unknown_enrollment(enrollment_id)
        # What is longer than any was never queued, and no key either.
        known = len(command_uuid) <= MAX_COMMAND_UUID_LENGTH
        result, command = self._queue.result_and_command(enrollment_id, command_uuid) if known else (None, None)
        if result is not None:
            raise ConflictError(
                f"The device has finished the command already: {result.status}.", code="command_finished"
            )
        if command is None or not self._delete(record, command):
            raise NotFoundError(
                f"No command {command_uuid} waits for this enrollment; see `picomdm commands list {enrollment_id}`.",
                code="unknown_command",
                field="command_uuid",
            )
        logger.info("Command cancelled", enrollment_id=enrollment_id, command_uuid=command_uuid)
        if kind_of(command_uuid) is not None:
            try:
                self._tell_plan(enrollment_id, command_uuid)
            except UnavailableError:
                logger.warning("Plan not told that its command was cancelled", enrollment_id=enrollment_id)

    def _clear(self, enrollment_id: str, record: Enrollment | None) -> PicoMDMError | None:
        if record is None or record.state == _DELETED:
            return _unknown_enrollment(enrollment_id)
        generation = tables.next_generation(record.generation)
        try:
            record.update([Enrollment.generation.set(generation)], Enrollment.generation == record.generation)
        except UpdateError as error:
            if not condition_failed(error):
                raise
            # It began another generation since it was read, so whatever waited then is gone: that is what was asked.
            return None
        self._sweeps.request(enrollment_id, generation)
        logger.info("Queue cleared", enrollment_id=enrollment_id)
        return None

    def _delete(self, record: Enrollment, command: Command) -> bool:
        pending = self._queue.pending(record, command.order)
        pending.dedup_key = command.dedup_key
        try:
            transact([Delete("pending", pending, PendingCommand.item.exists()), *place_of(pending)])
        except ConditionsFailedError:
            return False
        return True


def _unknown_enrollment(enrollment_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no enrollment {enrollment_id}: check the id with `picomdm enrollments list`.",
        code="unknown_enrollment",
        field="id",
    )
