"""What a device does with an enrollment profile that the server pushes, and which ones it does not install."""

import plistlib
from collections.abc import Callable

import pytest

from local.device import Habits, Hardware, Renewal, SimulatedDevice
from tests.simulators.conversation import run
from tests.simulators.fake_server import FakeServer

Make = Callable[..., SimulatedDevice]


def test_a_pushed_profile_renews_the_identity_and_nothing_is_said(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    old = enrolled.identity.certificate
    begun = len(server.messages())
    server.scep_payload["PayloadContent"]["Challenge"] = "a-fresh-challenge"
    report = run(enrolled.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))

    assert report["Status"] == "Acknowledged"
    assert [one["Status"] for one in server.messages()[begun:]] == ["Idle", "Acknowledged"]
    assert server.scep.requests[-1].message_type == "17"
    assert server.scep.requests[-1].signer == old
    assert enrolled.identity.certificate == server.scep.issued[-1] != old


def set_user_connections(server: FakeServer) -> None:
    server.mdm["ServerCapabilities"] = ["com.apple.mdm.bootstraptoken"]


@pytest.mark.parametrize(
    "change",
    [
        lambda server: server.mdm.update(Topic="com.apple.mgmt.External.another"),
        lambda server: server.mdm.update(ServerURL=f"{server.url}/another"),
        lambda server: server.mdm.update(CheckInURL=f"{server.url}/another"),
        lambda server: server.mdm.update(PayloadIdentifier="com.example.enroll.another"),
        lambda server: server.mdm.update(RequiredAppIDForMDM=1),
        lambda server: server.mdm.update(AccessRights=8191),
        lambda server: server.profile.update(PayloadIdentifier="com.example.another"),
        set_user_connections,
    ],
)
def test_a_profile_that_changes_what_it_must_not_is_not_installed(
    enrolled: SimulatedDevice, server: FakeServer, change: Callable[[FakeServer], None]
) -> None:
    enrolled.check_out()
    server.mdm["AccessRights"] = 8191 - 8
    enrolled.enroll(server.profile_url)
    old = enrolled.identity.certificate
    change(server)

    report = run(enrolled.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))
    assert report["ErrorChain"][0]["ErrorCode"] == 12012
    assert enrolled.identity.certificate == old


def test_a_profile_may_take_rights_away(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.mdm["AccessRights"] = 8191 - 8
    report = run(enrolled.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))
    assert report["Status"] == "Acknowledged"
    assert run(enrolled.channel, server, "EraseDevice")["ErrorChain"][0]["ErrorCode"] == 12007


def test_a_renewal_that_fails_leaves_everything_as_it_was(enrolled: SimulatedDevice, server: FakeServer) -> None:
    old = enrolled.identity.certificate
    server.scep.lie |= {"pkiStatus": "2", "failInfo": "2"}
    report = run(enrolled.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))

    assert report["Status"] == "Error"
    assert enrolled.identity.certificate == old
    assert enrolled.connect() == []


def test_the_users_of_a_mac_that_enrolls_anew_tell_their_tokens_again(make_device: Make, server: FakeServer) -> None:
    mac = make_device(Hardware.mac(), habits=Habits(renewal=Renewal.ENROLL_ANEW))
    mac.enroll(server.profile_url)
    mac.log_in("ada")
    run(mac.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))

    told = [one.get("UserShortName") for one in server.messages("TokenUpdate")]
    assert told == [None, "ada", None, "ada"]
