"""Enrollment, tokens and leaving, as devices see them."""

import plistlib

import pytest

from mdmlib.errors import ConflictError, GoneError, IdentityError
from mdmlib.services.push_info import PushInfo
from mdmlib.store import tables
from mdmlib.store.tables import Certificate, EnrollmentSecret, Message
from tests.fleet import TOPIC, Fleet, FleetDevice


def test_an_enrollment_has_what_authenticate_and_token_update_told(fleet: Fleet) -> None:
    device = fleet.device()

    record = device.record
    assert (record.type, record.state, record.topic) == ("Device", "enrolled", TOPIC)
    assert (record.serial_number, record.os_version, record.token_update_tally) == ("C02XXXX", "15.1", 1)
    assert record.identity == device.certificate.hash
    assert PushInfo.open(record.push, fleet.sealer, str(device)) == PushInfo(token=b"token".hex(), magic="magic")
    assert fleet.bus.topics() == ["mdm.Authenticate", "mdm.TokenUpdate"]


def test_what_a_message_does_not_carry_stays_known(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate(Model="MacBookPro18,3")
    device.token_update(UnlockToken=b"unlock")
    device.authenticate(SerialNumber="", OSVersion="15.2")
    device.token_update()

    record = device.record
    assert (record.serial_number, record.model, record.os_version) == ("C02XXXX", "MacBookPro18,3", "15.2")
    unlock_token = EnrollmentSecret.get(str(device), tables.SECRET + "UnlockToken")
    assert fleet.sealer.open(unlock_token.value, place=f"{device}/s#UnlockToken") == b"unlock"


def test_authenticate_clears_the_queue_and_the_bootstrap_token(fleet: Fleet) -> None:
    device = fleet.device()
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")
    fleet.enqueue([device], "C1")

    device.authenticate(OSVersion="15.2")

    assert device.idle() is None
    device.token_update()
    assert device.idle() is None
    assert device.checkin("GetBootstrapToken") is None


def test_a_bootstrap_token_comes_back(fleet: Fleet) -> None:
    device = fleet.device()
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")

    answer = device.checkin("GetBootstrapToken")
    assert answer is not None
    assert plistlib.loads(answer) == {"BootstrapToken": b"bootstrap"}

    device.checkin("SetBootstrapToken", BootstrapToken=b"")
    assert device.checkin("GetBootstrapToken") is None


def test_a_repeated_authenticate_is_published_under_the_same_id_and_clears_nothing(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate()
    fleet.enqueue([device], "C1")
    fleet.bus.take()
    device.authenticate()
    device.authenticate()

    first, second = fleet.bus.take()
    assert first["event_id"] == second["event_id"] == device.record.authenticate_event_id
    assert device.idle() == "C1"


def test_a_repeated_token_update_keeps_its_tally_and_its_event(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate()
    fleet.bus.take()
    device.token_update()
    device.token_update()
    device.token_update(b"another token")

    first, again, second = (event["checkin_event"] | event for event in fleet.bus.take())
    assert first["event_id"] == again["event_id"]
    assert [first["token_update_tally"], again["token_update_tally"], second["token_update_tally"]] == [1, 1, 2]


def test_no_secret_of_a_check_in_is_on_the_bus_in_clear(fleet: Fleet) -> None:
    device = fleet.device()
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")

    authenticate, *secrets = (event["checkin_event"] for event in fleet.bus.take())
    assert "raw_payload" in authenticate
    for part in secrets:
        assert "raw_payload" not in part
        assert "raw_payload_sealed" in part


def test_the_last_messages_are_kept_sealed(fleet: Fleet) -> None:
    device = fleet.device()

    message = Message.get(str(device), "m#TokenUpdate")
    body = fleet.sealer.open(message.body, place=f"{device}/m#TokenUpdate")
    assert plistlib.loads(body)["PushMagic"] == "magic"


def test_a_certificate_never_serves_two_enrollments(fleet: Fleet) -> None:
    fleet.device("D1")
    thief = FleetDevice(fleet, "D2", identity="identity of D1")

    with pytest.raises(IdentityError) as refused:
        thief.authenticate()
    assert refused.value.code == "certificate_of_another_enrollment"
    assert fleet.enrollments.get("D2") is None


def test_only_the_associated_certificate_is_accepted(fleet: Fleet) -> None:
    fleet.device("D1")
    stranger = FleetDevice(fleet, "D1", identity="stranger")
    fleet.bus.take()

    for attempt in (stranger.token_update, stranger.check_out, stranger.idle):
        with pytest.raises(IdentityError):
            attempt()
    assert fleet.bus.take() == []
    with pytest.raises(Certificate.DoesNotExist):
        Certificate.get(tables.CERTIFICATE_PARTITION + stranger.certificate.hash, tables.RECORD)


def test_a_replaced_certificate_may_report_results_for_a_while_and_nothing_else(fleet: Fleet) -> None:
    device = fleet.device()
    old = FleetDevice(fleet, device.udid, identity=device.identity)
    fleet.enqueue([device], "C1")
    device.identity = "the new certificate"
    device.authenticate()
    device.token_update()
    fleet.enqueue([device], "C2")

    assert old.acknowledge("C1") is None
    for attempt in (old.token_update, old.check_out, old.idle):
        with pytest.raises(IdentityError) as refused:
            attempt()
        assert refused.value.code == "certificate_replaced"
    fleet.clock.advance(hours=25)
    with pytest.raises(IdentityError):
        old.acknowledge("C1")
    assert device.idle() == "C2"


def test_check_out_ends_the_enrollment_and_its_queue(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.bus.take()
    device.check_out()
    device.check_out()

    assert device.record.state == "checked_out"
    assert device.record.push is None
    assert fleet.bus.topics() == ["mdm.CheckOut"]
    assert device.idle() is None
    with pytest.raises(IdentityError) as refused:
        device.token_update(b"late")
    assert refused.value.code == "enrollment_ended"


def test_a_device_that_left_may_come_back(fleet: Fleet) -> None:
    device = fleet.device()
    device.check_out()
    device.authenticate()
    device.token_update()
    fleet.enqueue([device], "C1")

    assert device.record.token_update_tally == 1
    assert device.idle() == "C1"


def test_user_authenticate_is_declined_and_published(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()

    with pytest.raises(GoneError):
        device.user().checkin("UserAuthenticate")
    assert fleet.bus.topics() == ["mdm.UserAuthenticate"]


def test_a_user_channel_has_a_queue_of_its_own(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update(UserShortName="jane", UserLongName="Jane Doe")
    fleet.enqueue([user], "U1")
    fleet.enqueue([device], "D1")

    record = user.record
    assert (record.type, record.parent_id, record.user_short_name) == ("User", str(device), "jane")
    assert user.idle() == "U1"
    assert device.idle() == "D1"
    assert user.acknowledge("U1") is None


def test_a_user_channel_ends_with_its_devices_enrollment(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    fleet.enqueue([user], "U1")
    device.authenticate(OSVersion="15.2")
    device.token_update()

    assert user.idle() is None
    error = fleet.enqueue([user], "U2").targets[str(user)].command_error
    assert isinstance(error, ConflictError)

    user.token_update()
    assert user.record.token_update_tally == 1
    assert user.idle() is None, "nothing of its former life revives"
    fleet.enqueue([user], "U3")
    assert user.idle() == "U3"


def test_last_seen_is_written_at_most_once_an_hour(fleet: Fleet) -> None:
    device = fleet.device()
    enrolled = device.record.last_seen_at
    fleet.clock.advance(minutes=30)
    device.idle()
    assert device.record.last_seen_at == enrolled
    fleet.clock.advance(minutes=31)
    device.idle()
    assert device.record.last_seen_at == int(fleet.clock().timestamp())
