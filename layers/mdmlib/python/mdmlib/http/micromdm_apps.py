"""MicroMDM's API: apps, whose packages and manifests come as the parts of a form."""

import re
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BodyTooLargeError, MalformedBodyError
from mdmlib.http import admin_edge
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.go_fields import GoFields
from mdmlib.services.apps import MAX_INLINE_BYTES

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response
    from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

    from mdmlib.services.apps import Apps

_NAME: Final = re.compile(rb'(?i)content-disposition:[^\r\n]*[; ]name="([^"\r\n]*)"')
_ELSEWHERE: Final = (
    "A package of more than 4 MB goes to the bucket directly: `picomdm apps upload FILE`, or POST /v2/app-uploads, "
    "which answers with a URL for it."
)


def decode(event: "APIGatewayProxyEventV2") -> AdminRequest:
    """Read a request; one that is too large is told where packages go."""
    try:
        return admin_edge.decode(event)
    except BodyTooLargeError as error:
        raise BodyTooLargeError(_ELSEWHERE) from error


def put_app(request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``PUT /v1/apps``: store a package (``pkg_filedata``, ``pkg_name``), a manifest (``app_manifest_…``), or both."""
    parts = _parts(request.body)
    manifest, package = parts.get("app_manifest_filedata"), parts.get("pkg_filedata")
    if manifest is None and package is None:
        raise MalformedBodyError("The form has neither pkg_filedata nor app_manifest_filedata.", field="pkg_filedata")
    if package is not None:
        if len(package) > MAX_INLINE_BYTES:
            raise BodyTooLargeError(_ELSEWHERE)
        apps.store(_text(parts, "pkg_name"), package)
    if manifest is not None:
        apps.store_manifest(_text(parts, "app_manifest_filename"), manifest)
    return answer_micromdm(HTTPStatus.OK, {})


def list_apps(request: AdminRequest, apps: "Apps") -> "Response[str]":
    """``POST /v1/apps``: manifests, those made here too; ``filter_name`` with one name, in ``Opts`` or without."""
    fields = GoFields(request.json())
    names = (fields.within("Opts") if "Opts" in fields else fields).texts("filter_name")
    found: dict[str, bytes] = {}
    # One that an administrator has made goes before the one that is made here of a package.
    for app in sorted(apps.list(), key=lambda app: app.kind == "manifest"):
        found[apps.manifest_url(app).rsplit("/", 1)[-1]] = apps.manifest_of(app)
    if len(names) == 1:
        found = {name: manifest for name, manifest in found.items() if name == names[0]}
    listed = [{"name": name, "payload": b64encode(manifest).decode()} for name, manifest in sorted(found.items())]
    document: dict[str, Any] = {"apps": listed} if listed else {}
    return answer_micromdm(HTTPStatus.OK, document)


def _parts(body: bytes) -> dict[str, bytes]:
    """Return the parts of a multipart form, whose boundary is its first line."""
    boundary, _, rest = body.partition(b"\r\n")
    if not boundary.startswith(b"--") or len(boundary) > 200:  # noqa: PLR2004 - RFC 2046: at most 70 characters
        raise MalformedBodyError("The body is no multipart form.")
    found = {}
    for part in rest.split(b"\r\n" + boundary):
        head, mark, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if mark and name is not None:
            found[name[1].decode(errors="replace")] = content
    return found


def _text(parts: dict[str, bytes], name: str) -> str:
    value = parts.get(name, b"").decode(errors="replace").strip()
    if not value:
        raise MalformedBodyError(f"The form has no {name}.", field=name)
    return value
