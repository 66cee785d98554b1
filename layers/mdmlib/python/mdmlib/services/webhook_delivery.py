"""Deliveries: what waits in the webhook queue is posted to its subscriptions' receivers.

A message is ``{"subscription": "<id>", "event": <document>}``. Each is delivered at least once, in no order.

Receivers share the queue, and none may delay another:

- A delivery that failed stays in the queue, invisible for a while that doubles with each attempt (10 s to 1 h).
- A subscription that failed three times in a row is **held**, for 30 s at first and 15 min at most. While it is held,
  nothing is posted to it, so it takes none of the workers' time. When the hold is over, one delivery is tried; its
  success ends the hold, its failure prolongs it.
- Messages of a held subscription are put into the queue again with a delay, not made invisible: a queue with more than
  about 120,000 invisible messages gives out none, also none for the others. What such a message has behind it goes
  with it: ``since`` (epoch seconds) and ``attempts``.
- 24 hours after its event first came to the queue, a message goes to the dead-letter queue, ready to be put back.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException

from mdmlib import metrics
from mdmlib.apple.event import webhook_body
from mdmlib.clients.webhook import WebhookClient
from mdmlib.errors import MalformedBodyError, PicoMDMError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.events import MESSAGE_PARTS, event_place, payload_key
from mdmlib.services.webhooks import Webhooks
from mdmlib.settings import Settings
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WebhookSubscription

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from pynamodb.expressions.update import Action

GIVE_UP_AFTER_SECONDS: Final = 24 * 3_600
FIRST_RETRY_SECONDS: Final = 10
LONGEST_RETRY_SECONDS: Final = 3_600

HOLD_AFTER_FAILURES: Final = 3
FIRST_HOLD_SECONDS: Final = 30
LONGEST_HOLD_SECONDS: Final = 900
"""The longest delay that SQS knows."""

_KEEP_SUBSCRIPTION_SECONDS: Final = 10
"""For so long an end or a change of a subscription may go unnoticed."""


@dataclass(frozen=True, kw_only=True)
class WebhookMessage:
    """A message of the webhook queue, as it was received."""

    subscription_id: str
    event: Mapping[str, Any] = field(repr=False)
    receipt_handle: str
    attempts: int
    """How often it was received, this time included."""
    since: int
    """When the event first came to the queue, epoch seconds."""

    @classmethod
    def decode(cls, body: str, *, receipt_handle: str, receive_count: int, sent_at: int) -> Self:
        """Read an SQS message; ``receive_count`` and ``sent_at`` (epoch seconds) are what SQS says of it.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for what never was one.
        """
        try:
            document = json.loads(body)
            return cls(
                subscription_id=document["subscription"],
                event={**document["event"]},
                receipt_handle=receipt_handle,
                attempts=int(document.get("attempts", 0)) + receive_count,
                since=int(document.get("since", sent_at)),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            # No cause: the decoder's error would show a part of the body.
            raise MalformedBodyError("A message of the webhook queue is malformed.") from None

    @property
    def event_id(self) -> str:
        """The event's id, for the log."""
        return str(self.event.get("event_id"))

    def encode(self) -> str:
        """Return the body of a message that goes on where this one stands."""
        return json.dumps(
            {
                "subscription": self.subscription_id,
                "event": self.event,
                "since": self.since,
                "attempts": self.attempts,
            },
            separators=(",", ":"),
        )

    def encode_afresh(self) -> str:
        """Return the body of a message that has nothing behind it, as the bus sends it."""
        return json.dumps({"subscription": self.subscription_id, "event": self.event}, separators=(",", ":"))


class WebhookDelivery:
    """Delivers messages of the webhook queue; made for one thread.

    ``random`` gives numbers from 0 up to 1; they spread what would otherwise come back at once.
    """

    def __init__(
        self,
        *,
        client: WebhookClient,
        webhooks: Webhooks,
        sqs_client: "Callable[[], SQSClient]",
        payloads: PayloadStore,
        sealer: Sealer,
        settings: Settings,
        now: Callable[[], datetime],
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._webhooks = webhooks
        self._sqs = sqs_client
        self._payloads = payloads
        self._sealer = sealer
        self._queue_url = settings.webhook_queue_url
        self._dead_letter_queue_url = settings.webhook_dead_letter_queue_url
        self._now = now
        self._random = random
        self._known: dict[str, tuple[WebhookSubscription, int]] = {}

    def receive(self, message: WebhookMessage) -> None:
        """Deliver a message, or see to it that it comes back.

        Returns when the message is done with. Raises :class:`~mdmlib.errors.PicoMDMError` when it has to stay in the
        queue; as a rule it is invisible for a while then.
        """
        try:
            self._deliver(message)
        except PicoMDMError as error:
            if self._seconds() - message.since < GIVE_UP_AFTER_SECONDS:
                self._back_off(message)
                raise
            self._send(self._dead_letter_queue_url, message.encode_afresh())
            metrics.emit(
                "Webhook delivery given up",
                {Metric.WEBHOOKS_GIVEN_UP: 1},
                subscription=message.subscription_id,
                event_id=message.event_id,
                reason=error.message,
            )

    def close(self) -> None:
        """Close the connections to receivers."""
        self._client.close()

    def _deliver(self, message: WebhookMessage) -> None:
        subscription = self._subscription(message.subscription_id)
        if subscription is None:
            logger.info("Event of an ended webhook dropped", subscription=message.subscription_id)
            return
        if not self._may_try(subscription):
            self._put_off(message, subscription)
            return
        # What fails before the post is our own fault, and no reason to hold the subscription.
        hmac_key = self._webhooks.hmac_key(subscription)
        body = webhook_body(self._opened(message.event))
        try:
            self._client.post(subscription.url, body, hmac_key=hmac_key)
        except UnavailableError as error:
            metrics.emit(
                "Webhook delivery failed",
                {Metric.WEBHOOKS_FAILED: 1},
                subscription=subscription.name,
                event_id=message.event_id,
                attempts=message.attempts,
                reason=error.message,
            )
            self._note_failure(subscription)
            raise
        metrics.emit(
            "Webhook delivered",
            {Metric.WEBHOOKS_DELIVERED: 1, Metric.WEBHOOK_SECONDS: max(self._seconds() - message.since, 0)},
            subscription=subscription.name,
            event_id=message.event_id,
            attempts=message.attempts,
        )
        self._note_success(subscription)

    def _opened(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document as it was before it went to the bus: the body in clear, in its place."""
        return {
            key: self._opened_part(value, str(event.get("event_id"))) if key in MESSAGE_PARTS and value else value
            for key, value in event.items()
        }

    def _opened_part(self, part: Mapping[str, Any], event_id: str) -> dict[str, Any]:
        opened: dict[str, Any] = {}
        for key, value in part.items():
            if key == "raw_payload_sealed":
                raw = self._sealer.open(b64decode(value), place=event_place(event_id))
            elif key == "payload_ref":
                raw = self._stored(value, event_id)
            else:
                opened[key] = value
                continue
            opened["raw_payload"] = b64encode(raw).decode()
        return opened

    def _stored(self, reference: str, event_id: str) -> bytes:
        # Commands and results lie in the same bucket: an event leads to its own body only.
        if reference != payload_key(event_id):
            raise MalformedBodyError("An event refers to a body that is not its own.")
        try:
            return self._payloads.get(reference)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("An event's body cannot be read from the payload bucket.") from error

    def _subscription(self, subscription_id: str) -> WebhookSubscription | None:
        """Return a subscription as it was at most ten seconds ago."""
        known, read_at = self._known.get(subscription_id, (None, 0))
        if known is None or self._seconds() - read_at > _KEEP_SUBSCRIPTION_SECONDS:
            try:
                known = self._webhooks.find(subscription_id)
            except PynamoDBException as error:
                raise UnavailableError("A webhook's subscription cannot be read.") from error
            self._remember(subscription_id, known)
        return known

    def _remember(self, subscription_id: str, subscription: WebhookSubscription | None) -> None:
        if subscription is None:
            self._known.pop(subscription_id, None)
        else:
            self._known[subscription_id] = (subscription, self._seconds())

    def _may_try(self, subscription: WebhookSubscription) -> bool:
        """Whether to post to a subscription now: it is not held, or this is the one delivery that tries it out."""
        if subscription.held_until is None:
            return True
        if subscription.held_until > self._seconds():
            return False
        # Whoever prolongs the hold first is the one to try; the others find it prolonged.
        held_until = self._seconds() + hold_seconds(int(subscription.failures))
        condition = WebhookSubscription.held_until == subscription.held_until
        try:
            subscription.update([WebhookSubscription.held_until.set(held_until)], condition=condition)
        except PynamoDBException:
            self._known.pop(subscription.name, None)
            return False
        return True

    def _note_failure(self, subscription: WebhookSubscription) -> None:
        actions: list[Action] = [WebhookSubscription.failures.add(1)]
        failures = int(subscription.failures) + 1
        if failures >= HOLD_AFTER_FAILURES:
            actions.append(WebhookSubscription.held_until.set(self._seconds() + hold_seconds(failures)))
            logger.warning("Webhook held", subscription=subscription.name, failures=failures)
        self._update(subscription, actions)

    def _note_success(self, subscription: WebhookSubscription) -> None:
        if subscription.failures or subscription.held_until is not None:
            self._update(subscription, [WebhookSubscription.failures.set(0), WebhookSubscription.held_until.remove()])

    def _update(self, subscription: WebhookSubscription, actions: "list[Action]") -> None:
        """Write what a delivery taught about a subscription. Deliveries go on when that fails."""
        url = subscription.url
        try:
            subscription.update(actions, condition=WebhookSubscription.name.exists())
        except PynamoDBException as error:
            # Ended meanwhile, or DynamoDB is unwell; the next delivery reads the subscription anew.
            self._known.pop(subscription.name, None)
            logger.info("Webhook's state not written", subscription=subscription.name, error=type(error).__name__)
        # That of the template's subscription is what the deployment says, not what the item remembers.
        subscription.url = url

    def _put_off(self, message: WebhookMessage, subscription: WebhookSubscription) -> None:
        """Put a held subscription's message behind the end of the hold."""
        if self._seconds() - message.since >= GIVE_UP_AFTER_SECONDS:
            raise UnavailableError("The webhook has been failing for a day.", code="webhook_held")
        remaining = max(int(subscription.held_until or 0) - self._seconds(), 0)
        # Spread over a minute more, for what one receiver could not take it should not get at once.
        delay = min(remaining + 1 + int(60 * self._random()), LONGEST_HOLD_SECONDS)
        self._send(self._queue_url, message.encode(), delay_seconds=delay)

    def _send(self, queue_url: str, body: str, *, delay_seconds: int = 0) -> None:
        # Sent before the message itself is deleted: what breaks off in between is delivered twice, not never.
        try:
            self._sqs().send_message(QueueUrl=queue_url, MessageBody=body, DelaySeconds=delay_seconds)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("A message of the webhook queue cannot be put back.") from error

    def _back_off(self, message: WebhookMessage) -> None:
        seconds = retry_seconds(message.attempts)
        seconds += int(seconds * self._random() / 4)
        try:
            self._sqs().change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message.receipt_handle, VisibilityTimeout=seconds
            )
        except (BotoCoreError, ClientError) as error:
            # It comes back after the queue's own time then.
            logger.warning("Webhook message's retry not postponed", error=type(error).__name__)

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def retry_seconds(attempts: int) -> int:
    """Return how long a message waits after so many attempts: 10 s, doubled by each further one, up to 1 h."""
    return _doubled(FIRST_RETRY_SECONDS, attempts - 1, LONGEST_RETRY_SECONDS)


def hold_seconds(failures: int) -> int:
    """Return how long a subscription is held after so many failures in a row."""
    return _doubled(FIRST_HOLD_SECONDS, failures - HOLD_AFTER_FAILURES, LONGEST_HOLD_SECONDS)


def _doubled(first: int, times: int, longest: int) -> int:
    return min(first << min(max(times, 0), 16), longest)
