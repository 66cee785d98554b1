"""What administrators may see of enrollments: lists, records, queues and results. Nothing here writes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, TypeVar

from botocore.exceptions import ClientError

from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.store import tables
from mdmlib.store.command_queue import CommandQueueStore, pending_key
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.tables import CommandResult, Enrollment, EnrollmentItem, PendingCommand

MAX_LIMIT: Final = 100
"""Entries of one page."""

_EXAMINED: Final = 5_000
_INDEX_PAGE: Final = 500
# Lambda answers with at most 6 MiB, base64 included; one payload that is larger is the only one on its page.
_PAGE_BYTES: Final = 3 * 1024 * 1024
_DELETED: Final = "deleted"
_HISTORY: Final = (
    "enrollment_id",
    "item",
    "cls",
    "ttl",
    "command_uuid",
    "request_type",
    "status",
    "event_id",
    "error_chain",
    "reported_at",
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Page(Generic[_T]):
    """A part of a list. ``next_cursor`` asks for the next one; None: this was the last.

    A page may hold fewer entries than were asked for, even none, and still not be the last.
    """

    entries: Sequence[_T]
    next_cursor: str | None = None


@dataclass(frozen=True)
class EnrollmentEntry:
    """An enrollment. In a list of all of them ``record`` has only the attributes of the ``listing`` index."""

    record: Enrollment
    enabled: bool
    """Whether it may receive commands. A user channel's ``state`` is its own, this also knows of its device."""


@dataclass(frozen=True)
class QueuedCommand:
    """A command that waits for its enrollment; ``payload`` is the raw plist when it was asked for and is still kept."""

    item: PendingCommand
    state: str
    """``pending``, ``not_now`` (its device deferred it), ``scheduled`` (its ``not_before`` is to come), ``expired``."""
    payload: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ReportedResult:
    """What a device finally reported; ``payload`` is the whole report when it was asked for and is still kept."""

    item: CommandResult
    payload: bytes | None = field(default=None, repr=False)


class Enrollments:
    """The enrollments of this deployment, with their queues and results."""

    def __init__(self, *, enrollments: EnrollmentStore, queue: CommandQueueStore, now: Callable[[], datetime]) -> None:
        self._enrollments = enrollments
        self._queue = queue
        self._now = now

    def list(
        self,
        *,
        types: Collection[str] = (),
        states: Collection[str] = (),
        limit: int = MAX_LIMIT,
        after: str = "",
    ) -> Page[EnrollmentEntry]:
        """Return the enrollments of these types and states (none given: all), in an order that is stable but no more.

        ``after`` is the former page's ``next_cursor``. The index behind this is up to date within a second or so.
        At most 5,000 enrollments are looked at for one page, so that a filter that fits few cannot take long.
        """
        first_shard, after_id = _read_position(after)
        found: list[Enrollment] = []
        examined = 0
        is_filtered = bool(types or states)
        for shard in range(first_shard, tables.SHARDS):
            # What is read is paid for: without a filter, not more than has room.
            at_a_time = _INDEX_PAGE if is_filtered else limit - len(found)
            for record in _listed(shard, after_id if shard == first_shard else "", at_a_time):
                examined += 1
                if _wanted(record, types, states):
                    found.append(record)
                if len(found) == limit or examined == _EXAMINED:
                    return Page(self._entries(found), f"{shard:x}{record.enrollment_id}")
        return Page(self._entries(found))

    def of_serial_number(
        self, serial_number: str, *, types: Collection[str] = (), states: Collection[str] = ()
    ) -> Page[EnrollmentEntry]:
        """Return the enrollments of a device, by its serial number, whole. There are few of them: one page."""
        return self._related(EnrollmentItem.by_serial.query(serial_number), types, states)

    def of_parent(
        self, parent_id: str, *, types: Collection[str] = (), states: Collection[str] = ()
    ) -> Page[EnrollmentEntry]:
        """Return the user channels of a device, whole, in one page."""
        return self._related(EnrollmentItem.by_parent.query(parent_id), types, states)

    def get(self, enrollment_id: str) -> EnrollmentEntry:
        """Return one enrollment. Raises :class:`~mdmlib.errors.NotFoundError`."""
        record = self._enrollments.get(enrollment_id)
        if record is None or record.state == _DELETED:
            raise NotFoundError(
                f"There is no enrollment {enrollment_id}; its id is the device's UDID, or its EnrollmentID, "
                "followed by a colon and the user for a user channel.",
                code="unknown_enrollment",
                field="id",
            )
        device = self._enrollments.get(record.parent_id) if record.parent_id else record
        return EnrollmentEntry(record, enabled=device is not None and is_live(record, device))

    def commands(
        self, enrollment_id: str, *, payloads: bool, expired: bool = False, limit: int = MAX_LIMIT, after: str = ""
    ) -> Page[QueuedCommand]:
        """Return the commands that wait, in the order in which they go out.

        Those that have ``expired`` are left out unless they are asked for: they are there until DynamoDB deletes them,
        two days later. A user channel whose device enrolled anew or left has none. Raises
        :class:`~mdmlib.errors.NotFoundError` for an unknown enrollment.
        """
        entry = self.get(enrollment_id)
        record = entry.record
        if record.parent_id and not entry.enabled:
            return Page([])
        now = self._now().timestamp()
        start = pending_key(record.generation, after)
        waiting = (item for item in self._queue.read_on(record, after=start) if expired or item.expires_at > now)
        return _page(
            (QueuedCommand(item, _queue_state(item, now)) for item in waiting),
            lambda queued: QueuedCommand(queued.item, queued.state, self._open(self._queue.payload, queued.item)),
            position=lambda queued: queued.item.item.rpartition("#")[2],
            size=lambda queued: len(queued.payload or b""),
            limit=limit,
            payloads=payloads,
        )

    def results(
        self, enrollment_id: str, *, payloads: bool, limit: int = MAX_LIMIT, after: str = ""
    ) -> Page[ReportedResult]:
        """Return what the enrollment reported, ordered by command UUID: by that they are found.

        Raises :class:`~mdmlib.errors.NotFoundError` for an unknown enrollment.
        """
        self.get(enrollment_id)
        # "$" is the character after "#": the range ends with the results.
        between = EnrollmentItem.item.between(tables.RESULT + after, tables.RESULT[:-1] + "$")
        items = EnrollmentItem.query(enrollment_id, between, consistent_read=True, page_size=MAX_LIMIT)
        now = self._now().timestamp()
        kept = (
            item
            for item in items
            # DynamoDB deletes what is over within days.
            if isinstance(item, CommandResult) and item.item > tables.RESULT + after and (item.ttl or now + 1) > now
        )
        return _page(
            (ReportedResult(item) for item in kept),
            lambda result: ReportedResult(result.item, self._open(self._queue.report, result.item)),
            position=lambda result: result.item.command_uuid,
            size=lambda result: len(result.payload or b"") + len(repr(result.item.error_chain)),
            limit=limit,
            payloads=payloads,
        )

    def history(
        self, enrollment_id: str, *, payloads: bool, limit: int = MAX_LIMIT, after: str = ""
    ) -> Page[ReportedResult]:
        """Return what the enrollment reported, the newest first.

        Results are not kept in this order: all of them are looked at for each page, without their reports. Raises
        :class:`~mdmlib.errors.NotFoundError` for an unknown enrollment.
        """
        self.get(enrollment_id)
        now = self._now().timestamp()
        items = EnrollmentItem.query(
            enrollment_id,
            EnrollmentItem.item.startswith(tables.RESULT),
            consistent_read=True,
            attributes_to_get=list(_HISTORY),
        )
        found = sorted(
            (item for item in items if isinstance(item, CommandResult) and (item.ttl or now + 1) > now),
            key=_when,
            reverse=True,
        )
        some = [item for item in found if not after or _when(item) < after][: limit + 1]
        return _page(
            (ReportedResult(item) for item in some),
            lambda result: self.result(enrollment_id, result.item.command_uuid, payloads=True).entries[0],
            position=lambda result: _when(result.item),
            size=lambda result: len(result.payload or b"") + len(repr(result.item.error_chain)),
            limit=limit,
            payloads=payloads,
        )

    def result(self, enrollment_id: str, command_uuid: str, *, payloads: bool) -> Page[ReportedResult]:
        """Return the result of one command, as a page of at most one."""
        self.get(enrollment_id)
        item, _ = self._queue.result_and_command(enrollment_id, command_uuid)
        if item is None:
            return Page([])
        return Page([ReportedResult(item, self._open(self._queue.report, item) if payloads else None)])

    def _related(
        self, keys: Iterable[EnrollmentItem], types: Collection[str], states: Collection[str]
    ) -> Page[EnrollmentEntry]:
        records = self._enrollments.get_many(key.enrollment_id for key in keys)
        return Page(self._entries([records[id_] for id_ in sorted(records) if _wanted(records[id_], types, states)]))

    def _entries(self, records: Sequence[Enrollment]) -> Sequence[EnrollmentEntry]:
        """Say of each record whether it is enabled; for user channels that takes theirs and their devices', whole."""
        users = {record.enrollment_id for record in records if record.parent_id}
        parents = {record.parent_id for record in records if record.parent_id}
        whole = self._enrollments.get_many(users | parents)
        entries = []
        for listed in records:
            record = whole.get(listed.enrollment_id, listed)
            device = whole.get(record.parent_id) if record.parent_id else record
            entries.append(EnrollmentEntry(record, enabled=device is not None and is_live(record, device)))
        return entries

    def _open(self, read: Callable[[_T], bytes | None], item: _T) -> bytes | None:
        try:
            return read(item)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None  # It outlived its time in the bucket.
            raise


def _listed(shard: int, after: str, at_a_time: int) -> Iterator[Enrollment]:
    condition = EnrollmentItem.enrollment_id > after if after else None
    for record in EnrollmentItem.listing.query(f"{shard:x}", condition, page_size=at_a_time):
        if isinstance(record, Enrollment):
            yield record


def _wanted(record: Enrollment, types: Collection[str], states: Collection[str]) -> bool:
    if record.state == _DELETED:
        return False
    return (not types or record.type in types) and (not states or record.state in states)


def _read_position(cursor: str) -> tuple[int, str]:
    if not cursor:
        return 0, ""
    try:
        shard = int(cursor[0], 16)
    except ValueError:
        raise BadRequestError("The cursor is none of this list.", code="invalid_cursor", field="cursor") from None
    return shard, cursor[1:]


def _when(item: CommandResult) -> str:
    """Return what sorts results by time, exactly."""
    return f"{int(item.reported_at):012}{item.command_uuid}"


def _queue_state(item: PendingCommand, now: float) -> str:
    if item.expires_at <= now:
        return "expired"
    if (item.not_before or 0) > now:
        return "scheduled"
    return "pending" if item.not_now_at is None else "not_now"


def _page(
    entries: Iterable[_T],
    opened: Callable[[_T], _T],
    *,
    position: Callable[[_T], str],
    size: Callable[[_T], int],
    limit: int,
    payloads: bool,
) -> Page[_T]:
    """Cut a page: ``limit`` entries, or as many as fit into an answer."""
    page: list[_T] = []
    sum_of_sizes = 0
    for entry in entries:
        if len(page) == limit:
            return Page(page, position(page[-1]))
        whole = opened(entry) if payloads else entry
        sum_of_sizes += size(whole)
        if page and sum_of_sizes > _PAGE_BYTES:
            return Page(page, position(page[-1]))
        page.append(whole)
    return Page(page)
