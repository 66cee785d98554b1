"""MicroMDM's JSON commands: every request type, what the device receives and what the answer repeats."""

import json
import plistlib
from base64 import b64encode
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.command import Command
from mdmlib.apple.command_catalogue import catalogue
from mdmlib.apple.command_fields import fields_of
from mdmlib.apple.command_json import from_json, udid_of
from mdmlib.apple.json_fields import Unknown
from mdmlib.apple.request_types import REQUEST_TYPES
from mdmlib.errors import BadRequestError, BodyTooLargeError
from tests.unit.json_commands import ALWAYS_THERE, DATA, WITH_FIELDS, WITHOUT_FIELDS
from tests.unit.plists import message

CONFIGURED = {"item": "ApplicationConfiguration", "identifier": "i"}
WITHOUT_REQUIRED_FIELDS = [name for name in catalogue() if not any(field.required for field in fields_of(name))]
REQUIRED = [(name, field.name) for name in catalogue() for field in fields_of(name) if field.required]


def queued(request_type: str, **fields: Any) -> dict[str, Any]:
    """Return what a device receives, less its RequestType."""
    return received({"request_type": request_type, **fields})


def received(document: dict[str, Any], *, unknown: Unknown = Unknown.REFUSE) -> dict[str, Any]:
    command, _ = from_json({"udid": "U", **document}, unknown=unknown)
    content: dict[str, Any] = plistlib.loads(command.body)["Command"]
    assert content.pop("RequestType") == command.request_type
    return content


def repeated(request_type: str, **fields: Any) -> dict[str, Any]:
    """Return what the answer repeats, less the request type."""
    _, answer = from_json({"udid": "U", "request_type": request_type, **fields})
    content: dict[str, Any] = answer["payload"]["command"]
    assert content.pop("request_type") == request_type
    return content


def refused(document: dict[str, Any]) -> BadRequestError:
    with pytest.raises(BadRequestError) as error:
        from_json(document)
    return error.value


def test_the_table_is_complete() -> None:
    assert set(REQUEST_TYPES) == {*WITHOUT_FIELDS, *WITH_FIELDS}
    assert len(REQUEST_TYPES) == 61


@pytest.mark.parametrize("request_type", WITHOUT_FIELDS)
def test_request_types_without_fields_are_made_of_nothing_else(request_type: str) -> None:
    assert queued(request_type) == {}
    assert repeated(request_type) == {}


def test_every_command_may_require_a_network_tether() -> None:
    assert queued("RestartDevice", request_requires_network_tether=False) == {"RequestRequiresNetworkTether": False}


@pytest.mark.parametrize("request_type", WITH_FIELDS)
def test_every_field_reaches_the_device_and_is_repeated(request_type: str) -> None:
    fields, content = WITH_FIELDS[request_type]

    assert queued(request_type, **fields) == content
    if request_type != "Settings":
        assert repeated(request_type, **fields) == fields
    assert {field.name for field in REQUEST_TYPES[request_type]} == set(fields)


@pytest.mark.parametrize("request_type", WITH_FIELDS)
def test_keys_are_matched_whatever_their_case(request_type: str) -> None:
    fields, content = WITH_FIELDS[request_type]

    assert received({"REQUEST_TYPE": request_type, **{key.upper(): value for key, value in fields.items()}}) == content


@pytest.mark.parametrize("request_type", WITHOUT_REQUIRED_FIELDS)
def test_null_is_as_good_as_nothing(request_type: str) -> None:
    nulls: dict[str, Any] = dict.fromkeys([*(field.name for field in fields_of(request_type)), "unheard_of"])

    assert queued(request_type, **nulls) == queued(request_type)
    assert repeated(request_type, **nulls) == repeated(request_type)


@pytest.mark.parametrize("request_type", WITHOUT_REQUIRED_FIELDS)
def test_what_was_not_given_is_left_out_but_for_some_keys(request_type: str) -> None:
    assert queued(request_type) == ALWAYS_THERE.get(request_type, {})


@pytest.mark.parametrize(("request_type", "name"), REQUIRED)
def test_what_apple_requires_has_to_be_given(request_type: str, name: str) -> None:
    given_, _ = WITH_FIELDS.get(request_type, ({}, {}))
    error = refused({"udid": "U", "request_type": request_type, **given_, name: None})

    assert (error.code, error.field) == ("missing_field", name)
    assert error.message == f"{name} is missing."


@pytest.mark.parametrize(
    ("request_type", "echo"),
    [
        ("DeviceLock", {"pin": ""}),
        ("EraseDevice", {"pin": ""}),
        ("SetRecoveryLock", {"new_password": ""}),
        ("Restrictions", {"profile_restrictions": False}),
    ],
)
def test_the_answer_repeats_some_keys_that_were_not_given(request_type: str, echo: dict[str, Any]) -> None:
    assert repeated(request_type) == echo


@pytest.mark.parametrize("item", ["VoiceRoaming", "PersonalHotspot", "DataRoaming", "Bluetooth", "AppAnalytics"])
def test_a_setting_can_be_switched_off(item: str) -> None:
    assert queued("Settings", settings=[{"item": item, "enabled": False}]) == {
        "Settings": [{"Item": item, "Enabled": False}]
    }
    error = refused({"udid": "U", "request_type": "Settings", "settings": [{"item": item}]})
    assert (error.code, error.field) == ("missing_field", "settings[0].enabled")


def test_every_kind_of_setting_reaches_the_device() -> None:
    configuration = b64encode(plistlib.dumps({"foo": "bar", "baz": "qux", "count": 1})).decode()
    settings: list[dict[str, Any]] = [
        {"item": "DeviceName", "device_name": "n"},
        {"item": "HostName", "hostname": "h"},
        {"item": "TimeZone", "time_zone": "Europe/Berlin"},
        {"item": "Wallpaper", "image": DATA, "where": 3},
        {"item": "ApplicationConfiguration", "identifier": "i", "configuration": configuration},
        {"item": "ApplicationAttributes", "identifier": "i", "attributes": {"VPNUUID": "v", "Removable": False}},
        {"item": "MDMOptions", "mdm_options": {"BootstrapTokenAllowed": True}},
        {"item": "PasscodeLockGracePeriod", "passcode_lock_grace_period": 0},
        {"item": "MaximumResidentUsers", "maximum_resident_users": 0},
        {"item": "SoftwareUpdateSettings", "recommendation_cadence": 0},
    ]

    assert queued("Settings", settings=settings)["Settings"] == [
        {"Item": "DeviceName", "DeviceName": "n"},
        {"Item": "HostName", "HostName": "h"},
        {"Item": "TimeZone", "TimeZone": "Europe/Berlin"},
        {"Item": "Wallpaper", "Image": b"data", "Where": 3},
        {
            "Item": "ApplicationConfiguration",
            "Identifier": "i",
            "Configuration": {"foo": "bar", "baz": "qux", "count": 1},
        },
        {"Item": "ApplicationAttributes", "Identifier": "i", "Attributes": {"VPNUUID": "v", "Removable": False}},
        {"Item": "MDMOptions", "MDMOptions": {"BootstrapTokenAllowed": True}},
        {"Item": "PasscodeLockGracePeriod", "PasscodeLockGracePeriod": 0},
        {"Item": "MaximumResidentUsers", "MaximumResidentUsers": 0},
        {"Item": "SoftwareUpdateSettings", "RecommendationCadence": 0},
    ]
    for given_, echoed in zip(settings, repeated("Settings", settings=settings)["settings"], strict=True):
        assert echoed == {"identifier": None, "configuration": None, **given_}


@pytest.mark.parametrize(
    ("request_type", "fields", "content"),
    [
        ("InstallApplication", {"management_flags": 0}, {"ManagementFlags": 0}),
        ("InstallApplication", {"itunes_store_id": 0}, {"iTunesStoreID": 0}),
        ("InstallApplication", {"options": {"purchase_method": 0}}, {"Options": {"PurchaseMethod": 0}}),
        ("InstallApplication", {"configuration": {}}, {"Configuration": {}}),
        ("InstalledApplicationList", {"managed_appd_only": False}, {"ManagedAppsOnly": False}),
        ("DeleteUser", {"force_deletion": False}, {"ForceDeletion": False}),
        (
            "ScheduleOSUpdate",
            {"updates": [{"install_action": "Default", "max_user_deferrals": 0}]},
            {"Updates": [{"InstallAction": "Default", "MaxUserDeferrals": 0}]},
        ),
    ],
)
def test_false_and_zero_are_kept(request_type: str, fields: dict[str, Any], content: dict[str, Any]) -> None:
    assert queued(request_type, **fields) == content
    assert repeated(request_type, **fields) == fields


@pytest.mark.parametrize(
    ("request_type", "fields"),
    [
        ("DeviceLock", {"pin": "", "message": ""}),
        ("DeviceInformation", {"queries": []}),
        ("InstallProvisioningProfile", {"provisioning_profile": ""}),
        ("Settings", {"settings": []}),
    ],
)
def test_empty_texts_data_and_arrays_are_left_out(request_type: str, fields: dict[str, Any]) -> None:
    assert queued(request_type, **fields) == {}


def test_an_empty_configuration_is_left_out() -> None:
    assert queued(
        "Settings", settings=[{"item": "ApplicationConfiguration", "identifier": "i", "configuration": ""}]
    ) == {"Settings": [{"Item": "ApplicationConfiguration", "Identifier": "i"}]}


@pytest.mark.parametrize(
    ("request_type", "name", "value", "key"),
    [
        ("InstalledApplicationList", "managed_apps_only", True, "ManagedAppsOnly"),
        ("ActiveNSExtensions", "filter_extension_points", ["a"], "FilterExtensionPoints"),
    ],
)
def test_the_right_spelling_of_misspelled_fields_is_understood_too(
    request_type: str, name: str, value: object, key: str
) -> None:
    assert queued(request_type, **{name: value}) == {key: value}


def test_a_manifest_arrives_whole() -> None:
    asset = {
        "kind": "software-package",
        "md5-size": 1234,
        "md5s": ["cfdc14fa22a79bab2a8b423daca2c076"],
        "sha256-size": 1234,
        "sha256s": ["2a8a98c146c35ce29f8b9af4cf8218d2c026058e7eb35adb4a00236997593471"],
        "url": "https://example.com/p.pkg",
    }
    metadata = {
        "bundle-identifier": "com.myenterprise.MyAppPackage",
        "bundle-version": "1.1",
        "items": [{"bundle-identifier": "com.myenterprise.MyAppNotMAS", "bundle-version": "1.7.5"}],
        "kind": "display-image",
        "subtitle": "Test Subtitle",
        "title": "Test Title",
        "sizeInBytes": 1234,
    }

    content = queued("InstallEnterpriseApplication", manifest={"items": [{"Assets": [asset], "metadata": metadata}]})

    assert content == {"Manifest": {"items": [{"assets": [asset], "metadata": metadata}]}}


@pytest.mark.parametrize(("scan_time", "value"), [("30", 30), (30, 30), ("soon", "soon")])
def test_a_scan_time_is_an_integer_to_the_device(scan_time: object, value: object) -> None:
    assert queued("RequestMirroring", scan_time=scan_time) == {"ScanTime": value}
    assert repeated("RequestMirroring", scan_time=scan_time) == {"scan_time": scan_time}


def test_base64_with_line_breaks_is_read_and_repeated_without() -> None:
    profile = message("Authenticate")
    lines = b64encode(profile).decode()
    broken = "\r\n".join(lines[at : at + 76] for at in range(0, len(lines), 76))

    assert queued("InstallProfile", payload=broken) == {"Payload": profile}
    assert repeated("InstallProfile", payload=broken) == {"payload": lines}


def test_the_answer_is_micromdms() -> None:
    command, answer = from_json(
        {"udid": "U", "request_type": "DeviceLock", "pin": "123456", "command_uuid": "C1", "message": None}
    )

    assert command.uuid == "C1"
    assert json.dumps(answer) == (
        '{"payload": {"command_uuid": "C1", "command": {"request_type": "DeviceLock", "pin": "123456"}}}'
    )


@pytest.mark.parametrize("blank", [{}, {"command_uuid": ""}, {"command_uuid": " \t\n"}, {"command_uuid": None}])
def test_a_command_without_a_uuid_gets_one(blank: dict[str, Any]) -> None:
    document = {"udid": "U", "request_type": "ProfileList", **blank}

    command, answer = from_json(document, new_uuid=lambda: "new")
    random, _ = from_json(document)

    assert command.uuid == answer["payload"]["command_uuid"] == "new"
    assert str(UUID(random.uuid, version=4)) == random.uuid


def test_the_command_is_the_one_in_the_plist() -> None:
    command, _ = from_json({"udid": "U", "request_type": "ProfileList", "command_uuid": "this-uuid-should-be-used"})

    assert Command.decode(command.body) == command
    assert command.uuid == "this-uuid-should-be-used"


@pytest.mark.parametrize("request_type", ["Unheard", "profilelist", "", " ProfileList", "RequestType"])
def test_an_unknown_request_type_is_refused_in_micromdms_words(request_type: str) -> None:
    error = refused({"udid": "U", "request_type": request_type})

    assert (error.code, error.field) == ("unknown_request_type", "request_type")
    assert error.message == f"mdm: unknown RequestType: {request_type}"


def test_a_missing_request_type_is_an_unknown_one() -> None:
    assert refused({"udid": "U"}).message == "mdm: unknown RequestType: "
    assert refused({"udid": "U", "request_type": None}).code == "unknown_request_type"


def test_an_unknown_request_type_is_not_repeated_at_length() -> None:
    assert len(refused({"udid": "U", "request_type": "x" * 1_000_000}).message) < 100
    assert refused({"udid": "U", "request_type": "a\ud800\n"}).message == "mdm: unknown RequestType: ?"


@pytest.mark.parametrize("nobody", [{}, {"udid": ""}, {"udid": None}])
def test_a_command_for_nobody_is_refused_in_micromdms_words(nobody: dict[str, Any]) -> None:
    error = refused({"request_type": "ProfileList", **nobody})

    assert (error.code, error.field) == ("missing_field", "udid")
    assert error.message == "request must contain UDID of the device"


@pytest.mark.parametrize("udid", [1, ["U"], "cert#1", "a\nb", "u" * 2_000])
def test_a_udid_that_is_no_id_is_refused(udid: object) -> None:
    error = refused({"request_type": "ProfileList", "udid": udid})

    assert (error.code, error.field) == ("invalid_field", "udid")


def test_a_udid_is_found_whatever_its_keys_case() -> None:
    assert udid_of({"UDID": "D:U"}) == "D:U"


@pytest.mark.parametrize(
    ("request_type", "fields", "name"),
    [
        ("DeviceInformation", {"queries": "UDID"}, "queries"),
        ("DeviceInformation", {"queries": ["UDID", 1]}, "queries[1]"),
        ("DeviceInformation", {"queries": ["UDID", None]}, "queries[1]"),
        ("DeviceLock", {"pin": 123456}, "pin"),
        ("DeviceLock", {"Message": "a\0b"}, "message"),
        ("DeviceLock", {"message": "\ud800"}, "message"),
        ("DeviceLock", {"message": "\uffff"}, "message"),
        ("EraseDevice", {"preserve_data_plan": "true"}, "preserve_data_plan"),
        ("EraseDevice", {"preserve_data_plan": 1}, "preserve_data_plan"),
        ("InstallProfile", {"payload": "not base64!"}, "payload"),
        ("InstallProfile", {"payload": "AAA"}, "payload"),
        ("InstallProfile", {"payload": "ä"}, "payload"),
        ("InstallProfile", {"payload": {"a": 1}}, "payload"),
        ("InstallApplication", {"itunes_store_id": "361309726"}, "itunes_store_id"),
        ("InstallApplication", {"itunes_store_id": 1.0}, "itunes_store_id"),
        ("InstallApplication", {"itunes_store_id": True}, "itunes_store_id"),
        ("InstallApplication", {"itunes_store_id": 1 << 63}, "itunes_store_id"),
        ("InstallApplication", {"options": []}, "options"),
        ("InstallApplication", {"options": {"purchase_method": "1"}}, "options.purchase_method"),
        ("InstallApplication", {"configuration": {"a": None}}, "configuration"),
        ("InstallApplication", {"configuration": {"a": float("nan")}}, "configuration"),
        ("InstallApplication", {"configuration": {"a": 1 << 64}}, "configuration"),
        ("InstallApplication", {"configuration": {"a\0": 1}}, "configuration"),
        ("InstallApplication", {"configuration": 1}, "configuration"),
        ("InstallEnterpriseApplication", {"manifest": {"items": [{"assets": {}}]}}, "manifest.items[0].assets"),
        ("InstallEnterpriseApplication", {"manifest_url_pinning_certs": [DATA, "!"]}, "manifest_url_pinning_certs[1]"),
        ("ScheduleOSUpdate", {"updates": [{"install_action": 1}]}, "updates[0].install_action"),
        ("Settings", {"settings": [{"item": "Bluetooth", "enabled": "no"}]}, "settings[0].enabled"),
        ("Settings", {"settings": [{**CONFIGURED, "configuration": DATA}]}, "settings[0].configuration"),
        (
            "Settings",
            {"settings": [{**CONFIGURED, "configuration": b64encode(plistlib.dumps([])).decode()}]},
            "settings[0].configuration",
        ),
        ("Settings", {"settings": [{"item": "Wallpaper", "image": DATA, "where": 0}]}, "settings[0].where"),
        ("Settings", {"settings": [{"item": "Unheard"}]}, "settings[0].item"),
        ("Settings", {"settings": [{"item": 1}]}, "settings[0].item"),
        ("EraseDevice", {"obliteration_behavior": "Never"}, "obliteration_behavior"),
        ("EraseDevice", {"return_to_service": {"enabled": 1}}, "return_to_service.enabled"),
        ("ScheduleOSUpdate", {"updates": [{"install_action": "Now"}]}, "updates[0].install_action"),
        ("InstallApplication", {"management_flags": True}, "management_flags"),
        ("InstallApplication", {"attributes": {"Removable": "no"}}, "attributes.Removable"),
        ("ProfileList", {"request_type": 1}, "request_type"),
        ("ProfileList", {"command_uuid": 1}, "command_uuid"),
        ("ProfileList", {"command_uuid": "c" * 128}, "command_uuid"),
        ("ProfileList", {"command_uuid": "a\x7fb"}, "command_uuid"),
    ],
)
def test_a_field_of_another_type_is_named(request_type: str, fields: dict[str, Any], name: str) -> None:
    error = refused({"udid": "U", "request_type": request_type, **fields})

    assert (error.code, error.field) == ("invalid_field", name)


def test_a_document_that_is_nested_too_deep_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"a": nested}

    assert (
        refused({"udid": "U", "request_type": "InstallApplication", "configuration": nested}).field == "configuration"
    )


def test_a_command_that_no_answer_could_hold_is_too_large() -> None:
    with pytest.raises(BodyTooLargeError):
        from_json({"udid": "U", "request_type": "InstallProfile", "payload": b64encode(bytes(3_400_000)).decode()})


def test_two_commands_share_nothing() -> None:
    document = {"request_type": "RotateFileVaultKey", "key_type": "personal", "filevault_unlock": {}}
    _, first = from_json({"udid": "U", **document})
    first["payload"]["command"]["filevault_unlock"]["password"] = "p"

    assert from_json({"udid": "U", **document})[1]["payload"]["command"] == document


def test_apples_spelling_is_understood_too() -> None:
    rts = {"ReturnToService": {"Enabled": True, "MDMProfileData": DATA}}

    assert queued("EraseDevice", PIN="123456", **rts) == {
        "PIN": "123456",
        "ReturnToService": {"Enabled": True, "MDMProfileData": b"data"},
    }


def test_a_field_that_apple_does_not_have_is_refused_with_those_that_it_has() -> None:
    error = refused({"udid": "U", "request_type": "DeviceLock", "pim": "123456"})

    assert (error.code, error.field) == ("unknown_field", "pim")
    assert error.message == ("pim is unknown here; known: message, phone_number, pin, request_requires_network_tether.")


def test_a_setting_has_the_fields_of_its_item_alone() -> None:
    error = refused({"udid": "U", "request_type": "Settings", "settings": [{"item": "TimeZone", "enabled": True}]})

    assert (error.code, error.field) == ("unknown_field", "settings[0].enabled")


def test_what_is_allowed_is_said() -> None:
    error = refused({"udid": "U", "request_type": "RotateFileVaultKey", "key_type": "secret"})

    assert error.message == "key_type must be one of personal, institutional."


def test_what_apple_adds_tomorrow_goes_out_as_it_is_spelt_when_that_is_asked_for() -> None:
    fields = {"NewKey": {"Inner": [1, True, "x"]}, "queries": ["NewQuery"]}

    assert received({"request_type": "DeviceInformation", **fields}, unknown=Unknown.KEEP) == {
        "Queries": ["NewQuery"],
        "NewKey": {"Inner": [1, True, "x"]},
    }
    assert received({"request_type": "OfTomorrow", "NewKey": 0}, unknown=Unknown.KEEP) == {"NewKey": 0}
    setting = {"item": "New", "enabled": False, "Level": 0}
    assert received({"request_type": "Settings", "settings": [setting]}, unknown=Unknown.KEEP) == {
        "Settings": [{"Item": "New", "Enabled": False, "Level": 0}]
    }


@pytest.mark.parametrize("request_type", ["", "  ", "x" * 64, "a\nb"])
def test_not_everything_can_be_a_request_type_of_tomorrow(request_type: str) -> None:
    with pytest.raises(BadRequestError) as error:
        from_json({"udid": "U", "request_type": request_type}, unknown=Unknown.KEEP)

    assert error.value.code == "unknown_request_type"


def test_a_kept_key_cannot_make_another_command_of_it() -> None:
    command, _ = from_json({"udid": "U", "request_type": "Of", "RequestType": "EraseDevice"}, unknown=Unknown.KEEP)

    assert Command.decode(command.body).request_type == "Of"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from([DATA, "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
def test_any_json_makes_a_command_or_is_refused(data: st.DataObject) -> None:
    request_type = data.draw(st.sampled_from(sorted(catalogue())))
    unknown = data.draw(st.sampled_from(Unknown))
    names = [field.name for field in fields_of(request_type)]
    fields = data.draw(st.dictionaries(st.sampled_from([*names, "unknown", "command_uuid"]), JSON))
    try:
        command, answer = from_json({"udid": "U", "request_type": request_type, **fields}, unknown=unknown)
    except BadRequestError:
        return
    assert Command.decode(command.body) == command
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
