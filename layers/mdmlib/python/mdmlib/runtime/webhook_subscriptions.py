"""What brings events to administrators' servers."""

import time
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.webhook_delivery import WebhookDelivery
    from mdmlib.services.webhook_replays import WebhookReplays
    from mdmlib.services.webhook_rules import WebhookRules
    from mdmlib.services.webhook_tests import WebhookTests
    from mdmlib.services.webhooks import Webhooks


@cache
def webhook_rules() -> "WebhookRules":
    """Return the rules that bring events to the webhook queue."""
    from mdmlib.services.webhook_rules import WebhookRules

    return WebhookRules(runtime.event_rules_client, settings=runtime.settings())


@cache
def webhooks() -> "Webhooks":
    """Return the webhook subscriptions."""
    from mdmlib.services.webhooks import Webhooks

    runtime.bind_tables()
    return Webhooks(runtime.webhook_rules(), sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def webhook_tests() -> "WebhookTests":
    """Return what tries receivers out."""
    from mdmlib.services.webhook_tests import WebhookTests

    return WebhookTests(
        runtime.events_client,
        webhooks=runtime.webhooks(),
        settings=runtime.settings(),
        now=runtime.now,
        new_event_id=runtime.new_event_id,
    )


@cache
def webhook_replays() -> "WebhookReplays":
    """Return what brings events out of the archive again."""
    from mdmlib.services.webhook_replays import WebhookReplays

    return WebhookReplays(
        runtime.event_rules_client,
        webhooks=runtime.webhooks(),
        rules=runtime.webhook_rules(),
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def webhook_delivery() -> "WebhookDelivery":
    """Return what delivers the webhook queue's messages."""
    import random

    from mdmlib import __version__
    from mdmlib.clients.webhook import WebhookClient
    from mdmlib.services.webhook_delivery import WebhookDelivery
    from mdmlib.services.webhook_documents import WebhookDocuments
    from mdmlib.services.webhook_receivers import WebhookReceivers

    return WebhookDelivery(
        client=WebhookClient(user_agent=f"PicoMDM/{__version__}"),
        webhooks=runtime.webhooks(),
        receivers=WebhookReceivers(runtime.webhooks(), now=runtime.now),
        documents=WebhookDocuments(payloads=runtime.payloads(), sealer=runtime.sealer()),
        sqs_client=runtime.sqs_client,
        settings=runtime.settings(),
        now=runtime.now,
        monotonic=time.monotonic,
        random=random.random,
    )
