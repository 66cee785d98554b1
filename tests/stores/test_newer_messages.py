"""Check-in messages of a release of Apple's that this one of ours does not know."""

import plistlib

import pytest

from mdmlib.errors import IdentityError
from mdmlib.store.tables import Message
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice


def test_a_newer_message_is_kept_published_and_answered_with_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()

    assert device.answer("NewInIOS30", Novelty=[1, {"a": b"b"}]) is None

    kept = Message.get(str(device), "m#NewInIOS30")
    body = fleet.sealer.open(kept.body, place=f"{device}/m#NewInIOS30")
    assert plistlib.loads(body)["Novelty"] == [1, {"a": b"b"}]
    assert kept.ttl == int(fleet.clock().timestamp()) + fleet.settings.result_days * 86_400
    (document,) = fleet.bus.take()
    assert document["topic"] == "mdm.NewInIOS30"
    assert document["checkin_event"]["ids"] == {"id": str(device), "type": "Device"}
    assert_conforms(document)


def test_the_last_one_of_its_type_is_kept(fleet: Fleet) -> None:
    device = fleet.device()
    device.checkin("NewInIOS30", Number=1)
    device.checkin("NewInIOS30", Number=2)

    kept = Message.get(str(device), "m#NewInIOS30")
    assert plistlib.loads(fleet.sealer.open(kept.body, place=f"{device}/m#NewInIOS30"))["Number"] == 2


def test_nobody_knows_what_it_holds_so_it_is_sealed(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    device.checkin("NewInIOS30", Novelty="the-secret")

    (document,) = fleet.bus.take()
    assert "raw_payload" not in document["checkin_event"]
    assert "raw_payload_sealed" in document["checkin_event"]


def test_a_newer_message_changes_nothing_about_the_enrollment(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    before = device.record.serialize()
    device.checkin("NewInIOS30")

    assert device.record.serialize() == before
    assert device.idle() == "C1"


def test_it_is_refused_from_whoever_is_not_enrolled(fleet: Fleet) -> None:
    fleet.device("D1")
    left = fleet.device("D2")
    left.check_out()
    fleet.bus.take()

    for device in (
        FleetDevice(fleet, "UNKNOWN"),
        FleetDevice(fleet, "D1", identity="stranger"),
        FleetDevice(fleet, "D1").user(),
        left,
    ):
        with pytest.raises(IdentityError):
            device.checkin("NewInIOS30")
        with pytest.raises(Message.DoesNotExist):
            Message.get(str(device), "m#NewInIOS30")
    assert fleet.bus.take() == []
