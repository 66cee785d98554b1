"""Webhook subscriptions: their items, and the rules that bring events to the webhook queue."""

import json
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.emulator import Emulator
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.services.events import SOURCE
from mdmlib.services.webhook_filters import WebhookFilter
from mdmlib.services.webhook_rules import WebhookRules
from mdmlib.services.webhooks import DEFAULT, Webhooks
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WebhookSubscription
from tests.deployment import Clock

URL = "https://customer.example.com/hook?token=abc"


@pytest.fixture
def webhooks(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Webhooks:
    return make_webhooks(aws, settings, sealer, clock)


def make_webhooks(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Webhooks:
    return Webhooks(WebhookRules(lambda: aws.events, settings=settings), sealer=sealer, settings=settings, now=clock)


def topics(*topics: str) -> WebhookFilter:
    return WebhookFilter.checked({"topics": topics})


def publish(aws: Emulator, settings: Settings, topic: str) -> None:
    document = {"topic": topic, "event_id": topic, "created_at": "2026-11-20T12:00:00Z", "checkin_event": None}
    entry: Any = {
        "EventBusName": settings.event_bus,
        "Source": SOURCE,
        "DetailType": topic,
        "Detail": json.dumps(document),
    }
    aws.events.put_events(Entries=[entry])


def queued(aws: Emulator, settings: Settings) -> list[dict[str, Any]]:
    """Take what the rules put into the webhook queue."""
    found = []
    while messages := aws.sqs.receive_message(QueueUrl=settings.webhook_queue_url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        for message in messages:
            found.append(json.loads(message["Body"]))
            aws.sqs.delete_message(QueueUrl=settings.webhook_queue_url, ReceiptHandle=message["ReceiptHandle"])
    return found


def rules(aws: Emulator, settings: Settings) -> list[str]:
    return [rule["Name"] for rule in aws.events.list_rules(EventBusName=settings.event_bus)["Rules"]]


def test_an_event_is_queued_once_for_each_subscription(webhooks: Webhooks, aws: Emulator, settings: Settings) -> None:
    one = webhooks.create(URL)
    other = webhooks.create("https://elsewhere.example.com/")

    publish(aws, settings, "mdm.Connect")

    messages = queued(aws, settings)
    assert {message["subscription"] for message in messages} == {one.name, other.name}
    assert messages[0]["event"] == {
        "topic": "mdm.Connect",
        "event_id": "mdm.Connect",
        "created_at": "2026-11-20T12:00:00Z",
        "checkin_event": None,
    }


def test_a_subscription_to_some_topics_hears_of_no_others(
    webhooks: Webhooks, aws: Emulator, settings: Settings
) -> None:
    webhooks.create(URL, topics("mdm.CheckOut", "dep.*"))

    for topic in ("mdm.Connect", "mdm.CheckOut", "dep.SyncDevices", "ddm.StatusReport"):
        publish(aws, settings, topic)

    assert sorted(message["event"]["topic"] for message in queued(aws, settings)) == ["dep.SyncDevices", "mdm.CheckOut"]


def test_the_same_creation_again_is_the_same_subscription(webhooks: Webhooks, clock: Clock) -> None:
    first = webhooks.create(URL, topics("mdm.Connect", "mdm.CheckOut"), hmac_key="key one")
    clock.advance(hours=1)
    again = webhooks.create(URL, topics("mdm.CheckOut", "mdm.Connect", "mdm.CheckOut"), hmac_key="key two")

    (listed,) = webhooks.list()
    assert again.name == first.name == listed.name
    assert listed.created_at == first.created_at
    assert webhooks.hmac_keys(listed) == (b"key two", None)


def test_a_creation_that_broke_off_is_completed_by_a_repetition(
    webhooks: Webhooks, aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock
) -> None:
    config = Config(connect_timeout=1, retries={"total_max_attempts": 1})
    unreachable = boto3.client("events", endpoint_url="http://127.0.0.1:1", config=config)
    with pytest.raises(UnavailableError):
        Webhooks(
            WebhookRules(lambda: unreachable, settings=settings), sealer=sealer, settings=settings, now=clock
        ).create(URL)

    webhooks.create(URL)

    publish(aws, settings, "mdm.Connect")
    assert len(queued(aws, settings)) == 1


def test_the_key_is_stored_sealed(webhooks: Webhooks) -> None:
    subscription = webhooks.create(URL, hmac_key="a customer's key")

    stored = WebhookSubscription.get("webhook", subscription.name)
    assert b"customer" not in stored.hmac_key
    assert webhooks.hmac_keys(stored)[0] == b"a customer's key"


def test_an_ended_subscription_leaves_nothing(webhooks: Webhooks, aws: Emulator, settings: Settings) -> None:
    subscription = webhooks.create(URL)
    assert rules(aws, settings) == [f"{settings.stack_name}-webhook-{subscription.name}"]

    webhooks.delete(subscription.name)

    assert rules(aws, settings) == []
    assert list(webhooks.list()) == []
    assert webhooks.find(subscription.name) is None
    with pytest.raises(NotFoundError):
        webhooks.delete(subscription.name)


def test_an_end_that_broke_off_is_completed_by_a_repetition(
    webhooks: Webhooks, aws: Emulator, settings: Settings
) -> None:
    subscription = webhooks.create(URL)
    rule = f"{settings.stack_name}-webhook-{subscription.name}"
    aws.events.remove_targets(Rule=rule, EventBusName=settings.event_bus, Ids=["webhook-queue"])
    aws.events.delete_rule(Name=rule, EventBusName=settings.event_bus)

    webhooks.delete(subscription.name)

    assert list(webhooks.list()) == []


@pytest.mark.parametrize("name", ["../other", "0123456789ab", "", "0123456789AB"])
def test_a_made_up_id_reaches_no_rule(name: str, webhooks: Webhooks) -> None:
    with pytest.raises(NotFoundError):
        webhooks.delete(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://customer.example.com/hook",
        "ftp://customer.example.com/",
        "https://user:password@customer.example.com/",
        "https://customer.example.com/#part",
        "https:///hook",
        "https://[::1/",
        "https://customer.example.com:port/",
        "https://customer.example.com/a b",
        "https://customer.example.com/" + "a" * 2_048,
        "hook",
    ],
)
def test_what_cannot_be_posted_to_safely_is_refused(url: str, webhooks: Webhooks) -> None:
    with pytest.raises(BadRequestError) as caught:
        webhooks.create(url)
    assert caught.value.field == "url"
    assert list(webhooks.list()) == []


@pytest.mark.parametrize("topics", [[], ["Connect"], ["mdm.*.*"], ["mdm."], ["*"], ["mdm.Connect", '"']])
def test_what_is_no_topic_is_refused(topics: list[str]) -> None:
    with pytest.raises(BadRequestError) as caught:
        WebhookFilter.checked({"topics": topics})
    assert caught.value.field == "topics"


def test_an_empty_key_is_refused(webhooks: Webhooks) -> None:
    with pytest.raises(BadRequestError) as caught:
        webhooks.create(URL, hmac_key="")
    assert caught.value.field == "hmac_key"


def test_the_templates_subscription_is_listed_and_may_get_a_key(
    aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock
) -> None:
    webhooks = make_webhooks(aws, replace(settings, webhook_url=URL), sealer, clock)
    assert [(one.name, one.url) for one in webhooks.list()] == [(DEFAULT, URL)]

    webhooks.create(URL, hmac_key="a key")

    assert rules(aws, settings) == []
    default = webhooks.find(DEFAULT)
    assert default is not None
    assert webhooks.hmac_keys(default)[0] == b"a key"
    with pytest.raises(ConflictError):
        webhooks.delete(DEFAULT)


def test_the_templates_subscription_follows_the_deployment(
    aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock
) -> None:
    def deployed(url: str) -> Webhooks:
        return make_webhooks(aws, replace(settings, webhook_url=url), sealer, clock)

    assert deployed(URL).find(DEFAULT) is not None

    moved = deployed("https://moved.example.com/").find(DEFAULT)
    assert moved is not None
    assert moved.url == "https://moved.example.com/"
    assert deployed("").find(DEFAULT) is None
    assert list(deployed("").list()) == []
