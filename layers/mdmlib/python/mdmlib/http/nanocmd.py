"""NanoCMD's API: workflows, profiles by name, command plans, inventory."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.event_handler import Response

from mdmlib.apple.enrollment_profile import CONTENT_TYPE
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.http.admin_edge import AdminRequest, answer_nanomdm

if TYPE_CHECKING:
    from mdmlib.services.filevault import FileVault
    from mdmlib.services.inventory import InventoryStore
    from mdmlib.services.named_profiles import NamedProfiles
    from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows
    from mdmlib.services.workflow_events import WorkflowEvents

_MAX_IDS: Final = 250


def start_workflow(name: str, request: AdminRequest, workflows: "NanoCMDWorkflows") -> Response[str]:
    """``POST /v1/workflow/{name}/start?id=…&context=…``: start a workflow for devices."""
    run = workflows.start(name, _ids(request), request.query.get("context") or "")
    return answer_nanomdm(HTTPStatus.OK, {"instance_id": run})


def get_event(name: str, events: "WorkflowEvents") -> Response[str]:
    """``GET /v1/event/{name}``: what begins when something happens to a device."""
    event = events.get(name)
    told = {
        "event": event.event,
        "workflow": event.workflow,
        "context": event.context,
        "event_context": event.event_context,
    }
    return answer_nanomdm(HTTPStatus.OK, {key: value for key, value in told.items() if value})


def put_event(name: str, request: AdminRequest, events: "WorkflowEvents") -> Response[str]:
    """``PUT /v1/event/{name}``: let a workflow begin when something happens to a device."""
    events.put(name, request.json())
    return _nothing()


def delete_event(name: str, events: "WorkflowEvents") -> Response[str]:
    """``DELETE /v1/event/{name}``, which NanoCMD does not have: let it begin no more."""
    events.delete(name)
    return _nothing()


def filevault_template(vault: "FileVault") -> Response[bytes]:
    """``GET /v1/fvenable/profiletemplate``: the profile that turns FileVault on."""
    return Response(HTTPStatus.OK, content_type=CONTENT_TYPE, body=vault.profile())


def get_profile(name: str, names: "NamedProfiles") -> Response[bytes]:
    """``GET /v1/profile/{name}``: a profile as it was stored."""
    return Response(HTTPStatus.OK, content_type=CONTENT_TYPE, body=names.get(name))


def put_profile(name: str, request: AdminRequest, names: "NamedProfiles") -> Response[str]:
    """``PUT /v1/profile/{name}``: store a profile, signed or not."""
    if not request.body:
        raise BadRequestError("There is no profile.", code="missing_field")
    names.put(name, request.body)
    return _nothing()


def delete_profile(name: str, names: "NamedProfiles") -> Response[str]:
    """``DELETE /v1/profile/{name}``: forget a profile. Devices keep theirs."""
    names.delete(name)
    return _nothing()


def list_profiles(request: AdminRequest, names: "NamedProfiles") -> Response[str]:
    """``GET /v1/profiles?name=…``: identifiers and UUIDs of profiles, by name."""
    asked = [name for name in (request.query.get("name") or "").split(",") if name]
    found = {one.name: {"identifier": one.identifier, "uuid": one.uuid} for one in names.list(asked)}
    return answer_nanomdm(HTTPStatus.OK, found)


def get_command_plan(name: str, names: "NamedProfiles") -> Response[str]:
    """``GET /v1/cmdplan/{name}``: a list of profiles and apps."""
    return answer_nanomdm(HTTPStatus.OK, names.command_plan(name))


def put_command_plan(name: str, request: AdminRequest, names: "NamedProfiles") -> Response[str]:
    """``PUT /v1/cmdplan/{name}``: store a list of profiles and apps."""
    names.put_command_plan(name, request.json())
    return _nothing()


def get_inventory(request: AdminRequest, inventory: "InventoryStore") -> Response[str]:
    """``GET /v1/inventory?id=…``: what is known of devices; those of which nothing is are left away.

    Recovery keys and PINs are not in it, as they are in NanoCMD's: whoever reads one has to say why.
    """
    found: dict[str, Any] = {}
    for id_ in _ids(request):
        try:
            found[id_] = inventory.get(id_).known.keys
        except NotFoundError:
            continue
    return answer_nanomdm(HTTPStatus.OK, found)


def _ids(request: AdminRequest) -> list[str]:
    ids = [id_ for id_ in (request.query.get("id") or "").split(",") if id_]
    if not ids or len(ids) > _MAX_IDS:
        raise BadRequestError(f"Name 1 to {_MAX_IDS} ids.", code="no_targets", field="id")
    return ids


def _nothing() -> Response[str]:
    return Response(HTTPStatus.NO_CONTENT, body="")
