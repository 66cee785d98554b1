"""Replays: what is asked of EventBridge, which the emulator does only in part (it replays to every rule)."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from local.emulator import Emulator
from mdmlib.errors import ConflictError, NotFoundError, UnavailableError
from mdmlib.services.webhook_replays import WebhookReplays
from mdmlib.services.webhook_rules import WebhookRules
from mdmlib.services.webhooks import Webhooks
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WebhookSubscription
from tests.deployment import Clock

URL = "https://customer.example.com/hook"
END = datetime(2026, 11, 20, 11, tzinfo=UTC)
START = END - timedelta(hours=2)


@pytest.fixture
def webhooks(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Webhooks:
    return Webhooks(WebhookRules(lambda: aws.events, settings=settings), sealer=sealer, settings=settings, now=clock)


@pytest.fixture
def events(aws: Emulator) -> Any:
    """A client whose requests are held against botocore's description of EventBridge, and go nowhere."""
    return boto3.client("events")


@pytest.fixture
def bridge(events: Any) -> Iterator[Stubber]:
    with Stubber(events) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def replays(events: Any, webhooks: Webhooks, settings: Settings, clock: Clock) -> WebhookReplays:
    return make(events, webhooks, settings, clock)


def make(events: Any, webhooks: Webhooks, settings: Settings, clock: Clock) -> WebhookReplays:
    rules = WebhookRules(lambda: events, settings=settings)
    return WebhookReplays(lambda: events, webhooks=webhooks, rules=rules, settings=settings, now=clock)


def test_a_replay_is_for_the_rule_of_one_subscription(
    replays: WebhookReplays, webhooks: Webhooks, settings: Settings, bridge: Stubber, clock: Clock
) -> None:
    webhook = webhooks.create(URL).name
    bus = "arn:aws:events:us-east-1:000000000000:event-bus/" + settings.event_bus
    rule = f"arn:aws:events:us-east-1:000000000000:rule/{settings.event_bus}/{settings.stack_name}-webhook-{webhook}"
    name = f"{settings.stack_name}-{webhook}{int(clock().timestamp()):x}"
    bridge.add_response(
        "start_replay",
        {"ReplayArn": "arn", "State": "STARTING"},
        {
            "ReplayName": name,
            "Description": f"For the webhook {webhook}, by PicoMDM's API.",
            "EventSourceArn": settings.event_archive_arn,
            "EventStartTime": START,
            "EventEndTime": END,
            "Destination": {"Arn": bus, "FilterArns": [rule]},
        },
    )
    bridge.add_response(
        "describe_replay",
        {
            "State": "FAILED",
            "StateReason": "why",
            "EventStartTime": START,
            "EventEndTime": END,
            "EventLastReplayedTime": START,
        },
        {"ReplayName": name},
    )
    bridge.add_response("cancel_replay", {"State": "CANCELLING"}, {"ReplayName": name})

    assert replays.start(webhook, start=START, end=END).state == "starting"
    told = replays.get(webhook, name)
    assert (told.state, told.reason, told.replayed_until) == ("failed", "why", START)
    replays.cancel(webhook, name)


def test_the_names_of_replays_fit_for_every_stack_whose_rules_do(
    events: Any, webhooks: Webhooks, settings: Settings, clock: Clock, bridge: Stubber
) -> None:
    webhook = webhooks.create(URL).name
    longest = "s" * (64 - len(f"-webhook-{webhook}"))
    replays = make(events, webhooks, replace(settings, stack_name=longest), clock)
    bridge.add_response("start_replay", {"State": "STARTING"})

    assert len(replays.start(webhook, start=START, end=END).name) <= 64


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("LimitExceededException", ConflictError, "too_many_replays"),
        ("ResourceAlreadyExistsException", ConflictError, "replay_started"),
        ("InternalException", UnavailableError, "unavailable"),
    ],
)
def test_what_eventbridge_refuses_is_told(
    code: str, error: type[Exception], said: str, replays: WebhookReplays, webhooks: Webhooks, bridge: Stubber
) -> None:
    webhook = webhooks.create(URL).name
    bridge.add_client_error("start_replay", code)

    with pytest.raises(error) as caught:
        replays.start(webhook, start=START, end=END)
    assert caught.value.code == said  # type: ignore[attr-defined]


def test_without_an_archive_or_while_events_are_dropped_there_is_no_replay(
    replays: WebhookReplays, events: Any, webhooks: Webhooks, settings: Settings, clock: Clock
) -> None:
    webhook = webhooks.create(URL)
    with pytest.raises(ConflictError, match="ArchiveDays"):
        make(events, webhooks, replace(settings, event_archive_arn=""), clock).start(webhook.name, start=START, end=END)
    webhook.update([WebhookSubscription.paused_at.set(1), WebhookSubscription.drops_events.set(value=True)])
    with pytest.raises(ConflictError, match="resume"):
        replays.start(webhook.name, start=START, end=END)


@pytest.mark.parametrize("name", ["other-0123456789ab00000000", "", "x"])
def test_a_replay_of_somebody_else_is_not_found(name: str, replays: WebhookReplays, webhooks: Webhooks) -> None:
    with pytest.raises(NotFoundError):
        replays.get(webhooks.create(URL).name, name)
