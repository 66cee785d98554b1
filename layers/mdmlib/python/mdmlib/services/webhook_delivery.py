"""Deliveries: what waits in the webhook queue is posted to its subscriptions' receivers.

Each message (:mod:`mdmlib.services.webhook_message`) is delivered at least once, in no order.

- A delivery that failed stays in the queue, invisible for a while that doubles with each attempt (10 s to 1 h).
- Messages whose receiver may not be posted to now (:mod:`mdmlib.services.webhook_receivers`), or whose subscription is
  paused, are put into the queue again with a delay, not made invisible: a queue with more than about 120,000 invisible
  messages gives out none, also none for the others.
- 24 hours after its event first came to the queue, pauses aside, a message goes to the dead-letter queue, ready to be
  put back. So it does when it has waited for two weeks in pauses.
- A test is posted whatever the state of its subscription, once, and what became of it is noted.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException

from mdmlib import metrics
from mdmlib.apple.event import rfc3339nano, webhook_body
from mdmlib.clients.webhook import WebhookClient
from mdmlib.errors import PicoMDMError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.webhook_documents import WebhookDocuments
from mdmlib.services.webhook_message import WebhookMessage
from mdmlib.services.webhook_receivers import LONGEST_HOLD_SECONDS, WebhookReceivers, doubled
from mdmlib.services.webhooks import Webhooks
from mdmlib.settings import Settings
from mdmlib.store.tables import WebhookSubscription

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

    from mdmlib.clients.webhook import WebhookAnswer

GIVE_UP_AFTER_SECONDS: Final = 24 * 3_600
LONGEST_PAUSE_SECONDS: Final = 14 * 24 * 3_600
"""The bodies in the payload bucket are kept for 30 days, of which the dead-letter queue may take 14."""

FIRST_RETRY_SECONDS: Final = 10
LONGEST_RETRY_SECONDS: Final = 3_600


class WebhookDelivery:
    """Delivers messages of the webhook queue; made for one thread.

    ``random`` gives numbers from 0 up to 1; they spread what would otherwise come back at once.
    """

    def __init__(
        self,
        *,
        client: WebhookClient,
        webhooks: Webhooks,
        receivers: WebhookReceivers,
        documents: WebhookDocuments,
        sqs_client: "Callable[[], SQSClient]",
        settings: Settings,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._webhooks = webhooks
        self._receivers = receivers
        self._documents = documents
        self._sqs = sqs_client
        self._queue_url = settings.webhook_queue_url
        self._dead_letter_queue_url = settings.webhook_dead_letter_queue_url
        self._now = now
        self._monotonic = monotonic
        self._random = random

    def receive(self, message: WebhookMessage) -> None:
        """Deliver a message, or see to it that it comes back.

        Returns when the message is done with. Raises :class:`~mdmlib.errors.PicoMDMError` when it has to stay in the
        queue; as a rule it is invisible for a while then.
        """
        try:
            self._deliver(message)
        except PicoMDMError as error:
            if error.code != "webhook_paused" and self._seconds() - message.since < GIVE_UP_AFTER_SECONDS:
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
        subscription = self._receivers.find(message.subscription_id, afresh=message.is_test)
        if subscription is None:
            logger.info("Event of an ended webhook dropped", subscription=message.subscription_id)
        elif message.is_test:
            self._try_out(message, subscription)
        elif subscription.paused_at is not None:
            self._wait_for_the_end_of_a_pause(message, subscription)
        elif self._receivers.is_held(subscription):
            self._put_off(replace(message, turn_ms=None), int(subscription.held_until or 0))
        elif (turn_ms := self._receivers.turn_ms(subscription, message.turn_ms)) > self._now().timestamp() * 1000:
            self._put_off(replace(message, turn_ms=turn_ms), turn_ms // 1000, spread_seconds=0)
        else:
            self._post(message, subscription)

    def _post(self, message: WebhookMessage, subscription: WebhookSubscription) -> None:
        # What fails before the post is our own fault, and no reason to hold the subscription.
        body = webhook_body(self._documents.opened(message.event, redact=subscription.redact))
        post = self._prepared(subscription)
        begun = self._monotonic()
        try:
            post(body).require_success()
        except UnavailableError as error:
            metrics.emit(
                "Webhook delivery failed",
                {Metric.WEBHOOKS_FAILED: 1},
                subscription=subscription.name,
                event_id=message.event_id,
                attempts=message.attempts,
                reason=error.message,
            )
            self._receivers.note_failure(subscription, seconds=self._monotonic() - begun)
            raise
        metrics.emit(
            "Webhook delivered",
            {Metric.WEBHOOKS_DELIVERED: 1, Metric.WEBHOOK_SECONDS: max(self._seconds() - message.since, 0)},
            subscription=subscription.name,
            event_id=message.event_id,
            attempts=message.attempts,
        )
        self._receivers.note_success(subscription, seconds=self._monotonic() - begun)

    def _prepared(self, subscription: WebhookSubscription) -> "Callable[[bytes], WebhookAnswer]":
        """Return what posts a body to a subscription's receiver."""
        hmac_key, next_hmac_key = self._webhooks.hmac_keys(subscription)
        headers = self._webhooks.headers(subscription)
        return lambda body: self._client.post(
            subscription.url, body, hmac_key=hmac_key, next_hmac_key=next_hmac_key, headers=headers
        )

    def _try_out(self, message: WebhookMessage, subscription: WebhookSubscription) -> None:
        """Post a test once, and note what came of it; a success ends a hold."""
        post = self._prepared(subscription)
        body = webhook_body(message.event)
        begun = self._monotonic()
        outcome: dict[str, Any] = {"status": None, "answer": None, "error": None}
        try:
            answer = post(body)
            outcome |= {"status": answer.status, "answer": answer.beginning.decode(errors="replace")}
        except UnavailableError as error:
            answer = None
            outcome["error"] = error.message
        seconds = self._monotonic() - begun
        outcome |= {
            "event_id": message.event_id,
            "delivered": answer is not None and answer.is_success,
            "seconds": round(seconds, 3),
            "at": rfc3339nano(self._now()),
        }
        if outcome["delivered"]:
            self._receivers.note_success(subscription, seconds=seconds)
        try:
            self._webhooks.note_test(subscription, outcome)
        except PynamoDBException as error:
            raise UnavailableError("What became of a test cannot be noted.") from error

    def _wait_for_the_end_of_a_pause(self, message: WebhookMessage, subscription: WebhookSubscription) -> None:
        if subscription.drops_events:
            logger.info("Event of a paused webhook dropped", subscription=subscription.name, event_id=message.event_id)
            return
        if message.paused >= LONGEST_PAUSE_SECONDS:
            raise UnavailableError("The webhook has been paused for two weeks.", code="webhook_paused")
        delay = LONGEST_HOLD_SECONDS - int(60 * self._random())
        # Who pauses a webhook has a day for its failures all the same.
        waiting = replace(message, paused=message.paused + delay, since=message.since + delay, turn_ms=None)
        self._send(self._queue_url, waiting.encode(), delay_seconds=delay)

    def _put_off(self, message: WebhookMessage, until: int, *, spread_seconds: int = 60) -> None:
        """Put a message behind the end of its receiver's hold, or where its turn is."""
        if self._seconds() - message.since >= GIVE_UP_AFTER_SECONDS:
            raise UnavailableError("The webhook has been failing for a day, or is too slow.", code="webhook_held")
        remaining = max(until - self._seconds(), 0)
        # Spread over a minute more, for what one receiver could not take it should not get at once.
        delay = min(remaining + 1 + int(spread_seconds * self._random()), LONGEST_HOLD_SECONDS)
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
    return doubled(FIRST_RETRY_SECONDS, attempts - 1, LONGEST_RETRY_SECONDS)
