"""Devices in Setup Assistant: DeviceConfigured comes in time, and to nobody who does not wait for it."""

import pytest

from mdmlib.store import tables
from tests.fleet import TOPIC, Fleet, FleetDevice, command

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"


@pytest.fixture
def waiting(fleet: Fleet) -> FleetDevice:
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()
    device = fleet.device(enrolled=False)
    device.authenticate()
    device.token_update(AwaitingConfiguration=True)
    return device


def look(fleet: Fleet, *, minutes: int = 5) -> None:
    """Let the next look come."""
    fleet.clock.advance(minutes=minutes)
    fleet.housekeeping.run("release_devices")


def awaited() -> list[str]:
    return [item.item for item in tables.AwaitedConfiguration.query("awaiting#")]


def pushes(fleet: Fleet) -> int:
    url, count = fleet.settings.push_queue_url, 0
    while messages := fleet.emulator.sqs.receive_message(QueueUrl=url).get("Messages"):
        for message in messages:
            fleet.emulator.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            count += 1
    return count


def test_a_device_that_waits_is_told_in_time_that_it_is_configured_behind_all_else(
    fleet: Fleet, waiting: FleetDevice
) -> None:
    fleet.housekeeping.run("release_devices")
    assert waiting.command("Idle") is None
    look(fleet)
    fleet.enqueue([waiting], "C1")

    assert waiting.idle() == "C1"
    told = waiting.command("Acknowledged", "C1")
    assert told is not None
    assert told["Command"] == {"RequestType": "DeviceConfigured"}
    assert pushes(fleet) == 2
    assert waiting.acknowledge(told["CommandUUID"]) is None
    assert waiting.record.awaiting_configuration is False
    look(fleet)
    assert awaited() == []
    assert waiting.idle() is None


def test_who_does_not_wait_is_left_alone(fleet: Fleet) -> None:
    device = fleet.device()
    assert awaited() == []
    device.token_update(b"another", AwaitingConfiguration=False)
    look(fleet, minutes=60)
    assert device.idle() is None


def test_somebody_who_is_quicker_ends_the_wait(fleet: Fleet, waiting: FleetDevice) -> None:
    fleet.enqueuer.enqueue(command("MINE", "DeviceConfigured"), [UDID], push=False)
    assert waiting.idle() == "MINE"
    waiting.acknowledge("MINE")
    look(fleet, minutes=60)
    assert waiting.idle() is None
    assert awaited() == []


def test_a_command_that_is_not_needed_any_more_is_not_handed_out(fleet: Fleet, waiting: FleetDevice) -> None:
    look(fleet)
    fleet.enqueuer.enqueue(command("MINE", "DeviceConfigured"), [UDID], push=False)
    assert waiting.idle() == "MINE"
    assert waiting.acknowledge("MINE") is None


def test_a_device_that_was_told_is_woken_again_and_not_told_twice(fleet: Fleet, waiting: FleetDevice) -> None:
    look(fleet)
    look(fleet)
    look(fleet)
    assert len(fleet.queue.first_page(UDID).pending) == 1
    assert pushes(fleet) == 2
    look(fleet)
    assert pushes(fleet) == 1
    assert awaited() == [f"{UDID}#1"]


def test_a_cleared_queue_and_a_refusal_are_made_up_for(fleet: Fleet, waiting: FleetDevice) -> None:
    look(fleet)
    fleet.queues.clear([UDID])
    assert waiting.idle() is None
    look(fleet)
    told = waiting.idle()
    assert told is not None
    assert waiting.report("Error", told) is None
    assert waiting.record.awaiting_configuration is True
    look(fleet, minutes=30)
    again = waiting.idle()
    assert again not in {None, told}


def test_a_new_enrollment_waits_for_itself(fleet: Fleet, waiting: FleetDevice) -> None:
    fleet.clock.advance(minutes=4)
    waiting.authenticate(BuildVersion="1")
    look(fleet)
    assert awaited() == []
    waiting.token_update(b"new", AwaitingConfiguration=True)
    fleet.housekeeping.run("release_devices")
    assert waiting.idle() is None
    look(fleet)
    assert waiting.idle() is not None


def test_saying_again_that_it_waits_puts_nothing_off(fleet: Fleet, waiting: FleetDevice) -> None:
    fleet.clock.advance(minutes=4)
    waiting.token_update(b"another", AwaitingConfiguration=True)
    look(fleet, minutes=1)
    assert waiting.idle() is not None


def test_somebody_on_a_shared_ipad_waits_for_a_command_of_their_own(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user("somebody@example.org")
    user.is_shared_ipad = True
    user.token_update(UserShortName="somebody@example.org", AwaitingConfiguration=True)
    look(fleet)
    told = user.command("Idle")
    assert told is not None
    assert told["Command"] == {"RequestType": "UserConfigured"}
    assert device.idle() is None
    user.acknowledge(told["CommandUUID"])
    assert user.record.awaiting_configuration is False
