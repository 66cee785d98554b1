"""``/v2``: apps, and the uploads of their packages."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, rfc3339
from mdmlib.services.apps import MAX_BYTES
from mdmlib.services.enrollments import Page

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.apps import Apps
    from mdmlib.store.tables import App, AppUpload


def begin_upload(request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``POST /v2/app-uploads``: get a URL that takes a package of ``size`` bytes, by PUT."""
    fields = Fields(request.json(), known=("name", "size"))
    name, size = fields.required_text("name"), fields.integer("size", least=1, most=MAX_BYTES)
    if size is None:
        raise BadRequestError("size is missing.", code="missing_field", field="size")
    upload, url = apps.begin_upload(name, size)
    return answer_v2(HTTPStatus.CREATED, _upload(upload) | {"url": url})


def finish_upload(upload_id: str, request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``POST /v2/app-uploads/{id}/finished``: have what was uploaded looked into, and put into its place."""
    if request.body.strip():
        Fields(request.json(), known=())
    return answer_v2(HTTPStatus.ACCEPTED, _upload(apps.finish_upload(upload_id)))


def get_upload(upload_id: str, request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``GET /v2/app-uploads/{id}``: how far it is."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _upload(apps.upload(upload_id)))


def list_apps(request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``GET /v2/apps``: all of them."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("apps", Page(list(apps.list())), lambda app: _app(app, apps)))


def get_app(name: str, request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``GET /v2/apps/{name}``: one."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _app(apps.get(name), apps))


def delete_app(name: str, apps: "Apps") -> "Response[str]":
    """``DELETE /v2/apps/{name}``: forget it. Devices keep theirs."""
    apps.delete(name)
    return no_content()


def _app(app: "App", apps: "Apps") -> dict[str, Any]:
    facts = app.facts or {}
    return {
        "name": app.name,
        "kind": app.kind,
        "size": int(app.size),
        "identifier": facts.get("identifier"),
        "version": facts.get("version"),
        "title": facts.get("title"),
        "bundles": facts.get("bundles") or {},
        "manifest_url": apps.manifest_url(app),
        "uploaded_at": rfc3339(app.uploaded_at),
    }


def _upload(upload: "AppUpload") -> dict[str, Any]:
    return {
        "id": upload.name,
        "app": upload.app,
        "size": int(upload.size),
        "state": upload.state,
        "reason": upload.reason,
        "chunks_hashed": len(upload.sha256s or ()),
        "created_at": rfc3339(upload.created_at),
    }
