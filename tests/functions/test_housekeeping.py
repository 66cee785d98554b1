"""The housekeeping function: what was left in the outbox and the fallback queue goes out, what is dead is deleted."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config

from functions.housekeeping.app import lambda_handler
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.errors import UnavailableError
from mdmlib.services.events import MDMEvent, outbox_item
from mdmlib.services.housekeeping import Housekeeping
from mdmlib.settings import Settings
from mdmlib.store.tables import DedupKey, Enrollment, EnrollmentItem, OutboxEvent, PendingCommand
from tests.fleet import Bus
from tests.queues import FunctionContext, QueueSource

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
# Generations count down: the next one after LIVING sorts before it.
OLDEST, OLDER, LIVING, NEWER = "ffffffff", "fffffffe", "fffffffd", "fffffffc"


@pytest.fixture
def bus(aws: Emulator, environment: Settings) -> Bus:
    runtime.bind_tables()
    return Bus(aws, environment.event_bus)


@pytest.fixture
def unreachable(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the publisher find nobody where the bus should be."""
    config = Config(connect_timeout=1, retries={"total_max_attempts": 1}, parameter_validation=False)
    client = boto3.client("events", endpoint_url="http://127.0.0.1:1", config=config)
    monkeypatch.setattr(runtime, "events_client", lambda: client)


@pytest.fixture
def fallback(aws: Emulator, environment: Settings) -> QueueSource:
    return QueueSource(aws, environment.event_fallback_queue_url, lambda_handler)


@pytest.fixture
def sweeps(aws: Emulator, environment: Settings) -> QueueSource:
    runtime.bind_tables()
    return QueueSource(aws, environment.sweep_queue_url, lambda_handler)


def event(event_id: str, *, age: timedelta = timedelta(minutes=5)) -> MDMEvent:
    created_at = (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z")
    document = {"topic": "mdm.CheckOut", "event_id": event_id, "created_at": created_at, "checkin_event": {}}
    return MDMEvent.from_document(document)


def run_schedule() -> Any:
    context: Any = FunctionContext()
    return lambda_handler({"source": "aws.events", "detail-type": "Scheduled Event"}, context)


def left() -> set[str]:
    return {item.item for shard in range(16) for item in OutboxEvent.query(f"outbox#{shard:x}")}


def test_events_left_in_any_shard_of_the_outbox_are_published_once(bus: Bus) -> None:
    events = [event(f"event-{number}") for number in range(40)]
    for one in events:
        outbox_item(one).save()
    assert len({outbox_item(one).enrollment_id for one in events}) > 10

    run_schedule()
    run_schedule()

    assert sorted(document["event_id"] for document in bus.take()) == sorted(one.event_id for one in events)
    assert left() == set()


def test_an_event_that_is_still_being_published_is_left_to_its_publisher(bus: Bus) -> None:
    outbox_item(event("new", age=timedelta(seconds=5))).save()

    run_schedule()

    assert bus.take() == []
    assert left() == {"new"}


@pytest.mark.usefixtures("unreachable")
def test_the_outbox_keeps_its_events_while_the_bus_is_down() -> None:
    outbox_item(event("waiting")).save()

    # An error of the function, so that somebody is told.
    with pytest.raises(UnavailableError):
        run_schedule()

    assert left() == {"waiting"}


def test_an_event_of_the_fallback_queue_reaches_the_bus_as_it_was(bus: Bus, fallback: QueueSource) -> None:
    waiting = event("waiting")
    fallback.send(waiting.detail)

    assert fallback.invoke().done == [waiting.detail]

    assert bus.take() == [json.loads(waiting.detail)]


@pytest.mark.usefixtures("unreachable")
def test_the_fallback_queue_keeps_its_events_while_the_bus_is_down(fallback: QueueSource) -> None:
    fallback.send(event("waiting").detail)

    assert len(fallback.invoke().stayed) == 1


def test_a_broken_message_stays_and_stops_no_other(bus: Bus, fallback: QueueSource) -> None:
    fallback.send("broken")
    fallback.send(event("whole").detail)

    batch = fallback.invoke()

    assert batch.stayed == ["broken"]
    assert [document["event_id"] for document in bus.take()] == ["whole"]


def pending(generation: str, number: int) -> PendingCommand:
    return PendingCommand(
        UDID,
        f"c#{generation}#5{number:020x}",
        command_uuid=f"{generation}-{number}",
        request_type="DeviceInformation",
        payload=b"sealed",
        enqueued_at=1,
        waiting_shard="0",
        expires_at=2,
    )


def fill() -> None:
    Enrollment(UDID, "!", type="Device", state="enrolled", generation=LIVING).save()
    for generation in (OLDEST, OLDER, LIVING, NEWER):
        for number in range(30):
            pending(generation, number).save()
        DedupKey(UDID, f"d#{generation}#key", command_uuid="C1").save()


def present() -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in EnrollmentItem.query(UDID):
        kind = "#".join(item.item.split("#")[:2])
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def test_a_sweep_deletes_older_generations_and_nothing_else(sweeps: QueueSource) -> None:
    fill()
    sweeps.send(json.dumps({"enrollment_id": UDID, "generation": LIVING}))

    sweeps.invoke()

    living = {"!": 1}
    for generation in (LIVING, NEWER):
        living |= {f"c#{generation}": 30, f"d#{generation}": 1}
    assert present() == living


def test_a_late_sweep_leaves_what_was_queued_since(sweeps: QueueSource) -> None:
    fill()
    sweeps.send(json.dumps({"enrollment_id": UDID, "generation": OLDER}))

    sweeps.invoke()

    assert f"c#{OLDEST}" not in present()
    assert present()[f"c#{OLDER}"] == 30


def test_a_long_queue_is_swept_by_several_messages(
    sweeps: QueueSource, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    housekeeping = Housekeeping(
        events=runtime.events(),
        sweeps=runtime.sweeps(),
        renewals=runtime.identity_renewals,
        jobs=runtime.command_jobs,
        push_jobs=runtime.push_jobs,
        push_again=runtime.push_again,
        stale=runtime.stale_enrollments,
        release=runtime.setup_release,
        plan_looks=runtime.plan_looks,
        vitals=runtime.vitals(),
        settings=environment,
        now=runtime.now,
        tell_plan=runtime.workflow_queue().look_at,
        keep_rules=runtime.workflow_events().keep_rules,
        sweep_items=20,
    )
    monkeypatch.setattr(runtime, "housekeeping", lambda: housekeeping)
    sweeps.send(json.dumps({"enrollment_id": UDID, "generation": LIVING}))

    invocations = 0
    while sweeps.count():
        assert sweeps.invoke().stayed == []
        invocations += 1

    assert invocations == 4
    assert f"c#{OLDEST}" not in present()
    assert f"d#{OLDER}" not in present()
    assert present()[f"c#{LIVING}"] == 30


@pytest.mark.parametrize(
    "body",
    [
        "broken",
        "[]",
        '{"enrollment_id": "A"}',
        '{"enrollment_id": "", "generation": "ffffffff"}',
        '{"enrollment_id": "A", "generation": "0"}',
        '{"enrollment_id": ["A"], "generation": "ffffffff"}',
    ],
)
def test_a_sweep_that_names_nothing_deletes_nothing(body: str, sweeps: QueueSource) -> None:
    sweeps.send(body)

    assert sweeps.invoke().stayed == [body]


def test_a_message_of_an_unknown_queue_stays_there(aws: Emulator, environment: Settings) -> None:
    stranger = QueueSource(aws, environment.push_queue_url, lambda_handler)
    stranger.send("{}")

    assert stranger.invoke().stayed == ["{}"]
