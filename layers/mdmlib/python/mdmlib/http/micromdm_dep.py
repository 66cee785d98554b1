"""MicroMDM's API for Apple's device enrollment: tokens, profiles, assignments, account.

MicroMDM knows one server of Apple's. Here it is the only one that there is, or the one of the parameter ``server``
(which is ours), or ``default``.
"""

from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.event_handler import Response

from mdmlib.apple.ade_profile_keys import CERTIFICATES, FLAGS, TEXTS
from mdmlib.errors import AdeTokenMissingError, BadRequestError, NotFoundError
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.go_fields import GoFields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
    from mdmlib.services.ade_assignments import AdeAssignments
    from mdmlib.services.ade_profiles import AdeProfiles
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.ade_sync import AdeSyncs

DEFAULT: Final = "default"

_EVERY: Final = "*"

_NOT_CONFIGURED: Final = "DEP not configured yet. add a DEP token to enable DEP"
_LONGEST_CERTIFICATE: Final = 20_000
_ACCOUNT: Final = ("org_name", "org_email", "org_phone", "org_address", "org_id", "org_id_hash")
# As MicroMDM's structures have them; None is left out where it is empty.
_DEVICE: Final = ("serial_number", "model", "description", "color")
_DEVICE_IF_ANY: Final = (
    "profile_uuid",
    "profile_assign_time",
    "profile_push_time",
    "device_assigned_date",
    "device_assigned_by",
    "os",
    "device_family",
    "op_type",
    "op_date",
    "response_status",
)
_PROFILE: Final = (
    "profile_name",
    "profile_uuid",
    "url",
    "allow_pairing",
    "is_supervised",
    "is_multi_user",
    "is_mandatory",
    "await_device_configured",
    "is_mdm_removable",
    "support_phone_number",
    "auto_advance_setup",
    "support_email_address",
    "org_magic",
    "anchor_certs",
    "supervising_host_certs",
    "skip_setup_items",
    "department",
    "devices",
    "language",
    "region",
    "configuration_web_url",
    "do_not_use_profile_from_backup",
    "is_return_to_service",
)
_PROFILE_ALWAYS: Final[dict[str, Any]] = {
    "profile_name": "",
    "url": "",
    "is_mdm_removable": False,
    "org_magic": "",
    "devices": None,
}


def server_of(request: AdminRequest, servers: "AdeServers") -> str:
    """Return the name of the server that a request is about."""
    if asked := request.query.get("server"):
        return asked
    known = [info.name for info in servers.list()]
    return known[0] if len(known) == 1 else DEFAULT


def get_tokens(request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/dep-tokens``: the tokens, and the certificate that Apple's portal is to be given.

    Whoever may call this may ask Apple in the organization's name: it is how MicroMDM moves a token elsewhere.
    """
    documents = [servers.token(name).document() for name in servers.names()]
    names = ("consumer_key", "consumer_secret", "access_token", "access_secret", "access_token_expiry")
    tokens = [{name: document[name] for name in names} for document in documents]
    der = servers.portal_certificate(server_of(request, servers))
    return answer_micromdm(HTTPStatus.OK, {"dep_tokens": tokens or None, "public_key": b64encode(der).decode()})


def put_token(request: AdminRequest, servers: "AdeServers", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v1/dep-tokens``: a token's file takes the place of the former.

    That of another server in Apple's portal does so with ``force=1`` alone, which is ours.
    """
    file = GoFields(request.json()).data("p7m_content")
    force = request.query.get("force", "") not in {"", "0", "false"}
    name = server_of(request, servers)
    servers.import_file(name, file, force=force)
    syncs.nudge(name)
    return answer_micromdm(HTTPStatus.OK, {})


def get_account(request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``GET /v1/dep/account``: what Apple says of the organization."""
    account = servers.ask_account(_with_token(request, servers))
    document = {name: _text(account, name) for name in ("server_name", "server_uuid", "admin_id")}
    if facilitator := _text(account, "facilitator_id"):
        document["facilitator_id"] = facilitator
    document |= {name: _text(account, name) for name in _ACCOUNT}
    urls = [_url(each) for each in account.get("urls") or () if isinstance(each, dict)]
    return answer_micromdm(
        HTTPStatus.OK,
        {
            **document,
            "urls": urls or None,
            "org_type": _text(account, "org_type"),
            "org_version": _text(account, "org_version"),
        },
    )


def get_devices(request: AdminRequest, servers: "AdeServers", assignments: "AdeAssignments") -> "Response[str]":
    """``POST /v1/dep/devices``: what Apple knows of devices now."""
    serials = GoFields(request.json()).texts("serials")
    found = assignments.details(_with_token(request, servers), serials)
    return answer_micromdm(
        HTTPStatus.OK, {"devices": {serial: _device(serial, found[serial]) for serial in sorted(found)}}
    )


def define_profile(request: AdminRequest, servers: "AdeServers", profiles: "AdeProfiles") -> "Response[str]":
    """``PUT /v1/dep/profiles``: have Apple know a profile, and give it to the devices that it names.

    It is not stored here. A false that was sent is passed on, unlike MicroMDM's; an empty ``url`` is ours.
    """
    fields = GoFields(request.json())
    said: dict[str, Any] = {name: fields.flag(name) for name in FLAGS}
    said |= {name: fields.text(name, longest=TEXTS[name]) for name in TEXTS}
    said |= {name: fields.texts(name, longest=_LONGEST_CERTIFICATE) for name in CERTIFICATES}
    said["skip_setup_items"] = fields.texts("skip_setup_items")
    uuid, statuses = profiles.define(
        _with_token(request, servers),
        {name: value for name, value in said.items() if value not in (None, [])},
        devices=fields.texts("devices"),
        name="MicroMDM",
    )
    return answer_micromdm(HTTPStatus.OK, {"profile_uuid": uuid, "devices": dict(sorted(statuses.items()))})


def get_profile(request: AdminRequest, servers: "AdeServers") -> "Response[str]":
    """``POST /v1/dep/profiles``: a profile that Apple knows, by its ``uuid``."""
    uuid = GoFields(request.json()).text("uuid")
    profile = servers.client(_with_token(request, servers)).profile(uuid)
    document = {
        name: profile.get(name, _PROFILE_ALWAYS.get(name))
        for name in _PROFILE
        if name in _PROFILE_ALWAYS or profile.get(name) not in (None, "", [])
    }
    return answer_micromdm(HTTPStatus.OK, document)


def remove_profiles(request: AdminRequest, servers: "AdeServers", assignments: "AdeAssignments") -> "Response[str]":
    """``DELETE /v1/dep/profiles``: take their profile away from devices."""
    serials = GoFields(request.json()).texts("serials")
    outcomes = assignments.clear(_with_token(request, servers), serials)
    return answer_micromdm(HTTPStatus.OK, {"serials": dict(sorted(outcomes.statuses.items()))})


def assign_profile(request: AdminRequest, servers: "AdeServers", assignments: "AdeAssignments") -> "Response[str]":
    """``POST /v1/dep/assign``: give devices a profile, by its UUID."""
    fields = GoFields(request.json())
    outcomes = assignments.assign(
        _with_token(request, servers), fields.texts("serials"), profile_uuid=fields.text("id") or "-"
    )
    devices = dict(sorted(outcomes.statuses.items()))
    return answer_micromdm(HTTPStatus.OK, {"profile_uuid": outcomes.profile_uuid, "devices": devices})


# What MicroMDM does with devices that it hears of


def sync_now(request: AdminRequest, servers: "AdeServers", syncs: "AdeSyncs") -> "Response[str]":
    """``POST /v1/dep/syncnow``: have Apple's list of devices read now; that of each server, unless one is asked for."""
    name = _with_token(request, servers)
    for each in [name] if request.query.get("server") else servers.names():
        syncs.request(each)
    return Response(HTTPStatus.OK, body="")


def put_autoassigner(
    request: AdminRequest, servers: "AdeServers", rules: "AdeAssignmentRules", syncs: "AdeSyncs"
) -> "Response[str]":
    """``POST /v1/dep/autoassigners``: give a profile that Apple knows to all devices, those that are there as well."""
    fields = GoFields(request.json())
    _check_filter(fields)
    profile_uuid = fields.text("profile_uuid")
    if not profile_uuid:
        raise BadRequestError("profile_uuid is missing.", code="missing_field", field="profile_uuid")
    name = _with_token(request, servers)
    rules.set_assigner(name, profile_uuid)
    syncs.nudge(name)
    return answer_micromdm(HTTPStatus.OK, {})


def list_autoassigners(request: AdminRequest, servers: "AdeServers", rules: "AdeAssignmentRules") -> "Response[str]":
    """``GET /v1/dep/autoassigners``: the profile that all devices get."""
    profile_uuid = rules.assigner(_with_token(request, servers))
    found = [{"filter": _EVERY, "profile_uuid": profile_uuid}] if profile_uuid else None
    return answer_micromdm(HTTPStatus.OK, {"autoassigners": found})


def delete_autoassigner(request: AdminRequest, servers: "AdeServers", rules: "AdeAssignmentRules") -> "Response[str]":
    """``DELETE /v1/dep/autoassigners``: give it to no more devices; those that have it keep it."""
    _check_filter(GoFields(request.json()))
    rules.set_assigner(_with_token(request, servers), None)
    return answer_micromdm(HTTPStatus.OK, {})


def _check_filter(fields: GoFields) -> None:
    if fields.text("filter") != _EVERY:
        raise BadRequestError(
            'MicroMDM knows the filter "*" alone; rules (/v2/ade-assignment-rules) can be for some devices.',
            code="invalid_field",
            field="filter",
        )


def _with_token(request: AdminRequest, servers: "AdeServers") -> str:
    """Return the server's name, if Apple can be asked with it; else say what MicroMDM says then."""
    name = server_of(request, servers)
    try:
        servers.consumer_hash(name)
    except (AdeTokenMissingError, NotFoundError) as error:
        raise AdeTokenMissingError(_NOT_CONFIGURED) from error
    return name


def _url(url: "Mapping[str, Any]") -> dict[str, Any]:
    limit = url.get("limit")
    limits = limit if isinstance(limit, dict) else {}
    return {
        "uri": _text(url, "uri"),
        "http_method": url.get("http_method"),
        "limit": {"default": limits.get("default", 0), "maximum": limits.get("maximum", 0)},
    }


def _device(serial: str, device: "Mapping[str, Any]") -> dict[str, Any]:
    document = {name: _text(device, name) for name in _DEVICE} | {"serial_number": serial}
    if tag := _text(device, "asset_tag"):
        document["asset_tag"] = tag
    document["profile_status"] = _text(device, "profile_status")
    return document | {name: value for name in _DEVICE_IF_ANY if (value := _text(device, name))}


def _text(document: "Mapping[str, Any]", name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
