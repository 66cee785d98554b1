"""NanoCMD's workflows: the plans of ours that they are, and what their contexts say."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.services import builtin_plans
from mdmlib.services.builtin_plans import BuiltinPlans
from mdmlib.services.plans import Situation

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

_PARAMETER: Final = re.compile(r"\$\{\w+(?::([^}]*))?\}")
_DAY: Final = 86_400


class NanoCMDWorkflows:
    """Starts plans as NanoCMD's clients ask for them."""

    def __init__(self, *, builtin: BuiltinPlans, names: "NamedProfiles") -> None:
        self._builtin = builtin
        self._names = names

    def start(self, name: str, ids: Sequence[str], context: str) -> str:
        """Start a workflow and return its instance's id.

        Raises :class:`~mdmlib.errors.BadRequestError`, and the first refusal when it begins for nobody.
        """
        kind = kind_of(name)
        started = self._builtin.start(kind, ids, self.options(kind, context))
        if len(started.refused) == len(set(ids)):
            raise next(iter(started.refused.values()))
        return started.run

    def begin(
        self,
        name: str,
        enrollment_id: str,
        context: str,
        *,
        run: str,
        cause: str,
        begins: Callable[[Situation], bool],
    ) -> None:
        """Begin a workflow for a device, if it ``begins`` there. Raises what is wrong with what is asked for.

        The context is looked at when that is known: most devices that have nothing to do have nothing to begin.
        """
        kind = kind_of(name)
        self._builtin.begin(
            enrollment_id, kind, run, lambda: self._builtin.check(kind, self.options(kind, context)), cause, begins
        )

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
        return {
            "profile": str(asked["profile"]),
            "text_replacements": asked.get("text_replacements") or {},
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
