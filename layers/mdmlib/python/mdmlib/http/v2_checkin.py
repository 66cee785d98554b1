"""PicoMDM's own API, ``/v2``: what devices ask for when they check in, and which of them are blocked."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, rfc3339
from mdmlib.services.enrollments import Page

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.blocking import Blocking
    from mdmlib.services.ddm_forwarding import DdmKeys
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.managed_users import ManagedUsers
    from mdmlib.services.return_to_service import ReturnToServiceProfiles
    from mdmlib.services.token_sources import TokenSources
    from mdmlib.store.tables import DdmServer, ManagedUser, RemoteTokenSource, ReturnToServiceProfile

_LONGEST_KEY: Final = 4_000
_LONGEST_URL: Final = 4_000


# Blocked devices


def block_device(
    enrollment_id: str, request: AdminRequest, blocking: "Blocking", enqueue: "EnqueueService"
) -> "Response[str]":
    """``PUT /v2/enrollments/{id}/block``: have a device un-enroll, and push it so that it comes and hears of that."""
    Fields(request.query, known=())
    blocking.block(enrollment_id)
    # One that cannot be pushed comes by itself one day; the block is there.
    enqueue.push([enrollment_id])
    return no_content()


def unblock_device(enrollment_id: str, blocking: "Blocking") -> "Response[str]":
    """``DELETE /v2/enrollments/{id}/block``: let a device come back."""
    blocking.unblock(enrollment_id)
    return no_content()


# Managed users


def put_managed_user(name: str, request: AdminRequest, users: "ManagedUsers") -> "Response[str]":
    """``PUT /v2/managed-users/{name}``: let somebody log in on Macs as a network user, with this password."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("password", "digest", "user_id"))
    user = users.put(
        name, password=fields.text("password"), digest=fields.text("digest"), user_id=fields.text("user_id")
    )
    return answer_v2(HTTPStatus.OK, _managed_user(user))


def list_managed_users(request: AdminRequest, users: "ManagedUsers") -> "Response[str]":
    """``GET /v2/managed-users``: who may log in, without what proves it."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("managed_users", Page(users.list()), _managed_user))


def delete_managed_user(name: str, users: "ManagedUsers") -> "Response[str]":
    """``DELETE /v2/managed-users/{name}``: let nobody log in as this user any more."""
    users.delete(name)
    return no_content()


# Token sources


def put_token_source(service_type: str, request: AdminRequest, sources: "TokenSources") -> "Response[str]":
    """``PUT /v2/token-sources/{service_type}``: have a server make the tokens that devices ask for by GetToken."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("url", "hmac_key"))
    source = sources.put(
        service_type,
        url=fields.required_text("url", longest=_LONGEST_URL),
        hmac_key=fields.required_text("hmac_key", longest=_LONGEST_KEY),
    )
    return answer_v2(HTTPStatus.OK, _token_source(source))


def list_token_sources(request: AdminRequest, sources: "TokenSources") -> "Response[str]":
    """``GET /v2/token-sources``: who makes which tokens, without the keys."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("token_sources", Page(sources.list()), _token_source))


def delete_token_source(service_type: str, sources: "TokenSources") -> "Response[str]":
    """``DELETE /v2/token-sources/{service_type}``: ask that server for no more tokens."""
    sources.delete(service_type)
    return no_content()


# Return to service


def put_return_to_service_profile(
    name: str, request: AdminRequest, profiles: "ReturnToServiceProfiles"
) -> "Response[str]":
    """``PUT /v2/return-to-service-profiles/{name}``: what devices install after they erased themselves.

    The body is the profile, signed or not.
    """
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _return_to_service_profile(profiles.put(name, request.body)))


def list_return_to_service_profiles(request: AdminRequest, profiles: "ReturnToServiceProfiles") -> "Response[str]":
    """``GET /v2/return-to-service-profiles``: which profiles there are."""
    Fields(request.query, known=())
    return answer_v2(
        HTTPStatus.OK, listed("return_to_service_profiles", Page(profiles.list()), _return_to_service_profile)
    )


def delete_return_to_service_profile(name: str, profiles: "ReturnToServiceProfiles") -> "Response[str]":
    """``DELETE /v2/return-to-service-profiles/{name}``: give this profile to no more devices."""
    profiles.delete(name)
    return no_content()


# Another server for declarative management


def put_ddm_keys(request: AdminRequest, keys: "DdmKeys") -> "Response[str]":
    """``PUT /v2/ddm-keys``: the keys shared with the server that the parameter DdmUrl names. Both are replaced."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("send_hmac_key", "receive_hmac_key"))
    server = keys.put(
        send_key=fields.text("send_hmac_key", longest=_LONGEST_KEY),
        receive_key=fields.text("receive_hmac_key", longest=_LONGEST_KEY),
        only_if=seen(request, _ddm_keys),
    )
    return answer_v2(HTTPStatus.OK, _ddm_keys(server))


def get_ddm_keys(request: AdminRequest, keys: "DdmKeys") -> "Response[str]":
    """``GET /v2/ddm-keys``: in which directions bodies are signed."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _ddm_keys(keys.server()))


# How things look


def _managed_user(user: "ManagedUser") -> dict[str, Any]:
    return {
        "name": user.name,
        "realm": user.realm,
        "user_id": user.user_id,
        "created_at": rfc3339(user.created_at),
    }


def _token_source(source: "RemoteTokenSource") -> dict[str, Any]:
    return {"service_type": source.name, "url": source.url, "created_at": rfc3339(source.created_at)}


def _return_to_service_profile(profile: "ReturnToServiceProfile") -> dict[str, Any]:
    return {"name": profile.name, "uploaded_at": rfc3339(profile.uploaded_at)}


def _ddm_keys(server: "DdmServer | None") -> dict[str, Any]:
    return {
        "sends_signed": server is not None and server.send_key is not None,
        "verifies_answers": server is not None and server.receive_key is not None,
    }
