"""The webhook function: messages of the webhook queue become posts to a customer's listener."""

import base64
import json
import plistlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import pytest

from functions.webhook.app import lambda_handler
from local.emulator import Emulator
from local.webhook_listener import WebhookListener
from mdmlib import __version__, runtime
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.event import mdm_event, rfc3339nano, webhook_body
from mdmlib.clients.webhook import EXCERPT_BYTES, WebhookClient
from mdmlib.errors import UnavailableError
from mdmlib.services.webhook_delivery import retry_seconds
from mdmlib.services.webhook_message import WebhookMessage
from mdmlib.services.webhook_receivers import hold_seconds
from mdmlib.settings import Settings
from mdmlib.store.tables import WebhookSubscription
from tests.deployment import Clock
from tests.queues import QueueSource

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = "a customer's key"


@pytest.fixture
def listener() -> Iterator[WebhookListener]:
    with WebhookListener() as listener:
        yield listener


@pytest.fixture
def clock(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(runtime, "now", clock)
    return clock


@pytest.fixture
def queue(aws: Emulator, environment: Settings, clock: Clock) -> Iterator[QueueSource]:
    yield QueueSource(aws, environment.webhook_queue_url, lambda_handler)
    runtime.webhook_delivery().close()


@pytest.fixture
def dead_letters(aws: Emulator, environment: Settings) -> QueueSource:
    return QueueSource(aws, environment.webhook_dead_letter_queue_url, lambda_handler)


def subscribe(url: str, key: str | None = None) -> str:
    return runtime.webhooks().create(url, hmac_key=key).name


def subscription(name: str) -> WebhookSubscription:
    found = runtime.webhooks().find(name)
    assert found is not None
    return found


def connect(number: int = 1, **fields: Any) -> tuple[dict[str, Any], bytes]:
    raw = plistlib.dumps({"UDID": UDID, "Status": "Acknowledged", "CommandUUID": f"C{number}", **fields})
    event_id = f"0193a1b2-c3d4-7000-8000-{number:012d}"
    return mdm_event(CommandReport.decode(raw), event_id=event_id, created_at=AT), raw


def message(name: str, number: int = 1, **more: Any) -> str:
    return json.dumps({"subscription": name, "event": connect(number)[0], **more})


def published(aws: Emulator, document: dict[str, Any], raw: bytes) -> None:
    runtime.events().publish(runtime.events().prepare(document, raw))


def test_a_customer_gets_exactly_the_document_and_can_verify_it(
    queue: QueueSource, listener: WebhookListener, aws: Emulator
) -> None:
    listener.set_key("/webhook", KEY.encode())
    subscribe(listener.url, KEY)
    document, raw = connect()
    published(aws, document, raw)

    assert len(queue.invoke().done) == 1

    delivery = listener.wait_for()
    assert delivery.problems == ()
    assert delivery.body == webhook_body(document)
    assert delivery.headers["user-agent"] == f"PicoMDM/{__version__}"
    assert queue.count() == queue.count("NotVisible") == 0


def test_without_a_key_nothing_is_signed(queue: QueueSource, listener: WebhookListener) -> None:
    queue.send(message(subscribe(listener.url)))
    queue.invoke()

    assert "x-hmac-signature" not in listener.wait_for().headers


@pytest.mark.parametrize("size", [1, 200_000], ids=["sealed", "in the bucket"])
def test_a_body_that_travelled_sealed_arrives_in_clear_and_in_its_place(
    size: int, queue: QueueSource, listener: WebhookListener, aws: Emulator
) -> None:
    subscribe(listener.url)
    fields = {
        "MessageType": "TokenUpdate",
        "UDID": UDID,
        "Topic": "com.apple.mgmt.External.1",
        "PushMagic": "M",
        "Token": b"T",
        "UnlockToken": b"U",
        "Padding": b"P" * size,
    }
    raw = plistlib.dumps(fields)
    document = mdm_event(decode_checkin(raw), event_id="1", created_at=AT, token_update_tally=1)
    published(aws, document, raw)

    queue.invoke()

    assert listener.wait_for().body == webhook_body(document)
    assert base64.b64decode(document["checkin_event"]["raw_payload"]) == raw


def test_a_status_report_that_travelled_sealed_arrives_in_clear(
    queue: QueueSource, listener: WebhookListener, aws: Emulator
) -> None:
    subscribe(listener.url)
    raw = b'{"StatusItems":{"mdm":{"push-magic":"M"}}}'
    part = {"ids": {"id": UDID, "type": "Device"}, "raw_payload": base64.b64encode(raw).decode()}
    document = {"topic": "ddm.StatusReport", "event_id": "1", "created_at": rfc3339nano(AT), "status_event": part}
    published(aws, document, raw)

    queue.invoke()

    assert json.loads(listener.wait_for().body) == document


def test_events_of_all_topics_are_delivered(queue: QueueSource, listener: WebhookListener) -> None:
    document = {"topic": "mdm.PushFailed", "event_id": "1", "created_at": "2026-11-20T12:00:00Z", "push_event": {}}
    queue.send(json.dumps({"subscription": subscribe(listener.url), "event": document}))

    queue.invoke()

    assert listener.wait_for().document == document


@pytest.mark.parametrize("status", [500, 404, 302, 0])
def test_a_delivery_that_failed_stays_alone_and_comes_again(
    status: int, queue: QueueSource, listener: WebhookListener
) -> None:
    well, unwell = subscribe(f"{listener.address}/well"), subscribe(f"{listener.address}/unwell")
    listener.behave(status=status, path="/unwell", times=1)
    queue.send(message(unwell, 1))
    queue.send(message(well, 2))

    batch = queue.invoke()

    assert batch.stayed == [message(unwell, 1)]
    assert batch.done == [message(well, 2)]
    assert queue.count("NotVisible") == 1
    queue.let_return()
    assert queue.invoke().done == [message(unwell, 1)]
    assert [delivery.path for delivery in listener.deliveries()] == ["/unwell", "/well", "/unwell"]


def test_a_redirect_is_not_followed(queue: QueueSource, listener: WebhookListener) -> None:
    listener.behave(status=307, times=1)
    queue.send(message(subscribe(listener.url)))

    assert len(queue.invoke().stayed) == 1
    assert len(listener.deliveries()) == 1


def test_a_subscription_that_keeps_failing_is_held_and_takes_no_more_time(
    queue: QueueSource, listener: WebhookListener
) -> None:
    unwell, well = subscribe(f"{listener.address}/unwell"), subscribe(f"{listener.address}/well")
    listener.behave(status=500, path="/unwell")
    for number in range(5):
        queue.send(message(unwell, number))
    queue.send(message(well, 9))

    batch = queue.invoke()

    assert len(batch.stayed) == 3
    assert [delivery.path for delivery in listener.deliveries()] == ["/unwell"] * 3 + ["/well"]
    # The other two went back into the queue, where they are delayed but not in flight.
    assert queue.count("NotVisible") == 3
    assert queue.count("Delayed") == 2
    held = subscription(unwell)
    assert held.failures == 3
    assert held.held_until == pytest.approx(runtime.now().timestamp() + hold_seconds(3), abs=2)


def test_one_delivery_tries_a_held_receiver_out_and_its_failure_prolongs_the_hold(
    queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    listener.behave(status=500)
    for number in range(3):
        queue.send(message(name, number))
    queue.invoke()
    clock.advance(seconds=hold_seconds(3) + 1)
    queue.send(message(name, 7))
    queue.send(message(name, 8))

    queue.invoke()

    assert len(listener.deliveries()) == 4
    assert subscription(name).held_until == int(clock().timestamp()) + hold_seconds(4)


def test_two_workers_do_not_both_try_a_held_receiver_out(
    queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    held = subscription(name)
    now = int(clock().timestamp())
    held.update([WebhookSubscription.failures.set(3), WebhookSubscription.held_until.set(now - 1)])
    worker = runtime.webhook_delivery()._receivers
    # What this worker knows is what it read before another one began to try.
    worker.find(name)
    held.update([WebhookSubscription.held_until.set(now + 30)])
    queue.send(message(name))

    queue.invoke()

    assert listener.deliveries() == []
    assert queue.count("Delayed") == 1


def test_a_success_ends_the_hold(queue: QueueSource, listener: WebhookListener, clock: Clock) -> None:
    name = subscribe(listener.url)
    listener.behave(status=500, times=3)
    for number in range(3):
        queue.send(message(name, number))
    queue.invoke()
    clock.advance(seconds=hold_seconds(3) + 1)
    queue.let_return()

    assert len(queue.invoke().done) == 3

    assert subscription(name).failures == 0
    assert subscription(name).held_until is None


def test_what_was_put_off_knows_its_age_and_attempts() -> None:
    first = WebhookMessage.decode(message("a"), receipt_handle="r", receive_count=2, sent_at=1_000)
    again = WebhookMessage.decode(first.encode(), receipt_handle="s", receive_count=1, sent_at=2_000)

    assert (again.since, again.attempts) == (1_000, 3)
    assert again.event == first.event
    assert json.loads(again.encode_afresh()) == json.loads(message("a"))


def test_after_a_day_a_delivery_is_given_up(
    queue: QueueSource, dead_letters: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    listener.behave(status=500)
    queue.send(message(name))
    queue.invoke()
    clock.advance(hours=24)
    queue.let_return()

    assert len(queue.invoke().done) == 1

    assert queue.count() == queue.count("NotVisible") == queue.count("Delayed") == 0
    assert dead_letters.count() == 1
    # Put back, it is a new message with a day before it.
    listener.behave_well()
    assert dead_letters.invoke().done == [json.dumps(json.loads(message(name)), separators=(",", ":"))]
    assert listener.deliveries()[-1].status == 200


def test_what_was_held_for_a_day_is_given_up_without_another_try(
    queue: QueueSource, dead_letters: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    name = subscribe(listener.url)
    now = int(clock().timestamp())
    subscription(name).update([WebhookSubscription.failures.set(9), WebhookSubscription.held_until.set(now + 600)])
    queue.send(message(name, since=now - 86_400, attempts=90))

    assert len(queue.invoke().done) == 1

    assert dead_letters.count() == 1
    assert listener.deliveries() == []


def test_an_ended_subscriptions_events_are_dropped(queue: QueueSource, listener: WebhookListener) -> None:
    name = subscribe(listener.url)
    runtime.webhooks().delete(name)
    queue.send(message(name))

    assert len(queue.invoke().done) == 1
    assert listener.deliveries() == []


@pytest.mark.parametrize(
    "body",
    [" ", "no json", "[]", "{}", '{"subscription": "a"}', '{"subscription": "a", "event": "text"}', '{"event": {}}'],
)
def test_a_malformed_message_stays_for_the_dead_letter_queue(body: str, queue: QueueSource) -> None:
    queue.send(body)

    assert queue.invoke().stayed == [body]


def test_an_event_leads_to_no_body_but_its_own(queue: QueueSource, listener: WebhookListener) -> None:
    name = subscribe(listener.url)
    runtime.payloads().put("commands/secret", b"a command")
    document, _ = connect()
    del document["acknowledge_event"]["raw_payload"]
    document["acknowledge_event"]["payload_ref"] = "commands/secret"
    queue.send(json.dumps({"subscription": name, "event": document}))

    assert len(queue.invoke().stayed) == 1
    assert listener.deliveries() == []


def test_a_body_that_cannot_be_read_is_no_failure_of_the_subscription(
    queue: QueueSource, listener: WebhookListener
) -> None:
    name = subscribe(listener.url)
    document, _ = connect()
    document["acknowledge_event"]["payload_ref"] = f"events/{document['event_id']}"
    queue.send(json.dumps({"subscription": name, "event": document}))

    assert len(queue.invoke().stayed) == 1
    assert subscription(name).failures == 0


def test_no_delivery_is_begun_that_could_not_be_ended(queue: QueueSource, listener: WebhookListener) -> None:
    queue.send(message(subscribe(listener.url)))

    assert len(queue.invoke(seconds=10).stayed) == 1
    assert listener.deliveries() == []


def test_nothing_secret_is_logged(
    queue: QueueSource, listener: WebhookListener, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    listener.behave(status=500)
    name = subscribe(f"{listener.url}?token=of-the-receiver", KEY)
    document, raw = connect(Secret="of-the-device")
    queue.send(json.dumps({"subscription": name, "event": document}))
    queue.send("malformed of-the-device")
    queue.send(json.dumps({"subscription": name, "event": document, "since": 1}))

    queue.invoke()

    logged = "\n".join([*(str(vars(record)) for record in caplog.records), capsys.readouterr().out])
    assert "Webhook delivery failed" in logged
    assert "Webhook delivery given up" in logged
    for secret in ("of-the-receiver", "of-the-device", KEY, base64.b64encode(raw).decode()[60:120]):
        assert secret not in logged


def test_waiting_doubles_up_to_an_hour_and_holds_up_to_a_quarter() -> None:
    assert [retry_seconds(attempts) for attempts in (1, 2, 3, 9, 10, 10_000)] == [10, 20, 40, 2_560, 3_600, 3_600]
    assert [hold_seconds(failures) for failures in (3, 4, 7, 8, 10_000)] == [30, 60, 480, 900, 900]


class SlowReceiver:
    """A receiver that reads once, answers byte by byte, and then does nothing."""

    def __init__(self, *, answer: bytes = b"", every_seconds: float = 0.05) -> None:
        self._answer, self._every = answer, every_seconds
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                connection.recv(65_536)
                for byte in self._answer:
                    if self._stopping.wait(self._every):
                        return
                    try:
                        connection.send(bytes([byte]))
                    except OSError:
                        break
                else:
                    self._stopping.wait()


@pytest.fixture
def client() -> Iterator[WebhookClient]:
    client = WebhookClient(user_agent="PicoMDM", timeout_seconds=0.5)
    yield client
    client.close()


@pytest.mark.parametrize("size", [2, 8_000_000], ids=["answers nothing", "does not take it all"])
def test_a_receiver_that_hangs_is_given_up(size: int, client: WebhookClient) -> None:
    started = time.monotonic()
    with SlowReceiver() as receiver, pytest.raises(UnavailableError):
        client.post(receiver.url, b"x" * size, hmac_key=None)
    assert time.monotonic() - started < 5


def test_an_answer_without_an_end_does_not_hold_the_worker(client: WebhookClient) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    started = time.monotonic()
    with SlowReceiver(answer=answer + b"." * 10_000, every_seconds=0.002) as receiver:
        client.post(receiver.url, b"{}", hmac_key=None)
    assert time.monotonic() - started < 5


def test_how_an_answer_begins_is_kept(client: WebhookClient) -> None:
    answer = b"HTTP/1.1 503 Closed\r\nContent-Length: 1000\r\n\r\n" + b"closed on sundays, " * 50
    with SlowReceiver(answer=answer, every_seconds=0) as receiver:
        answered = client.post(receiver.url, b"{}", hmac_key=None)

    assert (answered.status, answered.is_success) == (503, False)
    assert answered.beginning == (b"closed on sundays, " * 50)[:EXCERPT_BYTES]
    assert "sundays" not in repr(answered)


def test_nobody_there_is_an_error_that_does_not_tell_the_url(client: WebhookClient) -> None:
    with pytest.raises(UnavailableError) as caught:
        client.post("http://127.0.0.1:1/hook?token=secret", b"{}", hmac_key=None)
    assert "secret" not in str(caught.value)
