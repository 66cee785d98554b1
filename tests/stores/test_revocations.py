"""Revoked certificates: good for nothing from then on, whatever else happens at the same time."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509

from mdmlib.errors import BadRequestError, IdentityError, NotFoundError
from mdmlib.services.revocations import RevocationLists, Revocations
from mdmlib.services.scep_challenges import Purpose
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.tables import Certificate, Enrollment, RevokedCertificate
from tests.fleet import Fleet
from tests.scep_authority import HOUR, UDID, Authority, IdentifiedDevice, Interrupted
from tests.scep_client import rsa_key

BAD_CERT_ID = "4"


@pytest.fixture
def revocations(authority: Authority) -> Revocations:
    return revoking(authority)


def revoking(authority: Authority, enrollments: EnrollmentStore | None = None) -> Revocations:
    return Revocations(enrollments=enrollments or EnrollmentStore(), settings=authority.settings, now=authority.clock)


def assert_locked_out(device: IdentifiedDevice) -> None:
    with pytest.raises(IdentityError) as refused:
        device.idle()
    assert refused.value.code == "certificate_revoked"
    for message_type in ("Authenticate", "TokenUpdate", "CheckOut", "GetBootstrapToken"):
        with pytest.raises(IdentityError):
            device.checkin(message_type, Topic="x", Token=b"t", PushMagic="m")
    assert device.authority.enroll(device.renewal("another"), None).fail_info == BAD_CERT_ID


def listed(authority: Authority, name: str = "scep") -> set[int]:
    """Return the serial numbers on a CRL."""
    lists = RevocationLists(authorities=authority.authorities, now=authority.clock)
    return {entry.serial_number for entry in x509.load_der_x509_crl(lists.crl(name))}


def renew(device: IdentifiedDevice, key: str = "renewed") -> x509.Certificate:
    return device.authority.enroll(device.renewal(key), None).certificate


def test_a_device_whose_enrollment_is_revoked_is_refused_everything(
    device: IdentifiedDevice, revocations: Revocations
) -> None:
    (revoked,) = revocations.revoke_enrollment(UDID, reason="key_compromise")

    assert_locked_out(device)
    assert (revoked.name, revoked.enrollment_id, revoked.issuer) == (device.certificate.hash, UDID, "scep")
    assert int(revoked.serial_number, 16) == device.issued.serial_number
    assert device.record.expiring_shard is None, "it is not to be renewed"
    assert listed(device.authority) == {device.issued.serial_number}


def test_revoking_again_changes_nothing(device: IdentifiedDevice, revocations: Revocations) -> None:
    (first,) = revocations.revoke_enrollment(UDID, reason="key_compromise")
    device.fleet.clock.advance(hours=1)

    for again in (
        *revocations.revoke_enrollment(UDID),
        revocations.revoke_certificate(device.certificate.hash.upper(), reason="superseded"),
        revocations.revoke_serial_number(f"{device.issued.serial_number:X}"),
    ):
        assert (again.name, again.reason, again.revoked_at) == (first.name, "key_compromise", first.revoked_at)
    assert len(device.record.revoked_identities) == 1


def test_a_user_channel_is_refused_with_its_device(fleet: Fleet, revocations: Revocations) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    (revoked,) = revocations.revoke_enrollment(device.udid)

    assert not revoked.issuer, "of another CA than ours"
    assert not revoked.serial_number
    with pytest.raises(IdentityError):
        user.idle()
    with pytest.raises(BadRequestError) as refused:
        revocations.revoke_enrollment(str(user))
    assert refused.value.code == "device_channel_only"


def test_a_device_comes_back_by_enrolling_anew(device: IdentifiedDevice, revocations: Revocations) -> None:
    revocations.revoke_enrollment(UDID)

    newcomer = device.newcomer()
    newcomer.authenticate()
    newcomer.token_update()

    assert newcomer.idle() is None
    with pytest.raises(IdentityError) as refused:
        device.idle()
    assert refused.value.code == "certificate_revoked", "not even in the grace of a replaced certificate"
    assert newcomer.record.expiring_shard is not None


def test_all_that_an_enrollment_may_use_is_revoked(device: IdentifiedDevice, revocations: Revocations) -> None:
    old = device.issued
    device.client, device.issued = device.renewal(), renew(device)
    device.idle()
    waiting = renew(device, "next")

    revoked = revocations.revoke_enrollment(UDID)

    assert listed(device.authority) == {each.serial_number for each in (old, device.issued, waiting)}
    assert {item.name for item in revoked} == set(device.record.revoked_identities)
    for issued in (old, waiting, device.issued):
        device.issued = issued
        with pytest.raises(IdentityError):
            device.idle()


def test_of_two_certificates_one_may_be_revoked(device: IdentifiedDevice, revocations: Revocations) -> None:
    old = device.issued
    renewed = renew(device)
    revocations.revoke_serial_number(f"{old.serial_number:x}")

    with pytest.raises(IdentityError):
        device.idle()
    device.issued = renewed
    assert device.idle() is None
    assert device.record.identity == device.certificate.hash
    assert device.record.expiring_shard is not None, "it is to be renewed again"


def test_a_renewed_certificate_that_was_revoked_does_not_take_over(
    device: IdentifiedDevice, revocations: Revocations
) -> None:
    old, device.issued = device.issued, renew(device)
    revocations.revoke_certificate(device.certificate.hash)

    with pytest.raises(IdentityError):
        device.idle()
    device.issued = old
    assert device.idle() is None


def test_what_nobody_has_enrolled_with_yet_can_be_revoked(
    fleet: Fleet, authority: Authority, revocations: Revocations
) -> None:
    authority.link()
    device = IdentifiedDevice(fleet, UDID, authority, authority.client())
    revoked = revocations.revoke_serial_number(f"{device.issued.serial_number:x}")

    with pytest.raises(IdentityError):
        device.authenticate()
    assert fleet.enrollments.get(UDID) is None
    assert revoked.enrollment_id is None


def test_an_identity_of_over_the_air_enrollment_can_be_revoked(
    fleet: Fleet, authority: Authority, revocations: Revocations
) -> None:
    link = authority.link()
    challenge = authority.challenges.new(link, authority.clock() + HOUR, purpose=Purpose.OTA)
    issued = authority.enroll(authority.client(), challenge).certificate
    hash_ = authority.trust(issued).hash

    assert revocations.revoke_certificate(hash_).enrollment_id is None
    assert Certificate.get(tables.CERTIFICATE_PARTITION + hash_, "!").revoked_at is not None


def test_a_renewal_challenge_of_a_revoked_identity_is_refused(
    device: IdentifiedDevice, revocations: Revocations
) -> None:
    challenge = device.renewal_challenge()
    revocations.revoke_enrollment(UDID)

    client = device.authority.client(key=rsa_key("renewed"))
    assert device.authority.enroll(client, challenge).fail_info == BAD_CERT_ID
    assert device.record.renewed_identities is None


# Races


def test_a_renewal_that_meets_the_revocation_gets_nothing(device: IdentifiedDevice, revocations: Revocations) -> None:
    service = device.authority.another(Interrupted(lambda: revocations.revoke_enrollment(UDID)))
    client = device.renewal()

    assert client.read(service.pki_operation(client.request(None))).fail_info == BAD_CERT_ID
    assert device.record.renewed_identities is None


def test_a_revocation_that_meets_a_renewal_revokes_what_came_of_it(device: IdentifiedDevice) -> None:
    renewed: list[x509.Certificate] = []
    revocations = revoking(device.authority, Interrupted(lambda: renewed.append(renew(device))))

    assert len(revocations.revoke_enrollment(UDID)) == 2

    (device.issued,) = renewed
    with pytest.raises(IdentityError):
        device.idle()


def test_a_revocation_that_meets_an_enrollment_ends_it(fleet: Fleet, authority: Authority) -> None:
    authority.link()
    device = IdentifiedDevice(fleet, UDID, authority, authority.client())
    device.authenticate()
    # Revoking reads the record of the enrollment, then the device enrolls again with the same certificate.
    revocations = revoking(authority, Interrupted(device.authenticate))

    revocations.revoke_certificate(device.certificate.hash)

    with pytest.raises(IdentityError):
        device.idle()


# Who cannot be revoked, and lists


@pytest.mark.parametrize(
    "ask",
    [
        lambda revocations: revocations.revoke_enrollment("unknown"),
        lambda revocations: revocations.revoke_certificate("00" * 32),
        lambda revocations: revocations.revoke_certificate("no hash"),
        lambda revocations: revocations.revoke_serial_number("abc"),
        lambda revocations: revocations.revoke_serial_number(""),
    ],
)
def test_what_is_unknown_is_told(authority: Authority, ask: Callable[[Revocations], object]) -> None:
    with pytest.raises(NotFoundError):
        ask(revoking(authority))
    assert list(RevokedCertificate.query("revoked_certificate")) == []


def test_each_ca_has_a_list_of_its_own(device: IdentifiedDevice, revocations: Revocations) -> None:
    authority = device.authority
    authority.authorities.prepare()
    authority.authorities.activate("scep-2")
    authority.clock.advance(minutes=6)
    later = device.newcomer()
    later.authenticate()
    revocations.revoke_certificate(device.certificate.hash)
    revocations.revoke_certificate(later.certificate.hash)

    assert listed(authority, "scep") == {device.issued.serial_number}
    assert listed(authority, "scep-2") == {later.issued.serial_number}
    with pytest.raises(NotFoundError):
        listed(authority, "scep-3")


def test_a_list_is_kept_for_five_minutes(device: IdentifiedDevice, revocations: Revocations) -> None:
    lists = RevocationLists(authorities=device.authority.authorities, now=device.authority.clock)
    empty = lists.crl("scep")
    revocations.revoke_enrollment(UDID)

    assert lists.crl("scep") == empty
    device.authority.clock.advance(minutes=5)
    assert lists.crl("scep") != empty


def test_a_list_makes_no_ca(authority: Authority) -> None:
    with pytest.raises(NotFoundError):
        listed(authority)
    assert list(tables.CertificateAuthority.query("ca")) == []


def test_revocations_are_listed_page_by_page_and_forgotten_with_their_certificates(
    fleet: Fleet, authority: Authority, revocations: Revocations
) -> None:
    authority.link()
    hashes = []
    for name in ("device", "another", "third"):
        device = IdentifiedDevice(fleet, name, authority, authority.client(key=rsa_key(name)))
        hashes.append(revocations.revoke_certificate(device.certificate.hash).name)

    first = revocations.list(limit=2)
    second = revocations.list(limit=2, after=first.next_cursor or "")

    assert [item.name for item in (*first.entries, *second.entries)] == sorted(hashes)
    assert second.next_cursor is None
    (item, *_) = second.entries
    end = timedelta(days=authority.settings.identity_days + authority.settings.identity_grace_days + 1)
    assert item.ttl == int((authority.clock() + end).timestamp())


def test_a_record_does_not_remember_without_end(device: IdentifiedDevice, revocations: Revocations) -> None:
    for number in range(4):
        revocations.revoke_enrollment(UDID)
        device = IdentifiedDevice(
            device.fleet, UDID, device.authority, device.authority.client(key=rsa_key(f"device {number}"))
        )
        device.authenticate()

    revocations.revoke_enrollment(UDID)
    assert len(Enrollment.get(UDID, "!").revoked_identities) <= 2
