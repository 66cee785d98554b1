"""What the workflow function does with a message of its queue."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mdmlib.errors import MalformedBodyError
from mdmlib.services.workflow_queue import ENROLLED, HASH_APP, JOB, LOOK, RESULT, RESUME, START, WorkflowQueue

if TYPE_CHECKING:
    from mdmlib.services.apps import Apps
    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprint_plans import BlueprintPlans
    from mdmlib.services.builtin_plans import BuiltinPlans
    from mdmlib.services.nanocmd_workflows import WorkflowEvents
    from mdmlib.services.plans import Plans


class Workflow:
    """Moves plans on."""

    def __init__(
        self,
        *,
        plans: "Plans",
        blueprint_plans: "BlueprintPlans",
        jobs: "BlueprintJobs",
        apps: "Apps",
        builtin: "BuiltinPlans",
        events: "WorkflowEvents",
        workflow_queue: WorkflowQueue,
        now: Callable[[], datetime],
    ) -> None:
        self._plans = plans
        self._blueprint_plans = blueprint_plans
        self._jobs = jobs
        self._apps = apps
        self._builtin = builtin
        self._events = events
        self._workflow_queue = workflow_queue
        self._now = now

    def receive(self, body: str) -> None:
        """Do what a message asks for; once more does no harm. Raises when it has to stay in its queue."""
        message = _decode(body)
        task = message.get("task")
        if task == ENROLLED:
            self._enrolled(_text(message, "enrollment_id"), _text(message, "event_id"))
        elif task == RESULT:
            self._plans.take_result(_text(message, "enrollment_id"), _text(message, "command_uuid"))
        elif task == RESUME:
            self._resume(message)
        elif task == LOOK:
            self._plans.look_after(_text(message, "enrollment_id"), _text(message, "kind"))
        elif task == JOB:
            self._jobs.do_page(_text(message, "job"), int(message.get("step", 0)))
        elif task == START:
            self._builtin.begin(
                _text(message, "enrollment_id"),
                _text(message, "kind"),
                _text(message, "run"),
                message.get("options") or {},
                _text(message, "cause"),
            )
        elif task == HASH_APP:
            self._apps.hash_on(_text(message, "upload"))
        else:
            raise MalformedBodyError("A message of the workflow queue asks for nothing that is known.")

    def _enrolled(self, enrollment_id: str, event_id: str) -> None:
        self._blueprint_plans.on_enrollment(enrollment_id, event_id)
        self._events.on_enrollment(enrollment_id, event_id)

    def _resume(self, message: dict[str, Any]) -> None:
        enrollment_id, kind, run = (_text(message, name) for name in ("enrollment_id", "kind", "run"))
        left = int(message.get("at", 0)) - int(self._now().timestamp())
        if left > 0:
            # A message waits for a quarter of an hour at most.
            self._workflow_queue.resume_later(enrollment_id, kind, run, seconds=left)
        else:
            self._plans.resume(enrollment_id, kind, run)


def _decode(body: str) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise MalformedBodyError("A message of the workflow queue is malformed.")
    return message


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedBodyError(f"A message of the workflow queue has no {name}.")
    return value
