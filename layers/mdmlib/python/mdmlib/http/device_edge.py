"""The device edge: what Apple devices send, and what they get.

Devices act on status codes: 200 is the only success, 401 makes them un-enroll and is sent to blocked devices alone.
Every other failure is a status and an empty body: nothing is revealed to whoever is at the other end, the reason is in
the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException

from mdmlib.apple.error_code import MEDIA_TYPE, UNRECOGNIZED_DEVICE, error_body
from mdmlib.errors import (
    BadRequestError,
    BlockedError,
    BodyTooLargeError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    PicoMDMError,
    UnavailableError,
)
from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from mdmlib.http.gateway import body_of, headers_of
from mdmlib.metrics import count_if_throttled
from mdmlib.observability import log_unforeseen, logger
from mdmlib.services.device_identity import Evidence

if TYPE_CHECKING:
    from mdmlib.services.checkin_message import CheckinAnswer

_STATUS: Final[tuple[tuple[type[PicoMDMError], HTTPStatus], ...]] = (
    (BodyTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BadRequestError, HTTPStatus.BAD_REQUEST),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    # A device that disagrees with our state cannot mend it: to it, it was a bad request.
    (ConflictError, HTTPStatus.BAD_REQUEST),
    (GoneError, HTTPStatus.GONE),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """A request as a device sent it."""

    body: bytes
    evidence: Evidence
    """What may prove who sent it."""
    url_params: Mapping[str, str]
    """The query of the profile's URL, passed on to webhooks."""
    headers: Mapping[str, str]
    """Names in lower case."""


def decode(event: GatewayRequest) -> DeviceRequest:
    """Read API Gateway's event. Raises BodyTooLargeError and, for base64 that is none, MalformedBodyError."""
    headers, body = headers_of(event), body_of(event)
    authentication = event.raw_event.get("requestContext", {}).get("authentication") or {}
    certificate = (authentication.get("clientCert") or {}).get("clientCertPem")
    return DeviceRequest(
        body=body,
        evidence=Evidence(body=body, headers=headers, tls_certificate=certificate),
        url_params=event.raw_event.get("queryStringParameters") or {},
        headers=headers,
    )


def is_checkin(request: DeviceRequest) -> bool:
    """Say whether a request on the path of both kinds is a check-in message: no content type means a report."""
    return request.headers.get("content-type", "").startswith("application/x-apple-aspen-mdm-checkin")


def plist(body: bytes | None) -> DeviceAnswer:
    """Answer 200 with a plist, or with zero bytes for None: "no more commands" and "received"."""
    if not body:
        return DeviceAnswer(HTTPStatus.OK)
    return DeviceAnswer(HTTPStatus.OK, body, "application/xml")


def checkin_response(answer: "CheckinAnswer | None") -> DeviceAnswer:
    """Answer a check-in message."""
    if answer is None:
        return plist(None)
    return DeviceAnswer(HTTPStatus.OK, answer.body, answer.media_type)


def status_of(error: PicoMDMError) -> HTTPStatus:
    """Return the status that a device gets for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def register_error_handlers(app: DeviceApp) -> None:
    """Answer every error with its status and nothing more, and log its reason."""

    @app.error_handler(BlockedError)
    def unenroll(error: BlockedError) -> DeviceAnswer:
        logger.warning("Blocked device refused", code=error.code)
        if not error.knows_unrecognized_device:
            return DeviceAnswer(HTTPStatus.UNAUTHORIZED)
        body = error_body(UNRECOGNIZED_DEVICE, description="The device is blocked.")
        return DeviceAnswer(HTTPStatus.FORBIDDEN, body, MEDIA_TYPE)

    @app.error_handler(PicoMDMError)
    def refuse(error: PicoMDMError) -> DeviceAnswer:
        status = status_of(error)
        log: Callable[..., None] = logger.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logger.warning
        log("Device request refused", code=error.code, reason=error.message, status=int(status))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            count_if_throttled(error)
        return DeviceAnswer(status)

    @app.error_handler(BotoCoreError, ClientError, PynamoDBException)
    def try_later(error: Exception) -> DeviceAnswer:
        # AWS failed us, not the device: it comes back.
        log_unforeseen("Device request failed at AWS", error)
        count_if_throttled(error)
        return DeviceAnswer(HTTPStatus.SERVICE_UNAVAILABLE)

    @app.error_handler(Exception)
    def fail(error: Exception) -> DeviceAnswer:
        log_unforeseen("Device request failed", error)
        return DeviceAnswer(HTTPStatus.INTERNAL_SERVER_ERROR)
