"""NanoDEP's API: servers by name, their tokens, bypass codes, and its transparent proxy to Apple.

Requests and successful answers are NanoDEP's to the byte. Where it answers 500 to everything that is wrong, here the
status tells. Each GET of a certificate makes a new one there, which spoils what was uploaded in the portal; here it
does not.
"""

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aws_lambda_powertools.event_handler import Response

from mdmlib.apple.activation_lock import RAW_BYTES, BypassCode
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, PassedBack, answer_nanodep, answer_nanomdm
from mdmlib.http.fields import Fields
from mdmlib.http.gateway import body_of, headers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

    from mdmlib.apple.ade_token import AdeToken
    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.ade_sync import AdeSyncs

_COMMON_NAME: Final = "depserver"
_MAX_DAYS: Final = 36_500
_MAX_NAMES: Final = 10_000
_SAFE: Final = "/-._~!$&'()*+,;=:@"
"""What RFC 3986 lets a path have beside letters and digits."""
# Whose session it is, and who asks, is between Apple and this server.
_PASSED_ON: Final = ("accept", "accept-language", "content-type", "x-server-protocol-version")
_PASSED_BACK: Final = ("retry-after", "x-server-protocol-version")


def list_names(request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/dep_names``: the servers' names, all or those of ``dep_name``, page by page."""
    query = Fields(request.query, known=("cursor", "dep_name", "limit", "offset"))
    # What is repeated in a query comes from API Gateway in one text.
    asked = set(query.texts("dep_name", most=_MAX_NAMES) or ())
    limit, offset = query.integer("limit", least=1, most=_MAX_NAMES), query.integer("offset", least=0, most=_MAX_NAMES)
    cursor = query.text("cursor")
    if cursor is not None and offset is not None:
        raise BadRequestError("Send either cursor or offset.", code="invalid_field", field="cursor")
    names = [info.name for info in servers.list() if not asked or info.name in asked]
    names = [name for name in names if cursor is None or name > cursor][offset or 0 :]
    document: dict[str, Any] = {"dep_names": names[:limit]}
    if limit is not None and len(names) > limit:
        document["next_cursor"] = names[limit - 1]
    return answer_nanomdm(HTTPStatus.OK, document)


def get_certificate(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/tokenpki/{name}``: the certificate that Apple's portal is to be given; the server is made if need be.

    ``cn`` and ``validity_days`` are those of a new one: until its token arrives it stays the same.
    """
    query = Fields(request.query, known=("cn", "validity_days"))
    days = query.integer("validity_days", least=1, most=_MAX_DAYS)
    certificate = servers.stage_pem(
        name,
        common_name=query.text("cn", longest=64) or _COMMON_NAME,
        validity=None if days is None else timedelta(days=days),
    )
    return Response(
        HTTPStatus.OK,
        content_type="application/x-pem-file",
        body=certificate,
        headers={"Content-Disposition": f'attachment; filename="{name}.pem"'},
    )


def import_token_file(name: str, request: AdminRequest, servers: "AdeServers", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v1/tokenpki/{name}``: a token's file takes the place of the former token; with it comes the new key."""
    servers.import_file(name, request.body, force=_force(request))
    syncs.nudge(name)
    return answer_nanodep(HTTPStatus.OK, _token(servers.token(name)))


def get_token(name: str, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/tokens/{name}``: the token in clear, for who moves it elsewhere."""
    return answer_nanodep(HTTPStatus.OK, _token(servers.token(name)))


def put_token(name: str, request: AdminRequest, servers: "AdeServers", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v1/tokens/{name}``: a token that was decrypted elsewhere."""
    servers.import_document(name, request.json(), force=_force(request))
    syncs.nudge(name)
    return answer_nanodep(HTTPStatus.OK, _token(servers.token(name)))


def get_config(name: str, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/config/{name}``: where a server is asked for."""
    return answer_nanodep(HTTPStatus.OK, {"base_url": servers.base_url(name)})


def put_config(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``PUT /v1/config/{name}``: ask for it elsewhere, such as at a simulator."""
    base_url = Fields(request.json(), known=("base_url",)).text("base_url")
    servers.set_base_url(name, base_url)
    return answer_nanodep(HTTPStatus.OK, {"base_url": servers.base_url(name)})


def get_assigner(name: str, servers: "AdeServers", rules: "AdeAssignmentRules") -> "Response[str]":
    """``GET /v1/assigner/{name}``: the profile that a server's devices get."""
    servers.get(name)
    return answer_nanodep(HTTPStatus.OK, {"profile_uuid": rules.assigner(name) or ""})


def put_assigner(
    name: str, request: AdminRequest, servers: "AdeServers", rules: "AdeAssignmentRules", syncs: "AdeSyncs"
) -> "Response[str]":
    """``PUT /v1/assigner/{name}?profile_uuid=…``: give it to all of them; an empty one to none."""
    profile_uuid = Fields(request.query, known=("profile_uuid",)).text("profile_uuid")
    servers.get(name)
    rules.set_assigner(name, profile_uuid)
    syncs.nudge(name)
    return answer_nanodep(HTTPStatus.OK, {"profile_uuid": profile_uuid or ""})


def get_maid_token(
    name: str, request: AdminRequest, servers: "AdeServers", new_id: "Callable[[], str]"
) -> "Response[str]":
    """``GET /v1/maidjwt/{name}``: a token of ``com.apple.maid``; Apple is asked for the server's UUID if need be."""
    token_id = new_id()
    jwt, server_uuid = servers.maid_token(name, server_uuid=request.query.get("server_uuid"), token_id=token_id)
    return Response(
        HTTPStatus.OK,
        content_type="application/jwt",
        body=jwt.decode(),
        headers={"X-Server-Uuid": server_uuid, "X-Jwt-Jti": token_id},
    )


def get_bypass_code(request: AdminRequest, random: "Callable[[int], bytes]") -> "Response[str]":
    """``GET /v1/bypasscode``: a bypass code in all its forms: a new one, or that of ``raw`` or ``code``."""
    query = Fields(request.query, known=("code", "raw"))
    raw, code = query.text("raw"), query.text("code")
    if raw and code:
        raise BadRequestError("raw or code but not both", code="invalid_field", field="raw")
    if raw:
        try:
            made = BypassCode(bytes.fromhex(raw)[:RAW_BYTES])
        except ValueError as error:
            raise BadRequestError("raw has to be hexadecimal digits.", code="invalid_field", field="raw") from error
    else:
        made = BypassCode.from_text(code) if code else BypassCode(random(RAW_BYTES))
    return answer_nanodep(HTTPStatus.OK, {"raw": made.raw.hex(), "code": made.text, "hash": made.escrow_key})


def proxy(name: str, endpoint: str, event: "APIGatewayProxyEventV2", servers: "AdeServers") -> "Response[bytes]":
    """``/proxy/{name}/{endpoint}``: pass a request on to Apple with the server's session, and its answer back."""
    client = servers.client(name)
    query = event.raw_query_string
    path = f"/{quote(endpoint, safe=_SAFE)}" + (f"?{query}" if query else "")
    sent = {header: value for header, value in headers_of(event).items() if header in _PASSED_ON}
    answer = client.forward(event.http_method, path, body=body_of(event), headers=sent)
    return PassedBack(
        answer.status_code,
        content_type=answer.headers.get("content-type", "application/octet-stream"),
        body=answer.content,
        headers={header: value for header, value in answer.headers.items() if header in _PASSED_BACK},
    )


def _force(request: AdminRequest) -> bool:
    return Fields(request.query, known=("force",)).flag("force", default=False)


def _token(token: "AdeToken") -> dict[str, str]:
    document = token.document()
    names = ("consumer_key", "consumer_secret", "access_token", "access_secret", "access_token_expiry")
    return {name: document[name] for name in names}
