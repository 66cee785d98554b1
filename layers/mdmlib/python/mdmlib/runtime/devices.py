"""What answers enrolled devices."""

import os
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.auth_proxy import AuthProxy
    from mdmlib.services.checkin import CheckinService
    from mdmlib.services.connect import ConnectService
    from mdmlib.services.ddm_forwarding import DdmKeys
    from mdmlib.services.declarations import DeclarationServer
    from mdmlib.services.device_identity import DeviceIdentity
    from mdmlib.services.managed_users import ManagedUsers
    from mdmlib.services.return_to_service import ReturnToServiceProfiles
    from mdmlib.services.token_sources import TokenSources
    from mdmlib.services.tokens import Tokens


@cache
def device_identity() -> "DeviceIdentity":
    """Return what proves devices' identities."""
    from mdmlib.services.device_identity import DeviceIdentity

    runtime.bind_tables()
    return DeviceIdentity(settings=runtime.settings(), now=runtime.now)


@cache
def checkin_service() -> "CheckinService":
    """Return the service behind ``/mdm/checkin``."""
    from mdmlib.services.checkin import CheckinService

    return CheckinService(
        enrollments=runtime.enrollments(),
        events=runtime.events(),
        sweeps=runtime.sweeps(),
        users=runtime.managed_users(),
        tokens=runtime.tokens(),
        return_to_service=runtime.return_to_service_profiles(),
        declarations=runtime.declarations(),
        sealer=runtime.sealer(),
        settings=runtime.settings(),
        now=runtime.now,
        new_event_id=runtime.new_event_id,
        random=os.urandom,
    )


@cache
def managed_users() -> "ManagedUsers":
    """Return the users who may log in on Macs."""
    from mdmlib.services.managed_users import ManagedUsers

    runtime.bind_tables()
    return ManagedUsers(sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def return_to_service_profiles() -> "ReturnToServiceProfiles":
    """Return the profiles for devices that return to service."""
    from mdmlib.services.return_to_service import ReturnToServiceProfiles

    runtime.bind_tables()
    return ReturnToServiceProfiles(sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def token_sources() -> "TokenSources":
    """Return the servers of administrators that make tokens."""
    from mdmlib.services.token_sources import TokenSources

    runtime.bind_tables()
    return TokenSources(runtime.signed_http_client, sealer=runtime.sealer(), now=runtime.now)


@cache
def tokens() -> "Tokens":
    """Return the registry of token sources: an administrator's choice goes before what is built in."""
    import uuid

    from mdmlib.services.tokens import MaidTokenSource, Tokens
    from mdmlib.store.ade_servers import AdeServerStore

    runtime.bind_tables()
    return Tokens(
        runtime.token_sources(),
        MaidTokenSource(AdeServerStore(sealer=runtime.sealer()), new_id=lambda: str(uuid.uuid4())),
    )


@cache
def ddm_keys() -> "DdmKeys":
    """Return the keys that are shared with another server for declarative management."""
    from mdmlib.services.ddm_forwarding import DdmKeys

    runtime.bind_tables()
    return DdmKeys(sealer=runtime.sealer(), now=runtime.now)


@cache
def declarations() -> "DeclarationServer":
    """Return what answers declarative management: this deployment, or the server that DDM_URL names."""
    if runtime.settings().ddm_url:
        from mdmlib.services.ddm_forwarding import ForwardedDeclarations

        return ForwardedDeclarations(runtime.signed_http_client, keys=runtime.ddm_keys(), settings=runtime.settings())
    from mdmlib.services.declarations import Declarations, no_declarations

    return Declarations(events=runtime.events(), declarations_of=no_declarations, new_event_id=runtime.new_event_id)


@cache
def connect_service() -> "ConnectService":
    """Return the service behind ``/mdm/connect``."""
    from mdmlib.services.connect import ConnectService

    return ConnectService(
        enrollments=runtime.enrollments(),
        queue=runtime.command_queue(),
        events=runtime.events(),
        renewal_profiles=lambda: runtime.renewal_profiles(),  # noqa: PLW0108 - few requests need that area
        settings=runtime.settings(),
        now=runtime.now,
        new_event_id=runtime.new_event_id,
    )


@cache
def auth_proxy() -> "AuthProxy":
    """Return the authenticating proxy."""
    from mdmlib.services.auth_proxy import AuthProxy

    return AuthProxy(
        identity=runtime.device_identity(),
        enrollments=runtime.enrollments(),
        client=runtime.reverse_proxy_client,
        settings=runtime.settings(),
        now=runtime.now,
    )
