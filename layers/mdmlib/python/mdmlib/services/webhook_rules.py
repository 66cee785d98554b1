"""The rules of the event bus that bring a subscription's events to the webhook queue.

They are named ``<stack>-webhook-<id>``, and are the only resources that are made outside the template.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import ConflictError, UnavailableError
from mdmlib.services.webhook_filters import WebhookFilter
from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_TARGET: Final = "webhook-queue"


class WebhookRules:
    """Makes, changes and deletes the rules."""

    def __init__(self, events_client: "Callable[[], EventBridgeClient]", *, settings: Settings) -> None:
        self._events = events_client
        self._stack = settings.stack_name
        self._bus = settings.event_bus
        self._queue_arn = settings.webhook_queue_arn
        self._dead_letter_arn = settings.target_dead_letter_queue_arn
        _, partition, _, region, account, _ = settings.webhook_queue_arn.split(":")
        self._arns = f"arn:{partition}:events:{region}:{account}"

    def name(self, subscription_id: str) -> str:
        """Return the name of a subscription's rule."""
        return f"{self._stack}-webhook-{subscription_id}"

    def arn(self, subscription_id: str) -> str:
        """Return the ARN of a subscription's rule."""
        return f"{self._arns}:rule/{self._bus}/{self.name(subscription_id)}"

    @property
    def bus_arn(self) -> str:
        """The ARN of the bus that the rules are on."""
        return f"{self._arns}:event-bus/{self._bus}"

    def put(self, subscription_id: str, wanted: WebhookFilter) -> None:
        """Make or change the rule of a subscription; safe to repeat.

        Raises :class:`~mdmlib.errors.ConflictError` when the bus has no room for another rule, and
        :class:`~mdmlib.errors.UnavailableError`.
        """
        template = f'{{"subscription": "{subscription_id}", "event": <event>}}'
        with _told("The event bus does not take the webhook's rule."):
            self._events().put_rule(
                Name=self.name(subscription_id),
                EventBusName=self._bus,
                EventPattern=json.dumps(wanted.pattern()),
                State="ENABLED",
                Description="A webhook of PicoMDM; made and deleted by its API.",
            )
            answer = self._events().put_targets(
                Rule=self.name(subscription_id),
                EventBusName=self._bus,
                Targets=[
                    {
                        "Id": _TARGET,
                        "Arn": self._queue_arn,
                        "InputTransformer": {"InputPathsMap": {"event": "$.detail"}, "InputTemplate": template},
                        "DeadLetterConfig": {"Arn": self._dead_letter_arn},
                    }
                ],
            )
        if answer["FailedEntryCount"]:
            raise UnavailableError("The event bus does not take the webhook's target.")

    def delete(self, subscription_id: str) -> None:
        """Delete the rule of a subscription, if it is there. Raises :class:`~mdmlib.errors.UnavailableError`."""
        rule = self.name(subscription_id)
        with _told("The event bus does not give up the webhook's rule."):
            try:
                self._events().remove_targets(Rule=rule, EventBusName=self._bus, Ids=[_TARGET])
                self._events().delete_rule(Name=rule, EventBusName=self._bus)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise


@contextmanager
def _told(refusal: str) -> Iterator[None]:
    """Turn the bus' errors into ours."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] == "LimitExceededException":
            raise ConflictError(
                "The event bus has no room for another rule (300, unless AWS was asked for more).",
                code="too_many_webhooks",
            ) from error
        raise UnavailableError(refusal) from error
    except BotoCoreError as error:
        raise UnavailableError("The event bus cannot be reached.") from error
