"""Jobs: blueprints on their way to many devices.

As jobs of commands: whoever asks is answered at once, the workflow function does a page a message, and a page that is
done is written down on the condition that it is the next one. A message that comes twice begins no plan twice, for a
plan knows the job that began it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist, PutError, UpdateError

from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.blueprint_content import Content
from mdmlib.services.blueprint_plans import CHANGE, REQUEST, BlueprintPlans, Preview, Wanted
from mdmlib.services.blueprints import Blueprints, KnownBlueprint
from mdmlib.services.plan_actions import PlannedDevice
from mdmlib.services.workflow_queue import WorkflowQueue
from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.enrollments import LIVE_STATES
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import BlueprintJob, Enrollment, EnrollmentItem

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

    from mdmlib.services.device_attributes import Attributes

COLLECTION: Final = "blueprint_job"

MAX_IDS: Final = 1_000
MAX_PREVIEWED: Final = 25
"""More than these nobody reads."""
_LOOKED_AT_BEFORE: Final = 200
"""Of devices that somebody names: whoever asked waits meanwhile."""
_KEPT: Final = timedelta(days=30)
_PAGE: Final = 50
_EXAMINED: Final = 1_000
_LISTED: Final = 100


class BlueprintJobs:
    """Takes jobs, does them, and tells how they are getting on."""

    def __init__(
        self,
        *,
        plans: BlueprintPlans,
        blueprints: Blueprints,
        workflow_queue: WorkflowQueue,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        ids_of_serial: Callable[[str], Sequence[str]],
        page: int = _PAGE,
    ) -> None:
        """``ids_of_serial`` returns the enrollments of a serial number."""
        self._plans = plans
        self._blueprints = blueprints
        self._workflow_queue = workflow_queue
        self._now = now
        self._new_id = new_id
        self._ids_of_serial = ids_of_serial
        self._page = page

    def start(self, wanted: Wanted, *, ids: Sequence[str] | None) -> BlueprintJob:
        """Begin to bring devices to blueprints: those of ``ids``, or all that meet the conditions (None).

        Raises :class:`~mdmlib.errors.NotFoundError` for blueprints that are not there,
        :class:`~mdmlib.errors.BadRequestError` for what they name and is not there any more, and
        :class:`~mdmlib.errors.ConflictError` for one of 200 devices that has no value for a variable.
        """
        if wanted.names is not None:
            self._blueprints.check(wanted.names)
        if ids is not None:
            _check_ids(ids)
            for previewed in self._plans.preview(ids[:_LOOKED_AT_BEFORE], wanted):
                if previewed.problems:
                    raise ConflictError(
                        f"{previewed.enrollment_id}: {previewed.problems[0]} Nothing was applied.",
                        code="variable_missing",
                        field="ids",
                    )
        return self._begin(self._new_id(), wanted, cause=REQUEST, ids=ids)

    def on_change(self, blueprint: KnownBlueprint) -> None:
        """Bring devices to a blueprint that was changed, and to those that include it, where they say so.

        The same change again is the same job.
        """
        for one in self._blueprints.including(blueprint.name):
            if one.content.apply_on_change:
                told = f"{one.name}\n{one.uuid}\n{one.revision}\n{blueprint.name}\n{blueprint.revision}"
                job_id = hashlib.sha256(told.encode()).hexdigest()[:32]
                wanted = Wanted((one.name,), remove=one.content.remove_what_left)
                self._begin(job_id, wanted, cause=CHANGE, ids=None)

    def on_profile_change(self, identifier: str) -> None:
        """Bring devices to blueprints that have a profile which was stored, where these say so.

        Stored again as it was, it costs each device a list of its profiles, and nothing is sent.
        """
        self._on_change_of_part(lambda content: identifier in content.profiles)

    def on_app_change(self, name: str) -> None:
        """Bring devices to blueprints that have an app which was uploaded, where these say so."""
        self._on_change_of_part(lambda content: any(app.get("app") == name for app in content.apps))

    def on_device_change(self, said: "Attributes") -> None:
        """Bring a device to blueprints that its tags or values may concern, where these say so."""
        concerned = [
            one.name
            for one in self._blueprints.list()
            if one.content.apply_on_change
            and ((said.tags and one.content.conditions.tags) or (said.values and self._has_profiles(one)))
        ]
        ids = self._ids_of_serial(said.serial_number) if concerned else ()
        if ids:
            self._begin(self._new_id(), Wanted(concerned), cause=CHANGE, ids=ids)

    def _has_profiles(self, blueprint: KnownBlueprint) -> bool:
        return any(one.content.profiles for one in self._blueprints.with_included([blueprint.name]))

    def _on_change_of_part(self, has_it: Callable[[Content], bool]) -> None:
        changed = [one.name for one in self._blueprints.list() if has_it(one.content)]
        concerned = {one.name: one for name in changed for one in self._blueprints.including(name)}
        for one in concerned.values():
            if one.content.apply_on_change:
                wanted = Wanted((one.name,), remove=one.content.remove_what_left)
                self._begin(self._new_id(), wanted, cause=CHANGE, ids=None)

    def preview(self, wanted: Wanted, ids: Sequence[str]) -> list[Preview]:
        """Say what would be done with devices. Raises as :meth:`start` does."""
        _check_ids(ids)
        if wanted.names is not None:
            self._blueprints.check(wanted.names)
        if len(ids) > MAX_PREVIEWED:
            raise BadRequestError(
                f"At most {MAX_PREVIEWED} devices can be looked at before.", code="too_many_targets", field="ids"
            )
        return self._plans.preview(ids, wanted)

    def get(self, job_id: str) -> BlueprintJob:
        """Return a job. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            if job_id and len(job_id) <= 64:  # noqa: PLR2004 - longer than any
                return BlueprintJob.get(COLLECTION, job_id, consistent_read=True)
        except DoesNotExist:
            pass
        raise NotFoundError("There is no such job, or it was begun 30 days ago.", code="unknown_job")

    def do_page(self, job_id: str, step: int) -> None:
        """Do a page of a job, and ask for the next one. Raises when the message has to come again."""
        try:
            job = self.get(job_id)
        except NotFoundError:
            return
        if job.state != "running":
            return
        if step != job.step:
            # Whoever did that page may have ended before it asked for the next one.
            self._workflow_queue.do_page(job_id, int(job.step))
            return
        wanted = Wanted(job.blueprints, remove=job.options["remove"], again=job.options["again"])
        known = self._plans.known()
        devices, examined, position = self._page_of(job, wanted, known)
        begun = sum(at_once(lambda id_: self._apply(job, wanted, id_, known), devices))
        actions: list[Action] = [
            BlueprintJob.step.set(step + 1),
            BlueprintJob.examined.set(int(job.examined) + examined),
            BlueprintJob.begun.set(int(job.begun) + begun),
            BlueprintJob.changed_at.set(int(self._now().timestamp())),
        ]
        if position is None:
            actions += [BlueprintJob.state.set("done"), BlueprintJob.finished_at.set(int(self._now().timestamp()))]
        else:
            actions.append(BlueprintJob.position.set(position))
        try:
            job.update(actions, BlueprintJob.step == step)
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return
        if position is not None:
            self._workflow_queue.do_page(job_id, step + 1)

    def _apply(self, job: BlueprintJob, wanted: Wanted, id_: str, known: dict[str, KnownBlueprint]) -> bool:
        try:
            return self._plans.apply(id_, wanted, run=job.name, cause=job.cause, known=known)
        except (ConflictError, NotFoundError):
            # It has ended, or the blueprint is gone: there is nothing to bring it to.
            return False

    def _begin(self, job_id: str, wanted: Wanted, *, cause: str, ids: Sequence[str] | None) -> BlueprintJob:
        now = self._now()
        job = BlueprintJob(
            COLLECTION,
            job_id,
            blueprints=list(wanted.names) if wanted.names is not None else None,
            options={"remove": wanted.remove, "again": wanted.again, "ids": None if ids is None else list(ids)},
            cause=cause,
            state="running",
            created_at=int(now.timestamp()),
            ttl=int((now + _KEPT).timestamp()),
        )
        try:
            job.save(BlueprintJob.name.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            job = self.get(job_id)
        if job.state == "running":
            self._workflow_queue.do_page(job_id, int(job.step))
        return job

    def _page_of(
        self, job: BlueprintJob, wanted: Wanted, known: dict[str, KnownBlueprint]
    ) -> tuple[list[str], int, str | None]:
        """Return the devices of the next page, how many were looked at, and where the page behind it begins."""
        ids: list[str] | None = job.options["ids"]
        if ids is not None:
            start = int(job.position or 0)
            some = ids[start : start + self._page]
            return some, len(some), str(start + self._page) if start + self._page < len(ids) else None
        found: list[str] = []
        examined = 0
        first, after = (int(job.position[0], 16), job.position[1:]) if job.position else (0, "")
        for shard in range(first, tables.SHARDS):
            for record in _listed(shard, after if shard == first else ""):
                examined += 1
                if record.state in LIVE_STATES and record.parent_id is None and self._may_suit(record, wanted, known):
                    found.append(record.enrollment_id)
                if len(found) == self._page or examined == _EXAMINED:
                    return found, examined, f"{shard:x}{record.enrollment_id}"
        return found, examined, None

    def _may_suit(self, record: Enrollment, wanted: Wanted, known: dict[str, KnownBlueprint]) -> bool:
        device = PlannedDevice(record, None)
        return self._plans.may_suit(device, wanted, known)


def described(job: BlueprintJob) -> dict[str, Any]:
    """Return what a job is for, as its options say."""
    wanted = asdict(Wanted(job.blueprints, remove=job.options["remove"], again=job.options["again"]))
    return {**wanted, "ids": None if job.options["ids"] is None else len(job.options["ids"])}


def _check_ids(ids: Sequence[str]) -> None:
    if not ids or len(ids) > MAX_IDS:
        raise BadRequestError(f"Name 1 to {MAX_IDS} enrollments.", code="no_targets", field="ids")


def _listed(shard: int, after: str) -> Iterator[Enrollment]:
    condition = EnrollmentItem.enrollment_id > after if after else None
    for record in EnrollmentItem.listing.query(f"{shard:x}", condition, page_size=_LISTED):
        if isinstance(record, Enrollment):
            yield record
