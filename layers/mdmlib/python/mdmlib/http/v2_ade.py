"""PicoMDM's own API, ``/v2``: servers of Apple Business and School Manager, profiles, and what devices get of them."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.ade_profile_keys import KEYS
from mdmlib.errors import BadRequestError, PicoMDMError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import rfc3339
from mdmlib.services.ade_assignments import MOST
from mdmlib.services.escrow import MAX_REASON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.activation_locks import ActivationLocks, LockInfo
    from mdmlib.services.ade_assignments import AdeAssignments, DeviceOutcomes
    from mdmlib.services.ade_profiles import AdeProfiles, StoredAdeProfile
    from mdmlib.services.ade_server_info import AdeServerInfo
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.store.unchanged import OnlyIf

_LONGEST_URL: Final = 2_048
_LONGEST_CODE: Final = 64


# Servers


def list_servers(request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v2/ade-servers``: all, ordered by name."""
    Fields(request.query, known=())
    listed = [_server(info) for info in servers.list()]
    return answer_v2(HTTPStatus.OK, {"ade_servers": listed, "next_cursor": None})


def put_server(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``PUT /v2/ade-servers/{name}``: make a server, with the certificate that Apple's portal is to be given.

    One that is there stays as it is.
    """
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _server(servers.create(name)))


def get_server(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v2/ade-servers/{name}``: a server, as it is known here; Apple is not asked."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _server(servers.get(name)))


def delete_server(name: str, servers: "AdeServers") -> "Response[str]":
    """``DELETE /v2/ade-servers/{name}``: forget a server with its keys and its token."""
    servers.delete(name)
    return no_content()


def stage_certificate(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/certificate``: a new key pair, to follow the present one when its token arrives.

    Until then the same request again brings the same certificate.
    """
    if request.body.strip():
        Fields(request.json(), known=())
    servers.get(name)
    return answer_v2(HTTPStatus.CREATED, {"certificate": _pem(servers.stage(name))})


def put_token(name: str, request: AdminRequest, servers: "AdeServers", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v2/ade-servers/{name}/token``: the body is the file that Apple's portal lets people download.

    Apple's list of devices is read with it at once; nobody waits for that.
    """
    query = Fields(request.query, known=("force",))
    imported = servers.import_file(name, request.body, force=query.flag("force", default=False))
    syncs.nudge(name)
    return answer_v2(HTTPStatus.OK, _server(imported))


def get_account(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v2/ade-servers/{name}/account``: what Apple says now of the organization and the server."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, {"account": servers.ask_account(name)})


def list_beta_tokens(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v2/ade-servers/{name}/beta-tokens``: by which devices of the organization join Apple's beta programs."""
    Fields(request.query, known=())
    tokens = [
        {field: token.get(field) for field in ("title", "os", "token")} for token in servers.client(name).beta_tokens()
    ]
    return answer_v2(HTTPStatus.OK, {"beta_tokens": tokens, "next_cursor": None})


def get_discovery_url(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v2/ade-servers/{name}/account-driven-enrollment``: where Apple sends devices of the organization."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, {"service_discovery_url": servers.client(name).account_driven_url()})


def put_discovery_url(name: str, request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``PUT /v2/ade-servers/{name}/account-driven-enrollment``: where devices find their server.

    Apple leads there whoever signs in with an account of the organization, in place of the account's own domain.
    """
    Fields(request.query, known=())
    url = Fields(request.json(), known=("service_discovery_url",)).required_text(
        "service_discovery_url", longest=_LONGEST_URL
    )
    if not url.startswith("https://"):
        raise BadRequestError(
            "service_discovery_url has to begin with https://.", code="invalid_field", field="service_discovery_url"
        )
    servers.client(name).set_account_driven_url(url)
    return answer_v2(HTTPStatus.OK, {"service_discovery_url": url})


def delete_discovery_url(name: str, servers: "AdeServers") -> "Response[str]":
    """``DELETE /v2/ade-servers/{name}/account-driven-enrollment``: devices look at the account's own domain."""
    servers.client(name).set_account_driven_url(None)
    return no_content()


# Devices


def assign(name: str, request: AdminRequest, assignments: "AdeAssignments") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/assignments``: give devices a profile for their next activation.

    ``profile`` names one of ours, ``profile_uuid`` any that Apple knows.
    """
    fields = Fields(request.json(), known=("profile", "profile_uuid", "serial_numbers"))
    profile, profile_uuid = fields.text("profile"), fields.text("profile_uuid")
    if bool(profile) == bool(profile_uuid):
        raise BadRequestError("Send either profile or profile_uuid.", code="invalid_field", field="profile")
    devices = fields.texts("serial_numbers", most=MOST) or []
    return _outcomes(assignments.assign(name, devices, profile=profile, profile_uuid=profile_uuid))


def unassign(name: str, request: AdminRequest, assignments: "AdeAssignments") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/unassignments``: take their profile away from devices."""
    fields = Fields(request.json(), known=("serial_numbers",))
    return _outcomes(assignments.clear(name, fields.texts("serial_numbers", most=MOST) or []))


def disown(name: str, request: AdminRequest, assignments: "AdeAssignments") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/disownments``: let devices leave the organization for ever.

    It cannot be undone from here or in Apple's portal, so ``confirm`` has to be true.
    """
    fields = Fields(request.json(), known=("confirm", "serial_numbers"))
    devices = fields.texts("serial_numbers", most=MOST) or []
    if not fields.flag("confirm", default=False):
        raise BadRequestError(
            f"Disowning {len(devices)} devices cannot be undone: only Apple or a seller can bring them back. If that "
            "is what you want, send confirm: true.",
            code="not_confirmed",
            field="confirm",
        )
    return _outcomes(assignments.disown(name, devices))


def lock(name: str, request: AdminRequest, locks: "ActivationLocks") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/activation-locks``: lock a device that is lost, or has left, through Apple.

    The answer has the code that ends the lock, which is kept.
    """
    fields = Fields(request.json(), known=("lost_message", "serial_number"))
    serial_number = fields.required_text("serial_number")
    locked = locks.lock(name, serial_number, lost_message=fields.text("lost_message"), who=request.caller)
    return answer_v2(HTTPStatus.CREATED, _lock(locked))


def get_lock(serial_number: str, request: AdminRequest, locks: "ActivationLocks") -> "Response[str]":
    """``GET /v2/activation-locks/{serial_number}``: the code that ends a lock that was put on from here.

    Who reads it, and the ``reason`` if they say one, is published first.
    """
    reason = Fields(request.query, known=("reason",)).text("reason", longest=MAX_REASON)
    return answer_v2(HTTPStatus.OK, _lock(locks.get(serial_number, who=request.caller, why=reason)))


def delete_lock(serial_number: str, locks: "ActivationLocks") -> "Response[str]":
    """``DELETE /v2/activation-locks/{serial_number}``: forget the code. The device stays as it is."""
    locks.forget(serial_number)
    return no_content()


def unlock(serial_number: str, request: AdminRequest, locks: "ActivationLocks") -> "Response[str]":
    """``POST /v2/activation-locks/{serial_number}/unlock``: have Apple end a lock that was put on from here.

    With ``bypass_code``, the device's own, also one that a person has put on.
    """
    known = ("bypass_code", "product_type", "topic")
    fields = Fields(request.json() if request.body.strip() else {}, known=known)
    answer = locks.unlock(
        serial_number,
        bypass_code=fields.text("bypass_code", longest=_LONGEST_CODE),
        topic=fields.text("topic"),
        product_type=fields.text("product_type"),
    )
    document = {
        "serial_number": serial_number.upper(),
        "unlocked": answer.status < HTTPStatus.MULTIPLE_CHOICES,
        "apple_status": answer.status,
        "apple_answer": answer.body.decode(errors="replace")[:1_000],
    }
    return answer_v2(HTTPStatus.OK, document)


# Profiles


def list_profiles(request: AdminRequest, profiles: "AdeProfiles") -> "Response[str]":
    """``GET /v2/ade-profiles``: all, ordered by name."""
    Fields(request.query, known=())
    listed = [_profile(stored) for stored in profiles.list()]
    return answer_v2(HTTPStatus.OK, {"ade_profiles": listed, "next_cursor": None})


def put_profile(name: str, request: AdminRequest, profiles: "AdeProfiles", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v2/ade-profiles/{name}``: what devices do when they are switched on, under Apple's keys.

    What is left out is filled in: above all the ``url``, where devices get their enrollment profile. With
    ``allow_unknown`` panes may be skipped that this release has not heard of. Devices whose rules want the profile get
    it anew; nobody waits for that.
    """
    query = Fields(request.query, known=("allow_unknown",))
    document = request.json()
    Fields(document, known=KEYS)
    stored = profiles.put(
        name,
        document,
        unknown_skip_items=query.flag("allow_unknown", default=False),
        only_if=_profile_seen(request),
    )
    syncs.nudge()
    return answer_v2(HTTPStatus.OK, _profile(stored))


def get_profile(name: str, request: AdminRequest, profiles: "AdeProfiles") -> "Response[str]":
    """``GET /v2/ade-profiles/{name}``."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _profile(profiles.get(name)))


def delete_profile(name: str, request: AdminRequest, profiles: "AdeProfiles") -> "Response[str]":
    """``DELETE /v2/ade-profiles/{name}``: forget a profile. Devices that have it keep it."""
    profiles.delete(name, only_if=_profile_seen(request))
    return no_content()


def _profile_seen(request: AdminRequest) -> "OnlyIf[StoredAdeProfile | None] | None":
    return seen(request, lambda stored: _profile(stored) if stored else None)


# How things look


def _server(info: "AdeServerInfo") -> dict[str, Any]:
    return {
        "name": info.name,
        "server_uuid": info.server_uuid,
        "account": info.account,
        "account_asked_at": _time(info.account_asked_at),
        "problem": info.problem,
        "token_expires_at": _time(info.token_expires_at),
        "token_imported_at": _time(info.token_imported_at),
        "certificate": _pem(info.certificate),
        "staged_certificate": _pem(info.staged_certificate),
        "base_url": info.base_url,
        "created_at": _time(info.created_at),
    }


def _profile(stored: "StoredAdeProfile") -> dict[str, Any]:
    return {
        "name": stored.name,
        "profile": stored.document,
        "apple_profile": stored.apple_document,
        "changed_at": _time(stored.changed_at),
        "definitions": [
            {
                "server": each.server,
                "profile_uuid": each.profile_uuid,
                "defined_at": _time(each.defined_at),
                "current": each.is_current,
            }
            for each in stored.definitions
        ],
        "problems": [{"server": server, **_problem(error)} for server, error in stored.problems.items()],
    }


def _outcomes(outcomes: "DeviceOutcomes") -> "Response[str]":
    document: Mapping[str, Any] = {
        "profile_uuid": outcomes.profile_uuid,
        "devices": dict(outcomes.statuses),
        "retry_after_seconds": outcomes.retry_after_seconds,
        "problem": _problem(outcomes.problem) if outcomes.problem else None,
    }
    return answer_v2(HTTPStatus.OK, document)


def _lock(info: "LockInfo") -> dict[str, Any]:
    return {
        "serial_number": info.serial_number,
        "server": info.server,
        "response_status": info.status,
        "bypass_code": info.bypass_code,
        "locked_at": _time(info.locked_at),
        "unlocked_at": _time(info.unlocked_at),
    }


def _problem(error: PicoMDMError) -> dict[str, str]:
    return {"code": error.code, "detail": error.message}


def _time(at: "datetime | None") -> str | None:
    return rfc3339(None if at is None else at.timestamp())


def _pem(certificate: x509.Certificate | None) -> str | None:
    return None if certificate is None else certificate.public_bytes(Encoding.PEM).decode()
