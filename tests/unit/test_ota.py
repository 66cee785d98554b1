"""What devices are told and tell in over-the-air enrollment."""

import plistlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.ota import DeviceAttributes, profile_service
from mdmlib.errors import MalformedBodyError


def attributes(**fields: Any) -> DeviceAttributes:
    return DeviceAttributes.decode(plistlib.dumps(fields))


def test_the_first_profile_names_what_a_device_shall_tell() -> None:
    profile = plistlib.loads(
        profile_service(
            url="https://mdm.example.org/ota/phase23",
            challenge="ticket",
            identifier="org.example.enroll",
            organization="Bücher & Söhne",
            uuid="UUID",
        )
    )

    assert profile == {
        "PayloadContent": {
            "Challenge": "ticket",
            "DeviceAttributes": ["UDID", "VERSION", "PRODUCT", "SERIAL", "MEID", "IMEI"],
            "URL": "https://mdm.example.org/ota/phase23",
        },
        "PayloadDescription": "Asks Bücher & Söhne to manage this device.",
        "PayloadDisplayName": "Bücher & Söhne Enrollment",
        "PayloadIdentifier": "org.example.enroll.ota",
        "PayloadOrganization": "Bücher & Söhne",
        "PayloadType": "Profile Service",
        "PayloadUUID": "UUID",
        "PayloadVersion": 1,
    }


@pytest.mark.parametrize("challenge", ["ticket", b"ticket"])
def test_a_device_may_send_the_challenge_back_as_text_or_data(challenge: Any) -> None:
    device = attributes(CHALLENGE=challenge, SERIAL="C39XK123N70M", PRODUCT="iPhone15,2", UDID="x")

    assert (device.challenge, device.serial_number, device.product) == ("ticket", "C39XK123N70M", "iPhone15,2")
    assert "ticket" not in repr(device)


def test_what_a_device_leaves_away_is_not_known() -> None:
    assert attributes(UDID="x", SERIAL="") == DeviceAttributes(challenge=None, serial_number=None, product=None)


@pytest.mark.parametrize("fields", [{"SERIAL": 1}, {"CHALLENGE": ["x"]}, {"PRODUCT": "x" * 257}])
def test_a_key_that_is_wrong_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedBodyError) as malformed:
        attributes(**fields)
    assert malformed.value.field in fields


@given(st.binary(max_size=200))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        DeviceAttributes.decode(noise)
