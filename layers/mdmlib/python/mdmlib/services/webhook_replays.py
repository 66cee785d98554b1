"""Replays: events of a range of time once more, out of the bus' archive, for one subscription.

EventBridge brings them to the rule of that subscription and to no other, so nobody else hears of them again. They have
their first ``event_id``. Replays are named ``<stack>-<subscription><seconds, hex>``; AWS remembers one for 90 days, and
runs ten at a time.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.services.webhook_rules import WebhookRules
from mdmlib.services.webhooks import Webhooks
from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_CLOCKS_DIFFER: Final = timedelta(minutes=5)
_SUFFIX: Final = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay, as far as it is."""

    name: str
    webhook_id: str
    state: str
    """AWS' word in lower case: starting, running, completed, failed, cancelling, cancelled."""
    start: datetime
    end: datetime
    replayed_until: datetime | None = None
    """The time of the last event that was replayed."""
    reason: str | None = None
    """Why it failed."""


class WebhookReplays:
    """Starts, watches and stops replays."""

    def __init__(
        self,
        events_client: "Callable[[], EventBridgeClient]",
        *,
        webhooks: Webhooks,
        rules: WebhookRules,
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._events = events_client
        self._webhooks = webhooks
        self._rules = rules
        self._stack = settings.stack_name
        self._archive = settings.event_archive_arn
        self._kept = timedelta(days=settings.archive_days)
        self._now = now

    def start(self, subscription_id: str, *, start: datetime, end: datetime) -> Replay:
        """Bring the events from ``start`` to ``end`` (aware) to a subscription again, as far as they pass its filter.

        Raises :class:`~mdmlib.errors.NotFoundError`, :class:`~mdmlib.errors.BadRequestError` for a range that cannot
        be replayed, :class:`~mdmlib.errors.ConflictError` when nothing is archived, events of a pause are dropped, or
        AWS runs too many replays, and :class:`~mdmlib.errors.UnavailableError`.
        """
        subscription = self._webhooks.get(subscription_id)
        if not self._archive:
            raise ConflictError(
                "This deployment archives no events: deploy it with ArchiveDays; what came before is lost.",
                code="no_archive",
            )
        if subscription.drops_events:
            raise ConflictError(
                "The webhook is paused and drops its events: resume it first.", code="webhook_drops_events"
            )
        now = self._now()
        if not start < end:
            raise BadRequestError("end has to be later than start.", field="end")
        if end > now + _CLOCKS_DIFFER:
            raise BadRequestError("end is in the future.", field="end")
        if start < now - self._kept:
            raise BadRequestError(f"Events are kept for {self._kept.days} days (ArchiveDays).", field="start")
        end = min(end, now)
        name = f"{self._prefix(subscription_id)}{int(now.timestamp()):08x}"
        with _told(name):
            answer = self._events().start_replay(
                ReplayName=name,
                Description=f"For the webhook {subscription_id}, by PicoMDM's API.",
                EventSourceArn=self._archive,
                EventStartTime=start,
                EventEndTime=end,
                Destination={"Arn": self._rules.bus_arn, "FilterArns": [self._rules.arn(subscription_id)]},
            )
        return Replay(name=name, webhook_id=subscription_id, state=_state(answer), start=start, end=end)

    def get(self, subscription_id: str, name: str) -> Replay:
        """Return how a replay goes. Raises :class:`~mdmlib.errors.NotFoundError`, also for another webhook's."""
        self._check_name(subscription_id, name)
        with _told(name):
            answer = self._events().describe_replay(ReplayName=name)
        return Replay(
            name=name,
            webhook_id=subscription_id,
            state=_state(answer),
            start=answer["EventStartTime"].astimezone(UTC),
            end=answer["EventEndTime"].astimezone(UTC),
            replayed_until=answer.get("EventLastReplayedTime"),
            reason=answer.get("StateReason") or None,
        )

    def cancel(self, subscription_id: str, name: str) -> None:
        """Stop a replay; what is in the webhook queue already is delivered.

        Raises :class:`~mdmlib.errors.NotFoundError`, and :class:`~mdmlib.errors.ConflictError` when it is over.
        """
        self._check_name(subscription_id, name)
        with _told(name):
            self._events().cancel_replay(ReplayName=name)

    def _check_name(self, subscription_id: str, name: str) -> None:
        self._webhooks.get(subscription_id)
        prefix = self._prefix(subscription_id)
        if not (name.startswith(prefix) and _SUFFIX.fullmatch(name.removeprefix(prefix))):
            raise _unknown(name)

    def _prefix(self, subscription_id: str) -> str:
        return f"{self._stack}-{subscription_id}"


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn the bus' errors into ours."""
    try:
        yield
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "ResourceNotFoundException":
                raise _unknown(name) from error
            case "ResourceAlreadyExistsException":
                raise ConflictError("This replay was started a moment ago.", code="replay_started") from error
            case "LimitExceededException":
                raise ConflictError(
                    "AWS runs no more replays at the moment (10, in an account and region).", code="too_many_replays"
                ) from error
            case "IllegalStatusException" | "ValidationException":
                raise ConflictError(f"The replay {name} is over.", code="replay_over") from error
        raise UnavailableError("The event bus' archive does not answer as it should.") from error
    except BotoCoreError as error:
        raise UnavailableError("The event bus cannot be reached.") from error


def _state(answer: Any) -> str:  # noqa: ANN401 - several of botocore's answers have it
    return str(answer["State"]).lower()


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"There is no replay {name[:100]!r} of this webhook.", field="replay")
