"""What API Gateway's events say of a request, the same for devices and administrators."""

from base64 import b64decode
from typing import Any, Final, Protocol

from mdmlib.errors import BodyTooLargeError, MalformedBodyError

AUTHENTICATE_HEADER: Final = "X-PicoMDM-WWW-Authenticate"
"""Carries WWW-Authenticate through API Gateway, which gives that one another name; the template makes it again."""

MAX_BODY_BYTES: Final = 4_613_734
"""4.4 MiB: in base64 with its envelope this just fits Lambda's 6 MiB."""


class GatewayEvent(Protocol):
    """An event: of devices' functions or, as powertools has it, of administrators'."""

    @property
    def raw_event(self) -> dict[str, Any]:
        """The event as Lambda was given it."""


def body_of(event: GatewayEvent) -> bytes:
    """Return a request's body, exact to the byte: signatures are over it.

    API Gateway passes text types on as text and everything else, also a missing content type and the
    ``application/x-www-form-urlencoded`` of ``curl --data``, in base64. Raises
    :class:`~mdmlib.errors.BodyTooLargeError` and, for base64 that is none, :class:`~mdmlib.errors.MalformedBodyError`.
    """
    raw = event.raw_event
    body = raw.get("body") or ""
    if raw.get("isBase64Encoded"):
        if len(body) > MAX_BODY_BYTES * 4 // 3 + 4:
            raise BodyTooLargeError("The body is larger than 4.4 MiB.")
        try:
            content = b64decode(body, validate=True)
        except ValueError as error:
            raise MalformedBodyError("The body is not base64, although the gateway says so.") from error
    else:
        content = body.encode()
    if len(content) > MAX_BODY_BYTES:
        raise BodyTooLargeError("The body is larger than 4.4 MiB.")
    return content


def headers_of(event: GatewayEvent) -> dict[str, str]:
    """Return a request's headers, names in lower case."""
    return {name.lower(): value for name, value in (event.raw_event.get("headers") or {}).items()}
