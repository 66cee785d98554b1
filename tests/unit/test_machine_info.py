"""What a device says of itself before it enrolls."""

import base64
import plistlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.machine_info import MachineInfo, decode_header
from mdmlib.apple.platforms import is_older, is_version
from mdmlib.errors import MalformedBodyError
from tests.genuine_devices import IPHONE, MAC


def info(**changes: Any) -> MachineInfo:
    return MachineInfo.decode(
        plistlib.dumps({key: value for key, value in (IPHONE | changes).items() if value is not None})
    )


def test_an_iphone_says_all_of_this() -> None:
    assert info(SOFTWARE_UPDATE_DEVICE_ID="J516sAP") == MachineInfo(
        product="iPhone15,2",
        build_version="21E236",
        os_version="17.4.1",
        serial_number="C39XK123N70M",
        udid="00008030-000A1B2C3D4E5F60",
        imei="35 978631 000000 7",
        language="en",
        can_request_software_update=True,
        software_update_device_id="J516sAP",
    )


def test_a_device_that_enrolls_its_user_says_little() -> None:
    device = MachineInfo.decode(plistlib.dumps({"PRODUCT": "iPad13,4", "VERSION": "19A240", "LANGUAGE": "en-US"}))

    assert (device.udid, device.serial_number, device.os_version) == (None, None, None)
    assert device.can_request_software_update is False


def test_a_binary_plist_will_do() -> None:
    assert MachineInfo.decode(plistlib.dumps(MAC, fmt=plistlib.FMT_BINARY)).serial_number == MAC["SERIAL"]


@pytest.mark.parametrize(
    ("product", "platform"),
    [
        ("iPhone15,2", "iOS"),
        ("iPod9,1", "iOS"),
        ("iPad13,4", "iPadOS"),
        ("MacBookPro18,3", "macOS"),
        ("Mac14,2", "macOS"),
        ("iMac21,1", "macOS"),
        ("VirtualMac2,1", "macOS"),
        ("AppleTV14,1", "tvOS"),
        ("RealityDevice14,1", "visionOS"),
        ("Watch7,1", "watchOS"),
        ("Toaster1,1", None),
    ],
)
def test_a_product_is_of_a_platform(product: str, platform: str | None) -> None:
    assert info(PRODUCT=product).platform == platform


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"PRODUCT": None}, "PRODUCT"),
        ({"PRODUCT": ""}, "PRODUCT"),
        ({"PRODUCT": 15}, "PRODUCT"),
        ({"SERIAL": b"C39XK123N70M"}, "SERIAL"),
        ({"UDID": "x" * 257}, "UDID"),
        ({"PAIRING_TOKEN": "text"}, "PAIRING_TOKEN"),
        ({"PAIRING_TOKEN": bytes(64 * 1024 + 1)}, "PAIRING_TOKEN"),
    ],
)
def test_a_key_that_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedBodyError) as malformed:
        info(**changes)
    assert malformed.value.field == field


@pytest.mark.parametrize("value", [1, "yes", None])
def test_only_true_says_that_a_device_can_be_sent_to_update(value: Any) -> None:
    assert info(MDM_CAN_REQUEST_SOFTWARE_UPDATE=value).can_request_software_update is False


def test_a_pairing_token_does_not_show() -> None:
    device = info(PAIRING_TOKEN=b"secret")

    assert device.pairing_token == b"secret"
    assert "secret" not in repr(device)


@given(st.binary(max_size=200))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        MachineInfo.decode(noise)


def test_a_header_may_be_folded() -> None:
    text = base64.b64encode(b"signed" * 50).decode()

    assert decode_header(f" {text[:70]}\r\n {text[70:]} ") == b"signed" * 50
    with pytest.raises(MalformedBodyError):
        decode_header("no base64!")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("17", "17.0.1"),
        ("17.4", "17.4.1"),
        ("9.9", "10"),
        ("17.4.1", "18"),
        ("", "1"),
        ("beta", "16"),
        ("17.4 (a)", "17.5"),
    ],
)
def test_versions_are_compared_by_their_numbers(older: str, newer: str) -> None:
    assert is_older(older, than=newer)
    assert not is_older(newer, than=older)


@pytest.mark.parametrize("pair", [("17.4", "17.4.0"), ("17", "17.0.0"), ("17.4.1 (a)", "17.4.1")])
def test_the_same_version_may_be_written_in_two_ways(pair: tuple[str, str]) -> None:
    assert not is_older(*pair)
    assert not is_older(pair[1], than=pair[0])


def test_what_a_version_looks_like() -> None:
    assert all(map(is_version, ("17", "17.4", "17.4.1", "10.15.7")))
    assert not any(map(is_version, ("", "17.", "17.4 (a)", "latest", "17.4.1.2.3", "٣")))
