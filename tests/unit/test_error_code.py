"""Errors that a device understands."""

import json

import pytest

from mdmlib.apple.error_code import UNRECOGNIZED_DEVICE, error_body, knows_unrecognized_device


@pytest.mark.parametrize(
    ("product", "os_version"),
    [
        ("iPhone15,2", "17.0"),
        ("iPhone15,2", "18.1.1"),
        ("iPad13,8", "17"),
        ("iPod9,1", "26.0"),
        ("MacBookPro18,3", "14.0"),
        ("Macmini9,1", "14.6"),
        ("Mac14,2", "26.1"),
        ("iMac21,1", "15.0"),
        ("VirtualMac2,1", "14.0"),
        ("AppleTV11,1", "17.0"),
        ("RealityDevice14,1", "1.1"),
        ("RealityDevice14,1", "2.0"),
        ("Watch6,1", "10.0"),
    ],
)
def test_an_os_of_2023_or_later_knows_unrecognized_devices(product: str, os_version: str) -> None:
    assert knows_unrecognized_device(product, os_version)


@pytest.mark.parametrize(
    ("product", "os_version"),
    [
        ("iPhone15,2", "16.7.10"),
        ("iPad13,8", "9.3"),
        ("MacBookPro18,3", "13.7"),
        ("MacBookPro14,3", "10.13.6"),
        ("iMac21,1", "13.6"),
        ("AppleTV11,1", "16.6"),
        ("RealityDevice14,1", "1.0"),
        ("Watch6,1", "9.6"),
        (None, "17.0"),
        ("", "17.0"),
        ("Toaster1,1", "99.0"),
        ("iPhone15,2", None),
        ("iPhone15,2", ""),
        ("iPhone15,2", "seventeen"),
    ],
)
def test_an_older_os_or_one_that_is_not_known_does_not(product: str | None, os_version: str | None) -> None:
    assert not knows_unrecognized_device(product, os_version)


def test_an_errors_body_has_its_code_and_what_is_known() -> None:
    assert json.loads(error_body(UNRECOGNIZED_DEVICE)) == {"code": "com.apple.unrecognized.device"}
    assert json.loads(error_body("c", description="d", message="m", details={"OSVersion": "18.1"})) == {
        "code": "c",
        "description": "d",
        "message": "m",
        "details": {"OSVersion": "18.1"},
    }
