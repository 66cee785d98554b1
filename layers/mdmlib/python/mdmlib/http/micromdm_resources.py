"""MicroMDM's API: what administrators store: profiles, users, the push certificate."""

from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.go_fields import GoFields
from mdmlib.services.micromdm_users import User

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.push_certificates import PushCertificates
    from mdmlib.services.stored_profiles import Profile, StoredProfiles

_MAX_USERS: Final = 5_000


def put_profile(request: AdminRequest, profiles: "StoredProfiles") -> "Response[str]":
    """``PUT /v1/profiles``: store a profile under its PayloadIdentifier."""
    fields = GoFields(request.json()).within("profile")
    profiles.put(fields.text("Identifier"), fields.data("Mobileconfig"))
    return answer_micromdm(HTTPStatus.OK, {})


def list_profiles(request: AdminRequest, profiles: "StoredProfiles") -> "Response[str]":
    """``POST /v1/profiles``: all profiles, or the one of an ``id``."""
    identifier = GoFields(request.json()).text("id")
    found = [profiles.get(identifier)] if identifier else list(profiles.list())
    return answer_micromdm(HTTPStatus.OK, {"profiles": [_profile(profile) for profile in found] or None})


def delete_profiles(request: AdminRequest, profiles: "StoredProfiles") -> "Response[str]":
    """``DELETE /v1/profiles``: forget profiles. Devices keep theirs."""
    profiles.delete(GoFields(request.json()).texts("ids"))
    return answer_micromdm(HTTPStatus.OK, {})


def put_user(request: AdminRequest, users: "MicroMDMUsers") -> "Response[str]":
    """``PUT /v1/users``: store a user; one without a ``uuid`` is given one."""
    fields = GoFields(request.json()).within("user")
    user = User(
        uuid=fields.text("uuid"),
        udid=fields.text("udid"),
        user_id=fields.text("user_id"),
        user_shortname=fields.text("user_shortname"),
        user_longname=fields.text("user_longname"),
        auth_token=fields.text("auth_token"),
        password_hash=fields.data("password_hash"),
        hidden=bool(fields.flag("hidden")),
    )
    return answer_micromdm(HTTPStatus.OK, {"user": _user(users.put(user))})


def delete_users(request: AdminRequest, users: "MicroMDMUsers") -> "Response[str]":
    """``DELETE /v1/users``: forget stored users, which MicroMDM never does. Macs that have them keep them."""
    users.delete(GoFields(request.json()).texts("uuids"))
    return answer_micromdm(HTTPStatus.OK, {})


def list_users(request: AdminRequest, users: "MicroMDMUsers") -> "Response[str]":
    """``POST /v1/users``: the users, stored ones and those of user channels, all or page by page from 0."""
    fields = GoFields(request.json())
    page, per_page = fields.integer("page"), fields.integer("per_page")
    found = list(
        users.list(user_ids=frozenset(fields.texts("filter_user_id")), udids=frozenset(fields.texts("filter_udid")))
    )
    if per_page:
        found = found[page * per_page : (page + 1) * per_page]
    elif page:
        found = []
    if len(found) > _MAX_USERS:
        raise BadRequestError(
            f"There are more than {_MAX_USERS} users; ask for them with per_page and page.",
            code="too_many_users",
            field="per_page",
        )
    return answer_micromdm(HTTPStatus.OK, {"users": [_user(user) for user in found] or None})


def put_push_certificate(request: AdminRequest, push_certificates: "PushCertificates") -> "Response[str]":
    """``PUT /v1/config/certificate``: a push certificate and its key, both PEM, take the place of their topic's."""
    fields = GoFields(request.json())
    push_certificates.upload(fields.data("cert") + b"\n" + fields.data("key"))
    return answer_micromdm(HTTPStatus.OK, {})


def get_push_certificate(push_certificates: "PushCertificates") -> "Response[str]":
    """``GET /v1/config/certificate``: the push certificate, DER; of several topics the one that was uploaded last."""
    return answer_micromdm(HTTPStatus.OK, {"cert": b64encode(push_certificates.newest()).decode()})


def _profile(profile: "Profile") -> dict[str, Any]:
    mobileconfig = None if profile.mobileconfig is None else b64encode(profile.mobileconfig).decode()
    return {"Identifier": profile.identifier, "Mobileconfig": mobileconfig}


def _user(user: User) -> dict[str, Any]:
    return {
        "uuid": user.uuid,
        "udid": user.udid,
        "user_id": user.user_id,
        "user_shortname": user.user_shortname,
        "user_longname": user.user_longname,
        "auth_token": user.auth_token,
        "password_hash": b64encode(user.password_hash).decode() if user.password_hash else None,
        "hidden": user.hidden,
    }
