"""No receiver delays another: with a thousand events waiting for one that is dead, and with one that is slow."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from functions.webhook.app import lambda_handler
from local.emulator import Emulator
from local.webhook_listener import WebhookListener
from mdmlib import runtime
from mdmlib.clients.webhook import WebhookClient
from mdmlib.errors import UnavailableError
from mdmlib.services.webhook_delivery import WebhookDelivery
from mdmlib.services.webhook_documents import WebhookDocuments
from mdmlib.services.webhook_message import WebhookMessage
from mdmlib.services.webhook_receivers import WORKERS_OF_A_SLOW_RECEIVER, WebhookReceivers, hold_seconds
from mdmlib.settings import Settings
from mdmlib.store.tables import WebhookSubscription
from tests.deployment import Clock
from tests.queues import QueueSource

THOUSAND = 1_000


@pytest.fixture
def listener() -> Iterator[WebhookListener]:
    with WebhookListener() as listener:
        yield listener


@pytest.fixture
def clock(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(runtime, "now", clock)
    return clock


def subscribe(url: str) -> str:
    return runtime.webhooks().create(url).name


def subscription(name: str) -> WebhookSubscription:
    return runtime.webhooks().get(name)


def message(name: str, number: int) -> str:
    event = {"topic": "mdm.Connect", "event_id": str(number), "created_at": "2026-11-20T12:00:00Z"}
    report = {"udid": "A5EF1BA1", "status": "Idle", "raw_payload": "PHBsaXN0Lz4="}
    return json.dumps({"subscription": name, "event": event | {"acknowledge_event": report}})


class Worker:
    """A worker, as Lambda may run many; posts take as long as it is told, and the time is noted, not spent."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.seconds_each = 0.0
        self.posts: list[str] = []
        self._elapsed = 0.0
        self._clock = clock
        self._client = WebhookClient(user_agent="PicoMDM")
        self._delivery = WebhookDelivery(
            client=self._client,
            webhooks=runtime.webhooks(),
            receivers=WebhookReceivers(runtime.webhooks(), now=clock),
            documents=WebhookDocuments(payloads=runtime.payloads(), sealer=runtime.sealer()),
            sqs_client=runtime.sqs_client,
            settings=settings,
            now=clock,
            monotonic=self._monotonic,
            random=lambda: 0.0,
        )
        self._delivery._send = self._keep  # type: ignore[method-assign,assignment]
        self.put_off: list[tuple[str, int]] = []

    def close(self) -> None:
        self._client.close()

    def receive(self, body: str) -> None:
        self._delivery.receive(WebhookMessage.decode(body, receipt_handle="", receive_count=1, sent_at=self._now))

    @property
    def _now(self) -> int:
        return int(self._clock().timestamp())

    def _monotonic(self) -> float:
        self._elapsed += self.seconds_each
        return self._elapsed

    def _keep(self, _queue_url: str, body: str, *, delay_seconds: int = 0) -> None:
        self.put_off.append((body, delay_seconds))


@pytest.fixture
def workers(environment: Settings, clock: Clock) -> Iterator[list[Worker]]:
    workers = [Worker(environment, clock) for _ in range(3)]
    yield workers
    for worker in workers:
        worker.close()


def test_a_thousand_events_for_a_dead_receiver_delay_nobody(
    aws: Emulator, environment: Settings, listener: WebhookListener, clock: Clock
) -> None:
    dead, well = subscribe("http://127.0.0.1:1/dead"), subscribe(f"{listener.address}/well")
    for start in range(0, THOUSAND, 10):
        aws.sqs.send_message_batch(
            QueueUrl=environment.webhook_queue_url,
            Entries=[{"Id": str(number), "MessageBody": message(dead, start + number)} for number in range(10)],
        )
    queue = QueueSource(aws, environment.webhook_queue_url, lambda_handler)
    for number in range(5):
        queue.send(message(well, number))
    attempts = 0
    # Each message is brought once: what stays was tried, what is done was delivered or put off.
    for _ in range(THOUSAND // 10 + 5):
        attempts += len(queue.invoke().stayed)
        if len(listener.deliveries()) == 5:
            break
    runtime.webhook_delivery().close()

    assert len(listener.deliveries()) == 5
    # Three failures hold it. No worker waits for it any more, nor does a message that could: all are delayed.
    assert attempts == 3
    assert queue.count() + queue.count("NotVisible") + queue.count("Delayed") == THOUSAND, "none is lost"
    assert queue.count("Delayed") >= THOUSAND - 3
    assert subscription(dead).held_until is not None


def test_a_receiver_that_keeps_a_worker_waiting_is_held_at_once(workers: list[Worker], clock: Clock) -> None:
    name = subscribe("http://127.0.0.1:1/")
    one, other, _ = workers
    one.seconds_each = 10.0
    with pytest.raises(Exception, match="cannot be reached"):
        one.receive(message(name, 1))
    other.receive(message(name, 2))

    held = subscription(name)
    assert held.held_until == int(clock().timestamp()) + hold_seconds(3)
    assert held.slow_ms == 10_000
    assert len(other.put_off) == 1


def test_a_slow_receiver_has_two_workers_at_most(
    workers: list[Worker], listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    for worker in workers:
        worker.seconds_each = 8.0
    workers[0].receive(message(name, 0))
    assert subscription(name).slow_ms == 8_000

    for number in range(1, 31):
        workers[number % 3].receive(message(name, number))
    put_off = sorted((json.loads(body)["turn_ms"], delay) for worker in workers for body, delay in worker.put_off)

    # The turns lie 8 s / 2 apart, and what has none yet is delayed until it has.
    assert len(listener.deliveries()) == 1 + 30 - len(put_off)
    turns = [turn for turn, _ in put_off]
    interval = 8_000 // WORKERS_OF_A_SLOW_RECEIVER
    assert {after - before for before, after in pairwise(turns)} == {interval}
    now_ms = clock().timestamp() * 1000
    assert all(now_ms + (delay + 1) * 1000 >= turn for turn, delay in put_off if delay < 900)


def test_a_turn_that_has_come_is_taken_and_a_quick_receiver_needs_none(
    workers: list[Worker], listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    worker = workers[0]
    worker.seconds_each = 3.0
    worker.receive(message(name, 0))
    for number in range(1, 12):
        worker.receive(message(name, number))
    waiting, worker.put_off = worker.put_off, []
    delivered = len(listener.deliveries())
    assert len(waiting) == 12 - delivered > 0

    clock.advance(seconds=60)
    worker.seconds_each = 0.1
    for body, _ in waiting:
        worker.receive(body)

    assert worker.put_off == []
    assert len(listener.deliveries()) == 12
    well = subscription(name)
    assert well.slow_ms is None
    assert well.next_turn_ms is None


def test_who_has_waited_for_a_hold_to_end_gets_a_new_turn(workers: list[Worker], clock: Clock) -> None:
    name = subscribe("http://127.0.0.1:1/")
    now = int(clock().timestamp())
    subscription(name).update(
        [
            WebhookSubscription.failures.set(3),
            WebhookSubscription.held_until.set(now + 30),
            WebhookSubscription.slow_ms.set(5_000),
        ]
    )
    workers[0].receive(json.dumps(json.loads(message(name, 1)) | {"turn_ms": 1}))

    ((body, delay),) = workers[0].put_off
    assert json.loads(body)["turn_ms"] is None
    assert delay == 31


def test_the_one_that_tries_a_slow_receiver_out_waits_behind_nobody(
    workers: list[Worker], listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    worker = workers[0]
    worker.seconds_each = 8.0
    for number in range(50):
        worker.receive(message(name, number))
    listener.behave(status=500, times=1)
    clock.advance(seconds=5)
    with pytest.raises(UnavailableError):
        worker.receive(json.dumps(json.loads(message(name, 50)) | {"turn_ms": 1}))
    before = len(listener.deliveries())
    clock.advance(seconds=hold_seconds(3) + 1)

    # Turns were given for minutes ahead.
    worker.receive(message(name, 51))

    assert len(listener.deliveries()) == before + 1
    assert subscription(name).held_until is None
