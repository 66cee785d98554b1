"""Trying a webhook out: an event for one subscription alone, on the way that all events go.

The event goes to the bus with a ``source`` of its own, so that it is no event of the deployment to anybody else. The
template's rule ``<stack>-webhook-test`` puts it into the webhook queue, for the subscription that it names; the webhook
function posts it, signed and with the customer's headers, and notes what the receiver answered.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.apple.event import rfc3339nano
from mdmlib.errors import UnavailableError
from mdmlib.services.webhook_message import TEST_TOPIC
from mdmlib.services.webhooks import Webhooks
from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

TEST_SOURCE: Final = "picomdm.test"
TEST_RULE: Final = "test"
"""What the template's rule has in the place of a subscription's id."""


class WebhookTests:
    """Sends tests on their way."""

    def __init__(
        self,
        events_client: "Callable[[], EventBridgeClient]",
        *,
        webhooks: Webhooks,
        settings: Settings,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._events = events_client
        self._webhooks = webhooks
        self._bus = settings.event_bus
        self._now = now
        self._new_event_id = new_event_id

    def send(self, subscription_id: str) -> str:
        """Send a test to a subscription's receiver; return its event's id, by which its outcome is known.

        Raises :class:`~mdmlib.errors.NotFoundError` and :class:`~mdmlib.errors.UnavailableError`.
        """
        subscription = self._webhooks.get(subscription_id)
        document: dict[str, Any] = {
            "topic": TEST_TOPIC,
            "event_id": self._new_event_id(),
            "created_at": rfc3339nano(self._now()),
            "webhook_event": {"webhook_id": subscription.name},
        }
        try:
            answer = self._events().put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": TEST_SOURCE,
                        "DetailType": TEST_TOPIC,
                        "Detail": json.dumps(document),
                    }
                ]
            )
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The event bus does not take the test.") from error
        if answer["FailedEntryCount"]:
            raise UnavailableError("The event bus does not take the test.")
        return str(document["event_id"])
