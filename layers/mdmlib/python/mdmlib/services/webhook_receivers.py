"""How receivers do, as their deliveries have shown; and whether one may be posted to now.

Receivers share the queue and the workers, and none may delay another:

- One that failed three times in a row, or once after keeping a worker waiting, is **held**: for 30 s at first and
  15 min at most. While it is held nothing is posted to it. When the hold is over, one delivery is tried; its success
  ends the hold, its failure prolongs it.
- One that takes long to answer is **slow**: its deliveries get turns, one behind the other, such that it never has more
  than two workers at a time, however many of its events wait.

All of it is in the subscription's item, which a worker reads at most every ten seconds.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import PynamoDBException

from mdmlib.errors import UnavailableError
from mdmlib.observability import logger
from mdmlib.services.webhooks import Webhooks
from mdmlib.store.tables import WebhookSubscription

if TYPE_CHECKING:
    from pynamodb.expressions.condition import Condition
    from pynamodb.expressions.update import Action

HOLD_AFTER_FAILURES: Final = 3
FIRST_HOLD_SECONDS: Final = 30
LONGEST_HOLD_SECONDS: Final = 900
"""The longest delay that SQS knows."""

SLOW_SECONDS: Final = 2
"""Who takes longer is slow; and a failure that took longer is as bad as three."""

QUICK_SECONDS: Final = 1
"""Who takes less, on average of the last few, is slow no more."""

WORKERS_OF_A_SLOW_RECEIVER: Final = 2

_KEEP_SUBSCRIPTION_SECONDS: Final = 10
"""For so long an end or a change of a subscription may go unnoticed."""


class WebhookReceivers:
    """What is known of the receivers; made for one thread."""

    def __init__(self, webhooks: Webhooks, *, now: Callable[[], datetime]) -> None:
        self._webhooks = webhooks
        self._now = now
        self._known: dict[str, tuple[WebhookSubscription, int]] = {}

    def find(self, subscription_id: str, *, afresh: bool = False) -> WebhookSubscription | None:
        """Return a subscription as it was at most ten seconds ago, or ``afresh``; None when there is none any more.

        Raises :class:`~mdmlib.errors.UnavailableError`.
        """
        known, read_at = self._known.get(subscription_id, (None, 0))
        if afresh or known is None or self._seconds() - read_at > _KEEP_SUBSCRIPTION_SECONDS:
            try:
                known = self._webhooks.find(subscription_id)
            except PynamoDBException as error:
                raise UnavailableError("A webhook's subscription cannot be read.") from error
            if known is None:
                self._known.pop(subscription_id, None)
            else:
                self._known[subscription_id] = (known, self._seconds())
        return known

    def is_held(self, subscription: WebhookSubscription) -> bool:
        """Whether nothing may be posted now. Of a hold that is over, one caller learns that it is no more: it tries."""
        if subscription.held_until is None:
            return False
        if subscription.held_until > self._seconds():
            return True
        # Whoever prolongs the hold first is the one to try; the others find it prolonged.
        held_until = self._seconds() + hold_seconds(int(subscription.failures))
        condition, url = WebhookSubscription.held_until == subscription.held_until, subscription.url
        try:
            subscription.update([WebhookSubscription.held_until.set(held_until)], condition=condition)
        except PynamoDBException:
            self._known.pop(subscription.name, None)
            return True
        subscription.url = url
        return False

    def turn_ms(self, subscription: WebhookSubscription, given: int | None) -> int:
        """Return when a delivery may go out: ``given`` if it had a turn, 0 when all may go, else a new turn."""
        if subscription.slow_ms is None:
            return 0
        if given is not None:
            return given
        now_ms = int(self._now().timestamp() * 1000)
        interval = math.ceil(int(subscription.slow_ms) / WORKERS_OF_A_SLOW_RECEIVER)
        item, url = WebhookSubscription, subscription.url
        nobody_waits = item.next_turn_ms.does_not_exist() | (item.next_turn_ms <= now_ms)
        behind: tuple[Action, Condition] = (item.next_turn_ms.add(interval), item.next_turn_ms > now_ms)
        first: tuple[Action, Condition] = (
            item.next_turn_ms.set(now_ms + interval),
            item.name.exists() & nobody_waits,
        )
        for action, condition in (behind, first):
            try:
                subscription.update([action], condition=condition)
            except PynamoDBException:
                continue
            subscription.url = url
            return int(subscription.next_turn_ms) - interval
        # DynamoDB is unwell, or many ask at once: later is never wrong.
        self._known.pop(subscription.name, None)
        return now_ms + 10 * interval

    def note_failure(self, subscription: WebhookSubscription, *, seconds: float) -> None:
        """Note that a receiver failed after so many seconds."""
        slow = seconds >= SLOW_SECONDS
        failures = int(subscription.failures) + 1
        actions: list[Action] = []
        if slow and failures < HOLD_AFTER_FAILURES:
            failures = HOLD_AFTER_FAILURES
            actions.append(WebhookSubscription.failures.set(failures))
        else:
            actions.append(WebhookSubscription.failures.add(1))
        if failures >= HOLD_AFTER_FAILURES:
            actions.append(WebhookSubscription.held_until.set(self._seconds() + hold_seconds(failures)))
            # What comes up while it is held loses its turn: nobody has to wait behind those that were given.
            actions.append(WebhookSubscription.next_turn_ms.remove())
            logger.warning("Webhook held", subscription=subscription.name, failures=failures)
        if slow:
            # When the hold ends, what has gathered comes in turns, until it proves to be quick.
            actions.append(WebhookSubscription.slow_ms.set(int(seconds * 1000)))
        self._update(subscription, actions)

    def note_success(self, subscription: WebhookSubscription, *, seconds: float) -> None:
        """Note that a receiver took an event within so many seconds."""
        actions: list[Action] = []
        if subscription.failures or subscription.held_until is not None:
            actions += [WebhookSubscription.failures.set(0), WebhookSubscription.held_until.remove()]
        before = None if subscription.slow_ms is None else int(subscription.slow_ms)
        took = int(seconds * 1000)
        if before is None:
            if seconds >= SLOW_SECONDS:
                actions.append(WebhookSubscription.slow_ms.set(took))
                logger.warning("Webhook slow", subscription=subscription.name, milliseconds=took)
        elif (average := max(took, (before + took) // 2)) < QUICK_SECONDS * 1000:
            actions += [WebhookSubscription.slow_ms.remove(), WebhookSubscription.next_turn_ms.remove()]
        elif abs(average - before) > before // 10:
            actions.append(WebhookSubscription.slow_ms.set(average))
        if actions:
            self._update(subscription, actions)

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

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def hold_seconds(failures: int) -> int:
    """Return how long a subscription is held after so many failures in a row."""
    return doubled(FIRST_HOLD_SECONDS, failures - HOLD_AFTER_FAILURES, LONGEST_HOLD_SECONDS)


def doubled(first: int, times: int, longest: int) -> int:
    """Return ``first``, doubled so many times, but ``longest`` at most."""
    return min(first << min(max(times, 0), 16), longest)
