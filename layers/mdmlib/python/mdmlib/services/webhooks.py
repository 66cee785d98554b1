"""Webhook subscriptions: who wants to hear of which events.

A subscription is an item (``webhook``, id) that says where to post, and a rule of the event bus that puts each event it
is about into the webhook queue, as ``{"subscription": "<id>", "event": <document>}``. The rules are named
``<stack>-webhook-<id>`` and are the only resources that are made outside the template.

The id is a digest of what the subscription is: the same URL and topics are the same subscription. So whoever repeats a
creation that broke off completes it, and nobody receives an event twice because of a repetition.

The subscription ``default`` is that of the template's ``WebhookUrl``, whose rule is the template's.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import DoesNotExist, PutError

from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.services.events import SOURCE
from mdmlib.services.https_url import check_https_url
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WebhookSubscription

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

COLLECTION: Final = "webhook"
DEFAULT: Final = "default"
"""The id of the subscription that the template makes."""

_TARGET: Final = "webhook-queue"
_ID: Final = re.compile(r"[0-9a-f]{12}")
_TOPIC: Final = re.compile(r"[A-Za-z]+\.(?:[A-Za-z0-9]+|\*)")
_MAX_TOPICS: Final = 50
_MAX_KEY_LENGTH: Final = 1_024


class Webhooks:
    """Makes, lists and ends subscriptions."""

    def __init__(
        self,
        events_client: "Callable[[], EventBridgeClient]",
        *,
        sealer: Sealer,
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._events = events_client
        self._sealer = sealer
        self._stack = settings.stack_name
        self._bus = settings.event_bus
        self._queue_arn = settings.webhook_queue_arn
        self._dead_letter_arn = settings.target_dead_letter_queue_arn
        self._default_url = settings.webhook_url
        self._now = now

    def create(
        self, url: str, topics: Collection[str] | None = None, hmac_key: str | None = None
    ) -> WebhookSubscription:
        """Subscribe ``url`` to the events of ``topics`` (``mdm.Connect``, ``dep.*``), or to all.

        Deliveries are signed with ``hmac_key`` (its UTF-8) if there is one. The same URL and topics again is the same
        subscription: its key is replaced, its failures are forgotten. The URL of the template's subscription, for all
        topics, is that subscription.

        Raises :class:`~mdmlib.errors.BadRequestError` for what cannot be subscribed,
        :class:`~mdmlib.errors.ConflictError` when the bus has no room for another rule, and
        :class:`~mdmlib.errors.UnavailableError`, after which the same creation again is right.
        """
        check_https_url(url, "A webhook")
        wanted = _checked_topics(topics)
        if hmac_key is not None and not 0 < len(hmac_key) <= _MAX_KEY_LENGTH:
            raise BadRequestError(
                f"An HMAC key has between 1 and {_MAX_KEY_LENGTH} characters; leave it away for none.", field="hmac_key"
            )
        subscription_id = DEFAULT if url == self._default_url and not wanted else _id(url, wanted)
        earlier = self._get(subscription_id)
        subscription = WebhookSubscription(
            COLLECTION,
            subscription_id,
            url=url,
            topics=wanted,
            hmac_key=self._sealer.seal(hmac_key.encode(), place=_place(subscription_id)) if hmac_key else None,
            created_at=earlier.created_at if earlier else int(self._now().timestamp()),
        )
        # The item first: from the rule's first event on, its queue's consumer looks for it.
        subscription.save()
        if subscription_id != DEFAULT:
            try:
                self._put_rule(subscription)
            except ConflictError:
                if earlier is None:
                    subscription.delete()
                raise
        return subscription

    def list(self) -> Sequence[WebhookSubscription]:
        """Return all subscriptions, the template's first."""
        stored = {subscription.name: subscription for subscription in WebhookSubscription.query(COLLECTION)}
        default = stored.pop(DEFAULT, None)
        if not self._default_url:
            return tuple(stored.values())
        if default is None:
            default = WebhookSubscription(COLLECTION, DEFAULT, created_at=int(self._now().timestamp()))
        default.url = self._default_url
        return (default, *stored.values())

    def find(self, subscription_id: str) -> WebhookSubscription | None:
        """Return a subscription as it is now, or None when there is none (any more)."""
        if subscription_id != DEFAULT:
            return self._get(subscription_id)
        if not self._default_url:
            return None
        default = self._get(DEFAULT) or self._make_default()
        # A deployment may have changed it.
        default.url = self._default_url
        return default

    def hmac_key(self, subscription: WebhookSubscription) -> bytes | None:
        """Return the key that the subscription's deliveries are signed with, or None."""
        if subscription.hmac_key is None:
            return None
        return self._sealer.open(subscription.hmac_key, place=_place(subscription.name))

    def delete(self, subscription_id: str) -> None:
        """End a subscription; events that still wait for it are dropped.

        Safe to repeat when it breaks off. Raises :class:`~mdmlib.errors.NotFoundError` when there is none,
        :class:`~mdmlib.errors.ConflictError` for the template's, and :class:`~mdmlib.errors.UnavailableError`.
        """
        if subscription_id == DEFAULT:
            raise ConflictError(
                "This subscription is the template's: deploy with an empty WebhookUrl to end it.",
                code="webhook_of_template",
            )
        # The pattern keeps a name that was made up from reaching a rule of somebody else.
        subscription = self._get(subscription_id) if _ID.fullmatch(subscription_id) else None
        if subscription is None:
            raise NotFoundError(f"There is no webhook {subscription_id!r}.", field="id")
        self._delete_rule(self._rule(subscription_id))
        # The item last: as long as it is there, a deletion that broke off can be repeated.
        subscription.delete()

    def _get(self, subscription_id: str) -> WebhookSubscription | None:
        try:
            return WebhookSubscription.get(COLLECTION, subscription_id, consistent_read=True)
        except DoesNotExist:
            return None

    def _make_default(self) -> WebhookSubscription:
        default = WebhookSubscription(
            COLLECTION, DEFAULT, url=self._default_url, created_at=int(self._now().timestamp())
        )
        try:
            default.save(condition=WebhookSubscription.name.does_not_exist())
        except PutError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            default.refresh(consistent_read=True)
        return default

    def _rule(self, subscription_id: str) -> str:
        return f"{self._stack}-webhook-{subscription_id}"

    def _put_rule(self, subscription: WebhookSubscription) -> None:
        rule = self._rule(subscription.name)
        template = f'{{"subscription": "{subscription.name}", "event": <event>}}'
        try:
            self._events().put_rule(
                Name=rule,
                EventBusName=self._bus,
                EventPattern=json.dumps(event_pattern(subscription.topics)),
                State="ENABLED",
                Description="A webhook of PicoMDM; made and deleted by its API.",
            )
            answer = self._events().put_targets(
                Rule=rule,
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
        except ClientError as error:
            if error.response["Error"]["Code"] == "LimitExceededException":
                raise ConflictError(
                    "The event bus has no room for another rule (300, unless AWS was asked for more).",
                    code="too_many_webhooks",
                ) from error
            raise UnavailableError("The event bus does not take the webhook's rule.") from error
        except BotoCoreError as error:
            raise UnavailableError("The event bus cannot be reached.") from error
        if answer["FailedEntryCount"]:
            raise UnavailableError("The event bus does not take the webhook's target.")

    def _delete_rule(self, rule: str) -> None:
        try:
            self._events().remove_targets(Rule=rule, EventBusName=self._bus, Ids=[_TARGET])
            self._events().delete_rule(Name=rule, EventBusName=self._bus)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise UnavailableError("The event bus does not give up the webhook's rule.") from error
        except BotoCoreError as error:
            raise UnavailableError("The event bus cannot be reached.") from error


def event_pattern(topics: Collection[str] | None) -> dict[str, object]:
    """Return the pattern of a subscription's rule: events of these topics (``dep.*``: all that begin so), or all."""
    pattern: dict[str, object] = {"source": [SOURCE]}
    if topics:
        pattern["detail-type"] = [{"prefix": topic[:-1]} if topic.endswith("*") else topic for topic in topics]
    return pattern


def _id(url: str, topics: Sequence[str] | None) -> str:
    return sha256(json.dumps([url, topics]).encode()).hexdigest()[:12]


def _place(subscription_id: str) -> str:
    return f"{COLLECTION}/{subscription_id}"


def _checked_topics(topics: Collection[str] | None) -> Sequence[str] | None:
    """Return the topics in one order, once each; None for all."""
    if topics is None:
        return None
    wanted = sorted(set(topics))
    if not 0 < len(wanted) <= _MAX_TOPICS:
        raise BadRequestError(f"Name between 1 and {_MAX_TOPICS} topics, or none at all for all.", field="topics")
    for topic in wanted:
        if not _TOPIC.fullmatch(topic):
            raise BadRequestError(f"{topic!r} is no topic, such as mdm.Connect or dep.*.", field="topics")
    return wanted
