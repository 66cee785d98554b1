"""Who an administrator is and whose API they speak, before any route is looked at.

Requests of the admin API are signed with SigV4, which API Gateway has checked. Those of any other API are scripts' of
MicroMDM and of the NanoMDM family, and need HTTP Basic: the user says whose script it is, the password is an API key.

Every dialect has a prefix of its own, under which nothing collides:

=====================  ==============================================
``/micromdm/…``        MicroMDM's API: ``/micromdm/v1/commands``
``/nanomdm/…``         NanoMDM's: ``/nanomdm/v1/push/{id}``
``/api/v1/nanomdm/…``  NanoHUB's: ``/api/v1/nanomdm/push/{id}``
``/api/v1/nanocmd/…``  NanoHUB's: ``/api/v1/nanocmd/inventory``
=====================  ==============================================
"""

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import PicoMDMError, UnavailableError
from mdmlib.http.admin_edge import DIALECT_HEADER, Dialect, dialect_of, refusal
from mdmlib.http.gateway import headers_of
from mdmlib.observability import log_unforeseen, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from mdmlib.services.api_keys import ApiKeys

PREFIXES: Final = {
    "/micromdm/": ("/", Dialect.MICROMDM),
    "/nanomdm/": ("/", Dialect.NANOMDM),
    "/api/v1/nanomdm/": ("/v1/", Dialect.NANOMDM),
    "/api/v1/nanocmd/": ("/v1/", Dialect.NANOMDM),
}
"""What a dialect's prefix stands for, and whose it is."""

PUBLIC_PATHS: Final = frozenset({"/version"})
"""Neither MicroMDM nor NanoMDM asks who wants to know."""


@dataclass(frozen=True)
class BasicUser:
    """A user of HTTP Basic: whose API its scripts speak, and the realm in which they know it."""

    dialect: Dialect
    realm: str


USERS: Final = {
    "micromdm": BasicUser(Dialect.MICROMDM, "micromdm"),
    "nanomdm": BasicUser(Dialect.NANOMDM, "nanomdm"),
    "nanohub": BasicUser(Dialect.NANOMDM, "NanoHUB API"),
    "nanocmd": BasicUser(Dialect.NANOMDM, "nanocmd"),
    "depserver": BasicUser(Dialect.NANODEP, "depserver"),
    "kmfddm": BasicUser(Dialect.NANOMDM, "kmfddm"),
}
_USUAL_USERS: Final = {Dialect.NANOMDM: "nanomdm", Dialect.NANODEP: "depserver"}
"""Whose scripts call a dialect's own paths."""


def resolve(
    app: "APIGatewayHttpResolver",
    event: dict[str, Any],
    context: "LambdaContext",
    *,
    admin_api_id: str,
    api_keys: "Callable[[], ApiKeys]",
) -> dict[str, Any]:
    """Answer an event: of the admin API as it is, of any other API if its password is right."""
    plain = _without_prefix(event)
    request = APIGatewayProxyEventV2(plain)
    if request.request_context.api_id != admin_api_id and request.raw_path not in PUBLIC_PATHS:
        try:
            plain = _authenticated(request, api_keys)
        except PicoMDMError as error:
            address = request.request_context.http.source_ip
            logger.warning("Administrator turned away", code=error.code, reason=error.message, source_ip=address)
            return _built(refusal(error, dialect=dialect_of(request)))
    return app.resolve(plain, context)


def _without_prefix(event: dict[str, Any]) -> dict[str, Any]:
    path = event["rawPath"]
    for prefix, (meant, dialect) in PREFIXES.items():
        if path.startswith(prefix) and not path.startswith(f"{prefix}v2/"):
            plain = meant + path.removeprefix(prefix)
            http = event["requestContext"]["http"] | {"path": plain}
            return _speaking(dialect, event) | {
                "rawPath": plain,
                "requestContext": event["requestContext"] | {"http": http},
            }
    return event


def _speaking(dialect: Dialect, event: dict[str, Any]) -> dict[str, Any]:
    return event | {"headers": headers_of(APIGatewayProxyEventV2(event)) | {DIALECT_HEADER: dialect.value}}


def _authenticated(request: APIGatewayProxyEventV2, api_keys: "Callable[[], ApiKeys]") -> dict[str, Any]:
    headers = headers_of(request)
    name, password = _credentials(headers.get("authorization", ""))
    user = USERS.get(name)
    meant = user or USERS[_USUAL_USERS.get(dialect_of(request), "micromdm")]
    address = request.request_context.http.source_ip
    try:
        api_keys().check(password, known_user=user is not None, realm=meant.realm, address=address)
    except (BotoCoreError, ClientError) as error:
        log_unforeseen("Password not checked", error)
        raise UnavailableError("The API keys cannot be read now; send the same request again in a moment.") from error
    # The device API has no log of its own: this is the one that says who did what.
    logger.info("Administrator", user=name, method=request.http_method, path=request.raw_path, source_ip=address)
    # What is secret goes no further, and a prefix counts for more than the user.
    event = request.raw_event | {"headers": {key: value for key, value in headers.items() if key != "authorization"}}
    return event if DIALECT_HEADER in headers else _speaking(meant.dialect, event)


def _credentials(header: str) -> tuple[str, bytes]:
    """Return the user and the password of an ``Authorization`` header; whatever is none of Basic's has neither."""
    scheme, _, encoded = header.partition(" ")
    try:
        content = b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        name, _, password = content.partition(b":")
        return name.decode(), password
    except ValueError:
        return "", b""


def _built(response: Any) -> dict[str, Any]:  # noqa: ANN401 - powertools' Response of any body
    headers = {name: value if isinstance(value, str) else ",".join(value) for name, value in response.headers.items()}
    return {
        "statusCode": int(response.status_code),
        "headers": headers,
        "body": response.body,
        "isBase64Encoded": False,
        "cookies": [],
    }
