"""Two things at once: every pair that could cost a command, revive what has ended, or issue twice, made to happen.

A user channel that meets a new life of its device begins anew, and nothing old revives:
    ``a_user_channel_that_meets_its_devices_check_out…``, ``…new_enrollment_begins_anew``
An Authenticate is a repeat only of the last one, with no TokenUpdate since; one that was overtaken is dropped:
    ``an_authenticate_overtaken…``, ``one_authenticate_many_times_at_once…``, ``different_authenticates_at_once…``
A certificate that was replaced may report results and nothing else:
    ``a_token_update_that_meets_a_new_authenticate…``; who may do what: ``test_associations.py``
Who queues is told when the queue ended meanwhile; a sweep deletes only what is dead:
    ``an_enqueue_that_meets…`` (four), ``a_sweep_that_meets…``; late sweeps: ``tests/functions/test_housekeeping.py``
A batch never puts back a command that was answered:
    ``a_batch_whose_answer_was_lost…``, ``a_batch_that_wrote_nothing…``, ``a_resumed_request…`` (two)
Nothing that was deleted comes back as a stub:
    ``nothing_that_was_deleted_comes_back…``, ``a_not_now_that_meets_a_clear…``, ``a_touch…``
A report finds its command wherever it stands in the queue, for one read more:
    ``reports_at_once_on_a_command_far_back…``; what it costs: ``tests/functions/test_long_queues.py``
Two connects may be given one command, but none that begins after the final report:
    ``two_connects_at_once…``, ``no_connect_that_begins_after_a_final_report…``, ``a_final_report_that_meets…``
A challenge, a link's use and a certificate are one transaction, so a retry gets the same certificate:
    ``test_certificate_authority.py``: ``the_same_request_many_times_at_once…``, ``one_challenge_in_many_hands…``,
    ``a_link_is_good_for…``, ``a_renewal_that_meets_a_new_enrollment…``

``test_queue_model.py`` makes up what nobody thought of.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from mdmlib.errors import IdentityError
from mdmlib.store import tables
from mdmlib.store.tables import CommandResult, PendingCommand
from tests.fleet import Fleet, FleetDevice, command
from tests.interruptions import after_next_read, before_next_write


def refused_as(outcome: Any, device: FleetDevice) -> str | None:
    """Return the code that a target of an enqueue was refused with."""
    error = outcome.targets[str(device)].command_error
    return error.code if error else None


def test_an_enqueue_that_meets_a_new_enrollment_reports_the_command_cleared(fleet: Fleet) -> None:
    device = fleet.device()
    after_next_read(lambda: device.authenticate(OSVersion="15.2"))
    assert refused_as(fleet.enqueue([device], "C1"), device) == "cleared"
    device.token_update()
    assert device.idle() is None


def test_an_enqueue_that_meets_a_clear_reports_the_command_cleared(fleet: Fleet) -> None:
    device, other = fleet.device("D1"), fleet.device("D2")
    after_next_read(lambda: fleet.queues.clear(["D1"]))
    outcome = fleet.enqueue([device, other], "C1")

    assert (refused_as(outcome, device), refused_as(outcome, other)) == ("cleared", None)
    assert (device.idle(), other.idle()) == (None, "C1")
    assert refused_as(fleet.enqueue([device], "C1"), device) is None, "the same request again queues it"
    assert device.idle() == "C1"


@pytest.mark.parametrize("end", ["authenticate", "check_out"])
def test_an_enqueue_that_meets_the_end_of_a_user_channel_reports_the_command_cleared(fleet: Fleet, end: str) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    before_next_write(lambda: device.authenticate(OSVersion="15.2") if end == "authenticate" else device.check_out())

    assert refused_as(fleet.enqueue([user], "C1"), user) == "cleared"
    device.authenticate(OSVersion="15.3")
    user.token_update(b"new")
    assert user.idle() is None


def test_an_authenticate_overtaken_by_its_retry_and_the_token_update_is_dropped(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)

    def retry() -> None:
        device.authenticate()
        device.token_update()
        fleet.enqueue([device], "C1")

    after_next_read(retry)
    device.authenticate()

    assert device.record.state == "enrolled"
    assert device.idle() == "C1"
    assert fleet.bus.topics().count("mdm.Authenticate") == 1


def test_a_token_update_that_meets_a_new_authenticate_enables_nothing_old(fleet: Fleet) -> None:
    device = fleet.device()
    old_identity = device.identity

    def begin_anew() -> None:
        device.identity = "new"
        device.authenticate()
        device.identity = old_identity

    after_next_read(begin_anew)
    with pytest.raises(IdentityError):
        device.token_update(b"a dead token")
    assert device.record.state == "authenticated"
    assert device.record.push is None


def test_a_user_channel_that_meets_its_devices_check_out_stays_ended(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    after_next_read(device.check_out)
    with pytest.raises(IdentityError):
        user.token_update()
    assert fleet.enrollments.get(str(user)) is None


def test_a_user_channel_that_meets_its_devices_new_enrollment_begins_anew(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    user.token_update()
    fleet.enqueue([user], "OLD")
    generation = user.record.generation
    before_next_write(lambda: device.authenticate(OSVersion="15.2"))
    user.token_update(b"of the new life")

    assert user.record.generation < generation
    assert (user.record.token_update_tally, user.record.device_epoch) == (1, device.record.epoch)
    assert user.idle() is None


def test_one_authenticate_many_times_at_once_is_one_enrollment(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "OLD")
    generation = device.record.generation
    fleet.bus.take()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: device.authenticate(OSVersion="15.2"), range(8)))

    assert device.record.generation == tables.next_generation(generation)
    assert len({event["event_id"] for event in fleet.bus.take() if event["topic"] == "mdm.Authenticate"}) == 1


def test_different_authenticates_at_once_are_as_many_enrollments_one_after_the_other(fleet: Fleet) -> None:
    device = fleet.device()
    generation, epoch = device.record.generation, device.record.epoch
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: device.authenticate(OSVersion=f"16.{number}"), range(3)))

    assert int(generation, 16) - int(device.record.generation, 16) == 3
    assert device.record.epoch == epoch + 3
    device.token_update()
    fleet.enqueue([device], "C1")
    assert device.idle() == "C1"


def test_a_sweep_that_meets_what_is_queued_anew_deletes_only_what_is_dead(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "OLD")
    fleet.queues.clear([str(device)])

    def live_on() -> None:
        fleet.enqueue([device], "NEW")
        fleet.queues.clear([str(device)])
        fleet.enqueue([device], "NEWEST")

    before_next_write(live_on)
    fleet.sweep()

    assert device.idle() == "NEWEST"
    items = PendingCommand.query(str(device), PendingCommand.item.startswith(tables.PENDING))
    assert [item.command_uuid for item in items] == ["NEWEST"]


def test_a_batch_whose_answer_was_lost_does_not_put_back_an_answered_command(fleet: Fleet) -> None:
    device = fleet.device()
    real = fleet.batch_client()

    class Lossy:
        def batch_write_item(self, **request: Any) -> None:
            real.batch_write_item(**request)
            assert device.idle() == "C1"
            assert device.acknowledge("C1") is None
            raise ReadTimeoutError(endpoint_url="dynamodb")

    fleet.batch_client = Lossy
    outcome = fleet.enqueue([device], "C1")

    assert outcome.targets[str(device)].queued
    assert device.idle() is None


def test_a_batch_that_wrote_nothing_is_made_up_for(fleet: Fleet) -> None:
    devices = [fleet.device("D1"), fleet.device("D2")]
    real = fleet.batch_client()

    class Busy:
        def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's name
            table, requests = next(iter(RequestItems.items()))
            real.batch_write_item(RequestItems={table: requests[:1]})
            return {"UnprocessedItems": {table: requests[1:]}}

    fleet.batch_client = Busy
    fleet.enqueue(devices, "C1")

    assert [device.idle() for device in devices] == ["C1", "C1"]


def test_a_resumed_request_queues_what_was_not_queued_and_nothing_twice(fleet: Fleet) -> None:
    done, new = fleet.device("DONE"), fleet.device("NEW")
    fleet.enqueue([done], "C1")
    done.acknowledge("C1")
    fleet.enqueue([done, new], "C1")

    assert done.idle() is None
    assert new.idle() == "C1"


def test_a_resumed_request_that_meets_the_report_does_not_put_the_command_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    before_next_write(lambda: device.acknowledge("C1"))
    assert refused_as(fleet.enqueue([device], "C1"), device) is None

    assert device.idle() is None


def test_reports_at_once_on_a_command_far_back_settle_it_once(fleet: Fleet) -> None:
    device = fleet.device()
    for number in range(8):
        fleet.enqueue([device], f"C{number}")
    fleet.bus.take()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: device.acknowledge("C7"), range(8))) == {"C0"}

    assert len({event["event_id"] for event in fleet.bus.take()}) == 1
    for number in range(7):
        assert device.acknowledge(f"C{number}") == (f"C{number + 1}" if number < 6 else None)


def test_two_connects_at_once_settle_a_command_once(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "C2")
    fleet.bus.take()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: device.acknowledge("C1"), range(8)))

    assert set(answers) == {"C2"}
    assert len({event["event_id"] for event in fleet.bus.take()}) == 1
    assert device.idle() == "C2"


def test_no_connect_that_begins_after_a_final_report_gets_the_command(fleet: Fleet) -> None:
    device = fleet.device()
    for round_ in range(6):
        uuid = f"C{round_}"
        fleet.enqueue([device], uuid)
        settled = Event()

        def connect_until_settled(settled: Event = settled) -> list[tuple[bool, str | None]]:
            seen: list[tuple[bool, str | None]] = []
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not (seen and seen[-1][0]):
                begun_after = settled.is_set()
                seen.append((begun_after, device.idle()))
            return seen

        with ThreadPoolExecutor(4) as pool:
            connects = [pool.submit(connect_until_settled) for _ in range(3)]
            device.acknowledge(uuid)
            settled.set()
        answers = [answer for connect in connects for answer in connect.result()]
        assert {answer for begun_after, answer in answers if begun_after} == {None}
        assert {answer for begun_after, answer in answers if not begun_after} <= {uuid, None}


def test_different_final_reports_at_once_leave_the_first_ones_result(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.bus.take()
    statuses = ("Acknowledged", "Error", "CommandFormatError")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda status: device.report(status, "C1"), statuses))

    result = CommandResult.get(str(device), tables.RESULT + "C1")
    assert result.status in statuses
    assert {event["event_id"] for event in fleet.bus.take()} == {result.event_id}


def test_a_final_report_that_meets_a_clear_leaves_its_result_and_nothing_else(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    fleet.enqueue([device], "C2")
    before_next_write(lambda: fleet.queues.clear([str(device)]) and fleet.sweep())
    device.acknowledge("C1")

    assert CommandResult.get(str(device), tables.RESULT + "C1").status == "Acknowledged"
    assert device.idle() is None


def test_a_not_now_that_meets_a_clear_brings_nothing_back(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    before_next_write(lambda: fleet.queues.clear([str(device)]) and fleet.sweep())
    device.not_now("C1")

    assert device.idle() is None
    assert list(PendingCommand.query(str(device), PendingCommand.item.startswith("c#"))) == []


def test_a_final_report_that_meets_its_commands_cancelling_leaves_its_result(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    before_next_write(lambda: fleet.queues.cancel(str(device), "C1"))
    assert device.acknowledge("C1") is None

    assert CommandResult.get(str(device), tables.RESULT + "C1").status == "Acknowledged"


def test_a_clear_that_meets_a_new_enrollment_leaves_what_is_queued_since(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "OLD")

    def begin_anew() -> None:
        device.authenticate(OSVersion="15.2")
        fleet.enqueue([device], "NEW")

    after_next_read(begin_anew)
    assert fleet.queues.clear([str(device)]) == {str(device): None}
    device.token_update()
    assert device.idle() == "NEW"


def test_many_clears_and_enqueues_at_once_deliver_what_they_said(fleet: Fleet) -> None:
    device = fleet.device()
    told: dict[str, str | None] = {}

    def queue(number: int) -> None:
        if number % 3:
            uuid = f"C{number}"
            told[uuid] = refused_as(fleet.enqueue([device], uuid), device)
        else:
            fleet.queues.clear([str(device)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(queue, range(30)))
    fleet.sweep()

    seen = []
    while uuid := device.idle():
        seen.append(uuid)
        device.acknowledge(uuid)
    assert set(told.values()) <= {None, "cleared"}
    assert [uuid for uuid in seen if told[uuid]] == [], "what was reported as cleared must not go out"


def test_many_enqueues_at_once_lose_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    enqueuer = fleet.enqueuer
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: enqueuer.enqueue(command(f"C{number}"), [str(device)]), range(24)))

    seen = []
    uuid = device.idle()
    while uuid:
        seen.append(uuid)
        uuid = device.acknowledge(uuid)
    assert sorted(seen) == sorted(f"C{number}" for number in range(24))


def test_nothing_that_was_deleted_comes_back_as_a_stub(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.enqueue([device], "C1")
    (pending,) = fleet.queue.first_page(str(device)).pending
    record = device.record
    pending.delete()
    record.delete()

    fleet.enrollments.touch(record, at=1)
    fleet.queue.defer(pending, at=1)

    assert fleet.enrollments.get(str(device)) is None
    assert list(PendingCommand.query(str(device), PendingCommand.item.startswith("c#"))) == []


def test_a_touch_or_a_clear_that_meets_a_deletion_leaves_no_stub(fleet: Fleet) -> None:
    device = fleet.device()
    record = device.record
    after_next_read(record.delete)
    fleet.queues.clear([str(device)])
    assert fleet.enrollments.get(str(device)) is None

    device = fleet.device("D2")
    fleet.clock.advance(days=1)
    before_next_write(device.record.delete)
    device.idle()
    assert fleet.enrollments.get("D2") is None


def test_a_device_that_checks_out_while_it_is_enqueued_for_gets_nothing_later(fleet: Fleet) -> None:
    device = fleet.device()
    after_next_read(device.check_out)
    assert refused_as(fleet.enqueue([device], "C1"), device) == "cleared"
    device.authenticate()
    device.token_update()
    assert device.idle() is None


def test_a_certificate_claimed_by_two_enrollments_at_once_goes_to_one(fleet: Fleet) -> None:
    first, second = fleet.device("D1", enrolled=False), fleet.device("D2", enrolled=False)
    second.identity = first.identity

    def claim(device: Any) -> str:
        try:
            device.authenticate()
        except IdentityError:
            return "refused"
        return "enrolled"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(claim, (first, second)))
    assert outcomes == ["enrolled", "refused"]
    assert tables.Certificate.get(tables.CERTIFICATE_PARTITION + first.certificate.hash, tables.RECORD).associated_id
