"""The queue's rules, as devices and administrators see them."""

import pytest

from mdmlib.errors import ConflictError, IdentityError, NotFoundError
from mdmlib.store import tables
from mdmlib.store.tables import CommandResult, PendingCommand
from tests.fleet import Fleet, FleetDevice, command


def test_commands_go_out_in_the_order_in_which_they_were_accepted(fleet: Fleet) -> None:
    device = fleet.device()
    for uuid in ("C1", "C2", "C3"):
        fleet.enqueue([device], uuid)

    assert device.idle() == "C1"
    assert device.acknowledge("C1") == "C2"
    assert device.acknowledge("C2") == "C3"
    assert device.acknowledge("C3") is None


def test_a_more_urgent_command_goes_out_first(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "URGENT", priority=9)

    assert device.idle() == "URGENT"
    assert device.acknowledge("URGENT") == "C1"


def test_a_command_that_was_not_reported_on_is_handed_out_again(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")

    assert device.idle() == "C1"
    assert device.idle() == "C1"


def test_not_now_is_answered_with_an_unseen_command(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "C2")

    assert device.idle() == "C1"
    assert device.not_now("C1") == "C2"
    assert device.not_now("C2") is None
    assert device.idle() == "C1"


def test_a_deferred_command_keeps_its_place_before_newer_ones(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.idle()
    device.not_now("C1")
    fleet.enqueue([device], "C2")

    assert device.idle() == "C1"
    assert device.acknowledge("C1") == "C2"


def test_not_now_passes_over_a_page_full_of_deferred_commands(fleet: Fleet) -> None:
    device = fleet.device()
    for number in range(5):
        fleet.enqueue([device], f"C{number}")
        assert device.not_now(f"C{number}") is None
    fleet.enqueue([device], "NEW")

    assert device.not_now("C0") == "NEW"
    assert device.acknowledge("NEW") == "C0"


@pytest.mark.parametrize("status", ["Acknowledged", "Error", "CommandFormatError", "SomethingOfTomorrow"])
def test_every_other_status_is_final(fleet: Fleet, status: str) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")

    assert device.report(status, "C1") is None
    assert device.idle() is None


def test_a_repeated_final_report_changes_nothing_and_loses_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "C2")
    fleet.bus.take()

    assert device.acknowledge("C1") == "C2"
    assert device.acknowledge("C1") == "C2"

    first, second = fleet.bus.take()
    assert first["event_id"] == second["event_id"]
    assert device.idle() == "C2"


def test_a_report_on_a_cleared_command_leaves_its_result(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.idle()
    device.authenticate(OSVersion="15.2")
    device.token_update()

    assert device.acknowledge("C1") is None
    assert CommandResult.get(str(device), tables.RESULT + "C1").status == "Acknowledged"


def test_a_report_on_a_command_that_never_existed_is_only_published(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.bus.take()

    assert device.acknowledge("NEVER") == "C1"
    assert [event["acknowledge_event"]["command_uuid"] for event in fleet.bus.take()] == ["NEVER"]
    with pytest.raises(CommandResult.DoesNotExist):
        CommandResult.get(str(device), tables.RESULT + "NEVER")


def test_a_report_on_a_command_behind_the_first_page_settles_it(fleet: Fleet) -> None:
    device = fleet.device()
    for number in range(6):
        fleet.enqueue([device], f"C{number}")

    assert device.acknowledge("C5") == "C0"
    for number in range(5):
        assert device.acknowledge(f"C{number}") == (f"C{number + 1}" if number < 4 else None)


def test_the_result_keeps_the_whole_report_and_dies_in_time(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.report("Error", "C1", ErrorChain=[{"ErrorCode": 12, "ErrorDomain": "MCMDMErrorDomain"}])

    result = CommandResult.get(str(device), tables.RESULT + "C1")
    assert b"MCMDMErrorDomain" in (fleet.queue.report(result) or b"")
    assert result.error_chain == [{"ErrorCode": 12, "ErrorDomain": "MCMDMErrorDomain"}]
    assert result.ttl == int(fleet.clock().timestamp()) + 90 * 86_400


def test_a_large_report_lies_in_the_bucket(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.acknowledge("C1", ProfileList=["x" * 20_000])

    result = CommandResult.get(str(device), tables.RESULT + "C1")
    assert result.payload is None
    assert b"x" * 20_000 in fleet.queue.report(result)


@pytest.mark.parametrize("size", [100, 5_000, 500_000])
def test_what_a_device_receives_is_what_was_queued(fleet: Fleet, size: int) -> None:
    device = fleet.device()
    queued = command("C1", "InstallProfile", Payload=b"p" * size)
    fleet.enqueuer.enqueue(queued, [str(device)])

    page = fleet.queue.first_page(str(device))
    assert fleet.queue.payload(page.pending[0]) == queued.body
    assert device.idle() == "C1"


def test_an_expired_command_is_never_handed_out(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.clock.advance(days=181)
    fleet.enqueue([device], "C2")

    assert device.idle() == "C2"


def test_a_command_waits_for_its_time(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "LATER", not_before=fleet.clock().replace(hour=13))
    fleet.enqueue([device], "NOW")

    assert device.idle() == "NOW"
    fleet.clock.advance(hours=2)
    assert device.idle() == "LATER"


def test_the_same_request_again_is_the_same_command(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "C1")

    assert device.idle() == "C1"
    assert device.acknowledge("C1") is None
    outcome = fleet.enqueue([device], "C1")
    assert outcome.targets[str(device)].command_error is None
    assert device.idle() is None, "an answered command must not come back"


def test_the_same_uuid_with_another_body_is_refused(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")

    with pytest.raises(ConflictError) as refused:
        fleet.enqueuer.enqueue(command("C1", "SecurityInfo"), [str(device)])
    assert refused.value.code == "duplicate_command_uuid"


def test_the_same_id_twice_in_one_request_is_one_target(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device, device], "C1")

    assert device.idle() == "C1"
    assert device.acknowledge("C1") is None


def test_an_unknown_enrollment_fails_alone(fleet: Fleet) -> None:
    device = fleet.device()
    outcome = fleet.enqueue([str(device), "NOBODY"], "C1")

    assert isinstance(outcome.targets["NOBODY"].command_error, NotFoundError)
    assert outcome.targets[str(device)].queued
    assert device.idle() == "C1"


def test_a_checked_out_enrollment_is_refused_and_one_not_complete_is_not(fleet: Fleet) -> None:
    gone, new = fleet.device("GONE"), fleet.device("NEW", enrolled=False)
    gone.check_out()
    new.authenticate()
    outcome = fleet.enqueue([gone, new], "C1")

    error = outcome.targets["GONE"].command_error
    assert isinstance(error, ConflictError)
    assert error.code == "enrollment_ended"
    assert outcome.targets["NEW"].queued
    assert outcome.targets["NEW"].push_error == "push data missing for id"


def test_a_token_that_apns_refused_is_not_pushed_to_until_there_is_a_new_one(fleet: Fleet) -> None:
    device = fleet.device()
    record = device.record
    record.update([tables.Enrollment.push_failure.set("Unregistered")])

    outcome = fleet.enqueue([device], "C1").targets[str(device)]
    assert (outcome.queued, outcome.push_error) == (True, "APNs refused the push token: Unregistered")
    device.token_update(b"a new token")
    assert "refused" not in str(fleet.enqueue([device], "C2").targets[str(device)].push_error)


def test_one_command_for_many_enrollments_is_stored_once(fleet: Fleet) -> None:
    devices = [fleet.device(f"D{number}") for number in range(26)]
    fleet.enqueuer.enqueue(command("C1", "InstallProfile", Payload=b"p" * 8_000), [str(device) for device in devices])

    items = list(PendingCommand.query("D0", PendingCommand.item.startswith("c#")))
    assert items[0].payload is None
    assert {device.idle() for device in devices} == {"C1"}


def test_another_devices_certificate_gets_nothing(fleet: Fleet) -> None:
    fleet.device("D1")
    thief = FleetDevice(fleet, "D1", identity="identity of D2")

    with pytest.raises(IdentityError):
        thief.idle()


def test_enqueueing_is_announced(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    fleet.enqueue([device], "C1")

    (event,) = fleet.bus.take()
    assert event["topic"] == "mdm.CommandQueued"
    assert event["command_event"] == {
        "command_uuid": "C1",
        "request_type": "ProfileList",
        "enrollment_ids": [str(device)],
    }


def test_an_item_of_an_unknown_class_in_the_range_does_not_hide_the_commands_behind_it(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    table = fleet.settings.enrollment_table
    key = f"c#{device.record.generation}#0"
    fleet.emulator.dynamodb.put_item(
        TableName=table,
        Item={"enrollment_id": {"S": str(device)}, "item": {"S": key}, "cls": {"S": "of a later release"}},
    )

    assert device.idle() == "C1"
