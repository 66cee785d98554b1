"""Waking many at once: everybody, those of some types or of a topic, or up to 100,000 ids.

Whoever asks for it is answered at once; housekeeping does it, a page a message of the sweep queue. The ids travel in
the messages, in parts that are done side by side; of the index ``listing`` each shard is a part, whose pages follow one
another. A page that is done is written down once, however often its message comes: then devices are woken twice, which
is once to APNs, but nobody is counted twice.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import DoesNotExist, PynamoDBException, UpdateError

from mdmlib.errors import MalformedBodyError, NotFoundError, UnavailableError
from mdmlib.services.enqueue import EnqueueService
from mdmlib.services.sweep import PUSH_JOB
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import Enrollment, PushJob

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_IDS: Final = 100_000
_KEPT: Final = timedelta(days=30)
_PAGE: Final = 1_000
_PART_BYTES: Final = 200_000


@dataclass(frozen=True, kw_only=True)
class PushSelection:
    """Whom a job is for: the enabled enrollments of these types (none: all) and of this topic, or ``ids``."""

    types: Collection[str] = ()
    topic: str | None = None
    ids: Sequence[str] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What a job tells of it."""
        return {
            "types": sorted(self.types) or None,
            "topic": self.topic,
            "ids": None if self.ids is None else len(self.ids),
        }


class PushJobs:
    """Takes such requests, does them, and tells how they are getting on."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        enqueue: EnqueueService,
        sqs_client: "Callable[[], SQSClient]",
        queue_url: str,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._enqueue = enqueue
        self._sqs_client = sqs_client
        self._queue_url = queue_url
        self._now = now
        self._new_id = new_id

    def start(self, selection: PushSelection, *, expiration: int | None) -> PushJob:
        """Begin to wake a selection. ``expiration`` is epoch seconds, for APNs.

        Raises :class:`~mdmlib.errors.UnavailableError` when not all of it could be queued: ask again then. There is no
        job in that case, and nothing that was queued finds one.
        """
        now = self._now()
        if selection.ids is None:
            parts: list[dict[str, Any]] = [{"shard": f"{number:x}"} for number in range(tables.SHARDS)]
        else:
            parts = [{"ids": ids} for ids in _chunks(dict.fromkeys(selection.ids))]
        job = PushJob(
            PUSH_JOB,
            self._new_id(),
            selection=selection.document,
            expiration=expiration,
            parts=len(parts),
            created_at=int(now.timestamp()),
            ttl=int((now + _KEPT).timestamp()),
        )
        job.save(PushJob.name.does_not_exist())
        try:
            for number, part in enumerate(parts):
                self._request({"task": PUSH_JOB, "job": job.name, "part": number, "page": 0, **part})
        except UnavailableError:
            with suppress(PynamoDBException):
                job.delete()
            raise
        return job

    def get(self, job_id: str) -> PushJob:
        """Return a job. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            return PushJob.get(PUSH_JOB, job_id, consistent_read=True)
        except DoesNotExist as error:
            raise NotFoundError("There is no such job; they are kept for 30 days.", code="unknown_job") from error

    def receive(self, message: Mapping[str, Any]) -> None:
        """Do one page of a part, and ask for the next one.

        Raises :class:`~mdmlib.errors.UnavailableError` when the message has to come again.
        """
        part, page = message.get("part"), message.get("page")
        if not isinstance(part, int) or not isinstance(page, int):
            raise MalformedBodyError("A message that asks for pushes names no part of its job.")
        try:
            job = self.get(str(message.get("job")))
        except NotFoundError:
            return
        if "ids" in message:
            ids, after = [str(id_) for id_ in message["ids"]], None
        else:
            ids, after = self._page(job, str(message.get("shard")), message.get("after"))
        woken = 0
        if ids:
            outcome = self._enqueue.push(ids, expiration=None if job.expiration is None else int(job.expiration))
            woken = sum(target.push_result is not None for target in outcome.targets.values())
        self._note(job, f"{part}.{page}", woken=woken, not_woken=len(ids) - woken, ends=after is None)
        if after is not None:
            self._request({**message, "page": page + 1, "after": after})

    def _page(self, job: PushJob, shard: str, after: Any) -> tuple[list[str], Any]:  # noqa: ANN401 - DynamoDB's key
        """Return who of a page of the index is selected, and where the next page begins, or None."""
        types, topic = job.selection["types"], job.selection["topic"]
        found = Enrollment.listing.query(shard, limit=_PAGE, page_size=_PAGE, last_evaluated_key=after)
        ids = [
            entry.enrollment_id
            for entry in found
            if isinstance(entry, Enrollment)
            and entry.state in LIVE_STATES
            and not entry.blocked
            and (not types or entry.type in types)
        ]
        if topic:
            # The index knows no topics.
            ids = [id_ for id_, record in self._enrollments.get_many(ids).items() if record.topic == topic]
        return ids, found.last_evaluated_key

    def _note(self, job: PushJob, page: str, *, woken: int, not_woken: int, ends: bool) -> None:
        try:
            job.update(
                [
                    PushJob.woken.add(woken),
                    PushJob.not_woken.add(not_woken),
                    PushJob.ended.add(int(ends)),
                    PushJob.pages.add({page}),
                ],
                PushJob.name.exists() & ~PushJob.pages.contains(page),
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise
            # Whoever did it before may have ended before it asked for the next page.

    def _request(self, message: Mapping[str, Any]) -> None:
        try:
            self._sqs_client().send_message(QueueUrl=self._queue_url, MessageBody=json.dumps(message))
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable") from error


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Split ids into parts of at most 1,000 that fit into a message."""
    chunk: list[str] = []
    size = 0
    for id_ in ids:
        length = len(json.dumps(id_)) + 2
        if chunk and (len(chunk) == _PAGE or size + length > _PART_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(id_)
        size += length
    if chunk:
        yield chunk
