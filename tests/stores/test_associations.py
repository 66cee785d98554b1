"""Which certificate may do what for an enrollment: the rules, and every order of a renewal's events."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mdmlib.errors import IdentityError
from mdmlib.services.associations import certificate_ttl
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.store import tables
from mdmlib.store.tables import Certificate, Enrollment
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice, certificate
from tests.interruptions import after_next_read

A, B, C, D = "identity A", "identity B", "identity C", "identity D"


def associated(device: FleetDevice) -> Certificate:
    """Return what is kept of a device's certificate."""
    return Certificate.get(tables.CERTIFICATE_PARTITION + device.certificate.hash, tables.RECORD)


def under(device: FleetDevice, identity: str) -> FleetDevice:
    """Return the device as it signs with another identity."""
    return FleetDevice(device.fleet, device.udid, user_id=device.user_id, identity=identity)


def refused(action: Callable[[], object]) -> str:
    """Return the code that an action is refused with."""
    with pytest.raises(IdentityError) as refusal:
        action()
    return refusal.value.code


@pytest.fixture
def device(fleet: Fleet) -> FleetDevice:
    device = FleetDevice(fleet, "D1", identity=A)
    device.authenticate()
    device.token_update()
    return device


# Authenticate


def test_authenticate_associates_a_certificate_that_nobody_has(device: FleetDevice, clock: Clock) -> None:
    item = associated(device)

    assert item.associated_id == "D1"
    assert item.associated_at == int(clock().timestamp())
    assert item.not_after == device.certificate.not_after.timestamp()


def test_authenticate_takes_a_certificate_that_is_its_own_already(device: FleetDevice) -> None:
    device.authenticate(OSVersion="15.2")

    assert device.record.identity == device.certificate.hash


def test_authenticate_with_a_certificate_of_another_enrollment_is_refused(device: FleetDevice, fleet: Fleet) -> None:
    thief = FleetDevice(fleet, "D2", identity=A)

    assert refused(thief.authenticate) == "certificate_of_another_enrollment"
    assert fleet.enrollments.get("D2") is None
    assert associated(device).associated_id == "D1"


def test_a_certificate_of_another_enrollment_does_not_even_learn_that_a_device_is_blocked(
    device: FleetDevice, fleet: Fleet
) -> None:
    other = fleet.device("D2")
    other.record.update([Enrollment.blocked.set(True)])
    thief = under(other, A)

    assert refused(thief.authenticate) == "certificate_of_another_enrollment"


def test_a_certificate_is_remembered_for_as_long_as_any_grace_accepts_it(device: FleetDevice) -> None:
    end = device.certificate.not_after
    longest_grace = 3650 * 86_400

    assert associated(device).ttl == certificate_ttl(end) > end.timestamp() + longest_grace


def test_authenticate_copies_the_link_that_the_certificate_was_issued_under(fleet: Fleet) -> None:
    device = FleetDevice(fleet, "D1", identity=A)
    item = Certificate(tables.CERTIFICATE_PARTITION + device.certificate.hash, tables.RECORD, link="l" * 32, ttl=1)
    item.save()

    device.authenticate()

    assert device.record.link == "l" * 32
    assert associated(device).ttl == certificate_ttl(device.certificate.not_after)
    under(device, B).authenticate()
    assert device.record.link is None, "it enrolled by another way"


def test_a_certificate_that_was_issued_for_a_serial_number_enrolls_no_other_device(fleet: Fleet) -> None:
    device = FleetDevice(fleet, "D1", identity=A)
    partition = tables.CERTIFICATE_PARTITION + device.certificate.hash
    Certificate(partition, tables.RECORD, serial_hash=serial_hash("C02RIGHT")).save()

    assert refused(lambda: device.authenticate(SerialNumber="C02WRONG")) == "certificate_of_another_device"
    assert refused(lambda: device.authenticate(SerialNumber="")) == "certificate_of_another_device"
    device.authenticate(SerialNumber="C02RIGHT")


# Every other message


MESSAGES: list[Callable[[FleetDevice], object]] = [
    FleetDevice.token_update,
    FleetDevice.idle,
    FleetDevice.check_out,
    lambda device: device.acknowledge("C1"),
    lambda device: device.not_now("C1"),
    lambda device: device.checkin("GetBootstrapToken"),
    lambda device: device.user().token_update(),
    lambda device: device.user().idle(),
]
NAMES = ["TokenUpdate", "Idle", "CheckOut", "Acknowledged", "NotNow", "GetBootstrapToken", "user's", "user's Idle"]
each_message = pytest.mark.parametrize("message", MESSAGES, ids=NAMES)


@each_message
def test_any_other_message_needs_the_certificate_that_is_associated(
    device: FleetDevice, message: Callable[[FleetDevice], object]
) -> None:
    device.user().token_update()

    assert refused(lambda: message(under(device, B))) == "certificate_not_associated"
    message(device)


@each_message
def test_any_other_message_needs_an_enrollment(fleet: Fleet, message: Callable[[FleetDevice], object]) -> None:
    for setting in ("off", "on"):
        fleet.settings = replace(fleet.settings, retroactive_association=setting)
        assert refused(lambda: message(FleetDevice(fleet, "D2"))) == "unknown_enrollment"


# Retroactive association


@pytest.fixture
def migrated(device: FleetDevice) -> FleetDevice:
    """An enrollment that came from another server: nobody knows its certificate."""
    device.record.update([Enrollment.identity.remove(), Enrollment.identity_not_after.remove()])
    associated(device).delete()
    return device


@pytest.fixture
def retroactive(fleet: Fleet) -> Fleet:
    fleet.settings = replace(fleet.settings, retroactive_association="on")
    return fleet


def test_without_retroactive_association_the_first_certificate_is_refused(migrated: FleetDevice) -> None:
    assert refused(migrated.idle) == "certificate_not_associated"
    assert migrated.record.identity is None


@pytest.mark.usefixtures("retroactive")
@pytest.mark.parametrize("message", MESSAGES[:6], ids=NAMES[:6])
def test_with_retroactive_association_the_first_certificate_is_taken(
    migrated: FleetDevice, message: Callable[[FleetDevice], object]
) -> None:
    message(migrated)

    assert associated(migrated).associated_id == "D1"
    assert migrated.record.identity == migrated.certificate.hash
    assert migrated.record.identity_not_after == migrated.certificate.not_after.timestamp()


@pytest.mark.usefixtures("retroactive")
def test_retroactively_an_enrollment_gets_one_certificate_and_no_second(migrated: FleetDevice) -> None:
    migrated.idle()

    assert refused(under(migrated, B).idle) == "certificate_not_associated"


def test_retroactively_no_certificate_of_another_enrollment_is_taken(migrated: FleetDevice, retroactive: Fleet) -> None:
    other = retroactive.device("D2")

    assert refused(under(migrated, other.identity).idle) == "certificate_of_another_enrollment"
    assert migrated.record.identity is None


@pytest.mark.usefixtures("retroactive")
def test_retroactively_nothing_that_has_ended_is_revived(migrated: FleetDevice) -> None:
    migrated.record.update([Enrollment.state.set("checked_out")])

    assert refused(migrated.token_update) == "certificate_not_associated"


@pytest.mark.usefixtures("retroactive")
def test_of_two_certificates_at_once_one_is_associated(migrated: FleetDevice) -> None:
    def use(identity: str) -> str:
        try:
            under(migrated, identity).idle()
        except IdentityError as error:
            return error.code
        return "taken"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(use, (B, C)))

    assert outcomes == ["certificate_not_associated", "taken"]


# A renewal, in every order of its events


def renew(device: FleetDevice, *identities: str) -> None:
    """Let renewals of the device's identity issue certificates that it has not used yet."""
    hashes = [certificate(device.fleet, identity).hash for identity in identities]
    record = device.record
    record.update([Enrollment.renewed_identities.set([*(record.renewed_identities or []), *hashes])])


@each_message
def test_until_the_new_identity_is_used_the_old_one_may_do_everything(
    device: FleetDevice, message: Callable[[FleetDevice], object]
) -> None:
    device.user().token_update()
    renew(device, B)

    message(device)

    assert device.record.identity == device.certificate.hash


@each_message
def test_whatever_uses_the_new_identity_first_makes_it_the_enrollments(
    device: FleetDevice, message: Callable[[FleetDevice], object], clock: Clock
) -> None:
    device.user().token_update()
    renew(device, B)
    new = under(device, B)
    clock.advance(hours=1)

    message(new)

    record = device.record
    assert (record.identity, record.previous_identity) == (new.certificate.hash, device.certificate.hash)
    assert record.identity_not_after == int(new.certificate.not_after.timestamp())
    assert record.renewed_identities is None


def test_after_the_new_identity_was_used_the_old_one_reports_results_and_nothing_else(
    device: FleetDevice, fleet: Fleet, clock: Clock
) -> None:
    for uuid in ("C1", "C2"):
        fleet.enqueue([device], uuid)
    assert device.idle() == "C1"
    renew(device, B)
    assert under(device, B).idle() == "C1"

    assert device.acknowledge("C1") is None, "the result is taken, and nothing is handed out"
    assert under(device, B).idle() == "C2"
    assert refused(device.idle) == "certificate_replaced"
    assert refused(device.token_update) == "certificate_replaced"
    assert refused(device.check_out) == "certificate_replaced"
    clock.advance(hours=fleet.settings.previous_identity_hours)
    assert refused(lambda: device.acknowledge("C2")) == "certificate_not_associated"


def test_a_device_that_lost_the_answer_goes_on_with_the_old_identity_and_renews_again(device: FleetDevice) -> None:
    renew(device, B)
    device.token_update(b"another")
    renew(device, C)

    under(device, C).idle()

    assert refused(under(device, B).idle) == "certificate_not_associated"
    assert refused(device.idle) == "certificate_replaced"


def test_an_identity_whose_answer_came_late_is_used_after_a_later_one_was_asked_for(device: FleetDevice) -> None:
    renew(device, B, C)

    under(device, B).idle()
    assert device.record.renewed_identities == [under(device, C).certificate.hash]
    under(device, C).idle()

    assert device.record.identity == under(device, C).certificate.hash
    assert refused(under(device, B).idle) == "certificate_replaced"
    assert refused(device.idle) == "certificate_not_associated"


def test_a_new_enrollment_ends_what_a_renewal_has_issued(device: FleetDevice) -> None:
    renew(device, B)
    anew = under(device, D)
    anew.authenticate()

    assert refused(under(device, B).idle) == "certificate_not_associated"
    anew.token_update()
    assert (device.record.identity, device.record.previous_identity) == (
        anew.certificate.hash,
        device.certificate.hash,
    )


def test_an_enrollment_that_begins_anew_under_a_renewed_identity_has_that_one(device: FleetDevice) -> None:
    renew(device, B, C)
    anew = under(device, B)
    anew.authenticate()
    anew.token_update()

    assert device.record.identity == anew.certificate.hash
    assert device.record.renewed_identities is None
    assert refused(device.idle) == "certificate_replaced"


def test_the_old_identity_may_begin_a_new_enrollment_while_the_new_one_is_unused(device: FleetDevice) -> None:
    renew(device, B)
    device.authenticate(OSVersion="15.2")

    assert device.record.renewed_identities is None
    assert refused(under(device, B).idle) == "certificate_not_associated"


def test_what_was_noted_of_a_renewal_is_forgotten_when_it_is_over(device: FleetDevice) -> None:
    def note() -> None:
        device.record.update(
            [
                Enrollment.renewal_stage.set(30),
                Enrollment.renewal_attempts.set(2),
                Enrollment.renewal_queued_at.set(1),
            ]
        )

    def noted() -> list[object]:
        record = device.record
        return [record.renewal_stage, record.renewal_attempts, record.renewal_queued_at]

    note()
    renew(device, B)
    under(device, B).idle()
    assert noted() == [None, None, None]
    note()
    under(device, B).authenticate()
    assert noted() == [None, None, None]


def test_a_renewed_identity_that_is_used_many_times_at_once_takes_over_once(device: FleetDevice) -> None:
    renew(device, B)
    new = under(device, B)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: new.idle(), range(8))) == {None}

    assert device.record.previous_identity == device.certificate.hash


def test_a_first_use_that_meets_a_new_enrollment_is_refused(device: FleetDevice, fleet: Fleet) -> None:
    renew(device, B)
    after_next_read(under(device, D).authenticate)

    assert refused(under(device, B).token_update) == "certificate_not_associated"
    assert device.record.identity == under(device, D).certificate.hash
