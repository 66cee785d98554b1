"""What issues, renews and revokes devices' identities."""

from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.certificate_authorities import CertificateAuthorities
    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.identity_renewals import IdentityRenewals
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore
    from mdmlib.services.renewal_profiles import RenewalProfiles
    from mdmlib.services.revocations import RevocationLists, Revocations
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.services.static_challenge import StaticChallenge


@cache
def renewal_profiles() -> "RenewalProfiles":
    """Return what makes the payloads of renewals."""
    from mdmlib.services.renewal_profiles import RenewalProfiles

    return RenewalProfiles(profiles=runtime.enrollment_profiles())


@cache
def identity_renewals() -> "IdentityRenewals":
    """Return what has identities renewed in time."""
    import uuid

    from mdmlib.services.command_order import CommandOrder
    from mdmlib.services.identity_renewals import IdentityRenewals

    return IdentityRenewals(
        enrollments=runtime.enrollments(),
        enqueue=runtime.enqueue_service(),
        events=runtime.events(),
        sqs_client=runtime.sqs_client,
        settings=runtime.settings(),
        now=runtime.now,
        order=CommandOrder(now=runtime.now),
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def scep_challenges() -> "ScepChallenges":
    """Return what makes SCEP challenges."""
    from mdmlib.services.scep_challenges import ScepChallenges

    return ScepChallenges(sealer=runtime.sealer(), now=runtime.now)


@cache
def certificate_authority() -> "CertificateAuthorityService":
    """Return what issues identities over SCEP."""
    from mdmlib.services.certificate_authority import CertificateAuthorityService

    return CertificateAuthorityService(
        authorities=runtime.issuing_authorities(),
        enrollments=runtime.enrollments(),
        challenges=runtime.scep_challenges(),
        static_challenge=runtime.static_challenge(),
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def static_challenge() -> "StaticChallenge":
    """Return the static SCEP challenge."""
    from mdmlib.services.static_challenge import StaticChallenge

    runtime.bind_tables()
    return StaticChallenge(sealer=runtime.sealer(), now=runtime.now)


@cache
def issuing_authorities() -> "IssuingAuthorityStore":
    """Return the deployment's own CAs."""
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore

    runtime.bind_tables()
    return IssuingAuthorityStore(sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def revocations() -> "Revocations":
    """Return what revokes certificates."""
    from mdmlib.services.revocations import Revocations

    runtime.bind_tables()
    return Revocations(enrollments=runtime.enrollments(), settings=runtime.settings(), now=runtime.now)


@cache
def revocation_lists() -> "RevocationLists":
    """Return the CRLs."""
    from mdmlib.services.revocations import RevocationLists

    return RevocationLists(authorities=runtime.issuing_authorities(), now=runtime.now)


@cache
def certificate_authorities() -> "CertificateAuthorities":
    """Return the authorities whose certificates prove identities."""
    from mdmlib.services.certificate_authorities import CertificateAuthorities

    runtime.bind_tables()
    return CertificateAuthorities(issuing=runtime.issuing_authorities(), now=runtime.now)
