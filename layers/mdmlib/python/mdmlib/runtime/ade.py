"""Apple Business and School Manager."""

import os
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.apple.ade_token import AdeToken
    from mdmlib.clients.ade import AdeClient
    from mdmlib.clients.escrow_key_unlock import EscrowKeyUnlockClient
    from mdmlib.services.activation_locks import ActivationLocks
    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
    from mdmlib.services.ade_assignments import AdeAssignments
    from mdmlib.services.ade_devices import AdeDevices
    from mdmlib.services.ade_profiles import AdeProfiles
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock


@cache
def ade_servers() -> "AdeServers":
    """Return the servers of Apple Business and School Manager."""
    from mdmlib.services.ade_servers import AdeServers

    def make_client(token: "AdeToken", base_url: str) -> "AdeClient":
        from mdmlib import __version__
        from mdmlib.clients.ade import AdeClient

        return AdeClient(token, user_agent=f"PicoMDM/{__version__}", base_url=base_url)

    runtime.bind_tables()
    return AdeServers(make_client=make_client, sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def ade_profiles() -> "AdeProfiles":
    """Return what devices do when they are switched on."""
    from mdmlib.services.ade_profiles import AdeProfiles

    runtime.bind_tables()
    return AdeProfiles(servers=runtime.ade_servers(), settings=runtime.settings(), now=runtime.now)


@cache
def ade_assignment_rules() -> "AdeAssignmentRules":
    """Return the rules that say which ADE profile a device gets."""
    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules

    runtime.bind_tables()
    return AdeAssignmentRules(
        profile_uuid=lambda server, profile: runtime.ade_profiles().profile_uuid(profile, server),
        check_profile=lambda profile: runtime.ade_profiles().get(profile),
        check_server=lambda server: runtime.ade_servers().get(server),
        now=runtime.now,
    )


@cache
def ade_syncs() -> "AdeSyncs":
    """Return what reads Apple's lists of devices."""
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.services.ade_sync_runs import AdeSyncRuns
    from mdmlib.store.ade_devices import AdeDeviceStore

    runtime.bind_tables()
    return AdeSyncs(
        names=runtime.ade_servers().names,
        client_of=runtime.ade_servers().client,
        run_later=AdeSyncRuns(runtime.lambda_client, function=f"{runtime.settings().stack_name}-dep_sync").request,
        rules=runtime.ade_assignment_rules(),
        devices=AdeDeviceStore(),
        events=runtime.events(),
        now=runtime.now,
    )


@cache
def ade_assignments() -> "AdeAssignments":
    """Return what asks Apple about single devices."""
    from mdmlib.services.ade_assignments import AdeAssignments

    return AdeAssignments(servers=runtime.ade_servers(), profiles=runtime.ade_profiles())


@cache
def activation_locks() -> "ActivationLocks":
    """Return the Activation Locks that were put on devices from here."""
    import uuid

    from mdmlib.services.activation_locks import ActivationLocks

    return ActivationLocks(
        servers=runtime.ade_servers(),
        unlocking=runtime.escrow_key_unlock(),
        enrollments=runtime.enrollments(),
        events=runtime.events(),
        sealer=runtime.sealer(),
        settings=runtime.settings(),
        now=runtime.now,
        random=os.urandom,
        new_uuid=lambda: str(uuid.uuid4()).upper(),
        new_event_id=runtime.new_event_id,
    )


@cache
def ade_devices() -> "AdeDevices":
    """Return the devices in Apple's lists."""
    from mdmlib.services.ade_devices import AdeDevices
    from mdmlib.store.ade_devices import AdeDeviceStore

    return AdeDevices(devices=AdeDeviceStore(), enrollments=runtime.enrollments(), now=runtime.now)


@cache
def escrow_key_unlock() -> "EscrowKeyUnlock":
    """Return the way to Apple's service that ends Activation Locks."""
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock

    def client() -> "EscrowKeyUnlockClient":
        from mdmlib import __version__
        from mdmlib.clients.escrow_key_unlock import EscrowKeyUnlockClient

        return EscrowKeyUnlockClient(
            url=runtime.settings().escrow_key_unlock_url,
            trust_anchor=runtime.settings().apns_trust_anchor,
            user_agent=f"PicoMDM/{__version__}",
        )

    return EscrowKeyUnlock(push_certificates=runtime.push_certificates(), client=client)
