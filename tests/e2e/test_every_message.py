"""Every check-in message of Apple's schema, from every kind of enrollment that sends it, against the deployed stack."""

import base64
import json
import plistlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from local.administrator import Administrator
from local.device import (
    Channel,
    EnrollmentMode,
    EnrollmentProfile,
    Exchange,
    Habits,
    Hardware,
    MessageForm,
    PasswordRejected,
    ServerRefused,
    SimulatedApns,
    SimulatedDevice,
    Unenrolled,
)
from local.stack import Stack
from mdmlib.store.tables import AdeServer
from tests.e2e.stored import sealer_of

MakeDevice = Callable[..., SimulatedDevice]
Queue = Callable[..., str]
Setting = Callable[..., None]

PUSH_SECONDS = 30.0
MANAGED_ACCOUNT = "ada@example.org"
MAID = "com.apple.maid"

DEVICE = {"Authenticate", "TokenUpdate", "CheckOut", "GetToken", "DeclarativeManagement"}
USER = {"TokenUpdate", "GetToken", "DeclarativeManagement"}
BOOTSTRAP = {"SetBootstrapToken", "GetBootstrapToken"}


@dataclass(frozen=True)
class Kind:
    """A kind of enrollment: what Apple's schema has it send, and what the server calls it."""

    hardware: Callable[[], Hardware]
    type: str
    messages: set[str]
    mode: EnrollmentMode | None = None
    user: str | None = None
    """Who logs in; None for the device's channel."""


KINDS = {
    "an iPhone": Kind(Hardware.iphone, "Device", DEVICE | {"ReturnToService"}),
    "a Mac": Kind(Hardware.mac, "Device", DEVICE | BOOTSTRAP),
    "a Shared iPad": Kind(lambda: Hardware.ipad(is_shared=True), "Device", DEVICE | {"ReturnToService"}),
    "an iPhone's User Enrollment": Kind(Hardware.iphone, "User Enrollment (Device)", DEVICE, EnrollmentMode.BYOD),
    "a Mac's User Enrollment": Kind(Hardware.mac, "User Enrollment (Device)", DEVICE, EnrollmentMode.BYOD),
    "a user of a Mac": Kind(Hardware.mac, "User", USER, user="ada"),
    "a network user of a Mac": Kind(Hardware.mac, "User", USER | {"UserAuthenticate"}, user="network"),
    "a user of a Shared iPad": Kind(lambda: Hardware.ipad(is_shared=True), "Shared iPad", USER, user=MANAGED_ACCOUNT),
    "a user of a Mac's User Enrollment": Kind(Hardware.mac, "User Enrollment", USER, EnrollmentMode.BYOD, user="ada"),
}


def changed(profile: EnrollmentProfile, mode: EnrollmentMode | None = None, **mdm: Any) -> EnrollmentProfile:
    """Return a profile with another MDM payload, that of an account-driven enrollment for a ``mode``."""
    document = plistlib.loads(profile.body)
    payload = next(one for one in document["PayloadContent"] if one["PayloadType"] == "com.apple.mdm")
    payload.update(mdm)
    if mode:
        payload |= {"EnrollmentMode": str(mode), "AssignedManagedAppleID": MANAGED_ACCOUNT}
    if mode is EnrollmentMode.BYOD:
        del payload["AccessRights"]
    return EnrollmentProfile.decode(plistlib.dumps(document), mode=mode)


def log_in(device: SimulatedDevice, kind: Kind) -> Channel:
    """Return the channel that a kind is about."""
    if kind.user is None:
        return device.channel
    if kind.user == "network":
        channel = device.management.log_in_network_user("ada", "her password")
        assert channel
        return channel
    if device.hardware.is_shared:
        return device.management.log_in_to_shared_ipad(kind.user)
    return device.log_in(kind.user)


def id_of(channel: Channel) -> str:
    """Return the enrollment's id, as NanoMDM writes it."""
    ids = channel.ids
    device = ids.get("UDID") or ids["EnrollmentID"]
    if channel.kind == "user of a Shared iPad":
        return f"{device}:{ids['UserShortName']}"
    user = ids.get("UserID") or ids.get("EnrollmentUserID")
    return f"{device}:{user}" if user else device


@pytest.fixture
def seen() -> list[Exchange]:
    return []


@pytest.fixture
def enroll_as(make_device: MakeDevice, link: str, seen: list[Exchange]) -> Callable[[Kind], SimulatedDevice]:
    def enroll(kind: Kind) -> SimulatedDevice:
        device = make_device(kind.hardware(), observer=seen.append)
        profile = device.download_profile(link)
        device.install(changed(profile, kind.mode) if kind.mode else profile)
        return device

    return enroll


@pytest.fixture
def server_of_apple(stack: Stack) -> Iterator[rsa.RSAPublicKey]:
    """An ADE server, as Apple knows it by its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    table = stack.outputs["ResourceTableName"]
    sealed = sealer_of(stack).seal(der, place="ade_server/school")
    item = AdeServer("ade_server", "school", server_uuid="SERVER-UUID", private_key=sealed).serialize()
    stack.emulator.dynamodb.put_item(TableName=table, Item=item)
    yield key.public_key()
    stack.emulator.dynamodb.delete_item(TableName=table, Key={name: item[name] for name in ("collection", "name")})


def check_maid_token(token: bytes, key: rsa.RSAPublicKey) -> None:
    """Verify a token as Apple does."""
    signed, _, signature = token.rpartition(b".")
    header, claims = (json.loads(unpadded(part)) for part in signed.split(b"."))
    key.verify(unpadded(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    assert header == {"alg": "RS256", "typ": "JWT"}
    assert claims.keys() == {"iss", "iat", "jti", "service_type"}
    assert (claims["iss"], claims["service_type"]) == ("SERVER-UUID", MAID)
    assert abs(claims["iat"] - datetime.now(UTC).timestamp()) < 60
    assert uuid.UUID(claims["jti"])


def unpadded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_everything_that_a_kind_of_enrollment_says_is_understood(
    enroll_as: Callable[[Kind], SimulatedDevice],
    kind: Kind,
    administrator: Administrator,
    queue: Queue,
    pushes: SimulatedApns,
    seen: list[Exchange],
    setting: Setting,
    server_of_apple: rsa.RSAPublicKey,
) -> None:
    if "UserAuthenticate" in kind.messages:
        setting("checkin", USER_AUTHENTICATE="empty")
    device = enroll_as(kind)
    begun = 0 if kind.user is None else len(seen)
    channel = log_in(device, kind)

    shown = administrator.request("GET", f"/v2/enrollments/{id_of(channel)}").json()
    assert (shown["type"], shown["state"], shown["enabled"]) == (kind.type, "enrolled", True)
    assert shown["parent_id"] == (None if kind.user is None else device.enrollment_id)
    assert (shown["serial_number"] == device.hardware.serial_number) is (kind.mode is None and kind.user is None)

    queued = queue(id_of(channel), "ProfileList")
    assert pushes.wait(channel.push_token, seconds=PUSH_SECONDS)
    assert [(one.uuid, one.status) for one in channel.connect()] == [(queued, "Acknowledged")]

    for _ in range(2):
        channel.declarations.synchronize()
    assert len(channel.declarations.reports) == 1

    check_maid_token(device.management.get_token(MAID, channel=channel), server_of_apple)
    if "SetBootstrapToken" in kind.messages:
        token = device.escrow_bootstrap_token()
        assert device.get_bootstrap_token() == token
        device.management.set_bootstrap_token(b"")
        assert device.get_bootstrap_token() is None
    if "ReturnToService" in kind.messages:
        assert not device.return_to_service()
    assert channel.check_in("NewInIOS30", Novelty=[b"1"]).body == b""
    device.check_out()

    said = {one.what.partition(" ")[0] for one in seen[begun:] if one.path == "/mdm/checkin"}
    assert said == kind.messages | {"NewInIOS30", "CheckOut"}
    shown = administrator.request("GET", f"/v2/enrollments/{id_of(channel)}").json()
    assert not shown["enabled"]
    assert kind.user or shown["state"] == "checked_out"


# Declarative management


def test_what_is_not_declared_is_not_found_and_what_is_malformed_is_not_asked_for_again(enroll: MakeDevice) -> None:
    device = enroll()
    for endpoint, data, status in (
        ("declaration/configuration/none", None, 404),
        ("declaration/none", None, 404),
        ("declaration/", None, 404),
        ("secrets", None, 404),
        ("status", b"", 400),
        ("status", b"[]", 400),
        ("status", b'{"StatusItems": []}', 400),
        ("status", b"{", 400),
    ):
        fields = {"Endpoint": endpoint} | ({} if data is None else {"Data": data})
        with pytest.raises(ServerRefused) as refused:
            device.check_in("DeclarativeManagement", **fields)
        assert (refused.value.status, refused.value.body) == (status, b""), endpoint
    device.channel.declarations.synchronize()
    device.channel.declarations.report_status(full=True)
    assert device.connect() == []


# Network users


def test_a_network_user_is_declined_let_in_or_asked_for_a_password_as_the_deployment_is_set(
    enroll: MakeDevice, administrator: Administrator, setting: Setting, queue: Queue
) -> None:
    mac = enroll(Hardware.mac())
    guid = str(uuid.uuid4()).upper()
    assert mac.management.log_in_network_user("ada", "correct horse", user_id=guid) is None

    setting("checkin", USER_AUTHENTICATE="empty")
    channel = mac.management.log_in_network_user("ada", "anything", user_id=guid)
    assert channel
    assert channel.connect() == []

    setting("checkin", USER_AUTHENTICATE="digest")
    answer = administrator.request("PUT", "/v2/managed-users/ada", document={"password": "correct horse"})
    assert answer.status_code == 200, answer.text
    for name, password in (("ada", "wrong horse"), ("bob", "correct horse")):
        with pytest.raises(PasswordRejected):
            mac.management.log_in_network_user(name, password, user_id=guid)
    # Who has to prove something from now on is not the one who was let in without.
    with pytest.raises(ServerRefused):
        channel.connect()

    proven = mac.management.log_in_network_user("ada", "correct horse", user_id=guid)
    assert proven
    assert proven.auth_token
    queued = queue(id_of(proven), "ProfileList")
    assert [one.uuid for one in proven.connect()] == [queued]
    proven.declarations.synchronize()
    for wrong in (None, "", "another"):
        proven.auth_token, right = wrong, proven.auth_token
        with pytest.raises(ServerRefused):
            proven.connect()
        with pytest.raises(ServerRefused):
            proven.declarations.report_status()
        proven.auth_token = right
    assert mac.connect() == []


# ReturnToService


def test_a_device_returns_to_service_with_what_an_administrator_left_for_it(
    enroll: MakeDevice, administrator: Administrator, setting: Setting, link: str
) -> None:
    setting("checkin", RETURN_TO_SERVICE="on")
    ipad = enroll(Hardware.ipad())
    with pytest.raises(ServerRefused) as refused:
        ipad.management.get_token("com.apple.watch.pairing", {"PhoneUDID": "1", "WatchUDID": "2", "SecurityToken": "3"})
    assert refused.value.status == 400
    offered = ipad.management.return_to_service()
    assert (offered.enabled, offered.mdm_profile, offered.bootstrap_token) == (True, None, None)

    profile = ipad.download_profile(link).body
    kept = administrator.request("PUT", "/v2/return-to-service-profiles/mdm", body=profile)
    assert kept.status_code == 200, kept.text
    first = ipad.identity.certificate
    try:
        assert ipad.return_to_service()
    finally:
        administrator.request("DELETE", "/v2/return-to-service-profiles/mdm")
    assert ipad.is_enrolled
    assert ipad.identity.certificate != first
    assert ipad.connect() == []


# Blocked devices


@pytest.mark.parametrize(
    ("hardware", "status"),
    [
        (Hardware.iphone(), 403),
        (Hardware.iphone(os_version="16.7"), 401),
        (Hardware.mac(), 403),
        (Hardware.mac(os_version="13.6"), 401),
    ],
    ids=["iOS 26", "iOS 16", "macOS 26", "macOS 13"],
)
@pytest.mark.parametrize("says", ["Idle", "DeclarativeManagement", "TokenUpdate"])
def test_a_blocked_device_un_enrolls_whatever_it_says(
    make_device: MakeDevice, link: str, administrator: Administrator, hardware: Hardware, status: int, says: str
) -> None:
    seen: list[Exchange] = []
    device = make_device(hardware, observer=seen.append)
    device.enroll(link)
    path = f"/v2/enrollments/{device.udid}/block"
    assert administrator.request("PUT", path).status_code == 204

    speak: dict[str, Callable[[], object]] = {
        "Idle": device.connect,
        "DeclarativeManagement": device.channel.declarations.synchronize,
        "TokenUpdate": device.update_token,
    }
    with pytest.raises(Unenrolled):
        speak[says]()
    assert seen[-1].status == status
    assert not device.is_enrolled
    with pytest.raises(Unenrolled):
        device.enroll(link)

    assert administrator.request("DELETE", path).status_code == 204
    device.enroll(link)
    assert device.connect() == []


# Other URLs of migrated devices


@pytest.mark.parametrize("content_type", [True, False])
def test_one_path_takes_messages_of_both_kinds_and_what_the_profile_has_in_its_query(
    make_device: MakeDevice, link: str, queue: Queue, *, content_type: bool
) -> None:
    device = make_device(habits=Habits(message=MessageForm(connect_content_type=content_type)))
    profile = device.download_profile(link)
    url = profile.server_url.replace("/mdm/connect", "/mdm?campus=north&seat=4%2F2")
    device.install(changed(profile, ServerURL=url, CheckInURL=url))

    queued = queue(device.udid, "SecurityInfo")
    assert [one.uuid for one in device.connect()] == [queued]
    device.channel.declarations.synchronize()
