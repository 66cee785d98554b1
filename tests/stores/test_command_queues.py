"""What administrators do to queues: clear them, take commands back; and what becomes of what was dropped."""

import pytest

from mdmlib.errors import ConflictError, NotFoundError
from mdmlib.store import tables
from mdmlib.store.tables import CommandResult, Enrollment, PendingCommand
from tests.fleet import Fleet, FleetDevice


def items(device: FleetDevice) -> list[PendingCommand]:
    """Return all pending items of a partition, dead ones too."""
    return list(PendingCommand.query(str(device), PendingCommand.item.startswith(tables.PENDING), consistent_read=True))


def test_a_cleared_queue_is_empty_at_once(fleet: Fleet) -> None:
    device = fleet.device()
    for number in range(3):
        fleet.enqueue([device], f"C{number}")

    assert fleet.queues.clear([str(device)]) == {str(device): None}
    assert device.idle() is None


def test_what_is_queued_after_a_clear_goes_out(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "OLD")
    fleet.queues.clear([str(device)])
    fleet.enqueue([device], "NEW")

    assert device.idle() == "NEW"
    assert device.acknowledge("NEW") is None


def test_what_was_cleared_is_swept_and_what_came_after_is_not(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "OLD")
    fleet.queues.clear([str(device)])
    fleet.enqueue([device], "NEW")
    assert fleet.sweep() == 1

    assert [item.command_uuid for item in items(device)] == ["NEW"]
    assert device.idle() == "NEW"


def test_a_clear_leaves_the_enrollment_as_it_is(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    before = device.record.serialize()
    fleet.queues.clear([str(device)])
    after = device.record.serialize()

    assert after.pop("generation")["S"] < before.pop("generation")["S"]
    assert after == before
    assert user.idle() is None


def test_a_user_channels_queue_is_its_own(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    fleet.enqueue([device], "OF THE DEVICE")
    fleet.enqueue([user], "OF THE USER")

    fleet.queues.clear([str(device)])
    assert (device.idle(), user.idle()) == (None, "OF THE USER")
    fleet.queues.clear([str(user)])
    assert user.idle() is None


def test_a_report_on_a_command_that_was_cleared_leaves_its_result(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.idle()
    fleet.queues.clear([str(device)])

    assert device.acknowledge("C1") is None
    assert CommandResult.get(str(device), tables.RESULT + "C1").status == "Acknowledged"


def test_a_not_now_on_a_command_that_was_cleared_brings_nothing_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.idle()
    fleet.queues.clear([str(device)])

    assert device.not_now("C1") is None
    assert device.idle() is None


def test_who_is_unknown_is_told_so_and_the_others_are_cleared(fleet: Fleet) -> None:
    device, deleted = fleet.device("D1"), fleet.device("D2")
    deleted.record.update([Enrollment.state.set("deleted")])
    fleet.enqueue([device], "C1")
    outcome = fleet.queues.clear(["NOBODY", "D2", "D1", "D1", "command#C1"])

    assert list(outcome) == ["NOBODY", "D2", "D1", "command#C1"]
    assert outcome["D1"] is None
    for id_ in ("NOBODY", "D2", "command#C1"):
        assert isinstance(outcome[id_], NotFoundError)
    assert device.idle() is None


def test_one_command_is_taken_back(fleet: Fleet) -> None:
    devices = [fleet.device("D1"), fleet.device("D2")]
    for number in range(6):
        fleet.enqueue(devices, f"C{number}")
    fleet.queues.cancel("D1", "C0")
    fleet.queues.cancel("D1", "C5")

    assert devices[0].idle() == "C1"
    for number in range(1, 5):
        assert devices[0].acknowledge(f"C{number}") == (f"C{number + 1}" if number < 4 else None)
    assert devices[1].idle() == "C0"


def test_a_deferred_command_can_be_taken_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.not_now("C1")
    fleet.queues.cancel(str(device), "C1")

    assert device.idle() is None


def test_what_does_not_wait_cannot_be_taken_back(fleet: Fleet) -> None:
    device, other = fleet.device("D1"), fleet.device("D2")
    fleet.enqueue([device], "C1")
    fleet.enqueue([other], "OF ANOTHER")
    fleet.queues.cancel("D1", "C1")

    for uuid in ("C1", "NEVER", "OF ANOTHER", "x" * 5_000):
        with pytest.raises(NotFoundError) as refused:
            fleet.queues.cancel("D1", uuid)
        assert refused.value.code == "unknown_command"
    with pytest.raises(NotFoundError) as refused:
        fleet.queues.cancel("NOBODY", "C1")
    assert refused.value.code == "unknown_enrollment"
    assert other.idle() == "OF ANOTHER"


def test_what_was_cleared_cannot_be_taken_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.queues.clear([str(device)])

    with pytest.raises(NotFoundError):
        fleet.queues.cancel(str(device), "C1")


def test_what_the_device_has_finished_cannot_be_taken_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.report("Error", "C1")

    with pytest.raises(ConflictError) as refused:
        fleet.queues.cancel(str(device), "C1")
    assert refused.value.code == "command_finished"


def test_a_command_that_was_taken_back_is_queued_again_by_the_same_request(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.queues.cancel(str(device), "C1")
    fleet.enqueue([device], "C1")

    assert device.idle() == "C1"


def test_a_report_on_a_command_that_was_taken_back_leaves_its_result(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    device.idle()
    fleet.queues.cancel(str(device), "C1")

    assert device.acknowledge("C1") is None
    assert CommandResult.get(str(device), tables.RESULT + "C1").status == "Acknowledged"
