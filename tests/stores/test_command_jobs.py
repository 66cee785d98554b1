"""Jobs: a command for many enrollments, a page a message."""

import json
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.command_jobs import Selection
from mdmlib.store import tables
from mdmlib.store.tables import CommandJob
from tests.fleet import Fleet, FleetDevice, command

OPTIONS: dict[str, Any] = {
    "priority": 5,
    "push": False,
    "expires_at": None,
    "not_before": None,
    "dedup_key": None,
    "force": False,
}
EVERYBODY = Selection()


@pytest.fixture
def devices(fleet: Fleet) -> list[FleetDevice]:
    """Five Macs, one of which has left, and the user of one."""
    devices = []
    for number in range(5):
        device = FleetDevice(fleet, f"D{number}")
        device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber=f"C02{number}")
        device.token_update()
        devices.append(device)
    devices[4].check_out()
    user = devices[0].user()
    user.token_update(UserShortName="ada")
    return [*devices, user]


def start(fleet: Fleet, uuid: str, selection: Selection = EVERYBODY, **options: Any) -> CommandJob:
    return fleet.jobs.start(command(uuid), selection, **{**OPTIONS, **options})


def waiting(devices: list[FleetDevice]) -> list[str | None]:
    return [device.idle() for device in devices if device.udid != "D4"]


def messages(fleet: Fleet) -> list[dict[str, Any]]:
    """Take what is in the sweep queue out of it."""
    queue, bodies = fleet.settings.sweep_queue_url, []
    while found := fleet.emulator.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in found:
            bodies.append(json.loads(message["Body"]))
            fleet.emulator.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return [body for body in bodies if "task" in body]


def test_a_job_reaches_everybody_who_is_enabled_page_by_page(fleet: Fleet, devices: list[FleetDevice]) -> None:
    fleet.job_page = 2
    job = start(fleet, "C1")
    assert (job.state, job.queued) == ("running", 0)

    fleet.sweep()

    assert waiting(devices) == ["C1"] * 5
    job = fleet.jobs.get(job.name)
    assert (job.state, job.queued, job.refused, job.examined) == ("done", 5, 0, 6)
    assert job.step >= 3


def test_a_job_may_be_for_some_types_only(fleet: Fleet, devices: list[FleetDevice]) -> None:
    start(fleet, "C1", Selection(types=["User"]))
    fleet.sweep()

    assert waiting(devices) == [None, None, None, None, "C1"]


def test_a_job_for_serial_numbers_reaches_their_devices_and_names_the_others(
    fleet: Fleet, devices: list[FleetDevice]
) -> None:
    fleet.job_page = 2
    job = start(fleet, "C1", Selection(serial_numbers=["C022", "NONE", "C020", "C024"]))
    fleet.sweep()

    assert waiting(devices) == ["C1", None, "C1", None, None]
    job = fleet.jobs.get(job.name)
    assert (job.state, job.queued, job.refused) == ("done", 2, 2)
    assert [(error["target"], error["code"]) for error in job.errors] == [
        ("NONE", "unknown_serial_number"),
        ("C024", "unknown_serial_number"),
    ]


def test_who_cannot_do_the_command_is_named(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = fleet.jobs.start(command("C1", "EnableLostMode", Message="m"), EVERYBODY, **OPTIONS)
    fleet.sweep()

    job = fleet.jobs.get(job.name)
    assert (job.queued, job.refused) == (0, 5)
    assert {error["code"] for error in job.errors} == {"unsuitable_command"}


def test_a_message_that_comes_twice_puts_nothing_back(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = start(fleet, "C1")
    (message,) = messages(fleet)
    fleet.jobs.receive(message)
    assert devices[0].idle() == "C1"
    devices[0].acknowledge("C1")

    fleet.jobs.receive(message)

    assert devices[0].idle() is None
    assert fleet.jobs.get(job.name).queued == 5


def test_a_page_that_was_done_but_not_written_down_is_done_again_without_harm(
    fleet: Fleet, devices: list[FleetDevice]
) -> None:
    job = start(fleet, "C1")
    (message,) = messages(fleet)
    fleet.enqueuer.enqueue_stored("C1", ["D0", "D1"], push=False, not_before=None, force=False)
    devices[0].acknowledge("C1")

    fleet.jobs.receive(message)

    assert devices[0].idle() is None
    assert devices[1].idle() == "C1"
    assert fleet.jobs.get(job.name).state == "done"


def test_a_page_whose_successor_was_not_asked_for_is_followed_by_it(fleet: Fleet, devices: list[FleetDevice]) -> None:
    fleet.job_page = 2
    job = start(fleet, "C1")
    (first,) = messages(fleet)
    fleet.jobs.receive(first)
    assert [message["step"] for message in messages(fleet)] == [1]  # It is lost here.

    fleet.jobs.receive(first)
    fleet.sweep()

    assert fleet.jobs.get(job.name).state == "done"
    assert waiting(devices) == ["C1"] * 5


def test_two_who_do_the_same_page_count_it_once(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = start(fleet, "C1")
    late = fleet.jobs.get(job.name)
    fleet.sweep()

    fleet.jobs._do_page(late)

    assert fleet.jobs.get(job.name).queued == 5


def test_the_same_request_again_is_the_same_job(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = start(fleet, "C1")
    assert start(fleet, "C1").name == job.name
    fleet.sweep()
    assert start(fleet, "C1").state == "done"

    with pytest.raises(ConflictError) as error:
        start(fleet, "C1", Selection(types=["User"]))
    assert error.value.code == "job_exists"


def test_a_cancelled_job_queues_nothing_more(fleet: Fleet, devices: list[FleetDevice]) -> None:
    fleet.job_page = 2
    job = start(fleet, "C1")
    (message,) = messages(fleet)
    fleet.jobs.receive(message)

    assert fleet.jobs.cancel(job.name).state == "cancelled"
    fleet.sweep()

    assert fleet.jobs.get(job.name).queued <= 2
    assert fleet.jobs.cancel(job.name).state == "cancelled"
    assert len([found for found in waiting(devices) if found]) <= 2


def test_a_job_that_is_over_cannot_be_cancelled(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = start(fleet, "C1")
    fleet.sweep()

    assert fleet.jobs.cancel(job.name).state == "done"


def test_a_job_whose_command_is_not_kept_any_more_fails(fleet: Fleet, devices: list[FleetDevice]) -> None:
    job = start(fleet, "C1")
    tables.Command("command#C1", "!").delete()
    late = start(fleet, "C2", expires_at=fleet.clock() + timedelta(hours=1))
    fleet.clock.advance(hours=1)
    fleet.sweep()

    assert fleet.jobs.get(job.name).state == fleet.jobs.get(late.name).state == "failed"


def test_a_message_of_a_job_that_nobody_knows_is_done_with(fleet: Fleet) -> None:
    fleet.jobs.receive({"task": "command_job", "job": "nobody", "step": 0})

    with pytest.raises(NotFoundError):
        fleet.jobs.get("nobody")


def test_serial_numbers_that_no_item_holds_are_refused(fleet: Fleet) -> None:
    texts = [Random(number).randbytes(40).hex() for number in range(10_000)]
    with pytest.raises(BadRequestError) as error:
        start(fleet, "C1", Selection(serial_numbers=texts))

    assert error.value.code == "too_large"


def test_the_newest_jobs_are_listed_first(fleet: Fleet, devices: list[FleetDevice]) -> None:
    start(fleet, "C1")
    fleet.clock.advance(seconds=1)
    start(fleet, "C2")

    assert [job.command_uuid for job in fleet.jobs.list()] == ["C2", "C1"]
