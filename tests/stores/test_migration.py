"""Messages of another server: they make enrollments, and leave those alone that live here."""

import plistlib
from dataclasses import replace
from typing import Any

import pytest

from mdmlib.apple.checkin import decode_checkin
from mdmlib.errors import BadRequestError, ConflictError, IdentityError
from mdmlib.services.migration import Migration
from mdmlib.store import tables
from tests.fleet import TOPIC, Fleet, FleetDevice

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
USER = "B0B0B0B0-0000-0000-0000-000000000001"


class OtherServer:
    """What another server has stored of a device, brought here."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._migration = Migration(
            enrollments=fleet.enrollments, sweeps=fleet.sweeps, sealer=fleet.sealer, now=fleet.clock
        )

    def bring(
        self, message_type: str, *, overwrite: bool = False, certificate_hash: str | None = None, **fields: Any
    ) -> None:
        message = decode_checkin(plistlib.dumps({"MessageType": message_type, "UDID": UDID, "Topic": TOPIC, **fields}))
        self._migration.take(message, overwrite=overwrite, certificate_hash=certificate_hash)

    def authenticate(self, *, overwrite: bool = False, certificate_hash: str | None = None, **fields: Any) -> None:
        told = {"SerialNumber": "C02XXXX", "OSVersion": "14.1", **fields}
        self.bring("Authenticate", overwrite=overwrite, certificate_hash=certificate_hash, **told)

    def token_update(self, *, overwrite: bool = False, **fields: Any) -> None:
        fields = {"PushMagic": "their magic", "Token": b"their token", **fields}
        self.bring("TokenUpdate", overwrite=overwrite, **fields)

    def device(self) -> FleetDevice:
        """Bring a device; return it as it is when it comes here with the identity that it has there."""
        self.authenticate()
        self.token_update(UnlockToken=b"unlock")
        return FleetDevice(self._fleet, UDID, identity="an identity of the other server")


@pytest.fixture
def other(fleet: Fleet) -> OtherServer:
    return OtherServer(fleet)


def test_authenticate_and_token_update_make_an_enrollment(fleet: Fleet, other: OtherServer) -> None:
    device = other.device()

    record = device.record
    assert (record.state, record.type, record.topic) == ("enrolled", "Device", TOPIC)
    assert (record.serial_number, record.os_version, record.token_update_tally) == ("C02XXXX", "14.1", 1)
    assert record.identity is None
    assert fleet.enqueue([device], "CMD1").targets[UDID].queued
    assert fleet.bus.topics() == ["mdm.CommandQueued"]


def test_the_device_comes_with_the_identity_that_it_has(fleet: Fleet, other: OtherServer) -> None:
    fleet.settings = replace(fleet.settings, retroactive_association="on")
    device = other.device()
    other.bring("SetBootstrapToken", BootstrapToken=b"bootstrap")
    fleet.enqueue([device], "CMD1")

    assert device.idle() == "CMD1"
    assert device.record.identity == device.certificate.hash
    assert plistlib.loads(device.checkin("GetBootstrapToken") or b"") == {"BootstrapToken": b"bootstrap"}


def test_without_retroactive_association_it_stays_outside(other: OtherServer) -> None:
    with pytest.raises(IdentityError):
        other.device().idle()


def test_what_was_brought_may_be_brought_again_and_changes_nothing(fleet: Fleet, other: OtherServer) -> None:
    device = other.device()
    fleet.enqueue([device], "CMD1")
    before = device.record.attribute_values

    other.device()

    assert device.record.attribute_values == before


def test_newer_messages_replace_what_was_brought(fleet: Fleet, other: OtherServer) -> None:
    device = other.device()
    generation = device.record.generation

    other.token_update(Token=b"newer token")
    assert (device.record.token_update_tally, device.record.generation) == (2, generation)

    other.authenticate(OSVersion="15.0")
    assert (device.record.state, device.record.os_version) == ("authenticated", "15.0")
    assert device.record.generation == tables.next_generation(generation)
    assert device.record.push is None


@pytest.mark.parametrize("message", ["Authenticate", "TokenUpdate", "SetBootstrapToken"])
def test_a_device_that_lives_here_is_left_alone(fleet: Fleet, other: OtherServer, message: str) -> None:
    device = fleet.device(UDID)
    before = device.record.attribute_values
    fields: dict[str, dict[str, Any]] = {
        "TokenUpdate": {"PushMagic": "x", "Token": b"x"},
        "SetBootstrapToken": {"BootstrapToken": b"x"},
    }

    with pytest.raises(ConflictError) as refused:
        other.bring(message, **fields.get(message, {}))

    assert refused.value.code == "enrollment_live"
    assert device.record.attribute_values == before


def test_a_device_that_came_here_by_itself_is_left_alone_too(fleet: Fleet, other: OtherServer) -> None:
    fleet.settings = replace(fleet.settings, retroactive_association="on")
    device = other.device()
    device.idle()

    with pytest.raises(ConflictError):
        other.authenticate()
    with pytest.raises(ConflictError):
        other.token_update(Token=b"old token")


def test_an_administrator_may_overwrite_it(fleet: Fleet, other: OtherServer) -> None:
    device = fleet.device(UDID)
    user = device.user()
    user.token_update()
    fleet.enqueue([device, user], "CMD1")
    epoch = device.record.epoch

    other.authenticate(overwrite=True)
    other.token_update(overwrite=True)

    assert device.record.identity is None
    assert (device.record.state, device.record.epoch) == ("enrolled", epoch + 1)
    with pytest.raises(IdentityError):
        device.idle()
    assert fleet.enqueue([user], "CMD2").targets[str(user)].command_error


def test_a_token_may_be_overwritten_alone(fleet: Fleet, other: OtherServer) -> None:
    device = fleet.device(UDID)
    fleet.enqueue([device], "CMD1")
    hash_before = device.record.push_token_hash

    other.token_update(overwrite=True)

    assert device.record.push_token_hash != hash_before
    assert device.idle() == "CMD1"


def test_a_device_that_left_may_be_brought_back(fleet: Fleet, other: OtherServer) -> None:
    device = fleet.device(UDID)
    device.check_out()

    other.device()

    assert device.record.state == "enrolled"
    assert device.record.identity is None


def test_users_are_brought_after_their_device(fleet: Fleet, other: OtherServer) -> None:
    fleet.settings = replace(fleet.settings, retroactive_association="on")
    device = other.device()
    other.bring("UserAuthenticate", UserID=USER)
    for _ in range(2):
        other.token_update(UserID=USER, UserShortName="ada", Token=b"user token")

    user = device.user(USER)
    assert (user.record.type, user.record.parent_id, user.record.token_update_tally) == ("User", UDID, 1)
    assert user.record.user_short_name == "ada"
    fleet.enqueue([user], "CMD1")
    assert user.idle() == "CMD1"

    other.token_update(overwrite=True, UserID=USER, Token=b"newer")
    assert user.record.token_update_tally == 2


def test_a_user_of_an_earlier_life_begins_anew(fleet: Fleet, other: OtherServer) -> None:
    device = fleet.device(UDID)
    user = device.user(USER)
    user.token_update()
    generation = user.record.generation

    other.authenticate(overwrite=True)
    other.token_update(UserID=USER)

    assert (user.record.generation, user.record.token_update_tally) == (tables.next_generation(generation), 1)
    assert user.record.device_epoch == device.record.epoch


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("TokenUpdate", {"PushMagic": "x", "Token": b"x"}),
        ("TokenUpdate", {"PushMagic": "x", "Token": b"x", "UserID": USER}),
        ("SetBootstrapToken", {"BootstrapToken": b"x"}),
    ],
)
def test_a_device_begins_with_its_authenticate(other: OtherServer, message: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConflictError) as refused:
        other.bring(message, **fields)
    assert refused.value.code == "enrollment_unknown"


def test_what_makes_no_enrollment_is_refused(other: OtherServer) -> None:
    other.device()

    for message in ("CheckOut", "GetBootstrapToken", "SomethingNew"):
        with pytest.raises(BadRequestError) as refused:
            other.bring(message)
        assert refused.value.code == "message_not_migrated"
    with pytest.raises(BadRequestError):
        other.authenticate(UserID=USER)


def test_secrets_are_sealed(other: OtherServer) -> None:
    other.device()
    other.bring("SetBootstrapToken", BootstrapToken=b"bootstrap")

    stored = repr([item.serialize() for item in tables.EnrollmentItem.scan()])
    for secret in (b"their token", b"their magic", b"unlock", b"bootstrap"):
        assert secret.decode() not in stored


def test_a_device_whose_certificate_was_told_is_known_by_that_one_alone(fleet: Fleet, other: OtherServer) -> None:
    device = FleetDevice(fleet, UDID, identity="an identity of the other server")
    another = FleetDevice(fleet, UDID, identity="somebody else's")
    other.authenticate(certificate_hash=device.certificate.hash)
    other.token_update()
    fleet.enqueue([device], "CMD1")

    for retroactive in ("on", "off"):
        fleet.settings = replace(fleet.settings, retroactive_association=retroactive)
        with pytest.raises(IdentityError):
            another.idle()
    assert device.idle() == "CMD1"
    assert device.record.identity == device.certificate.hash
    with pytest.raises(IdentityError):
        another.idle()


def test_a_certificate_may_be_told_later(fleet: Fleet, other: OtherServer) -> None:
    device = FleetDevice(fleet, UDID, identity="an identity of the other server")
    other.authenticate()
    other.authenticate(certificate_hash=device.certificate.hash)
    other.token_update()
    assert device.idle() is None
