"""What an enrollment cannot do is refused when it is queued, and looked at again when it is handed out."""

from datetime import timedelta
from typing import Any

import pytest

from mdmlib.apple.command import Command
from mdmlib.errors import BadRequestError
from mdmlib.store import tables
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice, command

UPDATES = [{"InstallAction": "Default"}]


@pytest.fixture
def mac(fleet: Fleet) -> FleetDevice:
    mac = FleetDevice(fleet, "MAC")
    mac.authenticate(Model="Mac14,2", ProductName="Mac14,2", OSVersion="26.1")
    mac.token_update()
    return mac


def os_update(uuid: str = "UPDATE") -> Command:
    return command(uuid, "ScheduleOSUpdate", Updates=UPDATES)


def updated(device: FleetDevice, uuid: str = "INFO", **answers: Any) -> str | None:
    """Let a device be asked what it is, and answer."""
    device.fleet.enqueuer.enqueue(command(uuid, "DeviceInformation", Queries=["OSVersion"]), [str(device)], priority=9)
    assert device.idle() == uuid
    return device.acknowledge(uuid, QueryResponses=answers)


def test_a_command_of_another_platform_is_refused_alone(fleet: Fleet, mac: FleetDevice) -> None:
    phone = FleetDevice(fleet, "PHONE")
    phone.authenticate(ProductName="iPhone15,2", OSVersion="26.1")
    phone.token_update()

    outcome = fleet.enqueuer.enqueue(command("C1", "EnableLostMode", Message="m"), [str(mac), str(phone)])

    assert outcome.targets["PHONE"].queued
    error = outcome.targets["MAC"].command_error
    assert error
    assert error.code == "unsuitable_command"
    assert outcome.targets["MAC"].push_result is None
    assert error.message == "macOS does not know EnableLostMode. Say `force` to send it all the same."
    assert mac.idle() is None


def test_a_refusal_can_be_overridden_and_is_then_not_looked_at_again(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(command("C1", "EnableLostMode", Message="m"), [str(mac)], force=True)

    assert updated(mac, OSVersion="27.0") == "C1"


def test_a_command_that_suits_nobody_is_not_stored(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(command("C1", "EnableLostMode", Message="m"), [str(mac)])

    assert fleet.queue.result_and_command("MAC", "C1") == (None, None)


def test_what_a_device_answers_is_known_from_then_on(mac: FleetDevice) -> None:
    updated(mac, OSVersion="27.0", BuildVersion="26A1", IsSupervised=True, DeviceName="n" * 300, ModelName=1)

    assert (mac.record.os_version, mac.record.build_version, mac.record.is_supervised) == ("27.0", "26A1", True)
    assert mac.record.device_name is None
    assert mac.record.model_name is None

    mac.authenticate(Model="Mac14,2", OSVersion="27.1")
    assert mac.record.is_supervised is None


@pytest.mark.parametrize("answers", [{}, {"QueryResponses": []}, {"QueryResponses": {"OSVersion": b"27"}}])
def test_an_answer_that_says_nothing_changes_nothing(fleet: Fleet, mac: FleetDevice, answers: dict[str, Any]) -> None:
    fleet.enqueuer.enqueue(command("INFO", "DeviceInformation", Queries=["OSVersion"]), [str(mac)])
    mac.acknowledge("INFO", **answers)

    assert mac.record.os_version == "26.1"


def test_an_answer_to_a_cleared_command_is_kept_and_tells_nothing(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(command("INFO", "DeviceInformation", Queries=["OSVersion"]), [str(mac)])
    fleet.queues.clear([str(mac)])
    mac.acknowledge("INFO", QueryResponses={"OSVersion": "27.0"})

    result, _ = fleet.queue.result_and_command("MAC", "INFO")
    assert result
    assert result.status == "Acknowledged"


def test_a_device_that_was_updated_is_not_given_what_it_knows_no_more(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(os_update(), [str(mac)])
    fleet.enqueue([mac], "NEXT")
    fleet.bus.take()

    assert updated(mac, OSVersion="27.0") == "NEXT"

    result, _ = fleet.queue.result_and_command("MAC", "UPDATE")
    assert result
    assert result.status == "NotSent"
    assert fleet.queue.report(result) is None
    (error,) = result.error_chain
    assert error["ErrorDomain"] == "PicoMDM"
    assert error["USEnglishDescription"] == "ScheduleOSUpdate is gone since macOS 27.0; this device runs 27.0."
    events = [event for event in fleet.bus.take() if event["topic"] == "mdm.CommandNotSent"]
    assert [event["event_id"] for event in events] == [result.event_id]
    assert_conforms(events[0])
    assert events[0]["command_event"] == {
        "command_uuid": "UPDATE",
        "request_type": "ScheduleOSUpdate",
        "enrollment_ids": ["MAC"],
        "reason": "ScheduleOSUpdate is gone since macOS 27.0; this device runs 27.0.",
    }
    assert mac.acknowledge("NEXT") is None
    assert list(tables.OutboxEvent.scan()) == []


def test_a_device_that_was_updated_within_what_it_knows_is_given_it(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(os_update(), [str(mac)])

    assert updated(mac, OSVersion="26.4") == "UPDATE"


def test_a_report_that_comes_after_all_takes_the_place_of_what_was_told(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueuer.enqueue(os_update(), [str(mac)])
    assert mac.idle() == "UPDATE"
    assert mac.not_now("UPDATE") is None
    updated(mac, OSVersion="27.0")
    fleet.bus.take()

    mac.report("Error", "UPDATE")
    mac.report("Error", "UPDATE")

    result, _ = fleet.queue.result_and_command("MAC", "UPDATE")
    assert result
    assert result.status == "Error"
    assert {event["event_id"] for event in fleet.bus.take()} == {result.event_id}


def test_a_user_channel_can_do_what_its_device_can(fleet: Fleet, mac: FleetDevice) -> None:
    user = mac.user()
    user.token_update(UserShortName="ada")

    outcome = fleet.enqueuer.enqueue(command("C1", "DeviceLock"), [str(mac), str(user)])

    error = outcome.targets[str(user)].command_error
    assert error
    assert error.message.startswith("DeviceLock is not for the user channel of a Mac.")
    assert outcome.targets[str(mac)].queued


def test_one_command_of_a_dedup_key_waits_at_a_time(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueue([mac], "C1", dedup_key="inventory")
    error = fleet.enqueue([mac], "C2", dedup_key="inventory").targets["MAC"].command_error
    assert error
    assert error.code == "dedup_key_taken"
    assert fleet.enqueue([mac], "C3", dedup_key="other").targets["MAC"].queued

    assert mac.idle() == "C1"
    assert mac.acknowledge("C1") == "C3"
    assert fleet.enqueue([mac], "C4", dedup_key="inventory").targets["MAC"].queued


def test_a_repeated_request_with_a_dedup_key_is_resumed(fleet: Fleet, mac: FleetDevice) -> None:
    assert fleet.enqueue([mac], "C1", dedup_key="k").targets["MAC"].queued
    assert fleet.enqueue([mac], "C1", dedup_key="k").targets["MAC"].queued

    assert mac.idle() == "C1"
    assert mac.acknowledge("C1") is None
    assert fleet.enqueue([mac], "C1", dedup_key="k").targets["MAC"].command_error is None
    assert mac.idle() is None


def test_an_expired_command_frees_its_dedup_key(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueue([mac], "C1", dedup_key="k", expires_at=fleet.clock() + timedelta(hours=1))
    fleet.clock.advance(hours=1)

    assert fleet.enqueue([mac], "C2", dedup_key="k").targets["MAC"].queued
    assert mac.idle() == "C2"


def test_a_cancelled_command_and_a_cleared_queue_free_a_dedup_key(fleet: Fleet, mac: FleetDevice) -> None:
    fleet.enqueue([mac], "C1", dedup_key="k")
    fleet.queues.cancel("MAC", "C1")
    assert fleet.enqueue([mac], "C2", dedup_key="k").targets["MAC"].queued
    fleet.queues.clear(["MAC"])
    assert fleet.enqueue([mac], "C3", dedup_key="k").targets["MAC"].queued


@pytest.mark.parametrize("dedup_key", ["", "a#b", "a\nb", "k" * 201])
def test_a_dedup_key_is_a_short_text(fleet: Fleet, mac: FleetDevice, dedup_key: str) -> None:
    with pytest.raises(BadRequestError) as error:
        fleet.enqueue([mac], "C1", dedup_key=dedup_key)

    assert error.value.field == "dedup_key"


def test_a_command_that_would_begin_after_its_end_is_refused(fleet: Fleet, mac: FleetDevice) -> None:
    now = fleet.clock()
    with pytest.raises(BadRequestError) as error:
        fleet.enqueue([mac], "C1", expires_at=now + timedelta(hours=1), not_before=now + timedelta(hours=1))

    assert error.value.field == "not_before"
