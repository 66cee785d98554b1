"""The SCEP CA against the tables: who gets an identity, how often, and who gets the same one again."""

import plistlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from local.emulator import Emulator
from mdmlib.apple.certificates import issue, new_certificate_authority
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.cms import SignerCertificate
from mdmlib.apple.identity import IdentityVerifier
from mdmlib.errors import BadRequestError, IdentityError, MalformedBodyError, UnavailableError
from mdmlib.services.associations import MAX_RENEWED
from mdmlib.services.revocations import Revocations
from mdmlib.services.static_challenge import StaticChallenge
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.tables import (
    Certificate,
    CertificateAuthority,
    EnrollmentItem,
    EnrollmentLink,
    IssuedCertificate,
    RedeemedChallenge,
)
from tests.aws_calls import DynamoDBCalls
from tests.deployment import Clock
from tests.fleet import Fleet
from tests.scep_authority import HOUR, LINK, UDID, Authority, IdentifiedDevice, Interrupted
from tests.scep_client import rsa_key

AUTHENTICATE = plistlib.dumps({"MessageType": "Authenticate", "UDID": UDID, "Topic": "com.apple.mgmt.External.x"})

BAD_ALG, BAD_MESSAGE_CHECK, BAD_REQUEST, BAD_CERT_ID = "0", "1", "2", "4"


def items(kind: type[EnrollmentItem]) -> list[Any]:
    return [item for item in EnrollmentItem.scan(consistent_read=True) if isinstance(item, kind)]


# The CA itself


def test_the_ca_is_made_once_whoever_comes_first(authority: Authority) -> None:
    environments = [authority.another() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        certificates = set(pool.map(lambda environment: environment.certificate_der(), environments))

    assert len(certificates) == 1
    assert authority.another().certificate_der() in certificates


def test_the_cas_key_is_stored_sealed(authority: Authority, aws: Emulator) -> None:
    key = authority.service.load().private_key_der()

    stored = CertificateAuthority.get("ca", "scep")

    assert stored.private_key is not None
    assert key not in bytes(stored.private_key)
    assert authority.sealer.open(stored.private_key, place="ca/scep") == key


def test_a_ca_without_its_key_issues_nothing(authority: Authority) -> None:
    CertificateAuthority("ca", "scep", certificate=authority.service.certificate_der(), created_at=1).save()

    with pytest.raises(UnavailableError):
        authority.another().load()


# Enrolling


def test_a_good_challenge_gets_an_identity(authority: Authority, clock: Clock) -> None:
    client, link = authority.client(), authority.link()

    certificate = authority.enroll(client, authority.challenge(link)).certificate

    assert certificate.public_key() == client.key.public_key()
    assert certificate.subject == client.subject
    assert certificate.not_valid_after_utc == clock() + timedelta(days=365)
    trusted = authority.trust(certificate)
    stored = Certificate.get(tables.CERTIFICATE_PARTITION + trusted.hash, tables.RECORD)
    assert stored.associated_id is None
    assert stored.link == LINK
    assert stored.not_after == trusted.not_after.timestamp()
    assert stored.ttl > stored.not_after
    assert authority.uses() == 1


def test_a_client_that_lost_the_answer_gets_the_same_certificate(authority: Authority, clock: Clock) -> None:
    authority.link(max_uses=1)
    client = authority.client()
    message = client.request(authority.challenge())
    first = authority.ask(client, message).certificate

    assert authority.ask(client, message).certificate == first
    clock.advance(hours=2)
    assert authority.ask(client, message).certificate == first
    assert authority.uses() == 1
    assert len(items(Certificate)) == len(items(RedeemedChallenge)) == len(items(IssuedCertificate)) == 1


def test_the_same_request_many_times_at_once_gets_one_certificate(authority: Authority) -> None:
    authority.link(max_uses=1)
    client = authority.client()
    message = client.request(authority.challenge())

    with ThreadPoolExecutor(4) as pool:
        certificates = set(pool.map(lambda _: authority.ask(client, message).certificate, range(4)))

    assert len(certificates) == 1
    assert authority.uses() == 1


def test_a_challenge_is_good_for_one_identity(authority: Authority) -> None:
    authority.link()
    challenge = authority.challenge()
    authority.enroll(authority.client(), challenge)

    for again in (authority.client(), authority.client(key=rsa_key("another"))):
        assert authority.enroll(again, challenge).fail_info == BAD_REQUEST

    assert authority.uses() == 1
    assert len(items(Certificate)) == 1


def test_one_challenge_in_many_hands_at_once_is_good_for_one_identity(authority: Authority) -> None:
    authority.link()
    challenge = authority.challenge()
    clients = [authority.client(key=rsa_key(name)) for name in ("device", "another", "third")]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda client: authority.enroll(client, challenge), clients))

    assert sorted(answer.status for answer in answers) == ["0", "2", "2"]
    assert authority.uses() == 1


def test_a_link_is_good_for_as_many_identities_as_it_says(authority: Authority) -> None:
    authority.link(max_uses=2)
    clients = [authority.client(key=rsa_key(name)) for name in ("device", "another", "third")]
    challenges = [authority.challenge() for _ in clients]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(authority.enroll, clients, challenges))

    assert sorted(answer.status for answer in answers) == ["0", "0", "2"]
    assert authority.uses() == 2
    assert len(items(RedeemedChallenge)) == 2


@pytest.mark.parametrize(
    "challenge",
    [None, "", "secret", "micromdm", core.UTF8String("ünïcode")],
    ids=["missing", "empty", "guessed", "of another server", "no ascii"],
)
def test_without_a_challenge_of_ours_nothing_is_issued_and_nothing_is_written(
    authority: Authority, challenge: str | core.Asn1Value | None
) -> None:
    authority.link()

    assert authority.enroll(authority.client(), challenge).fail_info == BAD_REQUEST

    assert items(EnrollmentItem) == []
    assert authority.uses() == 0


def test_an_expired_challenge_is_refused_and_nothing_is_written(authority: Authority, clock: Clock) -> None:
    authority.link()
    challenge = authority.challenge()
    clock.advance(hours=1)

    assert authority.enroll(authority.client(), challenge).fail_info == BAD_REQUEST

    assert items(EnrollmentItem) == []


@pytest.mark.parametrize("attributes", [{"revoked": True}, {"max_uses": 3, "uses": 3}], ids=["revoked", "used up"])
def test_a_challenge_of_a_link_that_is_over_is_refused(authority: Authority, attributes: dict[str, Any]) -> None:
    authority.link(**attributes)

    assert authority.enroll(authority.client(), authority.challenge()).fail_info == BAD_REQUEST

    assert items(EnrollmentItem) == []


def test_a_challenge_of_a_deleted_link_does_not_bring_the_link_back(authority: Authority) -> None:
    assert authority.enroll(authority.client(), authority.challenge()).fail_info == BAD_REQUEST

    assert list(EnrollmentLink.query("enrollment_link")) == []


def test_where_enrollment_is_open_a_challenge_needs_no_link(authority: Authority) -> None:
    challenge = authority.challenge(None)

    assert authority.enroll(authority.client(), challenge).status == "0"
    assert authority.enroll(authority.client(), challenge).fail_info == BAD_REQUEST


def test_a_transaction_id_alone_gets_nobody_elses_certificate(authority: Authority) -> None:
    authority.link()
    same = core.PrintableString("the same transaction")
    authority.enroll(authority.client(transaction_id=same), authority.challenge())

    other = authority.client(transaction_id=same, key=rsa_key("another"))

    assert authority.enroll(other, authority.challenge()).certificate.public_key() == other.key.public_key()


def test_a_client_with_one_key_and_transaction_id_for_life_enrolls_anew(authority: Authority) -> None:
    authority.link()
    client = authority.client(transaction_id=core.PrintableString("hash of the key"))
    first = authority.enroll(client, authority.challenge()).certificate

    second = authority.enroll(client, authority.challenge()).certificate

    assert second.serial_number != first.serial_number
    assert authority.uses() == 2


def test_a_weak_key_is_refused_and_the_challenge_stays_good(authority: Authority) -> None:
    authority.link()
    challenge = authority.challenge()

    assert authority.enroll(authority.client(key=rsa_key("weak", 1024)), challenge).fail_info == BAD_ALG
    assert authority.enroll(authority.client(), challenge).status == "0"


def test_a_request_that_cannot_be_decrypted_is_refused(authority: Authority) -> None:
    authority.link()
    client = authority.client(forge_ciphertext=lambda ciphertext: bytes(len(ciphertext)))

    answer = authority.enroll(client, authority.challenge())

    assert (answer.status, answer.fail_info, answer.has_content) == ("2", BAD_MESSAGE_CHECK, False)


@pytest.mark.parametrize("message_type", ["3", "18", "20", "21", "22", "99"])
def test_other_kinds_of_messages_are_refused(authority: Authority, message_type: str) -> None:
    assert authority.enroll(authority.client(message_type=message_type), "x").fail_info == BAD_REQUEST


def test_what_is_no_message_costs_no_call(authority: Authority) -> None:
    with pytest.raises(MalformedBodyError):
        authority.service.pki_operation(b"no message")

    assert list(CertificateAuthority.query("ca")) == []


# Challenges of an administrator's


STATIC = "correct horse battery staple"


@pytest.fixture
def static(authority: Authority) -> StaticChallenge:
    return StaticChallenge(sealer=authority.sealer, now=authority.clock)


def test_a_static_challenge_is_off_until_it_is_set_and_stored_sealed(
    authority: Authority, static: StaticChallenge, clock: Clock
) -> None:
    client = authority.client()
    assert authority.enroll(client, STATIC).fail_info == BAD_REQUEST
    assert items(EnrollmentItem) == []

    stored = static.set(STATIC)

    assert STATIC.encode() not in bytes(stored.challenge)
    # Running processes notice within a minute.
    assert authority.enroll(client, STATIC).fail_info == BAD_REQUEST
    clock.advance(minutes=1)
    assert authority.enroll(client, STATIC).certificate.public_key() == client.key.public_key()


def test_a_static_challenge_is_good_for_many_until_it_ends(
    authority: Authority, static: StaticChallenge, clock: Clock
) -> None:
    static.set(STATIC)
    for name in ("device", "another"):
        assert authority.enroll(authority.client(key=rsa_key(name)), STATIC).status == "0"

    static.end()
    static.end()
    clock.advance(minutes=1)
    assert authority.enroll(authority.client(key=rsa_key("third")), STATIC).fail_info == BAD_REQUEST
    assert len(items(Certificate)) == 2


@pytest.mark.parametrize("guess", ["", "correct horse", STATIC + "x", STATIC.upper(), "ünïcode challenge"])
def test_what_is_not_the_static_challenge_gets_nothing_and_nothing_is_written(
    authority: Authority, static: StaticChallenge, guess: str
) -> None:
    static.set(STATIC)

    assert authority.enroll(authority.client(), core.UTF8String(guess)).fail_info == BAD_REQUEST
    assert items(EnrollmentItem) == []


def test_whoever_guesses_costs_one_read_a_minute(authority: Authority, static: StaticChallenge) -> None:
    static.set(STATIC)
    calls = DynamoDBCalls(tables.dynamodb_client())
    client = authority.client()
    calls.take()

    for guess in ("guess", "another guess", "a third guess"):
        authority.enroll(client, guess)

    assert calls.take() == ["GetItem"]


@pytest.mark.parametrize("challenge", ["short", "x" * 256])
def test_a_static_challenge_has_to_be_a_secret(static: StaticChallenge, challenge: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        static.set(challenge)

    assert refused.value.field == "challenge"
    assert static.get() is None


def test_who_asks_again_with_the_static_challenge_gets_the_same_certificate(
    authority: Authority, static: StaticChallenge
) -> None:
    static.set(STATIC)
    client = authority.client()
    message = client.request(STATIC)

    with ThreadPoolExecutor(4) as pool:
        certificates = set(pool.map(lambda _: authority.ask(client, message).certificate, range(4)))

    assert len(certificates) == 1
    assert len(items(Certificate)) == 1


def test_a_key_whose_certificate_was_revoked_gets_none_by_the_static_challenge(
    authority: Authority, static: StaticChallenge
) -> None:
    static.set(STATIC)
    client = authority.client()
    issued = authority.enroll(client, STATIC).certificate
    revocations = Revocations(enrollments=EnrollmentStore(), settings=authority.settings, now=authority.clock)
    revocations.revoke_serial_number(f"{issued.serial_number:x}")

    assert authority.enroll(client, STATIC).fail_info == BAD_CERT_ID
    assert authority.enroll(authority.client(key=rsa_key("another")), STATIC).status == "0"


def test_a_one_time_challenge_is_good_once_and_for_its_time(authority: Authority, clock: Clock) -> None:
    challenge, expires_at = authority.challenges.new_one_time(good_for=HOUR)
    late, _ = authority.challenges.new_one_time(good_for=HOUR)
    assert expires_at == clock() + HOUR

    assert authority.enroll(authority.client(), challenge).status == "0"
    assert authority.enroll(authority.client(key=rsa_key("another")), challenge).fail_info == BAD_REQUEST
    clock.advance(hours=1)
    assert authority.enroll(authority.client(), late).fail_info == BAD_REQUEST


def test_a_one_time_challenge_for_one_device_enrolls_no_other(fleet: Fleet, authority: Authority) -> None:
    challenge, _ = authority.challenges.new_one_time(good_for=HOUR, serial_number="C02GOOD")
    device = IdentifiedDevice(fleet, UDID, authority, authority.client(), challenge=challenge)

    with pytest.raises(IdentityError):
        device.authenticate(SerialNumber="C02OTHER")
    device.authenticate(SerialNumber="C02GOOD")


# Renewing


def test_a_renewed_identity_takes_over_when_it_is_first_used(device: IdentifiedDevice) -> None:
    old = device.certificate

    device.issued = device.authority.enroll(device.renewal(), None).certificate

    assert device.issued.public_key() == rsa_key("renewed").public_key()
    associated = Certificate.get(tables.CERTIFICATE_PARTITION + device.certificate.hash, tables.RECORD)
    assert (associated.associated_id, associated.replaces) == (device.udid, old.hash)
    record = device.record
    assert (record.identity, record.renewed_identities) == (old.hash, [device.certificate.hash])

    device.token_update(b"new token")

    record = device.record
    assert record.identity == device.certificate.hash
    assert record.renewed_identities is None
    assert record.identity_not_after == device.certificate.not_after.timestamp()
    assert record.previous_identity == old.hash
    assert record.state == "enrolled"


def test_a_client_with_one_key_and_transaction_id_for_life_renews(device: IdentifiedDevice) -> None:
    for _ in range(2):
        renewal = device.client.renewal(device.issued, device.client.key, transaction_id=device.client.transaction_id)
        renewed = device.authority.enroll(renewal, None).certificate
        assert renewed.serial_number != device.issued.serial_number
        device.issued = renewed
        device.idle()
        assert device.record.identity == device.certificate.hash


def test_a_renewed_identity_keeps_its_name_whatever_the_request_says(device: IdentifiedDevice) -> None:
    somebody_else = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])

    renewed = device.authority.enroll(device.renewal(subject=somebody_else), None).certificate

    assert renewed.subject == device.issued.subject


def test_a_device_that_lost_the_renewal_gets_the_same_one(device: IdentifiedDevice) -> None:
    renewal = device.renewal()
    message = renewal.request(None)
    first = device.authority.ask(renewal, message).certificate

    assert device.authority.ask(renewal, message).certificate == first
    assert device.record.renewed_identities == [device.authority.trust(first).hash]


def test_a_device_that_lost_the_renewal_for_good_can_renew_again(device: IdentifiedDevice, clock: Clock) -> None:
    """It has nothing but the old certificate, however long it lay in a drawer."""
    device.authority.enroll(device.renewal("lost"), None)
    clock.advance(days=300)

    device.issued = device.authority.enroll(device.renewal("second try"), None).certificate

    device.token_update()
    assert device.record.identity == device.certificate.hash


def test_a_renewal_signed_by_a_renewed_identity_is_its_first_use(device: IdentifiedDevice) -> None:
    old = device.certificate
    first = device.renewal("second")
    second = device.authority.enroll(first, None).certificate
    third = device.authority.enroll(first.renewal(second, rsa_key("third")), None).certificate

    trust = device.authority.trust
    assert (device.record.identity, device.record.previous_identity) == (trust(second).hash, old.hash)
    assert device.record.renewed_identities == [trust(third).hash]
    assert device.authority.enroll(device.renewal("fourth"), None).fail_info == BAD_CERT_ID


def test_an_identity_that_was_replaced_renews_nothing(device: IdentifiedDevice) -> None:
    renewal = device.renewal("too late")
    device.issued = device.authority.enroll(device.renewal(), None).certificate
    device.idle()

    assert device.authority.enroll(renewal, None).fail_info == BAD_CERT_ID


def test_a_device_that_never_gets_an_answer_is_not_remembered_without_end(device: IdentifiedDevice) -> None:
    answers = [device.authority.enroll(device.renewal(), None).certificate for _ in range(MAX_RENEWED + 2)]

    hashes = [device.authority.trust(certificate).hash for certificate in answers]
    assert device.record.renewed_identities == hashes[2:]


def test_an_identity_of_an_uploaded_authority_is_renewed_by_ours(
    authority: Authority, fleet: Fleet, clock: Clock
) -> None:
    """As of a device that came from another server."""
    theirs = new_certificate_authority("Another Server", now=clock())
    der = theirs.certificate.public_bytes(Encoding.DER)
    CertificateAuthority("ca", "another-server", certificate=der, created_at=1).save()
    client = authority.client()
    former = issue(x509.load_der_x509_csr(client.csr(None)), ca=theirs, now=clock(), days=365)
    verified = IdentityVerifier([theirs.certificate], grace=timedelta()).verify(
        SignerCertificate(former.public_bytes(Encoding.DER)), at=clock()
    )
    fleet.checkin.receive(verified, decode_checkin(AUTHENTICATE), {})

    renewed = authority.enroll(client.renewal(former, rsa_key("renewed")), None).certificate

    assert authority.trust(renewed).hash in fleet.device(UDID, enrolled=False).record.renewed_identities


# Renewing by a profile


def test_a_profile_that_is_installed_again_gets_the_next_identity_of_its_enrollment(device: IdentifiedDevice) -> None:
    old = device.certificate
    client = device.authority.client(key=rsa_key("anew"))

    device.issued = device.authority.enroll(client, device.renewal_challenge()).certificate

    associated = Certificate.get(tables.CERTIFICATE_PARTITION + device.certificate.hash, tables.RECORD)
    assert (associated.associated_id, associated.replaces, associated.link) == (device.udid, old.hash, LINK)
    assert device.record.identity == old.hash
    device.token_update()
    assert (device.record.identity, device.record.previous_identity) == (device.certificate.hash, old.hash)
    assert device.authority.uses() == 1, "a renewal is no use of the link"


def test_a_device_that_installs_the_profile_again_and_enrolls_anew_is_let_in(device: IdentifiedDevice) -> None:
    old = device.certificate
    client = device.authority.client(key=rsa_key("anew"))
    device.issued = device.authority.enroll(client, device.renewal_challenge()).certificate

    device.authenticate()
    device.token_update()

    record = device.record
    assert (record.identity, record.previous_identity) == (device.certificate.hash, old.hash)
    assert record.renewed_identities is None


def test_a_renewal_challenge_is_good_for_one_identity(device: IdentifiedDevice) -> None:
    challenge = device.renewal_challenge()
    client = device.authority.client(key=rsa_key("anew"))
    message = client.request(challenge)
    first = device.authority.ask(client, message).certificate

    assert device.authority.ask(client, message).certificate == first
    another = device.authority.client(key=rsa_key("another"))
    assert device.authority.enroll(another, challenge).fail_info == BAD_REQUEST
    assert len(device.record.renewed_identities) == 1


def test_a_device_that_uses_its_new_identity_already_still_gets_the_answer_that_it_lost(
    device: IdentifiedDevice,
) -> None:
    client = device.authority.client(key=rsa_key("anew"))
    message = client.request(device.renewal_challenge())
    device.issued = device.authority.ask(client, message).certificate
    device.idle()

    assert device.authority.ask(client, message).certificate == device.issued


def test_a_renewal_challenge_of_an_identity_that_was_replaced_is_refused(device: IdentifiedDevice) -> None:
    challenge = device.renewal_challenge()
    device.issued = device.authority.enroll(device.renewal(), None).certificate
    device.idle()

    client = device.authority.client(key=rsa_key("anew"))
    assert device.authority.enroll(client, challenge).fail_info == BAD_CERT_ID
    assert len(items(RedeemedChallenge)) == 1, "that of its enrollment"


@pytest.mark.parametrize("end", ["checked out", "blocked"])
def test_a_renewal_challenge_of_an_enrollment_that_has_ended_is_refused(device: IdentifiedDevice, end: str) -> None:
    challenge = device.renewal_challenge()
    device.end(end)

    client = device.authority.client(key=rsa_key("anew"))
    assert device.authority.enroll(client, challenge).fail_info == BAD_CERT_ID


# Renewing nothing


def test_an_expired_identity_renews_within_its_grace_and_not_after(device: IdentifiedDevice, clock: Clock) -> None:
    clock.advance(days=365 + 29)
    renewed = device.authority.enroll(device.renewal(), None).certificate
    assert renewed.not_valid_after_utc == clock() + timedelta(days=365)

    clock.advance(days=2)
    assert device.authority.enroll(device.renewal("too late"), None).fail_info == BAD_CERT_ID


def test_an_identity_that_never_enrolled_renews_nothing(authority: Authority) -> None:
    authority.link()
    client = authority.client()
    certificate = authority.enroll(client, authority.challenge()).certificate

    assert authority.enroll(client.renewal(certificate, rsa_key("renewed")), None).fail_info == BAD_CERT_ID
    assert len(items(Certificate)) == 1


def test_a_certificate_of_another_ca_renews_nothing(device: IdentifiedDevice, clock: Clock) -> None:
    stranger = new_certificate_authority("ACME", now=clock())
    csr = x509.load_der_x509_csr(device.client.csr(None))
    foreign = issue(csr, ca=stranger, now=clock(), days=365)

    refused = device.authority.enroll(device.client.renewal(foreign, rsa_key("renewed")), None)

    assert refused.fail_info == BAD_CERT_ID


@pytest.mark.parametrize("end", ["checked out", "blocked"])
def test_an_enrollment_that_has_ended_is_not_renewed(device: IdentifiedDevice, end: str) -> None:
    device.end(end)

    assert device.authority.enroll(device.renewal(), None).fail_info == BAD_CERT_ID
    assert device.record.identity == device.certificate.hash


def test_a_new_enrollment_ends_what_the_old_identity_may_renew(device: IdentifiedDevice) -> None:
    newcomer = device.newcomer()
    newcomer.authenticate()

    assert device.authority.enroll(device.renewal(), None).fail_info == BAD_CERT_ID
    assert device.record.identity == newcomer.certificate.hash


def test_a_renewal_that_meets_a_new_enrollment_of_its_device_does_not_undo_it(device: IdentifiedDevice) -> None:
    newcomer = device.newcomer()
    service = device.authority.another(Interrupted(newcomer.authenticate))
    renewal = device.renewal()

    assert renewal.read(service.pki_operation(renewal.request(None))).fail_info == BAD_CERT_ID
    assert device.record.identity == newcomer.certificate.hash
    assert device.record.state == "authenticated"


def test_older_clients_renew_with_a_challenge_under_their_old_certificate(device: IdentifiedDevice) -> None:
    """A PKCSReq that is signed with an existing certificate, for another key: a new enrollment follows it."""
    renewal = replace(device.renewal(), message_type="19")

    assert device.authority.enroll(renewal, device.authority.challenge()).status == "0"
    assert device.authority.enroll(replace(renewal), None).fail_info == BAD_REQUEST
