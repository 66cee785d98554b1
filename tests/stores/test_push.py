"""Waking devices: real queues and records, a strict APNs in another process."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.apns.process import ApnsControl, ApnsSimulator
from local.emulator import Emulator
from mdmlib.clients.apns import ApnsClient
from mdmlib.services.events import EventPublisher
from mdmlib.services.push import MAX_ATTEMPTS, STOP_SECONDS, PushService
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_pace import PushPace
from mdmlib.services.push_queue import PushMessage, PushQueue, PushTarget
from mdmlib.services.push_refusals import PushRefusals
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.aws_calls import watch
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet, FleetDevice

TOKEN = b"\x70\x15" * 16
MAGIC = "magic"  # what a FleetDevice says


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApnsSimulator]:
    simulator = ApnsSimulator.start(tmp_path_factory.mktemp("apns"))
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def push_certificate(simulator: ApnsSimulator) -> bytes:
    return simulator.control.issue(TOPIC)


@pytest.fixture
def apns(simulator: ApnsSimulator) -> Iterator[ApnsControl]:
    simulator.control.reset()
    for device in simulator.control.devices():
        simulator.control.remove(device["token"])
    yield simulator.control
    assert simulator.control.violations() == []


@dataclass
class Sent:
    """A message that the worker put on the push queue."""

    delay_seconds: int
    message: PushMessage


@dataclass
class Worker:
    """A push worker at the push queue."""

    simulator: ApnsSimulator
    fleet: Fleet
    sealer: Sealer
    sent: list[Sent] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    per_second: int = 10_000
    apns_seconds: float = 10

    def __post_init__(self) -> None:
        self.sqs = boto3.client("sqs")
        watch(self.sqs, before=self._note)
        self.queue = PushQueue(lambda: self.sqs, queue_url=self.fleet.settings.push_queue_url, sealer=self.sealer)
        self.certificates = PushCertificates(sealer=self.sealer, now=self.fleet.clock)
        self.events = self.fleet.events
        self.clients: list[ApnsClient] = []

    def _note(self, operation: str, parameters: dict[str, Any]) -> None:
        for entry in parameters["Entries"] if operation == "SendMessageBatch" else ():
            message = PushMessage.decode(entry["MessageBody"], self.sealer)
            self.sent.append(Sent(entry["DelaySeconds"], message))

    def _connect(self, *arguments: Any) -> ApnsClient:
        client = ApnsClient(
            *arguments,
            url=self.simulator.url,
            trust_anchor=self.simulator.trust_anchor,
            answer_seconds=self.apns_seconds,
        )
        self.clients.append(client)
        return client

    def service(self) -> PushService:
        return PushService(
            connect=self._connect,
            certificates=self.certificates,
            queue=self.queue,
            refusals=PushRefusals(
                enrollments=self.fleet.enrollments, events=self.events, sealer=self.sealer, now=self.fleet.clock
            ),
            sealer=self.sealer,
            pace=PushPace(self.per_second, clock=lambda: 0.0, sleep=self.sleeps.append),
            now=self.fleet.clock,
            jitter=lambda: 1.0,
        )

    def deliver(self, *messages: PushMessage) -> list[str]:
        """Deliver messages with the ids 1, 2, …; return the ids of those that must come again."""
        bodies = {str(number): message.encode(self.sealer) for number, message in enumerate(messages, 1)}
        return self.service().deliver(bodies)


@pytest.fixture
def worker(
    aws: Emulator, simulator: ApnsSimulator, apns: ApnsControl, fleet: Fleet, sealer: Sealer, push_certificate: bytes
) -> Iterator[Worker]:
    worker = Worker(simulator, fleet, sealer)
    worker.certificates.upload(push_certificate)
    yield worker
    for client in worker.clients:
        client.close()


@pytest.fixture
def device(fleet: Fleet, apns: ApnsControl) -> FleetDevice:
    """An enrolled device that APNs knows."""
    device = fleet.device(enrolled=False)
    apns.register(TOKEN.hex(), topic=TOPIC, magic=MAGIC)
    device.authenticate()
    device.token_update(TOKEN)
    fleet.bus.take()
    return device


def target(device: FleetDevice | str, token: bytes = TOKEN, number: int = 1) -> PushTarget:
    return PushTarget(str(device), TOPIC, token.hex(), MAGIC, f"0190163D-8694-739B-AEA5-{number:012X}")


def others(apns: ApnsControl, count: int) -> list[PushTarget]:
    """Return targets that APNs knows, each of another enrollment."""
    tokens = [number.to_bytes(4, "big") for number in range(1, count + 1)]
    for token in tokens:
        apns.register(token.hex(), topic=TOPIC, magic=MAGIC)
    return [target(f"D{number}", token, number) for number, token in enumerate(tokens, 1)]


def message(*targets: PushTarget, attempt: int = 0) -> PushMessage:
    return PushMessage(topic=targets[0].topic, targets=targets, attempt=attempt)


def test_a_push_wakes_the_device_and_is_written_nowhere(
    worker: Worker, device: FleetDevice, apns: ApnsControl, fleet: Fleet
) -> None:
    before = device.record.serialize()
    # APNs lives in the present, whatever the server's clock says: what has expired there wakes nobody.
    kept = dataclasses.replace(target(device), expiration=int(time.time()) + 60)

    assert worker.deliver(message(kept)) == []

    woken = apns.wait(TOKEN.hex())
    assert woken
    assert woken["apns_id"] == target(device).apns_id.lower()
    assert (device.record.serialize(), worker.sent, fleet.bus.take()) == (before, [], [])


def test_apns_keeps_a_push_for_a_week_unless_it_says_otherwise(
    worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
) -> None:
    (other,) = others(apns, 1)

    worker.deliver(message(target(device), dataclasses.replace(other, expiration=0)))

    week = int((clock() + timedelta(days=7)).timestamp())
    assert [push["expiration"] for push in apns.pushes()] == [str(week), "0"]


def test_messages_of_one_topic_share_a_connection(worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
    before = apns.status()["connections_made"]

    worker.deliver(*[message(each) for each in others(apns, 10)])

    assert len(apns.pushes()) == 10
    assert apns.status()["connections_made"] == before + 1


def test_topics_have_their_own_certificates(worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
    other = "com.apple.mgmt.External.another"
    worker.certificates.upload(apns.issue(other))
    apns.register("0a", topic=other, magic=MAGIC)

    stay = worker.deliver(message(target(device)), message(dataclasses.replace(target("other", b"\x0a"), topic=other)))

    assert stay == []
    assert [push["status"] for push in apns.pushes()] == [200, 200]


def test_a_message_that_cannot_be_read_does_not_hold_up_the_others(
    worker: Worker, device: FleetDevice, apns: ApnsControl
) -> None:
    good = message(target(device)).encode(worker.sealer)
    moved = good.replace(TOPIC, "com.apple.mgmt.External.another")

    assert worker.service().deliver({"1": "{}", "2": good, "3": moved}) == ["1", "3"]
    assert len(apns.pushes()) == 1


class TestRefusedToken:
    def test_a_dead_token_is_recorded_and_published(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, fleet: Fleet, clock: Clock
    ) -> None:
        clock.advance(minutes=5)
        apns.unregister(TOKEN.hex(), timestamp=int(clock().timestamp() * 1000))

        assert worker.deliver(message(target(device))) == []

        assert device.record.push_failure == "Unregistered"
        assert device.record.push_failed_at == clock().timestamp()
        (event,) = fleet.bus.take()
        assert event == {
            "topic": "mdm.PushFailed",
            "event_id": target(device).apns_id.lower(),
            "created_at": "2026-11-20T12:05:00Z",
            "push_event": {
                "apns_id": target(device).apns_id,
                "reason": "Unregistered",
                "status": 410,
                "unregistered_at": "2026-11-20T12:05:00Z",
                "ids": {"id": str(device), "type": "Device"},
                "enrollment_type": "Device",
                "serial_number": "C02XXXX",
            },
        }
        assert worker.sent == []

    def test_a_refusal_that_is_told_again_is_the_same_event(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, fleet: Fleet, clock: Clock
    ) -> None:
        apns.remove(TOKEN.hex())
        body = message(target(device))

        worker.deliver(body)
        clock.advance(minutes=6)
        worker.deliver(body)

        first, again = fleet.bus.take()
        assert first == again

    def test_a_token_that_never_was_one_is_recorded(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.remove(TOKEN.hex())

        worker.deliver(message(target(device)))

        assert device.record.push_failure == "BadDeviceToken"

    def test_the_next_token_update_ends_it(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.remove(TOKEN.hex())
        worker.deliver(message(target(device)))
        assert device.record.push_failure
        clock.advance(hours=1)

        device.token_update(TOKEN)

        assert device.record.push_failure is None
        assert device.record.push_failed_at is None

    def test_refusing_a_token_that_was_replaced_says_nothing_about_the_new_one(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, fleet: Fleet
    ) -> None:
        new = b"\x0e" * 32
        apns.remove(TOKEN.hex())
        apns.register(new.hex(), topic=TOPIC, magic=MAGIC)
        device.token_update(new)
        fleet.bus.take()

        assert worker.deliver(message(target(device))) == []

        assert device.record.push_failure is None
        assert fleet.bus.take() == []
        (again,) = worker.sent
        assert worker.deliver(again.message) == []
        assert apns.device(new.hex())["pushes"] == 1

    def test_a_refusal_older_than_the_token_update_is_not_believed_yet(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.unregister(TOKEN.hex(), timestamp=int((clock() - timedelta(days=1)).timestamp() * 1000))

        assert worker.deliver(message(target(device))) == []

        assert device.record.push_failure is None
        assert [sent.message.attempt for sent in worker.sent] == [1]

    def test_but_it_is_when_apns_insists(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.unregister(TOKEN.hex(), timestamp=int((clock() - timedelta(days=1)).timestamp() * 1000))

        assert worker.deliver(message(target(device), attempt=MAX_ATTEMPTS)) == []

        assert device.record.push_failure == "Unregistered"

    def test_an_enrollment_that_has_ended_does_not_come_back_as_a_stub(
        self, worker: Worker, device: FleetDevice, fleet: Fleet, apns: ApnsControl
    ) -> None:
        apns.remove(TOKEN.hex())
        device.check_out()
        fleet.bus.take()

        assert worker.deliver(message(target(device), target("UNKNOWN", number=2))) == []

        assert fleet.enrollments.get("UNKNOWN") is None
        assert device.record.push_failure is None
        assert (fleet.bus.take(), worker.sent) == ([], [])

    def test_one_that_changes_while_it_is_recorded_is_left_alone(
        self, worker: Worker, device: FleetDevice, fleet: Fleet, apns: ApnsControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apns.remove(TOKEN.hex())
        stale = device.record
        device.token_update(b"\x0e" * 32)
        fleet.bus.take()
        monkeypatch.setattr(fleet.enrollments, "get", lambda _id: stale)

        assert worker.deliver(message(target(device))) == []

        monkeypatch.undo()
        assert device.record.push_failure is None
        assert fleet.bus.take() == []

    def test_when_it_cannot_be_published_the_message_comes_again_with_the_same_event(
        self, worker: Worker, device: FleetDevice, fleet: Fleet, apns: ApnsControl, settings: Settings
    ) -> None:
        apns.remove(TOKEN.hex())
        events = worker.events
        worker.events = EventPublisher(
            unreachable_client("events"),
            unreachable_client("sqs"),
            payloads=fleet.payloads,
            sealer=worker.sealer,
            settings=settings,
        )
        first = worker.deliver(message(target(device)), message(target(device, number=2)))
        worker.events = events

        assert first == ["1"], "the other one was the same push"
        assert worker.deliver(message(target(device))) == []
        (event,) = fleet.bus.take()
        assert event["event_id"] == target(device).apns_id.lower()


class TestPassingFailure:
    def test_it_is_queued_again_alone(self, worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
        apns.behave(answer_status=503, answer_reason="ServiceUnavailable", answer_times=1)
        targets = others(apns, 3)

        assert worker.deliver(message(*targets)) == []

        (again,) = worker.sent
        assert again == Sent(5, message(targets[0], attempt=1))

    @pytest.mark.parametrize(("attempt", "delay"), [(0, 5), (1, 10), (4, 80), (9, 900)])
    def test_each_attempt_waits_longer(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, attempt: int, delay: int
    ) -> None:
        apns.behave(answer_status=500, answer_reason="InternalServerError", answer_times=1)

        worker.deliver(message(target(device), attempt=attempt))

        assert [(sent.delay_seconds, sent.message.attempt) for sent in worker.sent] == [(delay, attempt + 1)]

    def test_apns_says_when_to_come_again(self, worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
        apns.behave(answer_status=429, answer_reason="TooManyRequests", answer_times=1, retry_after=60)

        worker.deliver(message(target(device)))

        assert worker.sent[0].delay_seconds >= 60

    def test_after_the_last_attempt_the_message_goes_the_way_of_its_dead_letter_queue(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.behave(answer_status=503, answer_reason="ServiceUnavailable", answer_times=10)

        assert worker.deliver(message(target(device), attempt=MAX_ATTEMPTS)) == ["1"]
        assert worker.sent == []

    def test_what_cannot_be_queued_again_stays_where_it_is(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.behave(answer_status=503, answer_reason="ServiceUnavailable", answer_times=1)
        worker.queue = PushQueue(
            unreachable_client("sqs"), queue_url=worker.fleet.settings.push_queue_url, sealer=worker.sealer
        )

        stay = worker.deliver(*[message(each) for each in others(apns, 2)])

        assert stay == ["1"]

    def test_an_apns_that_is_down_is_asked_once(self, worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
        apns.behave(max_connections=0)
        before = apns.status()["connections_made"]
        worker.per_second = 5  # slices of one

        assert worker.deliver(message(*others(apns, 20))) == []

        assert apns.status()["connections_made"] == before + 3
        (again,) = worker.sent
        assert len(again.message.targets) == 20


class TestCertificate:
    def test_without_one_pushes_wait(self, worker: Worker, apns: ApnsControl) -> None:
        lonely = dataclasses.replace(target("ANY"), topic="com.apple.mgmt.External.none")

        assert worker.deliver(message(lonely)) == []

        assert [(sent.delay_seconds, sent.message.targets) for sent in worker.sent] == [(900, (lonely,))]

    def test_one_that_apns_refuses_keeps_pushes_waiting(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        worker.certificates.upload(apns.issue(TOPIC, days=-1))

        assert worker.deliver(message(target(device))) == []

        assert [sent.delay_seconds for sent in worker.sent] == [900]
        assert device.record.push_failure is None

    def test_one_that_was_replaced_since_it_was_read_is_read_again(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, push_certificate: bytes
    ) -> None:
        worker.certificates.upload(apns.issue(TOPIC, foreign=True))
        PushCertificates(sealer=worker.sealer, now=worker.fleet.clock).upload(push_certificate)

        assert worker.deliver(message(target(device))) == []

        assert worker.sent == []
        assert apns.device(TOKEN.hex())["pushes"] == 1

    def test_a_refused_certificate_stops_its_topic_after_one_refusal(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.behave(answer_status=403, answer_reason="BadCertificate", answer_times=1000)
        service, targets = worker.service(), others(apns, 200)
        bodies = {
            str(number): message(*targets[start:][:100]).encode(worker.sealer) for number, start in ((1, 0), (2, 100))
        }

        assert service.deliver(bodies) == []
        assert service.deliver(bodies) == []

        assert [push["reason"] for push in apns.pushes()] == ["BadCertificate"]
        assert sum(len(sent.message.targets) for sent in worker.sent) == 400

    def test_a_stopped_topic_is_tried_again_after_a_while(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.behave(answer_status=403, answer_reason="BadCertificate", answer_times=1000)
        service, bodies = worker.service(), {"1": message(*others(apns, 3)).encode(worker.sealer)}
        service.deliver(bodies)
        clock.advance(seconds=STOP_SECONDS)
        service.deliver(bodies)

        assert len(apns.pushes()) == 2

    def test_a_renewed_certificate_ends_the_stop_and_the_pushes_go_out(
        self,
        worker: Worker,
        device: FleetDevice,
        apns: ApnsControl,
        clock: Clock,
    ) -> None:
        apns.behave(answer_status=403, answer_reason="BadCertificate", answer_times=1000)
        service = worker.service()
        assert service.deliver({"1": message(target(device)).encode(worker.sealer)}) == []
        clock.advance(minutes=1)
        PushCertificates(sealer=worker.sealer, now=worker.fleet.clock).upload(apns.issue(TOPIC))
        apns.behave()

        assert service.deliver({"1": worker.sent[0].message.encode(worker.sealer)}) == []

        assert apns.device(TOKEN.hex())["pushes"] == 1
        assert len(worker.sent) == 1

    def test_a_certificate_that_was_missing_is_used_once_it_is_there(self, worker: Worker, apns: ApnsControl) -> None:
        topic = "com.apple.mgmt.External.late"
        apns.register("1a7e", topic=topic, magic=MAGIC)
        service, late = worker.service(), dataclasses.replace(target("ANY", b"\x1a\x7e"), topic=topic)
        service.deliver({"1": message(late).encode(worker.sealer)})
        PushCertificates(sealer=worker.sealer, now=worker.fleet.clock).upload(apns.issue(topic))

        service.deliver({"1": worker.sent[0].message.encode(worker.sealer)})

        assert apns.device("1a7e")["pushes"] == 1

    def test_pushes_are_kept_for_two_weeks_however_often_they_were_refused(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.behave(answer_status=403, answer_reason="BadCertificate", answer_times=1000)
        service = worker.service()
        service.deliver({"1": message(target(device), attempt=MAX_ATTEMPTS).encode(worker.sealer)})
        for _ in range(20):
            clock.advance(hours=16)
            assert service.deliver({"1": worker.sent[-1].message.encode(worker.sealer)}) == []
        clock.advance(hours=16)

        assert service.deliver({"1": worker.sent[-1].message.encode(worker.sealer)}) == ["1"]
        assert {sent.message.attempt for sent in worker.sent} == {MAX_ATTEMPTS}

    def test_one_topic_that_is_refused_keeps_no_other_from_its_devices(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        other = "com.apple.mgmt.External.refused"
        worker.certificates.upload(apns.issue(other))
        apns.revoke(other)
        refused = [dataclasses.replace(each, topic=other) for each in others(apns, 50)]
        worker.per_second = 50

        assert worker.deliver(message(*refused), message(target(device))) == []

        assert apns.device(TOKEN.hex())["pushes"] == 1
        assert [len(sent.message.targets) for sent in worker.sent] == [50]


class TestTogether:
    def test_several_pushes_to_one_enrollment_are_one_that_lasts_the_longest(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        short = dataclasses.replace(target(device), expiration=0)

        assert worker.deliver(message(short), message(target(device, number=2)), message(short)) == []

        assert [push["apns_id"] for push in apns.pushes()] == [target(device, number=2).apns_id.lower()]

    def test_when_the_one_fails_it_comes_back_with_the_attempts_of_the_youngest(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.behave(answer_status=503, answer_reason="ServiceUnavailable", answer_times=1)

        worker.deliver(message(target(device), attempt=MAX_ATTEMPTS), message(target(device, number=2)))

        assert [(len(sent.message.targets), sent.message.attempt) for sent in worker.sent] == [(1, 1)]

    def test_topics_take_turns(self, worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
        other = "com.apple.mgmt.External.another"
        worker.certificates.upload(apns.issue(other))
        apns.register("0a", topic=other, magic=MAGIC)
        worker.per_second = 50  # slices of ten

        worker.deliver(message(*others(apns, 100)), message(dataclasses.replace(target("X", b"\x0a"), topic=other)))

        topics = [push["topic"] for push in apns.pushes()]
        assert len(topics) == 101
        assert topics.index(other) < 10

    def test_a_payload_that_is_too_large_waits_for_the_next_token_update(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        apns.behave(answer_status=413, answer_reason="PayloadTooLarge", answer_times=1)

        assert worker.deliver(message(target(device))) == []

        assert device.record.push_failure == "PayloadTooLarge"
        assert worker.sent == []

    def test_apns_may_put_us_off_for_longer_than_a_queue_can_wait(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl, clock: Clock
    ) -> None:
        apns.behave(answer_status=429, answer_reason="TooManyRequests", answer_times=1, retry_after=3600)
        service = worker.service()
        service.deliver({"1": message(target(device)).encode(worker.sealer)})
        clock.advance(minutes=15)
        service.deliver({"1": worker.sent[0].message.encode(worker.sealer)})

        assert len(apns.pushes()) == 1
        assert [(sent.delay_seconds, sent.message.attempt) for sent in worker.sent] == [(900, 1), (900, 1)]
        clock.advance(hours=2)
        service.deliver({"1": worker.sent[1].message.encode(worker.sealer)})
        assert len(apns.pushes()) == 2


class TestPace:
    def test_pushes_are_spread_over_time(self, worker: Worker, device: FleetDevice, apns: ApnsControl) -> None:
        worker.per_second = 50

        worker.deliver(message(*others(apns, 100)))

        assert len(apns.pushes()) == 100
        assert sum(worker.sleeps) >= 0.2 * 9

    def test_what_there_is_no_time_for_is_queued_again_and_has_not_failed(
        self, worker: Worker, device: FleetDevice, apns: ApnsControl
    ) -> None:
        worker.per_second = 1

        assert worker.deliver(message(*others(apns, 30), attempt=3)) == []

        assert len(apns.pushes()) == 20
        assert [(sent.delay_seconds, sent.message.attempt) for sent in worker.sent] == [(20, 3)]
        assert len(worker.sent[0].message.targets) == 10


def unreachable_client(service: Any) -> Any:
    """Return what makes a client of an AWS that nobody answers for."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=1)
    return partial(boto3.client, service, endpoint_url="http://127.0.0.1:9", config=config)
