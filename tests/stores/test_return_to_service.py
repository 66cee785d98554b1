"""ReturnToService: devices that go from hand to hand."""

import plistlib
from dataclasses import replace
from typing import Any

import pytest

from mdmlib.errors import BadRequestError, IdentityError, NotFoundError
from mdmlib.services.return_to_service import MAX_PROFILE_BYTES
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice

WIFI, MDM = (plistlib.dumps({"PayloadIdentifier": name, "PayloadContent": []}) for name in ("wifi", "mdm"))


def asked(device: FleetDevice) -> dict[str, Any]:
    body = device.checkin("ReturnToService")
    assert body is not None
    answer: dict[str, Any] = plistlib.loads(body)
    assert set(answer) == {"ReturnToService"}
    return dict(answer["ReturnToService"])


@pytest.fixture
def on(fleet: Fleet) -> Fleet:
    fleet.settings = replace(fleet.settings, return_to_service="on")
    return fleet


def test_nothing_is_erased_unless_told_otherwise(fleet: Fleet) -> None:
    fleet.return_to_service.put("wifi", WIFI)
    device = fleet.device()
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")
    fleet.bus.take()

    assert asked(device) == {"Enabled": False}
    (document,) = fleet.bus.take()
    assert document["topic"] == "mdm.ReturnToService"
    assert_conforms(document)


def test_a_device_gets_what_it_needs_to_come_back(on: Fleet) -> None:
    on.return_to_service.put("wifi", WIFI)
    on.return_to_service.put("mdm", MDM)
    device = on.device()
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap")

    assert asked(device) == {
        "Enabled": True,
        "WiFiProfileData": WIFI,
        "MDMProfileData": MDM,
        "BootstrapToken": b"bootstrap",
    }


def test_what_there_is_none_of_is_left_away(on: Fleet) -> None:
    assert asked(on.device()) == {"Enabled": True}


def test_only_an_enrolled_devices_own_channel_may_ask(on: Fleet) -> None:
    device = on.device()
    user = device.user()
    user.token_update()

    with pytest.raises(BadRequestError) as refused:
        user.checkin("ReturnToService")
    assert refused.value.code == "device_channel_only"
    with pytest.raises(IdentityError):
        FleetDevice(on, device.udid, identity="stranger").checkin("ReturnToService")
    device.check_out()
    with pytest.raises(IdentityError):
        device.checkin("ReturnToService")


def test_profiles_are_kept_sealed_and_forgotten(fleet: Fleet) -> None:
    fleet.return_to_service.put("wifi", plistlib.dumps({"PayloadIdentifier": "wifi", "Password": "password"}))

    (kept,) = fleet.return_to_service.list()
    assert kept.name == "wifi"
    assert b"password" not in kept.profile
    fleet.return_to_service.delete("wifi")
    assert fleet.return_to_service.list() == []
    with pytest.raises(NotFoundError):
        fleet.return_to_service.delete("wifi")


@pytest.mark.parametrize(
    ("name", "profile"),
    [("vpn", b"x"), ("", b"x"), ("wifi", b""), ("wifi", b"\x30\x82"), ("wifi", b"x" * (MAX_PROFILE_BYTES + 1))],
)
def test_a_profile_that_could_not_be_given_is_not_taken(fleet: Fleet, name: str, profile: bytes) -> None:
    with pytest.raises(BadRequestError):
        fleet.return_to_service.put(name, profile)
