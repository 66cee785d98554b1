"""What a device says of itself and asks for, in each kind of enrollment, and which answers it rejects."""

import hashlib
import plistlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from local.device import (
    DeviceError,
    EnrollmentMode,
    EnrollmentProfile,
    Hardware,
    PasswordRejected,
    ProtocolViolation,
    ServerRefused,
    SimulatedDevice,
)
from local.device.memory import recall, remember
from tests.simulators.conversation import of_account, rules, run, user_enrolled
from tests.simulators.fake_server import TOPIC, FakeServer

Make = Callable[..., SimulatedDevice]

SHARED = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"


# Authenticate and TokenUpdate, by platform and kind of enrollment


def test_only_a_mac_tells_its_name_and_model_when_it_enrolls(make_device: Make, server: FakeServer) -> None:
    for hardware in (Hardware.iphone(), Hardware.ipad(), Hardware.mac()):
        make_device(hardware).enroll(server.profile_url)

    iphone, ipad, mac = (message.keys() for message in server.messages("Authenticate"))
    common = {"MessageType", "Topic", "UDID", "SerialNumber", "OSVersion", "BuildVersion", "ProductName"}
    assert ipad == common
    assert iphone == common | {"IMEI", "MEID"}
    assert mac == common | {"DeviceName", "Model", "ModelName"}
    assert "UnlockToken" not in server.messages("TokenUpdate")[-1]


def test_what_a_server_may_not_query_is_not_told_it_at_enrollment(device: SimulatedDevice, server: FakeServer) -> None:
    server.mdm["AccessRights"] = 8191 - 16 - 4
    device.enroll(server.profile_url)

    authenticate, token_update = server.messages()
    assert authenticate.keys() == {"MessageType", "Topic", "UDID"}
    assert "UnlockToken" not in token_update


def test_a_user_enrollment_hides_the_device(device: SimulatedDevice, server: FakeServer) -> None:
    user_enrolled(device, server)
    device.connect()
    device.check_out()

    authenticate, token_update, idle, check_out = server.messages()
    enrollment_id = authenticate["EnrollmentID"]
    assert authenticate.keys() == {
        *("MessageType", "Topic", "EnrollmentID"),
        *("OSVersion", "BuildVersion", "ProductName"),
    }
    assert token_update.keys() == {
        *("MessageType", "Topic", "EnrollmentID"),
        *("Token", "PushMagic", "AwaitingConfiguration"),
    }
    assert idle == {"EnrollmentID": enrollment_id, "Status": "Idle"}
    assert check_out == {"MessageType": "CheckOut", "Topic": TOPIC, "EnrollmentID": enrollment_id}
    identifying = (device.hardware.serial_number, device.udid)
    assert not [one for one in server.seen if one.method == "PUT" for each in identifying if each.encode() in one.body]


def test_every_user_enrollment_has_an_identifier_of_its_own(device: SimulatedDevice, server: FakeServer) -> None:
    ids = []
    for _ in range(2):
        user_enrolled(device, server)
        ids.append(device.enrollment_id)
        device.check_out()
    assert ids[0] != ids[1]


def test_a_user_enrollment_answers_nothing_that_identifies_and_obeys_no_command_that_it_excludes(
    device: SimulatedDevice, server: FakeServer
) -> None:
    user_enrolled(device, server)
    queries = ["UDID", "SerialNumber", "IMEI", "WiFiMAC", "OSVersion", "PushToken"]

    answers = run(device.channel, server, "DeviceInformation", Queries=queries)["QueryResponses"]
    assert answers.keys() == {"OSVersion", "PushToken"}
    security = run(device.channel, server, "SecurityInfo")["SecurityInfo"]
    assert security["ManagementStatus"]["IsUserEnrollment"] is True
    assert run(device.channel, server, "EraseDevice")["ErrorChain"][0]["ErrorCode"] == 12021
    assert run(device.channel, server, "DeviceLock")["Status"] == "Acknowledged"
    with pytest.raises(DeviceError, match="User Enrollment"):
        device.escrow_bootstrap_token()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EnrollmentMode", "ADDE"),
        ("EnrollmentMode", None),
        ("AssignedManagedAppleID", None),
        ("AssignedManagedAppleID", "ada"),
        ("AssignedManagedAppleID", ""),
        ("AccessRights", 8191),
    ],
)
def test_a_profile_that_is_not_for_a_user_enrollment_is_rejected(server: FakeServer, key: str, value: object) -> None:
    of_account(server, EnrollmentMode.BYOD)
    if value is None:
        del server.mdm[key]
    else:
        server.mdm[key] = value

    with pytest.raises(ProtocolViolation) as violation:
        EnrollmentProfile.decode(plistlib.dumps(server.profile), mode=EnrollmentMode.BYOD)
    assert violation.value.rule == key


def test_the_access_token_is_shown_by_all_but_the_device_channel_of_a_mac(
    make_device: Make, server: FakeServer
) -> None:
    phone, mac = make_device(), make_device(Hardware.mac())
    for device in (phone, mac):
        device.install(of_account(server, EnrollmentMode.ADDE), access_token="a-token")
        device.connect()
    mac.log_in("ada").connect()

    shown = {
        (one.message.get("UserShortName"), one.message["UDID"]): one.headers.get("authorization")
        for one in server.seen
        if one.method == "PUT"
    }
    assert shown == {
        (None, phone.udid): "Bearer a-token",
        (None, mac.udid): None,
        ("ada", mac.udid): "Bearer a-token",
    }


# Users


def test_a_user_of_a_mac_says_who_it_is_in_every_message(make_device: Make, server: FakeServer) -> None:
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    channel = mac.log_in("ada", long_name="Ada Lovelace")
    channel.connect()

    token_update, idle = server.messages()[-2:]
    who = {"UDID": mac.udid, "UserID": channel.ids["UserID"], "UserShortName": "ada", "UserLongName": "Ada Lovelace"}
    assert token_update.keys() == {*who, "MessageType", "Topic", "Token", "PushMagic", "NotOnConsole"}
    assert idle == who | {"Status": "Idle", "NotOnConsole": False}


def test_a_user_of_a_mac_in_a_user_enrollment_has_an_identifier_of_the_enrollment(
    make_device: Make, server: FakeServer
) -> None:
    mac = user_enrolled(make_device(Hardware.mac()), server)
    channel = mac.log_in("ada")

    assert channel.ids.keys() == {"EnrollmentID", "EnrollmentUserID", "UserShortName", "UserLongName"}
    with pytest.raises(DeviceError, match="no network users"):
        mac.management.log_in_network_user("bob", "secret")


def test_everybody_on_a_shared_ipad_has_the_same_user_id(make_device: Make, server: FakeServer) -> None:
    ipad = make_device(Hardware.ipad(is_shared=True))
    ipad.enroll(server.profile_url)
    for name in ("ada@example.org", "bob@example.org"):
        channel = ipad.management.log_in_to_shared_ipad(name)
        channel.connect()
        ipad.management.log_out(channel)

    device, ada, bob = server.messages("TokenUpdate")
    assert "UnlockToken" not in device
    assert (ada["UserID"], bob["UserID"]) == (SHARED, SHARED)
    assert (ada["UserShortName"], bob["UserShortName"]) == ("ada@example.org", "bob@example.org")
    assert ada.keys() == {
        *("MessageType", "Topic", "UDID", "UserID", "UserShortName"),
        *("Token", "PushMagic", "AwaitingConfiguration"),
    }
    assert server.messages("Idle")[-1].keys() == {"UDID", "UserID", "UserShortName", "Status"}
    assert not ipad.management.users


def test_a_user_of_a_shared_ipad_waits_for_user_configured(make_device: Make, server: FakeServer) -> None:
    ipad = make_device(Hardware.ipad(is_shared=True))
    ipad.enroll(server.profile_url)
    channel = ipad.management.log_in_to_shared_ipad("ada@example.org", awaiting_configuration=True)

    assert server.messages("TokenUpdate")[-1]["AwaitingConfiguration"] is True
    assert run(ipad.channel, server, "UserConfigured")["Status"] == "Error"
    assert run(channel, server, "UserConfigured")["Status"] == "Acknowledged"
    assert channel.commands.awaiting_configuration is False


@pytest.mark.parametrize("hardware", [Hardware.ipad(), Hardware.mac()])
def test_only_a_shared_ipad_has_users_of_its_kind(make_device: Make, server: FakeServer, hardware: Hardware) -> None:
    device = make_device(hardware)
    device.enroll(server.profile_url)
    with pytest.raises(DeviceError, match="no Shared iPad"):
        device.management.log_in_to_shared_ipad("ada@example.org")


def test_without_the_capability_there_are_no_users(make_device: Make, server: FakeServer) -> None:
    server.mdm["ServerCapabilities"] = []
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    with pytest.raises(DeviceError, match="per-user-connections"):
        mac.log_in("ada")


def test_a_users_channel_obeys_only_what_is_for_users(make_device: Make, server: FakeServer) -> None:
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    channel = mac.log_in("ada")

    assert run(channel, server, "ProfileList")["ProfileList"] == []
    assert run(channel, server, "EraseDevice")["Status"] == "Error"
    assert run(channel, server, "RemoveProfile", Identifier="com.example.enroll")["Status"] == "Error"
    profile = plistlib.dumps(server.profile)
    assert run(channel, server, "InstallProfile", Payload=profile)["Status"] == "Error"
    assert mac.is_enrolled


# Network users


def test_a_declined_network_user_goes_on_without_being_managed(mac: SimulatedDevice, server: FakeServer) -> None:
    server.statuses["UserAuthenticate"] = [410]

    assert mac.management.log_in_network_user("ada", "secret") is None
    [asked] = server.messages("UserAuthenticate")
    assert asked.keys() == {"MessageType", "UDID", "UserID"}
    assert len(server.messages("TokenUpdate")) == 1
    assert not mac.violations


def test_an_empty_challenge_needs_no_proof(mac: SimulatedDevice, server: FakeServer) -> None:
    server.bodies["UserAuthenticate"] = plistlib.dumps({"DigestChallenge": ""})

    channel = mac.management.log_in_network_user("ada", "secret")
    assert channel
    channel.connect()
    assert not [one for one in server.messages() if "AuthToken" in one or "DigestResponse" in one]


def test_who_answers_the_challenge_shows_the_token_in_every_message(mac: SimulatedDevice, server: FakeServer) -> None:
    challenge = {"DigestChallenge": 'Digest nonce="n0nce", realm="Example"', "AuthToken": "the-token"}
    server.bodies["UserAuthenticate"] = plistlib.dumps(challenge)

    channel = mac.management.log_in_network_user("ada", "secret")
    assert channel
    run(channel, server, "ProfileList")

    first, second = server.messages("UserAuthenticate")
    assert first["UserID"] == second["UserID"] == channel.ids["UserID"]
    said = dict(re.findall(r'(\w+)="([^"]*)"', second["DigestResponse"]))
    secret = hashlib.md5(b"ada:Example:secret").hexdigest()
    expected = hashlib.md5(f"{secret}:n0nce:{hashlib.md5(b'PUT:/').hexdigest()}".encode()).hexdigest()
    assert said == {"username": "ada", "realm": "Example", "nonce": "n0nce", "uri": "/", "response": expected}
    shown = [one.get("AuthToken") for one in server.messages() if one.get("UserShortName") == "ada"]
    assert shown == ["the-token"] * 3


def test_an_empty_token_says_that_the_password_was_wrong(mac: SimulatedDevice, server: FakeServer) -> None:
    answer = {"DigestChallenge": 'Digest nonce="n",realm="r",qop="auth"', "AuthToken": ""}
    server.bodies["UserAuthenticate"] = plistlib.dumps(answer)

    with pytest.raises(PasswordRejected):
        mac.management.log_in_network_user("ada", "secret")
    assert "qop=auth,nc=00000001" in server.messages("UserAuthenticate")[1]["DigestResponse"]
    assert len(server.messages("TokenUpdate")) == 1


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ({}, "UserAuthenticate"),
        ({"DigestChallenge": b"Digest"}, "UserAuthenticate"),
        ({"DigestChallenge": "Basic realm=r"}, "DigestChallenge"),
        ({"DigestChallenge": 'Digest realm="r"'}, "DigestChallenge"),
        ({"DigestChallenge": 'Digest nonce="n",realm="r",algorithm=SHA-256'}, "DigestChallenge"),
        ({"DigestChallenge": 'Digest nonce="n",realm="r"'}, "UserAuthenticate"),
    ],
)
def test_a_challenge_or_a_token_that_is_none_is_rejected(
    mac: SimulatedDevice, server: FakeServer, answer: dict[str, Any], rule: str
) -> None:
    server.bodies["UserAuthenticate"] = plistlib.dumps(answer)
    with pytest.raises(ProtocolViolation):
        mac.management.log_in_network_user("ada", "secret")
    assert rules(mac) == [rule]


# Tokens


def test_a_service_token_is_asked_for_with_its_parameters(make_device: Make, server: FakeServer) -> None:
    server.mdm["ServerCapabilities"] = ["com.apple.mdm.token"]
    server.bodies["GetToken"] = plistlib.dumps({"TokenData": b"a token"})
    device = make_device()
    device.enroll(server.profile_url)

    assert device.management.get_token("com.apple.watch.pairing", {"PhoneUDID": device.udid}) == b"a token"
    assert server.messages()[-1] == {
        "MessageType": "GetToken",
        "UDID": device.udid,
        "TokenServiceType": "com.apple.watch.pairing",
        "TokenParameters": {"PhoneUDID": device.udid},
    }


@pytest.mark.parametrize("answer", [b"", b"token", plistlib.dumps({}), plistlib.dumps({"TokenData": "text"})])
def test_an_answer_to_get_token_without_a_token_is_rejected(
    make_device: Make, server: FakeServer, answer: bytes
) -> None:
    server.mdm["ServerCapabilities"] = ["com.apple.mdm.token"]
    server.bodies["GetToken"] = answer
    device = make_device()
    device.enroll(server.profile_url)

    with pytest.raises(ProtocolViolation):
        device.management.get_token("com.apple.maid")
    assert rules(device) == ["GetToken"]


def test_a_refused_token_and_a_missing_capability_are_no_violations(make_device: Make, server: FakeServer) -> None:
    device = make_device()
    device.enroll(server.profile_url)
    with pytest.raises(DeviceError, match=r"com\.apple\.mdm\.token"):
        device.management.get_token("com.apple.maid")
    device.check_out()

    server.mdm["ServerCapabilities"] = ["com.apple.mdm.token"]
    server.statuses["GetToken"] = [400]
    device.enroll(server.profile_url)
    with pytest.raises(ServerRefused):
        device.management.get_token("com.apple.maid")
    assert not device.violations


def test_an_empty_bootstrap_token_asks_to_forget_it(mac: SimulatedDevice, server: FakeServer) -> None:
    mac.management.set_bootstrap_token(b"")
    assert server.messages()[-1] == {"MessageType": "SetBootstrapToken", "UDID": mac.udid}


# ReturnToService


def test_a_device_does_not_return_to_service_unless_it_is_enabled(device: SimulatedDevice, server: FakeServer) -> None:
    server.bodies["ReturnToService"] = plistlib.dumps({"ReturnToService": {"Enabled": False}})
    device.enroll(server.profile_url)

    assert not device.return_to_service()
    assert device.is_enrolled
    assert server.messages()[-1] == {"MessageType": "ReturnToService", "UDID": device.udid}


def test_a_device_that_returns_to_service_enrolls_with_the_profile_that_it_got(
    device: SimulatedDevice, server: FakeServer
) -> None:
    offered = {"Enabled": True, "MDMProfileData": plistlib.dumps(server.profile), "BootstrapToken": b"token"}
    server.bodies["ReturnToService"] = plistlib.dumps({"ReturnToService": offered})
    device.enroll(server.profile_url)

    assert device.return_to_service()
    assert device.is_enrolled
    assert len(server.messages("Authenticate")) == 2
    assert not server.messages("CheckOut")


@pytest.mark.parametrize(
    ("offered", "rule"),
    [
        (None, "ReturnToService"),
        ({}, "ReturnToService"),
        ({"Enabled": "yes"}, "ReturnToService"),
        ({"Enabled": True, "BootstrapToken": "text"}, "ReturnToService"),
        ({"Enabled": True, "WiFiProfileData": b"no profile"}, "ReturnToService"),
        ({"Enabled": True, "MDMProfileData": b"no profile"}, "profile"),
    ],
)
def test_an_answer_to_return_to_service_that_is_none_erases_nothing(
    device: SimulatedDevice, server: FakeServer, offered: object, rule: str
) -> None:
    server.bodies["ReturnToService"] = plistlib.dumps({"ReturnToService": offered} if offered is not None else {})
    device.enroll(server.profile_url)

    with pytest.raises(ProtocolViolation):
        device.return_to_service()
    assert rules(device) == [rule]
    assert device.is_enrolled


def test_a_user_enrollment_that_is_switched_off_and_on_goes_on(make_device: Make, server: FakeServer) -> None:
    device = user_enrolled(make_device(), server)
    again = make_device(device.hardware)
    recall(again, remember(device))
    again.connect()

    assert again.enrollment_id == device.enrollment_id
    assert server.messages()[-1] == {"EnrollmentID": device.enrollment_id, "Status": "Idle"}
    assert server.seen[-1].headers["authorization"] == "Bearer a-token"
