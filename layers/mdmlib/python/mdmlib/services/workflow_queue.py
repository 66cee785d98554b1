"""The queue of workflows: what rules of the event bus put there, and what asks for itself later.

A message is ``{"task": …, …}``:

=============  ==================================================================================
``enrolled``   ``enrollment_id``, ``event_id``: a device has enrolled (rule of the bus)
``result``     ``enrollment_id``, ``command_uuid``: a device answered a plan's command (rules), or it was taken back
``resume``     ``enrollment_id``, ``kind``, ``run``, ``at``: a delay of a plan is over
``look``       ``enrollment_id``, ``kind``: a plan has not moved for long
``job``        ``job``, ``step``: a page of a job that brings blueprints to many
``start``      ``enrollment_id``, ``kind``, ``run``, ``options`` (sealed): a plan that somebody has asked for
``checkin``    ``topic``, ``enrollment_id``, ``event_id``: a device has checked in (rule, if wanted)
``idle``       ``enrollment_id``, ``event_id``: a device asks for commands (rule, if wanted)
``hash_app``   ``upload``: the next chunks of a package that was uploaded
=============  ==================================================================================
"""

import json
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from mypy_boto3_sqs import SQSClient

ENROLLED: Final = "enrolled"
RESULT: Final = "result"
RESUME: Final = "resume"
LOOK: Final = "look"
JOB: Final = "job"
START: Final = "start"
CHECKIN: Final = "checkin"
IDLE: Final = "idle"
HASH_APP: Final = "hash_app"

_BATCH: Final = 10
_BATCH_BYTES: Final = 200_000
"""Of SQS: messages of one call, and their bytes."""

LONGEST_DELAY: Final = 900
"""Of SQS. Whoever waits for longer is told again and again."""


class WorkflowQueue:
    """Puts messages into the queue. All methods raise :class:`~mdmlib.errors.UnavailableError`."""

    def __init__(self, client: "Callable[[], SQSClient]", *, queue_url: str, now: "Callable[[], datetime]") -> None:
        self._client = client
        self._queue_url = queue_url
        self._now = now

    def resume_later(self, enrollment_id: str, kind: str, run: str, *, seconds: int) -> None:
        """Have a plan moved on in so many seconds."""
        at = int(self._now().timestamp()) + seconds
        message = {"task": RESUME, "enrollment_id": enrollment_id, "kind": kind, "run": run, "at": at}
        self._send(message, delay=min(seconds, LONGEST_DELAY))

    def look_at(self, enrollment_id: str, command_uuid: str) -> None:
        """Have a plan moved on, one of whose commands an administrator has taken back."""
        self._send({"task": RESULT, "enrollment_id": enrollment_id, "command_uuid": command_uuid})

    def look_after(self, plans: "Sequence[tuple[str, str]]") -> None:
        """Have plans looked at that have not moved for long: enrollments and kinds."""
        self._send_all([{"task": LOOK, "enrollment_id": enrollment_id, "kind": kind} for enrollment_id, kind in plans])

    def do_page(self, job_id: str, step: int) -> None:
        """Have the next page of a job done."""
        self._send({"task": JOB, "job": job_id, "step": step})

    def start_plans(self, enrollment_ids: "Sequence[str]", kind: str, run: str, options: str) -> None:
        """Have plans begin; their options are sealed."""
        told = {"task": START, "kind": kind, "run": run, "options": options}
        self._send_all([told | {"enrollment_id": enrollment_id} for enrollment_id in enrollment_ids])

    def hash_app(self, upload_id: str) -> None:
        """Have the next chunks of an uploaded package hashed."""
        self._send({"task": HASH_APP, "upload": upload_id})

    def _send_all(self, messages: "Sequence[dict[str, Any]]") -> None:
        """Send many. What is not taken is asked for again by whoever asked."""
        entries: list[Any] = [
            {"Id": str(number), "MessageBody": json.dumps(message)} for number, message in enumerate(messages)
        ]
        for some in _batches(entries):
            try:
                answer = self._client().send_message_batch(QueueUrl=self._queue_url, Entries=some)
            except (BotoCoreError, ClientError) as error:
                raise UnavailableError("The workflow queue takes no messages.", code="queue_unavailable") from error
            if answer.get("Failed"):
                raise UnavailableError("The workflow queue did not take all messages.", code="queue_unavailable")

    def _send(self, message: dict[str, Any], *, delay: int = 0) -> None:
        try:
            self._client().send_message(
                QueueUrl=self._queue_url, MessageBody=json.dumps(message), DelaySeconds=max(delay, 0)
            )
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The workflow queue takes no messages.", code="queue_unavailable") from error


def _batches(entries: "Sequence[Any]") -> "Iterator[list[Any]]":
    batch: list[Any] = []
    size = 0
    for entry in entries:
        length = len(entry["MessageBody"])
        if batch and (len(batch) == _BATCH or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield batch
