"""NanoCMD's event subscriptions: plans that begin by themselves when a device checks in, or has nothing to do.

A plan begins once for an event: its run is made of the event's id and the subscription's name. None begins where one of
its kind is under way, and none for an idle moment before the end of the last one: a device asks for the commands of a
plan, too, and each plan would be followed by another.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple import event as documents
from mdmlib.errors import BadRequestError, NotFoundError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows, kind_of
from mdmlib.services.plans import Situation
from mdmlib.services.workflow_rules import CHECKINS, IDLE, WorkflowRules
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import WorkflowEvent

COLLECTION: Final = "workflow_event"

AUTHENTICATE: Final = "Authenticate"
TOKEN_UPDATE: Final = "TokenUpdate"  # noqa: S105 - a message
ENROLLMENT: Final = "Enrollment"
IDLES: Final = "Idle"
IDLE_NOT_STARTED_SINCE: Final = "IdleNotStartedSince"
EVENTS: Final = (AUTHENTICATE, TOKEN_UPDATE, ENROLLMENT, IDLES, IDLE_NOT_STARTED_SINCE)

_CHECK_OUT: Final = "CheckOut"
_RULES: Final = {AUTHENTICATE: CHECKINS, TOKEN_UPDATE: CHECKINS, IDLES: IDLE, IDLE_NOT_STARTED_SINCE: IDLE}
"""The rule of the bus that each needs; an enrollment is told of in any case."""
_LONGEST_NAME: Final = 200
_KEPT: Final = timedelta(minutes=1)
"""Of subscriptions, while devices ask for commands: a new one begins to count within a minute."""


@dataclass(frozen=True)
class Subscription:
    """What begins when something happens."""

    name: str
    event: str
    workflow: str
    context: str = field(default="", repr=False)
    """It may hold a secret that a profile is to get."""
    event_context: str | None = None
    """Of ``IdleNotStartedSince``: for how many seconds none has begun."""

    def begins(self, situation: Situation, at: datetime) -> bool:
        """Say whether a plan begins for a device, at the time of the event."""
        former = situation.former
        if former is None:
            return True
        if former.phase is not None:
            return False
        if self.event == IDLE_NOT_STARTED_SINCE:
            return at.timestamp() - situation.former_begun_at >= int(self.event_context or 0)
        return self.event != IDLES or at.timestamp() > situation.former_changed_at


class WorkflowEvents:
    """Keeps subscriptions, and begins what shall begin."""

    def __init__(
        self,
        *,
        workflows: NanoCMDWorkflows,
        rules: WorkflowRules,
        wake: Callable[[str], object],
        sealer: Sealer,
        now: Callable[[], datetime],
    ) -> None:
        """``wake`` wakes an enrollment."""
        self._workflows = workflows
        self._rules = rules
        self._wake = wake
        self._sealer = sealer
        self._now = now
        self._kept: tuple[datetime, list[Subscription]] | None = None

    def put(self, name: str, document: Mapping[str, Any]) -> None:
        """Store one. Raises :class:`~mdmlib.errors.BadRequestError`, and as :class:`WorkflowRules` does."""
        _check_name(name)
        subscription = Subscription(
            name,
            str(document.get("event") or ""),
            str(document.get("workflow") or ""),
            str(document.get("context") or ""),
            str(document["event_context"]) if document.get("event_context") else None,
        )
        _check(subscription)
        self._workflows.options(kind_of(subscription.workflow), subscription.context)
        # First the rule: one too many costs some messages, one too few would keep silent.
        self._rules.enable(_rules([subscription]))
        WorkflowEvent(
            COLLECTION,
            name,
            event=subscription.event,
            workflow=subscription.workflow,
            context=self._sealer.seal(subscription.context.encode(), place=_place(name)),
            event_context=subscription.event_context,
        ).save()
        self._disable_unused()

    def get(self, name: str) -> Subscription:
        """Return one. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            _check_name(name)
            return self._opened(WorkflowEvent.get(COLLECTION, name, consistent_read=True))
        except (BadRequestError, DoesNotExist):
            raise NotFoundError(f"There is no event {name[:_LONGEST_NAME]}.", code="unknown_event") from None

    def delete(self, name: str) -> None:
        """Let it begin no more."""
        _check_name(name)
        WorkflowEvent(COLLECTION, name).delete()
        self._disable_unused()

    def list(self) -> Iterator[Subscription]:
        """Yield all, by name."""
        for item in WorkflowEvent.query(COLLECTION, consistent_read=True):
            yield self._opened(item)

    def keep_rules(self) -> None:
        """Enable the rules that subscriptions need: an update of the stack may have disabled them."""
        self._rules.enable(_rules(self.list()))

    # What happens

    def on_enrollment(self, enrollment_id: str, event_id: str) -> None:
        """Begin what shall begin with an enrollment: its TokenUpdate is one, too."""
        known = list(self.list())
        self._begin(known, {ENROLLMENT, TOKEN_UPDATE}, enrollment_id, event_id)
        if any(one.event == AUTHENTICATE for one in known):
            # What began before has waited for the token that a device is woken with.
            self._wake(enrollment_id)

    def on_checkin(self, topic: str, enrollment_id: str, event_id: str) -> None:
        """Begin what shall begin with an Authenticate or a TokenUpdate."""
        self._begin(self.list(), {topic.removeprefix("mdm.")}, enrollment_id, event_id)

    def on_idle(self, enrollment_id: str, event_id: str) -> None:
        """Begin what shall begin when a device asks for commands."""
        now = self._now()
        if self._kept is None or now - self._kept[0] >= _KEPT:
            self._kept = now, list(self.list())
        self._begin(self._kept[1], {IDLES, IDLE_NOT_STARTED_SINCE}, enrollment_id, event_id)

    def _begin(self, known: Iterable[Subscription], events: set[str], enrollment_id: str, event_id: str) -> None:
        """Begin the plans of subscriptions; once more does no harm. What is wrong with one stops no other."""
        for one in known:
            if one.event not in events:
                continue
            at = documents.uuid7_time(event_id)
            try:
                self._workflows.begin(
                    one.workflow,
                    enrollment_id,
                    one.context,
                    run=f"{event_id}-{one.name}",
                    cause="enrollment" if one.event == ENROLLMENT else "event",
                    begins=partial(one.begins, at=at),
                )
            except UnavailableError:
                raise
            except PicoMDMError as error:
                logger.warning("Workflow not begun", subscription=one.name, code=error.code, reason=error.message)

    def _disable_unused(self) -> None:
        self._rules.disable({CHECKINS, IDLE} - _rules(self.list()))

    def _opened(self, item: WorkflowEvent) -> Subscription:
        context = self._sealer.open(item.context, place=_place(item.name)).decode()
        return Subscription(item.name, item.event, item.workflow, context, item.event_context)


def _rules(subscriptions: Iterable[Subscription]) -> set[str]:
    return {_RULES[one.event] for one in subscriptions if one.event in _RULES}


def _check(subscription: Subscription) -> None:
    event, seconds = subscription.event, subscription.event_context
    if event == _CHECK_OUT:
        raise BadRequestError(
            "A device that has checked out takes no commands: no workflow can begin. Webhooks tell of mdm.CheckOut.",
            code="invalid_field",
            field="event",
        )
    if event not in EVENTS:
        raise BadRequestError(f"invalid event type: {event[:100]}", code="invalid_field", field="event")
    if event == IDLE_NOT_STARTED_SINCE and not (seconds and seconds.isascii() and seconds.isdigit()):
        raise BadRequestError(
            "event_context has to be a number of seconds, as a text: after so long the workflow begins again.",
            code="invalid_field",
            field="event_context",
        )


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= _LONGEST_NAME or not name.isprintable():
        raise BadRequestError(f"A name is 1 to {_LONGEST_NAME} characters.", code="invalid_field", field="name")


def _place(name: str) -> str:
    return f"{COLLECTION}/{name}"
