"""What devices ask for when they check in, against the deployed stack, its roles and its webhook."""

import json
import plistlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from local.administrator import Administrator
from local.device import Hardware, SimulatedApns, SimulatedDevice
from local.device.errors import ServerRefused, Unenrolled
from local.life import World
from tests.http_server import HttpServer, http_server

MakeDevice = Callable[..., SimulatedDevice]


@pytest.fixture(scope="module")
def administrator(world: World) -> Iterator[Administrator]:
    with Administrator(world.admin_url, world.keys) as administrator:
        yield administrator


@pytest.fixture(scope="module")
def link(administrator: Administrator, ready_for_enrollment: None) -> str:
    answer = administrator.request("POST", "/v2/enrollment-links", document={})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


@pytest.fixture
def enroll(world: World, link: str) -> Iterator[MakeDevice]:
    pushes = SimulatedApns(world.apns_control)
    with ExitStack() as to_close:
        to_close.callback(pushes.close)

        def make(hardware: Hardware) -> SimulatedDevice:
            device = to_close.enter_context(SimulatedDevice(hardware, push=pushes, trust=world.trust))
            device.enroll(link)
            return device

        yield make


@pytest.fixture
def source() -> Iterator[HttpServer]:
    with http_server() as server:
        yield server


def admin(administrator: Administrator, method: str, path: str, document: object = None) -> httpx.Response:
    answer = administrator.request(method, path, document=document)
    assert answer.is_success, answer.text
    return answer


def test_devices_and_users_synchronize_an_empty_set_of_declarations(enroll: MakeDevice) -> None:
    mac = enroll(Hardware.mac())
    user = mac.log_in("ada", long_name="Ada Lovelace")

    for channel in (mac.channel, user):
        channel.declarations.synchronize(None)
    assert not mac.violations


def test_a_network_user_is_declined_unless_told_otherwise(enroll: MakeDevice) -> None:
    mac = enroll(Hardware.mac())

    assert mac.management.log_in_network_user("ada", "her password") is None
    assert not mac.violations


def test_a_device_is_not_erased_for_the_next_user_unless_told_otherwise(enroll: MakeDevice) -> None:
    ipad = enroll(Hardware.ipad())

    assert not ipad.return_to_service()
    assert ipad.is_enrolled


def test_a_token_comes_from_the_administrators_server_when_there_is_one(
    enroll: MakeDevice, administrator: Administrator, source: HttpServer
) -> None:
    phone = enroll(Hardware.iphone())
    with pytest.raises(ServerRefused):
        phone.check_in("GetToken", TokenServiceType="com.apple.maid")

    source.body = json.dumps({"token": b64encode(b"a token").decode()}).encode()
    path = "/v2/token-sources/com.apple.maid"
    admin(administrator, "PUT", path, {"url": source.url, "hmac_key": "key"})
    try:
        answer = plistlib.loads(phone.check_in("GetToken", TokenServiceType="com.apple.maid"))
        assert answer == {"TokenData": b"a token"}
        assert json.loads(source.requests[0].body)["ids"]["id"] == phone.udid
        assert b64decode(source.requests[0].headers["x-hmac-signature"])
    finally:
        admin(administrator, "DELETE", path)


def test_a_message_of_a_newer_release_is_taken(enroll: MakeDevice) -> None:
    phone = enroll(Hardware.iphone())

    assert phone.check_in("NewInIOS30", Novelty=[b"1"]) == b""


@pytest.mark.parametrize(
    "hardware", [Hardware.iphone(), Hardware.mac(), Hardware.iphone(os_version="16.7")], ids=["iOS", "macOS", "iOS 16"]
)
def test_a_blocked_device_un_enrolls_and_comes_back_when_it_may(
    enroll: MakeDevice, administrator: Administrator, link: str, hardware: Hardware
) -> None:
    device, other = enroll(hardware), enroll(Hardware.iphone())
    path = f"/v2/enrollments/{device.udid}/block"
    admin(administrator, "PUT", path)

    with pytest.raises(Unenrolled):
        device.connect()
    assert not device.is_enrolled
    assert other.connect() == []
    with pytest.raises(Unenrolled):
        device.enroll(link)

    admin(administrator, "DELETE", path)
    device.enroll(link)
    assert device.connect() == []
    assert not device.violations
