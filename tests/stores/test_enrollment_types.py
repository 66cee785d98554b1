"""Every kind of enrollment says every message that Apple lets it say: storage semantics are those of its channel."""

import json
import plistlib
from collections.abc import Callable
from typing import Any

import pytest

from mdmlib.errors import BadRequestError, GoneError, IdentityError
from mdmlib.store import tables
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
ENROLLMENT_ID = "E5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"

Make = Callable[[Fleet], FleetDevice]


def device(fleet: Fleet) -> FleetDevice:
    return FleetDevice(fleet, UDID)


def user_enrollment_device(fleet: Fleet) -> FleetDevice:
    return FleetDevice(fleet, ENROLLMENT_ID, is_user_enrollment=True)


def shared_ipad_device(fleet: Fleet) -> FleetDevice:
    return FleetDevice(fleet, UDID, is_shared_ipad=True)


def enrolled(device: FleetDevice) -> FleetDevice:
    device.authenticate()
    device.token_update()
    return device


DEVICES = pytest.mark.parametrize(
    ("make", "id_", "type_"),
    [
        (device, UDID, "Device"),
        (user_enrollment_device, ENROLLMENT_ID, "User Enrollment (Device)"),
        (shared_ipad_device, UDID, "Device"),
    ],
    ids=["device", "user enrollment", "shared ipad"],
)
USERS = pytest.mark.parametrize(
    ("make", "id_", "type_"),
    [
        (device, f"{UDID}:U1", "User"),
        (user_enrollment_device, f"{ENROLLMENT_ID}:U1", "User Enrollment"),
        (shared_ipad_device, f"{UDID}:U1", "Shared iPad"),
    ],
    ids=["user", "user enrollment", "shared ipad"],
)


@DEVICES
def test_a_device_channel_says_everything(fleet: Fleet, make: Make, id_: str, type_: str) -> None:
    channel = enrolled(make(fleet))
    channel.token_update(b"another", UnlockToken=b"unlock", AwaitingConfiguration=True)
    channel.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")
    assert channel.checkin("GetBootstrapToken")
    assert channel.checkin("DeclarativeManagement", Endpoint="tokens")
    channel.checkin("DeclarativeManagement", Endpoint="status", Data=b"{}")
    with pytest.raises(BadRequestError):
        channel.checkin("GetToken", TokenServiceType="com.apple.maid")
    assert channel.checkin("ReturnToService")
    channel.checkin("NewInIOS30")
    fleet.enqueue([id_], "C1")
    assert channel.idle() == "C1"
    assert channel.acknowledge("C1") is None

    record = fleet.enrollments.get(id_)
    assert record is not None
    assert (record.type, record.state) == (type_, "enrolled")
    assert record.parent_id is None
    assert (record.token_update_tally, record.awaiting_configuration) == (2, True)
    channel.check_out()
    for document in fleet.bus.take():
        if "checkin_event" in document:
            assert document["checkin_event"]["ids"] == {"id": id_, "type": type_}
            assert_conforms(document)
    assert channel.record.state == "checked_out"


@USERS
def test_a_user_channel_says_what_is_a_users(fleet: Fleet, make: Make, id_: str, type_: str) -> None:
    parent = enrolled(make(fleet))
    user = parent.user("U1")
    fleet.bus.take()
    with pytest.raises(GoneError):
        user.checkin("UserAuthenticate")
    user.token_update(UserLongName="Anna Berg", AwaitingConfiguration=True)
    assert user.checkin("DeclarativeManagement", Endpoint="declaration-items")
    user.checkin("DeclarativeManagement", Endpoint="status", Data=b"{}")
    with pytest.raises(BadRequestError) as refused:
        user.checkin("GetToken", TokenServiceType="com.apple.maid")
    assert refused.value.code == "token_service_unknown"
    user.checkin("NewInIOS30")
    fleet.enqueue([id_], "C1")
    assert parent.idle() is None
    assert user.idle() == "C1"
    assert user.acknowledge("C1") is None

    record = fleet.enrollments.get(id_)
    assert record is not None
    assert (record.type, record.state, record.parent_id) == (type_, "enrolled", str(parent))
    assert (record.user_long_name, record.awaiting_configuration) == ("Anna Berg", True)
    topics = set()
    for document in fleet.bus.take():
        topics.add(document["topic"])
        part = document.get("checkin_event") or document.get("status_event")
        if part:
            assert part["ids"] == {"id": id_, "parent_id": str(parent), "type": type_}
            assert_conforms(document)
    assert {"mdm.UserAuthenticate", "mdm.TokenUpdate", "mdm.GetToken", "ddm.StatusReport", "mdm.NewInIOS30"} <= topics


@USERS
@pytest.mark.parametrize(
    ("message_type", "fields"),
    [
        ("Authenticate", {"Topic": "com.apple.mgmt.1"}),
        ("SetBootstrapToken", {"BootstrapToken": b"t"}),
        ("GetBootstrapToken", {}),
        ("ReturnToService", {}),
    ],
)
def test_what_is_a_devices_is_refused_from_its_users(
    fleet: Fleet, make: Make, id_: str, type_: str, message_type: str, fields: dict[str, Any]
) -> None:
    user = enrolled(make(fleet)).user("U1")
    user.token_update()

    with pytest.raises(BadRequestError) as refused:
        user.checkin(message_type, **fields)
    assert refused.value.code == "device_channel_only"


@USERS
def test_a_user_channel_ends_with_its_device_and_alone(fleet: Fleet, make: Make, id_: str, type_: str) -> None:
    parent = enrolled(make(fleet))
    user, other = parent.user("U1"), parent.user("U2")
    user.token_update()
    other.token_update()

    user.check_out()
    assert user.record.state == "checked_out"
    assert parent.record.state == other.record.state == "enrolled"
    assert other.checkin("DeclarativeManagement", Endpoint="tokens")
    user.token_update(b"the next login")
    assert user.record.token_update_tally == 1

    parent.check_out()
    for channel in (user, other):
        with pytest.raises(IdentityError):
            channel.checkin("DeclarativeManagement", Endpoint="tokens")
        with pytest.raises(IdentityError):
            channel.token_update(b"late")
        assert channel.idle() is None


@USERS
def test_there_is_no_user_channel_without_its_device(fleet: Fleet, make: Make, id_: str, type_: str) -> None:
    user = make(fleet).user("U1")

    for attempt in (user.token_update, user.idle, lambda: user.checkin("UserAuthenticate"), user.check_out):
        with pytest.raises(IdentityError):
            attempt()
    assert fleet.enrollments.get(id_) is None
    assert fleet.bus.take() == []


@USERS
def test_a_user_channel_answers_with_its_devices_certificate_alone(
    fleet: Fleet, make: Make, id_: str, type_: str
) -> None:
    user = enrolled(make(fleet)).user("U1")
    user.token_update()
    user.identity = "another identity"

    for attempt in (user.token_update, user.idle, user.check_out, lambda: user.checkin("NewInIOS30")):
        with pytest.raises(IdentityError):
            attempt()
    assert tables.Enrollment.get(id_, "!").state == "enrolled"


def test_a_udid_goes_before_an_enrollment_id(fleet: Fleet) -> None:
    both = enrolled(device(fleet))
    both.checkin("DeclarativeManagement", Endpoint="tokens", EnrollmentID=ENROLLMENT_ID)
    both.checkin("NewInIOS30", EnrollmentID=ENROLLMENT_ID, EnrollmentUserID="U1")

    assert fleet.enrollments.get(ENROLLMENT_ID) is None
    assert tables.Message.get(UDID, "m#NewInIOS30")


def test_shared_ipad_users_are_told_apart_by_their_short_names(fleet: Fleet) -> None:
    parent = enrolled(shared_ipad_device(fleet))
    one, other = parent.user("anna@example.org"), parent.user("berta@example.org")
    one.token_update(b"one")
    other.token_update(b"other")
    fleet.enqueue([one], "C1")

    assert other.idle() is None
    assert one.idle() == "C1"
    assert str(one.record.enrollment_id) == f"{UDID}:anna@example.org"


def test_a_user_enrollment_tells_no_serial_number(fleet: Fleet) -> None:
    channel = user_enrollment_device(fleet)
    channel.authenticate(SerialNumber="")
    fleet.bus.take()
    channel.checkin("DeclarativeManagement", Endpoint="status", Data=json.dumps({}).encode())

    for document in fleet.bus.take():
        part = document.get("checkin_event") or document["status_event"]
        assert "serial_number" not in part
        assert_conforms(document)


def test_a_users_secrets_are_its_own(fleet: Fleet) -> None:
    parent = enrolled(shared_ipad_device(fleet))
    user = parent.user("U1")
    user.token_update(UnlockToken=b"the user's")
    parent.token_update(b"another", UnlockToken=b"the device's")

    for channel, unlock in ((user, b"the user's"), (parent, b"the device's")):
        secret = tables.EnrollmentSecret.get(str(channel), "s#UnlockToken")
        assert fleet.sealer.open(secret.value, place=f"{channel}/s#UnlockToken") == unlock
        message = tables.Message.get(str(channel), "m#TokenUpdate")
        body = fleet.sealer.open(message.body, place=f"{channel}/m#TokenUpdate")
        assert plistlib.loads(body)["UnlockToken"] == unlock
