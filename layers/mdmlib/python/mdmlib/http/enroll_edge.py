"""Enrollment's own corner of the device edge: SCEP's queries and content types, and pages for people.

Refusals are those of :mod:`mdmlib.http.device_edge`, except that whoever opens a link that is over sees a page
(:mod:`mdmlib.http.pages`): it is a person with a browser.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from mdmlib.apple import enrollment_profile, error_code, machine_info, scep
from mdmlib.apple.crl import MEDIA_TYPE
from mdmlib.errors import (
    BadRequestError,
    DeviceInstructedError,
    ForbiddenError,
    MalformedBodyError,
    NotFoundError,
    PicoMDMError,
    SignInRequiredError,
    UpstreamFailedError,
)
from mdmlib.http import device_edge, pages
from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from mdmlib.http.gateway import AUTHENTICATE_HEADER, body_of, headers_of
from mdmlib.observability import logger
from mdmlib.services.auth_proxy import ProxiedRequest

if TYPE_CHECKING:
    from mdmlib.clients.reverse_proxy import ForwardedAnswer
    from mdmlib.services.apps import Apps
    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.revocations import RevocationLists

_NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class ScepQuery:
    """A SCEP request over HTTP: ``message`` is what ``operation`` works on, for PKIOperation a CMS message."""

    operation: str
    message: bytes


def decode_scep(event: GatewayRequest) -> ScepQuery:
    """Read a SCEP request.

    Over POST the body is the message and ``operation`` all that counts in the query: some clients put the whole message
    there as well. Over GET it is in the query, which is read as it was sent, for the gateway's decoding loses plus
    signs. Raises :class:`~mdmlib.errors.MalformedBodyError`.
    """
    query = _query(event.raw_event.get("rawQueryString") or "")
    operation = unquote(query.get("operation", ""))
    if event.http_method == "POST":
        return ScepQuery(operation, body_of(event))
    if operation != "PKIOperation":
        # There `message` is the name of a CA, and there is only one.
        return ScepQuery(operation, b"")
    return ScepQuery(operation, scep.decode_get_message(query.get("message", "")))


def answer_scep(query: ScepQuery, authority: "CertificateAuthorityService") -> DeviceAnswer:
    """Answer GetCACaps, GetCACert, GetNextCACert and PKIOperation, in exactly the content types that clients insist on.

    Raises :class:`~mdmlib.errors.BadRequestError` for other operations, and for GetNextCACert when no CA waits.
    """
    match query.operation:
        case "GetCACaps":
            return _ok(scep.CAPABILITIES_TYPE, authority.capabilities())
        case "GetCACert":
            return _ok(scep.CA_CERTIFICATE_TYPE, authority.certificate_der())
        case "GetNextCACert":
            return _ok(scep.NEXT_CA_CERTIFICATE_TYPE, authority.next_certificate())
        case "PKIOperation":
            return _ok(scep.PKI_MESSAGE_TYPE, authority.pki_operation(query.message))
        case _:
            raise BadRequestError("SCEP: an operation that is not served.", code="scep_operation", field="operation")


def alive() -> DeviceAnswer:
    """Answer whoever only asks whether somebody answers: nothing more is told, and nothing is asked for it."""
    return DeviceAnswer(HTTPStatus.OK, "ok\n", "text/plain; charset=utf-8", _NO_STORE)


def crl(name: str, lists: "RevocationLists") -> DeviceAnswer:
    """Answer ``/crl/<CA>.crl``, which may be kept for as long as we do it ourselves."""
    try:
        signed = lists.crl(name.removesuffix(".crl"))
    except NotFoundError:
        return DeviceAnswer(HTTPStatus.NOT_FOUND)
    return DeviceAnswer(HTTPStatus.OK, content_type=MEDIA_TYPE, body=signed, headers={"Cache-Control": "max-age=300"})


def decode_machine_info(event: GatewayRequest) -> bytes | None:
    """Return the signed MachineInfo that a device sent, still to be verified; None if there is none.

    ADE posts it, a web page that leads to the profile has it in a header. Raises
    :class:`~mdmlib.errors.MalformedBodyError`.
    """
    if event.http_method == "POST" and (body := body_of(event)):
        return body
    header = headers_of(event).get(machine_info.HEADER)
    if header:
        return machine_info.decode_header(header)
    if event.http_method == "POST":
        raise MalformedBodyError("There is no MachineInfo.")
    return None


def service_discovery(document: Mapping[str, Any]) -> DeviceAnswer:
    """Answer where a device shall enroll for an account."""
    return DeviceAnswer(HTTPStatus.OK, content_type="application/json", body=json.dumps(document), headers=_NO_STORE)


def decode_proxied(event: GatewayRequest) -> ProxiedRequest:
    """Read a request for the server behind the authenticating proxy. Raises as the device edge does."""
    return ProxiedRequest(
        method=event.http_method,
        path=event.raw_path,
        query=event.raw_event.get("rawQueryString") or "",
        evidence=device_edge.decode(event).evidence,
        trace_id=event.request_id,
    )


def pass_back(answer: "ForwardedAnswer") -> DeviceAnswer:
    """Answer as the server behind the authenticating proxy did."""
    return DeviceAnswer(answer.status, answer.body, headers=answer.headers)


def repository(name: str, apps: "Apps") -> DeviceAnswer:
    """Answer ``/repo/{name}``: a manifest, or where the package lies now."""
    try:
        download = apps.download(name)
    except NotFoundError:
        return DeviceAnswer(HTTPStatus.NOT_FOUND)
    if download.url is not None:
        return DeviceAnswer(HTTPStatus.FOUND, headers={"Location": download.url} | _NO_STORE)
    return DeviceAnswer(HTTPStatus.OK, content_type="application/xml", body=download.manifest or b"", headers=_NO_STORE)


def profile(body: bytes) -> DeviceAnswer:
    """Answer with a profile, which nobody may keep: its challenge is good once."""
    return DeviceAnswer(HTTPStatus.OK, content_type=enrollment_profile.CONTENT_TYPE, body=body, headers=_NO_STORE)


def download(event: GatewayRequest, body: bytes, organization: str | None) -> DeviceAnswer:
    """Answer with a profile, or tell a person with a browser elsewhere to open the address on the device."""
    if pages.is_browser_elsewhere(headers_of(event).get("user-agent", "")):
        return pages.enroll_on_a_device(organization or "")
    return profile(body)


def register_error_handlers(app: DeviceApp) -> None:
    """Answer errors as the device edge does, and with a page that says nothing where a person may read it."""
    device_edge.register_error_handlers(app)

    @app.error_handler(DeviceInstructedError)
    def instruct(error: DeviceInstructedError) -> DeviceAnswer:
        logger.info("Device told to do something before it enrolls", code=error.code)
        body = error_code.error_body(
            error.code, description=error.message, message=error.for_people, details=error.details
        )
        return DeviceAnswer(HTTPStatus.FORBIDDEN, content_type=error_code.MEDIA_TYPE, body=body, headers=_NO_STORE)

    @app.error_handler(SignInRequiredError)
    def sign_in(error: SignInRequiredError) -> DeviceAnswer:
        logger.info("Person sent to sign in", code=error.code, reason=error.message)
        headers = {"WWW-Authenticate": error.www_authenticate, AUTHENTICATE_HEADER: error.www_authenticate}
        return DeviceAnswer(HTTPStatus.UNAUTHORIZED, headers=headers | _NO_STORE)

    @app.error_handler(UpstreamFailedError)
    def pass_nothing_back(error: UpstreamFailedError) -> DeviceAnswer:
        logger.error("Proxied request failed", code=error.code, reason=error.message)
        return DeviceAnswer(HTTPStatus.BAD_GATEWAY)

    @app.error_handler(ForbiddenError, NotFoundError)
    def turn_away(error: PicoMDMError) -> DeviceAnswer:
        status = device_edge.status_of(error)
        logger.warning("Enrollment refused", code=error.code, reason=error.message, status=int(status))
        return (pages.link_missing if error.code == "enrollment_not_open" else pages.link_unusable)(status)


def _query(raw: str) -> dict[str, str]:
    """Return the parameters, still encoded. The first of a name counts: a client may append others."""
    parameters: dict[str, str] = {}
    for pair in raw.split("&"):
        name, _, value = pair.partition("=")
        parameters.setdefault(unquote(name), value)
    return parameters


def _ok(content_type: str, body: bytes) -> DeviceAnswer:
    return DeviceAnswer(HTTPStatus.OK, content_type=content_type, body=body)
