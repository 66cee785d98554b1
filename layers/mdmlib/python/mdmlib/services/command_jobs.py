"""Jobs: a command for all enrollments, for those of some types, or for those of serial numbers.

Whoever asks for it is answered at once. Housekeeping does it, a page a message of the sweep queue, so that a million
enrollments are no harder than one. A page that is done is written down on the condition that it is the next one; a
message that comes twice finds it done, or does once more what changes nothing, for each pending command is written on
the condition that it was not answered. Whoever is killed between two steps is followed by the same message.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import DoesNotExist, PutError, UpdateError

from mdmlib.apple.command import Command
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.enqueue import EnqueueService
from mdmlib.services.sweep import COMMAND_JOB
from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import CommandJob, CommandJobSerialNumbers, Enrollment, EnrollmentItem

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_SERIAL_NUMBERS: Final = 10_000
_SERIAL_NUMBERS: Final = "command_job_serial_numbers"
_KEPT: Final = timedelta(days=30)
_PAGE: Final = 200
"""Enrollments of one message."""
_EXAMINED: Final = 2_000
"""Entries of the index that are looked at for them at most."""
_LISTED: Final = 100
_MAX_ERRORS: Final = 100
_MAX_SERIALS_BYTES: Final = 300 * 1024
# Of an enrollment that has ended nobody asked: it is among all, as far as an index knows.
_NOBODY: Final = frozenset({"unknown_enrollment", "enrollment_ended"})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Whom a job is for: the enabled enrollments of these types (none: all), or the devices of serial numbers."""

    types: Collection[str] = ()
    serial_numbers: Sequence[str] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What a job tells of it."""
        if self.serial_numbers is not None:
            return {"serial_numbers": len(self.serial_numbers)}
        return {"types": sorted(self.types) or None}

    @property
    def hash(self) -> str:
        """Tells a repeated request from another one."""
        serial_numbers = None if self.serial_numbers is None else list(self.serial_numbers)
        return hashlib.sha256(json.dumps([sorted(self.types), serial_numbers]).encode()).hexdigest()


@dataclass
class _Page:
    """Some of the enrollments that a job is for."""

    ids: list[str] = field(default_factory=list)
    examined: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)
    next_position: str | None = None


class CommandJobs:
    """Takes jobs, does them, and tells how they are getting on."""

    def __init__(
        self,
        *,
        enqueue: EnqueueService,
        sqs_client: "Callable[[], SQSClient]",
        queue_url: str,
        now: Callable[[], datetime],
        page: int = _PAGE,
    ) -> None:
        self._enqueue = enqueue
        self._sqs_client = sqs_client
        self._queue_url = queue_url
        self._now = now
        self._page = page

    def start(
        self,
        command: Command,
        selection: Selection,
        *,
        priority: int,
        push: bool,
        expires_at: datetime | None,
        not_before: datetime | None,
        dedup_key: str | None,
        force: bool,
    ) -> CommandJob:
        """Begin to queue a command for a selection.

        The same request again, by its CommandUUID, is the same job. Raises as
        :meth:`~mdmlib.services.enqueue.EnqueueService.enqueue` does, and
        :class:`~mdmlib.errors.ConflictError` when the command is on its way to somebody else.
        """
        self._enqueue.store(
            command, priority=priority, expires_at=expires_at, not_before=not_before, dedup_key=dedup_key
        )
        now = self._now()
        job = CommandJob(
            COMMAND_JOB,
            _job_id(command.uuid),
            command_uuid=command.uuid,
            request_type=command.request_type,
            state="running",
            selection=selection.document,
            selection_hash=selection.hash,
            options={
                "push": push,
                "force": force,
                "not_before": int(not_before.timestamp()) if not_before else None,
            },
            created_at=int(now.timestamp()),
            ttl=int((now + _KEPT).timestamp()),
        )
        if selection.serial_numbers is not None:
            self._keep(job, selection.serial_numbers)
        try:
            job.save(CommandJob.name.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            job = self.get(job.name)
            if job.selection_hash != selection.hash:
                raise ConflictError(
                    f"The command {command.uuid} is on its way to others already; give it another command_uuid.",
                    code="job_exists",
                    field="command_uuid",
                ) from error
        if job.state == "running":
            self._request(job)
        return job

    def get(self, job_id: str) -> CommandJob:
        """Return a job. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            return CommandJob.get(COMMAND_JOB, job_id, consistent_read=True)
        except DoesNotExist as error:
            raise NotFoundError("There is no such job; they are kept for 30 days.", code="unknown_job") from error

    def list(self) -> Sequence[CommandJob]:
        """Return the newest jobs, at most 100."""
        jobs = [job for job in CommandJob.query(COMMAND_JOB) if isinstance(job, CommandJob)]
        return sorted(jobs, key=lambda job: (-job.created_at, job.name))[:_LISTED]

    def cancel(self, job_id: str) -> CommandJob:
        """Stop a job: the page that is being done is the last one. What is queued stays queued.

        Raises :class:`~mdmlib.errors.NotFoundError`; a job that is over stays as it is.
        """
        job = self.get(job_id)
        try:
            job.update(
                [CommandJob.state.set("cancelled"), CommandJob.finished_at.set(int(self._now().timestamp()))],
                CommandJob.state == "running",
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return self.get(job_id)
        logger.info("Job cancelled", command_uuid=job.command_uuid)
        return job

    def receive(self, message: dict[str, Any]) -> None:
        """Do one page of a job, and ask for the next one.

        Raises :class:`~mdmlib.errors.UnavailableError` when the message has to come again.
        """
        try:
            job = self.get(str(message.get("job")))
        except NotFoundError:
            return
        if job.state != "running":
            return
        if message.get("step") != job.step:
            # Whoever did that page may have ended before it asked for the next one. Once too often is no harm.
            self._request(job)
            return
        self._do_page(job)

    def _do_page(self, job: CommandJob) -> None:
        page = self._page_of(job)
        queued, errors = 0, page.errors
        if page.ids:
            not_before = job.options["not_before"]
            try:
                outcome = self._enqueue.enqueue_stored(
                    job.command_uuid,
                    page.ids,
                    push=job.options["push"],
                    not_before=datetime.fromtimestamp(not_before, UTC) if not_before else None,
                    force=job.options["force"],
                )
            except NotFoundError:
                over = CommandJob.finished_at.set(int(self._now().timestamp()))
                self._write(job, [CommandJob.state.set("failed"), over])
                return
            for id_, target in outcome.targets.items():
                if isinstance(target.command_error, UnavailableError):
                    raise target.command_error
                if target.queued:
                    queued += 1
                elif target.command_error and target.command_error.code not in _NOBODY:
                    error = target.command_error
                    errors.append({"target": id_, "code": error.code, "detail": error.message})
        actions = [
            CommandJob.step.set(job.step + 1),
            CommandJob.examined.set(job.examined + page.examined),
            CommandJob.queued.set(job.queued + queued),
            CommandJob.refused.set(job.refused + len(errors)),
            CommandJob.errors.set([*(job.errors or []), *errors][:_MAX_ERRORS]),
        ]
        if page.next_position is None:
            actions += [CommandJob.state.set("done"), CommandJob.finished_at.set(int(self._now().timestamp()))]
        else:
            actions.append(CommandJob.position.set(page.next_position))
        if self._write(job, actions) and page.next_position is not None:
            self._request(job)

    def _write(self, job: CommandJob, actions: Sequence[Any]) -> bool:
        """Write down what became of a page; say whether nobody did before, nor cancelled the job."""
        try:
            job.update(list(actions), (CommandJob.step == job.step) & (CommandJob.state == "running"))
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return False
        return True

    def _page_of(self, job: CommandJob) -> _Page:
        if "serial_numbers" in job.selection:
            return self._page_of_serial_numbers(job)
        return self._page_of_index(job.position, job.selection["types"] or ())

    def _page_of_index(self, position: str, types: Collection[str]) -> _Page:
        page = _Page()
        first, after = (int(position[0], 16), position[1:]) if position else (0, "")
        for shard in range(first, tables.SHARDS):
            for record in _listed(shard, after if shard == first else ""):
                page.examined += 1
                if record.state in LIVE_STATES and (not types or record.type in types):
                    page.ids.append(record.enrollment_id)
                if len(page.ids) == self._page or page.examined == _EXAMINED:
                    page.next_position = f"{shard:x}{record.enrollment_id}"
                    return page
        return page

    def _page_of_serial_numbers(self, job: CommandJob) -> _Page:
        kept = CommandJobSerialNumbers.get(_SERIAL_NUMBERS, _kept_under(job), consistent_read=True)
        serial_numbers: list[str] = json.loads(zlib.decompress(kept.serial_numbers))
        start = int(job.position or 0)
        some = serial_numbers[start : start + self._page]
        page = _Page(examined=len(some))
        for serial_number, ids in zip(some, at_once(_devices_of, some), strict=True):
            page.ids += ids
            if not ids:
                page.errors.append(
                    {
                        "target": serial_number,
                        "code": "unknown_serial_number",
                        "detail": "No device with this serial number is enrolled.",
                    }
                )
        if start + len(some) < len(serial_numbers):
            page.next_position = str(start + len(some))
        return page

    def _keep(self, job: CommandJob, serial_numbers: Sequence[str]) -> None:
        """Keep the serial numbers, beside those of another request that may have died under the same CommandUUID."""
        compressed = zlib.compress(json.dumps(list(serial_numbers)).encode())
        if len(compressed) > _MAX_SERIALS_BYTES:
            raise BadRequestError(
                "The serial numbers are too long together; split them.", code="too_large", field="serial_numbers"
            )
        CommandJobSerialNumbers(_SERIAL_NUMBERS, _kept_under(job), serial_numbers=compressed, ttl=job.ttl).save()

    def _request(self, job: CommandJob) -> None:
        body = json.dumps({"task": COMMAND_JOB, "job": job.name, "step": int(job.step)})
        try:
            self._sqs_client().send_message(QueueUrl=self._queue_url, MessageBody=body)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable") from error


def _job_id(command_uuid: str) -> str:
    return hashlib.sha256(command_uuid.encode()).hexdigest()[:32]


def _kept_under(job: CommandJob) -> str:
    return f"{job.name}-{job.selection_hash[:32]}"


def _listed(shard: int, after: str) -> Iterator[Enrollment]:
    condition = EnrollmentItem.enrollment_id > after if after else None
    for record in EnrollmentItem.listing.query(f"{shard:x}", condition, page_size=_PAGE):
        if isinstance(record, Enrollment):
            yield record


def _devices_of(serial_number: str) -> list[str]:
    """Return the live enrollments of a device, its user channels left away."""
    return [
        record.enrollment_id
        for record in EnrollmentItem.by_serial.query(serial_number)
        if isinstance(record, Enrollment)
        and record.state in LIVE_STATES
        and not EnrollmentType(record.type).is_user_channel
    ]
