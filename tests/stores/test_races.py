"""Two things at once: every pair that the queue's design decides, made to happen."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from mdmlib.errors import IdentityError
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore, LoginItems
from mdmlib.store.tables import Certificate, Enrollment, PendingCommand
from tests.fleet import Fleet


class Interrupted(EnrollmentStore):
    """After its first read something else happens, once."""

    def __init__(self, interruption: Callable[[], object]) -> None:
        self._interruptions: Iterator[Callable[[], object]] = iter([interruption])

    def _interrupt(self) -> None:
        for interruption in self._interruptions:
            interruption()

    def get(self, enrollment_id: str) -> Enrollment | None:
        record = super().get(enrollment_id)
        self._interrupt()
        return record

    def get_many(self, enrollment_ids: Iterable[str]) -> dict[str, Enrollment]:
        records = super().get_many(enrollment_ids)
        self._interrupt()
        return records

    def get_with_certificate(self, enrollment_id: str, sha256: str) -> tuple[Enrollment | None, Certificate | None]:
        found = super().get_with_certificate(enrollment_id, sha256)
        self._interrupt()
        return found

    def get_login(self, user_id: str, device_id: str) -> LoginItems:
        items = super().get_login(user_id, device_id)
        self._interrupt()
        return items


def interrupted(fleet: Fleet, interruption: Callable[[], object]) -> None:
    """Let ``interruption`` happen between the next read and what follows from it."""
    plain = fleet.enrollments

    def interrupt() -> None:
        fleet.enrollments = plain
        interruption()

    fleet.enrollments = Interrupted(interrupt)


def test_an_enqueue_that_meets_a_new_enrollment_reports_the_command_cleared(fleet: Fleet) -> None:
    device = fleet.device()
    interrupted(fleet, lambda: device.authenticate(OSVersion="15.2"))
    outcome = fleet.enqueue([device], "C1")

    error = outcome.targets[str(device)].command_error
    assert error is not None
    assert error.code == "cleared"
    device.token_update()
    assert device.idle() is None


def test_an_authenticate_overtaken_by_its_retry_and_the_token_update_is_dropped(fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)

    def retry() -> None:
        device.authenticate()
        device.token_update()
        fleet.enqueue([device], "C1")

    interrupted(fleet, retry)
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

    interrupted(fleet, begin_anew)
    with pytest.raises(IdentityError):
        device.token_update(b"a dead token")
    assert device.record.state == "authenticated"
    assert device.record.push is None


def test_a_user_channel_that_meets_its_devices_check_out_stays_ended(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    interrupted(fleet, device.check_out)
    with pytest.raises(IdentityError):
        user.token_update()
    assert fleet.enrollments.get(str(user)) is None


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


def test_many_enqueues_at_once_lose_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    enqueuer = fleet.enqueuer
    from tests.fleet import command

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
    fleet.connect._defer(pending, fleet.clock())

    assert fleet.enrollments.get(str(device)) is None
    assert list(PendingCommand.query(str(device), PendingCommand.item.startswith("c#"))) == []


def test_a_device_that_checks_out_while_it_is_enqueued_for_gets_nothing_later(fleet: Fleet) -> None:
    device = fleet.device()
    interrupted(fleet, device.check_out)
    outcome = fleet.enqueue([device], "C1")

    error = outcome.targets[str(device)].command_error
    assert error is not None
    assert error.code == "cleared"
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
