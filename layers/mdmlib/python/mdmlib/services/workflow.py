"""What the workflow function does with a message of its queue."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mdmlib.errors import MalformedBodyError
from mdmlib.services.workflow_queue import (
    CHECKIN,
    ENROLLED,
    HASH_APP,
    IDLE,
    JOB,
    LOOK,
    RESULT,
    RESUME,
    START,
    WorkflowQueue,
)

if TYPE_CHECKING:
    from mdmlib.services.apps import Apps
    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprint_plans import BlueprintPlans
    from mdmlib.services.builtin_plans import BuiltinPlans
    from mdmlib.services.plans import Plans
    from mdmlib.services.workflow_events import WorkflowEvents


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
        self._events = events
        self._workflow_queue = workflow_queue
        self._now = now
        self._tasks: dict[str, Callable[[dict[str, Any]], None]] = {
            ENROLLED: self._enrolled,
            RESULT: lambda message: plans.take_result(*_texts(message, "enrollment_id", "command_uuid")),
            RESUME: self._resume,
            LOOK: lambda message: plans.look_after(*_texts(message, "enrollment_id", "kind")),
            JOB: lambda message: jobs.do_page(_texts(message, "job")[0], int(message.get("step", 0))),
            START: lambda message: builtin.begin_started(*_texts(message, "enrollment_id", "kind", "run", "options")),
            HASH_APP: lambda message: apps.hash_on(*_texts(message, "upload")),
            CHECKIN: lambda message: events.on_checkin(*_texts(message, "topic", "enrollment_id", "event_id")),
            IDLE: lambda message: events.on_idle(*_texts(message, "enrollment_id", "event_id")),
        }

    def receive(self, body: str) -> None:
        """Do what a message asks for; once more does no harm. Raises when it has to stay in its queue."""
        message = _decode(body)
        task = self._tasks.get(str(message.get("task")))
        if task is None:
            raise MalformedBodyError("A message of the workflow queue asks for nothing that is known.")
        task(message)

    def _enrolled(self, message: dict[str, Any]) -> None:
        enrollment_id, event_id = _texts(message, "enrollment_id", "event_id")
        self._blueprint_plans.on_enrollment(enrollment_id, event_id)
        self._events.on_enrollment(enrollment_id, event_id)

    def _resume(self, message: dict[str, Any]) -> None:
        enrollment_id, kind, run = _texts(message, "enrollment_id", "kind", "run")
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


def _texts(message: dict[str, Any], *names: str) -> list[str]:
    values = [message.get(name) for name in names]
    texts = [value for value in values if isinstance(value, str) and value]
    if len(texts) < len(names):
        raise MalformedBodyError(f"A message of the workflow queue lacks one of {', '.join(names)}.")
    return texts
