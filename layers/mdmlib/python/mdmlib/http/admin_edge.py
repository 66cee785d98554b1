"""The admin edge: what administrators and their scripts send, and what they get.

Who they are is proven before they come here (:mod:`mdmlib.http.administrators`). Every refusal says what is wrong and
what to do, and has a ``code`` for machines. Its form is that of the API that was called:

``/v2``           RFC 9457, ``application/problem+json``
MicroMDM's        ``{"error", "code", "field"?}``, indented by two spaces
NanoMDM's         the same, indented by a tab
NanoDEP's         the same, in one line
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aws_lambda_powertools.event_handler import Response
from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException

from mdmlib.errors import (
    AdeTokenMissingError,
    AppleRefusedError,
    BadRequestError,
    BodyTooLargeError,
    ConflictError,
    ForbiddenError,
    GoneError,
    MalformedBodyError,
    NotFoundError,
    PicoMDMError,
    PreconditionFailedError,
    TooManyAttemptsError,
    UnauthorizedError,
    UnavailableError,
)
from mdmlib.http.fields import Query
from mdmlib.http.gateway import AUTHENTICATE_HEADER, body_of, headers_of
from mdmlib.metrics import count_if_throttled
from mdmlib.observability import log_unforeseen, logger

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
    from aws_lambda_powertools.event_handler.exceptions import NotFoundError as RouteNotFoundError
    from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

DIALECT_HEADER: Final = "x-picomdm-dialect"


class MethodNotAllowedError(NotFoundError):
    """What was called is here, but not with that method."""


_STATUS: Final[tuple[tuple[type[PicoMDMError], HTTPStatus], ...]] = (
    (MethodNotAllowedError, HTTPStatus.METHOD_NOT_ALLOWED),
    (BodyTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BadRequestError, HTTPStatus.BAD_REQUEST),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (PreconditionFailedError, HTTPStatus.PRECONDITION_FAILED),
    (GoneError, HTTPStatus.GONE),
    (AdeTokenMissingError, HTTPStatus.CONFLICT),
    (AppleRefusedError, HTTPStatus.BAD_GATEWAY),
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED),
    (TooManyAttemptsError, HTTPStatus.TOO_MANY_REQUESTS),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_RETRY_AFTER: Final = {HTTPStatus.SERVICE_UNAVAILABLE: "5", HTTPStatus.TOO_MANY_REQUESTS: "60"}

_OF_MICROMDM: Final = re.compile(
    r"/push/|/boltbackup|/v1/(commands|devices|profiles|users|config|challenge|blueprints|apps|dep|dep-tokens)(/|$)"
)
_OF_NANOMDM: Final = re.compile(
    r"/migration$|/inventory$|/v1/(pushcert|enqueue|queue|enrollments|escrowkeyunlock)(/|$)"
    r"|/v1/(workflow|event|fvenable|profile|cmdplan|inventory)(/|$)"
)

_OF_NANODEP: Final = re.compile(
    r"/proxy/|/v1/(dep_names|tokenpki|tokens|assigner|maidjwt|bypasscode)(/|$)|/v1/config/(?!certificate$)."
)

_OF_LISTS: Final = re.compile(r"/v1/(commands|enqueue|push|queue)/")
"""Several ids in one part of a path, or one that nothing waits for, which is no error."""
_LONGEST_NAME: Final = 1_024

_LONE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# What Go's encoder escapes inside strings; none of them occurs in JSON outside of one.
_GO_ESCAPES: Final = {
    ord(character): f"\\u{ord(character):04x}" for character in ("<", ">", "&", "\N{LINE SEPARATOR}", "\u2029")
}


class PassedBack(Response[bytes]):
    """Another server's answer: bytes also where its type is JSON, for it may be compressed, or none."""

    def is_json(self) -> bool:
        """Say that nothing of it is to be encoded."""
        return False


class Dialect(StrEnum):
    """Whose API a request is meant for."""

    MICROMDM = "micromdm"
    NANOMDM = "nanomdm"
    NANODEP = "nanodep"
    V2 = "v2"


@dataclass(frozen=True, kw_only=True)
class AdminRequest:
    """A request as an administrator sent it; whatever its content type says."""

    body: bytes = field(repr=False)
    query: Mapping[str, str]
    dialect: Dialect
    if_match: str | None = None
    """The ETags of which what is to be changed has to have one."""
    caller: str = "unknown"
    """Who asks, as IAM knows them."""

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for anything else; its message does not quote the body.
        """
        if not self.body.strip():
            raise MalformedBodyError("The body is empty; send a JSON object.")
        try:
            document = json.loads(self.body, parse_constant=_refuse_constant)
            if _LONE_SURROGATE.search(self.body):
                json.dumps(document, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise MalformedBodyError(
                f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}."
            ) from None
        except RecursionError:
            raise MalformedBodyError("The body is no JSON that anybody wrote: it is nested too deeply.") from None
        except ValueError:
            # Not UTF-8, half of a surrogate pair, NaN, or a number of thousands of digits.
            raise MalformedBodyError("The body is no JSON in UTF-8.") from None
        if not isinstance(document, dict):
            raise MalformedBodyError("The body is JSON, but no object; send {…}.")
        return document


def decode(event: "APIGatewayProxyEventV2") -> AdminRequest:
    """Read API Gateway's event. Raises :class:`~mdmlib.errors.BodyTooLargeError`."""
    return AdminRequest(
        body=body_of(event),
        query=Query(event.raw_event.get("queryStringParameters") or {}),
        dialect=dialect_of(event),
        if_match=headers_of(event).get("if-match"),
        caller=_caller(event),
    )


def _caller(event: "APIGatewayProxyEventV2") -> str:
    iam = (event.raw_event["requestContext"].get("authorizer") or {}).get("iam") or {}
    return str(iam.get("userArn") or iam.get("accessKey") or "unknown")


def dialect_of(event: "APIGatewayProxyEventV2") -> Dialect:
    """Return whose API a request is meant for.

    Where MicroMDM and NanoMDM share a path, the header ``X-PicoMDM-Dialect`` decides, which the user of HTTP Basic and
    a dialect's prefix set; without it POST is MicroMDM's, for it alone uses that, and everything else NanoMDM's.
    """
    path, method = event.raw_path, event.http_method
    if path.startswith("/v2/"):
        return Dialect.V2
    if _OF_NANODEP.match(path):
        return Dialect.NANODEP
    # MicroMDM's client lists profiles by POST, NanoCMD's by GET.
    if _OF_MICROMDM.match(path) and (method, path) != ("GET", "/v1/profiles"):
        return Dialect.MICROMDM
    if _OF_NANOMDM.match(path):
        return Dialect.NANOMDM
    asked = headers_of(event).get(DIALECT_HEADER, "").lower()
    if asked in {Dialect.MICROMDM, Dialect.NANOMDM}:
        return Dialect(asked)
    return Dialect.MICROMDM if method == "POST" else Dialect.NANOMDM


def go_json(document: object, *, indent: str | None) -> str:
    """Return JSON as the encoder of Go's standard library writes it, so that clients see the bytes they know.

    Without an ``indent`` it is one line, without a blank.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=False)
    return text.translate(_GO_ESCAPES) + "\n"


def answer_micromdm(status: HTTPStatus, document: object) -> Response[str]:
    """Answer as MicroMDM does."""
    return Response(status, content_type="application/json; charset=utf-8", body=go_json(document, indent="  "))


def answer_nanomdm(status: HTTPStatus, document: object) -> Response[str]:
    """Answer as NanoMDM does."""
    return Response(status, content_type="application/json", body=go_json(document, indent="\t"))


def answer_nanodep(status: HTTPStatus, document: object) -> Response[str]:
    """Answer as NanoDEP does."""
    return Response(status, content_type="application/json", body=go_json(document, indent=None))


def answer_v2(status: HTTPStatus, document: object) -> Response[str]:
    """Answer as PicoMDM's own API does. Nothing of it shall stay in a cache: links and payloads are secret."""
    return Response(
        status, content_type="application/json", body=v2_json(document), headers={"Cache-Control": "no-store"}
    )


def v2_json(document: object) -> str:
    """Return JSON as PicoMDM's own API writes it: what an ETag is of."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_ANSWERS: Final = {
    Dialect.MICROMDM: answer_micromdm,
    Dialect.NANOMDM: answer_nanomdm,
    Dialect.NANODEP: answer_nanodep,
}


def no_content() -> Response[str]:
    """Answer 204."""
    return Response(HTTPStatus.NO_CONTENT, body="")


def status_of(error: PicoMDMError) -> HTTPStatus:
    """Return the status that an administrator gets for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def refusal(error: PicoMDMError, *, dialect: Dialect) -> Response[str]:
    """Return the answer that tells of an error, in the form of the API that was called."""
    status = status_of(error)
    if dialect is Dialect.V2:
        problem = {
            "type": "about:blank",
            "title": status.phrase,
            "status": int(status),
            "detail": error.message,
            "code": error.code,
        }
        response: Response[str] = answer_v2(status, problem | _details(error))
        response.headers["Content-Type"] = "application/problem+json"
    else:
        response = _ANSWERS[dialect](status, {"error": error.message, "code": error.code} | _details(error))
    if status in _RETRY_AFTER:
        response.headers["Retry-After"] = _RETRY_AFTER[status]
    if isinstance(error, UnauthorizedError):
        challenge = f'Basic realm="{error.realm}"'
        response.headers.update({"WWW-Authenticate": challenge, AUTHENTICATE_HEADER: challenge})
    return response


def refuse_long_names(app: "APIGatewayHttpResolver") -> None:
    """Answer 404 for a path with a longer name than anything here has: DynamoDB would take none for a key."""

    def look(app: "APIGatewayHttpResolver", go_on: Callable[..., Response[Any]]) -> Response[Any]:
        path = app.current_event.raw_path
        if not _OF_LISTS.match(path) and any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")):
            raise NotFoundError(f"Nothing here has a name of more than {_LONGEST_NAME} bytes.", code="name_too_long")
        return go_on(app)

    app.use([look])


def register_error_handlers(app: "APIGatewayHttpResolver") -> None:
    """Answer every error with what is wrong and what to do, and log it."""

    @app.exception_handler(PicoMDMError)
    def refuse(error: PicoMDMError) -> Response[str]:
        status = status_of(error)
        log: Callable[..., None] = logger.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logger.warning
        log("Admin request refused", code=error.code, reason=error.message, status=int(status))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            count_if_throttled(error)
        return refusal(error, dialect=dialect_of(app.current_event))

    @app.exception_handler([BotoCoreError, ClientError, PynamoDBException])
    def try_later(error: Exception) -> Response[str]:
        log_unforeseen("Admin request failed at AWS", error)
        count_if_throttled(error)
        unavailable = UnavailableError("An AWS service did not do its part; send the same request again in a moment.")
        return refusal(unavailable, dialect=dialect_of(app.current_event))

    @app.exception_handler(Exception)
    def fail(error: Exception) -> Response[str]:
        log_unforeseen("Admin request failed", error)
        unforeseen = PicoMDMError(
            "PicoMDM failed at this; nothing more can be told here. Its log says where, under the request id "
            f"{app.current_event.request_context.request_id}."
        )
        return refusal(unforeseen, dialect=dialect_of(app.current_event))

    @app.not_found
    def miss(_: "RouteNotFoundError") -> Response[str]:
        event = app.current_event
        said = f"There is no {event.http_method} {event.raw_path} here"
        allowed = _methods_of(app, event.path)
        if not allowed:
            return refusal(NotFoundError(f"{said}.", code="unknown_route"), dialect=dialect_of(event))
        error = MethodNotAllowedError(f"{said}, but {' and '.join(allowed)}.", code="method_not_allowed")
        response = refusal(error, dialect=dialect_of(event))
        response.headers["Allow"] = ", ".join(allowed)
        return response


def _methods_of(app: "APIGatewayHttpResolver", path: str) -> list[str]:
    """Return the methods that a path can be called with; none if there is no such path."""
    routes = app._static_routes + app._dynamic_routes  # noqa: SLF001 - it tells in no other way what it knows
    return sorted({route.method for route in routes if route.rule.match(path)})


def _details(error: PicoMDMError) -> dict[str, str]:
    """Return what is told of an error beside its code: which field it is about, and what Apple calls it."""
    apple_code = error.apple_code if isinstance(error, AppleRefusedError) else None
    told = {"field": error.field, "apple_code": apple_code}
    return {name: value for name, value in told.items() if value}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
