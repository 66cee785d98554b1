"""The catalogue of Apple's commands is Apple's schema, and every command that it has can be made, as it says."""

import json
import plistlib
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from local.device.hardware import Platform
from local.device.request_types import NOT_SIMULATED
from local.device.request_types import REQUEST_TYPES as SIMULATED
from mdmlib.apple import command_changes
from mdmlib.apple.command import Command
from mdmlib.apple.command_catalogue import CommandKey, catalogue
from mdmlib.apple.command_fields import fields_of, snake_case
from mdmlib.apple.command_json import command_of
from mdmlib.apple.command_target import Target
from mdmlib.apple.suitability import unsuitable
from tools.command_catalogue import (
    CATALOGUE,
    COMMAND_LINE,
    DOCUMENT,
    catalogue_text,
    command_line_text,
    document_text,
)

SCHEMA = Path(__file__).parents[3] / "shared" / "apple-device-management"


def sample(key: CommandKey) -> tuple[Any, Any]:
    """Return a value with everything that a key may hold: as JSON, its names as Apple's, and as a plist."""
    if key.values:
        return key.values[-1], key.values[-1]
    if key.type == "data":
        return b64encode(b"data").decode(), b"data"
    if key.type == "array":
        assert key.items is not None
        samples = [sample(variant) for variant in key.items.variants.values()] or [sample(key.items)]
        return [given for given, _ in samples], [value for _, value in samples]
    if key.type == "dictionary":
        samples_by_name = {name: sample(inner) for name, inner in key.keys.items()}
        given = {name: given for name, (given, _) in samples_by_name.items()}
        return given or {"a": 1}, {name: value for name, (_, value) in samples_by_name.items()} or {"a": 1}
    simple: dict[str, Any] = {"string": "x", "boolean": False, "integer": 0}
    return simple[key.type], simple[key.type]


def described(request_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a command with all that Apple's schema gives it: as JSON, and what its device shall receive."""
    samples = {name: sample(key) for name, key in catalogue()[request_type].keys.items()}
    if request_type == "RemoveMedia":
        samples["iTunesStoreID"] = (1, 1)  # MicroMDM's is a number.
    if request_type == "InstallEnterpriseApplication":
        samples["Manifest"] = ({"items": [], "other": 1},) * 2
    return {name: given for name, (given, _) in samples.items()}, {name: value for name, (_, value) in samples.items()}


@pytest.mark.skipif(not SCHEMA.exists(), reason="needs a checkout of Apple's schema beside the repository")
def test_the_catalogue_is_what_apples_schema_says() -> None:
    assert CATALOGUE.read_text() == catalogue_text(SCHEMA), "run `python tools/command_catalogue.py --schema …`"


def test_what_is_derived_from_the_catalogue_is_up_to_date() -> None:
    assert COMMAND_LINE.read_text() == command_line_text(), "run `python tools/command_catalogue.py`"
    assert DOCUMENT.read_text() == document_text(), "run `python tools/command_catalogue.py`"


def test_the_catalogue_has_names_and_numbers_but_no_sentences() -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for key, inner in value.items() for text in [key, *texts(inner)]]
        if isinstance(value, list):
            return [text for inner in value for text in texts(inner)]
        return [value] if isinstance(value, str) else []

    document = json.loads(CATALOGUE.read_bytes())
    document.pop("")
    assert [text for text in texts(document) if " " in text] == []


@pytest.mark.parametrize("request_type", catalogue())
def test_every_command_of_apples_is_made_of_its_json(request_type: str) -> None:
    given, value = described(request_type)

    command, _ = command_of({"request_type": request_type, **given})

    assert plistlib.loads(command.body)["Command"] == {"RequestType": request_type, **value}
    assert Command.decode(command.body) == command


@pytest.mark.parametrize("request_type", catalogue())
def test_the_answer_to_a_command_makes_the_same_command_again(request_type: str) -> None:
    given, value = described(request_type)
    _, answer = command_of({"request_type": request_type, **given})

    command, _ = command_of(answer["payload"]["command"])

    assert plistlib.loads(command.body)["Command"] == {"RequestType": request_type, **value}


@pytest.mark.parametrize("request_type", catalogue())
def test_no_two_fields_of_a_command_are_called_the_same(request_type: str) -> None:
    names = [
        name
        for field in fields_of(request_type)
        for name in {spelling.casefold() for spelling in (field.name, *field.aliases)}
    ]

    assert len({*names}) == len(names)
    assert not {"udid", "request_type", "command_uuid"} & {*names}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("PIN", "pin"),
        ("DisallowProximitySetup", "disallow_proximity_setup"),
        ("WiFiProfileData", "wifi_profile_data"),
        ("MDMProfileData", "mdm_profile_data"),
        ("iOSApp", "ios_app"),
        ("iTunesStoreID", "itunes_store_id"),
        ("eSIMServerURL", "esim_server_url"),
        ("VPNUUID", "vpn_uuid"),
        ("DNSProxyUUID", "dns_proxy_uuid"),
        ("passwordHash", "password_hash"),
    ],
)
def test_apples_keys_are_written_in_snake_case(key: str, name: str) -> None:
    assert snake_case(key) == name


def test_reading_the_catalogue_is_left_to_who_needs_it() -> None:
    program = (
        "import sys, functions.connect.app; from mdmlib import runtime; import mdmlib.services.connect; "
        "sys.exit('mdmlib.apple.command_catalogue' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def mac(os_version: str = "26.1", type_: str = "Device", **known: Any) -> Target:
    return Target.of("Mac14,2", os_version, type_, **known)


def phone(os_version: str = "18.1", type_: str = "Device", **known: Any) -> Target:
    return Target.of("iPhone15,2", os_version, type_, **known)


UPDATE = {"Updates": [{"InstallAction": "Default"}]}


@pytest.mark.parametrize(
    ("request_type", "command", "target", "reason"),
    [
        ("ScheduleOSUpdate", UPDATE, mac("27.0"), "ScheduleOSUpdate is gone since macOS 27.0; this device runs 27.0."),
        ("ScheduleOSUpdate", UPDATE, mac("27.1.2"), "ScheduleOSUpdate is gone since macOS 27.0"),
        ("AvailableOSUpdates", {}, phone("27.0"), "AvailableOSUpdates is gone since iOS 27.0"),
        ("EnableLostMode", {}, mac(), "macOS does not know EnableLostMode."),
        ("SetRecoveryLock", {}, phone(), "iOS does not know SetRecoveryLock."),
        ("DeclarativeManagement", {}, mac("12.6"), "DeclarativeManagement needs macOS 13.0; this device runs 12.6."),
        ("TriggerEnhancedLogCollection", {}, phone("26.1"), "TriggerEnhancedLogCollection needs iOS 27.0"),
        ("TriggerEnhancedLogCollection", {}, mac("27.0"), "is not for the device channel of a Mac."),
        ("DeviceLock", {}, mac(type_="User"), "DeviceLock is not for the user channel of a Mac."),
        ("EraseDevice", {}, phone(type_="User Enrollment (Device)"), "their users have enrolled"),
        ("EnableLostMode", {}, phone(is_supervised=False), "EnableLostMode is for supervised devices alone."),
        ("EraseDevice", {}, Target.of("iPad13,1", "18.0", "Shared iPad"), "the user channel of a Shared iPad."),
        (
            "Settings",
            {"Settings": [{"Item": "SoftwareUpdateSettings", "RecommendationCadence": 0}]},
            phone("27.0"),
            "SoftwareUpdateSettings is gone since iOS 27.0",
        ),
        ("DeviceInformation", {"Queries": ["OSUpdateSettings"]}, mac("27.0"), "OSUpdateSettings is gone"),
    ],
)
def test_what_a_device_cannot_do_has_a_reason(
    request_type: str, command: dict[str, Any], target: Target, reason: str
) -> None:
    assert reason in (unsuitable(request_type, command, target) or "")


@pytest.mark.parametrize(
    ("request_type", "command", "target"),
    [
        ("ScheduleOSUpdate", UPDATE, mac("26.9")),
        ("TriggerEnhancedLogCollection", {}, mac("27.0", "User")),
        ("EnableLostMode", {}, phone()),  # Whether it is supervised is not known.
        ("EnableLostMode", {}, phone(is_supervised=True)),
        ("DeviceInformation", {"Queries": ["OSUpdateSettings", "OSVersion"]}, mac("27.0")),
        ("Settings", {"Settings": [{"Item": "OfTomorrow"}]}, mac("27.0")),
        ("OfTomorrow", {}, mac()),
        ("DeviceLock", {}, Target.of("Toaster1,1", "1.0", "Device")),
        ("DeviceLock", {}, Target.of(None, None, "Device")),
        ("ScheduleOSUpdate", UPDATE, mac("unreadable")),
        ("Settings", {"Settings": "unreadable"}, mac()),
        ("DeviceInformation", {}, mac()),
    ],
)
def test_what_is_not_known_refuses_nothing(request_type: str, command: dict[str, Any], target: Target) -> None:
    assert unsuitable(request_type, command, target) is None


@pytest.mark.parametrize("request_type", SIMULATED)
def test_the_simulated_device_which_knows_the_catalogue_from_elsewhere_agrees(request_type: str) -> None:
    """Platforms, supervision and User Enrollment, of what was written down by hand from Apple's pages."""
    simulated, entry = SIMULATED[request_type], catalogue()[request_type]
    for platform, name in ((Platform.IOS, "iOS"), (Platform.MACOS, "macOS")):
        availability = entry.availability(name)
        assert (availability is not None) == (platform in simulated.platforms), platform
        if availability is not None:
            assert availability.supervised == (platform in simulated.supervised), platform
            assert availability.user_enrollment == (platform in simulated.user_enrollment), platform


def test_the_simulated_device_knows_what_apple_had_before_27() -> None:
    assert {*SIMULATED, *NOT_SIMULATED} == {*catalogue()} - {*command_changes.ADDED}
