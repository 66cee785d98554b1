"""What hands out enrollment profiles."""

from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.access_tokens import AccessTokens
    from mdmlib.services.account_driven_enrollment import AccountDrivenEnrollment
    from mdmlib.services.ade_enrollment import AdeEnrollment
    from mdmlib.services.ade_rules import AdeSerialNumbers, MinimumOsVersions
    from mdmlib.services.device_authorities import DeviceAuthorities
    from mdmlib.services.enrollment_links import EnrollmentLinks
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.services.ota_enrollment import OtaEnrollment


@cache
def enrollment_links() -> "EnrollmentLinks":
    """Return the enrollment links."""
    from mdmlib.services.enrollment_links import EnrollmentLinks

    runtime.bind_tables()
    return EnrollmentLinks(profiles=runtime.enrollment_profiles(), settings=runtime.settings(), now=runtime.now)


@cache
def enrollment_profiles() -> "EnrollmentProfiles":
    """Return the enrollment profiles."""
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles

    runtime.bind_tables()
    return EnrollmentProfiles(
        challenges=runtime.scep_challenges(),
        push_certificates=runtime.push_certificates(),
        sealer=runtime.sealer(),
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def ota_enrollment() -> "OtaEnrollment":
    """Return the service behind over-the-air enrollment."""
    import uuid

    from mdmlib.services.ota_enrollment import TICKETS_KEY, OtaEnrollment
    from mdmlib.services.scep_challenges import ScepChallenges

    return OtaEnrollment(
        authority=runtime.certificate_authority(),
        device_authorities=runtime.device_authorities(),
        links=runtime.enrollment_links(),
        profiles=runtime.enrollment_profiles(),
        tickets=ScepChallenges(sealer=runtime.sealer(), now=runtime.now, key=TICKETS_KEY),
        settings=runtime.settings(),
        now=runtime.now,
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def access_tokens() -> "AccessTokens":
    """Return what verifies access tokens."""
    from mdmlib.services.access_tokens import AccessTokens

    return AccessTokens(runtime.signed_http_client, now=runtime.now)


@cache
def account_driven_enrollment() -> "AccountDrivenEnrollment":
    """Return the service behind account-driven enrollment."""
    from mdmlib.services.account_driven_enrollment import AccountDrivenEnrollment

    runtime.bind_tables()
    return AccountDrivenEnrollment(
        tokens=runtime.access_tokens(),
        profiles=runtime.enrollment_profiles(),
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def device_authorities() -> "DeviceAuthorities":
    """Return the authorities whose certificates are built into devices."""
    from mdmlib.services.device_authorities import DeviceAuthorities

    runtime.bind_tables()
    return DeviceAuthorities(settings=runtime.settings(), now=runtime.now)


@cache
def ade_serial_numbers() -> "AdeSerialNumbers":
    """Return the devices that may enroll by ADE."""
    from mdmlib.services.ade_rules import AdeSerialNumbers

    runtime.bind_tables()
    return AdeSerialNumbers(is_ours=lambda serial_number: runtime.ade_devices().is_ours(serial_number), now=runtime.now)


@cache
def minimum_os_versions() -> "MinimumOsVersions":
    """Return what devices have to run before they may enroll by ADE."""
    from mdmlib.services.ade_rules import MinimumOsVersions

    runtime.bind_tables()
    return MinimumOsVersions(now=runtime.now)


@cache
def ade_enrollment() -> "AdeEnrollment":
    """Return the service behind ADE's requests for a profile."""
    import uuid

    from mdmlib.services.ade_enrollment import AdeEnrollment

    return AdeEnrollment(
        authorities=runtime.device_authorities(),
        serial_numbers=runtime.ade_serial_numbers(),
        minimum_os=runtime.minimum_os_versions(),
        profiles=runtime.enrollment_profiles(),
        settings=runtime.settings(),
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )
