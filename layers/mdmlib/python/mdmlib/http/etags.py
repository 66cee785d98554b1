"""ETags of ``/v2``: who has seen something asks for it only if it has changed, and changes it only if it has not.

``GET`` answers with an ``ETag``, a digest of the answer; with ``If-None-Match`` it is 304 while that still fits.
``PUT``, ``PATCH`` and ``DELETE`` with ``If-Match`` are 412 when what is there is not what the ETag was of. A service is
given :func:`seen` as its ``only_if``: it calls that with what it has read, and writes on the condition that this is
still so (:mod:`mdmlib.store.unchanged`). Nothing can come in between.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aws_lambda_powertools.event_handler import Response

from mdmlib.errors import BadRequestError, PreconditionFailedError
from mdmlib.http.admin_edge import AdminRequest, v2_json
from mdmlib.http.gateway import headers_of
from mdmlib.store.unchanged import OnlyIf

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

CONDITIONAL: Final = (
    "/v2/account-driven-enrollment",
    "/v2/ade-assignment-rules/{name}",
    "/v2/ade-profiles/{name}",
    "/v2/blueprints/{name}",
    "/v2/certificate-authorities/{name}",
    "/v2/ddm-keys",
    "/v2/enrollment-profile",
    "/v2/push-certificate-requests/{id}",
    "/v2/scep-challenges/static",
    "/v2/webhooks/{id}",
)
"""What can be changed on the condition that it has not changed. A job is stopped, whatever it has done meanwhile."""

_CONDITIONAL: Final = re.compile("|".join(re.sub(r"\{\w+\}", "[^/]+", path) for path in CONDITIONAL))
_CHANGES: Final = frozenset({"PUT", "PATCH", "DELETE"})
_T = TypeVar("_T")


def answer_conditionally(app: "APIGatewayHttpResolver") -> None:
    """Let GETs of ``/v2`` have ETags, and refuse conditions that nobody would look at."""

    def answer(app: "APIGatewayHttpResolver", go_on: Callable[..., Response[Any]]) -> Response[Any]:
        event = app.current_event
        method, path, headers = event.http_method, event.raw_path, headers_of(event)
        if not path.startswith("/v2/"):
            return go_on(app)
        if method in _CHANGES:
            _check_conditions(headers, path)
        response = go_on(app)
        if method == "GET" and response.status_code == HTTPStatus.OK:
            etag = _etag(str(response.body))
            response.headers["ETag"] = etag
            if _is_among(etag, headers.get("if-none-match", ""), weak=True):
                return Response(HTTPStatus.NOT_MODIFIED, body="", headers=_without_type(response.headers))
        return response

    app.use([answer])


def seen(request: AdminRequest, shown: Callable[[_T], object]) -> OnlyIf[_T] | None:
    """Return what holds something against a request's ``If-Match``, or None if it has none.

    ``shown`` makes the document that GET answers with, or None where that is 404.
    """
    if_match = request.if_match
    if if_match is None:
        return None

    def check(current: _T) -> None:
        document = shown(current)
        if document is None:
            raise PreconditionFailedError("There is no such thing (any more), so it has no ETag.")
        if if_match.strip() != "*" and not _is_among(_etag(v2_json(document)), if_match, weak=False):
            raise PreconditionFailedError(
                "It has changed since it had this ETag: read it again, and decide anew what to change."
            )

    return check


def _check_conditions(headers: dict[str, str], path: str) -> None:
    if "if-none-match" in headers:
        raise BadRequestError("If-None-Match goes with GET alone.", code="unknown_condition")
    if "if-match" in headers and not _CONDITIONAL.fullmatch(path):
        raise PreconditionFailedError("This cannot be changed on the condition of an ETag.", code="no_etag")


def _etag(body: str) -> str:
    return f'"{sha256(body.encode()).hexdigest()[:32]}"'


def _is_among(etag: str, listed: str, *, weak: bool) -> bool:
    """Say whether a header lists an ETag; ``weak``: also one that a proxy made weak when it compressed the answer."""
    tags = [tag.strip() for tag in listed.split(",")]
    if weak:
        tags = ["*" if tag == "*" else tag.removeprefix("W/") for tag in tags]
    return etag in tags or (weak and "*" in tags)


def _without_type(headers: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name.lower() != "content-type"}
