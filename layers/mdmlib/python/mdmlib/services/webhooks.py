"""Webhook subscriptions: who wants to hear of which events.

A subscription is an item (``webhook``, id) that says where to post, and a rule of the event bus that puts each event it
is about into the webhook queue, as ``{"subscription": "<id>", "event": <document>}``
(:mod:`mdmlib.services.webhook_rules`).

The id is a digest of what the subscription was made as: the same URL and filters are the same subscription. So whoever
repeats a creation that broke off completes it, and nobody receives an event twice because of a repetition.

The subscription ``default`` is that of the template's ``WebhookUrl``, whose rule is the template's.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist, PutError, UpdateError

from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.https_url import check_https_url
from mdmlib.services.webhook_filters import FILTERS, WebhookFilter
from mdmlib.services.webhook_headers import checked_headers
from mdmlib.services.webhook_rules import WebhookRules
from mdmlib.settings import Settings
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WebhookSubscription
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from pynamodb.attributes import Attribute
    from pynamodb.expressions.update import Action

    Actions = list[Action]

COLLECTION: Final = "webhook"
DEFAULT: Final = "default"
"""The id of the subscription that the template makes."""

REDACTIONS: Final = ("secrets", "payload")
"""What may be left out: raw messages that hold something secret, or all of them."""

_EVERYTHING: Final = WebhookFilter()
_ID: Final = re.compile(r"[0-9a-f]{12}")
_MAX_KEY_LENGTH: Final = 1_024


class Webhooks:
    """Makes, lists, changes and ends subscriptions."""

    def __init__(self, rules: WebhookRules, *, sealer: Sealer, settings: Settings, now: Callable[[], datetime]) -> None:
        self._rules = rules
        self._sealer = sealer
        self._default_url = settings.webhook_url
        self._now = now

    def create(
        self,
        url: str,
        wanted: WebhookFilter = _EVERYTHING,
        *,
        hmac_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        redact: str | None = None,
    ) -> WebhookSubscription:
        """Subscribe ``url`` to the events that pass a filter.

        Deliveries are signed with ``hmac_key`` (its UTF-8) if there is one, and have these ``headers`` beside ours.
        The same URL and filter again is the same subscription: key, headers and redaction are replaced, its failures
        are forgotten, a pause goes on. The URL of the template's subscription, for everything, is that subscription.

        Raises :class:`~mdmlib.errors.BadRequestError` for what cannot be subscribed,
        :class:`~mdmlib.errors.ConflictError` when the bus has no room for another rule or the subscription was changed
        into another one, and :class:`~mdmlib.errors.UnavailableError`, after which the same creation again is right.
        """
        check_https_url(url, "A webhook")
        _check_redaction(redact)
        subscription_id = DEFAULT if url == self._default_url and wanted == _EVERYTHING else _id(url, wanted)
        earlier = self._get(subscription_id)
        if earlier and subscription_id != DEFAULT and (earlier.url, WebhookFilter.of(earlier)) != (url, wanted):
            raise ConflictError(
                f"The webhook {subscription_id} was made with this URL and these filters, and changed since: change "
                "it back, or delete it.",
                code="webhook_changed",
            )
        subscription = WebhookSubscription(
            COLLECTION,
            subscription_id,
            url=url,
            topics=wanted.topics,
            enrollment_types=wanted.enrollment_types,
            request_types=wanted.request_types,
            statuses=wanted.statuses,
            redact=redact,
            created_at=earlier.created_at if earlier else int(self._now().timestamp()),
        )
        if earlier:
            subscription.next_hmac_key = earlier.next_hmac_key
            subscription.paused_at, subscription.drops_events = earlier.paused_at, earlier.drops_events
            subscription.last_test = earlier.last_test
        subscription.hmac_key = self._sealed_key(hmac_key, _place(subscription_id))
        subscription.headers, subscription.header_names = self._sealed_headers(headers, subscription_id)
        # The item first: from the rule's first event on, its queue's consumer looks for it.
        subscription.save()
        if subscription_id != DEFAULT:
            try:
                self._rules.put(subscription_id, wanted)
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

    def get(self, subscription_id: str) -> WebhookSubscription:
        """Return a subscription as it is now. Raises :class:`~mdmlib.errors.NotFoundError`."""
        # The pattern keeps a name that was made up from reaching a rule of somebody else.
        known = subscription_id == DEFAULT or _ID.fullmatch(subscription_id)
        subscription = self.find(subscription_id) if known else None
        if subscription is None:
            raise NotFoundError(f"There is no webhook {subscription_id!r}.", field="id")
        return subscription

    def change(
        self,
        subscription_id: str,
        changes: Mapping[str, Any],
        *,
        only_if: OnlyIf[WebhookSubscription] | None = None,
    ) -> WebhookSubscription:
        """Change what is named, and leave everything else as it is; safe to repeat.

        ``url``, the filters (:data:`~mdmlib.services.webhook_filters.FILTERS`), ``redact``, ``headers``, ``hmac_key``
        are as in :meth:`create`; None is none. Further there are

        ``next_hmac_key``   the key that takes over: until then deliveries are signed with both
        ``promote_next_hmac_key``  true lets it take over; without one (a repetition) nothing changes
        ``paused``          true: post nothing until it is false again, which ends a hold, too
        ``drop_events``     with ``paused``: forget the events of the pause, which otherwise wait

        Raises :class:`~mdmlib.errors.BadRequestError`, :class:`~mdmlib.errors.NotFoundError`,
        :class:`~mdmlib.errors.ConflictError` for URL and filters of the template's subscription,
        :class:`~mdmlib.errors.UnavailableError`, and what ``only_if`` raises.
        """
        subscription = self.get(subscription_id)
        is_default = subscription_id == DEFAULT
        wanted = WebhookFilter.checked(
            WebhookFilter.of(subscription).values() | {name: changes[name] for name in FILTERS if name in changes}
        )
        if is_default and (wanted != _EVERYTHING or changes.get("url", subscription.url) != subscription.url):
            raise ConflictError(
                "URL and filters of this subscription are the template's: deploy with another WebhookUrl, or make "
                "a subscription of your own.",
                code="webhook_of_template",
            )
        actions = self._actions(subscription, wanted, changes)
        changes_rule = not is_default and any(name in changes for name in FILTERS)
        if only_if:
            # The item first, for it alone can be written on a condition: who is refused has changed nothing.
            self._update_if(subscription, actions, only_if)
        if changes_rule:
            # The rule before the item: its pattern is what counts, and the same change again puts both right.
            self._rules.put(subscription_id, wanted)
        if actions and not only_if:
            self._update(subscription, actions)
        return self.get(subscription_id)

    def hmac_keys(self, subscription: WebhookSubscription) -> tuple[bytes | None, bytes | None]:
        """Return the key that deliveries are signed with, and the one that takes over soon; None for none."""
        now, soon = _place(subscription.name), _place(subscription.name, "next")
        key, next_key = subscription.hmac_key, subscription.next_hmac_key
        return (
            None if key is None else self._sealer.open(key, place=now),
            None if next_key is None else self._sealer.open(next_key, place=soon),
        )

    def headers(self, subscription: WebhookSubscription) -> dict[str, str]:
        """Return the customer's own headers."""
        if subscription.headers is None:
            return {}
        opened: dict[str, str] = json.loads(
            self._sealer.open(subscription.headers, place=_place(subscription.name, "headers"))
        )
        return opened

    def note_test(self, subscription: WebhookSubscription, outcome: Mapping[str, Any]) -> None:
        """Keep what became of a test. Raises pynamodb's ``UpdateError`` when the subscription is gone."""
        sealed = self._sealer.seal(json.dumps(outcome).encode(), place=_place(subscription.name, "test"))
        self._update(subscription, [WebhookSubscription.last_test.set(sealed)])

    def last_test(self, subscription: WebhookSubscription) -> dict[str, Any] | None:
        """Return what became of the last test, or None before the first."""
        if subscription.last_test is None:
            return None
        outcome: dict[str, Any] = json.loads(
            self._sealer.open(subscription.last_test, place=_place(subscription.name, "test"))
        )
        return outcome

    def delete(self, subscription_id: str, *, only_if: OnlyIf[WebhookSubscription] | None = None) -> None:
        """End a subscription; events that still wait for it are dropped.

        Safe to repeat when it breaks off. Raises :class:`~mdmlib.errors.NotFoundError` when there is none,
        :class:`~mdmlib.errors.ConflictError` for the template's, :class:`~mdmlib.errors.UnavailableError`, and what
        ``only_if`` raises.
        """
        if subscription_id == DEFAULT:
            raise ConflictError(
                "This subscription is the template's: deploy with an empty WebhookUrl to end it.",
                code="webhook_of_template",
            )
        subscription = self.get(subscription_id)
        if only_if:
            # A pause of it is what whoever changes it at the same time meets, before its rule is gone.
            pause = WebhookSubscription.paused_at.set(int(self._now().timestamp()))
            self._update_if(subscription, [pause], only_if)
        self._rules.delete(subscription_id)
        # The item last: as long as it is there, a deletion that broke off can be repeated.
        subscription.delete()

    def _actions(
        self, subscription: WebhookSubscription, wanted: WebhookFilter, changes: Mapping[str, Any]
    ) -> "Actions":
        item, name = WebhookSubscription, subscription.name
        actions: Actions = []
        if (url := changes.get("url")) is not None and name != DEFAULT:
            check_https_url(url, "A webhook")
            actions.append(item.url.set(url))
        actions += [_set_or_remove(getattr(item, each), getattr(wanted, each)) for each in FILTERS if each in changes]
        if "redact" in changes:
            _check_redaction(changes["redact"])
            actions.append(_set_or_remove(item.redact, changes["redact"]))
        if "headers" in changes:
            headers, names = self._sealed_headers(changes["headers"], name)
            actions += [_set_or_remove(item.headers, headers), _set_or_remove(item.header_names, names)]
        actions += self._key_actions(subscription, changes)
        paused = changes.get("paused")
        if changes.get("drop_events") is not None and not paused:
            raise BadRequestError("drop_events goes with paused: true.", field="drop_events")
        if paused:
            since = int(self._now().timestamp())
            actions.append(item.paused_at.set(item.paused_at | since))
            actions.append(_set_or_remove(item.drops_events, changes.get("drop_events") or None))
        elif paused is not None:
            gone = (item.paused_at, item.drops_events, item.held_until, item.slow_ms, item.next_turn_ms)
            actions += [item.failures.set(0), *(attribute.remove() for attribute in gone)]
        return actions

    def _key_actions(self, subscription: WebhookSubscription, changes: Mapping[str, Any]) -> "Actions":
        item, name = WebhookSubscription, subscription.name
        promotes = bool(changes.get("promote_next_hmac_key"))
        if promotes and changes.keys() & {"hmac_key", "next_hmac_key"}:
            raise BadRequestError(
                "promote_next_hmac_key goes with no other key.", code="invalid_field", field="promote_next_hmac_key"
            )
        if promotes:
            _, promoted = self.hmac_keys(subscription)
            if promoted is None:
                return []
            key = self._sealer.seal(promoted, place=_place(name))
            return [item.hmac_key.set(key), item.next_hmac_key.remove()]
        actions = []
        if "hmac_key" in changes:
            actions.append(_set_or_remove(item.hmac_key, self._sealed_key(changes["hmac_key"], _place(name))))
        if "next_hmac_key" in changes:
            sealed = self._sealed_key(changes["next_hmac_key"], _place(name, "next"), field="next_hmac_key")
            actions.append(_set_or_remove(item.next_hmac_key, sealed))
        return actions

    def _update_if(
        self, subscription: WebhookSubscription, actions: "Actions", only_if: OnlyIf[WebhookSubscription]
    ) -> None:
        """Make a change if the subscription is, and still is, what was seen; also a change of nothing."""
        name = subscription.name

        def check(_: WebhookSubscription | None) -> None:
            # Read once more, for the template's is shown with another URL than is stored.
            only_if(self.get(name))

        with only_while(WebhookSubscription, lambda: self._get(name), check) as condition:
            if actions:
                WebhookSubscription(COLLECTION, name).update(actions, condition=condition)

    def _update(self, subscription: WebhookSubscription, actions: "Actions") -> None:
        url = subscription.url
        try:
            subscription.update(actions, condition=WebhookSubscription.name.exists())
        except UpdateError as error:
            if not condition_failed(error):
                raise
            raise NotFoundError(f"There is no webhook {subscription.name!r} any more.", field="id") from error
        # That of the template's subscription is what the deployment says, not what the item remembers.
        subscription.url = url

    def _sealed_key(self, key: str | None, place: str, *, field: str = "hmac_key") -> bytes | None:
        if key is None:
            return None
        if not 0 < len(key) <= _MAX_KEY_LENGTH:
            raise BadRequestError(
                f"An HMAC key has between 1 and {_MAX_KEY_LENGTH} characters; leave it away for none.", field=field
            )
        return self._sealer.seal(key.encode(), place=place)

    def _sealed_headers(
        self, headers: Mapping[str, Any] | None, subscription_id: str
    ) -> tuple[bytes | None, Sequence[str] | None]:
        if not headers:
            return None, None
        checked = checked_headers(headers)
        sealed = self._sealer.seal(json.dumps(checked).encode(), place=_place(subscription_id, "headers"))
        return sealed, list(checked)

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
            if not condition_failed(error):
                raise
            default.refresh(consistent_read=True)
        return default


def _id(url: str, wanted: WebhookFilter) -> str:
    more = {name: values for name, values in wanted.values().items() if values and name != "topics"}
    # As before there were other filters, so that what was made then is still the same subscription.
    made_of: list[Any] = [url, wanted.topics, more] if more else [url, wanted.topics]
    return sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def _place(subscription_id: str, what: str = "") -> str:
    return f"{COLLECTION}/{subscription_id}/{what}" if what else f"{COLLECTION}/{subscription_id}"


def _check_redaction(redact: str | None) -> None:
    if redact is not None and redact not in REDACTIONS:
        raise BadRequestError(f"redact is one of {', '.join(REDACTIONS)}, or left away.", field="redact")


def _set_or_remove(attribute: "Attribute[Any]", value: object) -> "Action":
    return attribute.remove() if value is None else attribute.set(value)
