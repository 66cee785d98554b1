"""What administrators ask of webhooks, and what their receivers see of it."""

import base64
import json
import plistlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.admin import app as function
from functions.webhook.app import lambda_handler
from local.emulator import Emulator
from local.webhook_listener import WebhookListener, sign
from mdmlib import runtime
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.event import mdm_event, rfc3339nano
from mdmlib.services.webhook_message import WebhookMessage
from mdmlib.services.webhook_tests import TEST_RULE, TEST_SOURCE
from mdmlib.settings import Settings
from mdmlib.store.tables import WebhookSubscription
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.event_schemas import assert_conforms
from tests.gateway import Gateway
from tests.queues import QueueSource

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
REPORT = plistlib.dumps({"UDID": "U", "Status": "Acknowledged", "CommandUUID": "C1"})
TOKEN_UPDATE = plistlib.dumps(
    {
        "MessageType": "TokenUpdate",
        "UDID": "U",
        "Topic": "com.apple.mgmt.External.1",
        "PushMagic": "M",
        "Token": b"T",
        "UnlockToken": b"of-the-device",
    }
)


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


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


def publish(raw: bytes, event_id: str = "019a9f3a-1d5c-7000-8000-000000000001", **details: Any) -> None:
    message = decode_checkin(raw) if b"MessageType" in raw else CommandReport.decode(raw)
    document = mdm_event(message, event_id=event_id, created_at=AT, **details)
    runtime.events().publish(runtime.events().prepare(document, raw))


def subscribe(gateway: Gateway, url: str, **fields: Any) -> str:
    made = gateway.post("/v2/webhooks", {"url": url, **fields})
    assert made.status == 201, made.body
    return str(made.document["id"])


def patch(gateway: Gateway, webhook: str, **fields: Any) -> Any:
    answer = gateway.request("PATCH", f"/v2/webhooks/{webhook}", json.dumps(fields))
    assert answer.status == 200, answer.body
    return answer.document


# Filters


def test_a_webhook_hears_only_what_passes_all_its_filters(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    subscribe(
        gateway, listener.url, topics=["mdm.*"], enrollment_types=["Device"], request_types=["ProfileList"],
        statuses=["Acknowledged", "Error"],
    )  # fmt: skip
    publish(REPORT, request_type="ProfileList")
    publish(REPORT, request_type="DeviceLock")
    publish(REPORT.replace(b"Acknowledged", b"NotNow"), request_type="ProfileList")
    publish(REPORT.replace(b"</dict>", b"<key>UserID</key><string>X</string></dict>"), request_type="ProfileList")
    publish(TOKEN_UPDATE)
    queue.invoke()

    (delivery,) = listener.deliveries()
    assert delivery.document is not None
    assert delivery.document["acknowledge_event"]["request_type"] == "ProfileList"


def test_a_change_of_filters_and_url_is_one_of_what_comes_next(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    webhook = subscribe(gateway, f"{listener.address}/before", topics=["mdm.Connect"])
    changed = patch(gateway, webhook, url=f"{listener.address}/after", topics=["mdm.TokenUpdate"])
    publish(REPORT)
    publish(TOKEN_UPDATE)
    queue.invoke()

    assert (changed["id"], changed["topics"]) == (webhook, ["mdm.TokenUpdate"])
    assert [(one.path, one.topic) for one in listener.deliveries()] == [("/after", "mdm.TokenUpdate")]
    again = gateway.post("/v2/webhooks", {"url": f"{listener.address}/before", "topics": ["mdm.Connect"]})
    assert (again.status, again.document["code"]) == (409, "webhook_changed")
    assert patch(gateway, webhook, topics=None)["topics"] is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": None}, "url"),
        ({"url": "http://example.org"}, "url"),
        ({"statuses": ["not one"]}, "statuses"),
        ({"headers": ["X-A: a"]}, "headers"),
        ({"headers": {"Host": "a"}}, "headers"),
        ({"redact": "everything"}, "redact"),
        ({"drop_events": True}, "drop_events"),
        ({"promote_next_hmac_key": True, "hmac_key": "x"}, "promote_next_hmac_key"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    webhook = subscribe(gateway, "https://example.org/", headers={"X-Tenant": "a"}, hmac_key="k")
    before = gateway.get(f"/v2/webhooks/{webhook}").document

    answer = gateway.request("PATCH", f"/v2/webhooks/{webhook}", json.dumps({"redact": "payload"} | fields))

    assert (answer.status, answer.document["field"]) == (400, field)
    assert gateway.get(f"/v2/webhooks/{webhook}").document == before


def test_a_webhook_that_is_none_is_not_found(gateway: Gateway) -> None:
    missing = "/v2/webhooks/0123456789ab"

    assert gateway.get(missing).status == 404
    assert gateway.request("PATCH", missing, "{}").status == 404
    assert gateway.post(f"{missing}/test", {}).status == 404
    assert gateway.get("/v2/webhooks/default").status == 404


# Signatures and headers


def test_a_receiver_with_either_key_takes_every_delivery_of_a_rotation(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    webhook = subscribe(gateway, listener.url, hmac_key="old")
    listener.set_key("/webhook", b"old")
    begun = patch(gateway, webhook, next_hmac_key="new")
    publish(REPORT)
    queue.invoke()
    ended = patch(gateway, webhook, promote_next_hmac_key=True)
    repeated = patch(gateway, webhook, promote_next_hmac_key=True)
    # A worker notices within ten seconds.
    clock.advance(seconds=11)
    listener.set_key("/webhook", b"new")
    publish(REPORT)
    queue.invoke()

    during, after = listener.deliveries()
    assert during.problems == after.problems == ()
    assert during.headers["x-hmac-signature"] == sign(b"old", during.body)
    assert during.headers["x-hmac-signature-next"] == sign(b"new", during.body)
    assert after.headers["x-hmac-signature"] == sign(b"new", after.body)
    assert "x-hmac-signature-next" not in after.headers
    assert (begun["signed"], begun["next_key_waits"]) == (True, True)
    assert (
        (ended["signed"], ended["next_key_waits"]) == (True, False) == (repeated["signed"], repeated["next_key_waits"])
    )


def test_headers_of_the_customers_own_are_sent_and_never_shown(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    webhook = subscribe(gateway, listener.url, headers={"Authorization": "Bearer hunter2", "X-Tenant": "a"})
    publish(REPORT)
    queue.invoke()
    shown = gateway.get(f"/v2/webhooks/{webhook}")

    (delivery,) = listener.deliveries()
    assert (delivery.headers["authorization"], delivery.headers["x-tenant"]) == ("Bearer hunter2", "a")
    assert delivery.problems == ()
    assert shown.document["header_names"] == ["Authorization", "X-Tenant"]
    assert b"hunter2" not in shown.body
    assert b"hunter2" not in WebhookSubscription.get("webhook", webhook).headers
    assert patch(gateway, webhook, headers=None)["header_names"] == []


# Redaction


@pytest.mark.parametrize(("redact", "left_out"), [(None, 0), ("secrets", 1), ("payload", 2)])
def test_what_is_redacted_does_not_reach_the_receiver(
    redact: str | None, left_out: int, gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    subscribe(gateway, listener.url, redact=redact)
    publish(TOKEN_UPDATE)
    publish(REPORT)
    queue.invoke()

    deliveries = {delivery.topic: delivery for delivery in listener.deliveries()}
    redacted = [b"payload_redacted" in delivery.body for delivery in deliveries.values()]
    assert redacted.count(True) == left_out
    assert (base64.b64encode(TOKEN_UPDATE) in deliveries["mdm.TokenUpdate"].body) is (redact is None)
    for delivery in deliveries.values():
        assert delivery.document is not None
        assert_conforms(delivery.document)


@pytest.mark.parametrize(("name", "secret"), [(b"PersonalRecoveryKey", True), (b"Harmless", False)])
def test_a_large_body_is_looked_into_before_it_is_taken_for_harmless(
    name: bytes, *, secret: bool, gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    subscribe(gateway, listener.url, redact="secrets")
    publish(REPORT.replace(b"</dict>", b"<key>" + name + b"</key><string>" + b"x" * 200_000 + b"</string></dict>"))
    queue.invoke()

    (delivery,) = listener.deliveries()
    assert (b"payload_redacted" in delivery.body) is secret


# Pauses


def test_events_of_a_pause_wait_for_its_end(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    webhook = subscribe(gateway, listener.url)
    paused = patch(gateway, webhook, paused=True)
    publish(REPORT)
    queue.invoke()

    assert paused["paused_at"] is not None
    assert listener.deliveries() == []
    assert queue.count("Delayed") == 1
    clock.advance(hours=1)
    # What a second request to pause says is when the pause began.
    assert patch(gateway, webhook, paused=True)["paused_at"] == paused["paused_at"]
    assert patch(gateway, webhook, paused=False)["paused_at"] is None


def test_a_pause_takes_nothing_of_the_day_that_a_receiver_has(
    queue: QueueSource, gateway: Gateway, clock: Clock
) -> None:
    webhook = subscribe(gateway, "https://example.org/")
    patch(gateway, webhook, paused=True)
    now = int(clock().timestamp())
    delivery = runtime.webhook_delivery()
    sent: list[str] = []
    delivery._send = lambda _url, body, **_more: sent.append(body)  # type: ignore[method-assign]
    event = {"topic": "mdm.Connect", "event_id": "1"}
    body = json.dumps({"subscription": webhook, "event": event, "since": now})
    for _ in range(200):
        delivery.receive(WebhookMessage.decode(body, receipt_handle="", receive_count=1, sent_at=0))
        body = sent[-1]
        clock.advance(seconds=900)
    assert json.loads(body)["since"] >= now + 199 * 840


def test_events_of_a_pause_are_dropped_when_that_is_said(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    webhook = subscribe(gateway, listener.url)
    assert patch(gateway, webhook, paused=True, drop_events=True)["drops_events"] is True
    publish(REPORT)

    assert len(queue.invoke().done) == 1
    assert queue.count("Delayed") == 0
    assert patch(gateway, webhook, paused=False)["drops_events"] is False


def test_the_same_creation_again_does_not_end_a_pause(gateway: Gateway) -> None:
    webhook = subscribe(gateway, "https://example.org/", hmac_key="k")
    patch(gateway, webhook, paused=True, next_hmac_key="n")
    again = gateway.post("/v2/webhooks", {"url": "https://example.org/", "hmac_key": "k"}).document

    assert again["id"] == webhook
    assert again["paused_at"] is not None
    assert again["next_key_waits"] is True


# Tests


@pytest.fixture
def test_rule(aws: Emulator, environment: Settings) -> None:
    """The template's rule for tests."""
    rule = f"{environment.stack_name}-webhook-{TEST_RULE}"
    bus = environment.event_bus
    aws.events.put_rule(Name=rule, EventBusName=bus, EventPattern=json.dumps({"source": [TEST_SOURCE]}))
    transformer = {
        "InputPathsMap": {"event": "$.detail", "subscription": "$.detail.webhook_event.webhook_id"},
        "InputTemplate": '{"subscription": <subscription>, "event": <event>}',
    }
    target: Any = {"Id": "webhook-queue", "Arn": environment.webhook_queue_arn, "InputTransformer": transformer}
    aws.events.put_targets(Rule=rule, EventBusName=bus, Targets=[target])


@pytest.mark.usefixtures("test_rule")
@pytest.mark.parametrize("state", ["well", "paused", "held"])
def test_a_test_reaches_its_webhook_alone_and_its_answer_is_told(
    state: str, gateway: Gateway, queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    listener.set_key("/tried", b"k")
    webhook = subscribe(gateway, f"{listener.address}/tried", topics=["mdm.CheckOut"], hmac_key="k")
    subscribe(gateway, f"{listener.address}/other")
    if state == "paused":
        patch(gateway, webhook, paused=True)
    if state == "held":
        held_until = int(clock().timestamp()) + 600
        WebhookSubscription.get("webhook", webhook).update(
            [WebhookSubscription.failures.set(9), WebhookSubscription.held_until.set(held_until)]
        )
    sent = gateway.post(f"/v2/webhooks/{webhook}/test", {})
    assert len(queue.invoke().done) == 1
    shown = gateway.get(f"/v2/webhooks/{webhook}").document

    (delivery,) = listener.deliveries()
    assert (sent.status, delivery.path, delivery.problems) == (202, "/tried", ())
    assert delivery.document is not None
    assert_conforms(delivery.document)
    assert shown["last_test"]["event_id"] == sent.document["event_id"] == delivery.document["event_id"]
    assert (shown["last_test"]["delivered"], shown["last_test"]["status"]) == (True, 200)
    assert (shown["held_until"], shown["failures"]) == (None, 0)


@pytest.mark.usefixtures("test_rule")
def test_a_test_that_fails_says_why_and_is_not_repeated(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener
) -> None:
    refused = subscribe(gateway, listener.url)
    unreachable = subscribe(gateway, "http://127.0.0.1:1/?token=hunter2")
    # It wants a signature, and says so.
    listener.set_key("/webhook", b"k")
    for webhook in (refused, unreachable):
        gateway.post(f"/v2/webhooks/{webhook}/test", {})
    assert len(queue.invoke().done) == 2

    outcomes = [gateway.get(f"/v2/webhooks/{webhook}").document["last_test"] for webhook in (refused, unreachable)]
    assert [(one["delivered"], one["status"]) for one in outcomes] == [(False, 401), (False, None)]
    assert outcomes[1]["error"]
    assert "hunter2" not in outcomes[1]["error"]
    assert gateway.get(f"/v2/webhooks/{refused}").document["failures"] == 0


# Replays


def test_a_replay_brings_what_was_missed_and_is_followed_to_its_end(
    gateway: Gateway, queue: QueueSource, listener: WebhookListener, clock: Clock
) -> None:
    publish(REPORT)
    webhook = subscribe(gateway, listener.url)
    # The emulator knows an event's time to the second.
    clock.advance(seconds=5)
    path = f"/v2/webhooks/{webhook}/replays"
    started = gateway.post(path, {"start": rfc3339nano(clock() - timedelta(hours=1)), "end": rfc3339nano(clock())})

    assert started.status == 202, started.body
    replay = f"{path}/{started.document['name']}"
    while gateway.get(replay).document["state"] != "completed":
        pass
    queue.invoke()
    (delivery,) = listener.deliveries()
    assert delivery.document is not None
    assert base64.b64decode(delivery.document["acknowledge_event"]["raw_payload"]) == REPORT
    over = gateway.delete(replay)
    assert (over.status, over.document["code"]) == (409, "replay_over")
    assert gateway.get(f"{replay}0").status == 404
    assert gateway.get("/v2/webhooks/0123456789ab/replays/x").status == 404


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        ("2026-11-20T12:00:00", "2026-11-20T13:00:00Z", "start"),
        ("yesterday", "2026-11-20T13:00:00Z", "start"),
        (None, "2026-11-20T13:00:00Z", "start"),
        ("2020-11-20T12:00:00Z", "2020-11-20T13:00:00Z", "start"),
        ("2126-11-20T12:00:00Z", "2126-11-20T13:00:00Z", "end"),
        ("2026-11-20T13:00:00Z", "2026-11-20T12:00:00Z", "end"),
    ],
)
def test_a_range_that_cannot_be_replayed_is_refused(
    gateway: Gateway, clock: Clock, start: str | None, end: str, field: str
) -> None:
    clock.at = datetime(2026, 11, 21, tzinfo=UTC)
    runtime.webhook_replays.cache_clear()
    webhook = subscribe(gateway, "https://example.org/")
    answer = gateway.post(f"/v2/webhooks/{webhook}/replays", {"start": start, "end": end})

    assert (answer.status, answer.document["field"]) == (400, field)
