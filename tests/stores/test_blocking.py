"""Blocked devices: told to un-enroll whenever they come, and only they."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from mdmlib.errors import BadRequestError, BlockedError, IdentityError, NotFoundError
from mdmlib.store.tables import Enrollment
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice

Attempt = Callable[[], object]


def attempts(device: FleetDevice) -> list[Attempt]:
    """Everything that a device says, but that it leaves."""
    return [
        device.authenticate,
        lambda: device.authenticate(OSVersion="26.2"),
        lambda: device.token_update(b"another"),
        lambda: device.checkin("SetBootstrapToken", BootstrapToken=b"t"),
        lambda: device.checkin("GetBootstrapToken"),
        lambda: device.checkin("GetToken", TokenServiceType="com.apple.maid"),
        lambda: device.checkin("ReturnToService"),
        lambda: device.checkin("DeclarativeManagement", Endpoint="tokens"),
        lambda: device.checkin("NewInIOS30"),
        device.idle,
        lambda: device.acknowledge("C1"),
        lambda: device.not_now("C1"),
    ]


def user_attempts(user: FleetDevice) -> list[Attempt]:
    return [
        user.token_update,
        lambda: user.checkin("UserAuthenticate"),
        lambda: user.checkin("DeclarativeManagement", Endpoint="tokens"),
        lambda: user.checkin("GetToken", TokenServiceType="com.apple.maid"),
        user.idle,
    ]


def test_a_blocked_device_is_refused_whatever_it_says(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    fleet.enqueue([device, user], "C1")
    fleet.blocking.block(str(device))
    before = device.record.serialize()
    fleet.bus.take()

    for attempt in [*attempts(device), *user_attempts(user)]:
        with pytest.raises(BlockedError):
            attempt()
    assert device.record.serialize() == before
    assert fleet.bus.take() == []


def test_its_neighbours_are_not(fleet: Fleet) -> None:
    device, other = fleet.device("D1"), fleet.device("D2")
    fleet.blocking.block(str(device))

    for attempt in attempts(other):
        # Nobody makes the token that one of them asks for.
        with suppress(BadRequestError):
            attempt()


def test_an_unblocked_device_goes_on_with_its_queue(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    fleet.enqueue([device, user], "C1")
    fleet.blocking.block(str(device))
    with pytest.raises(BlockedError):
        device.idle()
    fleet.enqueue([device], "C2")

    fleet.blocking.unblock(str(device))

    assert device.idle() == "C1"
    assert device.acknowledge("C1") == "C2"
    assert user.idle() == "C1"


def test_a_blocked_device_may_leave_and_not_come_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.blocking.block(str(device))
    fleet.bus.take()
    device.check_out()

    assert device.record.state == "checked_out"
    assert fleet.bus.topics() == ["mdm.CheckOut"]
    with pytest.raises(BlockedError):
        device.authenticate()
    device.identity = "a new identity"
    with pytest.raises(BlockedError):
        device.authenticate()

    fleet.blocking.unblock(str(device))
    device.authenticate()
    device.token_update()
    assert device.record.state == "enrolled"


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"ProductName": "iPhone15,2", "OSVersion": "17.0"}, True),
        ({"ProductName": "iPhone15,2", "OSVersion": "16.7"}, False),
        ({"ProductName": "MacBookPro18,3", "OSVersion": "14.0"}, True),
        ({"Model": "MacBookPro18,3", "OSVersion": "14.0"}, True),
        ({"ProductName": "MacBookPro18,3", "OSVersion": "13.6"}, False),
        ({"OSVersion": "26.0"}, False),
    ],
)
def test_how_it_is_told_depends_on_what_its_os_knows(fleet: Fleet, fields: dict[str, str], known: object) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate(**fields)
    device.token_update()
    fleet.blocking.block(str(device))

    with pytest.raises(BlockedError) as refused:
        device.idle()
    assert refused.value.knows_unrecognized_device is known


def test_an_os_that_was_updated_meanwhile_says_so_in_its_authenticate(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate(ProductName="iPhone15,2", OSVersion="16.7")
    fleet.blocking.block(str(device))

    with pytest.raises(BlockedError) as refused:
        device.authenticate(OSVersion="17.1")
    assert refused.value.knows_unrecognized_device


def test_a_stranger_does_not_hear_of_a_block(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.blocking.block(str(device))
    stranger = FleetDevice(fleet, device.udid, identity="stranger")

    for attempt in (stranger.token_update, stranger.idle, lambda: stranger.checkin("NewInIOS30")):
        with pytest.raises(IdentityError):
            attempt()


def test_a_block_and_its_end_are_published(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    fleet.blocking.block(str(device))
    fleet.blocking.block(str(device))
    fleet.blocking.unblock(str(device))

    documents = fleet.bus.take()
    assert [document["topic"] for document in documents] == [
        "mdm.DeviceBlocked",
        "mdm.DeviceBlocked",
        "mdm.DeviceUnblocked",
    ]
    for document in documents:
        assert document["device_event"] == {
            "ids": {"id": str(device), "type": "Device"},
            "enrollment_type": "Device",
            "serial_number": "C02XXXX",
        }
        assert_conforms(document)


def test_only_devices_that_are_known_are_blocked(fleet: Fleet) -> None:
    user = fleet.device().user()
    user.token_update()

    for unknown in ("UNKNOWN", "command#1", "", "x" * 3_000):
        with pytest.raises(NotFoundError):
            fleet.blocking.block(unknown)
        with pytest.raises(NotFoundError):
            fleet.blocking.unblock(unknown)
    with pytest.raises(BadRequestError) as refused:
        fleet.blocking.block(str(user))
    assert refused.value.code == "device_channel_only"
    with pytest.raises(Enrollment.DoesNotExist):
        Enrollment.get("UNKNOWN", "!")
