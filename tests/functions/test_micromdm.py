"""MicroMDM's API, as its client ``mdmctl`` and the scripts of its ``tools/api`` call it.

What is sent and what is answered are written down as bytes, from what those programs and their server do: nothing here
makes a request or reads an answer with code of ours.
"""

import json
import plistlib
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.commands import app as function
from local.apns.portal import Authority
from local.emulator import Emulator
from mdmlib.apple.profile_signing import SigningIdentity
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.ade_devices import AdeDeviceStore
from mdmlib.store.sealing import Sealer
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet, FleetDevice
from tests.gateway import Answer, Gateway

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"
GO_CLIENT = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"}
"""What go-kit's client sends."""
CURL = {"Content-Type": "application/x-www-form-urlencoded"}
"""What ``curl -d`` sends, as the scripts do."""
SEEN = datetime(2026, 11, 20, 12, tzinfo=UTC)

PROFILE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict>'
    b"<key>PayloadIdentifier</key><string>org.example.wifi</string>"
    b"<key>PayloadType</key><string>Configuration</string></dict></plist>"
)
PROFILE_64 = b64encode(PROFILE)
RAW_COMMAND = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict><key>Command</key><dict>'
    b"<key>RequestType</key><string>ProfileList</string></dict>"
    b"<key>CommandUUID</key><string>0001_ProfileList</string></dict></plist>\n"
)


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(SEEN))


@pytest.fixture
def device(fleet: Fleet) -> FleetDevice:
    return fleet.device(UDID)


def mdmctl(gateway: Gateway, method: str, path: str, body: bytes | None = None) -> Answer:
    return gateway.request(method, path, body, headers=GO_CLIENT)


def refusal(answer: Answer) -> tuple[int, str, str]:
    """Return what ``mdmctl`` makes of a refusal; it takes no other content type for one."""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.document["error"]
    return answer.status, answer.document["code"], answer.document.get("field", "")


# Devices


def test_mdmctl_get_devices(gateway: Gateway, device: FleetDevice) -> None:
    answer = mdmctl(
        gateway, "POST", "/v1/devices", b'{"page":0,"per_page":0,"filter_serial":null,"filter_udid":null}\n'
    )

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert answer.body == (
        b'{\n  "devices": [\n    {\n'
        b'      "serial_number": "C02XXXX",\n'
        b'      "udid": "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD",\n'
        b'      "enrollment_status": true,\n'
        b'      "last_seen": "2026-11-20T12:00:00Z",\n'
        b'      "dep_profile_status": ""\n'
        b"    }\n  ]\n}\n"
    )


def test_mdmctl_get_devices_tells_what_apple_says_of_their_profiles(gateway: Gateway, device: FleetDevice) -> None:
    tables.AdeServer("ade_server", "school").save()
    bought = AdeDeviceStore().new("school", "C02XXXX")
    bought.record, bought.profile_status, bought.first_seen_at, bought.changed_at = {}, "pushed", 0, 0
    AdeDeviceStore().save("school", [bought])

    listed = mdmctl(gateway, "POST", "/v1/devices", b"{}").document["devices"]

    assert [each["dep_profile_status"] for each in listed] == ["pushed"]


def test_no_device_is_null(gateway: Gateway) -> None:
    assert mdmctl(gateway, "POST", "/v1/devices", b"{}").body == b'{\n  "devices": null\n}\n'


def test_mdmctl_get_devices_by_serial_number(gateway: Gateway, fleet: Fleet, device: FleetDevice) -> None:
    other = fleet.device("OTHER")
    other.authenticate(SerialNumber="C02OTHER")
    other.token_update()
    other.user().token_update(UserShortName="ada")

    assert listed(gateway, b'{"filter_serial":["C02OTHER"]}') == ["OTHER"]
    assert listed(gateway, b'{"filter_serial":["C02OTHER","C02XXXX","C02NONE"]}') == [UDID, "OTHER"]
    assert sorted(listed(gateway, b'{"filter_serial":[""]}')) == sorted(listed(gateway, b"{}")) == [UDID, "OTHER"]
    assert listed(gateway, b'{"filter_udid":["OTHER","nobody","OTHER:USER"]}') == ["OTHER"]
    assert listed(gateway, b'{"filter_udid":["OTHER"],"filter_serial":["C02XXXX"]}') == []
    assert listed(gateway, b'{"Filter_UDID":["OTHER"]}') == ["OTHER"]


def test_devices_come_page_by_page(gateway: Gateway, fleet: Fleet) -> None:
    udids = {f"DEVICE-{number}" for number in range(11)}
    for udid in udids:
        fleet.device(udid)
    pages = [listed(gateway, b'{"page":%d,"per_page":4}' % page) for page in range(4)]

    assert [len(page) for page in pages] == [4, 4, 3, 0]
    assert {udid for page in pages for udid in page} == udids
    assert listed(gateway, b'{"page":1}') == []


def test_who_left_is_listed_as_such(gateway: Gateway, device: FleetDevice) -> None:
    device.check_out()
    answer = mdmctl(gateway, "POST", "/v1/devices", b"{}")

    assert b'"enrollment_status": false' in answer.body


@pytest.mark.parametrize("body", [b'{"Opts":{"udids":["%s"],"serials":null}}', b'{"udids":["%s"]}'])
def test_mdmctl_remove_devices(gateway: Gateway, device: FleetDevice, body: bytes) -> None:
    user = device.user()
    user.token_update(UserShortName="ada")
    answer = mdmctl(gateway, "DELETE", "/v1/devices", body % UDID.encode())

    assert (answer.status, answer.body) == (200, b"{}\n")
    assert listed(gateway, b"{}") == []
    assert mdmctl(gateway, "DELETE", "/v1/devices", body % UDID.encode()).status == 200
    assert gateway.get(f"/v2/enrollments/{UDID}/commands").status == 404
    assert gateway.get(f"/v2/enrollments/{user}/commands").status == 404


def test_mdmctl_remove_devices_by_serial_number(gateway: Gateway, device: FleetDevice) -> None:
    body = b'{"Opts":{"udids":[""],"serials":["C02XXXX"]}}'

    assert mdmctl(gateway, "DELETE", "/v1/devices", body).body == b"{}\n"
    assert mdmctl(gateway, "DELETE", "/v1/devices", body).body == b"{}\n"
    assert listed(gateway, b"{}") == []


def test_a_device_that_was_removed_is_given_nothing_and_can_enroll_anew(gateway: Gateway, device: FleetDevice) -> None:
    queue(gateway)
    mdmctl(gateway, "DELETE", "/v1/devices", b'{"Opts":{"udids":["%s"]}}' % UDID.encode())
    assert device.idle() is None
    assert refusal(mdmctl(gateway, "POST", f"/v1/commands/{UDID}", RAW_COMMAND))[0] in {404, 409}

    device.authenticate()
    device.token_update()
    assert device.idle() is None
    assert listed(gateway, b"{}") == [UDID]


def test_what_a_device_has_left_here_goes_with_it(gateway: Gateway, device: FleetDevice) -> None:
    device.token_update(UnlockToken=b"unlock token")
    device.checkin("SetBootstrapToken", BootstrapToken=b"bootstrap token")
    mdmctl(gateway, "DELETE", "/v1/devices", b'{"Opts":{"udids":["%s"]}}' % UDID.encode())
    left = {item.item for item in tables.EnrollmentItem.query(UDID)}
    record = device.record

    assert left == {tables.RECORD}
    assert not {"push", "device_name", "os_version", "listing_shard"} & set(record.attribute_values)
    assert record.state == "deleted"


def test_one_that_never_was_removes_nobody(gateway: Gateway, device: FleetDevice) -> None:
    for body in (b'{"Opts":{"udids":["%s","nobody"]}}' % UDID.encode(), b'{"Opts":{"serials":["C02XXXX","C02NONE"]}}'):
        assert refusal(mdmctl(gateway, "DELETE", "/v1/devices", body))[:2] == (404, "unknown_enrollment")
    assert listed(gateway, b"{}") == [UDID]
    assert mdmctl(gateway, "DELETE", "/v1/devices", b"{}").body == b"{}\n"


def test_mdmctl_apply_block_and_remove_block(gateway: Gateway, device: FleetDevice) -> None:
    push_certificate()
    blocked = mdmctl(gateway, "POST", f"/v1/devices/{UDID}/block")
    # Then it pushes.
    pushed = gateway.request("GET", f"/push/{UDID}")

    assert (blocked.status, blocked.body) == (200, b"{}\n")
    assert pushed.status == 200
    assert pushed.body.startswith(b'{\n  "status": "success",\n  "push_notification_id": "')
    assert device.record.blocked is True
    assert mdmctl(gateway, "POST", f"/v1/devices/{UDID}/unblock").body == b"{}\n"
    assert device.record.blocked is None


# What waits


def test_a_script_queues_a_raw_command(gateway: Gateway, device: FleetDevice) -> None:
    for method in ("POST", "PUT"):
        answer = gateway.request(method, f"/v1/commands/{UDID}", RAW_COMMAND, headers=CURL)
        assert (answer.status, answer.headers["content-type"]) == (201, "application/json; charset=utf-8")
        assert answer.body == (
            b'{\n  "payload": {\n'
            b'    "udid": "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD",\n'
            b'    "command_uuid": "0001_ProfileList",\n'
            b'    "command": {\n      "request_type": "ProfileList"\n    },\n'
            b'    "payload": "' + b64encode(RAW_COMMAND) + b'"\n  }\n}\n'
        )
    assert device.command("Idle") == plistlib.loads(RAW_COMMAND)
    assert device.acknowledge("0001_ProfileList") is None


def test_a_binary_command_comes_through_as_it_is(gateway: Gateway, device: FleetDevice) -> None:
    binary = plistlib.dumps(plistlib.loads(RAW_COMMAND), fmt=plistlib.FMT_BINARY)
    answer = gateway.request("PUT", f"/v1/commands/{UDID}", binary)

    assert answer.status == 201
    assert b64decode(answer.document["payload"]["payload"]) == binary


def test_a_script_looks_into_a_queue_and_clears_it(gateway: Gateway, device: FleetDevice) -> None:
    assert gateway.request("GET", f"/v1/commands/{UDID}").body == b"{}\n"
    queue(gateway)
    waiting = gateway.request("GET", f"/v1/commands/{UDID}")
    device.not_now("0001_ProfileList")

    assert waiting.body == (
        b'{\n  "commands": [\n    {\n      "uuid": "0001_ProfileList",\n      "payload": "'
        + b64encode(RAW_COMMAND)
        + b'"\n    }\n  ]\n}\n'
    )
    assert gateway.request("GET", f"/v1/commands/{UDID}").body == waiting.body
    assert gateway.request("DELETE", f"/v1/commands/{UDID}").body == b"{}\n"
    assert gateway.request("GET", f"/v1/commands/{UDID}").body == b"{}\n"
    assert device.idle() is None


def test_nothing_waits_for_who_is_unknown(gateway: Gateway) -> None:
    for method in ("GET", "DELETE"):
        for udid in ("nobody", "x" * 3_000):
            answer = gateway.request(method, f"/v1/commands/{udid}")
            assert (answer.status, answer.body) == (200, b"{}\n")


# Profiles


def test_mdmctl_apply_get_and_remove_profiles(gateway: Gateway) -> None:
    put = mdmctl(
        gateway,
        "PUT",
        "/v1/profiles",
        b'{"profile":{"Identifier":"org.example.wifi","Mobileconfig":"' + PROFILE_64 + b'"}}\n',
    )
    shown = (
        b'{\n  "profiles": [\n    {\n      "Identifier": "org.example.wifi",\n      "Mobileconfig": "'
        + PROFILE_64
        + b'"\n    }\n  ]\n}\n'
    )

    assert (put.status, put.body) == (200, b"{}\n")
    assert mdmctl(gateway, "POST", "/v1/profiles", b'{"id":""}\n').body == shown
    assert mdmctl(gateway, "POST", "/v1/profiles", b'{"id":"org.example.wifi"}\n').body == shown
    for _ in range(2):
        assert mdmctl(gateway, "DELETE", "/v1/profiles", b'{"ids":["org.example.wifi"]}\n').body == b"{}\n"
    assert mdmctl(gateway, "POST", "/v1/profiles", b"{}").body == b'{\n  "profiles": null\n}\n'
    unknown = refusal(mdmctl(gateway, "POST", "/v1/profiles", b'{"id":"org.example.wifi"}'))
    assert unknown == (404, "profile_not_found", "id")


def test_a_profile_is_sealed_wherever_it_lies(gateway: Gateway, aws: Emulator, environment: Settings) -> None:
    large = PROFILE.replace(b"<plist", b"<!--" + bytes(range(97, 123)) * 20_000 + b"--><plist")
    for profile in (PROFILE, large, PROFILE, large):
        assert store(gateway, profile).status == 200
        answer = mdmctl(gateway, "POST", "/v1/profiles", b'{"id":"org.example.wifi"}')
        assert b64decode(answer.document["profiles"][0]["Mobileconfig"]) == profile
        objects = aws.s3.list_objects_v2(Bucket=environment.payload_bucket).get("Contents", [])
        assert len(objects) == (profile is large)
    (stored,) = objects
    body = aws.s3.get_object(Bucket=environment.payload_bucket, Key=stored["Key"])["Body"].read()
    assert b"org.example" not in body

    mdmctl(gateway, "DELETE", "/v1/profiles", b'{"ids":["org.example.wifi"]}')
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=environment.payload_bucket)


def test_a_list_of_profiles_that_would_be_too_long_leaves_contents_out(gateway: Gateway) -> None:
    filling = b"<!--" + b"x" * 1_600_000 + b"--><plist"
    for name in (b"a", b"b"):
        profile = PROFILE.replace(b"org.example.wifi", name).replace(b"<plist", filling)
        assert store(gateway, profile, identifier=name).status == 200
    profiles = mdmctl(gateway, "POST", "/v1/profiles", b"{}").document["profiles"]

    assert [(each["Identifier"], each["Mobileconfig"] is None) for each in profiles] == [("a", False), ("b", True)]


def test_a_signed_profile_has_to_be_as_it_was_signed(gateway: Gateway) -> None:
    signed = SigningIdentity.decode(Authority.new("Signer").issue_server()).sign(PROFILE)
    changed = signed.replace(b"org.example.wifi", b"org.example.wofi")

    assert store(gateway, signed).status == 200
    assert refusal(store(gateway, changed, identifier=b"org.example.wofi"))[1:] == ("malformed_body", "Mobileconfig")


# Users


def test_mdmctl_apply_and_get_users(gateway: Gateway, device: FleetDevice) -> None:
    hashed = b64encode(plistlib.dumps({"SALTED-SHA512-PBKDF2": {"entropy": b"e", "iterations": 20_000, "salt": b"s"}}))
    stored = (
        b'"uuid": "8e6d0a2c-4c3b-4f4e-9c5d-6d2f3a1b0c9d",\n%(i)s"udid": "",\n%(i)s"user_id": "",\n'
        b'%(i)s"user_shortname": "admin",\n%(i)s"user_longname": "Admin \\u0026 Co",\n%(i)s"auth_token": "",\n'
        b'%(i)s"password_hash": "' + hashed + b'",\n%(i)s"hidden": true\n'
    )
    put = mdmctl(
        gateway,
        "PUT",
        "/v1/users",
        b'{"user":{"uuid":"8E6D0A2C-4C3B-4F4E-9C5D-6D2F3A1B0C9D","udid":"","user_id":"","user_shortname":"admin",'
        b'"user_longname":"Admin & Co","auth_token":"","password_hash":"' + hashed + b'","hidden":true}}\n',
    )

    assert put.status == 200
    assert put.body == b'{\n  "user": {\n    ' + stored % {b"i": b"    "} + b"  }\n}\n"
    shown = mdmctl(gateway, "POST", "/v1/users", b'{"page":0,"per_page":0,"filter_user_id":null,"filter_udid":null}\n')
    assert shown.body == b'{\n  "users": [\n    {\n      ' + stored % {b"i": b"      "} + b"    }\n  ]\n}\n"


def test_a_user_without_a_uuid_is_given_one_and_replaced_by_it(gateway: Gateway) -> None:
    assert mdmctl(gateway, "POST", "/v1/users", b"{}").body == b'{\n  "users": null\n}\n'
    made = mdmctl(gateway, "PUT", "/v1/users", b'{"user":{"user_shortname":"ada"}}').document["user"]
    body = b'{"user":{"uuid":"%s","user_shortname":"grace"}}' % made["uuid"].encode()
    assert mdmctl(gateway, "PUT", "/v1/users", body).status == 200

    users = mdmctl(gateway, "POST", "/v1/users", b"{}").document["users"]
    assert [(user["uuid"], user["user_shortname"]) for user in users] == [(made["uuid"], "grace")]


def test_users_of_devices_are_listed_too(gateway: Gateway, device: FleetDevice) -> None:
    device.user("FF00").token_update(UserShortName="ada", UserLongName="Ada Lovelace")
    mdmctl(gateway, "PUT", "/v1/users", b'{"user":{"user_shortname":"stored","user_id":"AA"}}')
    users = mdmctl(gateway, "POST", "/v1/users", b"{}").document["users"]

    assert [user["user_shortname"] for user in users] == ["stored", "ada"]
    assert (users[1]["udid"], users[1]["user_id"], users[1]["user_longname"]) == (UDID, "FF00", "Ada Lovelace")
    assert mdmctl(gateway, "POST", "/v1/users", b'{"filter_user_id":["FF00"]}').document["users"] == users[1:]
    assert mdmctl(gateway, "POST", "/v1/users", b'{"per_page":1,"page":1}').document["users"] == users[1:]


def test_a_password_hash_stays_sealed(gateway: Gateway) -> None:
    hashed = plistlib.dumps({"SALTED-SHA512-PBKDF2": {"entropy": b"entropy of the hash"}})
    mdmctl(gateway, "PUT", "/v1/users", b'{"user":{"password_hash":"' + b64encode(hashed) + b'"}}')
    (item,) = tables.MicroMDMUser.query("user")

    assert b"entropy" not in item.document
    assert b64encode(b"entropy of the hash").rstrip(b"=") not in item.document


# The push certificate


def test_mdmctl_mdmcert_upload(gateway: Gateway) -> None:
    pem = Authority.new("Authority of push certificates").issue_push(TOPIC)
    certificate, _, key = pem.partition(b"-----END CERTIFICATE-----\n")
    certificate += b"-----END CERTIFICATE-----\n"
    body = b'{"cert":"' + b64encode(certificate) + b'","key":"' + b64encode(key) + b'"}\n'
    der = b"".join(certificate.splitlines()[1:-1])

    assert mdmctl(gateway, "PUT", "/v1/config/certificate", body).body == b"{}\n"
    shown = gateway.request("GET", "/v1/config/certificate")
    assert (shown.status, shown.body) == (200, b'{\n  "cert": "' + der + b'"\n}\n')


def test_there_may_be_no_push_certificate_yet(gateway: Gateway) -> None:
    answer = gateway.request("GET", "/v1/config/certificate")

    assert refusal(answer)[:2] == (404, "push_certificate_not_found")


# The scripts of tools/api/commands

PBKDF2 = plistlib.dumps({"SALTED-SHA512-PBKDF2": {"entropy": b"e" * 128, "iterations": 34811, "salt": b"s" * 32}})
OF_ADMIN = {"short_name": "admin", "full_name": "Admin", "password_hash": b64encode(PBKDF2).decode()}
ADMIN = {"shortName": "admin", "fullName": "Admin", "passwordHash": PBKDF2}
LOM = "B97F3491-E5E9-40D4-B163-36C41648CB46"
PREFERENCES = b"<plist><dict><key>foo</key><string>bar</string></dict></plist>"

Script = tuple[str, str, dict[str, Any], dict[str, Any]]
SCRIPTS: dict[str, Script] = {
    "account_configuration": (
        "Mac",
        "AccountConfiguration",
        {
            "skip_primary_setup_account_creation": False,
            "set_primary_setup_account_as_regular_user": False,
            "auto_setup_admin_accounts": [OF_ADMIN],
        },
        {
            "SkipPrimarySetupAccountCreation": False,
            "SetPrimarySetupAccountAsRegularUser": False,
            "AutoSetupAdminAccounts": [ADMIN],
        },
    ),
    "activation_lock_bypass_code": ("iPhone", "ActivationLockBypassCode", {}, {}),
    "available_os_updates": ("Mac", "AvailableOSUpdates", {}, {}),
    "certificate_list": ("Mac", "CertificateList", {}, {}),
    "device_configured": ("iPhone", "DeviceConfigured", {}, {}),
    "device_information": ("Mac", "DeviceInformation", {"queries": ["UDID"]}, {"Queries": ["UDID"]}),
    "device_lock": ("Mac", "DeviceLock", {"pin": "123456"}, {"PIN": "123456"}),
    "disable_remote_desktop": ("Mac", "DisableRemoteDesktop", {}, {}),
    "enable_remote_desktop": ("Mac", "EnableRemoteDesktop", {}, {}),
    "erase_device": ("Mac", "EraseDevice", {"pin": "123456"}, {"PIN": "123456"}),
    "install_application": (
        "Mac",
        "InstallApplication",
        {"manifest_url": "https://mdm.example.org/repo/a.plist"},
        {"ManifestURL": "https://mdm.example.org/repo/a.plist"},
    ),
    "install_enterprise_application": (
        "Mac",
        "InstallEnterpriseApplication",
        {"manifest_url": "https://mdm.example.org/repo/a.plist"},
        {"ManifestURL": "https://mdm.example.org/repo/a.plist"},
    ),
    "install_profile": ("Mac", "InstallProfile", {"payload": PROFILE_64.decode()}, {"Payload": PROFILE}),
    "install_provisioning_profile": (
        "iPhone",
        "InstallProvisioningProfile",
        {"provisioning_profile": "AAEC"},
        {"ProvisioningProfile": b"\x00\x01\x02"},
    ),
    "install_vpp_application": (
        "iPhone",
        "InstallApplication",
        {"itunes_store_id": 361285480, "options": {"purchase_method": 1}},
        {"iTunesStoreID": 361285480, "Options": {"PurchaseMethod": 1}},
    ),
    "installed_application_list": ("Mac", "InstalledApplicationList", {}, {}),
    "lom_reset": (
        "Mac",
        "LOMDeviceRequest",
        {
            "request_list": [
                {
                    "device_dns_name": "mac.local",
                    "device_request_type": "Reset",
                    "device_request_uuid": LOM,
                    "lom_protocol_version": 1,
                    "primary_id_v6_address_list": ["fe80::1"],
                    "secondary_ip_v6_address_list": [],
                }
            ]
        },
        {
            "RequestList": [
                {
                    "DeviceDNSName": "mac.local",
                    "DeviceRequestType": "Reset",
                    "DeviceRequestUUID": LOM,
                    "LOMProtocolVersion": 1,
                    "PrimaryIPv6AddressList": ["fe80::1"],
                    "SecondaryIPv6AddressList": [],
                }
            ]
        },
    ),
    "os_update_status": ("Mac", "OSUpdateStatus", {}, {}),
    "profile_list": ("Mac", "ProfileList", {}, {}),
    "provisioning_profile_list": ("iPhone", "ProvisioningProfileList", {}, {}),
    "refresh_cellular_plans": (
        "iPhone",
        "RefreshCellularPlans",
        {"esim_server_url": "https://esim.example.org"},
        {"eSIMServerURL": "https://esim.example.org"},
    ),
    "remove_profile": ("Mac", "RemoveProfile", {"identifier": "org.example"}, {"Identifier": "org.example"}),
    "remove_provisioning_profile": ("iPhone", "RemoveProvisioningProfile", {"uuid": LOM}, {"UUID": LOM}),
    "restart_device": ("Mac", "RestartDevice", {}, {}),
    "schedule_os_update_scan": ("Mac", "ScheduleOSUpdateScan", {"force": True}, {"Force": True}),
    "security_info": ("Mac", "SecurityInfo", {}, {}),
    "set_auto_admin_password": (
        "Mac",
        "SetAutoAdminPassword",
        {"guid": LOM, "password_hash": OF_ADMIN["password_hash"]},
        {"GUID": LOM, "passwordHash": PBKDF2},
    ),
    "settings_application_configuration": (
        "iPhone",
        "Settings",
        {
            "settings": [
                {
                    "item": "ApplicationConfiguration",
                    "identifier": "org.example",
                    "configuration": b64encode(PREFERENCES).decode(),
                }
            ]
        },
        {
            "Settings": [
                {"Item": "ApplicationConfiguration", "Identifier": "org.example", "Configuration": {"foo": "bar"}}
            ]
        },
    ),
    "settings_bootstrap_token_allowed": (
        "Mac",
        "Settings",
        {"settings": [{"item": "MDMOptions", "mdm_options": {"BootstrapTokenAllowed": True}}]},
        {"Settings": [{"Item": "MDMOptions", "MDMOptions": {"BootstrapTokenAllowed": True}}]},
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_of_tools_api_queues_its_command(gateway: Gateway, fleet: Fleet, script: str) -> None:
    platform, request_type, fields, received = SCRIPTS[script]
    device = fleet.device(UDID, enrolled=False)
    product, version = {"Mac": ("Mac14,2", "15.1"), "iPhone": ("iPhone15,2", "18.1")}[platform]
    device.authenticate(ProductName=product, OSVersion=version)
    device.token_update()
    # As jq prints it, without the line ends that curl takes out of what it reads.
    body = json.dumps({"udid": UDID, "request_type": request_type, **fields}, indent=2).replace("\n", "")

    answer = gateway.request("POST", "/v1/commands", body, headers=CURL)

    assert answer.status == 201, answer.body
    told = answer.document["payload"]
    assert told["command"]["request_type"] == request_type
    payload = fleet.queue.payload(next(fleet.queue.read_on(device.record, after="c#")))
    assert payload is not None
    given = plistlib.loads(payload)
    assert given == {"CommandUUID": told["command_uuid"], "Command": {"RequestType": request_type, **received}}


def test_a_script_asks_for_a_challenge(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/v1/challenge", headers=CURL)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
    challenge = answer.document["string"]
    assert answer.body == b'{\n  "string": "' + challenge.encode() + b'"\n}\n'


def test_mdmctl_version(gateway: Gateway) -> None:
    document = mdmctl(gateway, "GET", "/version").document

    # What its client reads, of the library that both have it from.
    names = {"version", "branch", "revision", "go_version", "build_date", "build_user"}
    assert {name for name, value in document.items() if isinstance(value, str)} >= names


def test_a_script_and_mdmctl_wake_a_device(gateway: Gateway, device: FleetDevice) -> None:
    push_certificate()
    for method, path in (
        ("GET", f"/push/{UDID}"),
        ("GET", f"/push/{UDID}?expiration=1893456000"),
        ("POST", f"/v1/push/{UDID}"),
    ):
        plain, _, expiration = path.partition("?expiration=")
        query = {"expiration": expiration} if expiration else None
        answer = gateway.request(method, plain, headers=CURL, query=query)
        woken = answer.document["push_notification_id"]
        assert answer.body == b'{\n  "status": "success",\n  "push_notification_id": "' + woken.encode() + b'"\n}\n'


# What is wrong, and what is not there

OF_OTHER = b'{"profile":{"Identifier":"org.example.vpn","Mobileconfig":"' + PROFILE_64 + b'"}}'
WRONG: list[tuple[str, str, bytes, int, str, str]] = [
    ("POST", "/v1/devices", b"", 400, "malformed_body", ""),
    ("POST", "/v1/devices", b"[]", 400, "malformed_body", ""),
    ("POST", "/v1/devices", b'{"page":-1}', 400, "invalid_field", "page"),
    ("POST", "/v1/devices", b'{"per_page":10001}', 400, "invalid_field", "per_page"),
    ("POST", "/v1/devices", b'{"per_page":"5"}', 400, "invalid_field", "per_page"),
    ("POST", "/v1/devices", b'{"per_page":true}', 400, "invalid_field", "per_page"),
    ("POST", "/v1/devices", b'{"filter_serial":"C02"}', 400, "invalid_field", "filter_serial"),
    ("POST", "/v1/devices", b'{"filter_udid":[1]}', 400, "invalid_field", "filter_udid"),
    ("DELETE", "/v1/devices", b'{"Opts":[]}', 400, "invalid_field", "Opts"),
    ("DELETE", "/v1/devices", b'{"Opts":{"udids":"x"}}', 400, "invalid_field", "udids"),
    ("DELETE", "/v1/devices", b'{"Opts":{"udids":["command#1"]}}', 404, "unknown_enrollment", "udids"),
    ("POST", "/v1/devices/nobody/block", b"", 404, "unknown_enrollment", "id"),
    ("POST", "/v1/devices/nobody/unblock", b"", 404, "unknown_enrollment", "id"),
    ("POST", f"/v1/commands/{UDID}", b"", 400, "malformed_body", ""),
    ("POST", f"/v1/commands/{UDID}", b"{}", 400, "malformed_body", ""),
    ("PUT", f"/v1/commands/{UDID}", b'<plist version="1.0"><dict/></plist>', 400, "malformed_body", "Command"),
    ("PUT", "/v1/commands/nobody", RAW_COMMAND, 404, "unknown_enrollment", "udid"),
    ("PUT", "/v1/profiles", b"{}", 400, "missing_field", "Mobileconfig"),
    ("PUT", "/v1/profiles", b'{"profile":7}', 400, "invalid_field", "profile"),
    ("PUT", "/v1/profiles", b'{"profile":{"Mobileconfig":"!"}}', 400, "invalid_field", "Mobileconfig"),
    ("PUT", "/v1/profiles", b'{"profile":{"Mobileconfig":"AAAA"}}', 400, "malformed_body", "Mobileconfig"),
    ("PUT", "/v1/profiles", OF_OTHER, 400, "invalid_field", "Identifier"),
    ("POST", "/v1/profiles", b'{"id":7}', 400, "invalid_field", "id"),
    ("DELETE", "/v1/profiles", b'{"ids":"x"}', 400, "invalid_field", "ids"),
    ("PUT", "/v1/users", b'{"user":{"uuid":"x"}}', 400, "invalid_field", "uuid"),
    ("DELETE", "/v1/users", b'{"uuids":["x"]}', 400, "invalid_field", "uuid"),
    ("PUT", "/v1/users", b'{"user":{"hidden":"yes"}}', 400, "invalid_field", "hidden"),
    ("PUT", "/v1/users", b'{"user":{"password_hash":"AAAA"}}', 400, "invalid_field", "password_hash"),
    ("POST", "/v1/users", b"null", 400, "malformed_body", ""),
    ("PUT", "/v1/config/certificate", b"{}", 400, "certificate_missing", ""),
    ("PUT", "/v1/config/certificate", b'{"cert":7}', 400, "invalid_field", "cert"),
    ("GET", "/push/nobody", b"", 404, "unknown_enrollment", "udid"),
    ("PUT", "/v1/blueprints", b"{}", 400, "missing_field", "name"),
    ("PUT", "/v1/blueprints", b'{"blueprint":{"name":"a"}}', 400, "missing_field", "uuid"),
    ("PUT", "/v1/blueprints", b'{"blueprint":{"name":"a","uuid":"x"}}', 400, "invalid_field", "uuid"),
    ("POST", "/v1/blueprints", b'{"FilterName":"nowhere"}', 404, "unknown_blueprint", ""),
    ("PUT", "/v1/apps", b"", 400, "malformed_body", ""),
    ("PUT", "/v1/dep-tokens", b'{"p7m_content":"!"}', 400, "invalid_field", "p7m_content"),
    ("PUT", "/v1/dep-tokens", b"{}", 404, "ade_server_not_found", ""),
    ("GET", "/v1/dep/account", b"", 409, "ade_token_missing", ""),
    ("POST", "/v1/dep/devices", b"{}", 409, "ade_token_missing", ""),
    ("GET", "/v1/devices", b"", 405, "method_not_allowed", ""),
    ("PATCH", "/v1/commands", b"", 405, "method_not_allowed", ""),
]


def test_what_is_wrong_is_told_in_micromdms_form(gateway: Gateway, device: FleetDevice) -> None:
    told = [(*each[:3], *refusal(mdmctl(gateway, *each[:3]))) for each in WRONG]

    assert told == WRONG
    assert list(tables.ResourceItem.scan()) == []
    assert device.idle() is None


def listed(gateway: Gateway, body: bytes) -> list[str]:
    answer = mdmctl(gateway, "POST", "/v1/devices", body)
    assert answer.status == 200, answer.body
    return [device["udid"] for device in answer.document["devices"] or ()]


def queue(gateway: Gateway) -> None:
    assert gateway.request("POST", f"/v1/commands/{UDID}", RAW_COMMAND).status == 201


def store(gateway: Gateway, profile: bytes, *, identifier: bytes = b"org.example.wifi") -> Answer:
    body = b'{"profile":{"Identifier":"' + identifier + b'","Mobileconfig":"' + b64encode(profile) + b'"}}'
    return mdmctl(gateway, "PUT", "/v1/profiles", body)


def push_certificate() -> None:
    """The topic has a certificate; nothing here looks into it."""
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()
