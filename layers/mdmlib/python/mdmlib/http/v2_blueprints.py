"""``/v2``: blueprints, what brings devices to them, plans, and what administrators say of devices."""

from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, page_asked_for, rfc3339
from mdmlib.services.blueprint_content import MAX_ITEMS, MAX_SERIAL_NUMBERS, Conditions, Content
from mdmlib.services.blueprint_jobs import MAX_IDS, described
from mdmlib.services.blueprint_plans import Wanted
from mdmlib.services.device_attributes import MAX_LISTED, MAX_TAGS
from mdmlib.services.enrollments import Page

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprints import Blueprints, KnownBlueprint
    from mdmlib.services.device_attributes import Attributes, DeviceAttributeStore
    from mdmlib.services.plan_document import Step
    from mdmlib.services.plan_list import KnownPlan, PlanList
    from mdmlib.store.tables import BlueprintJob

_LISTS: Final = ("profiles", "users", "includes")
_OBJECTS: Final = ("apps", "commands")
_FLAGS: Final = (
    "apply_on_enrollment",
    "apply_on_change",
    "remove_what_left",
    "skip_primary_setup_account_creation",
    "set_primary_setup_account_as_regular_user",
)
_OF_A_BLUEPRINT: Final = (*_LISTS, *_OBJECTS, *_FLAGS, "ade_profile", "conditions")
_CONDITION_LISTS: Final = ("types", "platforms", "models", "serial_numbers", "tags", "ade_servers")
_OF_CONDITIONS: Final = (*_CONDITION_LISTS, "os_at_least", "os_below")
_OF_AN_APPLICATION: Final = ("blueprints", "ids", "all", "remove", "again", "dry_run")
_MAX_PLANS: Final = 100


# Blueprints


def put_blueprint(name: str, request: AdminRequest, blueprints: "Blueprints", jobs: "BlueprintJobs") -> "Response[str]":
    """``PUT /v2/blueprints/{name}``: say what devices shall have, in place of what the blueprint said before."""
    Fields(request.query, known=())
    blueprint = blueprints.put(name, content_of(request.json()), only_if=seen(request, _shown))
    jobs.on_change(blueprint)
    return answer_v2(HTTPStatus.OK, _blueprint(blueprint))


def list_blueprints(request: AdminRequest, blueprints: "Blueprints") -> "Response[str]":
    """``GET /v2/blueprints``: all of them."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("blueprints", Page(list(blueprints.list())), _blueprint))


def get_blueprint(name: str, request: AdminRequest, blueprints: "Blueprints") -> "Response[str]":
    """``GET /v2/blueprints/{name}``: one."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _blueprint(blueprints.get(name)))


def delete_blueprint(name: str, request: AdminRequest, blueprints: "Blueprints") -> "Response[str]":
    """``DELETE /v2/blueprints/{name}``: forget it. Devices keep what they have."""
    blueprints.delete([name], only_if=seen(request, _shown))
    return no_content()


def content_of(document: Mapping[str, Any]) -> Content:
    """Read a blueprint's content. Raises :class:`~mdmlib.errors.BadRequestError` with the field."""
    fields = Fields(document, known=_OF_A_BLUEPRINT)
    given: dict[str, Any] = {name: fields.texts(name, most=MAX_ITEMS) or [] for name in _LISTS}
    given |= {name: _objects(document, name) for name in _OBJECTS}
    given |= {name: fields.flag(name, default=name == "apply_on_enrollment") for name in _FLAGS}
    return Content(
        **given,
        ade_profile=fields.text("ade_profile"),
        conditions=_conditions(fields.object("conditions") or {}),
    )


# Applying


def apply_blueprints(request: AdminRequest, jobs: "BlueprintJobs") -> "Response[str]":
    """``POST /v2/blueprint-applications``: bring devices to blueprints: ``ids``, or ``all`` that meet the conditions.

    202 and a job; with ``dry_run`` 200 and what would be done, of up to 25 ``ids``.
    """
    fields = Fields(request.json(), known=_OF_AN_APPLICATION)
    names = fields.texts("blueprints", most=MAX_ITEMS)
    ids = fields.texts("ids", most=MAX_IDS)
    if bool(ids) == fields.flag("all", default=False):
        raise BadRequestError("Name ids, or say all.", code="no_targets", field="ids")
    wanted = Wanted(names, remove=fields.flag("remove", default=False), again=fields.flag("again", default=False))
    if fields.flag("dry_run", default=False):
        previews = jobs.preview(wanted, ids or [])
        return answer_v2(HTTPStatus.OK, {"previews": [asdict(preview) for preview in previews]})
    return answer_v2(HTTPStatus.ACCEPTED, _job(jobs.start(wanted, ids=ids)))


def get_application(job_id: str, request: AdminRequest, jobs: "BlueprintJobs") -> "Response[str]":
    """``GET /v2/blueprint-applications/{id}``: how that is getting on."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _job(jobs.get(job_id)))


# Plans


def list_plans(request: AdminRequest, plans: "PlanList") -> "Response[str]":
    """``GET /v2/plans``: those of an ``enrollment_id``, or those of all that are ``running`` or have ``failed``."""
    query = Fields(request.query, known=("enrollment_id", "state", "limit", "cursor"))
    limit, after = page_asked_for(query)
    enrollment_id, state = query.text("enrollment_id"), query.text("state")
    if enrollment_id:
        return answer_v2(HTTPStatus.OK, listed("plans", Page(plans.of_enrollment(enrollment_id)), _plan))
    if state not in {"running", "failed"}:
        raise BadRequestError(
            "Say whose plans: enrollment_id; or state, running or failed.", code="missing_field", field="enrollment_id"
        )
    found, position = plans.unsettled(failed=state == "failed", limit=min(limit, _MAX_PLANS), after=after)
    return answer_v2(HTTPStatus.OK, listed("plans", Page(found, position), _plan))


# What is said of devices


def put_attributes(serial_number: str, request: AdminRequest, attributes: "DeviceAttributeStore") -> "Response[str]":
    """``PUT /v2/device-attributes/{serial_number}``: give a device tags and values, in place of those before."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("tags", "values"))
    tags = fields.texts("tags", most=MAX_TAGS) or []
    return answer_v2(
        HTTPStatus.OK, _attributes(attributes.put(serial_number, tags=tags, values=fields.object("values") or {}))
    )


def list_attributes(request: AdminRequest, attributes: "DeviceAttributeStore") -> "Response[str]":
    """``GET /v2/device-attributes``: what is said of all devices, or of those with a ``tag``."""
    query = Fields(request.query, known=("tag", "limit", "cursor"))
    limit, after = page_asked_for(query)
    page = attributes.list(tag=query.text("tag"), limit=min(limit, MAX_LISTED), after=after)
    return answer_v2(HTTPStatus.OK, listed("device_attributes", page, _attributes))


def get_attributes(serial_number: str, request: AdminRequest, attributes: "DeviceAttributeStore") -> "Response[str]":
    """``GET /v2/device-attributes/{serial_number}``: what is said of one."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _attributes(attributes.get(serial_number)))


def delete_attributes(serial_number: str, attributes: "DeviceAttributeStore") -> "Response[str]":
    """``DELETE /v2/device-attributes/{serial_number}``: say nothing of it any more."""
    attributes.delete(serial_number)
    return no_content()


# How things look


def _conditions(document: Mapping[str, Any]) -> Conditions:
    try:
        fields = Fields(document, known=_OF_CONDITIONS)
        lists = {name: fields.texts(name, most=MAX_SERIAL_NUMBERS) or [] for name in _CONDITION_LISTS}
        return Conditions(**lists, os_at_least=fields.text("os_at_least"), os_below=fields.text("os_below"))
    except BadRequestError as error:
        raise BadRequestError(error.message, code=error.code, field=f"conditions.{error.field}") from error


def _objects(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise BadRequestError(f"{name} has to be a list of objects.", code="invalid_field", field=name)
    return value


def _shown(blueprint: "KnownBlueprint | None") -> dict[str, Any] | None:
    return None if blueprint is None else _blueprint(blueprint)


def _blueprint(blueprint: "KnownBlueprint") -> dict[str, Any]:
    content = asdict(blueprint.content)
    return {
        "name": blueprint.name,
        "uuid": blueprint.uuid,
        "revision": blueprint.revision,
        "changed_at": rfc3339(blueprint.changed_at),
        **content,
    }


def _job(job: "BlueprintJob") -> dict[str, Any]:
    told = described(job)
    return {
        "id": job.name,
        "state": job.state,
        "cause": job.cause,
        "blueprints": told["names"],
        "ids": told["ids"],
        "remove": told["remove"],
        "again": told["again"],
        "examined": int(job.examined),
        "begun": int(job.begun),
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
    }


def _plan(plan: "KnownPlan") -> dict[str, Any]:
    return {
        "enrollment_id": plan.enrollment_id,
        "kind": plan.kind,
        "run": plan.item.run,
        "cause": plan.item.cause,
        "state": plan.state,
        "blueprints": plan.document.blueprints,
        "begun_at": rfc3339(plan.item.begun_at),
        "changed_at": rfc3339(plan.item.changed_at),
        "finished_at": rfc3339(plan.item.finished_at),
        "steps": [_step(step) for step in plan.document.steps],
    }


def _step(step: "Step") -> dict[str, Any]:
    return {
        "title": step.title,
        "phase": step.phase,
        "state": step.state.value,
        "reason": step.reason,
        "request_type": step.request_type,
        "command_uuid": step.command_uuid,
        "attempts": step.attempts,
        "not_before": rfc3339(step.not_before),
        "changed_at": rfc3339(step.changed_at),
    }


def _attributes(attributes: "Attributes") -> dict[str, Any]:
    return {
        "serial_number": attributes.serial_number,
        "tags": sorted(attributes.tags),
        "values": dict(attributes.values),
    }
