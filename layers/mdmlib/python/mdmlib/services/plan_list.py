"""What is told of plans: those of an enrollment, and those that run or have failed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mdmlib.apple.command_report import ACKNOWLEDGED
from mdmlib.errors import NotFoundError
from mdmlib.services.plan_document import PlanDocument, StepState, give_up_cleared
from mdmlib.store import tables
from mdmlib.store.command_queue import CommandQueueStore
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentItem, Plan

_FOUND: Final = 100


@dataclass(frozen=True)
class KnownPlan:
    """A plan as it is told of."""

    enrollment_id: str
    kind: str
    item: Plan
    document: PlanDocument = field(repr=False)
    state: str
    """As the item has it, or ``ended``: with its enrollment."""


class PlanList:
    """Tells of plans."""

    def __init__(self, *, queue: CommandQueueStore, sealer: Sealer) -> None:
        self._queue = queue
        self._sealer = sealer

    def of_enrollment(self, enrollment_id: str) -> list[KnownPlan]:
        """Return the plans of an enrollment, one of each kind. Raises :class:`~mdmlib.errors.NotFoundError`.

        What its device has done is told at once, though a plan notes it later, with the rest of a phase.
        """
        items, record = [], None
        if 0 < len(enrollment_id.encode()) <= tables.LONGEST_ID and "#" not in enrollment_id:
            items = list(
                EnrollmentItem.query(enrollment_id, EnrollmentItem.item.startswith(tables.PLAN), consistent_read=True)
            )
            records = EnrollmentItem.batch_get([(enrollment_id, tables.RECORD)], consistent_read=True)
            record = next((item for item in records if isinstance(item, Enrollment)), None)
        if record is None or record.state == "deleted":
            raise NotFoundError(f"There is no enrollment {enrollment_id[:200]}.", code="unknown_enrollment")
        return [self._up_to_date(self._known(item, record)) for item in items if isinstance(item, Plan)]

    def unsettled(self, *, failed: bool, limit: int, after: str) -> tuple[list[KnownPlan], str | None]:
        """Return a page of the plans that are running, or have failed, of all enrollments; and the next position.

        Within each of 16 shards those come first that failed first, or that are looked at first when nothing happens.
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
        document = PlanDocument.decode(self._sealer.open(item.document, place=f"{item.enrollment_id}/{item.item}"))
        ended = item.epoch != record.epoch or record.state not in LIVE_STATES
        state = "ended" if ended and item.state == "running" else item.state
        if not ended and item.generation != record.generation:
            give_up_cleared(document, at=int(item.changed_at))
        return KnownPlan(item.enrollment_id, item.item.removeprefix(tables.PLAN), item, document, state)

    def _up_to_date(self, known: KnownPlan) -> KnownPlan:
        queued = {str(step.command_uuid): step for step in known.document.in_state(StepState.QUEUED)}
        if known.state != "running" or not queued:
            return known
        for uuid, result in self._queue.results(known.enrollment_id, list(queued)).items():
            if result.status == ACKNOWLEDGED:
                queued[uuid].become(StepState.DONE, at=int(result.reported_at))
        return known


def _index_key(shard: str, key: Sequence[Any]) -> dict[str, Any]:
    enqueued_at, enrollment_id, item = key
    return {
        "waiting_shard": {"S": shard},
        "enqueued_at": {"N": str(enqueued_at)},
        "enrollment_id": {"S": enrollment_id},
        "item": {"S": item},
    }
