"""Enrollments as NanoMDM's draft API asks for them: filters, all of which have to fit, and pages."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from mdmlib.errors import BadRequestError
from mdmlib.services.device_listing import MAX_FILTER, listed_records
from mdmlib.services.token_update import UNLOCK_TOKEN
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentSecret

MAX_LIMIT: Final = 1_000

EXAMINED: Final = 5_000
"""At most so many enrollments are looked at for one page, so that a filter that fits few cannot take long."""

_BATCH: Final = 100
_DELETED: Final = "deleted"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What an enrollment has to be; empty: anything."""

    ids: Collection[str] = ()
    serials: Collection[str] = ()
    user_short_names: Collection[str] = ()
    types: Collection[str] = ()
    enabled: bool | None = None


@dataclass(frozen=True)
class FoundEnrollment:
    """An enrollment with its device, for a device channel itself."""

    record: Enrollment
    device: Enrollment
    enabled: bool
    unlock_token: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FoundPage:
    """A page. ``next_cursor`` asks for the next one; None: this was the last."""

    enrollments: Sequence[FoundEnrollment]
    next_cursor: str | None


class EnrollmentQuery:
    """Finds enrollments. Nothing here writes."""

    def __init__(self, *, enrollments: EnrollmentStore, sealer: Sealer) -> None:
        self._enrollments = enrollments
        self._sealer = sealer

    def find(
        self,
        wanted: Filter,
        *,
        limit: int,
        offset: int = 0,
        after: str = "",
        with_unlock_tokens: bool = False,
    ) -> FoundPage:
        """Return the enrollments that fit, at most ``limit``: behind ``offset`` of them, or behind a cursor.

        A page may have fewer, even none, and still not be the last. Raises
        :class:`~mdmlib.errors.BadRequestError` for a cursor that is none.
        """
        for name, values in (("ids", wanted.ids), ("serials", wanted.serials)):
            if len(values) > MAX_FILTER:
                raise BadRequestError(f"A filter has at most {MAX_FILTER} values.", code="invalid_field", field=name)
        page, cursor = self._page(wanted, limit=limit, offset=offset, after=after)
        if with_unlock_tokens:
            page = [
                FoundEnrollment(one.record, one.device, one.enabled, self._unlock_token(one.record)) for one in page
            ]
        return FoundPage(page, cursor)

    def _page(
        self, wanted: Filter, *, limit: int, offset: int, after: str
    ) -> tuple[Sequence[FoundEnrollment], str | None]:
        page: list[FoundEnrollment] = []
        skipped = 0
        for examined, (id_, one) in enumerate(self._looked_at(wanted, _read_position(after)), start=1):
            if one and skipped < offset:
                skipped += 1
            elif one and len(page) == limit:
                return page, _position(page[-1].record.enrollment_id)
            elif one:
                page.append(one)
            if examined == EXAMINED and offset:
                raise BadRequestError(
                    f"offset leads behind {EXAMINED} enrollments; go on with cursor.",
                    code="invalid_field",
                    field="offset",
                )
            if examined == EXAMINED:
                return page, _position(id_)
        return page, None

    def _looked_at(self, wanted: Filter, position: tuple[int, str]) -> Iterator[tuple[str, FoundEnrollment | None]]:
        """Yield every candidate with what was found of it, or None when it does not fit."""
        candidates = self._candidates(wanted, position)
        while batch := list(islice(candidates, _BATCH)):
            # What an index knows is neither all nor the newest.
            records = self._enrollments.get_many(batch)
            parents = {record.parent_id for record in records.values() if record.parent_id}
            known = records | self._enrollments.get_many(parents - set(records))
            for id_ in batch:
                record = records.get(id_)
                device = known.get(record.parent_id or id_) if record else None
                one = None
                if record and device and record.state != _DELETED:
                    one = FoundEnrollment(record, device, enabled=is_live(record, device))
                yield id_, one if one and _fits(one, wanted) else None

    def _candidates(self, wanted: Filter, position: tuple[int, str]) -> Iterator[str]:
        """Yield the ids that may fit, in the order of shards and ids."""
        if wanted.ids or wanted.serials:
            ids = set(wanted.ids) if wanted.ids else self._of_serials(wanted.serials)
            yield from (id_ for _, id_ in sorted((_shard(id_), id_) for id_ in ids) if (_shard(id_), id_) > position)
            return
        for record in listed_records(after=position):
            if not wanted.types or record.type in wanted.types:
                yield record.enrollment_id

    def _of_serials(self, serials: Collection[str]) -> set[str]:
        """Return the enrollments of devices, and of their user channels, which are of the same serial number."""
        devices = {id_ for serial in serials for id_ in self._enrollments.ids_of_serial(serial)}
        channels = {id_ for device in devices for id_ in self._enrollments.ids_of_parent(device)}
        return devices | channels

    def _unlock_token(self, record: Enrollment) -> bytes | None:
        _, secret = self._enrollments.get_with_secret(record.enrollment_id, UNLOCK_TOKEN)
        return self._opened(secret) if secret else None

    def _opened(self, secret: EnrollmentSecret) -> bytes:
        return self._sealer.open(secret.value, place=f"{secret.enrollment_id}/{secret.item}")


def _fits(one: FoundEnrollment, wanted: Filter) -> bool:
    return (
        (not wanted.serials or one.device.serial_number in wanted.serials)
        and (not wanted.user_short_names or one.record.user_short_name in wanted.user_short_names)
        and (not wanted.types or one.record.type in wanted.types)
        and (wanted.enabled is None or one.enabled is wanted.enabled)
    )


def _shard(enrollment_id: str) -> int:
    return int(tables.shard_of(enrollment_id), 16)


def _position(enrollment_id: str) -> str:
    return f"{_shard(enrollment_id):x}{enrollment_id}"


def _read_position(cursor: str) -> tuple[int, str]:
    if not cursor:
        return 0, ""
    try:
        return int(cursor[0], 16), cursor[1:]
    except ValueError:
        raise BadRequestError("The cursor is none of this list.", code="invalid_cursor", field="cursor") from None
