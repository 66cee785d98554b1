"""MicroMDM's API: blueprints, which ``mdmctl`` knows by their names and by UUIDs that it makes."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.go_fields import GoFields
from mdmlib.services.blueprint_content import Content

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprints import Blueprints, KnownBlueprint

ENROLL: Final = "Enroll"


def put_blueprint(request: AdminRequest, blueprints: "Blueprints", jobs: "BlueprintJobs") -> "Response[str]":
    """``PUT /v1/blueprints``: store a blueprint. What MicroMDM does not know of it stays as it is."""
    fields = GoFields(request.json()).within("blueprint")
    name, uuid_ = fields.text("name"), fields.text("uuid")
    if not name or not uuid_:
        missing = "name" if not name else "uuid"
        raise BadRequestError(f"Blueprint must have a {missing}.", code="missing_field", field=missing)
    try:
        UUID(uuid_)
    except ValueError:
        raise BadRequestError("uuid is no UUID.", code="invalid_field", field="uuid") from None
    former = next((one.content for one in blueprints.list() if one.uuid == uuid_ or one.name == name), Content())
    other_apps = [app for app in former.apps if "manifest_url" not in app]
    urls = fields.texts("install_application_manifest_urls")
    content = Content(
        profiles=fields.texts("profile_ids"),
        apps=[*({"manifest_url": url} for url in urls), *other_apps],
        users=fields.texts("user_uuids"),
        commands=former.commands,
        includes=former.includes,
        ade_profile=former.ade_profile,
        conditions=former.conditions,
        apply_on_enrollment=ENROLL.lower() in {moment.lower() for moment in fields.texts("apply_at")},
        apply_on_change=former.apply_on_change,
        remove_what_left=former.remove_what_left,
        skip_primary_setup_account_creation=bool(fields.flag("skip_primary_setup_account_creation")),
        set_primary_setup_account_as_regular_user=bool(fields.flag("set_primary_setup_account_as_regular_user")),
    )
    jobs.on_change(blueprints.put(name, content, uuid_=uuid_))
    return answer_micromdm(HTTPStatus.OK, {})


def list_blueprints(request: AdminRequest, blueprints: "Blueprints") -> "Response[str]":
    """``POST /v1/blueprints``: all blueprints, or the one that ``FilterName`` names."""
    name = GoFields(request.json()).text("FilterName")
    found = [blueprints.get(name)] if name else list(blueprints.list())
    return answer_micromdm(HTTPStatus.OK, {"blueprints": [_blueprint(one) for one in found] or None})


def delete_blueprints(request: AdminRequest, blueprints: "Blueprints") -> "Response[str]":
    """``DELETE /v1/blueprints``: forget blueprints. Devices keep what they have."""
    blueprints.delete(GoFields(request.json()).texts("names"))
    return answer_micromdm(HTTPStatus.OK, {})


def _blueprint(blueprint: "KnownBlueprint") -> dict[str, Any]:
    content = blueprint.content
    urls = [app["manifest_url"] for app in content.apps if "manifest_url" in app]
    return {
        "uuid": blueprint.uuid,
        "name": blueprint.name,
        "install_application_manifest_urls": urls or None,
        "profile_ids": list(content.profiles) or None,
        "user_uuids": list(content.users) or None,
        "skip_primary_setup_account_creation": content.skip_primary_setup_account_creation,
        "set_primary_setup_account_as_regular_user": content.set_primary_setup_account_as_regular_user,
        "apply_at": [ENROLL] if content.apply_on_enrollment else None,
    }
