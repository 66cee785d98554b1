"""NanoCMD's workflows: the plans of ours that they are, and what their contexts say."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError, ConflictError, PicoMDMError
from mdmlib.observability import logger
from mdmlib.services import builtin_plans
from mdmlib.services.builtin_plans import BuiltinPlans

if TYPE_CHECKING:
    from mdmlib.services.named_profiles import NamedProfiles

WORKFLOWS: Final[Mapping[str, str]] = {
    "io.micromdm.wf.inventory.v1": builtin_plans.INVENTORY,
    "io.micromdm.wf.profile.v1": builtin_plans.PROFILES,
    "io.micromdm.wf.cmdplan.v1": builtin_plans.COMMAND_PLAN,
    "io.micromdm.wf.fvenable.v1": builtin_plans.FILEVAULT_ENABLE,
    "io.micromdm.wf.fvrotate.v1": builtin_plans.FILEVAULT_ROTATE,
    "io.micromdm.wf.lock.v1": builtin_plans.LOCK,
    "io.micromdm.wf.certprof.v1": builtin_plans.CERTIFICATE_PROFILE,
    "io.micromdm.wf.devinfolog.v1": builtin_plans.DEVICE_INFORMATION,
}
"""Kinds of plans by NanoCMD's names."""

EVENTS: Final = ("Enrollment", "TokenUpdate")
"""Those of NanoCMD's that are there: both when a device has enrolled."""

_ALL_EVENTS: Final = ("Authenticate", "TokenUpdate", "Enrollment", "CheckOut", "Idle", "IdleNotStartedSince")
_PARAMETER: Final = re.compile(r"\$\{\w+(?::([^}]*))?\}")
_DAY: Final = 86_400


class NanoCMDWorkflows:
    """Starts plans as NanoCMD's clients ask for them."""

    def __init__(self, *, builtin: BuiltinPlans, names: "NamedProfiles") -> None:
        self._builtin = builtin
        self._names = names

    def start(
        self, name: str, ids: Sequence[str], context: str, *, run: str | None = None, cause: str = "request"
    ) -> str:
        """Start a workflow and return its instance's id.

        Raises :class:`~mdmlib.errors.BadRequestError`, and the first refusal when it begins for nobody.
        """
        kind = kind_of(name)
        started = self._builtin.start(kind, ids, self.options(kind, context), run=run, cause=cause)
        if len(started.refused) == len(set(ids)):
            raise next(iter(started.refused.values()))
        return started.run

    def options(self, kind: str, context: str) -> dict[str, Any]:
        """Read a workflow's context. Raises :class:`~mdmlib.errors.BadRequestError`."""
        if kind == builtin_plans.PROFILES:
            names = [name.strip() for name in context.split(",") if name.strip()]
            return {
                "install": [name for name in names if not name.startswith("-")],
                "remove": [name.removeprefix("-") for name in names if name.startswith("-")],
            }
        if kind == builtin_plans.COMMAND_PLAN:
            # Parameters come from the URL that a device called; here nobody has called any, so defaults count.
            plan = self._names.command_plan(_PARAMETER.sub(lambda found: found[1] or "", context))
            return {
                "install": plan["profile_names"],
                "manifest_urls": plan["manifest_urls"],
                "device_configured": plan["device_configured"],
            }
        if kind == builtin_plans.CERTIFICATE_PROFILE:
            return _certificate_options(context)
        if context.strip():
            raise BadRequestError(f"{kind} takes no context.", code="invalid_field", field="context")
        return {}


class WorkflowEvents:
    """Begins what NanoCMD's clients want to begin when a device enrolls."""

    def __init__(self, *, workflows: NanoCMDWorkflows, names: "NamedProfiles") -> None:
        self._workflows = workflows
        self._names = names

    def put(self, name: str, document: Mapping[str, Any]) -> None:
        """Store one. Raises :class:`~mdmlib.errors.BadRequestError`."""
        event, workflow = str(document.get("event") or ""), str(document.get("workflow") or "")
        if event not in _ALL_EVENTS:
            raise BadRequestError(f"invalid event type: {event[:100]}", code="invalid_field", field="event")
        if event not in EVENTS:
            raise BadRequestError(
                f"Of events only {' and '.join(EVENTS)} begin a workflow here.", code="invalid_field", field="event"
            )
        context = str(document.get("context") or "")
        self._workflows.options(kind_of(workflow), context)
        self._names.put_event(name, event=event, workflow=workflow, context=context or None)

    def on_enrollment(self, enrollment_id: str, event_id: str) -> None:
        """Begin what shall begin; once more does no harm. What is wrong with one stops no other."""
        for event in self._names.events():
            try:
                self._workflows.start(
                    event.workflow,
                    [enrollment_id],
                    event.context or "",
                    run=f"{event_id}-{event.name}",
                    cause="enrollment",
                )
            except ConflictError:
                continue
            except PicoMDMError as error:
                logger.warning("Workflow not begun", name=event.name, code=error.code, reason=error.message)


def kind_of(workflow: str) -> str:
    """Return the kind of plan that a workflow is. Raises :class:`~mdmlib.errors.BadRequestError`."""
    kind = WORKFLOWS.get(workflow)
    if kind is None:
        raise BadRequestError(f"workflow not found: {workflow[:100]}", code="unknown_workflow", field="name")
    return kind


def _certificate_options(context: str) -> dict[str, Any]:
    try:
        asked = json.loads(context)
        filter_, criteria = asked.get("filter") or {}, asked.get("criteria") or {}
        if asked.get("text_replacements"):
            raise BadRequestError(
                "text_replacements are not there: a profile's variables do that.",
                code="invalid_field",
                field="context",
            )
        return {
            "profile": str(asked["profile"]),
            "managed_only": not asked.get("no_managed_only"),
            "common_name_prefix": str(filter_.get("cn_prefix") or ""),
            "identities_only": not filter_.get("allow_non_identity"),
            "always": bool(criteria.get("always_replace")),
            "days_left": int(criteria.get("until_expiry_sec") or 0) / _DAY,
        }
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BadRequestError(
            "The context is no JSON that says what to do.", code="invalid_field", field="context"
        ) from None
