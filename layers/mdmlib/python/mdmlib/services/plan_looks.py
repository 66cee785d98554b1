"""Plans and jobs that stand still: once an hour those are found whose time to be looked at has come.

A message that moves a plan may have been lost, and a command may outlive its time in the queue of a silent device. Each
plan says when it is to be looked at, should nothing happen until then; by that the index of running plans finds it. So
what is read is what is due, however many plans there are. The looks themselves are messages of the workflow queue: one
more is no harm, and a plan that another message moves meanwhile is due no more. Of jobs there are few, and those that
run are read.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mdmlib.observability import logger
from mdmlib.services.blueprint_jobs import COLLECTION
from mdmlib.services.plan_moves import LOOKED_AT_AFTER
from mdmlib.store import tables
from mdmlib.store.tables import BlueprintJob, EnrollmentItem, Plan

if TYPE_CHECKING:
    from mdmlib.services.workflow_queue import WorkflowQueue

_MOST: Final = 2_000
"""Of each shard, those first that are due for longest: the next run finds the rest. It is half a minute's work."""


class PlanLooks:
    """Has plans looked at."""

    def __init__(self, *, workflow_queue: "WorkflowQueue", now: Callable[[], datetime]) -> None:
        self._workflow_queue = workflow_queue
        self._now = now

    def run(self) -> None:
        """Ask for a look at each plan that is due, and for the next page of each job that is.

        Raises :class:`~mdmlib.errors.UnavailableError`.
        """
        until, count = int(self._now().timestamp()), 0
        for shard in range(tables.SHARDS):
            due = EnrollmentItem.waiting.query(f"plan-{shard:x}", Plan.enqueued_at <= until, limit=_MOST)
            keys = [(key.enrollment_id, key.item.removeprefix(tables.PLAN)) for key in due if isinstance(key, Plan)]
            self._workflow_queue.look_after(keys)
            count += len(keys)
        if count:
            logger.info("Plans looked at that have not moved for long", count=count)
        for job in BlueprintJob.query(COLLECTION, filter_condition=BlueprintJob.state == "running"):
            if int(job.changed_at or job.created_at) + LOOKED_AT_AFTER.total_seconds() <= until:
                self._workflow_queue.do_page(job.name, int(job.step))
                logger.warning("Job of blueprints stood still", job=job.name)
