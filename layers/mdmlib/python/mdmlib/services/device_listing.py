"""Devices as MicroMDM's API lists them: those that are enrolled here or were, one entry each."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from mdmlib.errors import BadRequestError
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.tables import Enrollment, EnrollmentItem

MAX_DEVICES: Final = 10_000
"""So many fit into an answer."""

MAX_FILTER: Final = 1_000

_INDEX_PAGE: Final = 500
_DELETED: Final = "deleted"


@dataclass(frozen=True)
class ListedDevice:
    """A device. ``last_seen_at`` is in epoch seconds; None: it was not seen since it was brought here."""

    id: str
    serial_number: str
    enrolled: bool
    last_seen_at: int | None


class DeviceListing:
    """Lists devices. User channels are no devices."""

    def __init__(self, *, enrollments: EnrollmentStore) -> None:
        self._enrollments = enrollments

    def list(
        self, *, page: int = 0, per_page: int = 0, serials: Collection[str] = (), ids: Collection[str] = ()
    ) -> Sequence[ListedDevice]:
        """Return a page of the devices, in an order that is stable but no more; pages count from 0.

        Without ``per_page`` all are on the first page. With filters, those that fit all of them. Raises
        :class:`~mdmlib.errors.BadRequestError` when there are more than :data:`MAX_DEVICES` to return.
        """
        if len(serials) > MAX_FILTER or len(ids) > MAX_FILTER:
            raise BadRequestError(f"A filter has at most {MAX_FILTER} values.", code="invalid_field")
        if not 0 <= per_page <= MAX_DEVICES:
            raise BadRequestError(
                f"per_page is a number up to {MAX_DEVICES}; 0: all.", code="invalid_field", field="per_page"
            )
        if page and not per_page:
            # All of them were on the page before.
            return []
        found = (_device(record) for record in self._records(serials, ids) if not record.parent_id)
        if per_page:
            return list(islice(found, page * per_page, (page + 1) * per_page))
        devices = list(islice(found, MAX_DEVICES + 1))
        if len(devices) > MAX_DEVICES:
            raise BadRequestError(
                f"There are more than {MAX_DEVICES} devices; ask for them with per_page and page.",
                code="too_many_devices",
                field="per_page",
            )
        return devices

    def _records(self, serials: Collection[str], ids: Collection[str]) -> Iterator[Enrollment]:
        if not serials and not ids:
            yield from listed_records()
            return
        if ids:
            records = self._enrollments.get_many(ids)
        else:
            records = self._enrollments.get_many(
                id_ for serial in serials for id_ in self._enrollments.ids_of_serial(serial)
            )
        for id_ in sorted(records):
            record = records[id_]
            if record.state != _DELETED and (not serials or record.serial_number in serials):
                yield record


def listed_records(*, after: tuple[int, str] = (0, "")) -> Iterator[Enrollment]:
    """Yield what the ``listing`` index knows of every enrollment, behind a shard and an id in it."""
    first_shard, after_id = after
    for shard in range(first_shard, tables.SHARDS):
        behind = after_id if shard == first_shard else ""
        condition = EnrollmentItem.enrollment_id > behind if behind else None
        for record in EnrollmentItem.listing.query(f"{shard:x}", condition, page_size=_INDEX_PAGE):
            if isinstance(record, Enrollment) and record.state != _DELETED:
                yield record


def _device(record: Enrollment) -> ListedDevice:
    return ListedDevice(
        id=record.enrollment_id,
        serial_number=record.serial_number or "",
        enrolled=record.state in LIVE_STATES,
        last_seen_at=int(record.last_seen_at) if record.last_seen_at else None,
    )
